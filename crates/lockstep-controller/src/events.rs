//! What stores tell of changes: one task for each store that has events listens, wakes who is concerned, and acknowledges
//! what has been dealt with. What is told is a hint; whether anything changed, the next read finds out.

pub(crate) mod listen;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use jiff::Timestamp;
use lockstep_core::events::{Capacity, PendingMessages, VersionHint};
use lockstep_provider::StoreKey;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{index::ObjectKey, tasks::Tasks};

/// Bounds for pending messages. A queue of SQS has up to 120,000 in flight; those that are forgotten
/// here are delivered again.
const CAPACITY: Capacity = Capacity {
    messages: 10_000,
    bytes: 16 << 20,
};

/// What stores tell of changes.
#[derive(Debug)]
pub struct Events {
    tasks: Tasks,
    pending: Mutex<PendingMessages<StoreKey, ObjectKey>>,
    running: Mutex<HashMap<StoreKey, Listener>>,
    /// What does not work at the moment, and why.
    troubles: Mutex<BTreeMap<(StoreKey, Doing), String>>,
    /// The namespaces whose SyncedSecrets are not listed yet: until all are, nobody knows whom a message concerns.
    listed: watch::Sender<BTreeSet<Option<String>>>,
    scopes: usize,
}

/// What a listener does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Doing {
    Hearing,
    Acknowledging,
}

#[derive(Debug)]
struct Listener {
    /// The state of the store that it listens with.
    revision: String,
    token: CancellationToken,
    /// Something is to be acknowledged.
    done: Arc<Notify>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Events {
    /// Nobody listens yet; so many namespaces, or all as one, are to be listed first.
    pub fn new(tasks: Tasks, scopes: usize) -> Self {
        Self {
            tasks,
            pending: Mutex::new(PendingMessages::new(CAPACITY, |store| store.namespace.as_deref())),
            running: Mutex::default(),
            troubles: Mutex::default(),
            listed: watch::Sender::default(),
            scopes,
        }
    }

    /// Every SyncedSecret of a namespace, or of all, is known.
    pub fn listed(&self, scope: Option<&str>) {
        self.listed
            .send_if_modified(|listed| listed.insert(scope.map(str::to_owned)));
    }

    /// Ends the listeners that are not wanted, and begins those that are missing. What is wanted is asked for under the lock:
    /// whoever asked before a store was deleted and came to it after would begin anew what was ended.
    fn follow_wanted(
        &self,
        wanted: impl FnOnce() -> BTreeMap<StoreKey, String>,
        begin: impl Fn(StoreKey, CancellationToken, Arc<Notify>),
    ) {
        let mut running = lock(&self.running);
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
            // its receipts may be of another queue: what they stood for is given out again
            lock(&self.pending).forget(store);
            self.forget_troubles(store);
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

    /// Ends the listener of a deleted store and forgets what the store reported.
    pub fn forget(&self, store: &StoreKey) {
        if let Some(listener) = lock(&self.running).remove(store) {
            listener.token.cancel();
        }
        lock(&self.pending).forget(store);
        self.forget_troubles(store);
    }

    /// What does not work at the moment with a store's events, as a sentence that goes on after another one.
    pub fn trouble(&self, store: &StoreKey) -> Option<String> {
        let troubles = lock(&self.troubles);
        let all: Vec<&str> = [Doing::Hearing, Doing::Acknowledging]
            .into_iter()
            .filter_map(|doing| troubles.get(&(store.clone(), doing)))
            .map(String::as_str)
            .collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Notes why something does not work, or that it does; answers whether that is new.
    fn set_trouble(&self, store: &StoreKey, doing: Doing, trouble: Option<&str>) -> bool {
        let mut troubles = lock(&self.troubles);
        let key = (store.clone(), doing);
        let before = match trouble {
            Some(trouble) => troubles.insert(key, trouble.to_owned()),
            None => troubles.remove(&key),
        };
        before.as_deref() != trouble
    }

    /// Forgets what does not work.
    fn forget_troubles(&self, store: &StoreKey) {
        for doing in [Doing::Hearing, Doing::Acknowledging] {
            self.set_trouble(store, doing, None);
        }
    }

    /// Whether a message concerns the object.
    pub fn concern(&self, object: &ObjectKey) -> bool {
        lock(&self.pending).concerns(object)
    }

    /// These objects are woken.
    fn wake(&self, objects: &BTreeSet<ObjectKey>) {
        lock(&self.pending).wake(objects, Instant::now());
    }

    /// When the object was woken the last time, until it has settled since.
    pub fn woken_at(&self, object: &ObjectKey) -> Option<Instant> {
        lock(&self.pending).woken_at(object)
    }

    /// A sync of the object begins.
    pub fn begin(&self, object: &ObjectKey) {
        lock(&self.pending).begin(object);
    }

    /// See [`PendingMessages::version_hints`].
    pub fn version_hints(
        &self,
        object: &ObjectKey,
        now: Timestamp,
        is_read: impl Fn(&StoreKey, &str) -> bool,
    ) -> Vec<(u64, StoreKey, Arc<VersionHint>)> {
        lock(&self.pending).version_hints(object, now, is_read)
    }

    /// What a message says of a version did not hold.
    pub fn refute(&self, message: u64) {
        lock(&self.pending).refute(message);
    }

    /// A sync of the object ended, and what it found is durable or not.
    pub fn end(&self, object: &ObjectKey, settled: bool) {
        let stores = {
            let mut pending = lock(&self.pending);
            pending.end(object, settled);
            pending.stores_with_receipts()
        };
        self.notify(&stores);
    }

    /// No message concerns the object any more.
    pub fn settle(&self, object: &ObjectKey) {
        let stores = {
            let mut pending = lock(&self.pending);
            pending.settle(object);
            pending.stores_with_receipts()
        };
        self.notify(&stores);
    }

    fn notify(&self, stores: &[StoreKey]) {
        if stores.is_empty() {
            return;
        }
        let running = lock(&self.running);
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

    /// What was begun for these stores, each of that revision; what is wanted is asked for while nobody else can begin or end
    /// anything.
    fn follow(events: &Events, wanted: &[(&str, &str)]) -> Vec<(StoreKey, CancellationToken)> {
        let begun = Mutex::new(Vec::new());
        events.follow_wanted(
            || {
                assert!(events.running.try_lock().is_err(), "asked for without the lock");
                let wanted = wanted.iter();
                wanted
                    .map(|(name, revision)| (store(name), (*revision).to_owned()))
                    .collect()
            },
            |store, token, _| lock(&begun).push((store, token)),
        );
        begun.into_inner().unwrap()
    }

    #[tokio::test]
    async fn messages_of_all_stores_of_a_tenant_share_one_bound() {
        let events = Events::new(Tasks::new(CancellationToken::new()), 1);
        let mut pending = lock(&events.pending);
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
        assert!(lock(&events.running).is_empty());
    }
}
