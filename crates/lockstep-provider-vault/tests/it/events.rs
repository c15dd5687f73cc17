//! Tests the events of Vault Enterprise with a scripted server, because OpenBao has no events.

use std::sync::Arc;

use futures::{SinkExt as _, StreamExt as _};
use lockstep_provider::{ErrorKind, EventKind, EventSource};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message as Frame,
        handshake::server::{ErrorResponse, Request, Response},
    },
};

use crate::bench::{CANARY, Objects, Store, bao, stocked};

/// What the server does with the next connection.
enum Script {
    /// Accepts the WebSocket, sends these messages, and keeps it open.
    Say(Vec<String>),
    /// Accepts the WebSocket, sends these messages, and closes it.
    SayAndClose(Vec<String>),
    /// Responds with this status and body.
    Answer(u16, &'static str),
}

/// Starts a server that follows a script, connection by connection. Reports the token and the path
/// of each request.
async fn server(scripts: Vec<Script>) -> (String, mpsc::UnboundedReceiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (asked, questions) = mpsc::unbounded_channel();
    #[expect(clippy::disallowed_methods, reason = "it stands for a server elsewhere")]
    tokio::spawn(async move {
        let mut held = Vec::new();
        for script in scripts {
            let (stream, _) = listener.accept().await.unwrap();
            let (says, closes) = match script {
                Script::Say(says) => (says, false),
                Script::SayAndClose(says) => (says, true),
                Script::Answer(status, body) => {
                    answer(stream, status, body).await;
                    continue;
                }
            };
            let asked = asked.clone();
            #[expect(clippy::result_large_err, reason = "the library's own type")]
            let note = move |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
                let header = |name: &str| request.headers().get(name).unwrap().to_str().unwrap().to_owned();
                let _ = asked.send((header("x-vault-token"), request.uri().to_string()));
                Ok(response)
            };
            let mut socket = accept_hdr_async(stream, note).await.unwrap();
            for text in says {
                socket.send(Frame::Text(text.into())).await.unwrap();
            }
            if closes {
                let _ = socket.close(None).await;
                while let Some(Ok(_)) = socket.next().await {}
            } else {
                held.push(socket);
            }
        }
        std::future::pending::<()>().await;
    });
    (address, questions)
}

