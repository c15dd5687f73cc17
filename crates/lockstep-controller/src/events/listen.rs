use std::{collections::BTreeSet, sync::Arc, time::Duration};

use lockstep_core::schedule;
use lockstep_provider::{EventKind, EventSource, Message, ProviderError, StoreKey};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::Activity;
use crate::{context::Shared, metrics::EventMetrics};

/// Maximum backoff after failures of a source.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Timeout of one receive call. It is longer than any source waits for a message.
const RECEIVE_DEADLINE: Duration = Duration::from_secs(90);
/// Timeout of an acknowledgement.
const ACKNOWLEDGE_DEADLINE: Duration = Duration::from_secs(30);
/// How long acknowledgements are collected, so that one call covers several.
const COLLECT: Duration = Duration::from_millis(50);
/// Delay before a client without events is asked again.
const PAUSE_WITHOUT: Duration = Duration::from_secs(5);
/// Minimum interval between two calls if the last messages concerned no object. With the maximum
/// number of messages per call, that is about 200 messages per second from SQS and 2,000 from
/// Pub/Sub.
const PACE: Duration = Duration::from_millis(50);
/// Maximum number of messages that wait to be acknowledged before receiving pauses. It is also the
/// maximum size of one acknowledgement.
const MOST_DONE: usize = 1_000;

/// Starts a listener for each store that has events. Ends the listeners of stores that no longer
/// have events, and of stores that changed.
pub(crate) fn follow(shared: &Arc<Shared>) {
    let events = &shared.events;
    let wanted = || shared.index().listening();
    events.follow_wanted(wanted, |store, token, done| {
        let (shared, mut listed, scopes) = (shared.clone(), events.listed.subscribe(), events.scopes);
        // Created under the lock that `Events::forget` takes, so that no series outlives the store.
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
        let Err(error) = listen_once(shared, store, metrics, done, &mut attempt).await else {
            // The provider does not support these events, or the client is about to be replaced.
            sleep(PAUSE_WITHOUT).await;
            continue;
        };
        metrics.listening.set(0);
        tracing::warn!(store = %store, kind = error.kind.label(), %error, "events are not heard");
        if shared.events.set_failure(
            store,
            Activity::Listening,
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

/// Receives messages until something fails.
async fn listen_once(
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
        let done = || shared.events.pending.lock().count_receipts(store);
        let messages = pace.receive(source, done).await?;
        // A new connection alone does not reset the backoff: a connection that closes at once is
        // retried with growing delays.
        if messages.is_empty() || messages.iter().any(|message| message.kind != EventKind::Anything) {
            *attempt = 0;
        }
        metrics.listening.set(1);
        if shared.events.set_failure(store, Activity::Listening, None) {
            tracing::info!(store = %store, "events are heard again");
            shared.checks.wake([store.clone()]);
        }
        for message in messages {
            pace.concerned |= accept(shared, store, metrics, &message);
        }
    }
}

/// Limits how often a source is called: not while too many messages wait, and not faster than
/// [`PACE`] while its messages concern no object.
#[derive(Debug, Default)]
struct Pace {
    /// When it was last called.
    asked: Option<Instant>,
    /// Whether the messages of that call concerned an object.
    concerned: bool,
}

impl Pace {
    /// Waits until the next call is due, and receives. `done` is the number of messages that wait
    /// to be acknowledged.
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
            // The connection may be dead. A new call opens another one.
            Err(_) => Vec::new(),
        };
        Ok(messages.into_iter().map(Message::bounded).collect())
    }
}

/// Records which objects a message concerns, then wakes them. Returns whether any object was woken.
fn accept(shared: &Shared, store: &StoreKey, metrics: &EventMetrics, message: &Message) -> bool {
    let objects = match &message.kind {
        EventKind::Anything => shared.index().dependents(store),
        kind => shared.index().readers(store, kind.keys()),
    };
    if let (Some(at), true) = (
        message.at,
        !matches!(message.kind, EventKind::Malformed | EventKind::Irrelevant),
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
        EventKind::Irrelevant => "ignored",
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
        let mut pending = shared.events.pending.lock();
        let woken = pending.add(store, &message.id, receipt, hint, objects);
        // Recorded before waking: a sync that starts after this handles the message, and must not
        // use an older read.
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

/// Acknowledges handled messages as they become available.
async fn acknowledge(shared: &Shared, store: &StoreKey, source: &dyn EventSource, done: &Notify) {
    loop {
        done.notified().await;
        sleep(COLLECT).await;
        let (receipts, left) = {
            let mut pending = shared.events.pending.lock();
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
                    if shared.events.set_failure(store, Activity::Acknowledging, None) {
                        shared.checks.wake([store.clone()]);
                    }
                    break;
                }
                Ok(Err(error)) => {
                    tracing::warn!(store = %store, kind = error.kind.label(), %error, "messages could not be acknowledged");
                    // Without the permission, each message is delivered again until it can be
                    // acknowledged.
                    if error.kind == lockstep_provider::ErrorKind::PermissionDenied {
                        let failure = format!("events are heard, and come again and again: {error}");
                        if shared
                            .events
                            .set_failure(store, Activity::Acknowledging, Some(&failure))
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

    /// A source that returns the same message at once on every call.
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
            // Calls of a real service are not instant.
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
    async fn only_sources_without_relevant_messages_are_throttled() {
        for (concerned, at_least, at_most) in [(false, 20, 21), (true, 900, 1_001)] {
            let (source, mut pace) = (Flood::of(EventKind::Irrelevant), Pace::default());
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
    async fn receiving_pauses_while_too_many_messages_are_unacknowledged() {
        let (source, mut pace) = (Flood::of(EventKind::Irrelevant), Pace::default());
        let waiting = AtomicUsize::new(MOST_DONE);
        let done = || waiting.load(Ordering::Relaxed);
        let an_hour = Duration::from_secs(3600);
        assert!(timeout(an_hour, pace.receive(&source, done)).await.is_err());
        assert_eq!(source.asked.load(Ordering::Relaxed), 0);
        waiting.store(MOST_DONE - 1, Ordering::Relaxed);
        assert_eq!(pace.receive(&source, done).await.unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn oversized_messages_are_counted_as_malformed() {
        let source = Flood::of(EventKind::Changed(vec!["k".repeat(LONGEST_NAME + 1)]));
        let messages = Pace::default().receive(&source, || 0).await.unwrap();
        assert_eq!(messages[0].kind, EventKind::Malformed);
    }
}
