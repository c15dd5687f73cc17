use std::{collections::BTreeSet, sync::Arc, time::Duration};

use lockstep_core::schedule;
use lockstep_provider::{EventKind, EventSource, Message, ProviderError, StoreKey};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{Doing, lock};
use crate::{context::Shared, metrics::EventMetrics};

/// How long a source that fails is left alone at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long one call may take: longer than any source waits for a message.
const RECEIVE_DEADLINE: Duration = Duration::from_secs(90);
/// How long an acknowledgement may take.
const ACKNOWLEDGE_DEADLINE: Duration = Duration::from_secs(30);
/// How long acknowledgements are collected, so that several go out with one call.
const COLLECT: Duration = Duration::from_millis(50);
/// The pause before a client is asked again that has no events.
const PAUSE_WITHOUT: Duration = Duration::from_secs(5);
/// A source that tells nothing that concerns anybody is asked no more often than this. With the most messages that a call
/// takes, that is some two hundred a second of SQS, and two thousand of Pub/Sub.
const PACE: Duration = Duration::from_millis(50);
/// A source is not asked for more while so many of its messages wait to be acknowledged. It is also how many are
/// acknowledged together.
const MOST_DONE: usize = 1_000;

/// Starts a listener for each store that has events. Ends the listeners of stores that no longer have events, and of stores
/// that changed.
pub(crate) fn follow(shared: &Arc<Shared>) {
    let events = &shared.events;
    let wanted = || shared.index().listening();
    events.follow_wanted(wanted, |store, token, done| {
        let (shared, mut listed, scopes) = (shared.clone(), events.listed.subscribe(), events.scopes);
        // created under the lock that `Events::forget` takes, so that no series outlives the store
        let metrics = shared.metrics.events.get(&[&store.label()]);
        events.tasks.spawn("store events", token, async move {
            if listed.wait_for(|listed| listed.len() >= scopes).await.is_ok() {
                listen(&shared, &store, &metrics, &done).await;
            }
        });
    });
}

/// Listens to a store until dropped.
async fn listen(shared: &Arc<Shared>, store: &StoreKey, metrics: &EventMetrics, done: &Notify) {
    let mut attempt = 0;
    loop {
        metrics.listening.set(0);
        let Err(error) = hear(shared, store, metrics, done, &mut attempt).await else {
            // the provider knows no such events, or the client is an older one, which the next one replaces
            sleep(PAUSE_WITHOUT).await;
            continue;
        };
        metrics.listening.set(0);
        tracing::warn!(store = %store, kind = error.kind.label(), %error, "events are not heard");
        if shared.events.set_trouble(
            store,
            Doing::Hearing,
            Some(&format!(
                "events are not heard, and changes are noticed at the refresh interval: {error}"
            )),
        ) {
            shared.checks.wake([store.clone()]);
        }
        let kind = error.kind.requeue();
        let pause = schedule::retry(kind, LONGEST_PAUSE, error.retry_after, &store.label(), attempt);
        attempt = attempt.saturating_add(1);
        sleep(pause.min(LONGEST_PAUSE)).await;
    }
}

/// Listens until something fails.
async fn hear(
    shared: &Arc<Shared>,
    store: &StoreKey,
    metrics: &EventMetrics,
    done: &Notify,
    attempt: &mut u32,
) -> Result<(), ProviderError> {
    let Some(source) = shared.provider(store).await?.events() else {
        return Ok(());
    };
    tokio::select! {
        failed = receive(shared, store, metrics, source.as_ref(), attempt) => failed,
        () = acknowledge(shared, store, source.as_ref(), done) => Ok(()),
    }
}

