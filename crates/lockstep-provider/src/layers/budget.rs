use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lockstep_api::Limits;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout_at},
};

use super::{
    DEFAULT_MAX_CONCURRENT,
    adaptive::{Adaptive, Turn},
    deadline,
    gate::{Gate, Outcome, Verdict},
    holds::Holds,
    pace::Pace,
};
use crate::{
    Context, DEFAULT_TIMEOUT, ErrorKind, Operation, ProviderError, call::Scope, metrics::StoreMetrics,
};

/// How long a request waits for a slot at most where the store is paced: those before it wait for their turns. Whoever asked
/// may give up sooner.
const PACED_WAIT: Duration = Duration::from_secs(60);
/// A hold that is not longer is waited for; from a longer one whoever asked learns when to come back.
const SHORT_HOLD: Duration = Duration::from_secs(2);

/// The most failures that are remembered.
const MOST_FAILURES: usize = 1024;

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
    holds: Mutex<Holds>,
    adaptive: Mutex<Adaptive>,
    /// Whoever holds this is the next to leave; tokio's mutex is fair, so requests leave in the order in which they came.
    next: tokio::sync::Mutex<()>,
    /// How many wait for a further attempt. They go first: a store that refuses by some pattern would else refuse the same ones
    /// again and again.
    again: AtomicUsize,
    /// One of them has left.
    left: Notify,
    /// Why the gate is shut: the last failure of each scope, told to nobody else. Messages contain keys and paths, which
    /// may belong to another tenant.
    failures: Mutex<HashMap<Scope, ProviderError>>,
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
            holds: Mutex::default(),
            adaptive: Mutex::default(),
            next: tokio::sync::Mutex::default(),
            again: AtomicUsize::new(0),
            left: Notify::new(),
            failures: Mutex::default(),
            metrics,
        }
    }

    /// Waits for a slot and a turn, no longer than the deadline and the store's time-out. A request for several keys has no
    /// scope: whoever makes it leaves out those that are held.
    ///
    /// # Errors
    /// `RateLimited` while the path is held or when the queue is longer than the wait may be; `Timeout` or
    /// `Unavailable` while the store does not answer; `Timeout` when no slot becomes free.
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
            // Those before it wait for their turns, which says nothing against the store.
            slot = timeout_at(late, waiting).await;
        }
        let Ok(Ok(slot)) = slot else {
            return Err(self.no_slot(operation));
        };
        let deadline = if self.is_paced() { late } else { soon };
        self.turn(operation, deadline, First::New).await?;
        // The path may have been held while this waited.
        if let Some(held) = scope.and_then(|scope| self.held(operation, scope)) {
            return Err(held);
        }
        let verdict = self.gate().admit(Instant::now());
        let trial = self.passes(verdict, operation, scope)?;
        self.metrics.queued(arrived.elapsed());
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
        let deadline = deadline(cx, self.timeout);
        self.turn(operation, deadline, First::Again).await?;
        self.refused(operation, None)
    }

    /// Before a further attempt after the store said "slow down": waits for a short hold, and for a turn at the store's pace.
    ///
    /// # Errors
    /// As for [`Budget::admit`], and when the hold is long.
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
        self.turn(operation, deadline, First::Again).await?;
        self.refused(operation, None)
    }

    /// Whether this is held for longer than anybody waits for it.
    pub(super) fn is_held_long(&self, scope: &Scope) -> bool {
        let left = self
            .lock_holds()
            .left(Instant::now(), scope)
            .map(|(left, _)| left);
        left.is_some_and(|left| left > SHORT_HOLD)
    }

    /// What whoever wants this learns while it is held.
    ///
    /// The error repeats what the store said, and carries no time in its message: it stands in a status, which must not
    /// change while the store's state does not. The time is beside the message.
    pub(super) fn held(&self, operation: Operation, scope: &Scope) -> Option<ProviderError> {
        let holds = self.lock_holds();
        let (left, said) = holds.left(Instant::now(), scope)?;
        let error = ProviderError {
            operation,
            ..said.clone()
        };
        Some(error.with_retry_after(left))
    }

    /// What an attempt came to for this key, or whatever else it was about.
    pub(super) fn record_for(&self, scope: Scope, error: &ProviderError) {
        if error.kind != ErrorKind::RateLimited {
            self.remember(scope, error);
            return;
        }
        let several = error
            .retry_after
            .is_none_or(|wait| self.lock_holds().hold(Instant::now(), scope, wait, error));
        // one path alone says nothing about the store
        if several {
            let rate = {
                let mut adaptive = self.adaptive();
                adaptive.complained(Instant::now());
                adaptive.rate(Instant::now())
            };
            self.metrics.paced(rate);
        }
    }

    /// Notes why requests of this scope fail, to repeat it while the gate is shut.
    fn remember(&self, scope: Scope, error: &ProviderError) {
        if !matches!(outcome(Some(error)), Outcome::NoAnswer(_) | Outcome::Refused(_)) {
            return;
        }
        let mut failures = self.failures();
        let mut add = |scope: Scope| {
            if failures.len() < MOST_FAILURES || failures.contains_key(&scope) {
                failures.insert(scope, error.clone());
            }
        };
        // the message of a login contains nothing but the store's spec
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
        let failures = self.failures();
        match failures.get(scope).filter(|known| known.kind == error.kind) {
            Some(known) => ProviderError {
                operation: error.operation,
                retry_after: error.retry_after,
                ..known.clone()
            },
            None => error,
        }
    }

    /// What an attempt came to; `None` is a success.
    pub(super) fn record(&self, error: Option<&ProviderError>) {
        if error.is_some_and(may_be_an_engines) {
            return;
        }
        let outcome = outcome(error);
        if outcome == Outcome::Answer {
            self.failures().clear();
        }
        let longer = self.gate().record(Instant::now(), outcome);
        if !longer.is_zero() {
            self.metrics.throttled(longer);
        }
    }

    async fn turn(&self, operation: Operation, deadline: Instant, first: First) -> Result<(), ProviderError> {
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
        self.adapted_turn(operation, deadline, first).await
    }

    /// Waits for a turn at the pace that the store bears.
    async fn adapted_turn(
        &self,
        operation: Operation,
        deadline: Instant,
        first: First,
    ) -> Result<(), ProviderError> {
        // The common case costs no more than a look.
        let free = {
            let mut adaptive = self.adaptive();
            let now = Instant::now();
            adaptive.rate(now).is_none() && adaptive.turn(now) == Turn::Go
        };
        if free {
            self.metrics.paced(None);
            return Ok(());
        }
        let turn = async {
            let _again = (first == First::Again).then(|| Again::new(self));
            let mut next = self.next_turn(first).await;
            loop {
                if first == First::New && self.again.load(Ordering::Acquire) > 0 {
                    drop(next);
                    next = self.next_turn(first).await;
                }
                let now = Instant::now();
                let (turn, rate) = {
                    let mut adaptive = self.adaptive();
                    (adaptive.turn(now), adaptive.rate(now))
                };
                self.metrics.paced(rate);
                let Turn::Wait(wait) = turn else {
                    drop(next);
                    return;
                };
                sleep(wait).await;
                // Whoever is next waits alone, so this is time in which nothing left.
                self.metrics.throttled(wait);
            }
        };
        timeout_at(deadline, turn).await.map_err(|_| {
            let message = "the store asks to slow down, and its turn did not come in time";
            ProviderError::new(ErrorKind::RateLimited, operation, message)
                .with_retry_after(Duration::from_secs(1))
        })
    }

    /// Refuses what could not pass now, before it waits for anything.
    fn refused(&self, operation: Operation, scope: Option<&Scope>) -> Result<(), ProviderError> {
        if let Some(held) = scope.and_then(|scope| self.held(operation, scope)) {
            return Err(held);
        }
        let verdict = self.gate().verdict(Instant::now());
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

    /// Whether a request that passes is the trial.
    ///
    /// The error of one that does not pass contains nothing of the requests that failed before. It also contains no time:
    /// it is part of a status, which must not change while the store's state does not.
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
            .with_hint("See the conditions of the store")
            .with_retry_after(left);
        Err(match scope {
            Some(scope) => self.explain(scope, error),
            None => error,
        })
    }

    /// Waits until this one is next.
    async fn next_turn(&self, first: First) -> tokio::sync::MutexGuard<'_, ()> {
        loop {
            let left = self.left.notified();
            let next = self.next.lock().await;
            if first == First::Again || self.again.load(Ordering::Acquire) == 0 {
                return next;
            }
            drop(next);
            left.await;
        }
    }

    fn is_paced(&self) -> bool {
        self.adaptive().rate(Instant::now()).is_some()
    }

    fn adaptive(&self) -> MutexGuard<'_, Adaptive> {
        self.adaptive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<Scope, ProviderError>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_holds(&self) -> MutexGuard<'_, Holds> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request shows about the store; `None` is a success.
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

