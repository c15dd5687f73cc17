//! Bounded HTTP requests, for providers whose service has no client library that supports limits.
//!
//! A client connects only where the endpoint policy of its store allows it. It ignores the
//! environment and proxies and follows no redirects, because the content of a request is meant only
//! for the authorized address. Response bodies have a maximum length and are wiped when they are
//! dropped.

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
pub use endpoint::{Connect, EndpointError, check, parse, resolve};
pub use error::{HttpError, ServiceHints, connection_failure, reason};
pub use json::{JsonCounter, JsonLimits, TooComplex};
pub use meter::{BodyError, BodyLimits, BodyMeter};
pub use reqwest;
pub use retry_after::retry_after;

use endpoint::Resolver;

/// Maximum duration of one request. The store's own `limits.timeout` is usually shorter.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an idle connection is kept open.
const KEPT_IDLE: Duration = Duration::from_secs(30);

/// The settings of a client.
#[derive(Default)]
pub struct Settings {
    /// Where the client connects, and its connect timeout.
    pub connect: Connect,
    /// Trusted certificate authorities. Defaults to those of the system.
    pub authorities: Option<Vec<Certificate>>,
    /// The client certificate.
    pub identity: Option<Identity>,
    /// Disables TLS for all requests, so that no certificates are needed.
    pub plain: bool,
    /// Maximum length of a response body, in bytes.
    pub longest_body: usize,
    /// Maximum number of idle connections that are kept open per host.
    pub kept_connections: usize,
    /// Allows requests to switch to another protocol ([`HttpClient::upgrade`]). Such clients use
    /// HTTP/1.1, and their requests may last longer than a minute.
    pub upgrades: bool,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("longest_body", &self.longest_body)
            .finish_non_exhaustive()
    }
}

/// TLS cannot use the certificates. The library's own message is dropped because it may quote them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadCertificates;

/// One response. The body may contain values and tokens: it is wiped on drop, holds a memory
/// reservation, and `Debug` shows only its length.
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The response headers.
    pub headers: HeaderMap,
    /// The response body.
    pub body: Body,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer(status {}, {} bytes)", self.status, self.body.len())
    }
}

/// The result of a request to switch to another protocol.
pub enum Upgrade {
    /// The connection has switched. Includes the headers of the response.
    Switched(reqwest::Upgraded, HeaderMap),
    /// The server refused to switch and sent this response.
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

/// Sends bounded requests to the server of one store.
#[derive(Clone)]
pub struct HttpClient {
    http: reqwest::Client,
    endpoints: EndpointPolicy,
    /// See [`Connect::failure_after`].
    failure_after: Option<Duration>,
    limits: BodyLimits,
    /// This client's share of the memory that the process reserves for responses. It limits how
    /// much a deliberately slow server can occupy.
    share: Share,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpClient")
    }
}

impl HttpClient {
    /// Creates a client that takes every setting from its argument.
    ///
    /// # Errors
    /// Fails when the certificates cannot be used.
    pub fn new(settings: Settings) -> Result<Self, BadCertificates> {
        // reqwest panics without a crypto provider. The binary installs one at startup; any other
        // caller gets the same one here.
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
            // Without TLS no certificates are needed, and an image that contains none must still
            // work.
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

    /// Limits the JSON structure of response bodies, for parsers whose values are much larger than
    /// the bytes they read. Unlimited by default.
    #[must_use]
    pub const fn with_json_limits(mut self, limits: JsonLimits) -> Self {
        self.limits.json = Some(limits);
        self
    }

    /// Sends one request and returns the response, whatever its status.
    ///
    /// # Errors
    /// Fails when there is no response, or the response exceeds a limit.
    pub async fn send(&self, request: Request) -> Result<Answer, HttpError> {
        let server = server(request.url());
        let response = self.execute(request, &server).await?;
        self.read(response, &server).await
    }

    /// Sends a request if the endpoint policy permits it.
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

    /// Asks the server to switch to another protocol. The request must name the protocol, and
    /// [`Settings::upgrades`] must be set.
    ///
    /// # Errors
    /// Fails when there is no response within a minute, or the response exceeds a limit.
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

/// Returns the server of a URL in the form used in messages: `https://vault.internal:8200`.
fn server(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Copies the bytes into a larger buffer. Growing the old buffer in place could leave a copy behind
/// that is not wiped.
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

    /// Starts a server that accepts connections, counts them and closes them.
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
    async fn tenants_cannot_reach_loopback_by_any_name() {
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
        // the other policies reach it
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
    async fn blocked_addresses_fail_no_sooner_than_unreachable_ones() {
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
    async fn open_closed_and_silent_ports_look_alike() {
        let (open, _) = listener().await;
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap().port()
        };
        // the kernel accepts connections, but nothing responds
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

    /// Starts a server that responds once, in chunks of 1000 bytes.
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
            // the client may have closed the connection already
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
    async fn unknown_host_name_is_reported() {
        let request = get("https://no-such-host.invalid/");
        let answer = client(EndpointPolicy::Tenant, false).send(request).await;
        assert_eq!(answer.unwrap_err(), HttpError::NameNotResolved);
    }
}
