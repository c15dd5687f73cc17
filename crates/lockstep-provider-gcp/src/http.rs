//! One bounded HTTP request and its answer. Everything that reaches the network goes through [`Http::send`], except what
//! finds the operator's own identity.

use std::{fmt, time::Duration};

use bytes::Bytes;
use reqwest::{
    Method,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};
use url::Url;
use zeroize::Zeroizing;

use crate::error::Failed;

/// The longest body that is read. A page of a hundred secrets, each with its labels, annotations and topics, is well below.
pub(crate) const LONGEST_BODY: usize = 4 << 20;
/// How long connecting, TLS included, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the server may be silent.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// How long one call may take in all; the store's own `limits.timeout` is shorter as a rule.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection is kept that nobody uses.
const KEPT_IDLE: Duration = Duration::from_secs(30);
/// How many connections to one host are kept that nobody uses.
const KEPT_CONNECTIONS: usize = 16;

/// A client without redirects, and with nothing from the environment: no proxy above all. Stores share it: a connection
/// says nothing of who asks, each request carries its own token.
#[derive(Clone)]
pub(crate) struct Http(reqwest::Client);

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http")
    }
}

/// What a request carries.
pub(crate) enum Body {
    /// Nothing.
    None,
    /// JSON.
    Json(Zeroizing<Vec<u8>>),
    /// A form.
    Form(Zeroizing<String>),
}

/// What a server said, whatever the status.
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// When it wants to be asked again.
    pub(crate) retry_after: Option<Duration>,
    /// What it said.
    pub(crate) body: Zeroizing<Vec<u8>>,
}

impl Http {
    /// A client; `None` when TLS does not work here.
    pub(crate) fn new() -> Option<Self> {
        // reqwest would panic without one. The binary installs it first thing; whoever else comes this far gets the
        // same one.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            let _already_there = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        // An image without certificates must not stand in the way of an endpoint without TLS.
        let client = Self::builder()
            .build()
            .or_else(|_| Self::builder().tls_certs_only([]).build());
        client.ok().map(Self)
    }

    fn builder() -> reqwest::ClientBuilder {
        reqwest::Client::builder()
            .tls_backend_rustls()
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .timeout(TOTAL_TIMEOUT)
            .pool_idle_timeout(KEPT_IDLE)
            .pool_max_idle_per_host(KEPT_CONNECTIONS)
    }

    /// Sends one request. Whatever the status says, it is an answer.
    ///
    /// # Errors
    /// When there is no answer, or one that is too long.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: Url,
        token: Option<&HeaderValue>,
        body: Body,
    ) -> Result<Answer, Failed> {
        let mut request = reqwest::Request::new(method, url);
        let (kind, bytes) = match body {
            Body::None => (None, None),
            Body::Json(bytes) => (Some("application/json"), Some(Bytes::from_owner(bytes))),
            Body::Form(text) => (
                Some("application/x-www-form-urlencoded"),
                Some(Bytes::from_owner(Zeroizing::new(text.as_bytes().to_vec()))),
            ),
        };
        let headers = request.headers_mut();
        if let Some(kind) = kind {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, token.clone());
        }
        if let Some(bytes) = bytes {
            *request.body_mut() = Some(bytes.into());
        }
        let mut response = self.0.execute(request).await.map_err(|error| failed(&error))?;
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let announced = response.content_length().unwrap_or(0);
        if announced > LONGEST_BODY as u64 {
            return Err(Failed::TooLong { status });
        }
        let mut body = Zeroizing::new(Vec::with_capacity(
            usize::try_from(announced).unwrap_or(0).max(4096),
        ));
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error))? {
            if body.len() + chunk.len() > LONGEST_BODY {
                return Err(Failed::TooLong { status });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            status,
            retry_after,
            body,
        })
    }
}

/// An address with these parts of a path and parameters behind it. What is not allowed in a path is escaped.
pub(crate) fn address(base: &Url, path: &str, query: &[(&str, &str)]) -> Url {
    let mut url = base.clone();
    let begin = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{begin}/{path}"));
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

fn failed(error: &reqwest::Error) -> Failed {
    if error.is_timeout() {
        Failed::Timeout
    } else {
        Failed::Unreachable
    }
}
