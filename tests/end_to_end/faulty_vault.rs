//! A stand-in of Vault that is as sick as a test wants it: one for each test, on loopback, in the test's own process. It
//! speaks the key/value engine version 2 at `secret/` and the token lookup, and writes down what it is asked. It can be sick for
//! some keys alone.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Result;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header::RETRY_AFTER},
    response::Response,
};
use futures::stream;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

use crate::shared_cluster::TestNamespace;

/// How the server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// As Vault does.
    Well,
    /// Never.
    Hangs,
    /// As Vault does, so much later.
    Slow(Duration),
    /// As a proxy that has lost its backend: HTML, with this status.
    Html(u16),
    /// JSON that ends in the middle, in an answer that is whole.
    CutJson,
    /// The connection breaks in the middle of the answer.
    BreaksOff,
    /// JSON of another form, with the value in it.
    OtherForm,
    /// A body without end.
    Endless,
    /// 429, with this `Retry-After` in seconds.
    Throttles(u64),
    /// No policy allows to read.
    Denies,
    /// 503 as a sealed server says it.
    Sealed,
    /// A value of this many bytes.
    Large(usize),
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    pub(crate) path: String,
}

#[derive(Debug)]
struct Inner {
    mood: Mood,
    /// Another mood for keys that begin so.
    moods: BTreeMap<String, Mood>,
    token: String,
    values: BTreeMap<String, (u64, Value)>,
    asked: Vec<Asked>,
}

/// The stand-in. It ends with the test.
#[derive(Debug, Clone)]
pub(crate) struct FaultyVault {
    address: String,
    inner: Arc<Mutex<Inner>>,
}

impl FaultyVault {
    /// A server in good health that takes this token alone.
    pub(crate) async fn start(token: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let vault = Self {
            address: format!("http://{}", listener.local_addr()?),
            inner: Arc::new(Mutex::new(Inner {
                mood: Mood::Well,
                moods: BTreeMap::new(),
                token: token.to_owned(),
                values: BTreeMap::new(),
                asked: Vec::new(),
            })),
        };
        let router = Router::new().fallback(answer).with_state(vault.clone());
        let serve = async move { axum::serve(listener, router).await };
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's own runtime")]
        tokio::spawn(serve);
        Ok(vault)
    }

    /// Makes a store of this server in a namespace, with its token in a Secret `<name>-token`.
    pub(crate) async fn add_store(&self, test: &TestNamespace, name: &str, limits: Value) -> Result<()> {
        let token = self.lock().token.clone();
        test.add_credential(&format!("{name}-token"), "token", &token)
            .await?;
        test.apply_raw(&json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "SecretStore",
            "metadata": { "name": name, "namespace": test.namespace },
            "spec": {
                "provider": { "vault": {
                    "server": self.address, "path": "secret",
                    "auth": { "tokenSecretRef": { "name": format!("{name}-token"), "key": "token" } },
                } },
                "limits": limits,
            },
        }))
        .await
    }

    /// How it answers from now on. Requests that hang already go on hanging.
    pub(crate) fn set(&self, mood: Mood) {
        self.lock().mood = mood;
    }

    /// How it answers from now on for keys that begin so.
    pub(crate) fn set_for(&self, beginning: &str, mood: Mood) {
        self.lock().moods.insert(beginning.to_owned(), mood);
    }

    /// Its address.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The one token that it takes from now on.
    pub(crate) fn take_only(&self, token: &str) {
        token.clone_into(&mut self.lock().token);
    }

    /// Writes a new version of a value.
    pub(crate) fn put(&self, key: &str, fields: Value) {
        let mut inner = self.lock();
        let version = inner.values.get(key).map_or(0, |(version, _)| *version) + 1;
        inner.values.insert(key.to_owned(), (version, fields));
    }

    /// Every request whose path ends so.
    pub(crate) fn asked(&self, end: &str) -> Vec<Asked> {
        let inner = self.lock();
        let of_path = inner.asked.iter().filter(|asked| asked.path.ends_with(end));
        of_path.cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a healthy server answers.
    fn healthy(&self, path: &str, token: Option<&str>) -> Response {
        let inner = self.lock();
        if token != Some(inner.token.as_str()) {
            return complaint(StatusCode::FORBIDDEN, "permission denied");
        }
        if path == "/v1/auth/token/lookup-self" {
            return said(StatusCode::OK, &json!({ "data": { "policies": ["default"] } }));
        }
        if path == "/v1/sys/internal/ui/mounts/secret" {
            let engine = json!({ "path": "secret/", "type": "kv", "options": { "version": "2" } });
            return said(StatusCode::OK, &json!({ "data": engine }));
        }
        if let Some(folder) = path.strip_prefix("/v1/secret/metadata/") {
            let names: Vec<_> = inner
                .values
                .keys()
                .filter_map(|key| key.strip_prefix(folder))
                .collect();
            return said(StatusCode::OK, &json!({ "data": { "keys": names } }));
        }
        let Some(key) = path.strip_prefix("/v1/secret/data/") else {
            return said(StatusCode::NOT_FOUND, &json!({ "errors": [] }));
        };
        if inner.mood == Mood::Denies {
            return complaint(StatusCode::FORBIDDEN, "1 error occurred:\n\t* permission denied");
        }
        match inner.values.get(key) {
            None => said(StatusCode::NOT_FOUND, &json!({ "errors": [] })),
            Some((_, fields)) if inner.mood == Mood::OtherForm => {
                said(StatusCode::OK, &json!({ "data": [fields], "version": fields }))
            }
            Some((version, fields)) => said(
                StatusCode::OK,
                &json!({ "data": { "data": fields, "metadata": {
                    "version": version, "created_time": "2026-01-02T03:04:05Z",
                    "deletion_time": "", "destroyed": false,
                } } }),
            ),
        }
    }
}

