//! Messages of queues that are not yet acknowledged.
//!
//! A message is acknowledged only when every object that it woke has completed a sync that began
//! after the message was received:
//!
//! ```text
//!                    wakes nobody
//!   ┌──────────┐ ─────────────────────────────────────────────────┐
//!   │ received │                                                  ▼
//!   └──────────┘      a sync begins     the last sync settles  ┌──────────────┐
//!        │ wakes   ┌───────┐ ────▶ ┌───────┐ ────────────────▶ │ acknowledged │
//!        └───────▶ │ waits │       │ begun │                   └──────────────┘
//!                  └───────┘ ◀──── └───────┘
//!                        it does not settle
//! ```
//!
//! When a message is forgotten (at a restart, or beyond the capacity), its receipt is lost, so the
//! queue delivers the message again. A message that is delivered again while it is pending wakes
//! nobody.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    sync::Arc,
    time::Instant,
};

use jiff::Timestamp;

use super::{
    capacity::{Capacity, MESSAGE_BYTES, OBJECT_BYTES, Usage},
    version_hint::VersionHint,
};

/// Maximum number of messages that are confirmed for one value in one sync.
pub const MAX_CONFIRMED: usize = 4;

/// Messages that are not yet acknowledged. `S` names a store, `K` an object.
#[derive(Debug)]
pub struct PendingMessages<S, K> {
    messages: BTreeMap<u64, Message<S, K>>,
    by_id: HashMap<(S, Arc<str>), u64>,
    by_object: HashMap<K, BTreeSet<u64>>,
    by_store: HashMap<S, Usage>,
    /// The objects that were woken and have not settled since.
    woken: HashMap<K, Woken>,
    next: u64,
    capacity: Capacity,
    /// Returns the namespace of a store that belongs to one.
    namespace: fn(&S) -> Option<&str>,
}

/// An object that was woken.
#[derive(Debug)]
struct Woken {
    /// The time of the last wake.
    at: Instant,
    /// Whether a sync that began after it is running.
    begun: bool,
}

#[derive(Debug)]
struct Message<S, K> {
    store: S,
    id: Arc<str>,
    receipt: String,
    hint: Option<Arc<VersionHint>>,
    /// The objects that have not settled, and whether a sync that began after it is running.
    waits_for: BTreeMap<K, bool>,
    /// Its size without the receipt, which may be replaced.
    bytes: usize,
}

impl<S, K> Message<S, K> {
    fn size(&self) -> usize {
        self.bytes + self.receipt.len()
    }
}

impl<S: Clone + Eq + Hash, K: Clone + Ord + Hash> PendingMessages<S, K> {
    /// Creates an empty set. Messages beyond the capacity are forgotten, the oldest first, and their
    /// queues deliver them again. The last message is always kept. If all stores together exceed
    /// the capacity, the namespace that uses most of it loses a message. So no namespace can take
    /// the share of another. A store without a namespace counts as one.
    pub fn new(capacity: Capacity, namespace: fn(&S) -> Option<&str>) -> Self {
        Self {
            messages: BTreeMap::new(),
            by_id: HashMap::new(),
            by_object: HashMap::new(),
            by_store: HashMap::new(),
            woken: HashMap::new(),
            next: 0,
            capacity,
            namespace,
        }
    }

    /// Adds a message that concerns these objects, and returns which of them to wake.
    pub fn add(
        &mut self,
        store: &S,
        id: &str,
        receipt: &str,
        hint: Option<VersionHint>,
        objects: BTreeSet<K>,
    ) -> BTreeSet<K> {
        let id: Arc<str> = id.into();
        if let Some(message) = self
            .by_id
            .get(&(store.clone(), Arc::clone(&id)))
            .and_then(|number| self.messages.get_mut(number))
        {
            // only the newest receipt is valid
            if let Some(usage) = self.by_store.get_mut(store) {
                usage.bytes = usage.bytes.saturating_sub(message.receipt.len()) + receipt.len();
            }
            receipt.clone_into(&mut message.receipt);
            self.make_room(store);
            return BTreeSet::new();
        }
        if objects.is_empty() {
            self.acknowledge(store.clone(), receipt.to_owned());
            self.make_room(store);
            return objects;
        }
        let number = self.next;
        self.next += 1;
        for object in &objects {
            self.by_object.entry(object.clone()).or_default().insert(number);
        }
        self.by_id.insert((store.clone(), Arc::clone(&id)), number);
        let texts = id.len() + hint.as_ref().map_or(0, VersionHint::size);
        let message = Message {
            store: store.clone(),
            id,
            receipt: receipt.to_owned(),
            bytes: MESSAGE_BYTES + texts + objects.len() * OBJECT_BYTES,
            hint: hint.map(Arc::new),
            waits_for: objects.iter().map(|object| (object.clone(), false)).collect(),
        };
        let usage = self.by_store.entry(store.clone()).or_default();
        usage.numbers.insert(number);
        usage.bytes += message.size();
        self.messages.insert(number, message);
        self.make_room(store);
        objects
    }