async fn receive(
    shared: &Arc<Shared>,
    store: &StoreKey,
    metrics: &EventMetrics,
    source: &dyn EventSource,
    attempt: &mut u32,
) -> Result<(), ProviderError> {
    let mut pace = Pace::default();
    loop {
        let done = || lock(&shared.events.pending).count_receipts(store);
        let messages = pace.receive(source, done).await?;
        // a connection that was made says nothing yet: one that ends at once is made ever more seldom
        if messages.is_empty() || messages.iter().any(|message| message.kind != EventKind::Anything) {
            *attempt = 0;
        }
        metrics.listening.set(1);
        if shared.events.set_trouble(store, Doing::Hearing, None) {
            tracing::info!(store = %store, "events are heard again");
            shared.checks.wake([store.clone()]);
        }
        for message in messages {
            pace.concerned |= take_in(shared, store, metrics, &message);
        }
    }
}

/// How a source is asked: not for more than is dealt with, and not as fast as it can say nothing of interest.
#[derive(Debug, Default)]
struct Pace {
    /// When it was asked last.
    asked: Option<Instant>,
    /// Whether what it told then concerns somebody.
    concerned: bool,
}

impl Pace {
    /// Waits until it is time, and receives. `done`: how many messages wait to be acknowledged.
    async fn receive(
        &mut self,
        source: &dyn EventSource,
        done: impl Fn() -> usize,
    ) -> Result<Vec<Message>, ProviderError> {
        while done() >= MOST_DONE {
            sleep(COLLECT).await;
        }
        if let Some(asked) = self.asked.filter(|_| !self.concerned) {
            sleep_until(asked + PACE).await;
        }
        self.asked = Some(Instant::now());
        self.concerned = false;
        let messages = match timeout(RECEIVE_DEADLINE, source.receive()).await {
            Ok(messages) => messages?,
            // the connection may be dead; a new call makes a new one
            Err(_) => Vec::new(),
        };
        Ok(messages.into_iter().map(Message::bounded).collect())
    }
}

/// Wakes who is concerned by a message, after it is noted that they are; answers whether anybody was woken.
fn take_in(shared: &Shared, store: &StoreKey, metrics: &EventMetrics, message: &Message) -> bool {
    let objects = match &message.kind {
        EventKind::Anything => shared.index().dependents(store),
        kind => shared.index().readers(store, kind.keys()),
    };
    if let (Some(at), true) = (
        message.at,
        !matches!(message.kind, EventKind::Malformed | EventKind::Nothing),
    ) {
        let lag = shared.clock.now().duration_since(at).as_secs_f64();
        metrics.lag.observe(lag.max(0.0));
    }
    let concerned = !objects.is_empty();
    let woken = match &message.receipt {
        None => {
            shared.events.wake(&objects);
            objects
        }
        Some(receipt) => note(shared, store, message, receipt, objects),
    };
    let outcome = match &message.kind {
        EventKind::Malformed => "malformed",
        EventKind::Nothing => "ignored",
        _ if concerned && woken.is_empty() => "repeated",
        EventKind::Anything => "anything",
        _ if concerned => "woken",
        _ => "unknown",
    };
    metrics.received.with_label_values(&[outcome]).inc();
    tracing::debug!(store = %store, outcome, woken = woken.len(), "an event");
    let wakes = !woken.is_empty();
    if wakes {
        shared.hint(woken, message.kind == EventKind::Anything);
    }
    wakes
}

fn note(
    shared: &Shared,
    store: &StoreKey,
    message: &Message,
    receipt: &str,
    objects: BTreeSet<crate::index::ObjectKey>,
) -> BTreeSet<crate::index::ObjectKey> {
    let hint = match &message.kind {
        EventKind::VersionChanged(hint) => Some(hint.clone()),
        _ => None,
    };
    let (woken, stores) = {
        let mut pending = lock(&shared.events.pending);
        let woken = pending.add(store, &message.id, receipt, hint, objects);
        // at once: a sync that begins after it deals with the message, and must not read what was asked before
        pending.wake(&woken, Instant::now().into_std());
        shared
            .metrics
            .process
            .events_waiting
            .set(i64::try_from(pending.len()).unwrap_or(i64::MAX));
        (woken, pending.stores_with_receipts())
    };
    shared.events.notify(&stores);
    woken
}

