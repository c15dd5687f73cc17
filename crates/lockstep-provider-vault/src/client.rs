//! One bounded HTTP request and its answer. Everything that reaches the network goes through [`Client::send`].

use std::{error::Error as StdError, fmt, io, time::Duration};

use bytes::Bytes;
use lockstep_core::time::SharedClock;
use lockstep_provider::{ErrorKind, Operation, ProviderError};
use reqwest::{
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
    redirect::{Attempt, Policy},
};
use rustify::Endpoint;
use url::Url;
use zeroize::Zeroizing;

use crate::{
    answer::{Answer, retry_after},
    config::{Config, invalid},
    tls::Tls,
};

/// The longest body that is read. A Secret holds 1 MiB; escapes and metadata need some more.
pub(crate) const LONGEST_BODY: usize = 4 << 20;
/// How long connecting, TLS included, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the server may be silent.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long one request may take in all; the store's own `limits.timeout` is shorter as a rule.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection is kept that nobody uses.
const KEPT_IDLE: Duration = Duration::from_secs(30);
/// How many connections are kept that nobody uses.
const KEPT_CONNECTIONS: usize = 4;
/// Redirects within the same server.
const MOST_REDIRECTS: usize = 2;

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// Speaks with one server, in one namespace, with one set of certificates.
pub(crate) struct Client {
    http: reqwest::Client,
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
        // reqwest would panic without one. The binary installs it first thing; whoever else comes this far gets the
        // same one.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            let _already_there = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let mut builder = reqwest::Client::builder()
            .tls_backend_rustls()
            .no_proxy()
            .redirect(Policy::custom(|attempt| {
                if same_server(&attempt) {
                    attempt.follow()
                } else {
                    attempt.stop()
                }
            }))
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(IDLE_TIMEOUT)
            .timeout(TOTAL_TIMEOUT)
            .pool_idle_timeout(KEPT_IDLE)
            .pool_max_idle_per_host(KEPT_CONNECTIONS);
        let plain = config.base.scheme() == "http";
        if let Some(authorities) = tls.authorities {
            builder = builder.tls_certs_only(authorities);
        } else if plain {
            // Without TLS no certificates are needed, and an image without any must not stand in the way.
            builder = builder.tls_certs_only([]);
        }
        if let Some(identity) = tls.identity {
            builder = builder.identity(identity);
        }
        let http = builder.build().map_err(|_| {
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
        let mut response = self
            .http
            .execute(request)
            .await
            .map_err(|error| self.failed(operation, &error))?;
        let status = response.status().as_u16();
        let wait = retry_after(response.headers(), self.clock.now());
        let too_long = || {
            let message =
                format!("the server's answer (status {status}) is longer than {LONGEST_BODY} bytes");
            ProviderError::new(ErrorKind::Malformed, operation, message)
        };
        let announced = response.content_length().unwrap_or(0);
        if announced > LONGEST_BODY as u64 {
            return Err(too_long());
        }
        let mut body = Zeroizing::new(Vec::with_capacity(
            usize::try_from(announced).unwrap_or(0).max(4096),
        ));
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.failed(operation, &error))?
        {
            if body.len() + chunk.len() > LONGEST_BODY {
                return Err(too_long());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer::new(status, wait, body))
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

    fn failed(&self, operation: Operation, error: &reqwest::Error) -> ProviderError {
        let server = self.server();
        if error.is_timeout() {
            let doing = if error.is_connect() {
                "could be reached"
            } else {
                "answered"
            };
            let message = format!("{server} has not {doing} in time");
            return ProviderError::new(ErrorKind::Timeout, operation, message);
        }
        if let Some(trust) = distrust(error) {
            let message = format!("{server} cannot be trusted: {}", trust.0);
            return ProviderError::new(ErrorKind::Unavailable, operation, message).with_hint(trust.1);
        }
        let message = if error.is_connect() {
            format!("{server} cannot be reached")
        } else {
            format!("the connection to {server} broke")
        };
        ProviderError::new(ErrorKind::Unavailable, operation, message)
    }
}

/// Whether a redirect stays with the server that the user named. A standby that points at another address is not
/// followed: the token and the request are for the server of the spec alone.
fn same_server(attempt: &Attempt<'_>) -> bool {
    let first = attempt.previous().first();
    first.is_some_and(|first| first.origin() == attempt.url().origin())
        && attempt.previous().len() <= MOST_REDIRECTS
}

/// What is wrong with the server's certificate, and what to do, where that is what is wrong.
fn distrust(error: &reqwest::Error) -> Option<(&'static str, &'static str)> {
    use rustls::{CertificateError as Certificate, Error as Tls};
    let mut source = error.source();
    while let Some(current) = source {
        match unwrapped(current).downcast_ref::<Tls>() {
            Some(Tls::InvalidCertificate(
                Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
            )) => {
                return Some((
                    "its certificate is for another name",
                    "Use a name of the certificate in server",
                ));
            }
            Some(Tls::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. })) => {
                return Some(("its certificate has expired", "Renew the server's certificate"));
            }
            Some(Tls::InvalidCertificate(_)) => {
                return Some((
                    "its certificate comes from no known certificate authority",
                    "Set caBundle or caProvider to the authority that signed it",
                ));
            }
            Some(Tls::AlertReceived(_)) => {
                return Some((
                    "it broke off the TLS handshake",
                    "It may ask for a client certificate: see auth.cert",
                ));
            }
            _ => source = current.source(),
        }
    }
    None
}

/// What an I/O error was made from. The TLS connector packs one into another, and `source` skips what is packed.
fn unwrapped<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    let mut error = error;
    while let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        error = inner;
    }
    error
}