    /// Forgets messages beyond the capacity after a message of this store was added.
    fn make_room(&mut self, store: &S) {
        let most = self.capacity.messages.max(1);
        while (self.by_store.get(store)).is_some_and(|usage| usage.numbers.len() > most) {
            self.forget_oldest(store);
        }
        while self.by_store.values().map(|usage| usage.bytes).sum::<usize>() > self.capacity.bytes
            && let Some(largest) = self.largest()
            && self.forget_oldest(&largest)
        {}
    }

    /// Returns the largest store of the namespace that uses most of the capacity.
    fn largest(&self) -> Option<S> {
        let owner = |store| {
            let namespace = (self.namespace)(store);
            (namespace, namespace.is_none().then_some(store))
        };
        let mut bytes: HashMap<_, usize> = HashMap::new();
        for (store, usage) in &self.by_store {
            *bytes.entry(owner(store)).or_default() += usage.bytes;
        }
        let stores = self.by_store.iter();
        let largest = stores.max_by_key(|(store, usage)| (bytes.get(&owner(store)), usage.bytes))?;
        Some(largest.0.clone())
    }

    /// Forgets the oldest message of a store or, if it has none or the last one of all stores, its
    /// oldest receipt. Returns whether it forgot one.
    fn forget_oldest(&mut self, store: &S) -> bool {
        let Some(usage) = self.by_store.get_mut(store) else {
            return false;
        };
        match usage.numbers.first().copied().filter(|_| self.messages.len() > 1) {
            Some(oldest) => self.remove(oldest).is_some(),
            None => usage.pop_receipt().is_some(),
        }
    }

    /// Records that these objects are woken now. Their sources may have changed until now.
    pub fn wake(&mut self, objects: &BTreeSet<K>, now: Instant) {
        for object in objects {
            let woken = Woken {
                at: now,
                begun: false,
            };
            self.woken.insert(object.clone(), woken);
        }
    }

    /// Returns when the object was last woken, until it settles. Responses to earlier requests may
    /// be older than the change that woke it.
    pub fn woken_at(&self, object: &K) -> Option<Instant> {
        self.woken.get(object).map(|woken| woken.at)
    }

    /// Records that a sync of the object begins. It covers every message that is pending now.
    pub fn begin(&mut self, object: &K) {
        if let Some(woken) = self.woken.get_mut(object) {
            woken.begun = true;
        }
        for number in self.by_object.get(object).into_iter().flatten() {
            let message = self.messages.get_mut(number);
            if let Some(begun) = message.and_then(|message| message.waits_for.get_mut(object)) {
                *begun = true;
            }
        }
    }

    /// Whether a pending message concerns the object.
    pub fn concerns(&self, object: &K) -> bool {
        self.by_object.contains_key(object)
    }

    /// Returns the versions of values that the object read, as recent messages name them, with the
    /// number of the message, the newest first. For each value these are at most one more than a
    /// sync confirms, so the sync knows that messages are left.
    pub fn version_hints(
        &self,
        object: &K,
        now: Timestamp,
        is_read: impl Fn(&S, &str) -> bool,
    ) -> Vec<(u64, S, Arc<VersionHint>)> {
        let numbers = self.by_object.get(object).into_iter().flatten();
        let messages = numbers.filter_map(|number| Some((*number, self.messages.get(number)?)));
        let hints =
            messages.filter_map(|(number, message)| Some((number, &message.store, message.hint.as_ref()?)));
        let mut hints: Vec<_> = hints.filter(|(.., hint)| hint.is_recent(now)).collect();
        hints.sort_by_key(|(number, _, hint)| Reverse((hint.at, *number)));
        let mut counts: HashMap<(&S, &str), usize> = HashMap::new();
        hints.retain(|(_, store, hint)| {
            let keys: BTreeSet<&str> = hint.keys.iter().map(String::as_str).collect();
            keys.into_iter()
                .filter(|key| is_read(store, key))
                .fold(false, |kept, key| {
                    let count = counts.entry((store, key)).or_default();
                    *count += 1;
                    kept || *count <= MAX_CONFIRMED + 1
                })
        });
        let shared = hints.into_iter();
        shared
            .map(|(number, store, hint)| (number, store.clone(), Arc::clone(hint)))
            .collect()
    }