/// Whether a failure can be that of an engine, such as a database that is down, while the store answers. It must not pause the store:
/// whoever leases credentials of one engine could then stop the reads of everyone else.
fn may_be_an_engines(error: &ProviderError) -> bool {
    let asks_engine = matches!(
        error.operation,
        Operation::Mint | Operation::RenewLease | Operation::Revoke
    );
    asks_engine && error.kind.is_transient()
}

/// Whether the store refused the credentials. A denied read is an answer; a denied login is none.
pub(super) fn is_refused_login(error: &ProviderError) -> bool {
    error.kind == ErrorKind::Unauthenticated
        || (error.kind == ErrorKind::PermissionDenied && error.operation == Operation::Login)
}

/// The message while the circuit is broken.
fn paused(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Timeout => {
            "the store did not answer in time several times in a row. lockstep pauses requests to it"
        }
        ErrorKind::Unauthenticated | ErrorKind::PermissionDenied => {
            "the store refused the login several times in a row. lockstep pauses requests to it"
        }
        _ => "the store was not available several times in a row. lockstep pauses requests to it",
    }
}

/// Whether a request is new, or goes out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    New,
    Again,
}

/// One that waits for a further attempt, until it is dropped.
struct Again<'a>(&'a Budget);

impl<'a> Again<'a> {
    fn new(budget: &'a Budget) -> Self {
        budget.again.fetch_add(1, Ordering::AcqRel);
        Self(budget)
    }
}

