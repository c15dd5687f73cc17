//! The error type of every stage of a sync.

use std::time::Duration;

use lockstep_api::Reason;

use crate::remote::{ErrorKind, ProviderError, Requeue};

/// The reason why a sync failed. The Secret is left unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The reason in the `Ready` condition, the event and the metric.
    pub reason: Reason,
    /// A message for users, without any value.
    pub message: String,
    /// When the sync is retried.
    pub requeue: Requeue,
    /// The delay that the backend asked for.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// Creates a failure that is retried only after a change.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            requeue: Requeue::OnChange,
            retry_after: None,
        }
    }

    /// Sets when the sync is retried.
    #[must_use]
    pub fn requeued(mut self, requeue: Requeue) -> Self {
        self.requeue = requeue;
        self
    }

    /// Creates a failure from a provider error. `context` names the entry and the store.
    pub fn provider(context: &str, error: &ProviderError) -> Self {
        Self {
            reason: error.kind.reason(),
            message: format!("{context}: {error}"),
            requeue: error.kind.requeue(),
            retry_after: error.retry_after,
        }
    }

    /// Whether waiting cannot help, which sets the `Stalled` condition.
    pub fn is_stalled(&self) -> bool {
        matches!(self.requeue, Requeue::OnChange)
    }

    /// Whether a remote value is missing.
    pub fn is_not_found(&self) -> bool {
        self.reason == ErrorKind::NotFound.reason()
    }
}
