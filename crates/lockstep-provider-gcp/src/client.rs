//! Sends one bounded HTTP request. Every network request goes through [`Http::send`], except those
//! that find the operator's own identity.

use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;
use lockstep_core::time::SharedClock;
use lockstep_http::{Connect, HttpClient, HttpError, Settings, retry_after};
use reqwest::{
    Method,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use url::Url;
use zeroize::Zeroizing;

use crate::{
    answer::{Answer, JSON_LIMITS, LONGEST_BODY},
    error::Failed,
};

/// Maximum number of idle connections to one host.
const KEPT_CONNECTIONS: usize = 32;

/// Sends requests. Stores with the same endpoint policy share it: connections carry no identity,
/// because each request has its own token.
#[derive(Clone)]
pub(crate) struct Http {
    client: HttpClient,
    clock: SharedClock,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http")
    }
}

/// The body of a request.
pub(crate) enum Body {
    None,
    Json(Zeroizing<Vec<u8>>),
    Form(Zeroizing<String>),
}

impl Http {
    /// Creates a client. Returns `None` if TLS is unavailable.
    pub(crate) fn new(connect: Connect, clock: SharedClock) -> Option<Self> {
        let settings = |plain| Settings {
            connect,
            plain,
            longest_body: LONGEST_BODY,
            kept_connections: KEPT_CONNECTIONS,
            ..Settings::default()
        };
        // An image without certificates must still work with an endpoint without TLS.
        let client = HttpClient::new(settings(false)).or_else(|_| HttpClient::new(settings(true)));
        let client = client.ok()?.with_json_limits(JSON_LIMITS);
        Some(Self { client, clock })
    }

    /// Returns the current time.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Sends one request. A response with any status is a success.
    ///
    /// # Errors
    /// When there is no response, or it is too long.
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
        let answer = self.client.send(request).await.map_err(|error| match error {
            HttpError::NoRoom => Failed::Http(HttpError::NotAnsweredInTime),
            error => Failed::Http(error),
        })?;
        Ok(Answer {
            status: answer.status,
            retry_after: retry_after(&answer.headers, self.now()),
            body: answer.body,
        })
    }
}

/// Appends a path and parameters to an address. Characters that a path does not allow are escaped.
pub(crate) fn address(base: &Url, path: &str, query: &[(&str, &str)]) -> Url {
    let mut url = base.clone();
    let begin = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{begin}/{path}"));
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}