async fn answer(State(vault): State<FaultyVault>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let token = text(request.headers(), "x-vault-token");
    let mood = {
        let mut inner = vault.lock();
        let at = Instant::now();
        inner.asked.push(Asked {
            at,
            path: path.clone(),
        });
        let key = path.strip_prefix("/v1/secret/data/").unwrap_or_default();
        let own = inner
            .moods
            .iter()
            .find(|(beginning, _)| key.starts_with(beginning.as_str()));
        own.map_or(inner.mood, |(_, mood)| *mood)
    };
    // what a sick server says holds the value, and the token that it was asked with: none of it may be passed on
    let well = || vault.healthy(&path, token.as_deref());
    let gossip = || {
        let values = json!(vault.lock().values).to_string();
        format!("{values} {}", token.clone().unwrap_or_default())
    };
    match mood {
        Mood::Well | Mood::Denies | Mood::OtherForm => well(),
        Mood::Hangs => pending().await,
        Mood::Slow(by) => {
            sleep(by).await;
            well()
        }
        Mood::Html(status) => {
            let page = format!("<html><body>{}</body></html>", gossip());
            respond(StatusCode::from_u16(status).unwrap(), Body::from(page))
        }
        Mood::CutJson => {
            let whole = json!({ "data": { "data": vault.lock().values } }).to_string();
            respond(StatusCode::OK, Body::from(whole[..whole.len() - 3].to_owned()))
        }
        Mood::BreaksOff => {
            let pieces = [
                Ok(Bytes::from(format!("{{\"data\":\"{}", gossip()))),
                Err(std::io::Error::other("broken on purpose")),
            ];
            respond(StatusCode::OK, Body::from_stream(stream::iter(pieces)))
        }
        Mood::Endless => {
            let piece = Bytes::from(vec![b' '; 64 * 1024]);
            let pieces = stream::repeat_with(move || Ok::<_, std::io::Error>(piece.clone()));
            respond(StatusCode::OK, Body::from_stream(pieces))
        }
        Mood::Throttles(seconds) => {
            let mut response = complaint(StatusCode::TOO_MANY_REQUESTS, &gossip());
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
            response
        }
        // without a serialiser, which takes long for many of them
        Mood::Large(bytes) => respond(
            StatusCode::OK,
            Body::from(format!(
                r#"{{"data":{{"data":{{"x":"{}"}},"metadata":{{"version":1}}}}}}"#,
                "x".repeat(bytes)
            )),
        ),
        Mood::Sealed => complaint(StatusCode::SERVICE_UNAVAILABLE, "Vault is sealed"),
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn respond(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn said(status: StatusCode, body: &Value) -> Response {
    respond(status, Body::from(body.to_string()))
}

fn complaint(status: StatusCode, text: &str) -> Response {
    said(status, &json!({ "errors": [text] }))
}
