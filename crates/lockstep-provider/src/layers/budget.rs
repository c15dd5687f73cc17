use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lockstep_api::Limits;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout_at},
};

use super::{
    DEFAULT_MAX_CONCURRENT,
    adaptive::{Adaptive, Decision},
    deadline,
    gate::{Gate, Outcome, Verdict},
    holds::Holds,
    pace::Pace,
};
use crate::{
    Context, DEFAULT_TIMEOUT, ErrorKind, Operation, ProviderError, call::Scope, metrics::StoreMetrics,
};

/// How long a request waits for a slot at most while the store has an adaptive limit: earlier
/// requests wait for their turns. The caller may give up sooner.
const PACED_WAIT: Duration = Duration::from_secs(60);
/// Holds up to this length are waited for. For a longer one, the caller gets the time to retry.
const SHORT_HOLD: Duration = Duration::from_secs(2);

/// Maximum number of remembered failures.
const MOST_FAILURES: usize = 1024;

/// The request budget of one store, shared by the layers that use it. [`Limit`](super::Limit)
/// consults it before a request, [`Retry`](super::Retry) before each further attempt, and reports
/// the outcome of each attempt.
#[derive(Debug)]
pub struct Budget {
    slots: Arc<Semaphore>,
    max_concurrent: u32,
    pace: Option<Pace>,
    per_second: u32,
    timeout: Duration,
    gate: Mutex<Gate>,
    holds: Mutex<Holds>,
    adaptive: Mutex<Adaptive>,
    /// Held by the next request to be sent. Tokio's mutex is fair, so requests are sent in the
    /// order in which they came.
    next: tokio::sync::Mutex<()>,
    /// Number of requests that wait for a further attempt. They go first: otherwise a store that
    /// throttles by some pattern could reject the same requests again and again.
    waiting_retries: AtomicUsize,
    /// Notifies when one of them was sent.
    left: Notify,
    /// The last failure of each scope, to explain why the gate is shut. A failure is shown only to
    /// requests of its scope: messages contain keys and paths, which may belong to another tenant.
    failures: Mutex<HashMap<Scope, ProviderError>>,
    metrics: StoreMetrics,
}

