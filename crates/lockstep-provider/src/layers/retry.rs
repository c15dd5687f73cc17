use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio::time::{Instant, sleep};

use super::{
    Budget, StackOptions,
    budget::{is_refused_login, outcome},
    gate::Outcome,
};
use crate::{
    Context, ErrorKind, Operation, Provider, ProviderError,
    call::{Answers, Request, Scope, Service},
};

/// Repeats transient failures ([`ErrorKind::is_transient`]), and throttled requests at the rate of
/// the adaptive limit. Of several references, only the failed ones are repeated. The layer consults
/// the store's budget before each further attempt and reports each outcome to it, so that a store
/// that does not respond is not called three times as often.
#[derive(Debug)]
pub struct Retry<S> {
    inner: S,
    budget: Arc<Budget>,
    options: StackOptions,
}

impl<S> Retry<S> {
    /// Creates a layer that repeats requests to `inner` as far as the budget allows.
    pub fn new(inner: S, budget: Arc<Budget>, options: StackOptions) -> Self {
        Self {
            inner,
            budget,
            options,
        }
    }

    fn delays(&self) -> ExponentialBackoff {
        ExponentialBuilder::new()
            .with_min_delay(self.options.retry_delay)
            .with_max_times(self.options.retries)
            .with_jitter()
            .build()
    }

    /// Reports the outcome of an attempt to the budget.
    fn record<R: Request>(&self, requests: &[R], answers: &Answers<R>) {
        self.budget.record(deciding_error(answers));
        for (request, answer) in requests.iter().zip(answers) {
            if let Err(error) = answer {
                self.budget.record_for(request.scope(), error);
            }
        }
    }

    fn attempts<'a>(&'a self, cx: &'a Context, operation: Operation) -> Attempts<'a> {
        Attempts {
            budget: &self.budget,
            cx,
            operation,
            delays: self.delays(),
            throttled_left: self.options.throttled_retries,
        }
    }
}

/// The remaining attempts of one request.
struct Attempts<'a> {
    budget: &'a Budget,
    cx: &'a Context,
    operation: Operation,
    delays: ExponentialBackoff,
    throttled_left: usize,
}

impl Attempts<'_> {
    /// Waits for the next attempt. Returns `false` if there is none.
    async fn again(&mut self, error: &ProviderError, scopes: &[Scope]) -> bool {
        if error.kind == ErrorKind::RateLimited {
            if self.throttled_left == 0 {
                return false;
            }
            self.throttled_left -= 1;
            let admitted = self
                .budget
                .admit_after_throttling(self.cx, self.operation, scopes)
                .await;
            return admitted.is_ok();
        }
        let Some(delay) = self.delays.next() else {
            return false;
        };
        let deadline = self.cx.deadline.map(Instant::from_std);
        if deadline.is_some_and(|deadline| Instant::now() + delay >= deadline) {
            return false;
        }
        sleep(delay).await;
        self.budget.admit_again(self.cx, self.operation).await.is_ok()
    }
}

/// Returns what an attempt shows about the store; `None` is a success. Order of precedence: the
/// store throttled; it rejected a login; it responded; it did not respond; the request was not
/// sent.
fn deciding_error<T>(results: &[Result<T, ProviderError>]) -> Option<&ProviderError> {
    let errors = || results.iter().filter_map(|result| result.as_ref().err());
    let limited = errors()
        .filter(|error| error.kind == ErrorKind::RateLimited)
        .max_by_key(|error| error.retry_after.unwrap_or(Duration::ZERO));
    let refused = || errors().find(|error| error.operation == Operation::Login && is_refused_login(error));
    if let Some(error) = limited.or_else(refused) {
        return Some(error);
    }
    if results.iter().any(Result::is_ok) {
        return None;
    }
    errors().max_by_key(|error| match outcome(Some(error)) {
        Outcome::Answer => 3,
        Outcome::NoAnswer(_) | Outcome::Refused(_) => 2,
        Outcome::Unsent => 1,
    })
}

/// Returns the error if a further attempt may succeed.
fn passing<T>(result: &Result<T, ProviderError>) -> Option<&ProviderError> {
    let error = result.as_ref().err()?;
    (error.kind.is_transient() || error.kind == ErrorKind::RateLimited).then_some(error)
}

impl<R: Request, S: Service<R>> Service<R> for Retry<S> {
    fn provider(&self) -> &dyn Provider {
        self.inner.provider()
    }

