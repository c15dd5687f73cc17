//! Handles change events from stores.
//!
//! One task for each store with events listens, wakes the SyncedSecrets that a message concerns,
//! and acknowledges messages that are handled. A message is only a hint: the next read finds out
//! whether a value changed.

pub(crate) mod listen;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use jiff::Timestamp;
use lockstep_core::events::{Capacity, PendingMessages, VersionHint};
use lockstep_provider::StoreKey;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{index::ObjectKey, tasks::Tasks};

/// Limits of the pending messages of each store. An SQS queue has up to 120,000 messages in flight,
/// and each costs a few hundred bytes here. A message that is dropped is delivered again.
const CAPACITY: Capacity = Capacity {
    messages: 10_000,
    bytes: 16 << 20,
};

/// Listeners of all stores, and their pending messages.
#[derive(Debug)]
pub struct Events {
    tasks: Tasks,
    pending: Mutex<PendingMessages<StoreKey, ObjectKey>>,
    running: Mutex<HashMap<StoreKey, Listener>>,
    /// Current failures and their reasons.
    failures: Mutex<BTreeMap<(StoreKey, Activity), String>>,
    /// The namespaces whose SyncedSecrets are listed. Until all are listed, it is unknown which
    /// objects a message concerns.
    listed: watch::Sender<BTreeSet<Option<String>>>,
    scopes: usize,
}

/// The two activities of a listener that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Activity {
    Listening,
    Acknowledging,
}

#[derive(Debug)]
struct Listener {
    /// The revision of the store's configuration that it listens with.
    revision: String,
    token: CancellationToken,
    /// Notified when there are messages to acknowledge.
    done: Arc<Notify>,
}

impl Events {
    /// Creates the state without listeners. `scopes` is the number of lists to wait for: one for
    /// each namespace, or one for all.
    pub fn new(tasks: Tasks, scopes: usize) -> Self {
        Self {
            tasks,
            pending: Mutex::new(PendingMessages::new(CAPACITY, |store| store.namespace.as_deref())),
            running: Mutex::default(),
            failures: Mutex::default(),
            listed: watch::Sender::default(),
            scopes,
        }
    }

    /// Records that every SyncedSecret of a namespace, or of all namespaces, is listed.
    pub fn listed(&self, scope: Option<&str>) {
        self.listed
            .send_if_modified(|listed| listed.insert(scope.map(str::to_owned)));
    }

    /// Stops the listeners that are no longer wanted and starts those that are missing. `wanted` is
    /// called under the lock. Otherwise, a caller that evaluated it before a store was deleted
    /// could restart the listener of that store.
    fn follow_wanted(
        &self,
        wanted: impl FnOnce() -> BTreeMap<StoreKey, String>,
        begin: impl Fn(StoreKey, CancellationToken, Arc<Notify>),
    ) {
        let mut running = self.running.lock();
        let wanted = wanted();
        let mut ended = Vec::new();
        running.retain(|store, listener| {
            let keep = wanted.get(store) == Some(&listener.revision);
            if !keep {
                listener.token.cancel();
                ended.push(store.clone());
            }
            keep
        });
        for store in &ended {
            // Its receipts may belong to another queue. Its unacknowledged messages are delivered
            // again.
            self.pending.lock().forget(store);
            self.clear_failures(store);
        }
        for (store, revision) in wanted {
            if running.contains_key(&store) {
                continue;
            }
            let (token, done) = (CancellationToken::new(), Arc::new(Notify::new()));
            running.insert(
                store.clone(),
                Listener {
                    revision,
                    token: token.clone(),
                    done: done.clone(),
                },
            );
            begin(store, token, done);
        }
    }

    /// Stops the listener of a deleted store and drops its pending messages.
    pub fn forget(&self, store: &StoreKey) {
        if let Some(listener) = self.running.lock().remove(store) {
            listener.token.cancel();
        }
        self.pending.lock().forget(store);
        self.clear_failures(store);
    }