async fn answer(mut stream: TcpStream, status: u16, body: &str) {
    let mut head = [0; 4096];
    let _ = stream.read(&mut head).await;
    let text = format!(
        "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(text.as_bytes()).await;
}

async fn listen(address: &str) -> Arc<dyn EventSource> {
    let vault = json!({
        "server": address, "path": "secret", "auth": { "tokenSecretRef": { "name": "token", "key": "token" } },
    });
    let objects = Objects::default().with("token", "token", "s.CANARY-token");
    let events = json!({ "vault": {} });
    let store = Store::build_hearing(vault, Some(events), &objects).await.unwrap();
    store.0.events().unwrap()
}

fn written(key: &str, version: u64) -> String {
    let path = format!("secret/data/{key}");
    json!({
        "time": "2026-11-27T07:00:00Z",
        "data": {
            "event": { "metadata": {
                "current_version": version.to_string(), "data_path": path, "path": path, "modified": "true",
            } },
            "event_type": "kv-v2/data-write", "plugin_info": { "mount_path": "secret/" },
        },
    })
    .to_string()
}

async fn all(source: &dyn EventSource, count: usize) -> Vec<EventKind> {
    let mut kind = Vec::new();
    while kind.len() < count {
        let messages = source.receive().await.unwrap();
        assert!(messages.iter().all(|message| message.receipt.is_none()));
        kind.extend(messages.into_iter().map(|message| message.kind));
    }
    kind
}

#[tokio::test]
async fn new_connection_reports_anything_and_then_events() {
    let says = vec![
        written("shop/database", 7),
        CANARY.to_owned(),
        written("shop/cache", 1),
    ];
    let (address, mut asked) = server(vec![Script::Say(says)]).await;
    let source = listen(&address).await;
    let kind = all(source.as_ref(), 4).await;
    assert_eq!(kind[0], EventKind::Anything);
    assert!(kind[1].keys().contains(&"shop/database".to_owned()), "{kind:?}");
    assert_eq!(kind[2], EventKind::Malformed);
    assert!(kind[3].keys().contains(&"shop/cache".to_owned()), "{kind:?}");
    let (token, path) = asked.recv().await.unwrap();
    assert_eq!(token, "s.CANARY-token");
    assert_eq!(path, "/v1/sys/events/subscribe/kv*?json=true");
    assert!(!format!("{source:?} {kind:?}").contains(CANARY));
}

#[tokio::test]
async fn closed_connection_is_reopened_and_reports_anything() {
    let (address, _asked) = server(vec![
        Script::SayAndClose(vec![written("shop/a", 1)]),
        Script::Say(vec![written("shop/b", 1)]),
    ])
    .await;
    let source = listen(&address).await;
    let kind = all(source.as_ref(), 2).await;
    assert_eq!(kind[0], EventKind::Anything);
    let error = source.receive().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    let kind = all(source.as_ref(), 2).await;
    assert_eq!(
        kind[0],
        EventKind::Anything,
        "what happened meanwhile, nobody knows"
    );
    assert!(kind[1].keys().contains(&"shop/b".to_owned()));
}

#[tokio::test]
async fn missing_events_and_denied_events_have_different_errors() {
    // the responses to an unknown path, and to a token without the permission
    let none = r#"{"errors":["CANARY unsupported path"]}"#;
    let denied = r#"{"errors":["1 error occurred:\n\t* CANARY permission denied\n\n"]}"#;
    let known = r#"{"data":{"id":"x"}}"#;
    let (address, _asked) = server(vec![
        Script::Answer(404, none),
        Script::Answer(403, denied),
        // the lookup whether the server still knows the token
        Script::Answer(200, known),
    ])
    .await;
    let source = listen(&address).await;
    let error = source.receive().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("Enterprise"), "{error}");
    let error = source.receive().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
    assert!(error.to_string().contains("sys/events/subscribe/kv*"), "{error}");
    assert!(!format!("{error} {error:?}").contains(CANARY));
}

#[tokio::test]
async fn openbao_without_events_fails_with_a_hint() {
    let bao = bao().await;
    let (mount, policy) = stocked(bao).await;
    let token = bao.create_token(&[&policy, "default"]).await.unwrap();
    let vault: Value = json!({
        "server": bao.address(), "path": mount, "auth": { "tokenSecretRef": { "name": "token", "key": "token" } },
    });
    let objects = Objects::default().with("token", "token", token);
    let store = Store::build_hearing(vault, Some(json!({ "vault": {} })), &objects)
        .await
        .unwrap();
    let error = store.0.events().unwrap().receive().await.unwrap_err();
    assert!(
        matches!(error.kind, ErrorKind::Unsupported | ErrorKind::PermissionDenied),
        "{error}"
    );
}

/// Each connection can hold an unfinished message.
#[tokio::test]
async fn event_connections_of_a_namespace_are_limited() {
    let (address, _asked) = server((0..18).map(|_| Script::Say(Vec::new())).collect()).await;
    let vault = json!({
        "server": address, "path": "secret", "auth": { "tokenSecretRef": { "name": "token", "key": "token" } },
    });
    let objects = Objects::default().with("token", "token", "s.CANARY-token");
    let listen = async |namespace: &str| {
        let store = Store::build_in(namespace, vault.clone(), &objects).await;
        store.0.events().unwrap()
    };
    let mut open = Vec::new();
    for _ in 0..16 {
        let source = listen("crowded").await;
        source.receive().await.unwrap();
        open.push(source);
    }
    let next = listen("crowded").await;
    let error = next.receive().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("16 connections"), "{error}");
    listen("other").await.receive().await.unwrap();
    open.pop();
    next.receive().await.unwrap();
}
