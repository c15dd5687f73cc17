use crate::testing::at;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::{future::join, join};
use proptest::prelude::*;
use tokio::{sync::Notify, time::sleep};

use super::*;
use crate::{
    Binding, Capability, Ciphertext, ErrorKind, FindQuery, MemoryBackend, NoLeases, Operation, ProviderError,
    RemoteMeta, RemoteRef, RemoteSecret, SecretValue,
    call::Direct,
    layers::{one, testing::measured},
    no_kms,
};

const LATENCY: Duration = Duration::from_millis(100);

fn backend(keys: &[&str]) -> MemoryBackend {
    let backend = MemoryBackend::new();
    backend.set_latency(LATENCY);
    for key in keys {
        backend.put(key, format!("value of {key}"));
    }
    backend
}

struct Coalesced {
    reads: Coalesce<RemoteRef, Direct>,
    searches: Coalesce<FindQuery, Direct>,
    decryptions: Coalesce<Ciphertext, Direct>,
}

impl Coalesced {
    fn new(provider: Arc<dyn Provider>, metrics: &StoreMetrics) -> Self {
        let (provider, longest) = (Arc::new(Direct(provider)), Duration::from_secs(30));
        Self {
            reads: Coalesce::new(Arc::clone(&provider), metrics.clone(), longest),
            searches: Coalesce::new(Arc::clone(&provider), metrics.clone(), longest),
            decryptions: Coalesce::new(provider, metrics.clone(), longest),
        }
    }

    async fn fetch(&self, cx: &Context, refs: &[RemoteRef]) -> Answers<RemoteRef> {
        self.reads.call(cx, refs).await
    }

