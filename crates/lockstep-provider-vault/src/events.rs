//! Receives the events of Vault Enterprise over a WebSocket ("Event notifications" in Vault's
//! documentation, `/sys/events` in its API documentation). Events are neither acknowledged nor
//! delivered again. Events without a connection are lost, so a new connection reports that anything
//! may have changed.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{SinkExt as _, StreamExt as _};
use jiff::Timestamp;
use lockstep_api::vault::KvVersion;
use lockstep_core::events::VersionHint;
use lockstep_provider::{ErrorKind, EventKind, EventSource, Message, Operation, ProviderError};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Mutex,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self,
        protocol::{Role, WebSocketConfig},
    },
};

use crate::{
    auth::Authenticated,
    client::Connection,
    connections::{self, CONNECTIONS, Permit},
    endpoint::Subscribe,
    error::Purpose,
    path::KvLocator,
};

/// Events of key/value engines of both versions.
const TYPES: &str = "kv*";
/// Maximum length of a message that does not break the connection, in bytes.
const LONGEST_MESSAGE: usize = 32 << 10;
/// Size of the read buffer of a connection, in bytes.
const READ_BUFFER: usize = 8 << 10;
/// Maximum length of an event that is parsed, in bytes. Events contain paths and numbers.
const LONGEST: usize = 16 << 10;
/// Maximum length of the path of an event, in bytes. No key is longer.
const LONGEST_PATH: usize = 2048;
/// Maximum number of digits of a version.
const MOST_DIGITS: usize = 20;
/// The server is pinged after this long without any event.
const QUIET: Duration = Duration::from_secs(30);
/// A server that leaves this many pings unanswered counts as gone.
const UNANSWERED: u8 = 2;
/// Timeout for sending a ping. The send buffer of a connection without a peer fills up.
const ASK: Duration = Duration::from_secs(10);
/// Maximum number of events per call.
const MOST: usize = 100;

/// A connection that delivers events.
struct Socket<C> {
    frames: WebSocketStream<C>,
    /// Number of pings since the server last sent anything. It persists between calls, because a
    /// call ends after one quiet period.
    unanswered: u8,
    /// Counts the connection while it is open.
    _permit: Option<Permit>,
}

/// What arrived over a connection.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// The text of an event.
    Text(String),
    /// A message that is not an event.
    Garbage,
    /// A sign of life from the server.
    Alive,
    /// Nothing arrived for a while, and the server was pinged.
    Quiet,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Socket<C> {
    fn new(frames: WebSocketStream<C>, permit: Option<Permit>) -> Self {
        Self {
            frames,
            unanswered: 0,
            _permit: permit,
        }
    }

    /// Returns what arrives next, or that nothing arrived for a while. The future is cancellation
    /// safe.
    async fn next(&mut self) -> Result<Heard, ProviderError> {
        let broke = || {
            let message = "the connection that events come over ended";
            ProviderError::new(ErrorKind::Unavailable, Operation::Listen, message)
        };
        let Ok(frame) = timeout(QUIET, self.frames.next()).await else {
            if self.unanswered >= UNANSWERED {
                return Err(broke());
            }
            self.unanswered += 1;
            let ping = tungstenite::Message::Ping(Vec::new().into());
            return match timeout(ASK, self.frames.send(ping)).await {
                Ok(Err(_)) => Err(broke()),
                Ok(Ok(())) | Err(_) => Ok(Heard::Quiet),
            };
        };
        self.unanswered = 0;
        match frame {
            Some(Ok(tungstenite::Message::Text(text))) if text.as_str().len() > LONGEST => Ok(Heard::Garbage),
            Some(Ok(tungstenite::Message::Text(text))) => Ok(Heard::Text(text.as_str().to_owned())),
            Some(Ok(tungstenite::Message::Ping(_) | tungstenite::Message::Pong(_))) => Ok(Heard::Alive),
            Some(Ok(tungstenite::Message::Binary(_) | tungstenite::Message::Frame(_))) => Ok(Heard::Garbage),
            // the library's own error may contain received data
            Some(Ok(tungstenite::Message::Close(_)) | Err(_)) | None => Err(broke()),
        }
    }
}

