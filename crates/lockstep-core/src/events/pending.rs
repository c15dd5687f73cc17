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
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    hash::Hash,
    sync::Arc,
    time::Instant,
};

use jiff::Timestamp;
use lockstep_api::Reason;

use super::version_hint::VersionHint;
use crate::{Failure, remote::Requeue};

/// Whether a failed sync settles a message: when another sync would fail in the same way until a
/// change wakes the object. A value that could not be read or written does not settle it.
pub fn settles(failure: &Failure) -> bool {
    let unwritten = matches!(
        failure.reason,
        Reason::WriteFailed
            | Reason::TargetForeign
            | Reason::TargetNotFound
            | Reason::MergeForbidden
            | Reason::TooLarge
    );
    !unwritten && matches!(failure.requeue, Requeue::OnChange | Requeue::RefreshInterval)
}

/// Bounds for the messages and receipts that are kept.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// Maximum number of messages of each store.
    pub messages: usize,
    /// Approximate maximum size of the messages and receipts of all stores together: their texts,
    /// [`MESSAGE_BYTES`] for each, and [`OBJECT_BYTES`] for each object they wait for.
    pub bytes: usize,
}

/// Approximate size of a message without its texts and objects.
pub const MESSAGE_BYTES: usize = 512;
/// Approximate size of the record that a message waits for an object.
pub const OBJECT_BYTES: usize = 128;
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

/// The capacity that a store uses.
#[derive(Debug, Default)]
struct Usage {
    /// Its messages, the oldest first.
    numbers: BTreeSet<u64>,
    /// Its receipts to acknowledge, the oldest first.
    receipts: VecDeque<String>,
    /// The size of both.
    bytes: usize,
}

impl Usage {
    fn push_receipt(&mut self, receipt: String) {
        self.bytes += receipt_size(&receipt);
        self.receipts.push_back(receipt);
    }

    fn pop_receipt(&mut self) -> Option<String> {
        let receipt = self.receipts.pop_front()?;
        self.bytes = self.bytes.saturating_sub(receipt_size(&receipt));
        Some(receipt)
    }
}

