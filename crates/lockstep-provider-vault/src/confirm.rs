//! What a client confirms with the server before it trusts it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lockstep_provider::{ErrorKind, ProviderError};
use tokio::sync::Mutex;

/// A check that succeeds once per client. Requests that arrive during a check wait for it and share its result. A success is
/// remembered, a failure is not.
#[derive(Debug, Default)]
pub(crate) struct Confirmation {
    is_confirmed: AtomicBool,
    /// Checks that have ended, successfully or not.
    attempts: AtomicU64,
    /// Why the last check failed, for the requests that waited for it.
    failure: Mutex<Option<ProviderError>>,
}

impl Confirmation {
    /// Runs the check, unless it has succeeded before.
    ///
    /// # Errors
    /// The error of the check.
    pub(crate) async fn confirm(
        &self,
        check: impl Future<Output = Result<(), ProviderError>>,
    ) -> Result<(), ProviderError> {
        if self.is_confirmed.load(Ordering::Acquire) {
            return Ok(());
        }
        let seen = self.attempts.load(Ordering::Acquire);
        let mut failure = self.failure.lock().await;
        if self.is_confirmed.load(Ordering::Acquire) {
            return Ok(());
        }
        if self.attempts.load(Ordering::Acquire) != seen
            && let Some(error) = &*failure
        {
            return Err(error.clone());
        }
        let result = check.await;
        match &result {
            Ok(()) => self.is_confirmed.store(true, Ordering::Release),
            Err(error) => *failure = is_shared(error).then(|| error.clone()),
        }
        self.attempts.fetch_add(1, Ordering::AcqRel);
        result
    }
}

/// Whether a failure concerns every request. A ciphertext that is damaged, or too old for its key, fails alone.
fn is_shared(error: &ProviderError) -> bool {
    !matches!(error.kind, ErrorKind::Undecryptable | ErrorKind::KeyUnavailable)
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use futures::future::join;
    use lockstep_provider::Operation;
    use tokio::task::yield_now;

    use super::*;

    fn error(kind: ErrorKind) -> ProviderError {
        ProviderError::new(kind, Operation::Decrypt, "it failed")
    }

    #[tokio::test]
    async fn success_is_remembered_and_failure_is_not() {
        let confirmation = Confirmation::default();
        let failed = confirmation
            .confirm(ready(Err(error(ErrorKind::ConfigInvalid))))
            .await;
        assert!(failed.is_err());
        assert!(confirmation.confirm(ready(Ok(()))).await.is_ok());
        let skipped = confirmation
            .confirm(ready(Err(error(ErrorKind::ConfigInvalid))))
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
            let (first, second) =
                join(confirmation.confirm(first), confirmation.confirm(ready(Ok(())))).await;
            assert!(first.is_err());
            assert_eq!(second.is_err(), is_shared, "{kind:?}");
        }
    }
}