impl Budget {
    /// Creates the budget from a store's `limits`.
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
            holds: Mutex::default(),
            adaptive: Mutex::default(),
            next: tokio::sync::Mutex::default(),
            waiting_retries: AtomicUsize::new(0),
            left: Notify::new(),
            failures: Mutex::default(),
            metrics,
        }
    }

    /// Waits for a slot and a turn, up to the deadline and the store's timeout. A request for
    /// several keys has no scope: its caller leaves out keys that are held.
    ///
    /// # Errors
    /// `RateLimited` while the path is held or when the queue is longer than the maximum wait;
    /// `Timeout` or `Unavailable` while the store does not respond; `Timeout` when no slot becomes
    /// free.
    pub(super) async fn admit(
        &self,
        cx: &Context,
        operation: Operation,
        scope: Option<&Scope>,
    ) -> Result<Admission<'_>, ProviderError> {
        let arrived = cx.queued_since.map_or_else(Instant::now, Instant::from_std);
        self.refused(operation, scope)?;
        let (soon, late) = (deadline(cx, self.timeout), deadline(cx, PACED_WAIT));
        let mut waiting = Box::pin(Arc::clone(&self.slots).acquire_owned());
        let mut slot = timeout_at(soon, &mut waiting).await;
        if slot.is_err() && self.is_paced() {
            // Earlier requests wait for their turns, which does not indicate a problem of the
            // store.
            slot = timeout_at(late, waiting).await;
        }
        let Ok(Ok(slot)) = slot else {
            return Err(self.no_slot(operation));
        };
        let deadline = if self.is_paced() { late } else { soon };
        self.wait_for_rate(operation, deadline, Attempt::First).await?;
        // The path may have been held in the meantime.
        if let Some(held) = scope.and_then(|scope| self.held(operation, scope)) {
            return Err(held);
        }
        let verdict = self.gate.lock().admit(Instant::now());
        let trial = self.passes(verdict, operation, scope)?;
        self.metrics.queued(arrived.elapsed());
        Ok(Admission {
            budget: self,
            trial,
            _slot: slot,
        })
    }

    /// Admits a further attempt, whose slot is already held.
    ///
    /// # Errors
    /// The errors of [`Budget::admit`].
    pub(super) async fn admit_again(&self, cx: &Context, operation: Operation) -> Result<(), ProviderError> {
        let deadline = deadline(cx, self.timeout);
        self.wait_for_rate(operation, deadline, Attempt::Retry).await?;
        self.refused(operation, None)
    }

    /// Admits a further attempt after throttling: waits for a short hold, and for a turn under the
    /// adaptive limit.
    ///
    /// # Errors
    /// The errors of [`Budget::admit`], and an error when the hold is long.
    pub(super) async fn admit_after_throttling(
        &self,
        cx: &Context,
        operation: Operation,
        scopes: &[Scope],
    ) -> Result<(), ProviderError> {
        let deadline = deadline(cx, PACED_WAIT);
        let held = scopes.iter().filter_map(|scope| self.held(operation, scope));
        if let Some(held) = held.max_by_key(|held| held.retry_after) {
            let left = held.retry_after.unwrap_or_default();
            if left > SHORT_HOLD || Instant::now() + left >= deadline {
                return Err(held);
            }
            sleep(left).await;
        }
        self.refused(operation, None)?;
        self.wait_for_rate(operation, deadline, Attempt::Retry).await?;
        self.refused(operation, None)
    }

    /// Returns whether the scope is held for longer than a request would wait.
    pub(super) fn is_held_long(&self, scope: &Scope) -> bool {
        let left = self
            .holds
            .lock()
            .left(Instant::now(), scope)
            .map(|(left, _)| left);
        left.is_some_and(|left| left > SHORT_HOLD)
    }

    /// Returns the error for a request whose scope is held.
    ///
    /// The error repeats the store's message. The remaining time is a separate field, not part of
    /// the message: the message becomes part of a status, which must not change while the store's
    /// state does not.
    pub(super) fn held(&self, operation: Operation, scope: &Scope) -> Option<ProviderError> {
        let holds = self.holds.lock();
        let (left, said) = holds.left(Instant::now(), scope)?;
        let error = ProviderError {
            operation,
            ..said.clone()
        };
        Some(error.with_retry_after(left))
    }

    /// Records the outcome of an attempt for this key or other scope.
    pub(super) fn record_for(&self, scope: Scope, error: &ProviderError) {
        if error.kind != ErrorKind::RateLimited {
            self.remember(scope, error);
            return;
        }
        let several = error
            .retry_after
            .is_none_or(|wait| self.holds.lock().hold(Instant::now(), scope, wait, error));
        // throttling of a single path says nothing about the store
        if several {
            let rate = {
                let mut adaptive = self.adaptive.lock();
                adaptive.complained(Instant::now());
                adaptive.rate(Instant::now())
            };
            self.metrics.paced(rate);
        }
    }

    /// Remembers why requests of this scope fail, to repeat it while the gate is shut.
    fn remember(&self, scope: Scope, error: &ProviderError) {
        if !matches!(outcome(Some(error)), Outcome::NoAnswer(_) | Outcome::Refused(_)) {
            return;
        }
        let mut failures = self.failures.lock();
        let mut add = |scope: Scope| {
            if failures.len() < MOST_FAILURES || failures.contains_key(&scope) {
                failures.insert(scope, error.clone());
            }
        };
        // the message of a failed login contains only the store's spec
        if error.operation == Operation::Login {
            add(Scope::Operation(Operation::Check));
        }
        match scope {
            // tenants share these scopes
            Scope::Operation(operation) if operation != Operation::Check => {}
            scope => add(scope),
        }
    }

    /// Replaces the error of a paused store by the last failure of the same scope.
    pub(super) fn explain(&self, scope: &Scope, error: ProviderError) -> ProviderError {
        if error.message != paused(error.kind) {
            return error;
        }
        let failures = self.failures.lock();
        match failures.get(scope).filter(|known| known.kind == error.kind) {
            Some(known) => ProviderError {
                operation: error.operation,
                retry_after: error.retry_after,
                ..known.clone()
            },
            None => error,
        }
    }

    /// Records the outcome of an attempt; `None` is a success.
    pub(super) fn record(&self, error: Option<&ProviderError>) {
        if error.is_some_and(may_be_an_engines) {
            return;
        }
        let outcome = outcome(error);
        if outcome == Outcome::Answer {
            self.failures.lock().clear();
        }
        let longer = self.gate.lock().record(Instant::now(), outcome);
        if !longer.is_zero() {
            self.metrics.throttled(longer);
        }
    }

    /// Waits for the store's own rate limit and for the adaptive limit.
    async fn wait_for_rate(
        &self,
        operation: Operation,
        deadline: Instant,
        attempt: Attempt,
    ) -> Result<(), ProviderError> {
        if let Some(pace) = &self.pace {
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
            })?;
        }
        self.wait_for_adaptive_limit(operation, deadline, attempt).await
    }

    /// Waits until the adaptive limit permits the request.
    async fn wait_for_adaptive_limit(
        &self,
        operation: Operation,
        deadline: Instant,
        attempt: Attempt,
    ) -> Result<(), ProviderError> {
        // The common case only takes a lock.
        let free = {
            let mut adaptive = self.adaptive.lock();
            let now = Instant::now();
            adaptive.rate(now).is_none() && adaptive.decide(now) == Decision::Send
        };
        if free {
            self.metrics.paced(None);
            return Ok(());
        }
        let admission = async {
            let _retry_guard = (attempt == Attempt::Retry).then(|| RetryGuard::new(self));
            let mut next = self.next_turn(attempt).await;
            loop {
                // Let waiting retries go first.
                if attempt == Attempt::First && self.waiting_retries.load(Ordering::Acquire) > 0 {
                    drop(next);
                    next = self.next_turn(attempt).await;
                }
                let now = Instant::now();
                let (decision, rate) = {
                    let mut adaptive = self.adaptive.lock();
                    (adaptive.decide(now), adaptive.rate(now))
                };
                self.metrics.paced(rate);
                let Decision::Wait(wait) = decision else {
                    drop(next);
                    return;
                };
                sleep(wait).await;
                // Only the next request waits here, so no request was sent during this time.
                self.metrics.throttled(wait);
            }
        };
        timeout_at(deadline, admission).await.map_err(|_| {
            let message = "the store asked lockstep to slow down, and the request could not be sent before its deadline";
            ProviderError::new(ErrorKind::RateLimited, operation, message)
                .with_retry_after(Duration::from_secs(1))
        })
    }

    /// Rejects a request that could not pass now, before it waits for anything.
    fn refused(&self, operation: Operation, scope: Option<&Scope>) -> Result<(), ProviderError> {
        if let Some(held) = scope.and_then(|scope| self.held(operation, scope)) {
            return Err(held);
        }
        let verdict = self.gate.lock().verdict(Instant::now());
        self.passes(verdict, operation, scope).map(|_| ())
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

    /// Returns whether an admitted request is the trial.
    ///
    /// The error of a rejected request contains nothing about earlier requests. It also contains no
    /// time: it is part of a status, which must not change while the store's state does not.
    fn passes(
        &self,
        verdict: Verdict,
        operation: Operation,
        scope: Option<&Scope>,
    ) -> Result<bool, ProviderError> {
        let (kind, left) = match verdict {
            Verdict::Pass => return Ok(false),
            Verdict::Trial => return Ok(true),
            Verdict::Broken(kind, left) => (kind, left),
        };
        let error = ProviderError::new(kind, operation, paused(kind))
            .with_hint("Check the conditions of the store")
            .with_retry_after(left);
        Err(match scope {
            Some(scope) => self.explain(scope, error),
            None => error,
        })
    }

    /// Waits until this request is next.
    async fn next_turn(&self, attempt: Attempt) -> tokio::sync::MutexGuard<'_, ()> {
        loop {
            let left = self.left.notified();
            let next = self.next.lock().await;
            if attempt == Attempt::Retry || self.waiting_retries.load(Ordering::Acquire) == 0 {
                return next;
            }
            drop(next);
            left.await;
        }
    }

    fn is_paced(&self) -> bool {
        self.adaptive.lock().rate(Instant::now()).is_some()
    }
}

