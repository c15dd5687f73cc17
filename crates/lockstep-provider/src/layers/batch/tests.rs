use crate::testing::at;
use std::task::Poll;

use lockstep_api::Limits;
use proptest::prelude::*;
use tokio::time::sleep;

use super::*;
use crate::{
    ErrorKind, MemoryBackend, ProviderError, RemoteSecret,
    call::Direct,
    layers::testing::{Requests as _, measured},
};

const LATENCY: Duration = Duration::from_millis(100);

fn backend(keys: usize, batch: usize) -> MemoryBackend {
    let backend = MemoryBackend::new().with_batch(batch);
    backend.set_latency(LATENCY);
    for key in 0..keys {
        backend.put(&format!("key-{key}"), format!("value of key-{key}"));
    }
    backend
}

fn batch(backend: &MemoryBackend) -> Batch<Direct> {
    Batch::new(
        Arc::new(Direct(backend.provider())),
        measured().store,
        Duration::from_secs(30),
    )
}

fn key(number: usize) -> RemoteRef {
    RemoteRef::current(at(format!("key-{number}")))
}

fn text(result: &Result<RemoteSecret, ProviderError>) -> &str {
    result.as_ref().unwrap().value.expose_str().unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_arrives_together_goes_out_in_full_batches_and_every_answer_finds_its_place() {
    let backend = backend(1000, 20);
    let measured = measured();
    let batch = Batch::new(
        Arc::new(Direct(backend.provider())),
        measured.store.clone(),
        Duration::from_secs(30),
    );
    let cx = Context::default();
    let answers = join_all((0..1000).map(|number| {
        let (batch, cx) = (&batch, &cx);
        async move { batch.fetch(cx, &[key(number)]).await }
    }))
    .await;
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(text(&answer[0]), format!("value of key-{number}"));
    }
    assert_eq!(backend.calls(Operation::Read), 50);
    let lines = measured.lines("lockstep_provider_batch_size");
    assert!(
        lines
            .iter()
            .any(|line| line.contains("_sum") && line.ends_with(" 1000")),
        "{lines:?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.contains("_count") && line.ends_with(" 50")),
        "{lines:?}"
    );
    let saved = measured.lines("lockstep_provider_requests_saved_total");
    assert!(
        saved
            .iter()
            .any(|line| line.contains("\"batched\"") && line.ends_with(" 950")),
        "{saved:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn one_alone_waits_no_longer_than_a_moment() {
    let backend = backend(1, 20);
    let start = Instant::now();
    let answer = batch(&backend).fetch(&Context::default(), &[key(0)]).await;
    assert_eq!(text(&answer[0]), "value of key-0");
    assert_eq!(start.elapsed(), LATENCY + BATCH_WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_batch_waits_while_references_keep_coming_and_no_longer_than_its_limit() {
    let backend = backend(150, 200);
    let batch = batch(&backend);
    let cx = Context::default();
    let start = Instant::now();
    let reads = (0..150_u32).map(|number| {
        let (batch, cx) = (&batch, &cx);
        async move {
            sleep(Duration::from_millis(1) * number).await;
            batch.fetch(cx, &[key(number as usize)]).await;
            start.elapsed()
        }
    });
    let ends = join_all(reads).await;
    assert_eq!(
        backend.calls(Operation::Read),
        2,
        "one of a hundred milliseconds, one of the rest"
    );
    assert_eq!(ends[0], LATENCY + BATCH_WAIT_MAX);
}

/// As in a first sync of many objects that want few keys: the writes set the pace, and new keys come at it.
#[tokio::test(start_paused = true)]
async fn while_others_stand_in_a_queue_a_batch_waits_until_it_is_full() {
    let backend = backend(305, 20);
    let batch = batch(&backend);
    let reads = (0..305_u32).map(|number| {
        let batch = &batch;
        let cx = Context {
            backlog: Backlog::new(move || number < 304),
            ..Context::default()
        };
        async move {
            sleep(Duration::from_millis(13) * number).await;
            let begun = Instant::now();
            batch.fetch(&cx, &[key(number as usize)]).await;
            begun.elapsed()
        }
    });
    let ends = join_all(reads).await;
    let calls = backend.calls(Operation::Read);
    assert_eq!(calls, 16, "305 keys, 20 in each");
    assert!(ends.iter().all(|took| *took <= LATENCY + BATCH_WAIT_BACKLOG));
    let last = ends[304];
    assert!(
        last < LATENCY + BATCH_WAIT_MAX,
        "nobody comes after the last one: {last:?}"
    );
}

/// Those behind it wanted keys that are in flight already, so that nobody comes to tell.
#[tokio::test(start_paused = true)]
async fn a_queue_that_becomes_empty_unseen_holds_a_batch_no_longer() {
    let backend = backend(1, 20);
    let start = Instant::now();
    let cx = Context {
        backlog: Backlog::new(move || start.elapsed() < Duration::from_millis(60)),
        ..Context::default()
    };
    batch(&backend).fetch(&cx, &[key(0)]).await;
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(60) + LATENCY, "{took:?}");
    assert!(took < BATCH_WAIT_MAX + LATENCY, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_never_ends_holds_a_batch_for_so_long_and_no_longer() {
    let backend = backend(1, 20);
    let start = Instant::now();
    let cx = Context {
        backlog: Backlog::new(|| true),
        ..Context::default()
    };
    batch(&backend).fetch(&cx, &[key(0)]).await;
    assert_eq!(start.elapsed(), BATCH_WAIT_BACKLOG + LATENCY);
}

#[tokio::test(start_paused = true)]
async fn a_burst_that_fills_no_batch_does_not_wait_for_more() {
    let backend = backend(15, 20);
    let batch = batch(&backend);
    let start = Instant::now();
    let refs: Vec<_> = (0..15).map(key).collect();
    batch.fetch(&Context::default(), &refs).await;
    assert_eq!(start.elapsed(), LATENCY + BATCH_WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_does_not_wait() {
    let backend = backend(20, 20);
    let refs: Vec<_> = (0..20).map(key).collect();
    let start = Instant::now();
    batch(&backend).fetch(&Context::default(), &refs).await;
    assert_eq!(start.elapsed(), LATENCY);
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_a_batch_is_under_way_begins_the_next() {
    let backend = backend(2, 20);
    let batch = batch(&backend);
    let cx = Context::default();
    let (first, second) = ([key(0)], [key(1)]);
    futures::join!(batch.fetch(&cx, &first), async {
        sleep(BATCH_WAIT * 2).await;
        batch.fetch(&cx, &second).await
    });
    assert_eq!(backend.calls(Operation::Read), 2);
}

#[tokio::test(start_paused = true)]
async fn a_reference_that_fails_fails_alone() {
    let backend = backend(3, 20);
    backend.fail_key("key-1", 1, ErrorKind::PermissionDenied);
    let batch = batch(&backend);
    let cx = Context::default();
    let answers = join_all((0..4).map(|number| {
        let (batch, cx) = (&batch, &cx);
        async move { batch.fetch(cx, &[key(number)]).await.remove(0) }
    }))
    .await;
    assert_eq!(backend.calls(Operation::Read), 1);
    assert_eq!(
        (text(&answers[0]), text(&answers[2])),
        ("value of key-0", "value of key-2")
    );
    let kinds = [1, 3].map(|index| answers[index].as_ref().unwrap_err().kind);
    assert_eq!(kinds, [ErrorKind::PermissionDenied, ErrorKind::NotFound]);
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_away_leaves_the_batch_to_the_others() {
    let backend = backend(2, 20);
    let batch = batch(&backend);
    let cx = Context::default();
    let (first, second) = ([key(0)], [key(1)]);
    for pause in [Duration::ZERO, BATCH_WAIT * 2] {
        let before = backend.calls(Operation::Read);
        let mut leader = Box::pin(batch.fetch(&cx, &first));
        assert!(futures::poll!(&mut leader).is_pending());
        let mut follower = Box::pin(batch.fetch(&cx, &second));
        assert!(futures::poll!(&mut follower).is_pending());
        sleep(pause).await;
        assert!(futures::poll!(&mut follower).is_pending());
        drop(leader);
        assert_eq!(text(&follower.await[0]), "value of key-1");
        assert_eq!(backend.calls(Operation::Read) - before, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_nobody_waits_for_is_never_sent() {
    let backend = backend(2, 20);
    let batch = batch(&backend);
    let cx = Context::default();
    let (first, second) = ([key(0)], [key(1)]);
    let mut lonely = Box::pin(batch.fetch(&cx, &first));
    assert!(matches!(futures::poll!(&mut lonely), Poll::Pending));
    drop(lonely);
    assert_eq!(text(&batch.fetch(&cx, &second).await[0]), "value of key-1");
    assert_eq!(backend.reads("key-0"), 0);
}

#[tokio::test(start_paused = true)]
async fn each_waits_no_longer_than_its_own_deadline() {
    let backend = backend(2, 20);
    let batch = batch(&backend);
    let start = Instant::now();
    let soon = Context {
        deadline: Some((start + LATENCY / 2).into_std()),
        ..Context::default()
    };
    let (patient, first, second) = (Context::default(), [key(0)], [key(1)]);
    let (impatient, other) = futures::join!(
        async { (batch.fetch(&soon, &first).await, start.elapsed()) },
        batch.fetch(&patient, &second)
    );
    assert_eq!(impatient.0[0].as_ref().unwrap_err().kind, ErrorKind::Timeout);
    assert_eq!(impatient.1, LATENCY / 2);
    assert_eq!(text(&other[0]), "value of key-1");
}

#[tokio::test(start_paused = true)]
async fn a_provider_without_batches_is_asked_at_once() {
    let backend = backend(1, 1);
    let start = Instant::now();
    batch(&backend).fetch(&Context::default(), &[key(0)]).await;
    assert_eq!(start.elapsed(), LATENCY);
}

#[tokio::test(start_paused = true)]
async fn what_shares_no_request_waits_for_nobody_and_takes_no_place() {
    let backend = backend(40, 20).with_only_current_in_batches();
    let batch = batch(&backend);
    let start = Instant::now();
    batch
        .fetch(&Context::default(), &[RemoteRef::version(at("key-0"), "1")])
        .await;
    assert_eq!(start.elapsed(), LATENCY);
    // twenty that share a request are a full batch, whatever stands between them
    let mut refs: Vec<_> = (0..20).map(key).collect();
    refs.insert(7, RemoteRef::version(at("key-30"), "1"));
    let start = Instant::now();
    let answers = batch.fetch(&Context::default(), &refs).await;
    assert_eq!(start.elapsed(), LATENCY);
    for (reference, answer) in refs.iter().zip(&answers) {
        assert_eq!(text(answer), format!("value of {}", reference.key));
    }
    assert_eq!((backend.calls(Operation::Read), backend.largest_batch()), (3, 20));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever arrives when: each gets its own answer, no batch is larger than the provider takes, and what goes alone is in
    /// none.
    #[test]
    fn every_answer_finds_its_place(
        arrivals in proptest::collection::vec((0u64..8, proptest::collection::vec(0usize..12, 1..9)), 1..12),
        size in 2usize..6,
        alone in proptest::collection::hash_set(0usize..12, 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let backend = backend(12, size).with_only_current_in_batches();
            let limit = crate::layers::Limit::new(Direct(backend.provider()), crate::layers::testing::budget(Limits::default()));
            let batch = Batch::new(Arc::new(limit), measured().store, Duration::from_secs(30));
            let (batch, cx, alone) = (&batch, &Context::default(), &alone);
            let asked: usize = arrivals.iter().map(|(_, keys)| keys.len()).sum();
            let asked_alone = arrivals.iter().flat_map(|(_, keys)| keys).filter(|key| alone.contains(key)).count();
            let each = arrivals.into_iter().map(|(at, keys)| async move {
                sleep(Duration::from_millis(at)).await;
                let reference = |number: usize| {
                    let version = alone.contains(&number).then(|| "1".to_owned());
                    RemoteRef { version, ..key(number) }
                };
                let refs: Vec<_> = keys.iter().copied().map(reference).collect();
                let answers = batch.fetch(cx, &refs).await;
                assert_eq!(answers.len(), keys.len());
                for (number, answer) in keys.into_iter().zip(&answers) {
                    assert_eq!(text(answer), format!("value of key-{number}"));
                }
            });
            join_all(each).await;
            let least = u64::try_from((asked - asked_alone).div_ceil(size) + asked_alone).unwrap();
            assert!(backend.calls(Operation::Read) >= least);
            assert!(backend.largest_batch() <= size);
        });
    }
}
