//! The time that matching names with regular expressions takes from everybody else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Semaphore, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::{ErrorKind, Operation, ProviderError};

/// The thread that matches names. One search follows another.
static THREAD: Semaphore = Semaphore::const_new(1);

/// The time that the searches of one SyncedSecret have spent on regular expressions in one
/// reconcile.
///
/// It limits whoever holds it, not a search: a search that someone else joined goes on for them.
#[derive(Debug, Clone, Default)]
pub struct MatchTime(Arc<State>);

#[derive(Debug, Default)]
struct State {
    nanos: AtomicU64,
    is_spent: CancellationToken,
}

impl MatchTime {
    /// The time of all searches of one SyncedSecret in one reconcile.
    pub const MAX: Duration = Duration::from_secs(2);

    /// Adds time that was spent.
    pub fn add(&self, took: Duration) {
        let took = nanos(took);
        let before = self.0.nanos.fetch_add(took, Ordering::Relaxed);
        if before.saturating_add(took) > nanos(Self::MAX) {
            self.0.is_spent.cancel();
        }
    }

    /// Runs a search until the time is spent.
    ///
    /// # Errors
    /// `ConfigInvalid` when the time is spent.
    pub async fn limit<T>(
        &self,
        search: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let found = self.0.is_spent.run_until_cancelled(search).await;
        found.unwrap_or_else(|| {
            Err(too_slow(&format!(
                "the searches of this SyncedSecret together matched names for longer than {} s",
                Self::MAX.as_secs()
            )))
        })
    }
}

/// The error of a search that takes too long.
pub(crate) fn too_slow(why: &str) -> ProviderError {
    let message = format!("find.name.regexp: {why}");
    ProviderError::new(ErrorKind::ConfigInvalid, Operation::Find, message)
        .with_hint("Use a simpler expression, or narrow the search with find.path")
}

/// Runs work on the thread that matches names. The work ends even if nobody waits for it any more.
pub(crate) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ProviderError> {
    let fault = || {
        let message = "a fault in lockstep's search ended the request";
        ProviderError::new(ErrorKind::Internal, Operation::Find, message)
    };
    let turn = THREAD.acquire().await.map_err(|_| fault())?;
    let worked = spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    worked.await.map_err(|_| fault())
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
