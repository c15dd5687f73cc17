//! Settings of the operator, and why it does not start.

use std::{net::SocketAddr, time::Duration};

use crate::key;

/// Settings of the process.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where `/livez`, `/readyz` and `/metrics` listen.
    pub listen: SocketAddr,
    /// Namespaces to watch; empty: all.
    pub namespaces: Vec<String>,
    /// Writes to the API server at the same time.
    pub concurrency: u16,
    /// The operator's own namespace.
    pub operator_namespace: String,
    /// Time between two looks at the same Secret; zero turns them off.
    pub drift_probe_interval: Duration,
    /// Time between two proofs of the admission policies; a second at least.
    pub admission_check_interval: Duration,
    /// Watch the metadata of written Secrets, for repair within a second. It needs `list` and `watch` on Secrets.
    pub drift_watch: bool,
    /// Audiences of the tokens that log in to stores; each is used while it is proven that the API server refuses its tokens.
    pub token_audiences: Vec<String>,
    /// Write Secrets although the admission policy is missing.
    pub unsafe_without_admission_policy: bool,
    /// Let SecretStores use loopback addresses, for tests.
    pub unsafe_allow_local_store_endpoints: bool,
}

/// Why the operator could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// There is no fingerprint key.
    #[error(transparent)]
    Key(#[from] key::KeyError),
    /// The admission policy does not hold.
    #[error(
        "the admission policy lockstep-secrets does not refuse what it must refuse ({0}). Install it (deploy/kustomize holds it), or start with --unsafe-without-admission-policy, which lets whoever takes over this process write every Secret"
    )]
    Admission(String),
    /// A metric is registered twice.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A task failed for good.
    #[error("a part of the operator failed; the log says which")]
    Task,
}
