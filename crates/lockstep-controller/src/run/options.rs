//! Settings of the operator, and the errors that end it.

use std::{net::SocketAddr, time::Duration};

use crate::key;

/// Settings of the process.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address of `/livez`, `/readyz` and `/metrics`.
    pub listen: SocketAddr,
    /// Namespaces to watch. Empty means all.
    pub namespaces: Vec<String>,
    /// Maximum number of concurrent writes to the API server.
    pub concurrency: u16,
    /// The operator's own namespace.
    pub operator_namespace: String,
    /// Interval between two drift probes of the same Secret. Zero disables them.
    pub drift_probe_interval: Duration,
    /// How long after a request for a credential the server may still issue it, if there was no
    /// answer.
    pub issue_timeout: Duration,
    /// How long all values must be gone before `deletionPolicy: Delete` deletes their Secret.
    pub deletion_delay: Duration,
    /// Interval between two proofs of the admission policies. Minimum one second.
    pub admission_check_interval: Duration,
    /// Whether to watch the metadata of written Secrets, to repair edits within a second. It
    /// requires `list` and `watch` on Secrets.
    pub drift_watch: bool,
    /// Audiences of the tokens for logging in to stores. Each is used only while the API server is
    /// proven to reject its tokens.
    pub token_audiences: Vec<String>,
    /// Whether to write Secrets although the admission policy is missing.
    pub unsafe_without_admission_policy: bool,
    /// Whether SecretStores may use loopback addresses, for tests.
    pub unsafe_allow_local_store_endpoints: bool,
}

/// The reason why the operator could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The operator cannot listen on the address.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// There is no fingerprint key.
    #[error(transparent)]
    Key(#[from] key::KeyError),
    /// The admission policy is not enforced.
    #[error(
        "the admission policy lockstep-secrets does not reject the test request ({0}). Install the policy from deploy/kustomize, or start with --unsafe-without-admission-policy, which lets anyone who takes over this process write every Secret"
    )]
    Admission(String),
    /// A metric is registered twice.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A task failed permanently.
    #[error("a part of the operator failed; the log says which")]
    Task,
}