    /// Returns what currently fails for a store's events, as a sentence to append to another one.
    pub fn failure(&self, store: &StoreKey) -> Option<String> {
        let failures = self.failures.lock();
        let all: Vec<&str> = [Activity::Listening, Activity::Acknowledging]
            .into_iter()
            .filter_map(|activity| failures.get(&(store.clone(), activity)))
            .map(String::as_str)
            .collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Sets or clears the failure of an activity. Returns whether that changed it.
    fn set_failure(&self, store: &StoreKey, activity: Activity, failure: Option<&str>) -> bool {
        let mut failures = self.failures.lock();
        let key = (store.clone(), activity);
        let before = match failure {
            Some(failure) => failures.insert(key, failure.to_owned()),
            None => failures.remove(&key),
        };
        before.as_deref() != failure
    }

    /// Clears the failures of a store.
    fn clear_failures(&self, store: &StoreKey) {
        for activity in [Activity::Listening, Activity::Acknowledging] {
            self.set_failure(store, activity, None);
        }
    }

    /// Whether a pending message concerns the object.
    pub fn concerns(&self, object: &ObjectKey) -> bool {
        self.pending.lock().concerns(object)
    }

    /// Records that these objects were woken.
    fn wake(&self, objects: &BTreeSet<ObjectKey>) {
        self.pending.lock().wake(objects, Instant::now());
    }

    /// Returns when the object was last woken, or `None` if it settled since.
    pub fn woken_at(&self, object: &ObjectKey) -> Option<Instant> {
        self.pending.lock().woken_at(object)
    }

    /// Records that a sync of the object starts.
    pub fn begin(&self, object: &ObjectKey) {
        self.pending.lock().begin(object);
    }

    /// See [`PendingMessages::version_hints`].
    pub fn version_hints(
        &self,
        object: &ObjectKey,
        now: Timestamp,
        is_read: impl Fn(&StoreKey, &str) -> bool,
    ) -> Vec<(u64, StoreKey, Arc<VersionHint>)> {
        self.pending.lock().version_hints(object, now, is_read)
    }

    /// Records that the version in a message is wrong.
    pub fn refute(&self, message: u64) {
        self.pending.lock().refute(message);
    }

    /// Records that a sync of the object ended. `settled` is true if its result is durable.
    pub fn end(&self, object: &ObjectKey, settled: bool) {
        let stores = {
            let mut pending = self.pending.lock();
            pending.end(object, settled);
            pending.stores_with_receipts()
        };
        self.notify(&stores);
    }

    /// Drops the object from all messages.
    pub fn settle(&self, object: &ObjectKey) {
        let stores = {
            let mut pending = self.pending.lock();
            pending.settle(object);
            pending.stores_with_receipts()
        };
        self.notify(&stores);
    }

    fn notify(&self, stores: &[StoreKey]) {
        if stores.is_empty() {
            return;
        }
        let running = self.running.lock();
        for listener in stores.iter().filter_map(|store| running.get(store)) {
            listener.done.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use lockstep_api::StoreKind;

    use super::*;

    fn store(name: &str) -> StoreKey {
        StoreKey {
            kind: StoreKind::SecretStore,
            namespace: Some("shop".into()),
            name: name.into(),
        }
    }

    /// Returns the listeners that are started for these stores and revisions, and checks that no
    /// other call runs meanwhile.
    fn follow(events: &Events, wanted: &[(&str, &str)]) -> Vec<(StoreKey, CancellationToken)> {
        let begun = Mutex::new(Vec::new());
        events.follow_wanted(
            || {
                assert!(events.running.try_lock().is_none(), "asked for without the lock");
                let wanted = wanted.iter();
                wanted
                    .map(|(name, revision)| (store(name), (*revision).to_owned()))
                    .collect()
            },
            |store, token, _| begun.lock().push((store, token)),
        );
        begun.into_inner()
    }

    #[tokio::test]
    async fn messages_of_all_stores_of_a_tenant_share_one_bound() {
        let events = Events::new(Tasks::new(CancellationToken::new()), 1);
        let mut pending = events.pending.lock();
        let bank = StoreKey {
            namespace: Some("bank".into()),
            ..store("a")
        };
        let object = |name: &str| ObjectKey {
            namespace: "shop".into(),
            name: name.into(),
        };
        let receipt = "r".repeat(lockstep_provider::LONGEST_RECEIPT);
        pending.add(&bank, "first", &receipt, None, BTreeSet::from([object("bank")]));
        for message in 0..20 * 500 {
            let (store, id) = (store(&(message % 20).to_string()), message.to_string());
            pending.add(&store, &id, &receipt, None, BTreeSet::from([object("shop")]));
        }
        assert!(
            pending.len() * receipt.len() <= CAPACITY.bytes,
            "{}",
            pending.len()
        );
        pending.begin(&object("bank"));
        pending.end(&object("bank"), true);
        let kept = pending.take_receipts(&bank, 10);
        assert_eq!(kept, [receipt], "another namespace lost nothing");
    }

    #[tokio::test]
    async fn what_is_wanted_is_asked_for_under_the_lock_and_only_what_changed_begins_or_ends() {
        let events = Events::new(Tasks::new(CancellationToken::new()), 1);
        let first = follow(&events, &[("a", "1"), ("b", "1")]);
        assert_eq!(first.len(), 2);
        assert!(follow(&events, &[("a", "1"), ("b", "1")]).is_empty());
        let second = follow(&events, &[("a", "2"), ("b", "1")]);
        assert_eq!(second.len(), 1);
        assert_eq!(second[0].0, store("a"));
        assert!(first[0].1.is_cancelled() && !first[1].1.is_cancelled() && !second[0].1.is_cancelled());
        assert!(follow(&events, &[]).is_empty());
        assert!(first[1].1.is_cancelled() && second[0].1.is_cancelled());
        assert!(events.running.lock().is_empty());
    }
}
