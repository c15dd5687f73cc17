use std::sync::Arc;

use futures::future::join_all;

use super::{Budget, checked, requests};
use crate::{
    Context, Provider, ProviderError,
    call::{Answers, Request, Service},
};

/// Keeps a store's requests within its budget. Requests fail immediately while their scope is held
/// or the store does not respond, so that callers do not wait long for a slow store. References are
/// split into the provider's batches, and unbatchable references are sent alone, so that the budget
/// counts actual requests.
#[derive(Debug)]
pub struct Limit<S> {
    inner: S,
    budget: Arc<Budget>,
}

impl<S> Limit<S> {
    /// Creates a layer whose requests to `inner` use `budget`.
    pub fn new(inner: S, budget: Arc<Budget>) -> Self {
        Self { inner, budget }
    }

    /// Sends one request for everything that is not held. Held requests fail with the error of
    /// their hold.
    async fn request<R: Request>(&self, cx: &Context, requests: &[R]) -> Answers<R>
    where
        S: Service<R>,
    {
        let held = |request: &R| self.budget.held(R::OPERATION, &request.scope());
        let held: Vec<_> = requests.iter().map(held).collect();
        let free: Vec<R> = requests
            .iter()
            .zip(&held)
            .filter(|(_, held)| held.is_none())
            .map(|(request, _)| request.clone())
            .collect();
        let mut answers = if free.is_empty() {
            Vec::new()
        } else {
            self.admitted(cx, &free).await
        }
        .into_iter();
        let answer =
            |held: Option<ProviderError>| held.map_or_else(|| answers.next(), |held| Some(Err(held)));
        held.into_iter().map_while(answer).collect()
    }

    async fn admitted<R: Request>(&self, cx: &Context, requests: &[R]) -> Answers<R>
    where
        S: Service<R>,
    {
        let scope = match requests {
            [one] => Some(one.scope()),
            _ => None,
        };
        match self.budget.admit(cx, R::OPERATION, scope.as_ref()).await {
            // boxed, because many requests wait before this and should use little memory
            Ok(_admission) => Box::pin(self.inner.call(cx, requests)).await,
            Err(error) => {
                let explain = |request: &R| Err(self.budget.explain(&request.scope(), error.clone()));
                requests.iter().map(explain).collect()
            }
        }
    }
}

impl<R: Request, S: Service<R>> Service<R> for Limit<S> {
    fn provider(&self) -> &dyn Provider {
        self.inner.provider()
    }