/// Acknowledges what is dealt with, as it is.
async fn acknowledge(shared: &Shared, store: &StoreKey, source: &dyn EventSource, done: &Notify) {
    loop {
        done.notified().await;
        sleep(COLLECT).await;
        let (receipts, left) = {
            let mut pending = lock(&shared.events.pending);
            let receipts = pending.take_receipts(store, MOST_DONE);
            shared
                .metrics
                .process
                .events_waiting
                .set(i64::try_from(pending.len()).unwrap_or(i64::MAX));
            (receipts, pending.count_receipts(store))
        };
        if left > 0 {
            done.notify_one();
        }
        if receipts.is_empty() {
            continue;
        }
        for attempt in 0..3_u32 {
            match timeout(ACKNOWLEDGE_DEADLINE, source.acknowledge(&receipts)).await {
                Ok(Ok(())) => {
                    if shared.events.set_trouble(store, Doing::Acknowledging, None) {
                        shared.checks.wake([store.clone()]);
                    }
                    break;
                }
                Ok(Err(error)) => {
                    tracing::warn!(store = %store, kind = error.kind.label(), %error, "messages could not be acknowledged");
                    // without the right, each message comes again until it may be acknowledged
                    if error.kind == lockstep_provider::ErrorKind::PermissionDenied {
                        let trouble = format!("events are heard, and come again and again: {error}");
                        if shared
                            .events
                            .set_trouble(store, Doing::Acknowledging, Some(&trouble))
                        {
                            shared.checks.wake([store.clone()]);
                        }
                        break;
                    }
                }
                Err(_) => tracing::warn!(store = %store, "messages were not acknowledged in time"),
            }
            sleep(Duration::from_secs(1 << attempt)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use lockstep_provider::LONGEST_NAME;

    use super::*;

    /// A source that always has the same message, and tells it at once.
    #[derive(Debug)]
    struct Flood {
        kind: EventKind,
        asked: AtomicUsize,
    }

    impl Flood {
        fn of(kind: EventKind) -> Self {
            Self {
                kind,
                asked: AtomicUsize::new(0),
            }
        }
    }

    #[async_trait]
    impl EventSource for Flood {
        async fn receive(&self) -> Result<Vec<Message>, ProviderError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            // every call of a service takes a moment
            sleep(Duration::from_millis(1)).await;
            Ok(vec![Message {
                id: "1".to_owned(),
                receipt: Some("receipt".to_owned()),
                kind: self.kind.clone(),
                at: None,
            }])
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_tells_nothing_of_interest_is_asked_at_a_pace_and_another_as_fast_as_it_tells() {
        for (concerned, at_least, at_most) in [(false, 20, 21), (true, 900, 1_001)] {
            let (source, mut pace) = (Flood::of(EventKind::Nothing), Pace::default());
            let asking = async {
                loop {
                    pace.receive(&source, || 0).await.unwrap();
                    pace.concerned = concerned;
                }
            };
            let ended: Result<(), _> = timeout(Duration::from_secs(1), asking).await;
            assert!(ended.is_err());
            let asked = source.asked.load(Ordering::Relaxed);
            assert!(
                (at_least..=at_most).contains(&asked),
                "{asked} times a second, where that concerns somebody: {concerned}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_is_not_asked_for_more_while_too_much_waits_to_be_acknowledged() {
        let (source, mut pace) = (Flood::of(EventKind::Nothing), Pace::default());
        let waiting = AtomicUsize::new(MOST_DONE);
        let done = || waiting.load(Ordering::Relaxed);
        let an_hour = Duration::from_secs(3600);
        assert!(timeout(an_hour, pace.receive(&source, done)).await.is_err());
        assert_eq!(source.asked.load(Ordering::Relaxed), 0);
        waiting.store(MOST_DONE - 1, Ordering::Relaxed);
        assert_eq!(pace.receive(&source, done).await.unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_service_would_tell_comes_in_as_malformed() {
        let source = Flood::of(EventKind::Changed(vec!["k".repeat(LONGEST_NAME + 1)]));
        let messages = Pace::default().receive(&source, || 0).await.unwrap();
        assert_eq!(messages[0].kind, EventKind::Malformed);
    }
}
