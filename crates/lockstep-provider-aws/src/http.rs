//! The HTTP client that the SDK sends with: no proxy, no redirects, and answers of bounded length.

use std::{sync::Arc, time::Duration};

use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
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
use lockstep_provider::room;

/// The longest body that is read. Twenty values of 64 KiB, each byte of them written as an escape of six, are 7.5 MiB.
pub(crate) const LONGEST_BODY: usize = 8 << 20;
/// How long connecting, TLS included, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one call may take in all; the store's own `limits.timeout` is shorter as a rule.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection is kept that nobody uses.
const KEPT_IDLE: Duration = Duration::from_secs(30);
/// How many connections to one host are kept that nobody uses.
const KEPT_CONNECTIONS: usize = 32;

/// A client. Stores share it: a connection says nothing of who asks, each request is signed for itself, and the system's
/// certificates are loaded once.
pub(crate) fn client() -> SharedHttpClient {
    let client = Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .pool_idle_timeout(KEPT_IDLE)
        .pool_max_idle_per_host(KEPT_CONNECTIONS)
        .build_https();
    SharedHttpClient::new(Bounded(client))
}

/// The times that a call may take.
pub(crate) fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_timeout(TOTAL_TIMEOUT)
        .build()
}

/// Makes connectors whose answers end with an error where they grow too long.
#[derive(Debug)]
struct Bounded<T>(T);

impl HttpClient for Bounded<SharedHttpClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Bounded(self.0.http_connector(settings, components)))
    }
}

fn no_room() -> ConnectorError {
    ConnectorError::timeout(
        "lockstep reads as many long answers at the same time as its memory allows".into(),
    )
}

impl HttpConnector for Bounded<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await?;
            let announced = answer.headers().get("content-length");
            let length = announced
                .and_then(|length| length.parse().ok())
                .unwrap_or(LONGEST_BODY);
            let taken = Arc::new(room::take(length.min(LONGEST_BODY)).await.ok_or_else(no_room)?);
            let limit = move |body: SdkBody| {
                let (limited, taken) = (Limited::new(body, LONGEST_BODY), Arc::clone(&taken));
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
