//! Caches what a client confirmed with the server before it trusts it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use lockstep_provider::{ErrorKind, ProviderError};
use parking_lot::Mutex as SyncMutex;
use tokio::{sync::Mutex, time::Instant};

/// How long the server's information about an engine is used. An administrator can mount another
/// engine at the same path at any time, and lockstep must notice without a restart. One more
/// request in five minutes costs little.
pub(crate) const TRUSTED_FOR: Duration = Duration::from_secs(5 * 60);

/// Maximum age of information about an engine when a key is reported as missing, because
/// `deletionPolicy: Delete` then deletes the Secret. Within ten seconds, all missing keys of one
/// refresh share a lookup.
pub(crate) const RECENT: Duration = Duration::from_secs(10);

/// A check whose success is remembered for a while. Requests that arrive during a check wait for it
/// and share its result. A failure is not remembered, and discards an earlier success.
#[derive(Debug)]
pub(crate) struct Confirmation<T = ()> {
    /// The last success and when its check began.
    success: SyncMutex<Option<(T, Instant)>>,
    /// Checks that have ended, successfully or not.
    attempts: AtomicU64,
    /// The error of the last check, for the requests that waited for it.
    failure: Mutex<Option<ProviderError>>,
}

impl<T> Default for Confirmation<T> {
    fn default() -> Self {
        Self {
            success: SyncMutex::default(),
            attempts: AtomicU64::default(),
            failure: Mutex::default(),
        }
    }
}

impl<T: Clone> Confirmation<T> {
    /// Returns the result of the last check if it succeeded and began at most `max_age` ago.
    /// Otherwise runs the check.
    ///
    /// # Errors
    /// The error of the check.
    pub(crate) async fn confirm(
        &self,
        max_age: Duration,
        check: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        if let Some(known) = self.known(max_age) {
            return Ok(known);
        }
        let seen = self.attempts.load(Ordering::Acquire);
        let mut failure = self.failure.lock().await;
        if let Some(known) = self.known(max_age) {
            return Ok(known);
        }
        if self.attempts.load(Ordering::Acquire) != seen
            && let Some(error) = &*failure
        {
            return Err(error.clone());
        }
        let began = Instant::now();
        let result = check.await;
        *failure = result.as_ref().err().filter(|error| is_shared(error)).cloned();
        let success = result.as_ref().ok().map(|known| (known.clone(), began));
        *self.success.lock() = success;
        self.attempts.fetch_add(1, Ordering::AcqRel);
        result
    }

    fn known(&self, max_age: Duration) -> Option<T> {
        let success = self.success.lock();
        let (known, began) = success.as_ref()?;
        (began.elapsed() <= max_age).then(|| known.clone())
    }
}

/// Returns whether a failure concerns every request. A ciphertext that is damaged, or too old for
/// its key, fails alone.
fn is_shared(error: &ProviderError) -> bool {
    !matches!(error.kind, ErrorKind::Undecryptable | ErrorKind::KeyUnavailable)
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use futures::future::join;
    use lockstep_provider::Operation;
    use tokio::{task::yield_now, time::advance};

    use super::*;

    fn error(kind: ErrorKind) -> ProviderError {
        ProviderError::new(kind, Operation::Decrypt, "it failed")
    }

    #[tokio::test]
    async fn success_is_remembered_and_failure_is_not() {
        let confirmation = Confirmation::default();
        let failed = confirmation
            .confirm(RECENT, ready(Err(error(ErrorKind::ConfigInvalid))))
            .await;
        assert!(failed.is_err());
        assert!(confirmation.confirm(RECENT, ready(Ok(()))).await.is_ok());
        let skipped = confirmation
            .confirm(RECENT, ready(Err(error(ErrorKind::ConfigInvalid))))
            .await;
        assert!(skipped.is_ok());
    }

    #[tokio::test]
    async fn failure_of_one_ciphertext_is_not_shared() {
        for (kind, is_shared) in [
            (ErrorKind::ConfigInvalid, true),
            (ErrorKind::Unavailable, true),
            (ErrorKind::Undecryptable, false),
            (ErrorKind::KeyUnavailable, false),
        ] {
            let confirmation = Confirmation::default();
            let first = async {
                yield_now().await;
                Err(error(kind))
            };
            let (first, second) = join(
                confirmation.confirm(RECENT, first),
                confirmation.confirm(RECENT, ready(Ok(()))),
            )
            .await;
            assert!(first.is_err());
            assert_eq!(second.is_err(), is_shared, "{kind:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn success_expires() {
        let confirmation = Confirmation::default();
        assert_eq!(confirmation.confirm(RECENT, ready(Ok(1))).await, Ok(1));
        advance(RECENT).await;
        assert_eq!(confirmation.confirm(RECENT, ready(Ok(2))).await, Ok(1));
        advance(Duration::from_millis(1)).await;
        assert_eq!(confirmation.confirm(TRUSTED_FOR, ready(Ok(2))).await, Ok(1));
        assert_eq!(confirmation.confirm(RECENT, ready(Ok(2))).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn failure_discards_an_earlier_success() {
        let confirmation = Confirmation::default();
        assert_eq!(confirmation.confirm(RECENT, ready(Ok(1))).await, Ok(1));
        advance(2 * RECENT).await;
        let failed = confirmation
            .confirm(RECENT, ready(Err(error(ErrorKind::ConfigInvalid))))
            .await;
        assert!(failed.is_err());
        assert_eq!(confirmation.confirm(TRUSTED_FOR, ready(Ok(2))).await, Ok(2));
    }
}
