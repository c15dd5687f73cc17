//! The HTTP clients of the SDK. They enforce the endpoint policy of the store, use no proxy, follow
//! no redirects, and limit the length and structure of responses.

use std::{error::Error, time::Duration};

use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::{
    client::{
        dns::{DnsFuture, ResolveDns, ResolveDnsError},
        http::{
            HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
            SharedHttpConnector,
        },
        orchestrator::HttpRequest,
        result::ConnectorError,
        runtime_components::RuntimeComponents,
    },
    http::Headers,
};
use aws_smithy_types::{body::SdkBody, timeout::TimeoutConfig};
use futures::stream;
use http_body_util::{BodyExt as _, StreamBody};
use lockstep_http::{
    BodyLimits, BodyMeter, Connect, EndpointError, HttpError, JsonLimits, connection_failure,
};
use lockstep_provider::{EndpointPolicy, room::Share};
use tokio::time::{Instant, sleep_until};
use url::Url;

/// Maximum length of a response body. Twenty values of 64 KiB take 7.5 MiB if every byte is written
/// as an escape sequence of six.
pub(crate) const LONGEST_BODY: usize = 8 << 20;
/// Limits for one response. The largest structure is a page of a hundred secrets. By the quotas of
/// Secrets Manager a secret has 50 tags and 20 staging labels: about 85 objects and arrays, and 150
/// commas. The limits are twice that.
const LIMITS: BodyLimits = BodyLimits {
    bytes: LONGEST_BODY,
    json: Some(JsonLimits {
        containers: 16_384,
        commas: 32_768,
        depth: 64,
    }),
};
/// Timeout of one call in total. The store's own `limits.timeout` is usually shorter.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an idle connection is kept.
const KEPT_IDLE: Duration = Duration::from_secs(30);
/// Maximum number of idle connections to one host.
const KEPT_CONNECTIONS: usize = 32;

/// The clients of all stores, one for each endpoint policy, so that a store never reuses a
/// connection that its policy forbids. Other stores share connections, because each request is
/// signed separately. The certificates of the system are loaded once.
#[derive(Debug, Clone)]
pub(crate) struct Clients {
    tenant: SharedHttpClient,
    tenant_or_loopback: SharedHttpClient,
    unrestricted: SharedHttpClient,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            tenant: client(EndpointPolicy::Tenant),
            tenant_or_loopback: client(EndpointPolicy::TenantOrLoopback),
            unrestricted: client(EndpointPolicy::Unrestricted),
        }
    }
}

impl Clients {
    /// Returns the client of a store. Its responses share a part of the memory budget for
    /// responses.
    pub(crate) fn of(&self, connect: Connect) -> Http {
        let client = match connect.endpoints {
            EndpointPolicy::Tenant => &self.tenant,
            EndpointPolicy::TenantOrLoopback => &self.tenant_or_loopback,
            EndpointPolicy::Unrestricted => &self.unrestricted,
        };
        let client = Bounded {
            inner: client.clone(),
            endpoints: connect.endpoints,
            failure_after: connect.failure_after(),
            share: Share::default(),
        };
        Http {
            client: SharedHttpClient::new(client),
            connect_timeout: connect.timeout,
        }
    }
}

/// The client of a store.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    pub(crate) client: SharedHttpClient,
    connect_timeout: Duration,
}

impl Http {
    /// Returns the timeouts of a call.
    pub(crate) fn timeouts(&self) -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(self.connect_timeout)
            .operation_timeout(TOTAL_TIMEOUT)
            .build()
    }
}

fn client(endpoints: EndpointPolicy) -> SharedHttpClient {
    Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .pool_idle_timeout(KEPT_IDLE)
        .pool_max_idle_per_host(KEPT_CONNECTIONS)
        .build_with_resolver(Resolver(endpoints))
}

/// Resolves names to the addresses that the policy permits.
#[derive(Debug, Clone, Copy)]
struct Resolver(EndpointPolicy);

impl ResolveDns for Resolver {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        let found = lockstep_http::resolve(self.0, name);
        DnsFuture::new(async move { found.await.map_err(ResolveDnsError::new) })
    }
}

/// Creates connectors that check addresses and end responses with an error when they exceed their
/// limits.
#[derive(Debug)]
struct Bounded<T> {
    inner: T,
    endpoints: EndpointPolicy,
    /// See [`Connect::failure_after`].
    failure_after: Option<Duration>,
    share: Share,
}

impl HttpClient for Bounded<SharedHttpClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Bounded {
            inner: self.inner.http_connector(settings, components),
            endpoints: self.endpoints,
            failure_after: self.failure_after,
            share: self.share.clone(),
        })
    }
}