    async fn find(&self, cx: &Context, query: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError> {
        one(&self.searches, cx, query.clone()).await
    }

    async fn decrypt(&self, cx: &Context, ciphertext: &Ciphertext) -> Result<SecretValue, ProviderError> {
        one(&self.decryptions, cx, ciphertext.clone()).await
    }
}

fn coalesce(backend: &MemoryBackend) -> Coalesced {
    Coalesced::new(backend.provider(), &measured().store)
}

fn refs(keys: &[&str]) -> Vec<RemoteRef> {
    keys.iter().map(|key| RemoteRef::current(at(*key))).collect()
}

fn text(result: &Result<RemoteSecret, ProviderError>) -> String {
    result.as_ref().unwrap().value.expose_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn concurrent_reads_of_a_key_share_one_request_and_its_bytes() {
    let backend = backend(&["a"]);
    let measured = measured();
    let coalesce = Coalesced::new(backend.provider(), &measured.store);
    let (cx, a) = (Context::default(), refs(&["a"]));
    let answers = join_all((0..50).map(|_| coalesce.fetch(&cx, &a))).await;
    assert_eq!(backend.reads("a"), 1);
    let first = answers[0][0].as_ref().unwrap().value.expose().as_ptr();
    assert!(
        answers
            .iter()
            .all(|answer| answer[0].as_ref().unwrap().value.expose().as_ptr() == first)
    );
    assert!(measured.lines("lockstep_provider_requests_saved_total")[0].ends_with(" 49"));
}

#[tokio::test(start_paused = true)]
async fn versions_of_a_key_are_separate_requests() {
    let backend = backend(&["a", "a"]);
    let coalesce = coalesce(&backend);
    let refs = [
        RemoteRef::current(at("a")),
        RemoteRef::version(at("a"), "1"),
        RemoteRef::version(at("a"), "2"),
    ];
    let results = coalesce.fetch(&Context::default(), &refs).await;
    assert_eq!(backend.reads("a"), 3);
    let versions: Vec<_> = results
        .iter()
        .map(|result| result.as_ref().unwrap().version.clone().unwrap())
        .collect();
    assert_eq!(versions, ["2", "1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn only_keys_not_in_flight_are_requested() {
    let backend = backend(&["a", "b", "c", "d"]).with_batch(10);
    let coalesce = coalesce(&backend);
    let cx = Context::default();
    let (first, second) = (refs(&["a", "b"]), refs(&["c", "b", "missing", "c", "a", "d"]));
    let (first, second) = join(coalesce.fetch(&cx, &first), async {
        sleep(LATENCY / 2).await;
        coalesce.fetch(&cx, &second).await
    })
    .await;
    assert_eq!(
        first.iter().map(text).collect::<Vec<_>>(),
        ["value of a", "value of b"]
    );
    assert!(
        second[2]
            .as_ref()
            .is_err_and(|error| error.kind == ErrorKind::NotFound)
    );
    let found: Vec<_> = [0, 1, 3, 4, 5].map(|index| text(&second[index])).to_vec();
    assert_eq!(
        found,
        [
            "value of c",
            "value of b",
            "value of c",
            "value of a",
            "value of d"
        ]
    );
    assert_eq!(
        ["a", "b", "c", "d", "missing"].map(|key| backend.reads(key)),
        [1; 5]
    );
    assert_eq!(
        backend.calls(Operation::Read),
        2,
        "the new ones went out as one batch"
    );
}

#[tokio::test(start_paused = true)]
async fn unbatchable_reads_are_sent_alone_and_can_be_joined() {
    let backend = backend(&["a", "b", "c", "d"])
        .with_batch(2)
        .with_only_current_in_batches();
    let coalesce = coalesce(&backend);
    let cx = Context::default();
    let mut all = refs(&["a", "b", "c", "d"]);
    all[1].version = Some("1".to_owned());
    let again = [all[1].clone(), all[3].clone()];
    let (first, second) = join(coalesce.fetch(&cx, &all), async {
        sleep(LATENCY / 2).await;
        coalesce.fetch(&cx, &again).await
    })
    .await;
    let values: Vec<_> = first.iter().chain(&second).map(text).collect();
    assert_eq!(
        values,
        ["a", "b", "c", "d", "b", "d"].map(|key| format!("value of {key}"))
    );
    assert_eq!(backend.calls(Operation::Read), 3, "a and c, b, and d");
}

#[tokio::test(start_paused = true)]
async fn request_survives_its_first_caller() {
    let backend = backend(&["a"]);
    let coalesce = coalesce(&backend);
    let (cx, a) = (Context::default(), refs(&["a"]));
    let mut leader = Box::pin(coalesce.fetch(&cx, &a));
    assert!(futures::poll!(&mut leader).is_pending());
    let mut follower = Box::pin(coalesce.fetch(&cx, &a));
    assert!(futures::poll!(&mut follower).is_pending());
    sleep(LATENCY / 2).await;
    drop(leader);
    assert_eq!(text(&follower.await[0]), "value of a");
    assert_eq!(backend.reads("a"), 1, "it was carried on, not begun again");
}

#[tokio::test(start_paused = true)]
async fn cancelled_follower_does_not_affect_others() {
    let backend = backend(&["a"]);
    let coalesce = coalesce(&backend);
    let (cx, a) = (Context::default(), refs(&["a"]));
    let (answer, given_up) = join!(
        coalesce.fetch(&cx, &a),
        tokio::time::timeout(LATENCY / 4, coalesce.fetch(&cx, &a)),
    );
    assert!(given_up.is_err());
    assert!(answer[0].is_ok());
}

#[tokio::test(start_paused = true)]
async fn request_without_callers_ends_and_is_removed() {
    let backend = backend(&["a"]);
    let coalesce = coalesce(&backend);
    let (cx, a) = (Context::default(), refs(&["a"]));
    let _ = tokio::time::timeout(LATENCY / 4, coalesce.fetch(&cx, &a)).await;
    assert_eq!(coalesce.reads.table.0.lock().flights.len(), 0);
    drop(coalesce.fetch(&cx, &a));
    assert_eq!(coalesce.reads.table.0.lock().flights.len(), 0);
    assert!(coalesce.fetch(&cx, &a).await[0].is_ok(), "the next asks anew");
}

#[tokio::test(start_paused = true)]
async fn results_are_not_cached() {
    let backend = backend(&["a"]);
    let coalesce = coalesce(&backend);
    let (cx, a) = (Context::default(), refs(&["a"]));
    let before = coalesce.fetch(&cx, &a).await;
    assert_eq!(coalesce.reads.table.0.lock().flights.len(), 0);
    backend.put("a", "rotated");
    assert_eq!(
        text(&coalesce.fetch(&cx, &a).await[0]),
        "rotated",
        "although somebody still holds the old answer"
    );
    assert_eq!(text(&before[0]), "value of a");
}

#[tokio::test(start_paused = true)]
async fn unclaimed_result_is_not_given_to_new_callers() {
    let backend = backend(&["a"]);
    let coalesce = coalesce(&backend);
    let (cx, a) = (Context::default(), refs(&["a"]));
    let mut idle = Box::pin(coalesce.fetch(&cx, &a));
    assert!(futures::poll!(&mut idle).is_pending());
    coalesce.fetch(&cx, &a).await;
    backend.put("a", "rotated");
    assert_eq!(text(&coalesce.fetch(&cx, &a).await[0]), "rotated");
    assert_eq!(text(&idle.await[0]), "value of a");
}

#[tokio::test(start_paused = true)]
async fn callers_wait_until_their_own_deadline() {
    let backend = backend(&["a"]);
    let coalesce = coalesce(&backend);
    let hurried = Context {
        deadline: Some((Instant::now() + LATENCY / 2).into_std()),
        ..Context::default()
    };
    let (patient, a) = (Context::default(), refs(&["a"]));
    let start = Instant::now();
    let (first, second) = join!(
        async { (coalesce.fetch(&hurried, &a).await, start.elapsed()) },
        coalesce.fetch(&patient, &a)
    );
    assert_eq!(first.0[0].as_ref().unwrap_err().kind, ErrorKind::Timeout);
    assert_eq!(first.1, LATENCY / 2);
    assert!(
        second[0].is_ok(),
        "the hurried one began it, and its deadline did not end it"
    );
}

/// The ciphertext of the memory provider: the location, followed by the value.
fn ciphertext(name: &str) -> Ciphertext {
    let binding = Binding::new(lockstep_api::CiphertextScope::Strict, "shop", name, "password");
    Ciphertext {
        bytes: [binding.to_bytes().as_slice(), b"CANARY"].concat(),
        binding,
    }
}

#[tokio::test(start_paused = true)]
async fn concurrent_decryptions_share_one_request() {
    let backend = backend(&[]);
    let (coalesce, cx, sealed) = (coalesce(&backend), Context::default(), ciphertext("database"));
    let answers = join_all((0..20).map(|_| coalesce.decrypt(&cx, &sealed))).await;
    assert_eq!(backend.calls(Operation::Decrypt), 1);
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_ref().unwrap().expose_str() == Some("CANARY"))
    );
}

#[tokio::test(start_paused = true)]
async fn ciphertexts_for_other_locations_are_separate_requests() {
    let backend = backend(&[]);
    let (coalesce, cx, sealed) = (coalesce(&backend), Context::default(), ciphertext("database"));
    let stolen = Ciphertext {
        binding: ciphertext("other").binding,
        bytes: sealed.bytes.clone(),
    };
    let (own, other) = join!(coalesce.decrypt(&cx, &sealed), coalesce.decrypt(&cx, &stolen));
    assert!(own.is_ok());
    assert_eq!(other.unwrap_err().kind, ErrorKind::Undecryptable);
    assert_eq!(backend.calls(Operation::Decrypt), 2);
}

#[tokio::test(start_paused = true)]
async fn decryption_survives_its_first_caller() {
    let backend = backend(&[]);
    let (coalesce, cx, sealed) = (coalesce(&backend), Context::default(), ciphertext("database"));
    let mut first = Box::pin(coalesce.decrypt(&cx, &sealed));
    assert!(futures::poll!(&mut first).is_pending());
    let mut second = Box::pin(coalesce.decrypt(&cx, &sealed));
    assert!(futures::poll!(&mut second).is_pending());
    drop(first);
    assert!(second.await.is_ok());
    assert_eq!(backend.calls(Operation::Decrypt), 1);
}

#[tokio::test(start_paused = true)]
async fn errors_are_shared() {
    let backend = backend(&["a"]);
    backend.fail_next(1, ErrorKind::RateLimited, Some(Duration::from_secs(7)));
    let coalesce = coalesce(&backend);
    let (cx, a) = (Context::default(), refs(&["a"]));
    for mut answer in join_all((0..5).map(|_| coalesce.fetch(&cx, &a))).await {
        let error = answer.remove(0).unwrap_err();
        assert_eq!(
            (error.kind, error.retry_after),
            (ErrorKind::RateLimited, Some(Duration::from_secs(7)))
        );
    }
    assert_eq!(backend.calls(Operation::Read), 1);
}

#[tokio::test(start_paused = true)]
async fn only_equal_searches_share_a_request() {
    let backend = backend(&["a/1", "b/1"]);
    let coalesce = coalesce(&backend);
    let cx = Context::default();
    let below = |path: &str| FindQuery {
        path: Some(at(path)),
        ..FindQuery::default()
    };
    let (a, b) = (below("a"), below("b"));
    let (first, second, other) = join!(
        coalesce.find(&cx, &a),
        coalesce.find(&cx, &a),
        coalesce.find(&cx, &b)
    );
    assert_eq!(first.as_ref().unwrap(), second.as_ref().unwrap());
    assert_eq!(other.unwrap()[0].key.as_str(), "b/1");
    assert_eq!(backend.calls(Operation::Find), 2);
    assert_eq!(coalesce.searches.table.0.lock().flights.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn shared_search_spends_the_time_of_the_first_only() {
    let backend = backend(&["a"]);
    let coalesce = coalesce(&backend);
    let query = FindQuery {
        name: Some("a".to_owned()),
        ..FindQuery::default()
    };
    let full = || {
        let cx = Context::default();
        cx.match_time.add(crate::MatchTime::MAX);
        cx
    };
    let (first, second) = (full(), full());
    let (one, two) = join(coalesce.find(&first, &query), coalesce.find(&second, &query)).await;
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(backend.calls(Operation::Find), 1);
    let nothing = || std::future::ready(Ok(()));
    assert!(first.match_time.limit(nothing()).await.is_err());
    assert!(second.match_time.limit(nothing()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn two_stores_share_neither_a_request_nor_an_answer() {
    let (one, other) = (backend(&["a"]), backend(&[]));
    other.put("a", "of the other");
    let (first, second) = (coalesce(&one), coalesce(&other));
    let (cx, a) = (Context::default(), refs(&["a"]));
    let (first, second) = join(first.fetch(&cx, &a), second.fetch(&cx, &a)).await;
    assert_eq!(
        (text(&first[0]), text(&second[0])),
        ("value of a".into(), "of the other".into())
    );
    assert_eq!((one.reads("a"), other.reads("a")), (1, 1));
}

/// A source that computes its first response before a change and delays it.
#[derive(Debug)]
struct Held {
    value: Mutex<&'static str>,
    calls: AtomicUsize,
    release: Notify,
}

impl Held {
    async fn answer(&self) -> &'static str {
        let value = *self.value.lock();
        if self.calls.fetch_add(1, Ordering::Relaxed) == 0 {
            self.release.notified().await;
        } else {
            sleep(LATENCY).await;
        }
        value
    }
}

#[async_trait]
impl Provider for Held {
    fn capability(&self) -> Capability {
        MemoryBackend::new().provider().capability()
    }

    async fn fetch(&self, _: &Context, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        let secret = RemoteSecret {
            value: SecretValue::from(self.answer().await),
            version: None,
            created: None,
            fresh_for: None,
        };
        vec![Ok(secret); refs.len()]
    }

    async fn find(&self, _: &Context, _: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError> {
        let key = self.answer().await;
        Ok(vec![RemoteMeta { key: at(key) }])
    }

    fn batches(&self, _: &RemoteRef) -> bool {
        true
    }

    async fn decrypt(&self, _: &Context, _: &Ciphertext) -> Result<SecretValue, ProviderError> {
        Err(no_kms(self))
    }

    async fn check(&self, _: &Context) -> Result<(), ProviderError> {
        Ok(())
    }

    crate::returns_none!(notice, changes, events);
}

impl NoLeases for Held {}

#[tokio::test(start_paused = true)]
async fn caller_that_knows_of_a_change_joins_only_newer_requests() {
    for search in [false, true] {
        let held = Arc::new(Held {
            value: Mutex::new("old"),
            calls: AtomicUsize::new(0),
            release: Notify::new(),
        });
        let coalesce = Coalesced::new(held.clone(), &measured().store);
        let ask = async |not_before: Option<Instant>| {
            let cx = Context {
                not_before: not_before.map(Instant::into_std),
                ..Context::default()
            };
            if search {
                let found = coalesce.find(&cx, &FindQuery::default()).await;
                found.unwrap()[0].key.to_string()
            } else {
                text(&coalesce.fetch(&cx, &refs(&["a"])).await[0])
            }
        };
        let mut early = Box::pin(ask(None));
        assert!(futures::poll!(&mut early).is_pending());
        sleep(Duration::from_millis(1)).await;
        *held.value.lock() = "new";
        let changed = Instant::now();
        let told = tokio::time::timeout(Duration::from_secs(1), async {
            join!(ask(Some(changed)), ask(Some(changed)))
        });
        let told = told.await.expect("the answer that is held back is waited for");
        assert_eq!(told, ("new".to_owned(), "new".to_owned()), "searched: {search}");
        assert_eq!(held.calls.load(Ordering::Relaxed), 2, "those who know share one");
        held.release.notify_one();
        assert_eq!(early.await, "old");
        assert!(
            coalesce.reads.table.0.lock().flights.is_empty()
                && coalesce.searches.table.0.lock().flights.is_empty()
        );
    }
}

/// A provider that violates its contract.
#[derive(Debug)]
struct Broken;

#[async_trait]
impl Provider for Broken {
    fn capability(&self) -> Capability {
        Capability {
            batch: 10,
            ..MemoryBackend::new().provider().capability()
        }
    }

    async fn fetch(&self, _: &Context, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        if refs.len() > 1 {
            return vec![Err(gave_up(Operation::Read))];
        }
        panic!("canary");
    }

    async fn find(&self, _: &Context, _: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError> {
        panic!("canary");
    }

    fn batches(&self, _: &RemoteRef) -> bool {
        true
    }

    async fn decrypt(&self, _: &Context, _: &Ciphertext) -> Result<SecretValue, ProviderError> {
        Err(no_kms(self))
    }

    async fn check(&self, _: &Context) -> Result<(), ProviderError> {
        Ok(())
    }

    crate::returns_none!(notice, changes, events);
}

impl NoLeases for Broken {}

#[tokio::test]
async fn broken_provider_is_an_error_for_every_caller() {
    let coalesce = Coalesced::new(Arc::new(Broken), &measured().store);
    let (cx, one, two) = (Context::default(), refs(&["a"]), refs(&["b", "c"]));
    let query = FindQuery::default();
    let (first, second, found, short) = join!(
        coalesce.fetch(&cx, &one),
        coalesce.fetch(&cx, &one),
        coalesce.find(&cx, &query),
        coalesce.fetch(&cx, &two),
    );
    assert_eq!(short.len(), 2);
    let errors = first
        .into_iter()
        .chain(second)
        .chain(short)
        .map(Result::unwrap_err);
    for error in errors.chain([found.unwrap_err()]) {
        assert_eq!(error.kind, ErrorKind::Internal);
        assert!(!error.to_string().contains("canary"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// For any requests, arrival times and cancellations: remaining callers get their own values in
    /// their own order, no key is read twice at the same time, and the table ends up empty.
    #[test]
    fn remaining_callers_get_complete_results(
        batch in 1_usize..5,
        callers in prop::collection::vec(
            (0_u64..150, prop::option::of(1_u64..150), prop::collection::vec(0_usize..6, 0..8)),
            1..8,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let keys: Vec<String> = (0..6).map(|index| format!("key-{index}")).collect();
            let backend = backend(&keys.iter().map(String::as_str).collect::<Vec<_>>()).with_batch(batch);
            let coalesce = coalesce(&backend);
            let total: usize = callers.iter().map(|(_, _, wanted)| wanted.len()).sum();
            join_all(callers.iter().map(|(start, patience, wanted)| {
                let (coalesce, keys) = (&coalesce, &keys);
                async move {
                    sleep(Duration::from_millis(*start)).await;
                    let refs: Vec<_> = wanted.iter().map(|index| RemoteRef::current(at(&keys[*index]))).collect();
                    let patience = Duration::from_millis(patience.unwrap_or(10_000));
                    if let Ok(answers) = tokio::time::timeout(patience, coalesce.fetch(&Context::default(), &refs)).await {
                        let answers: Vec<_> = answers.iter().map(text).collect();
                        let expected: Vec<_> = wanted.iter().map(|index| format!("value of {}", keys[*index])).collect();
                        assert_eq!(answers, expected);
                    }
                }
            }))
            .await;
            assert!(backend.total_reads() <= total as u64);
            assert_eq!(coalesce.reads.table.0.lock().flights.len(), 0);
        });
    }
}