/// Subscribes to events and receives them.
pub(crate) struct Subscription {
    server: Arc<Authenticated>,
    locator: KvLocator,
    /// The namespace of a SecretStore.
    namespace: Option<String>,
    state: Mutex<State>,
}

/// The state of the connection.
#[derive(Default)]
enum State {
    /// There is no connection yet.
    #[default]
    Unconnected,
    /// The connection is open.
    Open(Box<Socket<reqwest::Upgraded>>),
    /// The connection ended, and the error was not returned yet.
    Ended(ProviderError),
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Subscription").field(&self.server).finish()
    }
}

impl Subscription {
    pub(crate) fn new(server: Arc<Authenticated>, locator: KvLocator, namespace: Option<String>) -> Self {
        Self {
            server,
            locator,
            namespace,
            state: Mutex::default(),
        }
    }

    async fn connect(&self) -> Result<Socket<reqwest::Upgraded>, ProviderError> {
        let permit = CONNECTIONS.open(self.namespace.as_deref()).ok_or_else(|| {
            let message = format!(
                "the SecretStores of the namespace already have {} connections for events of Vault",
                connections::MOST
            );
            ProviderError::new(ErrorKind::Unavailable, Operation::Listen, message)
                .with_hint("Use fewer SecretStores with spec.events.vault, or one ClusterSecretStore")
        })?;
        let subscribe = Subscribe {
            types: TYPES,
            json: true,
        };
        match self.server.connect(&subscribe).await? {
            Connection::Open(connection) => {
                let config = WebSocketConfig::default()
                    .read_buffer_size(READ_BUFFER)
                    .max_message_size(Some(LONGEST_MESSAGE))
                    .max_frame_size(Some(LONGEST_MESSAGE));
                let frames = WebSocketStream::from_raw_socket(*connection, Role::Client, Some(config)).await;
                Ok(Socket::new(frames, Some(permit)))
            }
            Connection::Refused(answer) => {
                let path = format!("sys/events/subscribe/{TYPES}");
                let purpose = Purpose {
                    operation: Operation::Listen,
                    doing: "subscribing to events".to_owned(),
                    identity: self.server.identity(),
                    missing: "the server has no events".to_owned(),
                    mount: path.clone(),
                    policy: Some((path, "read")),
                };
                let error = purpose.failed(&answer);
                let is_there = !matches!(answer.status, 400 | 404 | 405);
                if is_there || error.kind == ErrorKind::Malformed {
                    return Err(error);
                }
                let message = format!(
                    "the server has no events to subscribe to (status {})",
                    answer.status
                );
                Err(
                    ProviderError::new(ErrorKind::Unsupported, Operation::Listen, message)
                        .with_hint("Only Vault Enterprise has: leave spec.events out"),
                )
            }
        }
    }

    /// Returns the next event, or `None` if there was none for a while.
    async fn next(&self, socket: &mut Socket<reqwest::Upgraded>) -> Result<Option<Message>, ProviderError> {
        Ok(match socket.next().await? {
            Heard::Text(text) => Some(message(
                &text,
                self.locator.mount.as_deref(),
                self.locator.version,
            )),
            Heard::Garbage => Some(of_kind(EventKind::Malformed, None)),
            Heard::Alive => None,
            Heard::Quiet => {
                self.server.keep_alive().await;
                None
            }
        })
    }
}

