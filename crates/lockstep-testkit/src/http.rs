//! HTTP clients of the harness itself.

use anyhow::{Context as _, Result};
use reqwest::{Certificate, Client};

/// A client that trusts `ca` (PEM) alone, or talks plain HTTP. It keeps no connection: a shared server's helper is used
/// from many runtimes, and a kept connection would end with the runtime that it was made in.
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