    async fn call(&self, cx: &Context, all: &[R]) -> Answers<R> {
        let requests = requests(self.inner.provider(), all);
        if requests.len() == 1 {
            return self.request(cx, all).await;
        }
        let answers = requests.iter().map(|positions| async {
            let some: Vec<R> = positions.iter().map(|position| all[*position].clone()).collect();
            checked(&some, self.request(cx, &some).await)
        });
        let answers = join_all(answers).await.into_iter().flatten();
        let mut ordered: Vec<_> = requests.iter().flatten().zip(answers).collect();
        ordered.sort_unstable_by_key(|(position, _)| **position);
        ordered.into_iter().map(|(_, answer)| answer).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lockstep_api::Limits;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::testing::at;
    use crate::{
        ErrorKind, FindQuery, MemoryBackend, Operation, RemoteRef,
        call::Direct,
        layers::{DEFAULT_MAX_CONCURRENT, Retry, StackOptions, Timeout, testing, testing::Requests as _},
    };

    /// The layers from the limit inwards, without retries.
    fn limited(
        backend: &MemoryBackend,
        limits: Limits,
    ) -> (Limit<Retry<Timeout<Direct>>>, testing::Measured) {
        let measured = testing::measured();
        let budget = Arc::new(Budget::new(&limits, measured.store.clone()));
        let provider = Timeout::new(Direct(backend.provider()), Duration::from_secs(10));
        let options = StackOptions {
            retries: 0,
            ..StackOptions::default()
        };
        (
            Limit::new(Retry::new(provider, Arc::clone(&budget), options), budget),
            measured,
        )
    }

    fn refs(count: usize) -> Vec<RemoteRef> {
        (0..count)
            .map(|index| RemoteRef::current(at(format!("key-{index}"))))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn requests_in_flight_stay_within_max_concurrent() {
        for (limits, expected) in [
            (Limits::default(), DEFAULT_MAX_CONCURRENT as usize),
            (
                Limits {
                    max_concurrent: Some(3),
                    ..Limits::default()
                },
                3,
            ),
        ] {
            let backend = MemoryBackend::new();
            backend.set_latency(Duration::from_millis(10));
            let (limit, _) = limited(&backend, limits);
            limit.fetch(&Context::default(), &refs(50)).await;
            assert_eq!(backend.most_in_flight(), expected);
            assert_eq!(backend.calls(Operation::Read), 50);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn references_are_split_into_batches() {
        let backend = MemoryBackend::new().with_batch(20);
        let (limit, _) = limited(&backend, Limits::default());
        let results = limit.fetch(&Context::default(), &refs(45)).await;
        assert_eq!(results.len(), 45);
        assert_eq!(backend.calls(Operation::Read), 3);
        assert!(limit.fetch(&Context::default(), &[]).await.is_empty());
        assert_eq!(backend.calls(Operation::Read), 3, "nothing asked is nothing sent");
    }

    #[tokio::test(start_paused = true)]
    async fn unbatchable_references_take_their_own_slots() {
        let backend = MemoryBackend::new().with_batch(20).with_only_current_in_batches();
        backend.set_latency(Duration::from_millis(10));
        let mut refs = refs(50);
        for (number, reference) in refs.iter_mut().enumerate() {
            backend.put(&reference.key, format!("value of {}", reference.key));
            if number % 5 == 0 {
                reference.version = Some("1".to_owned());
            }
        }
        let limits = Limits {
            max_concurrent: Some(1),
            ..Limits::default()
        };
        let (limit, _) = limited(&backend, limits);
        let results = limit.fetch(&Context::default(), &refs).await;
        for (reference, result) in refs.iter().zip(results) {
            let value = result.unwrap().value;
            assert_eq!(value.expose_str().unwrap(), format!("value of {}", reference.key));
        }
        assert_eq!(backend.calls(Operation::Read), 10 + 2, "forty in two batches");
        assert_eq!(backend.most_in_flight(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_slot_ends_with_timeout_or_deadline() {
        let backend = MemoryBackend::new();
        backend.set_latency(Duration::from_secs(8));
        let limits = Limits {
            max_concurrent: Some(1),
            timeout: Some(lockstep_api::Duration::from_secs(5)),
            ..Limits::default()
        };
        let (limit, _) = limited(&backend, limits);
        let start = Instant::now();
        let cx = Context {
            deadline: Some((start + Duration::from_secs(2)).into_std()),
            ..Context::default()
        };
        let patient = Context::default();
        let (_, waited, impatient) = futures::join!(
            limit.check(&patient),
            async { (limit.check(&patient).await, start.elapsed()) },
            async { (limit.check(&cx).await, start.elapsed()) },
        );
        for ((result, elapsed), seconds) in [(waited, 5), (impatient, 2)] {
            let error = result.unwrap_err();
            assert_eq!((error.kind, elapsed.as_secs()), (ErrorKind::Timeout, seconds));
            assert!(error.message.contains("limits.maxConcurrent: 1"), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rate_limit_rejects_late_requests_with_retry_after() {
        let backend = MemoryBackend::new();
        let limits = Limits {
            requests_per_second: Some(2),
            max_concurrent: Some(1000),
            timeout: Some(lockstep_api::Duration::from_secs(5)),
            ..Limits::default()
        };
        let (limit, _) = limited(&backend, limits);
        let results = limit.fetch(&Context::default(), &refs(40)).await;
        let sent = backend.calls(Operation::Read);
        assert!((10..=14).contains(&sent), "{sent}");
        let refused: Vec<_> = results
            .into_iter()
            .filter_map(Result::err)
            .filter(|error| error.kind == ErrorKind::RateLimited)
            .collect();
        assert_eq!(refused.len() as u64, 40 - sent);
        assert!(
            refused
                .iter()
                .all(|error| error.retry_after >= Some(Duration::from_secs(1)))
        );
        assert!(
            limit.check(&Context::default()).await.is_ok(),
            "the store's own pace is no hold"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_delays_only_its_path() {
        let backend = MemoryBackend::new();
        for key in ["a", "b", "c"] {
            backend.put(key, "canary");
        }
        let (limit, measured) = limited(&backend, Limits::default());
        let (cx, refs) = (
            Context::default(),
            ["a", "b", "c"].map(|key| RemoteRef::current(at(key))),
        );
        backend.fail_next(1, ErrorKind::RateLimited, Some(Duration::from_secs(600)));
        let error = limit.fetch(&cx, &refs[..1]).await.remove(0).unwrap_err();
        assert_eq!(error.retry_after, Some(Duration::from_secs(600)));
        sleep(Duration::from_secs(100)).await;
        let begun = Instant::now();
        let answers = limit.fetch(&cx, &refs).await;
        let error = answers[0].as_ref().unwrap_err();
        assert_eq!(
            (error.kind, error.retry_after),
            (ErrorKind::RateLimited, Some(Duration::from_secs(500)))
        );
        assert!(answers[1].is_ok() && answers[2].is_ok(), "nobody else is delayed");
        for _ in 0..100 {
            assert!(limit.fetch(&cx, &refs[1..]).await.iter().all(Result::is_ok));
        }
        assert!(limit.check(&cx).await.is_ok());
        assert!(limit.find(&cx, &FindQuery::default()).await.is_ok());
        assert!(begun.elapsed().is_zero(), "and nothing is paced");
        assert_eq!(backend.reads("a"), 0, "the path is left alone");
        assert!(measured.lines("lockstep_store_throttled_seconds_total")[0].ends_with(" 0"));
        sleep(Duration::from_secs(500)).await;
        assert!(limit.fetch(&cx, &refs[..1]).await[0].is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn many_throttled_paths_slow_the_store_but_never_stop_it() {
        let backend = MemoryBackend::new();
        backend.put("quiet", "canary");
        let (limit, _) = limited(&backend, Limits::default());
        let cx = Context::default();
        for n in 0..50 {
            backend.fail_next(1, ErrorKind::RateLimited, Some(Duration::from_secs(600)));
            let _ = limit
                .fetch(&cx, &[RemoteRef::current(at(format!("hostile-{n}")))])
                .await;
        }
        let begun = Instant::now();
        for _ in 0..20 {
            assert!(limit.fetch(&cx, &[RemoteRef::current(at("quiet"))]).await[0].is_ok());
        }
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn every_layer_passes_on_which_references_can_be_batched() {
        let backend = MemoryBackend::new().with_batch(20).with_only_current_in_batches();
        let config = testing::config(Limits {
            max_concurrent: Some(1),
            ..Limits::default()
        });
        let measured = testing::measured();
        let stack = crate::layers::Layered::new(
            backend.provider(),
            &config,
            &measured.metrics,
            StackOptions::default(),
        );
        let (version, tags) = (
            RemoteRef::version(at("key"), "1"),
            RemoteRef::current(at("key")).metadata(),
        );
        assert!(stack.batches(&RemoteRef::current(at("key"))));
        assert!(!stack.batches(&version) && !stack.batches(&tags));
        backend.set_latency(Duration::from_millis(10));
        backend.put("key", "canary");
        let refs: Vec<_> = (1..=20)
            .map(|number| RemoteRef::version(at("key"), number.to_string()))
            .collect();
        stack.fetch(&Context::default(), &refs).await;
        assert_eq!(
            (backend.calls(Operation::Read), backend.most_in_flight()),
            (20, 1)
        );
        let counted = measured.lines("lockstep_provider_request_duration_seconds_count");
        assert!(counted[0].ends_with(" 20"), "{counted:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn store_of_a_namespace_has_at_most_64_requests_in_flight() {
        for (namespace, expected) in [(Some("shop".to_owned()), 64), (None, 200)] {
            let backend = MemoryBackend::new();
            backend.set_latency(Duration::from_millis(10));
            let limits = Limits {
                max_concurrent: Some(1024),
                ..Limits::default()
            };
            let mut config = testing::config(limits);
            config.key.namespace = namespace;
            let metrics = testing::measured().metrics;
            let stack =
                crate::layers::Layered::new(backend.provider(), &config, &metrics, StackOptions::default());
            let (cx, refs) = (Context::default(), refs(200));
            futures::future::join_all(refs.chunks(1).map(|one| stack.fetch(&cx, one))).await;
            assert_eq!(backend.most_in_flight(), expected);
        }
    }

    /// The whole stack around a store that throttles every second call, like the strictest service
    /// would.
    #[tokio::test(start_paused = true)]
    async fn every_read_succeeds_if_every_second_call_is_throttled() {
        let backend = MemoryBackend::new().with_batch(20);
        for index in 0..1000 {
            backend.put(&format!("key-{index}"), "canary");
        }
        backend.set_latency(Duration::from_millis(20));
        backend.throttle_every_second();
        let measured = testing::measured();
        let config = testing::config(Limits::default());
        let stack = crate::layers::Layered::new(
            backend.provider(),
            &config,
            &measured.metrics,
            StackOptions::default(),
        );
        let start = Instant::now();
        let cx = Context {
            deadline: Some((start + Duration::from_secs(60)).into_std()),
            ..Context::default()
        };
        let refs = refs(1000);
        let reads = refs.chunks(1).map(|one| stack.fetch(&cx, one));
        let results = futures::future::join_all(reads).await;
        let failed: Vec<_> = results.into_iter().flatten().filter_map(Result::err).collect();
        assert!(
            failed.is_empty(),
            "{} after {:?}: {:?}",
            failed.len(),
            start.elapsed(),
            failed[0]
        );
        assert!(
            (50..=100).contains(&backend.calls(Operation::Read)),
            "50 batches, each refused once at most"
        );
        let pace = measured.lines("lockstep_store_pace_requests_per_second{provider=\"memory\"");
        assert!(!pace[0].ends_with(" 0"), "{pace:?}");
        let queue = measured.lines("lockstep_store_queue_duration_seconds_count");
        assert!(queue[0].ends_with(" 50"), "{queue:?}");
        // Another store has no adaptive limit.
        let other = Budget::new(&Limits::default(), measured.store.clone());
        let before = Instant::now();
        for _ in 0..100 {
            other
                .admit(&Context::default(), Operation::Read, None)
                .await
                .unwrap();
        }
        assert!(before.elapsed().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn requests_to_a_known_hung_store_fail_immediately() {
        let backend = MemoryBackend::new();
        backend.put("a", "canary");
        backend.set_hung(true);
        let (limit, _) = limited(&backend, Limits::default());
        let (cx, a) = (Context::default(), [RemoteRef::current(at("a"))]);
        let start = Instant::now();
        let first: Vec<_> = (0..100).map(|_| limit.fetch(&cx, &a)).collect();
        for mut result in futures::future::join_all(first).await {
            assert_eq!(result.remove(0).unwrap_err().kind, ErrorKind::Timeout);
        }
        assert_eq!(
            start.elapsed().as_secs(),
            10,
            "those behind the first do not wait their turn to hang"
        );
        assert_eq!(backend.calls(Operation::Read), u64::from(DEFAULT_MAX_CONCURRENT));
        let before = Instant::now();
        assert_eq!(
            limit.check(&Context::default()).await.unwrap_err().kind,
            ErrorKind::Timeout
        );
        assert!(before.elapsed().is_zero());

        backend.set_hung(false);
        sleep(Duration::from_secs(3)).await;
        assert!(
            limit.fetch(&Context::default(), &a).await[0].is_ok(),
            "it heals by itself"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn rejected_logins_of_reads_pause_the_store() {
        for (kind, batch) in [
            (ErrorKind::Unauthenticated, 1),
            (ErrorKind::PermissionDenied, 1),
            (ErrorKind::Unauthenticated, 20),
        ] {
            let backend = MemoryBackend::new().with_batch(batch);
            backend.fail_logins(10_000, kind);
            let (limit, _) = limited(&backend, Limits::default());
            let (cx, refs) = (Context::default(), refs(40));
            for _ in 0..60 {
                for one in &refs {
                    let error = limit.fetch(&cx, std::slice::from_ref(one)).await.remove(0);
                    assert_eq!(error.unwrap_err().kind, kind);
                }
                limit.fetch(&cx, &refs).await;
                sleep(Duration::from_secs(1)).await;
            }
            // three, and one after each pause
            let logins = backend.calls(Operation::Read);
            assert!((4..=12).contains(&logins), "{logins} logins in a minute");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn denied_key_does_not_pause_the_store() {
        let backend = MemoryBackend::new().with_batch(20);
        backend.put("good", "canary");
        backend.set_denied("denied", true);
        let (limit, _) = limited(&backend, Limits::default());
        let cx = Context::default();
        let [good, denied] = ["good", "denied"].map(|key| [RemoteRef::current(at(key))]);
        for _ in 0..20 {
            let error = limit.fetch(&cx, &denied).await.remove(0).unwrap_err();
            assert_eq!(error.kind, ErrorKind::PermissionDenied);
        }
        assert!(limit.fetch(&cx, &good).await[0].is_ok());
        assert_eq!(backend.reads("denied"), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn error_does_not_contain_the_key_of_another_caller() {
        let backend = MemoryBackend::new().with_batch(20);
        let (limit, _) = limited(&backend, Limits::default());
        let cx = Context::default();
        backend.fail_key("tenant-a/CANARY", 100, ErrorKind::Unavailable);
        let [first, second] = ["tenant-a/CANARY", "tenant-b/key"].map(|key| RemoteRef::current(at(key)));
        let [alone, other] = [first, second].map(|reference| [reference]);
        for _ in 0..3 {
            let error = limit.fetch(&cx, &alone).await.remove(0).unwrap_err();
            assert!(error.message.contains("CANARY"), "{error}");
        }
        let both = [alone[0].clone(), other[0].clone()];
        let [own, foreign] = <[_; 2]>::try_from(limit.fetch(&cx, &both).await).unwrap();
        let own = own.unwrap_err();
        assert!(own.message.contains("CANARY"), "it is repeated: {own}");
        for result in [foreign, limit.fetch(&cx, &other).await.remove(0)] {
            let error = result.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Unavailable);
            assert!(error.message.contains("pauses requests"), "{error}");
            assert!(!format!("{error:?}").contains("CANARY"), "{error:?}");
        }
        assert_eq!(backend.reads("tenant-b/key"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_trial_passes_to_the_next_request() {
        let backend = MemoryBackend::new();
        let (limit, _) = limited(&backend, Limits::default());
        backend.fail_next(3, ErrorKind::Unavailable, None);
        for _ in 0..3 {
            let _ = limit.check(&Context::default()).await;
        }
        sleep(Duration::from_secs(3)).await;
        backend.set_hung(true);
        let _ = tokio::time::timeout(Duration::from_secs(1), limit.check(&Context::default())).await;
        backend.set_hung(false);
        assert!(limit.check(&Context::default()).await.is_ok());
    }
}