#[async_trait]
impl EventSource for Subscription {
    async fn receive(&self) -> Result<Vec<Message>, ProviderError> {
        let mut state = self.state.lock().await;
        let socket = match &mut *state {
            State::Open(socket) => socket,
            State::Ended(error) => {
                let error = error.clone();
                *state = State::Unconnected;
                return Err(error);
            }
            State::Unconnected => {
                *state = State::Open(Box::new(self.connect().await?));
                return Ok(vec![of_kind(EventKind::Anything, None)]);
            }
        };
        let mut messages = Vec::new();
        let mut next = self.next(socket).await;
        loop {
            match next {
                Ok(message) => messages.extend(message),
                Err(error) if messages.is_empty() => {
                    *state = State::Unconnected;
                    return Err(error);
                }
                Err(error) => {
                    // the events before the end are returned first
                    *state = State::Ended(error);
                    return Ok(messages);
                }
            }
            if messages.is_empty() || messages.len() >= MOST {
                return Ok(messages);
            }
            // takes only events that have already arrived
            match timeout(Duration::ZERO, self.next(socket)).await {
                Ok(more) => next = more,
                Err(_) => return Ok(messages),
            }
        }
    }
}

fn of_kind(kind: EventKind, at: Option<Timestamp>) -> Message {
    Message {
        id: String::new(),
        receipt: None,
        kind,
        at,
    }
}

/// Converts an event to a message for a store that reads this mount, or any mount if there is none.
fn message(text: &str, mount: Option<&str>, version: KvVersion) -> Message {
    let Ok(event) = serde_json::from_str::<Value>(text) else {
        return of_kind(EventKind::Malformed, None);
    };
    let at = event["time"].as_str().and_then(|time| time.parse().ok());
    let data = &event["data"];
    let (Some(kind), metadata) = (data["event_type"].as_str(), &data["event"]["metadata"]) else {
        return of_kind(EventKind::Malformed, at);
    };
    let field = |name: &str| metadata[name].as_str().filter(|text| !text.is_empty());
    let path = field("data_path").or_else(|| field("path"));
    let Some(path) = path.filter(|path| path.len() <= LONGEST_PATH) else {
        return of_kind(EventKind::Malformed, at);
    };
    let Some((engine, verb)) = kind.split_once('/') else {
        return of_kind(EventKind::Malformed, at);
    };
    let of_version = match engine {
        "kv-v1" => KvVersion::V1,
        "kv-v2" => KvVersion::V2,
        _ => return of_kind(EventKind::Irrelevant, at),
    };
    if of_version != version || verb.starts_with("config") || field("modified") == Some("false") {
        return of_kind(EventKind::Irrelevant, at);
    }
    let engine = data["plugin_info"]["mount_path"].as_str().or(mount);
    let Some((engine, below)) = below(path, engine.map(|engine| engine.trim_matches('/'))) else {
        return of_kind(EventKind::Malformed, at);
    };
    if mount.is_some_and(|mount| mount != engine) {
        return of_kind(EventKind::Irrelevant, at);
    }
    let name = match version {
        KvVersion::V1 => below,
        // the path of an event of version 2 starts with the operation
        KvVersion::V2 => match below.split_once('/') {
            Some(("data" | "metadata" | "delete" | "undelete" | "destroy", name)) => name,
            _ => below,
        },
    };
    let mut keys = vec![format!("{engine}/{name}")];
    if version == KvVersion::V2 {
        keys.push(format!("{engine}/data/{name}"));
    }
    if mount.is_some() {
        keys.push(name.to_owned());
    }
    let number = field("current_version").filter(|text| {
        let is_number =
            text.len() <= MOST_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit()) && *text != "0";
        is_number && matches!(verb, "data-write" | "data-patch") && version == KvVersion::V2
    });
    let what = match number {
        Some(number) => EventKind::VersionChanged(VersionHint {
            keys,
            version: number.to_owned(),
            read_version: number.to_owned(),
            at,
        }),
        None => EventKind::Changed(keys),
    };
    of_kind(what, at)
}