impl Drop for Again<'_> {
    fn drop(&mut self) {
        self.0.again.fetch_sub(1, Ordering::AcqRel);
        self.0.left.notify_waiters();
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
    use crate::layers::testing::{budget, measured};
    use crate::testing::at;
    use crate::{FindQuery, Pattern, call::Request as _};

    fn too_fast() -> ProviderError {
        ProviderError::new(ErrorKind::RateLimited, Operation::Read, "too fast")
    }

    #[tokio::test(start_paused = true)]
    async fn the_gauge_of_the_pace_ends_with_the_pace() {
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
    async fn the_limit_of_a_store_holds_also_where_its_own_pace_is_faster() {
        let limits = Limits {
            requests_per_second: Some(10),
            burst: Some(1),
            ..Limits::default()
        };
        let budget = budget(limits);
        let (cx, read) = (Context::default(), Operation::Read);
        // Long after a complaint the rate has climbed beyond the limit.
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
    async fn search_failure_is_not_repeated_to_another_grant() {
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
                // and it does not end the pause of a store that is down
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
    async fn paused_store_repeats_a_failure_to_the_same_scope_alone() {
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
                assert!(budget.failures().is_empty());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn check_of_a_paused_store_repeats_why_a_login_was_refused() {
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
    async fn failures_without_number_are_not_remembered() {
        let budget = budget(Limits::default());
        let failed = ProviderError::new(ErrorKind::Unavailable, Operation::Read, "sealed");
        for number in 0..2 * MOST_FAILURES {
            budget.record_for(Scope::Key(at(number.to_string())), &failed);
        }
        assert_eq!(budget.failures().len(), MOST_FAILURES);
    }
}