    async fn call(&self, cx: &Context, requests: &[R]) -> Answers<R> {
        let mut answers = self.inner.call(cx, requests).await;
        self.record(requests, &answers);
        if !R::REPEATABLE {
            return answers;
        }
        let mut attempts = self.attempts(cx, R::OPERATION);
        loop {
            let failed: Vec<usize> = (0..requests.len())
                .filter(|index| answers.get(*index).is_some_and(|answer| passing(answer).is_some()))
                // references with a long hold are not waited for, and do not delay the others
                .filter(|index| !self.budget.is_held_long(&requests[*index].scope()))
                .collect();
            // Throttled references decide how long to wait.
            let errors = || failed.iter().filter_map(|index| passing(answers.get(*index)?));
            let Some(worst) = errors()
                .find(|error| error.kind == ErrorKind::RateLimited)
                .or_else(|| errors().next())
                .cloned()
            else {
                return answers;
            };
            let again: Vec<R> = failed.iter().map(|index| requests[*index].clone()).collect();
            let scopes: Vec<Scope> = again.iter().map(R::scope).collect();
            if !attempts.again(&worst, &scopes).await {
                return answers;
            }
            let repeated = self.inner.call(cx, &again).await;
            self.record(&again, &repeated);
            for (index, answer) in failed.into_iter().zip(repeated) {
                answers[index] = answer;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lockstep_api::Limits;
    use strum::VariantArray;

    use super::*;
    use crate::testing::at;
    use crate::{
        FindQuery, MemoryBackend, RemoteRef,
        call::Direct,
        layers::testing::{Requests as _, budget},
    };

    fn retry(backend: &MemoryBackend) -> Retry<Direct> {
        Retry::new(
            Direct(backend.provider()),
            budget(Limits::default()),
            StackOptions::default(),
        )
    }

    fn refs(keys: &[&str]) -> Vec<RemoteRef> {
        keys.iter().map(|key| RemoteRef::current(at(*key))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn transient_failure_is_hidden_by_retries() {
        for kind in [ErrorKind::Unavailable, ErrorKind::Timeout] {
            let backend = MemoryBackend::new();
            backend.put("a", "canary");
            backend.fail_next(2, kind, None);
            assert!(retry(&backend).fetch(&Context::default(), &refs(&["a"])).await[0].is_ok());
            assert_eq!(backend.calls(Operation::Read), 3);
            backend.fail_next(1, kind, None);
            assert!(
                retry(&backend)
                    .find(&Context::default(), &FindQuery::default())
                    .await
                    .is_ok()
            );
            backend.fail_next(1, kind, None);
            assert!(retry(&backend).check(&Context::default()).await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lasting_failure_is_tried_three_times() {
        let backend = MemoryBackend::new();
        backend.fail_next(100, ErrorKind::Unavailable, None);
        let error = retry(&backend)
            .fetch(&Context::default(), &refs(&["a"]))
            .await
            .remove(0)
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert_eq!(backend.calls(Operation::Read), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn permanent_failures_are_not_retried() {
        let lasting = |kind: &ErrorKind| !kind.is_transient() && *kind != ErrorKind::RateLimited;
        for kind in ErrorKind::VARIANTS.iter().copied().filter(lasting) {
            let backend = MemoryBackend::new();
            backend.fail_next(1, kind, None);
            let results = retry(&backend).fetch(&Context::default(), &refs(&["a"])).await;
            assert_eq!(results[0].as_ref().unwrap_err().kind, kind);
            assert_eq!(backend.calls(Operation::Read), 1, "{}", kind.label());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn throttled_requests_are_retried_with_a_limit() {
        let backend = MemoryBackend::new();
        backend.put("a", "canary");
        backend.fail_next(4, ErrorKind::RateLimited, None);
        let begun = Instant::now();
        assert!(retry(&backend).fetch(&Context::default(), &refs(&["a"])).await[0].is_ok());
        assert_eq!(backend.calls(Operation::Read), 5);
        assert!(
            begun.elapsed() >= Duration::from_millis(300),
            "at the floor's pace: {:?}",
            begun.elapsed()
        );
        backend.fail_next(100, ErrorKind::RateLimited, None);
        let error = retry(&backend).check(&Context::default()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::RateLimited);
        assert_eq!(backend.calls(Operation::Check), 11);
    }

    #[tokio::test(start_paused = true)]
    async fn short_holds_are_waited_for_and_long_ones_reported() {
        let backend = MemoryBackend::new();
        backend.fail_next(1, ErrorKind::RateLimited, Some(Duration::from_secs(1)));
        assert!(retry(&backend).check(&Context::default()).await.is_ok());
        let begun = Instant::now();
        backend.fail_next(1, ErrorKind::RateLimited, Some(Duration::from_secs(30)));
        let error = retry(&backend).check(&Context::default()).await.unwrap_err();
        assert_eq!(error.retry_after, Some(Duration::from_secs(30)));
        assert!(begun.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn only_failed_references_are_retried() {
        let backend = MemoryBackend::new();
        for key in ["a", "b", "c"] {
            backend.put(key, "canary");
        }
        backend.fail_key("b", 1, ErrorKind::Unavailable);
        let results = retry(&backend)
            .fetch(&Context::default(), &refs(&["a", "b", "missing", "c"]))
            .await;
        let kinds: Vec<_> = results
            .iter()
            .map(|result| result.as_ref().err().map(|error| error.kind))
            .collect();
        assert_eq!(kinds, [None, None, Some(ErrorKind::NotFound), None]);
        assert_eq!(
            ["a", "b", "missing", "c"].map(|key| backend.reads(key)),
            [1, 2, 1, 1]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn no_attempt_starts_after_the_callers_deadline() {
        let backend = MemoryBackend::new();
        backend.fail_next(100, ErrorKind::Unavailable, None);
        let cx = Context {
            deadline: Some((Instant::now() + Duration::from_millis(50)).into_std()),
            ..Context::default()
        };
        let _ = retry(&backend).check(&cx).await;
        assert_eq!(backend.calls(Operation::Check), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn store_whose_circuit_broke_is_not_retried() {
        let backend = MemoryBackend::new();
        backend.fail_next(100, ErrorKind::Timeout, None);
        let retry = retry(&backend);
        let requests = (0..16).map(|_| async { retry.check(&Context::default()).await });
        futures::future::join_all(requests).await;
        assert_eq!(
            backend.calls(Operation::Check),
            16,
            "16 were in flight; none of them is tried again"
        );
    }
}