/// Returns the engine of a path, and the part of the path below it. If the engine is unknown, it is
/// the first segment.
fn below<'a>(path: &'a str, engine: Option<&'a str>) -> Option<(&'a str, &'a str)> {
    match engine {
        Some(engine) => {
            let below = path.strip_prefix(engine)?.strip_prefix('/')?;
            Some((engine, below)).filter(|_| !below.is_empty())
        }
        None => path.split_once('/').filter(|(_, below)| !below.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::{io::DuplexStream, time::Instant};

    use super::*;

    fn event(kind: &str, mount: &str, metadata: &Value) -> String {
        json!({
            "id": "1", "source": "vault://node", "specversion": "1.0", "type": "*",
            "time": "2026-11-27T08:00:00.25+01:00", "datacontentype": "application/cloudevents",
            "data": {
                "event": { "id": "1", "metadata": metadata },
                "event_type": kind,
                "plugin_info": { "mount_class": "secret", "mount_path": mount, "plugin": "kv" },
            },
        })
        .to_string()
    }

    /// Creates both ends of a connection, without a handshake.
    async fn connection() -> (Socket<DuplexStream>, WebSocketStream<DuplexStream>) {
        let (here, there) = tokio::io::duplex(1 << 16);
        let here = WebSocketStream::from_raw_socket(here, Role::Client, None).await;
        let there = WebSocketStream::from_raw_socket(there, Role::Server, None).await;
        (Socket::new(here, None), there)
    }

    #[tokio::test(start_paused = true)]
    async fn silent_server_is_given_up_across_several_calls() {
        let (mut socket, _there) = connection().await;
        let began = Instant::now();
        for asked in 1..=UNANSWERED {
            // the consumer limits each call to this time
            let heard = timeout(Duration::from_secs(60), socket.next()).await;
            assert_eq!(heard.unwrap().unwrap(), Heard::Quiet);
            assert_eq!(socket.unanswered, asked);
        }
        let error = timeout(Duration::from_secs(60), socket.next()).await;
        assert_eq!(error.unwrap().unwrap_err().kind, ErrorKind::Unavailable);
        assert_eq!(began.elapsed(), QUIET * 3);
    }

    #[tokio::test(start_paused = true)]
    async fn server_that_stops_reading_is_given_up() {
        let (here, _there) = tokio::io::duplex(1);
        let frames = WebSocketStream::from_raw_socket(here, Role::Client, None).await;
        let mut socket = Socket::new(frames, None);
        let given_up = async {
            loop {
                if let Err(error) = timeout(Duration::from_secs(60), socket.next()).await.unwrap() {
                    return error;
                }
            }
        };
        let error = timeout(Duration::from_secs(300), given_up).await.unwrap();
        assert_eq!(error.kind, ErrorKind::Unavailable);
    }

    #[tokio::test(start_paused = true)]
    async fn quiet_server_that_answers_pings_is_kept() {
        let (mut socket, mut there) = connection().await;
        // reading makes the other end answer pings
        let answering = async { while let Some(Ok(_)) = there.next().await {} };
        let listening = async {
            for _ in 0..20 {
                assert_eq!(socket.next().await.unwrap(), Heard::Quiet);
                assert_eq!(socket.next().await.unwrap(), Heard::Alive);
                assert_eq!(socket.unanswered, 0);
            }
        };
        tokio::select! {
            () = answering => panic!("the connection ended"),
            () = listening => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn overlong_event_is_garbage_and_the_next_is_received() {
        let (mut socket, mut there) = connection().await;
        for length in [LONGEST + 1, LONGEST] {
            let text = "x".repeat(length);
            let sent = there.send(tungstenite::Message::Text(text.into())).await;
            sent.unwrap();
        }
        assert_eq!(socket.next().await.unwrap(), Heard::Garbage);
        assert_eq!(socket.next().await.unwrap(), Heard::Text("x".repeat(LONGEST)));
    }

    #[test]
    fn invalid_paths_are_malformed_and_bad_versions_dropped() {
        let of = |path: &str, number: &str| {
            let metadata = json!({ "path": path, "current_version": number });
            let text = event("kv-v2/data-write", "secret/", &metadata);
            message(&text, Some("secret"), KvVersion::V2).kind
        };
        let begin = "secret/data/";
        let longest = format!("{begin}{}", "x".repeat(LONGEST_PATH - begin.len()));
        assert!(matches!(of(&longest, "7"), EventKind::VersionChanged(_)));
        assert_eq!(of(&format!("{longest}x"), "7"), EventKind::Malformed);
        let digits = "9".repeat(MOST_DIGITS + 1);
        assert!(matches!(of("secret/data/shop", &digits), EventKind::Changed(_)));
    }

    fn keys(message: &Message) -> Vec<&str> {
        message.kind.keys().iter().map(String::as_str).collect()
    }

    #[test]
    fn write_event_names_the_value_in_every_form_and_version() {
        let metadata = json!({
            "current_version": "7", "oldest_version": "0", "modified": "true", "operation": "data-write",
            "data_path": "secret/data/shop/database", "path": "secret/data/shop/database",
        });
        let text = event("kv-v2/data-write", "secret/", &metadata);
        let message = message(&text, Some("secret"), KvVersion::V2);
        assert_eq!(
            keys(&message),
            [
                "secret/shop/database",
                "secret/data/shop/database",
                "shop/database"
            ]
        );
        let EventKind::VersionChanged(hint) = &message.kind else {
            panic!("{message:?}")
        };
        assert_eq!((hint.version.as_str(), hint.read_version.as_str()), ("7", "7"));
        assert_eq!(message.at, Some("2026-11-27T07:00:00.25Z".parse().unwrap()));
        assert!(message.receipt.is_none());
    }

    #[test]
    fn other_events_name_the_value_without_a_version() {
        for (kind, path) in [
            ("kv-v2/delete", "secret/delete/shop/database"),
            ("kv-v2/destroy", "secret/destroy/shop/database"),
            ("kv-v2/undelete", "secret/undelete/shop/database"),
            ("kv-v2/metadata-write", "secret/metadata/shop/database"),
            ("kv-v2/data-delete", "secret/data/shop/database"),
        ] {
            let text = event(kind, "secret/", &json!({ "path": path, "modified": "true" }));
            let message = message(&text, None, KvVersion::V2);
            assert!(matches!(message.kind, EventKind::Changed(_)), "{kind}");
            assert!(
                keys(&message).contains(&"secret/shop/database"),
                "{kind}: {message:?}"
            );
        }
        let text = event("kv-v1/write", "old/", &json!({ "path": "old/shop/database" }));
        let message = message(&text, Some("old"), KvVersion::V1);
        assert_eq!(keys(&message), ["old/shop/database", "shop/database"]);
    }

    #[test]
    fn irrelevant_events_are_ignored_and_unknown_are_malformed() {
        let path = json!({ "path": "other/data/a" });
        let nothing = [
            event("kv-v2/data-write", "other/", &path),
            event(
                "kv-v2/config-write",
                "secret/",
                &json!({ "path": "secret/config" }),
            ),
            event("kv-v1/write", "secret/", &json!({ "path": "secret/a" })),
            event(
                "database/rotate",
                "database/",
                &json!({ "path": "database/rotate-root/a" }),
            ),
        ];
        for text in nothing {
            assert_eq!(
                message(&text, Some("secret"), KvVersion::V2).kind,
                EventKind::Irrelevant,
                "{text}"
            );
        }
        let malformed = [
            String::new(),
            "{".to_owned(),
            "[]".to_owned(),
            "{}".to_owned(),
            event("kv-v2/data-write", "secret/", &json!({})),
            event("kv-v2/data-write", "secret/", &json!({ "path": "elsewhere" })),
            event("nonsense", "secret/", &path),
        ];
        for text in malformed {
            assert_eq!(
                message(&text, Some("secret"), KvVersion::V2).kind,
                EventKind::Malformed,
                "{text}"
            );
        }
    }
}
