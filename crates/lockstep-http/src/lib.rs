//! Bounded HTTP requests, for providers whose services have no client that can be bounded.
//!
//! A client connects only where the endpoint policy of its store allows it. It uses no environment, no proxy and no redirect to another
//! server. Answers have a bounded length, and what is kept of them is wiped.

mod body;
mod endpoint;
mod error;
mod retry_after;

use std::{fmt, sync::Arc, time::Duration};

use lockstep_provider::EndpointPolicy;
use reqwest::{
    Certificate, Identity, Request, Url,
    header::HeaderMap,
    redirect::{Attempt, Policy},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until},
};
use zeroize::Zeroizing;

use lockstep_provider::room;

use body::Taken;

pub use body::Body;
pub use endpoint::{Connect, EndpointError, check, resolve};
pub use error::{HttpError, NOT_CONNECTED_HINT, connection_failure, reason};
pub use reqwest;
pub use retry_after::retry_after;

use endpoint::Resolver;

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
    /// Where to, and how long it may take.
    pub connect: Connect,
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
    endpoints: EndpointPolicy,
    /// How long a failure to connect takes at least. A tenant who sees how soon it fails could tell a closed port from a dropped packet.
    failure_after: Option<Duration>,
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
            .dns_resolver(Arc::new(Resolver(settings.connect.endpoints)))
            .connect_timeout(settings.connect.timeout)
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
            endpoints: settings.connect.endpoints,
            failure_after: (settings.connect.endpoints == EndpointPolicy::Tenant)
                .then_some(settings.connect.timeout),
            longest_body: settings.longest_body,
            share: Arc::new(Semaphore::new(SHARE)),
        })
    }

    /// Sends one request. Whatever the status says, it is an answer.
    ///
    /// # Errors
    /// When there is no answer, or one that is too long.
    pub async fn send(&self, request: Request) -> Result<Answer, HttpError> {
        let server = server(request.url());
        let response = self.execute(request, &server).await?;
        self.read(response, &server).await
    }

    /// Sends a request where the endpoint policy permits it. Redirects need no further check: they stay with the same server.
    async fn execute(&self, request: Request, server: &str) -> Result<reqwest::Response, HttpError> {
        let began = Instant::now();
        let result = match endpoint::check(self.endpoints, request.url()) {
            Ok(()) => {
                let response = self.http.execute(request).await;
                response.map_err(|error| HttpError::of(&error, server))
            }
            Err(error) => Err(connection_failure(&error).unwrap_or(HttpError::NotConnected)),
        };
        if let (Some(after), Err(HttpError::NotConnected)) = (self.failure_after, &result) {
            sleep_until(began + after).await;
        }
        result
    }

    /// Asks the server to speak another protocol, with a client whose settings allow it. The request must say which.
    ///
    /// # Errors
    /// When there is no answer within a minute, or one that is too long.
    pub async fn upgrade(&self, request: Request) -> Result<Upgrade, HttpError> {
        let server = server(request.url());
        let answer = tokio::time::timeout(TOTAL_TIMEOUT, async {
            let mut response = self.execute(request, &server).await?;
            if response.status() != reqwest::StatusCode::SWITCHING_PROTOCOLS {
                return self.read(response, &server).await.map(Upgrade::Refused);
            }
            let headers = std::mem::take(response.headers_mut());
            let upgraded = response.upgrade().await;
            let upgraded = upgraded.map_err(|error| HttpError::of(&error, &server))?;
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

    async fn read(&self, mut response: reqwest::Response, server: &str) -> Result<Answer, HttpError> {
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
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| HttpError::of(&error, server))?
        {
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

/// The server of a URL, as messages name it: `https://vault.internal:8200`.
fn server(url: &Url) -> String {
    url.origin().ascii_serialization()
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use lockstep_provider::EndpointPolicy;
    use reqwest::Method;
    use tokio::net::TcpListener;

    use super::*;

    /// A server that accepts connections, counts them and closes them.
    async fn listener() -> (u16, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        #[expect(clippy::disallowed_methods, reason = "a test ends with its runtime")]
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                drop(connection);
            }
        });
        (port, accepted)
    }

    fn client(endpoints: EndpointPolicy, upgrades: bool) -> HttpClient {
        let connect = Connect {
            endpoints,
            timeout: Duration::from_millis(100),
        };
        HttpClient::new(Settings {
            connect,
            plain: true,
            longest_body: 1024,
            upgrades,
            ..Settings::default()
        })
        .unwrap()
    }

    fn get(url: &str) -> Request {
        Request::new(Method::GET, Url::parse(url).unwrap())
    }

    #[tokio::test]
    async fn a_tenant_reaches_no_loopback_address_by_any_name() {
        let (port, accepted) = listener().await;
        for host in [
            "localhost",
            "127.0.0.1",
            "2130706433",
            "[::ffff:127.0.0.1]",
            "0.0.0.0",
        ] {
            let url = format!("https://{host}:{port}/v1/x");
            let answer = client(EndpointPolicy::Tenant, false).send(get(&url)).await;
            assert_eq!(answer.unwrap_err(), HttpError::NotConnected, "{url}");
            let socket = client(EndpointPolicy::Tenant, true).upgrade(get(&url)).await;
            assert_eq!(socket.err(), Some(HttpError::NotConnected), "{url}");
            let plain = format!("http://{host}:{port}/v1/x");
            let answer = client(EndpointPolicy::Tenant, false).send(get(&plain)).await;
            assert_eq!(answer.unwrap_err(), HttpError::PlainHttp, "{plain}");
        }
        assert_eq!(accepted.load(Ordering::Relaxed), 0);
        // others do
        for policy in [EndpointPolicy::TenantOrLoopback, EndpointPolicy::Unrestricted] {
            let url = format!("http://localhost:{port}/v1/x");
            assert_eq!(
                client(policy, false).send(get(&url)).await.unwrap_err(),
                HttpError::Broken
            );
        }
        assert!(accepted.load(Ordering::Relaxed) >= 2);
    }

    #[tokio::test]
    async fn a_blocked_address_fails_no_sooner_than_one_that_is_not_reached() {
        let connect = Connect {
            endpoints: EndpointPolicy::Tenant,
            timeout: Duration::from_millis(300),
        };
        let settings = Settings {
            connect,
            plain: true,
            longest_body: 1024,
            ..Settings::default()
        };
        let began = Instant::now();
        let answer = HttpClient::new(settings)
            .unwrap()
            .send(get("https://127.0.0.1:1/"))
            .await;
        assert_eq!(answer.unwrap_err(), HttpError::NotConnected);
        assert!(began.elapsed() >= Duration::from_millis(300));
    }

    #[tokio::test]
    async fn open_and_closed_and_silent_ports_look_alike() {
        let (open, _) = listener().await;
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap().port()
        };
        // accepts by the kernel alone and says nothing
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent_port = silent.local_addr().unwrap().port();
        let connect = Connect {
            endpoints: EndpointPolicy::TenantOrLoopback,
            timeout: Duration::from_millis(100),
        };
        let settings = Settings {
            connect,
            plain: true,
            longest_body: 1024,
            ..Settings::default()
        };
        let mut client = HttpClient::new(settings).unwrap();
        client.failure_after = Some(Duration::from_millis(300));
        for port in [open, closed, silent_port] {
            let began = Instant::now();
            let answer = client.send(get(&format!("https://localhost:{port}/"))).await;
            assert_eq!(answer.unwrap_err(), HttpError::NotConnected, "{port}");
            assert!(began.elapsed() >= Duration::from_millis(300), "{port}");
        }
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_told() {
        let request = get("https://no-such-host.invalid/");
        let answer = client(EndpointPolicy::Tenant, false).send(request).await;
        assert_eq!(answer.unwrap_err(), HttpError::NameNotResolved);
    }
}
