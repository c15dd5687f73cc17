//! HTTP clients and servers of the test harness itself.

use anyhow::{Context as _, Result};
use axum::Router;
use reqwest::{Certificate, Client};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// A server that stops when it is dropped.
pub(crate) type Serving = AbortOnDropHandle<()>;

/// Serves a router on a listener.
pub(crate) fn serve(listener: TcpListener, router: Router) -> Serving {
    #[expect(clippy::disallowed_methods, reason = "it ends with the returned handle")]
    let task = tokio::spawn(async move {
        // An error also fails the test's requests, so it need not be reported here.
        let _ = axum::serve(listener, router).await;
    });
    AbortOnDropHandle::new(task)
}

/// Creates a client that trusts only `ca` (PEM), or uses plain HTTP. It keeps no idle connections:
/// helpers of a shared server are used from many runtimes, and a connection ends with the runtime
/// that opened it.
///
/// # Errors
/// When the certificate is malformed.
pub(crate) fn client(ca: Option<&str>) -> Result<Client> {
    crate::init();
    let trusted = ca
        .map(|pem| Certificate::from_pem(pem.as_bytes()))
        .transpose()
        .context("read a CA certificate")?;
    Client::builder()
        .tls_certs_only(trusted)
        .pool_max_idle_per_host(0)
        .no_proxy()
        .build()
        .context("build an HTTP client")
}