/// Returns what a request shows about the store; `None` is a success.
pub(super) fn outcome(error: Option<&ProviderError>) -> Outcome {
    let Some(error) = error else {
        return Outcome::Answer;
    };
    match error.kind {
        _ if is_refused_login(error) => Outcome::Refused(error.kind),
        kind if kind.is_transient() => Outcome::NoAnswer(kind),
        ErrorKind::ConfigInvalid
        | ErrorKind::CredentialsUnavailable
        | ErrorKind::Unsupported
        | ErrorKind::Internal => Outcome::Unsent,
        _ => Outcome::Answer,
    }
}

/// Returns whether a failure may come from an engine, such as a database that is down, while the
/// store itself responds. Such a failure must not pause the store: otherwise anyone who leases
/// credentials of one engine could stop the reads of everyone else.
fn may_be_an_engines(error: &ProviderError) -> bool {
    let asks_engine = matches!(
        error.operation,
        Operation::Mint | Operation::RenewLease | Operation::Revoke
    );
    asks_engine && error.kind.is_transient()
}

/// Returns whether the store rejected the credentials. A denied read counts as a response, a denied
/// login does not.
pub(super) fn is_refused_login(error: &ProviderError) -> bool {
    error.kind == ErrorKind::Unauthenticated
        || (error.kind == ErrorKind::PermissionDenied && error.operation == Operation::Login)
}