    /// Records that the version of a message does not exist, so that it is not read again.
    pub fn refute(&mut self, number: u64) {
        if let Some(message) = self.messages.get_mut(&number) {
            message.hint = None;
        }
    }

    /// Records that a sync of the object ended. It settled if its result is durable: written,
    /// unchanged, or pending in the status. Otherwise the messages wait for the next sync.
    pub fn end(&mut self, object: &K, settled: bool) {
        if settled && self.woken.get(object).is_some_and(|woken| woken.begun) {
            self.woken.remove(object);
        }
        let numbers = self.by_object.get(object).cloned().unwrap_or_default();
        for number in numbers {
            let Some(message) = self.messages.get_mut(&number) else {
                continue;
            };
            let Some(begun) = message.waits_for.get_mut(object) else {
                continue;
            };
            if !*begun {
                continue;
            }
            *begun = false;
            if settled {
                self.settle_one(number, object);
            }
        }
    }

    /// Records that the object needs no pending message, because it is deleted or ignores events.
    pub fn settle(&mut self, object: &K) {
        self.woken.remove(object);
        for number in self.by_object.get(object).cloned().unwrap_or_default() {
            self.settle_one(number, object);
        }
    }

    /// Forgets the messages of a store whose receipts are no longer valid, because its queue or its
    /// identity changed.
    pub fn forget(&mut self, store: &S) {
        let numbers = self.by_store.get(store).map(|usage| usage.numbers.clone());
        for number in numbers.unwrap_or_default() {
            self.remove(number);
        }
        self.by_store.remove(store);
    }

    /// Removes and returns up to `limit` receipts to acknowledge, the oldest first.
    pub fn take_receipts(&mut self, store: &S, limit: usize) -> Vec<String> {
        let Some(usage) = self.by_store.get_mut(store) else {
            return Vec::new();
        };
        let taken = std::iter::from_fn(|| usage.pop_receipt()).take(limit).collect();
        self.drop_unused(store);
        taken
    }

    fn drop_unused(&mut self, store: &S) {
        let unused = |usage: &Usage| usage.numbers.is_empty() && usage.receipts.is_empty();
        if self.by_store.get(store).is_some_and(unused) {
            self.by_store.remove(store);
        }
    }

    /// Returns the number of receipts to acknowledge.
    pub fn count_receipts(&self, store: &S) -> usize {
        self.by_store.get(store).map_or(0, |usage| usage.receipts.len())
    }

    /// Returns the stores that have receipts to acknowledge.
    pub fn stores_with_receipts(&self) -> Vec<S> {
        let stores = self.by_store.iter();
        let stores = stores.filter(|(_, usage)| !usage.receipts.is_empty());
        stores.map(|(store, _)| store.clone()).collect()
    }

    /// Returns the number of pending messages.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether no message is pending.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn settle_one(&mut self, number: u64, object: &K) {
        self.unlink(number, object);
        let Some(message) = self.messages.get_mut(&number) else {
            return;
        };
        message.waits_for.remove(object);
        if message.waits_for.is_empty()
            && let Some(message) = self.remove(number)
        {
            self.acknowledge(message.store, message.receipt);
        }
    }

    fn acknowledge(&mut self, store: S, receipt: String) {
        self.by_store.entry(store).or_default().push_receipt(receipt);
    }

    fn unlink(&mut self, number: u64, object: &K) {
        if let Some(numbers) = self.by_object.get_mut(object) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_object.remove(object);
            }
        }
    }

    fn remove(&mut self, number: u64) -> Option<Message<S, K>> {
        let message = self.messages.remove(&number)?;
        self.by_id
            .remove(&(message.store.clone(), Arc::clone(&message.id)));
        for object in message.waits_for.keys() {
            self.unlink(number, object);
        }
        if let Some(usage) = self.by_store.get_mut(&message.store) {
            usage.numbers.remove(&number);
            usage.bytes = usage.bytes.saturating_sub(message.size());
        }
        self.drop_unused(&message.store);
        Some(message)
    }
}

#[cfg(test)]
#[path = "pending_tests.rs"]
mod tests;
