//! One bounded HTTP request and its answer. Everything that reaches the network goes through [`Client::send`].

use std::fmt;

use bytes::Bytes;
use lockstep_core::time::SharedClock;
use lockstep_http::{HttpClient, Settings, retry_after};
use lockstep_provider::{ErrorKind, Operation, ProviderError};
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use rustify::Endpoint;
use url::Url;
use zeroize::Zeroizing;

use crate::{
    answer::Answer,
    config::{Config, invalid},
    tls::Tls,
};

/// The longest body that is read. A Secret holds 1 MiB; escapes and metadata need some more.
pub(crate) const LONGEST_BODY: usize = 4 << 20;
/// How many connections are kept that nobody uses.
const KEPT_CONNECTIONS: usize = 32;

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// Speaks with one server, in one namespace, with one set of certificates.
pub(crate) struct Client {
    http: HttpClient,
    base: Url,
    namespace: Option<HeaderValue>,
    clock: SharedClock,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.server())
    }
}

impl Client {
    /// A client that takes every setting from its arguments: no environment, no proxy, no system certificates where
    /// the store has its own.
    ///
    /// # Errors
    /// `ConfigInvalid` when the certificates cannot be used.
    pub(crate) fn new(config: &Config, tls: Tls, clock: SharedClock) -> Result<Self, ProviderError> {
        let settings = Settings {
            authorities: tls.authorities,
            identity: tls.identity,
            plain: config.base.scheme() == "http",
            longest_body: LONGEST_BODY,
            kept_connections: KEPT_CONNECTIONS,
        };
        let http = HttpClient::new(settings).map_err(|_| {
            invalid("auth", "or its certificate authorities hold a certificate or key that TLS cannot use")
                .with_hint("See that the private key belongs to the client certificate, and that each certificate is X.509")
        })?;
        Ok(Self {
            http,
            base: config.base.clone(),
            namespace: config.namespace.clone(),
            clock,
        })
    }

    /// The server, as messages name it: `https://vault.internal:8200`.
    pub(crate) fn server(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    /// Sends one request. Whatever the status says, it is an answer.
    ///
    /// # Errors
    /// `Unavailable` when the server cannot be reached, `Timeout` when it is silent, `Malformed` when it says too
    /// much.
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
        let answer = self.http.send(request).await;
        let answer = answer.map_err(|error| error.told(operation, &self.server()))?;
        let wait = retry_after(&answer.headers, self.clock.now());
        Ok(Answer::new(answer.status, wait, answer.body))
    }

    /// The request of an endpoint. The path is taken apart here and not by the endpoint trait, whose own way panics
    /// on some addresses, loses a path in front of `/v1`, and writes each path into a tracing span.
    fn request<E: Endpoint>(
        &self,
        endpoint: &E,
        token: Option<&HeaderValue>,
    ) -> Result<reqwest::Request, &'static str> {
        let mut url = self.base.clone();
        let path = endpoint.path();
        let path = path.trim_matches(char::is_whitespace).trim_start_matches('/');
        url.path_segments_mut()
            .map_err(|()| "the address has no path")?
            .pop_if_empty()
            .extend(path.split('/'));
        let query = endpoint.query().map_err(|_| "the query cannot be written")?;
        url.set_query(query.as_deref().filter(|query| !query.is_empty()));

        let mut request = reqwest::Request::new(endpoint.method().into(), url);
        // An error of the endpoint may hold what it could not write: it is dropped.
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
        if let Some(body) = body {
            *request.body_mut() = Some(Bytes::from_owner(Zeroizing::new(body)).into());
        }
        Ok(request)
    }
}
