//! Sends limited HTTP requests. All network access goes through [`Client::send`] and
//! [`Client::connect`].

use std::fmt;

use bytes::Bytes;
use lockstep_core::time::SharedClock;
use lockstep_http::{Connect, HttpClient, Settings, Upgrade, retry_after};
use lockstep_provider::{ErrorKind, Operation, ProviderError};
use percent_encoding::percent_decode_str;
use reqwest::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use rustify::Endpoint;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use url::Url;
use zeroize::Zeroizing;

use crate::{
    answer::Answer,
    config::{Config, invalid},
    consistency::{self, Consistency},
    tls::Tls,
};

/// Maximum length of a response body: a value of 1 MiB, and as much again for escapes and metadata.
pub(crate) const LONGEST_BODY: usize = 2 << 20;
/// Maximum number of idle connections.
const KEPT_CONNECTIONS: usize = 32;

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// The result of a WebSocket request.
pub(crate) enum Connection {
    /// The connection is a WebSocket.
    Open(Box<reqwest::Upgraded>),
    /// The server refused with this response.
    Refused(Answer),
}

/// A client of one server, with one namespace and one set of certificates.
pub(crate) struct Client {
    http: HttpClient,
    /// The client for long-lived connections, if the store has events.
    sockets: Option<HttpClient>,
    base: Url,
    namespace: Option<HeaderValue>,
    consistency: Consistency,
    clock: SharedClock,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.server())
    }
}

impl Client {
    /// Creates a client that takes every setting from its arguments. It ignores the environment and
    /// proxies, and the system's certificates if the store has its own. WebSockets connect like
    /// requests do.
    ///
    /// # Errors
    /// `ConfigInvalid` when the certificates cannot be used.
    pub(crate) fn new(
        config: &Config,
        connect: Connect,
        tls: &Tls,
        clock: SharedClock,
        hears: bool,
    ) -> Result<Self, ProviderError> {
        let client = |upgrades| {
            let settings = Settings {
                connect,
                authorities: tls.authorities.clone(),
                identity: tls.identity.clone(),
                plain: config.base.scheme() == "http",
                longest_body: LONGEST_BODY,
                kept_connections: KEPT_CONNECTIONS,
                upgrades,
            };
            HttpClient::new(settings).map_err(|_| {
                invalid("auth", "or its certificate authorities hold a certificate or key that TLS cannot use")
                    .with_hint("Check that the private key belongs to the client certificate, and that each certificate is X.509")
            })
        };
        Ok(Self {
            http: client(false)?,
            sockets: hears.then(|| client(true)).transpose()?,
            base: config.base.clone(),
            namespace: config.namespace.clone(),
            consistency: Consistency::default(),
            clock,
        })
    }

    /// Returns the server and the namespace that leases belong to.
    pub(crate) fn origin(&self) -> String {
        let namespace = self
            .namespace
            .as_ref()
            .and_then(|namespace| namespace.to_str().ok());
        let server = self.base.as_str().trim_end_matches('/');
        match namespace {
            Some(namespace) => format!("{server} {namespace}"),
            None => server.to_owned(),
        }
    }

