//! One bounded HTTP request and its answer: no environment, no proxy, no redirects to another server, no answer of any length,
//! and nothing kept of it that is not wiped. For providers whose services have no client that can be bounded.

mod body;
mod error;
mod retry_after;

use std::{fmt, sync::Arc, time::Duration};

use reqwest::{
    Certificate, Identity, Request,
    header::HeaderMap,
    redirect::{Attempt, Policy},
};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use lockstep_provider::room;

use body::Taken;

pub use body::Body;
pub use error::HttpError;
pub use reqwest;
pub use retry_after::retry_after;

/// How long connecting, TLS included, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one request may take in all; the store's own `limits.timeout` is shorter as a rule.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection is kept that nobody uses.
const KEPT_IDLE: Duration = Duration::from_secs(30);
/// How much of the room of the process one client takes, in units of [`UNIT`] bytes.
const SHARE: usize = (4 << 20) / UNIT;
const UNIT: usize = 1024;
/// How long an answer waits for a part of that.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);
/// Redirects within the same server.
const MOST_REDIRECTS: usize = 2;

/// What a client is made with.
#[derive(Default)]
pub struct Settings {
    /// Certificate authorities. Default: the system's.
    pub authorities: Option<Vec<Certificate>>,
    /// The certificate that is shown.
    pub identity: Option<Identity>,
    /// No request uses TLS, so that no certificates are needed.
    pub plain: bool,
    /// The longest body that is read, in bytes.
    pub longest_body: usize,
    /// How many connections to one host are kept that nobody uses.
    pub kept_connections: usize,
    /// Requests become connections of another protocol ([`HttpClient::upgrade`]): they speak HTTP/1.1, and none has to end
    /// within a minute.
    pub upgrades: bool,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("longest_body", &self.longest_body)
            .finish_non_exhaustive()
    }
}

/// The certificates are none that TLS can use. The sentence of the library may quote them and is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadCertificates;

/// One answer. The body may hold values and tokens: it is wiped, takes room, and `Debug` tells its length only.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer(status {}, {} bytes)", self.status, self.body.len())
    }
}

/// What came of a request to speak another protocol.
pub enum Upgrade {
    /// The connection speaks it from here on; and the headers that said so.
    Switched(reqwest::Upgraded, HeaderMap),
    /// It stays as it is, and this is the answer.
    Refused(Answer),
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switched(..) => f.write_str("Switched"),
            Self::Refused(answer) => answer.fmt(f),
        }
    }
}

/// Sends requests.
#[derive(Clone)]
pub struct HttpClient {
    http: reqwest::Client,
    longest_body: usize,
    /// What this client may take of the room of the process: a server that is slow on purpose takes no more.
    share: Arc<Semaphore>,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpClient")
    }
}

impl HttpClient {
    /// A client that takes every setting from its argument.
    ///
    /// # Errors
    /// When the certificates cannot be used.
    pub fn new(settings: Settings) -> Result<Self, BadCertificates> {
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
            .pool_idle_timeout(KEPT_IDLE)
            .pool_max_idle_per_host(settings.kept_connections);
        builder = if settings.upgrades {
            builder.http1_only()
        } else {
            builder.timeout(TOTAL_TIMEOUT)
        };
        if let Some(authorities) = settings.authorities {
            builder = builder.tls_certs_only(authorities);
        } else if settings.plain {
            // Without TLS no certificates are needed, and an image without any must not stand in the way.
            builder = builder.tls_certs_only([]);
        }
        if let Some(identity) = settings.identity {
            builder = builder.identity(identity);
        }
        Ok(Self {
            http: builder.build().map_err(|_| BadCertificates)?,
            longest_body: settings.longest_body,
            share: Arc::new(Semaphore::new(SHARE)),
        })
    }

    /// Sends one request. Whatever the status says, it is an answer.
    ///
    /// # Errors
    /// When there is no answer, or one that is too long.
    pub async fn send(&self, request: Request) -> Result<Answer, HttpError> {
        let response = self
            .http
            .execute(request)
            .await
            .map_err(|error| HttpError::of(&error))?;
        self.read(response).await
    }

    /// Asks the server to speak another protocol, with a client whose settings allow it. The request must say which.
    ///
    /// # Errors
    /// When there is no answer within a minute, or one that is too long.
    pub async fn upgrade(&self, request: Request) -> Result<Upgrade, HttpError> {
        let answer = tokio::time::timeout(TOTAL_TIMEOUT, async {
            let mut response = self
                .http
                .execute(request)
                .await
                .map_err(|error| HttpError::of(&error))?;
            if response.status() != reqwest::StatusCode::SWITCHING_PROTOCOLS {
                return self.read(response).await.map(Upgrade::Refused);
            }
            let headers = std::mem::take(response.headers_mut());
            let upgraded = response.upgrade().await.map_err(|error| HttpError::of(&error))?;
            Ok(Upgrade::Switched(upgraded, headers))
        });
        answer.await.unwrap_or(Err(HttpError::NotAnsweredInTime))
    }

    /// Waits for room for an answer of this length: first for a part of this client's share, and then for that of the process.
    async fn room(&self, length: usize) -> Result<Taken, HttpError> {
        let units = u32::try_from(length.div_ceil(UNIT).min(SHARE)).map_err(|_| HttpError::NoRoom)?;
        let share = Arc::clone(&self.share).acquire_many_owned(units);
        let share = tokio::time::timeout(ROOM_PATIENCE, share).await;
        let Ok(Ok(share)) = share else {
            return Err(HttpError::NoRoom);
        };
        let room = room::take(length).await.ok_or(HttpError::NoRoom)?;
        Ok(Taken {
            _share: share,
            _room: room,
        })
    }

    async fn read(&self, mut response: reqwest::Response) -> Result<Answer, HttpError> {
        let status = response.status().as_u16();
        let too_long = HttpError::TooLong {
            status,
            longest: self.longest_body,
        };
        let announced = response.content_length().unwrap_or(0);
        if announced > self.longest_body as u64 {
            return Err(too_long);
        }
        let announced = usize::try_from(announced).unwrap_or(0);
        let mut body = Zeroizing::new(Vec::with_capacity(announced.clamp(4096, room::SMALL)));
        let mut taken = None;
        while let Some(chunk) = response.chunk().await.map_err(|error| HttpError::of(&error))? {
            let length = body.len() + chunk.len();
            if length > self.longest_body {
                return Err(too_long);
            }
            if length > room::SMALL && taken.is_none() {
                let longest = if announced == 0 {
                    self.longest_body
                } else {
                    announced
                };
                taken = Some(self.room(longest.max(length)).await?);
                body = grown(&body, longest);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            status,
            headers: std::mem::take(response.headers_mut()),
            body: Body::new(body, taken),
        })
    }
}

/// The same bytes with room for more of them, so that growing leaves no copy behind that is not wiped.
fn grown(body: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    let mut grown = Zeroizing::new(Vec::with_capacity(length.max(body.len())));
    grown.extend_from_slice(body);
    grown
}

/// Whether a redirect stays with the server that was named. One that points at another address is not followed: what is in the
/// request is for the server of the spec alone.
fn same_server(attempt: &Attempt<'_>) -> bool {
    let first = attempt.previous().first();
    first.is_some_and(|first| first.origin() == attempt.url().origin())
        && attempt.previous().len() <= MOST_REDIRECTS
}
