//! The HTTP clients that the SDK sends with: no connection that the store's endpoint policy refuses, no proxy, no redirects, and
//! answers of bounded length.

use std::{sync::Arc, time::Duration};

use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
    dns::{DnsFuture, ResolveDns, ResolveDnsError},
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
        SharedHttpConnector,
    },
    orchestrator::HttpRequest,
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::{body::SdkBody, timeout::TimeoutConfig};
use http_body_util::{BodyExt as _, Limited};
use lockstep_http::{Connect, EndpointError};
use lockstep_provider::{EndpointPolicy, room};
use url::Url;

/// The longest body that is read. Twenty values of 64 KiB, each byte of them written as an escape of six, are 7.5 MiB.
pub(crate) const LONGEST_BODY: usize = 8 << 20;
/// How long one call may take in all; the store's own `limits.timeout` is shorter as a rule.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection is kept that nobody uses.
const KEPT_IDLE: Duration = Duration::from_secs(30);
/// How many connections to one host are kept that nobody uses.
const KEPT_CONNECTIONS: usize = 32;

/// The clients of all stores, one for each endpoint policy: a connection that one store may not make is never taken over from
/// another. Otherwise stores share connections, which say nothing of who asks: each request is signed for itself, and the
/// system's certificates are loaded once.
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
    /// What a store sends with.
    pub(crate) fn of(&self, connect: Connect) -> Http {
        let client = match connect.endpoints {
            EndpointPolicy::Tenant => &self.tenant,
            EndpointPolicy::TenantOrLoopback => &self.tenant_or_loopback,
            EndpointPolicy::Unrestricted => &self.unrestricted,
        };
        Http {
            client: client.clone(),
            connect_timeout: connect.timeout,
        }
    }
}

/// What a store sends with.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    pub(crate) client: SharedHttpClient,
    connect_timeout: Duration,
}

impl Http {
    /// The times that a call may take.
    pub(crate) fn timeouts(&self) -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(self.connect_timeout)
            .operation_timeout(TOTAL_TIMEOUT)
            .build()
    }
}

fn client(endpoints: EndpointPolicy) -> SharedHttpClient {
    let inner = Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .pool_idle_timeout(KEPT_IDLE)
        .pool_max_idle_per_host(KEPT_CONNECTIONS)
        .build_with_resolver(Resolver(endpoints));
    SharedHttpClient::new(Bounded { inner, endpoints })
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

/// Makes connectors that check addresses, and whose answers end with an error where they grow too long.
#[derive(Debug)]
struct Bounded<T> {
    inner: T,
    endpoints: EndpointPolicy,
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
        })
    }
}

fn no_room() -> ConnectorError {
    ConnectorError::timeout(
        "lockstep reads as many long answers at the same time as its memory allows".into(),
    )
}

impl HttpConnector for Bounded<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Ok(url) = Url::parse(request.uri()) else {
            return refused(EndpointError::Blocked);
        };
        if let Err(error) = lockstep_http::check(self.endpoints, &url) {
            return refused(error);
        }
        let answer = self.inner.call(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await.inspect_err(|error| log(&url, error))?;
            let headers = answer.headers();
            // who sends chunks may announce any length
            let announced = (!headers.contains_key("transfer-encoding"))
                .then(|| headers.get("content-length"))
                .flatten();
            let length = longest(announced);
            let taken = Arc::new(room::take(length).await.ok_or_else(no_room)?);
            let limit = move |body: SdkBody| {
                // no more is read than there is room for
                let (limited, taken) = (Limited::new(body, length), Arc::clone(&taken));
                // what the closure holds goes with the body
                SdkBody::from_body_1_x(limited.map_frame(move |frame| {
                    let _held = &taken;
                    frame
                }))
            };
            Ok(answer.map(limit))
        })
    }
}

/// How many bytes are read of a body that announces this length.
fn longest(announced: Option<&str>) -> usize {
    let length: Option<usize> = announced.and_then(|length| length.parse().ok());
    length.map_or(LONGEST_BODY, |length| length.min(LONGEST_BODY))
}

fn refused(error: EndpointError) -> HttpConnectorFuture {
    HttpConnectorFuture::ready(Err(ConnectorError::io(error.into())))
}

/// Writes the reason to the log, which the error of the store does not have.
fn log(url: &Url, error: &ConnectorError) {
    let server = url.origin().ascii_serialization();
    let otherwise = if error.is_timeout() { "timed out" } else { "other" };
    let reason = lockstep_http::reason(error).unwrap_or(otherwise);
    tracing::info!(server, reason, "could not connect to a store");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_to_the_length_that_it_announces_and_else_to_the_longest() {
        assert_eq!(longest(Some("17")), 17);
        assert_eq!(longest(Some("0")), 0);
        for unknown in [
            None,
            Some(""),
            Some("-1"),
            Some("many"),
            Some("99999999999999999999999"),
        ] {
            assert_eq!(longest(unknown), LONGEST_BODY, "{unknown:?}");
        }
        assert_eq!(longest(Some("9000000000")), LONGEST_BODY);
    }
}