    /// Returns the server as messages show it: `https://vault.internal:8200`.
    pub(crate) fn server(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    /// Sends one request and returns the response, whatever its status.
    ///
    /// # Errors
    /// `Unavailable` when the server cannot be reached, `Timeout` when it does not respond,
    /// `Malformed` when the response exceeds a limit.
    pub(crate) async fn send<E: Endpoint>(
        &self,
        operation: Operation,
        endpoint: &E,
        token: Option<&HeaderValue>,
    ) -> Result<Answer, ProviderError> {
        let request = self.request(endpoint, token).map_err(|what| {
            ProviderError::new(
                ErrorKind::Internal,
                operation,
                format!("a request could not be made: {what}"),
            )
        })?;
        let sent = consistency::index(request.headers());
        let answer = self.http.send(request).await;
        let answer = answer.map_err(|error| error.into_provider_error(operation, &self.server()))?;
        self.received(operation, sent.as_ref(), answer)
    }

    /// Returns the response to a request that carried this index.
    ///
    /// # Errors
    /// `Unavailable` when the server does not understand the index.
    fn received(
        &self,
        operation: Operation,
        sent: Option<&HeaderValue>,
        answer: lockstep_http::Answer,
    ) -> Result<Answer, ProviderError> {
        let lockstep_http::Answer {
            status,
            headers,
            body,
        } = answer;
        let wait = retry_after(&headers, self.clock.now());
        let answer = Answer::new(status, wait, body);
        if let Some(sent) = sent.filter(|_| status == 400 && answer.has_error_containing("X-Vault-Index")) {
            self.consistency.forget(sent);
            let message = "the server does not understand the index that it sent in X-Vault-Index";
            return Err(ProviderError::new(ErrorKind::Unavailable, operation, message));
        }
        // Only the active server creates tokens that have an accessor.
        let wrote = matches!(operation, Operation::Login | Operation::IssueToken) && answer.holds_accessor();
        self.consistency.note(sent, &headers, wrote);
        Ok(answer)
    }

    /// Returns whether the answer to the next request has at least the state of this client's last
    /// login. A standby server that lags could otherwise report that something does not exist.
    pub(crate) fn is_proven(&self) -> bool {
        self.consistency.is_proven()
    }

    /// Opens a WebSocket, or returns the response that refused it.
    ///
    /// # Errors
    /// The errors of [`Client::send`], and `Malformed` when the server accepts the WebSocket with
    /// an invalid response.
    pub(crate) async fn connect<E: Endpoint>(
        &self,
        endpoint: &E,
        token: Option<&HeaderValue>,
    ) -> Result<Connection, ProviderError> {
        let error = |kind, message: &str| ProviderError::new(kind, Operation::Listen, message);
        let unmade = |what| {
            error(
                ErrorKind::Internal,
                &format!("a request could not be made: {what}"),
            )
        };
        let sockets = self
            .sockets
            .as_ref()
            .ok_or_else(|| unmade("the client makes none that stays"))?;
        let mut request = self.request(endpoint, token).map_err(unmade)?;
        let sent_index = consistency::index(request.headers());
        let key = generate_key();
        let headers = request.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        let sent = HeaderValue::from_str(&key).map_err(|_| unmade("the key is no header"))?;
        headers.insert(SEC_WEBSOCKET_KEY, sent);
        let answer = sockets.upgrade(request).await;
        match answer.map_err(|error| error.into_provider_error(Operation::Listen, &self.server()))? {
            Upgrade::Switched(connection, headers) => {
                let accepted = headers.get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
                if accepted == Some(derive_accept_key(key.as_bytes()).as_bytes()) {
                    Ok(Connection::Open(Box::new(connection)))
                } else {
                    let message = "the server switched to another protocol than that of WebSockets";
                    Err(error(ErrorKind::Malformed, message))
                }
            }
            Upgrade::Refused(answer) => self
                .received(Operation::Listen, sent_index.as_ref(), answer)
                .map(Connection::Refused),
        }
    }

    /// Builds the request of an endpoint. The URL is built here and not by the endpoint trait,
    /// which panics on some addresses, drops a path before `/v1`, and writes each path into a
    /// tracing span.
    fn request<E: Endpoint>(
        &self,
        endpoint: &E,
        token: Option<&HeaderValue>,
    ) -> Result<reqwest::Request, &'static str> {
        let mut url = url_of(&self.base, &endpoint.path())?;
        let query = endpoint.query().map_err(|_| "the query cannot be written")?;
        url.set_query(query.as_deref().filter(|query| !query.is_empty()));

        let mut request = reqwest::Request::new(endpoint.method().into(), url);
        // The error is dropped because it may contain the part of the body that could not be
        // written.
        let body = endpoint
            .body()
            .map_err(|_| "the body cannot be written")?
            .filter(|body| !body.is_empty());
        let headers = request.headers_mut();
        headers.insert(REQUEST, HeaderValue::from_static("true"));
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(namespace) = &self.namespace {
            headers.insert(NAMESPACE, namespace.clone());
        }
        if let Some(token) = token {
            headers.insert(TOKEN, token.clone());
        }
        self.consistency.require(headers);
        if let Some(body) = body {
            *request.body_mut() = Some(Bytes::from_owner(Zeroizing::new(body)).into());
        }
        Ok(request)
    }
}

/// Builds the URL of a path. Each segment is percent-encoded once. The path is requested unchanged
/// or not at all: a path that the URL standard would rewrite (`.`, `..`, tabs) is an error.
fn url_of(base: &Url, path: &str) -> Result<Url, &'static str> {
    // the library's own endpoints begin with a slash
    let path = path.strip_prefix('/').unwrap_or(path);
    let mut url = base.clone();
    url.path_segments_mut()
        .map_err(|()| "the address has no path")?
        .pop_if_empty()
        .extend(path.split('/'));
    let decoded = percent_decode_str(url.path()).decode_utf8();
    let wanted = format!("{}{path}", percent_decode_str(base.path()).decode_utf8_lossy());
    if decoded.is_ok_and(|decoded| decoded == wanted) {
        Ok(url)
    } else {
        Err("the path cannot be written into a URL")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_requested_unchanged_or_not_at_all() {
        let base = Url::parse("https://vault.internal:8200/behind/v1/").unwrap();
        for (path, want) in [
            ("secret/data/shop/db", "secret/data/shop/db"),
            ("/auth/token/lookup-self", "auth/token/lookup-self"),
            ("a/%2e%2e/b", "a/%252e%252e/b"),
            ("a/%2F/b", "a/%252F/b"),
            ("a?b#c", "a%3Fb%23c"),
            ("a\\..\\b", "a%5C..%5Cb"),
            ("a;b=c&d+e", "a;b=c&d+e"),
            ("größe", "gr%C3%B6%C3%9Fe"),
            ("kv/metadata/shop/", "kv/metadata/shop/"),
        ] {
            let url = url_of(&base, path).unwrap();
            assert_eq!(url.path(), format!("/behind/v1/{want}"), "{path}");
            assert_eq!((url.query(), url.fragment()), (None, None), "{path}");
        }
        for path in ["a/../b", "a/./b", "..", "a\tb", "a\nb", "\tauth/token/renew-self"] {
            assert!(url_of(&base, path).is_err(), "{path:?}");
        }
    }
}