fn receipt_size(receipt: &str) -> usize {
    size_of::<String>() + receipt.len()
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
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::remote::{ErrorKind, Operation, ProviderError};

    #[test]
    fn unread_or_unwritten_value_does_not_settle_a_message() {
        let provider = |kind| Failure::provider("", &ProviderError::new(kind, Operation::Read, "no"));
        for kind in [
            ErrorKind::Unavailable,
            ErrorKind::Timeout,
            ErrorKind::RateLimited,
            ErrorKind::Internal,
        ] {
            assert!(!settles(&provider(kind)), "{kind:?}");
        }
        for kind in [
            ErrorKind::NotFound,
            ErrorKind::PermissionDenied,
            ErrorKind::Malformed,
        ] {
            assert_eq!(
                settles(&provider(kind)),
                matches!(kind.requeue(), Requeue::OnChange | Requeue::RefreshInterval),
                "{kind:?}"
            );
        }
        assert!(settles(&provider(ErrorKind::NotFound)));
        for reason in [Reason::WriteFailed, Reason::TargetForeign, Reason::TargetNotFound] {
            assert!(!settles(&Failure::new(reason, "no")), "{reason}");
        }
        assert!(settles(&Failure::new(Reason::AccessDenied, "no")));
        assert!(settles(&Failure::new(Reason::TemplateFailed, "no")));
    }

    const CAPACITY: Capacity = Capacity {
        messages: 10,
        bytes: 100_000,
    };

    /// Returns the namespace of a store: its name up to a slash.
    fn namespace<'a>(store: &'a &'static str) -> Option<&'a str> {
        store.split('/').next()
    }

    type Plain = PendingMessages<&'static str, &'static str>;

    fn pending() -> Plain {
        PendingMessages::new(CAPACITY, namespace)
    }

    fn set<const N: usize>(objects: [&'static str; N]) -> BTreeSet<&'static str> {
        BTreeSet::from(objects)
    }

    fn take_in<const N: usize>(pending: &mut Plain, id: &str, objects: [&'static str; N]) {
        let woken = pending.add(&"aws", id, &format!("receipt of {id}"), None, set(objects));
        assert_eq!(woken, set(objects));
    }

    #[test]
    fn message_that_concerns_no_object_is_acknowledged_at_once() {
        let mut pending = pending();
        take_in(&mut pending, "1", []);
        assert_eq!(pending.take_receipts(&"aws", 10), ["receipt of 1"]);
        assert!(pending.take_receipts(&"aws", 10).is_empty() && pending.is_empty());
    }

    #[test]
    fn message_is_acknowledged_when_its_last_object_settles() {
        let mut pending = pending();
        take_in(&mut pending, "1", ["a", "b"]);
        pending.begin(&"a");
        pending.end(&"a", true);
        assert!(pending.take_receipts(&"aws", 10).is_empty());
        pending.begin(&"b");
        pending.end(&"b", false);
        assert!(pending.take_receipts(&"aws", 10).is_empty(), "the write failed");
        pending.begin(&"b");
        pending.end(&"b", true);
        assert_eq!(pending.take_receipts(&"aws", 10), ["receipt of 1"]);
    }

    #[test]
    fn sync_that_began_before_the_message_does_not_settle_it() {
        let mut pending = pending();
        pending.begin(&"a");
        take_in(&mut pending, "1", ["a"]);
        pending.end(&"a", true);
        assert!(pending.take_receipts(&"aws", 10).is_empty());
    }

    #[test]
    fn repeated_message_wakes_no_object_and_replaces_its_receipt() {
        let mut pending = pending();
        take_in(&mut pending, "1", ["a"]);
        assert_eq!(
            pending.add(&"aws", "1", "another", None, set(["a"])),
            BTreeSet::new()
        );
        assert_eq!(
            pending.add(&"gcp", "1", "of another store", None, set(["a"])),
            set(["a"])
        );
        pending.begin(&"a");
        pending.end(&"a", true);
        assert_eq!(pending.take_receipts(&"aws", 10), ["another"]);
        assert_eq!(pending.take_receipts(&"gcp", 10), ["of another store"]);
    }

    #[test]
    fn oldest_message_of_a_full_store_is_forgotten() {
        let capacity = Capacity {
            messages: 2,
            ..CAPACITY
        };
        let mut pending = Plain::new(capacity, namespace);
        pending.add(&"gcp", "0", "of another store", None, set(["a"]));
        for id in ["1", "2", "3"] {
            take_in(&mut pending, id, ["a"]);
        }
        assert_eq!(pending.len(), 3);
        pending.begin(&"a");
        pending.end(&"a", true);
        assert_eq!(
            pending.take_receipts(&"aws", 10),
            ["receipt of 2", "receipt of 3"]
        );
        assert_eq!(pending.take_receipts(&"gcp", 10), ["of another store"]);
    }

    #[test]
    fn size_is_bounded_and_the_newest_message_is_kept() {
        let capacity = Capacity {
            bytes: 2 * MESSAGE_BYTES + 4 * OBJECT_BYTES,
            ..CAPACITY
        };
        let mut pending = Plain::new(capacity, namespace);
        take_in(&mut pending, "1", ["a"]);
        take_in(&mut pending, "2", ["a", "b"]);
        assert_eq!(pending.len(), 2);
        take_in(&mut pending, "3", ["a", "b"]);
        assert_eq!(pending.len(), 1, "both of the older ones went");
        take_in(&mut pending, "4", ["a", "b", "c", "d", "e"]);
        assert_eq!(pending.len(), 1, "larger than everything, and the only one");
        pending.add(&"aws", "4", &"x".repeat(20 * OBJECT_BYTES), None, set(["a"]));
        take_in(&mut pending, "5", ["a"]);
        assert_eq!(
            pending.len(),
            1,
            "a receipt that was replaced counts as it is now"
        );
        assert!(pending.by_id.contains_key(&("aws", "5".into())));
    }

    #[test]
    fn receipts_are_taken_oldest_first_up_to_the_limit() {
        let mut pending = pending();
        for id in ["1", "2", "3"] {
            take_in(&mut pending, id, []);
        }
        assert_eq!(pending.count_receipts(&"aws"), 3);
        assert_eq!(pending.take_receipts(&"aws", 2), ["receipt of 1", "receipt of 2"]);
        assert_eq!(pending.stores_with_receipts(), ["aws"], "there is more");
        assert_eq!(pending.take_receipts(&"aws", 2), ["receipt of 3"]);
        assert!(pending.stores_with_receipts().is_empty() && pending.count_receipts(&"aws") == 0);
    }

    #[derive(Debug, Clone)]
    enum Step {
        TakeIn {
            store: usize,
            id: u8,
            objects: BTreeSet<&'static str>,
            receipt: usize,
        },
        Begin(usize),
        End(usize, bool),
        Settle(usize),
        Acknowledge(usize),
        Forget(usize),
    }

    const OBJECTS: [&str; 3] = ["a", "b", "c"];
    const STORES: [&str; 3] = ["shop/aws", "shop/gcp", "bank/aws"];

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let object = 0..OBJECTS.len();
        let take_in = (
            0..STORES.len(),
            0..30_u8,
            prop::collection::btree_set(prop::sample::select(&OBJECTS[..]), 0..=3),
            0..400_usize,
        );
        let take_in = take_in.prop_map(|(store, id, objects, receipt)| Step::TakeIn {
            store,
            id,
            objects,
            receipt,
        });
        let step = prop_oneof![
            8 => take_in,
            2 => object.clone().prop_map(Step::Begin),
            2 => (object.clone(), any::<bool>()).prop_map(|(object, settled)| Step::End(object, settled)),
            1 => object.prop_map(Step::Settle),
            1 => (0..STORES.len()).prop_map(Step::Acknowledge),
            1 => (0..STORES.len()).prop_map(Step::Forget),
        ];
        prop::collection::vec(step, 0..80)
    }

    proptest! {
        #[test]
        fn capacity_holds_and_no_namespace_takes_the_share_of_another(steps in steps()) {
            let capacity = Capacity { messages: 5, bytes: 6_000 };
            let mut pending = Plain::new(capacity, namespace);
            let used = |pending: &Plain, name: &str| -> (usize, usize) {
                let stores = pending.by_store.iter().filter(|(store, _)| namespace(store) == Some(name));
                let usages = stores.map(|(_, usage)| (usage.numbers.len() + usage.receipts.len(), usage.bytes));
                usages.fold((0, 0), |(count, bytes), (more, size)| (count + more, bytes + size))
            };
            for step in steps {
                let before = ["shop", "bank"].map(|name| (name, used(&pending, name)));
                let taken_in = match &step {
                    Step::TakeIn { store, .. } => namespace(&STORES[*store]),
                    _ => None,
                };
                match step {
                    Step::TakeIn { store, id, objects, receipt } => {
                        pending.add(&STORES[store], &id.to_string(), &"r".repeat(receipt), None, objects);
                    }
                    Step::Begin(object) => pending.begin(&OBJECTS[object]),
                    Step::End(object, settled) => pending.end(&OBJECTS[object], settled),
                    Step::Settle(object) => pending.settle(&OBJECTS[object]),
                    Step::Acknowledge(store) => drop(pending.take_receipts(&STORES[store], 3)),
                    Step::Forget(store) => pending.forget(&STORES[store]),
                }
                for store in STORES {
                    let of_store = || pending.messages.values().filter(|message| message.store == store);
                    let (count, bytes) = (of_store().count(), of_store().map(Message::size).sum::<usize>());
                    prop_assert!(count <= capacity.messages);
                    if let Some(usage) = pending.by_store.get(store) {
                        let receipts: usize = usage.receipts.iter().map(|receipt| receipt_size(receipt)).sum();
                        prop_assert_eq!((usage.numbers.len(), usage.bytes), (count, bytes + receipts));
                    } else {
                        prop_assert_eq!(count, 0);
                    }
                }
                let all: usize = pending.by_store.values().map(|usage| usage.bytes).sum();
                prop_assert!(all <= capacity.bytes);
                for (name, (count, bytes)) in before {
                    if taken_in.is_some_and(|taken_in| taken_in != name) && bytes <= capacity.bytes / 2 {
                        prop_assert_eq!(used(&pending, name), (count, bytes));
                    }
                }
                prop_assert_eq!(pending.by_id.len(), pending.messages.len());
                let linked: usize = pending.by_object.values().map(BTreeSet::len).sum();
                let waiting: usize = pending.messages.values().map(|message| message.waits_for.len()).sum();
                prop_assert_eq!(linked, waiting);
            }
        }
    }

    #[test]
    fn refuted_version_is_dropped_and_its_message_stays_pending() {
        let mut pending = pending();
        let at: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let hint = |version: &str| VersionHint {
            keys: vec!["key".to_owned()],
            version: version.to_owned(),
            read_version: version.to_owned(),
            at: Some(at),
        };
        for id in ["1", "2"] {
            pending.add(&"aws", id, id, Some(hint(id)), set(["a", "b"]));
        }
        let hints = |pending: &Plain, object| {
            pending.version_hints(&object, at, |store, key| (*store, key) == ("aws", "key"))
        };
        let all = hints(&pending, "a");
        let versions: Vec<&str> = all.iter().map(|(.., hint)| hint.version.as_str()).collect();
        assert_eq!(versions, ["2", "1"]);
        pending.refute(all[1].0);
        for object in ["a", "b"] {
            assert_eq!(hints(&pending, object), [all[0].clone()], "for nobody");
        }
        assert_eq!(pending.len(), 2);
        for object in ["a", "b"] {
            pending.begin(&object);
            pending.end(&object, true);
        }
        assert_eq!(pending.take_receipts(&"aws", 10), ["1", "2"]);
    }

    #[test]
    fn hints_are_shared_and_only_the_newest_of_each_value_read() {
        let capacity = Capacity {
            messages: 1_000,
            bytes: usize::MAX,
        };
        let mut pending = Plain::new(capacity, namespace);
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let hint = |number: i64, seconds| VersionHint {
            keys: vec!["key".to_owned(), format!("other {number}")],
            version: number.to_string(),
            read_version: "t".repeat(2_048),
            at: Some(now + Duration::from_secs(seconds)),
        };
        // messages of another day leave no true message out
        for number in 0..300 {
            let seconds = match number % 3 {
                0 => u64::try_from(number).unwrap(),
                _ => 86_400,
            };
            let id = number.to_string();
            pending.add(&"aws", &id, &id, Some(hint(number, seconds)), set(["a", "b"]));
        }
        let hints =
            |object| pending.version_hints(&object, now, |store, key| (*store, key) == ("aws", "key"));
        let first = hints("a");
        let versions: Vec<&str> = first.iter().map(|(.., hint)| &*hint.version).collect();
        assert_eq!(versions, ["297", "294", "291", "288", "285"]);
        assert_eq!(versions.len(), MAX_CONFIRMED + 1);
        for ((.., one), (.., other)) in first.iter().zip(&hints("b")) {
            assert!(Arc::ptr_eq(one, other));
        }
        assert!(pending.version_hints(&"a", now, |_, _| false).is_empty());
    }

    #[test]
    fn wake_time_is_known_until_a_later_sync_settles() {
        let mut pending = pending();
        let first = Instant::now();
        let second = first + Duration::from_secs(1);
        assert_eq!(pending.woken_at(&"a"), None);
        pending.begin(&"a");
        pending.wake(&set(["a", "b"]), first);
        pending.end(&"a", true);
        assert_eq!(pending.woken_at(&"a"), Some(first), "that sync began before");
        pending.begin(&"a");
        pending.end(&"a", false);
        assert_eq!(pending.woken_at(&"a"), Some(first), "it is tried again");
        pending.begin(&"a");
        pending.wake(&set(["a"]), second);
        pending.end(&"a", true);
        assert_eq!(pending.woken_at(&"a"), Some(second), "it was woken meanwhile");
        pending.begin(&"a");
        pending.end(&"a", true);
        assert_eq!(pending.woken_at(&"a"), None);
        pending.settle(&"b");
        assert!(pending.woken.is_empty());
    }

    #[test]
    fn deleted_objects_and_stores_hold_no_message() {
        let mut pending = pending();
        take_in(&mut pending, "1", ["a"]);
        pending.settle(&"a");
        assert_eq!(pending.stores_with_receipts(), ["aws"]);
        take_in(&mut pending, "2", ["a"]);
        pending.forget(&"aws");
        assert!(pending.is_empty() && pending.take_receipts(&"aws", 10).is_empty());
        assert!(pending.by_object.is_empty() && pending.by_id.is_empty());
    }
}
