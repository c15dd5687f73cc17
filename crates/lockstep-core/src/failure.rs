//! Why a sync cannot go on: one type for every stage of the pipeline.

use std::time::Duration;

use lockstep_api::Reason;

use crate::remote::{ErrorKind, ProviderError, Requeue};

/// Why a sync cannot go on. The Secret stays as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The reason of the `Ready` condition, of the event and of the metric.
    pub reason: Reason,
    /// A sentence for people, without any value.
    pub message: String,
    /// When it is tried again.
    pub requeue: Requeue,
    /// When the backend wants to be asked again.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure that waits until somebody changes something.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            requeue: Requeue::OnChange,
            retry_after: None,
        }
    }

    /// The same, tried again in another way.
    #[must_use]
    pub fn requeued(mut self, requeue: Requeue) -> Self {
        self.requeue = requeue;
        self
    }

    /// A failure of a provider; `context` names the entry and the store.
    pub fn provider(context: &str, error: &ProviderError) -> Self {
        Self {
            reason: error.kind.reason(),
            message: format!("{context}: {error}"),
            requeue: error.kind.requeue(),
            retry_after: error.retry_after,
        }
    }

    /// Whether waiting alone cannot help: the `Stalled` condition.
    pub fn is_stalled(&self) -> bool {
        matches!(self.requeue, Requeue::OnChange)
    }

    /// Whether the failure says that a remote value is missing.
    pub fn is_not_found(&self) -> bool {
        self.reason == ErrorKind::NotFound.reason()
    }
}