impl HttpConnector for Bounded<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let began = Instant::now();
        let result = match Url::parse(request.uri()) {
            Ok(url) => match lockstep_http::check(self.endpoints, &url) {
                Ok(()) => Ok((self.inner.call(request), url)),
                Err(error) => Err(error),
            },
            Err(_) => Err(EndpointError::Blocked),
        };
        let (share, failure_after) = (self.share.clone(), self.failure_after);
        HttpConnectorFuture::new(async move {
            let result = match result {
                Ok((answer, url)) => answer.await.inspect_err(|error| log(&url, error)),
                Err(error) => Err(ConnectorError::io(error.into())),
            };
            if let (Some(after), Err(error)) = (failure_after, &result)
                && is_unreachable(error)
            {
                sleep_until(began + after).await;
            }
            let answer = result?;
            let announced = announced(answer.headers());
            Ok(answer.map(|body| bounded(body, BodyMeter::new(LIMITS, announced, &share))))
        })
    }
}

/// Whether users see a failure as "could not connect", for whatever cause.
fn is_unreachable(error: &(dyn Error + 'static)) -> bool {
    matches!(connection_failure(error), None | Some(HttpError::NotConnected))
}

/// Returns the announced length of a response. A chunked response can announce any length and have
/// another.
fn announced(headers: &Headers) -> Option<usize> {
    if headers.contains_key("transfer-encoding") {
        return None;
    }
    headers.get("content-length")?.parse().ok()
}

/// Wraps a body so that it ends with a [`lockstep_http::BodyError`] when it exceeds its limits.
fn bounded(body: SdkBody, meter: BodyMeter) -> SdkBody {
    let frames = stream::try_unfold((body, meter), |(mut body, meter)| async move {
        let Some(frame) = body.frame().await.transpose()? else {
            return Ok(None);
        };
        let bytes = frame.data_ref().map(AsRef::as_ref).unwrap_or_default();
        let meter = meter.admit(bytes).await?;
        Ok::<_, Box<dyn Error + Send + Sync>>(Some((frame, (body, meter))))
    });
    SdkBody::from_body_1_x(StreamBody::new(frames))
}

/// Logs the cause, which the error of the store does not contain.
fn log(url: &Url, error: &ConnectorError) {
    let server = url.origin().ascii_serialization();
    let otherwise = if error.is_timeout() { "timed out" } else { "other" };
    let reason = lockstep_http::reason(error).unwrap_or(otherwise);
    tracing::info!(server, reason, "could not connect to a store");
}

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials as Key;
    use aws_sdk_sts::{Client as Sts, config::Builder};
    use tokio::net::TcpListener;

    use super::*;
    use crate::{error::Failed, sdk::common};

    const AFTER: Duration = Duration::from_millis(300);

    /// Fails to connect to an address and returns how long that took.
    async fn fail(http: &Http, endpoint: &str) -> Duration {
        let config: Builder = common!(aws_sdk_sts, "eu-central-1", Some(endpoint), http);
        let key = Key::new("id", "secret", None, None, "test");
        let client = Sts::from_conf(config.credentials_provider(key).build());
        let began = Instant::now();
        let error = client.get_caller_identity().send().await.unwrap_err();
        let failed = Failed::of(&error);
        assert!(
            matches!(failed, Failed::Http(HttpError::NotConnected)),
            "{endpoint}"
        );
        began.elapsed()
    }

    #[tokio::test]
    async fn blocked_address_of_a_tenant_fails_no_sooner() {
        let http = Clients::default().of(Connect {
            endpoints: EndpointPolicy::Tenant,
            timeout: AFTER,
        });
        for endpoint in ["https://127.0.0.1:1", "https://localhost:1"] {
            assert!(fail(&http, endpoint).await >= AFTER, "{endpoint}");
        }
        let http = Clients::default().of(Connect {
            endpoints: EndpointPolicy::Unrestricted,
            timeout: Duration::from_secs(5),
        });
        assert!(fail(&http, "https://127.0.0.1:1").await < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn closed_and_silent_ports_of_a_tenant_fail_alike() {
        let closed = lockstep_testkit::ports::free().unwrap();
        // The kernel accepts connections, and nothing reads from them.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoints = EndpointPolicy::TenantOrLoopback;
        let client = Bounded {
            inner: client(endpoints),
            endpoints,
            failure_after: Some(AFTER),
            share: Share::default(),
        };
        let http = Http {
            client: SharedHttpClient::new(client),
            connect_timeout: AFTER / 3,
        };
        for port in [closed, silent.local_addr().unwrap().port()] {
            let took = fail(&http, &format!("https://127.0.0.1:{port}")).await;
            assert!(took >= AFTER, "{port}: {took:?}");
        }
    }

    #[test]
    fn announced_length_of_chunked_answer_is_ignored() {
        let mut headers = Headers::new();
        assert_eq!(announced(&headers), None);
        headers.insert("content-length", "17");
        assert_eq!(announced(&headers), Some(17));
        headers.insert("transfer-encoding", "chunked");
        assert_eq!(announced(&headers), None);
        for unknown in ["", "-1", "many", "99999999999999999999999"] {
            let mut headers = Headers::new();
            headers.insert("content-length", unknown);
            assert_eq!(announced(&headers), None, "{unknown}");
        }
    }
}