/// Returns the message while the circuit is broken.
fn paused(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Timeout => {
            "the store did not respond in time several times in a row. lockstep pauses requests to it"
        }
        ErrorKind::Unauthenticated | ErrorKind::PermissionDenied => {
            "the store rejected the login several times in a row. lockstep pauses requests to it"
        }
        _ => "the store was not available several times in a row. lockstep pauses requests to it",
    }
}

/// Whether a request is sent for the first time or retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    First,
    Retry,
}

/// Counts a waiting retry until it is dropped.
struct RetryGuard<'a>(&'a Budget);

impl<'a> RetryGuard<'a> {
    fn new(budget: &'a Budget) -> Self {
        budget.waiting_retries.fetch_add(1, Ordering::AcqRel);
        Self(budget)
    }
}

impl Drop for RetryGuard<'_> {
    fn drop(&mut self) {
        self.0.waiting_retries.fetch_sub(1, Ordering::AcqRel);
        self.0.left.notify_waiters();
    }
}

/// A slot that is held. If a trial ends without a recorded outcome, the next request becomes the
/// trial.
#[derive(Debug)]
pub(super) struct Admission<'a> {
    budget: &'a Budget,
    trial: bool,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if self.trial {
            self.budget.gate.lock().give_up_trial();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::testing::{budget, measured};
    use crate::testing::at;
    use crate::{FindQuery, Pattern, call::Request as _};

    fn too_fast() -> ProviderError {
        ProviderError::new(ErrorKind::RateLimited, Operation::Read, "too fast")
    }

    #[tokio::test(start_paused = true)]
    async fn pace_gauge_resets_when_the_limit_is_lifted() {
        let measured = measured();
        let budget = Budget::new(&Limits::default(), measured.store.clone());
        let pace = || {
            let lines = measured.lines("lockstep_store_pace_requests_per_second{");
            lines[0].rsplit(' ').next().unwrap().to_owned()
        };
        let (cx, read) = (Context::default(), Operation::Read);
        assert_eq!(pace(), "0", "it never complained");
        for _ in 0..100 {
            budget.admit(&cx, read, None).await.unwrap();
        }
        budget.record_for(Scope::Key(at("a")), &too_fast());
        assert_eq!(pace(), "50");
        sleep(Duration::from_secs(10)).await;
        budget.admit(&cx, read, None).await.unwrap();
        assert_eq!(pace(), "100", "it climbs");
        sleep(Duration::from_secs(3600)).await;
        budget.admit(&cx, read, None).await.unwrap();
        assert_eq!(pace(), "0", "nothing is paced any more");
    }

    #[tokio::test(start_paused = true)]
    async fn configured_limit_applies_below_the_adaptive_one() {
        let limits = Limits {
            requests_per_second: Some(10),
            burst: Some(1),
            ..Limits::default()
        };
        let budget = budget(limits);
        let (cx, read) = (Context::default(), Operation::Read);
        // Long after throttling, the adaptive rate exceeds the configured limit.
        for _ in 0..20 {
            budget.admit(&cx, read, None).await.unwrap();
        }
        budget.record_for(Scope::Key(at("a")), &too_fast());
        sleep(Duration::from_secs(4)).await;
        assert!(budget.is_paced(), "and is still the store's own");
        let begun = Instant::now();
        for _ in 0..31 {
            budget.admit(&cx, read, None).await.unwrap();
        }
        assert!(
            begun.elapsed() >= Duration::from_millis(2_990),
            "{:?}",
            begun.elapsed()
        );
    }

    fn granted(path: &str, glob: &str) -> FindQuery {
        FindQuery {
            scope: crate::Scope::patterns(Pattern::new(glob)),
            path: (!path.is_empty()).then(|| at(path)),
            ..FindQuery::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn search_failure_is_not_shown_to_other_grants() {
        let (ours, theirs) = (granted("", "team-a/**"), granted("", "team-b/**"));
        let (ours, theirs) = (ours.scope(), theirs.scope());
        for kind in [ErrorKind::Unavailable, ErrorKind::RateLimited] {
            let budget = budget(Limits::default());
            let failed = ProviderError::new(kind, Operation::Find, "cannot list \"team-a\"")
                .with_retry_after(Duration::from_secs(60));
            for _ in 0..3 {
                budget.record(Some(&failed));
                budget.record_for(ours.clone(), &failed);
            }
            assert_eq!(
                refused(&budget, Operation::Find, &ours).await.message,
                failed.message
            );
            if let Err(error) = budget
                .admit(&Context::default(), Operation::Find, Some(&theirs))
                .await
            {
                assert!(!format!("{error:?}").contains("team-a"), "{error:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failing_engine_does_not_pause_the_store() {
        for kind in [ErrorKind::Unavailable, ErrorKind::Timeout] {
            for operation in [Operation::Mint, Operation::RenewLease, Operation::Revoke] {
                let budget = budget(Limits::default());
                let failed = ProviderError::new(kind, operation, "the database is down");
                for _ in 0..10 {
                    budget.record(Some(&failed));
                }
                let read = budget.admit(&Context::default(), Operation::Read, None).await;
                assert!(read.is_ok(), "{kind:?} {operation:?}");
                drop(read);
                // nor does it end the pause of a store that is down
                let down = ProviderError::new(kind, Operation::Read, "down");
                for error in [&down, &down, &failed, &down, &failed] {
                    budget.record(Some(error));
                }
                refused(&budget, Operation::Read, &Scope::Key(at("a"))).await;
            }
        }
    }

    fn scopes() -> [(Operation, Scope); 7] {
        [
            (Operation::Read, Scope::Key(at("key"))),
            (Operation::Find, granted("path", "team-a/**").scope()),
            (Operation::Mint, Scope::Lease(at("role"))),
            (Operation::Check, Scope::Operation(Operation::Check)),
            (Operation::Decrypt, Scope::Operation(Operation::Decrypt)),
            (Operation::RenewLease, Scope::Operation(Operation::RenewLease)),
            (Operation::Revoke, Scope::Operation(Operation::Revoke)),
        ]
    }

    async fn refused(budget: &Budget, operation: Operation, scope: &Scope) -> ProviderError {
        let admitted = budget.admit(&Context::default(), operation, Some(scope)).await;
        admitted.expect_err("the circuit is broken")
    }

    #[tokio::test(start_paused = true)]
    async fn paused_store_repeats_a_failure_only_to_its_scope() {
        for kind in [
            ErrorKind::Unavailable,
            ErrorKind::Timeout,
            ErrorKind::Unauthenticated,
        ] {
            for (operation, scope) in scopes() {
                let budget = budget(Limits::default());
                let message = "cannot serve \"CANARY\"";
                let failed = ProviderError::new(kind, operation, message).with_hint("Look at CANARY");
                let down = ProviderError::new(kind, Operation::Check, "down");
                for _ in 0..3 {
                    budget.record(Some(&down));
                    budget.record_for(scope.clone(), &failed);
                }
                for (other, of_other) in scopes() {
                    let error = refused(&budget, other, &of_other).await;
                    assert_eq!((error.kind, error.operation), (kind, other));
                    assert!(error.retry_after.is_some());
                    let is_shared = matches!(scope, Scope::Operation(_)) && operation != Operation::Check;
                    if of_other == scope && !is_shared {
                        assert_eq!((&error.message, &error.hint), (&failed.message, &failed.hint));
                    } else {
                        assert!(!format!("{error:?}").contains("CANARY"), "{error:?}");
                        assert_eq!(error.message, paused(kind));
                    }
                }
                budget.record(None);
                let cx = Context::default();
                assert!(budget.admit(&cx, Operation::Read, None).await.is_ok());
                assert!(budget.failures.lock().is_empty());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn check_of_a_paused_store_repeats_the_login_failure() {
        for kind in [ErrorKind::Unauthenticated, ErrorKind::PermissionDenied] {
            let budget = budget(Limits::default());
            let login = ProviderError::new(kind, Operation::Login, "the login was refused");
            for _ in 0..3 {
                budget.record(Some(&login));
                budget.record_for(Scope::Key(at("a")), &login);
            }
            let check = Scope::Operation(Operation::Check);
            let error = refused(&budget, Operation::Check, &check).await;
            assert_eq!((error.kind, error.message), (kind, login.message));
            let error = refused(&budget, Operation::Read, &Scope::Key(at("b"))).await;
            assert_eq!((error.kind, error.message.as_str()), (kind, paused(kind)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn number_of_remembered_failures_is_limited() {
        let budget = budget(Limits::default());
        let failed = ProviderError::new(ErrorKind::Unavailable, Operation::Read, "sealed");
        for number in 0..2 * MOST_FAILURES {
            budget.record_for(Scope::Key(at(number.to_string())), &failed);
        }
        assert_eq!(budget.failures.lock().len(), MOST_FAILURES);
    }
}
