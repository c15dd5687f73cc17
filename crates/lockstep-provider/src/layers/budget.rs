use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lockstep_api::Limits;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use super::{
    DEFAULT_MAX_CONCURRENT, DEFAULT_TIMEOUT, deadline,
    gate::{Gate, Verdict},
    pace::Pace,
};
use crate::{Context, ErrorKind, Operation, ProviderError, metrics::StoreMetrics};

/// What one store may spend, shared by the layers that spend it: [`Limit`](super::Limit) asks before a request,
/// [`Retry`](super::Retry) before each further attempt and tells what each came to.
#[derive(Debug)]
pub struct Budget {
    slots: Arc<Semaphore>,
    max_concurrent: u32,
    pace: Option<Pace>,
    per_second: u32,
    timeout: Duration,
    gate: Mutex<Gate>,
    /// Why the gate is shut: the last such failure of each operation.
    failures: Mutex<BTreeMap<Operation, ProviderError>>,
    metrics: StoreMetrics,
}

impl Budget {
    /// The budget that a store's `limits` set.
    pub fn new(limits: &Limits, metrics: StoreMetrics) -> Self {
        let max_concurrent = limits.max_concurrent.unwrap_or(DEFAULT_MAX_CONCURRENT).max(1);
        Self {
            slots: Arc::new(Semaphore::new(max_concurrent as usize)),
            max_concurrent,
            pace: Pace::new(limits.requests_per_second, limits.burst),
            per_second: limits.requests_per_second.unwrap_or_default(),
            timeout: limits
                .timeout
                .map_or(DEFAULT_TIMEOUT, lockstep_api::Duration::to_std),
            gate: Mutex::default(),
            failures: Mutex::default(),
            metrics,
        }
    }

    /// Waits for a slot and a turn, no longer than the deadline and the store's time-out.
    ///
    /// # Errors
    /// `RateLimited` while the store is held or when the queue is longer than the wait may be; `Timeout` or
    /// `Unavailable` while the store does not answer; `Timeout` when no slot becomes free.
    pub(super) async fn admit(
        &self,
        cx: &Context,
        operation: Operation,
    ) -> Result<Admission<'_>, ProviderError> {
        self.refused(operation)?;
        let deadline = deadline(cx, self.timeout);
        let waiting = timeout_at(deadline, Arc::clone(&self.slots).acquire_owned());
        let Ok(Ok(slot)) = waiting.await else {
            return Err(self.no_slot(operation));
        };
        self.turn(operation, deadline).await?;
        // The store may have been held while this waited.
        let verdict = self.gate().admit(Instant::now());
        let trial = self.passes(verdict, operation)?;
        Ok(Admission {
            budget: self,
            trial,
            _slot: slot,
        })
    }

    /// Before a further attempt, whose slot is held already.
    ///
    /// # Errors
    /// As for [`Budget::admit`].
    pub(super) async fn admit_again(&self, cx: &Context, operation: Operation) -> Result<(), ProviderError> {
        self.turn(operation, deadline(cx, self.timeout)).await?;
        self.refused(operation)
    }

    /// What an attempt came to; `None` is a success.
    pub(super) fn record(&self, error: Option<&ProviderError>) {
        {
            let mut failures = self.failures();
            match error {
                Some(error)
                    if error.kind.is_transient()
                        || matches!(error.kind, ErrorKind::RateLimited | ErrorKind::Unauthenticated) =>
                {
                    failures.insert(error.operation, error.clone());
                }
                _ => failures.clear(),
            }
        }
        let error = error.map(|error| (error.kind, error.retry_after));
        let longer = self.gate().record(Instant::now(), error);
        if !longer.is_zero() {
            self.metrics.throttled(longer);
        }
    }

    async fn turn(&self, operation: Operation, deadline: Instant) -> Result<(), ProviderError> {
        let Some(pace) = &self.pace else { return Ok(()) };
        pace.turn(deadline).await.map_err(|queue| {
            ProviderError::new(
                ErrorKind::RateLimited,
                operation,
                format!(
                    "the store's own budget is spent (limits.requestsPerSecond: {})",
                    self.per_second
                ),
            )
            .with_retry_after(queue)
        })
    }

    /// Refuses what could not pass now, before it waits for anything.
    fn refused(&self, operation: Operation) -> Result<(), ProviderError> {
        let verdict = self.gate().verdict(Instant::now());
        self.passes(verdict, operation).map(|_| ())
    }

    fn no_slot(&self, operation: Operation) -> ProviderError {
        ProviderError::new(
            ErrorKind::Timeout,
            operation,
            format!(
                "no request slot became free in time (limits.maxConcurrent: {})",
                self.max_concurrent
            ),
        )
    }

    /// Whether a request that passes is the trial.
    ///
    /// The error of one that does not pass repeats what the store last said, and carries no time: it stands in a
    /// status, which must not change while the store's state does not. The time is beside the message.
    fn passes(&self, verdict: Verdict, operation: Operation) -> Result<bool, ProviderError> {
        let (kind, left, otherwise) = match verdict {
            Verdict::Pass => return Ok(false),
            Verdict::Trial => return Ok(true),
            Verdict::Held(left) => (
                ErrorKind::RateLimited,
                left,
                "the store asked to slow down, and is left alone for a while",
            ),
            Verdict::Broken(ErrorKind::Timeout, left) => (
                ErrorKind::Timeout,
                left,
                "the store did not answer in time several times in a row, and is left alone for a while",
            ),
            Verdict::Broken(ErrorKind::Unauthenticated, left) => (
                ErrorKind::Unauthenticated,
                left,
                "the store refused the credentials several times in a row, and is left alone for a while",
            ),
            Verdict::Broken(kind, left) => (
                kind,
                left,
                "the store could not be reached several times in a row, and is left alone for a while",
            ),
        };
        let failures = self.failures();
        let same = failures
            .get(&operation)
            .into_iter()
            .chain(failures.values())
            .find(|failure| failure.kind == kind);
        let error = match same {
            Some(failure) => ProviderError {
                operation,
                ..failure.clone()
            },
            None => ProviderError::new(kind, operation, otherwise),
        };
        Err(error.with_retry_after(left))
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<Operation, ProviderError>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot that is held. Whoever was the trial and ends without a record leaves the turn to the next.
#[derive(Debug)]
pub(super) struct Admission<'a> {
    budget: &'a Budget,
    trial: bool,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if self.trial {
            self.budget.gate().give_up_trial();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::testing::budget;

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_left_alone_repeats_why() {
        let budget = budget(Limits::default());
        let sealed = ProviderError::new(ErrorKind::Unavailable, Operation::Read, "the server is sealed");
        for _ in 0..3 {
            budget.record(Some(&sealed));
        }
        for operation in [Operation::Read, Operation::Check] {
            let refused = budget
                .admit(&Context::default(), operation)
                .await
                .expect_err("the circuit is broken");
            assert_eq!((refused.kind, refused.operation), (sealed.kind, operation));
            assert_eq!(refused.message, sealed.message);
            assert!(refused.retry_after.is_some());
        }
        budget.record(None);
        assert!(budget.admit(&Context::default(), Operation::Read).await.is_ok());
    }
}
