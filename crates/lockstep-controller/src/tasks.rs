//! Starts all tasks. Each has a name, a panic is logged without its payload, and shutdown waits for
//! all of them.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A set of tasks that end together.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Tasks {
    /// Creates an empty set of tasks that end when the token is cancelled.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self {
            tracker: TaskTracker::new(),
            shutdown,
        }
    }

    /// Returns the token that ends them.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Starts a task that runs until it ends or until the token is cancelled.
    pub fn spawn(
        &self,
        name: &'static str,
        token: CancellationToken,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let shutdown = self.shutdown.clone();
        self.tracker.spawn(async move {
            let guarded = AssertUnwindSafe(task).catch_unwind();
            let ended = tokio::select! {
                () = shutdown.cancelled() => Ok(()),
                () = token.cancelled() => Ok(()),
                ended = guarded => ended,
            };
            if ended.is_err() {
                tracing::error!(
                    task = name,
                    "a task panicked; the operator exits so that Kubernetes restarts it"
                );
                shutdown.cancel();
            }
        });
    }

    /// Waits until all have ended, but at most this long.
    pub async fn wait(&self, at_most: Duration) {
        self.tracker.close();
        if tokio::time::timeout(at_most, self.tracker.wait()).await.is_err() {
            tracing::warn!(remaining = self.tracker.len(), "some tasks did not end in time");
        }
    }
}
