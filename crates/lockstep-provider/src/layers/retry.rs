use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio::time::{Instant, sleep};

use super::{Budget, StackOptions};
use crate::{
    Capability, Ciphertext, Context, ErrorKind, FindQuery, Notice, Operation, Provider, ProviderError,
    RemoteMeta, RemoteRef, RemoteSecret, SecretValue,
};

/// Tries again what may succeed within seconds ([`ErrorKind::is_transient`]): of several references only those that
/// failed so. The store's budget is asked before each further attempt and told what each came to, so that a store that
/// does not answer is not asked three times as often.
#[derive(Debug)]
pub struct Retry {
    provider: Arc<dyn Provider>,
    budget: Arc<Budget>,
    options: StackOptions,
}

impl Retry {
    /// Tries requests of `provider` again, as far as the budget allows.
    pub fn new(provider: Arc<dyn Provider>, budget: Arc<Budget>, options: StackOptions) -> Self {
        Self {
            provider,
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

    /// Waits for the next attempt; `false` when there is none.
    async fn again(&self, cx: &Context, operation: Operation, delays: &mut ExponentialBackoff) -> bool {
        let Some(delay) = delays.next() else { return false };
        if cx
            .deadline
            .is_some_and(|deadline| Instant::now() + delay >= Instant::from_std(deadline))
        {
            return false;
        }
        sleep(delay).await;
        self.budget.admit_again(cx, operation).await.is_ok()
    }
}

/// What an attempt says about the store: that it asks to slow down, whatever else it answered; that it does not
/// answer, when it answered nothing; else that it works.
fn verdict<T>(results: &[Result<T, ProviderError>]) -> Option<&ProviderError> {
    let errors = || results.iter().filter_map(|result| result.as_ref().err());
    let limited = errors()
        .filter(|error| error.kind == ErrorKind::RateLimited)
        .max_by_key(|error| error.retry_after.unwrap_or(Duration::ZERO));
    let silent = || errors().filter(|error| error.kind.is_transient()).count() == results.len();
    limited.or_else(|| if silent() { errors().next() } else { None })
}

fn may_pass<T>(result: &Result<T, ProviderError>) -> bool {
    result.as_ref().is_err_and(|error| error.kind.is_transient())
}

#[async_trait]
impl Provider for Retry {
    fn capability(&self) -> Capability {
        self.provider.capability()
    }

    async fn fetch(&self, cx: &Context, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        let mut results = self.provider.fetch(cx, refs).await;
        self.budget.record(verdict(&results));
        let mut delays = self.delays();
        loop {
            let failed: Vec<usize> = (0..refs.len())
                .filter(|index| results.get(*index).is_some_and(may_pass))
                .collect();
            if failed.is_empty() || !self.again(cx, Operation::Read, &mut delays).await {
                return results;
            }
            let again: Vec<RemoteRef> = failed.iter().map(|index| refs[*index].clone()).collect();
            let answers = self.provider.fetch(cx, &again).await;
            self.budget.record(verdict(&answers));
            for (index, answer) in failed.into_iter().zip(answers) {
                results[index] = answer;
            }
        }
    }

    async fn find(&self, cx: &Context, query: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError> {
        let mut delays = self.delays();
        loop {
            let result = self.provider.find(cx, query).await;
            self.budget.record(result.as_ref().err());
            if !may_pass(&result) || !self.again(cx, Operation::Find, &mut delays).await {
                return result;
            }
        }
    }

    async fn decrypt(&self, cx: &Context, ciphertext: &Ciphertext) -> Result<SecretValue, ProviderError> {
        let mut delays = self.delays();
        loop {
            let result = self.provider.decrypt(cx, ciphertext).await;
            self.budget.record(result.as_ref().err());
            if !may_pass(&result) || !self.again(cx, Operation::Decrypt, &mut delays).await {
                return result;
            }
        }
    }

    async fn check(&self, cx: &Context) -> Result<(), ProviderError> {
        let mut delays = self.delays();
        loop {
            let result = self.provider.check(cx).await;
            self.budget.record(result.as_ref().err());
            if !may_pass(&result) || !self.again(cx, Operation::Check, &mut delays).await {
                return result;
            }
        }
    }

    fn notice(&self) -> Option<Notice> {
        self.provider.notice()
    }
}

#[cfg(test)]
mod tests {
    use lockstep_api::Limits;

    use super::*;
    use crate::{MemoryBackend, layers::testing::budget};

    fn retry(backend: &MemoryBackend) -> Retry {
        Retry::new(
            backend.provider(),
            budget(Limits::default()),
            StackOptions::default(),
        )
    }

    fn refs(keys: &[&str]) -> Vec<RemoteRef> {
        keys.iter().map(|key| RemoteRef::current(*key)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_passing_failure_is_not_seen() {
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
    async fn a_lasting_failure_is_tried_three_times_and_no_more() {
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
    async fn what_will_not_change_within_seconds_is_asked_once() {
        for kind in ErrorKind::ALL.iter().copied().filter(|kind| !kind.is_transient()) {
            let backend = MemoryBackend::new();
            backend.fail_next(1, kind, None);
            let results = retry(&backend).fetch(&Context::default(), &refs(&["a"])).await;
            assert_eq!(results[0].as_ref().unwrap_err().kind, kind);
            assert_eq!(backend.calls(Operation::Read), 1, "{}", kind.label());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_references_that_failed_are_asked_again() {
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
    async fn no_attempt_begins_that_its_caller_would_not_wait_for() {
        let backend = MemoryBackend::new();
        backend.fail_next(100, ErrorKind::Unavailable, None);
        let cx = Context {
            deadline: Some((Instant::now() + Duration::from_millis(50)).into_std()),
        };
        let _ = retry(&backend).check(&cx).await;
        assert_eq!(backend.calls(Operation::Check), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_breaks_meanwhile_is_not_asked_again() {
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
