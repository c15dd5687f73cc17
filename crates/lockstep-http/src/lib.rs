//! Bounded HTTP requests, for providers whose services have no client that can be bounded.
//!
//! A client connects only where the endpoint policy of its store allows it. It uses no environment, no proxy, and follows no
//! redirect: what a request holds is for the address that was authorized. Answers have a bounded length, and what is kept of them is wiped.

mod body;
mod endpoint;
mod error;
mod json;
mod meter;
mod retry_after;

use std::{fmt, sync::Arc, time::Duration};

use lockstep_provider::EndpointPolicy;
use reqwest::{Certificate, Identity, Request, Url, header::HeaderMap, redirect::Policy};
use tokio::time::{Instant, sleep_until};
use zeroize::Zeroizing;

use lockstep_provider::room::{self, Share};

pub use body::Body;
pub use endpoint::{Connect, EndpointError, check, resolve};
pub use error::{HttpError, NOT_CONNECTED_HINT, connection_failure, reason};
pub use json::{JsonCounter, JsonLimits, TooComplex};
pub use meter::{BodyError, BodyLimits, BodyMeter};
pub use reqwest;
pub use retry_after::retry_after;

use endpoint::Resolver;

/// How long one request may take in all; the store's own `limits.timeout` is shorter as a rule.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection is kept that nobody uses.
const KEPT_IDLE: Duration = Duration::from_secs(30);

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
    /// See [`Connect::failure_after`].
    failure_after: Option<Duration>,
    limits: BodyLimits,
    /// What this client may take of the room of the process: a server that is slow on purpose takes no more.
    share: Share,
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
            .redirect(Policy::none())
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
            failure_after: settings.connect.failure_after(),
            limits: BodyLimits {
                bytes: settings.longest_body,
                json: None,
            },
            share: Share::default(),
        })
    }

    /// Bounds the JSON of bodies, where a parser makes values of it that are much larger than its bytes. Default: no bounds.
    #[must_use]
    pub const fn with_json_limits(mut self, limits: JsonLimits) -> Self {
        self.limits.json = Some(limits);
        self
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

    /// Sends a request where the endpoint policy permits it.
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

    async fn read(&self, mut response: reqwest::Response, server: &str) -> Result<Answer, HttpError> {
        let status = response.status().as_u16();
        let refused = |error| match error {
            BodyError::TooLong => HttpError::TooLong {
                status,
                longest: self.limits.bytes,
            },
            BodyError::TooComplex => HttpError::TooComplex { status },
            BodyError::NoRoom => HttpError::NoRoom,
        };
        let announced = response.content_length();
        if announced.is_some_and(|length| length > self.limits.bytes as u64) {
            return Err(refused(BodyError::TooLong));
        }
        let announced = announced.and_then(|length| usize::try_from(length).ok());
        let mut meter = BodyMeter::new(self.limits, announced, &self.share);
        let mut body = Zeroizing::new(Vec::with_capacity(
            announced.unwrap_or_default().clamp(4096, room::SMALL),
        ));
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| HttpError::of(&error, server))?
        {
            meter = meter.admit(&chunk).await.map_err(refused)?;
            if body.len() + chunk.len() > body.capacity() {
                body = grown(&body, meter.capacity());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            status,
            headers: std::mem::take(response.headers_mut()),
            body: Body::new(body, meter.into_room()),
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use lockstep_provider::EndpointPolicy;
    use reqwest::Method;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

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

    /// A server that answers once, in chunks of 1000 bytes.
    async fn chunked(body: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        #[expect(clippy::disallowed_methods, reason = "a test ends with its runtime")]
        tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let _ = connection.read(&mut [0; 4096]).await;
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let mut answer = head.to_vec();
            for chunk in body.chunks(1000) {
                answer.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                answer.extend_from_slice(chunk);
                answer.extend_from_slice(b"\r\n");
            }
            answer.extend_from_slice(b"0\r\n\r\n");
            // the client may have had enough
            let _ = connection.write_all(&answer).await;
            let _ = connection.read(&mut [0; 4096]).await;
        });
        url
    }

    #[tokio::test]
    async fn chunked_answer_is_read_within_its_limits() {
        let settings = Settings {
            connect: Connect {
                endpoints: EndpointPolicy::Unrestricted,
                ..Connect::default()
            },
            plain: true,
            longest_body: 1 << 20,
            ..Settings::default()
        };
        let client = HttpClient::new(settings).unwrap().with_json_limits(JsonLimits {
            containers: 100,
            commas: 100,
            depth: 10,
        });
        let mut body: Vec<u8> = (0..300_000_u32)
            .map(|number| number.to_le_bytes()[0] | 0x80)
            .collect();
        let answer = client.send(get(&chunked(body.clone()).await)).await.unwrap();
        assert!(answer.body[..] == body, "every byte is there");
        body.extend(std::iter::repeat_n(b'[', 11));
        let error = client.send(get(&chunked(body).await)).await.unwrap_err();
        assert_eq!(error, HttpError::TooComplex { status: 200 });
        let error = client.send(get(&chunked(vec![b' '; 2 << 20]).await)).await;
        assert!(matches!(error, Err(HttpError::TooLong { .. })), "{error:?}");
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_told() {
        let request = get("https://no-such-host.invalid/");
        let answer = client(EndpointPolicy::Tenant, false).send(request).await;
        assert_eq!(answer.unwrap_err(), HttpError::NameNotResolved);
    }
}
