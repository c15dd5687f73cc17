//! Hints that values may have changed, and which of them have been dealt with.
//!
//! A message of a queue is acknowledged, and with that gone for good, only when every object that it woke has been synced
//! by a sync that began after the message was taken in:
//!
//! ```text
//!                    wakes nobody
//!   ┌──────────┐ ─────────────────────────────────────────────────┐
//!   │ taken in │                                                  ▼
//!   └──────────┘      a sync begins      a sync of it settles  ┌──────────────┐
//!        │ wakes   ┌───────┐ ────▶ ┌───────┐ ────────────────▶ │ acknowledged │
//!        └───────▶ │ waits │       │ begun │  of the last one  └──────────────┘
//!                  └───────┘ ◀──── └───────┘
//!                        it does not settle
//! ```
//!
//! Whatever is lost here (a restart, a message too many) is lost together with its receipt: the queue gives the message
//! out again, and it is taken in anew. A message that is given out again while it is known wakes nobody: what it woke
//! before is still at it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use lockstep_api::{Reason, StoreRef, SyncedSecretSpec};

use crate::{
    Failure,
    remote::{ErrorKind, ProviderError, RemoteSecret, Requeue},
    spec,
};

/// How much the clocks of a source and of its events may differ, and what is lost of a time that is told in seconds.
const CLOCKS: Duration = Duration::from_secs(2);

/// How long after a change a source may still answer with what was before it, with much to spare: all are at one within
/// seconds.
const LAGGING: Duration = Duration::from_mins(10);

/// Maximum number of messages that are confirmed for one value in one sync.
pub const MAX_CONFIRMED: usize = 4;

/// What a SyncedSecret reads from a store, as far as a hint can name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wanted {
    /// The value of a key.
    Key(String),
    /// Whatever is found: below a path, or anywhere.
    Found(Option<String>),
}

impl Wanted {
    /// Whether a hint about a value that has these names concerns it. A search may be concerned by what it would not find:
    /// nobody knows the tags of what a hint names.
    pub fn is_concerned(&self, names: &[String]) -> bool {
        match self {
            Self::Key(key) => names.contains(key),
            Self::Found(None) => !names.is_empty(),
            Self::Found(Some(path)) => {
                let path = path.trim_matches('/');
                names
                    .iter()
                    .any(|name| name.trim_start_matches('/').starts_with(path))
            }
        }
    }
}

/// What a spec reads, by store. Ciphertexts are in the spec itself.
pub fn wanted(spec: &SyncedSecretSpec) -> BTreeSet<(StoreRef, Wanted)> {
    let data = spec.data.iter().filter_map(|entry| {
        let reference = entry.remote_ref.as_ref()?;
        let store = spec::store_ref(spec, entry.secret_store_ref.as_ref())?;
        Some((store.clone(), Wanted::Key(reference.key.clone())))
    });
    let data_from = spec.data_from.iter().filter_map(|entry| {
        let store = spec::store_ref(spec, entry.secret_store_ref.as_ref())?;
        let wanted = match (&entry.extract, &entry.find) {
            (Some(extract), _) => Wanted::Key(extract.key.clone()),
            (None, Some(find)) => Wanted::Found(find.path.clone()),
            (None, None) => return None,
        };
        Some((store.clone(), wanted))
    });
    data.chain(data_from).collect()
}

/// What a message says of values that may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Every way in which a reference can name the value.
    pub keys: Vec<String>,
    /// The version that the value has become, as [`RemoteRef::version`](crate::remote::RemoteRef) takes it.
    pub version: String,
    /// The version as the backend tells it of a value that it read.
    pub told: String,
    /// When it became so.
    pub at: Option<Timestamp>,
}

impl Pin {
    /// What it takes to remember it, in bytes, about.
    fn size(&self) -> usize {
        let keys: usize = self.keys.iter().map(|key| size_of::<String>() + key.len()).sum();
        size_of::<Self>() + keys + self.version.len() + self.told.len()
    }

    /// Whether it tells of something that happened a moment ago. A source answers with what it held before for seconds, not
    /// for hours; and a message without a time, or with one of another day, is none of a service's.
    pub fn is_recent(&self, now: Timestamp) -> bool {
        self.at
            .is_some_and(|at| now.duration_since(at).unsigned_abs() <= LAGGING)
    }

    /// Whether what was read as the current value may be older than what the message tells of: a source may answer with
    /// what it held a moment ago.
    pub fn doubts(&self, answer: &Result<RemoteSecret, ProviderError>) -> bool {
        let read = match answer {
            Ok(read) => read,
            Err(error) => return error.kind == ErrorKind::NotFound,
        };
        if read.version.as_ref() == Some(&self.told) {
            return false;
        }
        if let (Some(read), Some(told)) = (number(read.version.as_deref()), number(Some(&self.told))) {
            return read < told;
        }
        let later = |created: Timestamp, at: Timestamp| created > at.saturating_add(CLOCKS).unwrap_or(at);
        !read
            .created
            .zip(self.at)
            .is_some_and(|(created, at)| later(created, at))
    }

    /// Whether the version that the message names is newer than what was read as the current one.
    pub fn prefers(read: &Result<RemoteSecret, ProviderError>, named: &RemoteSecret) -> bool {
        let Ok(read) = read else { return true };
        if let (Some(read), Some(named)) = (number(read.version.as_deref()), number(named.version.as_deref()))
        {
            return named > read;
        }
        read.created
            .zip(named.created)
            .is_some_and(|(read, named)| named > read)
    }
}

/// A version that is a number.
fn number(version: Option<&str>) -> Option<u64> {
    version?.parse().ok()
}

/// Whether a sync that failed so has dealt with a message: where it is the last word on what was read, until something
/// changes that wakes the object by itself, no message brings it further. What was read and could not be written is not dealt
/// with, and neither is what could not be read.
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

/// Bounds for the messages that are remembered.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// Maximum number of messages of each store.
    pub messages: usize,
    /// Approximate maximum size of the messages and receipts of all stores together, in bytes:
    /// their texts, [`PER_MESSAGE`], and [`PER_OBJECT`] for each object that one waits for.
    pub bytes: usize,
}

/// Approximate memory for a message without its texts and objects, in bytes.
pub const PER_MESSAGE: usize = 512;
/// What it takes to remember that a message waits for an object, in bytes, about.
pub const PER_OBJECT: usize = 128;

/// Messages that were taken in and not yet acknowledged. `S` names a store, `K` an object.
#[derive(Debug)]
pub struct Hints<S, K> {
    messages: BTreeMap<u64, Message<S, K>>,
    by_id: HashMap<(S, Arc<str>), u64>,
    by_object: HashMap<K, BTreeSet<u64>>,
    by_store: HashMap<S, Held>,
    /// Who was woken and has not settled since.
    woken: HashMap<K, Woken>,
    next: u64,
    most: Most,
    /// The namespace of a store that belongs to one.
    namespace: fn(&S) -> Option<&str>,
}

/// An object that was woken.
#[derive(Debug)]
struct Woken {
    /// When, the last time.
    at: Instant,
    /// Whether a sync that began after it is under way.
    begun: bool,
}

/// What is remembered of a store.
#[derive(Debug, Default)]
struct Held {
    /// Its messages, the oldest first.
    numbers: BTreeSet<u64>,
    /// Receipts of what is dealt with.
    done: VecDeque<String>,
    /// What both take.
    bytes: usize,
}

impl Held {
    fn push_done(&mut self, receipt: String) {
        self.bytes += receipt_size(&receipt);
        self.done.push_back(receipt);
    }

    fn pop_done(&mut self) -> Option<String> {
        let receipt = self.done.pop_front()?;
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
    pin: Option<Arc<Pin>>,
    /// Who has not dealt with it yet, and whether a sync that began after it is under way.
    waits_for: BTreeMap<K, bool>,
    /// What it took when it was taken in, without the receipt, which may be replaced.
    bytes: usize,
}

impl<S, K> Message<S, K> {
    fn size(&self) -> usize {
        self.bytes + self.receipt.len()
    }
}

impl<S: Clone + Eq + Hash, K: Clone + Ord + Hash> Hints<S, K> {
    /// Creates hints without messages. Messages that exceed the bounds are forgotten, the oldest
    /// first, and their queues deliver them again. The last message is always kept. Where all
    /// stores together hold too much, the namespace that holds most loses a message. So no
    /// namespace can take the share of another. A store without a namespace counts as one.
    pub fn new(most: Most, namespace: fn(&S) -> Option<&str>) -> Self {
        Self {
            messages: BTreeMap::new(),
            by_id: HashMap::new(),
            by_object: HashMap::new(),
            by_store: HashMap::new(),
            woken: HashMap::new(),
            next: 0,
            most,
            namespace,
        }
    }

    /// Takes in a message of a store that concerns these objects; answers which of them have to be woken.
    pub fn take_in(
        &mut self,
        store: &S,
        id: &str,
        receipt: &str,
        pin: Option<Pin>,
        objects: BTreeSet<K>,
    ) -> BTreeSet<K> {
        let id: Arc<str> = id.into();
        if let Some(message) = self
            .by_id
            .get(&(store.clone(), Arc::clone(&id)))
            .and_then(|number| self.messages.get_mut(number))
        {
            // the newest receipt is the one that counts
            if let Some(held) = self.by_store.get_mut(store) {
                held.bytes = held.bytes.saturating_sub(message.receipt.len()) + receipt.len();
            }
            receipt.clone_into(&mut message.receipt);
            self.make_room(store);
            return BTreeSet::new();
        }
        if objects.is_empty() {
            let held = self.by_store.entry(store.clone()).or_default();
            held.push_done(receipt.to_owned());
            self.make_room(store);
            return objects;
        }
        let number = self.next;
        self.next += 1;
        for object in &objects {
            self.by_object.entry(object.clone()).or_default().insert(number);
        }
        self.by_id.insert((store.clone(), Arc::clone(&id)), number);
        let message = Message {
            store: store.clone(),
            bytes: PER_MESSAGE + id.len() + pin.as_ref().map_or(0, Pin::size) + objects.len() * PER_OBJECT,
            id,
            receipt: receipt.to_owned(),
            pin: pin.map(Arc::new),
            waits_for: objects.iter().map(|object| (object.clone(), false)).collect(),
        };
        let held = self.by_store.entry(store.clone()).or_default();
        held.numbers.insert(number);
        held.bytes += message.size();
        self.messages.insert(number, message);
        self.make_room(store);
        objects
    }

    /// Forgets messages until the bounds hold, where a message of this store came.
    fn make_room(&mut self, store: &S) {
        let too_many = |held: &Held, most: usize| held.numbers.len() > most.max(1);
        while (self.by_store.get(store)).is_some_and(|held| too_many(held, self.most.messages)) {
            self.forget_oldest(store);
        }
        while self.by_store.values().map(|held| held.bytes).sum::<usize>() > self.most.bytes
            && let Some(largest) = self.largest()
            && self.forget_oldest(&largest)
        {}
    }

    /// Returns the largest store of the namespace that holds most.
    fn largest(&self) -> Option<S> {
        let owner = |store| {
            let namespace = (self.namespace)(store);
            (namespace, namespace.is_none().then_some(store))
        };
        let mut bytes: HashMap<_, usize> = HashMap::new();
        for (store, held) in &self.by_store {
            *bytes.entry(owner(store)).or_default() += held.bytes;
        }
        let stores = self.by_store.iter();
        let largest = stores.max_by_key(|(store, held)| (bytes.get(&owner(store)), held.bytes))?;
        Some(largest.0.clone())
    }

    /// Forgets the oldest message of a store, unless it is the only one of all stores, or else a
    /// receipt. Returns whether there was one.
    fn forget_oldest(&mut self, store: &S) -> bool {
        let Some(held) = self.by_store.get_mut(store) else {
            return false;
        };
        match held.numbers.first().copied().filter(|_| self.messages.len() > 1) {
            Some(oldest) => self.remove(oldest).is_some(),
            None => held.pop_done().is_some(),
        }
    }

    /// These objects are woken now: what is read for them may have changed until then.
    pub fn wake(&mut self, objects: &BTreeSet<K>, now: Instant) {
        for object in objects {
            let woken = Woken {
                at: now,
                begun: false,
            };
            self.woken.insert(object.clone(), woken);
        }
    }

    /// When the object was woken the last time, until it has settled since: an answer to what was asked before may be older
    /// than what woke it.
    pub fn woken_at(&self, object: &K) -> Option<Instant> {
        self.woken.get(object).map(|woken| woken.at)
    }

    /// A sync of the object begins: it deals with every message that was taken in before.
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

    /// Whether a message concerns the object.
    pub fn concerns(&self, object: &K) -> bool {
        self.by_object.contains_key(object)
    }

    /// Returns the recent messages that name a version of a value that the object read, with their
    /// numbers, the newest first. For each value these are at most one more than a sync confirms,
    /// so the sync knows that messages are left.
    pub fn pins(
        &self,
        object: &K,
        now: Timestamp,
        is_read: impl Fn(&S, &str) -> bool,
    ) -> Vec<(u64, S, Arc<Pin>)> {
        let numbers = self.by_object.get(object).into_iter().flatten();
        let messages = numbers.filter_map(|number| Some((*number, self.messages.get(number)?)));
        let pins =
            messages.filter_map(|(number, message)| Some((number, &message.store, message.pin.as_ref()?)));
        let mut pins: Vec<_> = pins.filter(|(.., pin)| pin.is_recent(now)).collect();
        pins.sort_by_key(|(number, _, pin)| Reverse((pin.at, *number)));
        let mut counts: HashMap<(&S, &str), usize> = HashMap::new();
        pins.retain(|(_, store, pin)| {
            let keys: BTreeSet<&str> = pin.keys.iter().map(String::as_str).collect();
            keys.into_iter()
                .filter(|key| is_read(store, key))
                .fold(false, |kept, key| {
                    let count = counts.entry((store, key)).or_default();
                    *count += 1;
                    kept || *count <= MAX_CONFIRMED + 1
                })
        });
        let shared = pins.into_iter();
        shared
            .map(|(number, store, pin)| (number, store.clone(), Arc::clone(pin)))
            .collect()
    }

    /// What a message says of a version did not hold: nobody looks for that version again.
    pub fn refute(&mut self, number: u64) {
        if let Some(message) = self.messages.get_mut(&number) {
            message.pin = None;
        }
    }

    /// A sync of the object ended. It is settled when what it read is written, or nothing new was there, or what was there
    /// waits in the status; else it is tried again, and the messages wait for that.
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

    /// The object has nothing to do with any message so far: it is gone, or takes no hints.
    pub fn settle(&mut self, object: &K) {
        self.woken.remove(object);
        for number in self.by_object.get(object).cloned().unwrap_or_default() {
            self.settle_one(number, object);
        }
    }

    /// Forgets the messages of a store, whose receipts are of no use any more: another queue, another identity, or none.
    pub fn forget(&mut self, store: &S) {
        let numbers = self.by_store.get(store).map(|held| held.numbers.clone());
        for number in numbers.unwrap_or_default() {
            self.remove(number);
        }
        self.by_store.remove(store);
    }

    /// At most so many receipts of a store's messages that are dealt with, to be acknowledged now, the oldest first.
    pub fn take_done(&mut self, store: &S, most: usize) -> Vec<String> {
        let Some(held) = self.by_store.get_mut(store) else {
            return Vec::new();
        };
        let taken = std::iter::from_fn(|| held.pop_done()).take(most).collect();
        self.drop_empty(store);
        taken
    }

    fn drop_empty(&mut self, store: &S) {
        if (self.by_store.get(store)).is_some_and(|held| held.numbers.is_empty() && held.done.is_empty()) {
            self.by_store.remove(store);
        }
    }

    /// How many receipts of a store's messages wait to be acknowledged.
    pub fn count_done(&self, store: &S) -> usize {
        self.by_store.get(store).map_or(0, |held| held.done.len())
    }

    /// The stores that have something to acknowledge.
    pub fn stores_done(&self) -> Vec<S> {
        let done = self.by_store.iter().filter(|(_, held)| !held.done.is_empty());
        done.map(|(store, _)| store.clone()).collect()
    }

    /// How many messages wait to be dealt with.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether no message waits.
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
            let held = self.by_store.entry(message.store).or_default();
            held.push_done(message.receipt);
        }
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
        if let Some(held) = self.by_store.get_mut(&message.store) {
            held.numbers.remove(&number);
            held.bytes = held.bytes.saturating_sub(message.size());
        }
        self.drop_empty(&message.store);
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::remote::{Operation, SecretValue};

    fn read(version: &str, created: &str) -> Result<RemoteSecret, ProviderError> {
        Ok(RemoteSecret {
            fresh_for: None,
            value: SecretValue::from("value"),
            version: Some(version.to_owned()),
            created: Some(created.parse().unwrap()),
        })
    }

    fn failed(kind: ErrorKind) -> Result<RemoteSecret, ProviderError> {
        Err(ProviderError::new(kind, Operation::Read, "no"))
    }

    #[test]
    fn what_was_read_is_doubted_only_while_it_may_be_older_than_what_the_message_tells() {
        let pin = |told: &str| Pin {
            keys: vec!["a".to_owned()],
            version: told.to_owned(),
            told: told.to_owned(),
            at: Some("2026-01-01T00:01:00Z".parse().unwrap()),
        };
        let (before, after) = ("2026-01-01T00:00:00Z", "2026-01-01T00:02:00Z");
        assert!(!pin("uuid/b").doubts(&read("uuid/b", before)), "it is the same");
        assert!(pin("uuid/b").doubts(&read("uuid/a", before)));
        assert!(!pin("uuid/b").doubts(&read("uuid/c", after)), "something newer");
        assert!(
            pin("uuid/b").doubts(&read("uuid/c", "2026-01-01T00:01:00.9Z")),
            "within the second that the message tells"
        );
        assert!(pin("9").doubts(&read("8", after)) && !pin("9").doubts(&read("10", before)));
        assert!(pin("9").doubts(&failed(ErrorKind::NotFound)));
        assert!(!pin("9").doubts(&failed(ErrorKind::Unavailable)));
        let newer = |of: Result<_, _>, than| Pin::prefers(&than, &of.unwrap());
        assert!(newer(read("uuid/b", after), read("uuid/a", before)));
        assert!(!newer(read("uuid/a", before), read("uuid/b", after)));
        assert!(newer(read("10", before), read("9", after)));
        assert!(newer(read("1", before), failed(ErrorKind::NotFound)));
    }

    #[test]
    fn a_version_is_looked_for_only_within_minutes_of_when_it_became_the_current_one() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        for (at, wanted) in [
            (Some("2026-01-01T12:00:00Z"), true),
            (Some("2026-01-01T11:50:00Z"), true),
            (Some("2026-01-01T11:49:59Z"), false),
            (Some("2026-01-01T12:10:00Z"), true),
            (Some("2026-01-01T12:10:01Z"), false),
            (Some("9999-01-01T00:00:00Z"), false),
            (None, false),
        ] {
            let pin = Pin {
                keys: vec!["a".to_owned()],
                version: "1".to_owned(),
                told: "1".to_owned(),
                at: at.map(|at| at.parse().unwrap()),
            };
            assert_eq!(pin.is_recent(now), wanted, "{at:?}");
        }
    }

    #[test]
    fn a_message_stays_while_its_value_can_be_neither_read_nor_written() {
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

    #[test]
    fn a_spec_wants_its_keys_and_whatever_its_searches_may_find() {
        let spec: SyncedSecretSpec = serde_json::from_value(json!({
            "secretStoreRef": { "name": "top" },
            "data": [
                { "secretKey": "a", "remoteRef": { "key": "shop/a" } },
                { "secretKey": "b", "remoteRef": { "key": "shop/a" }, "secretStoreRef": { "name": "own" } },
                { "secretKey": "c", "ciphertext": "x" },
            ],
            "dataFrom": [{ "extract": { "key": "shop/b" } }, { "find": { "path": "/team/" } }],
        }))
        .unwrap();
        let wanted = wanted(&spec);
        let by = |name: &str| -> Vec<Wanted> {
            let of_store = wanted.iter().filter(|(store, _)| store.name == name);
            of_store.map(|(_, wanted)| wanted.clone()).collect()
        };
        let key = |key: &str| Wanted::Key(key.to_owned());
        let found = Wanted::Found(Some("/team/".to_owned()));
        assert_eq!(by("top"), [key("shop/a"), key("shop/b"), found.clone()]);
        assert_eq!(by("own"), [key("shop/a")]);
        let names = |name: &str| [name.to_owned()];
        assert!(found.is_concerned(&names("team/x")) && !found.is_concerned(&names("shop/a")));
        assert!(Wanted::Found(None).is_concerned(&names("x")) && !Wanted::Found(None).is_concerned(&[]));
    }

    const MOST: Most = Most {
        messages: 10,
        bytes: 100_000,
    };

    /// Each store belongs to a namespace of its name, up to a slash.
    fn own<'a>(store: &'a &'static str) -> Option<&'a str> {
        store.split('/').next()
    }

    type Plain = Hints<&'static str, &'static str>;

    fn hints() -> Plain {
        Hints::new(MOST, own)
    }

    fn set<const N: usize>(objects: [&'static str; N]) -> BTreeSet<&'static str> {
        BTreeSet::from(objects)
    }

    fn take_in<const N: usize>(hints: &mut Plain, id: &str, objects: [&'static str; N]) {
        let woken = hints.take_in(&"aws", id, &format!("receipt of {id}"), None, set(objects));
        assert_eq!(woken, set(objects));
    }

    #[test]
    fn a_message_that_concerns_nobody_is_acknowledged_at_once() {
        let mut hints = hints();
        take_in(&mut hints, "1", []);
        assert_eq!(hints.take_done(&"aws", 10), ["receipt of 1"]);
        assert!(hints.take_done(&"aws", 10).is_empty() && hints.is_empty());
    }

    #[test]
    fn a_message_is_acknowledged_when_the_last_object_that_it_woke_has_settled() {
        let mut hints = hints();
        take_in(&mut hints, "1", ["a", "b"]);
        hints.begin(&"a");
        hints.end(&"a", true);
        assert!(hints.take_done(&"aws", 10).is_empty());
        hints.begin(&"b");
        hints.end(&"b", false);
        assert!(hints.take_done(&"aws", 10).is_empty(), "the write failed");
        hints.begin(&"b");
        hints.end(&"b", true);
        assert_eq!(hints.take_done(&"aws", 10), ["receipt of 1"]);
    }

    #[test]
    fn a_sync_that_began_before_the_message_says_nothing_of_it() {
        let mut hints = hints();
        hints.begin(&"a");
        take_in(&mut hints, "1", ["a"]);
        hints.end(&"a", true);
        assert!(hints.take_done(&"aws", 10).is_empty());
    }

    #[test]
    fn a_message_that_comes_again_wakes_nobody_and_its_new_receipt_counts() {
        let mut hints = hints();
        take_in(&mut hints, "1", ["a"]);
        assert_eq!(
            hints.take_in(&"aws", "1", "another", None, set(["a"])),
            BTreeSet::new()
        );
        assert_eq!(
            hints.take_in(&"gcp", "1", "of another store", None, set(["a"])),
            set(["a"])
        );
        hints.begin(&"a");
        hints.end(&"a", true);
        assert_eq!(hints.take_done(&"aws", 10), ["another"]);
        assert_eq!(hints.take_done(&"gcp", 10), ["of another store"]);
    }

    #[test]
    fn the_oldest_message_of_the_same_store_is_forgotten_unacknowledged_for_one_too_many() {
        let mut hints = Plain::new(Most { messages: 2, ..MOST }, own);
        hints.take_in(&"gcp", "0", "of another store", None, set(["a"]));
        for id in ["1", "2", "3"] {
            take_in(&mut hints, id, ["a"]);
        }
        assert_eq!(hints.len(), 3);
        hints.begin(&"a");
        hints.end(&"a", true);
        assert_eq!(hints.take_done(&"aws", 10), ["receipt of 2", "receipt of 3"]);
        assert_eq!(hints.take_done(&"gcp", 10), ["of another store"]);
    }

    #[test]
    fn what_messages_take_is_bounded_too_and_the_newest_is_always_kept() {
        let most = Most {
            bytes: 2 * PER_MESSAGE + 4 * PER_OBJECT,
            ..MOST
        };
        let mut hints = Plain::new(most, own);
        take_in(&mut hints, "1", ["a"]);
        take_in(&mut hints, "2", ["a", "b"]);
        assert_eq!(hints.len(), 2);
        take_in(&mut hints, "3", ["a", "b"]);
        assert_eq!(hints.len(), 1, "both of the older ones went");
        take_in(&mut hints, "4", ["a", "b", "c", "d", "e"]);
        assert_eq!(hints.len(), 1, "larger than everything, and the only one");
        hints.take_in(&"aws", "4", &"x".repeat(20 * PER_OBJECT), None, set(["a"]));
        take_in(&mut hints, "5", ["a"]);
        assert_eq!(hints.len(), 1, "a receipt that was replaced counts as it is now");
        assert!(hints.by_id.contains_key(&("aws", "5".into())));
    }

    #[test]
    fn so_many_receipts_as_are_wanted_are_taken_the_oldest_first() {
        let mut hints = hints();
        for id in ["1", "2", "3"] {
            take_in(&mut hints, id, []);
        }
        assert_eq!(hints.count_done(&"aws"), 3);
        assert_eq!(hints.take_done(&"aws", 2), ["receipt of 1", "receipt of 2"]);
        assert_eq!(hints.stores_done(), ["aws"], "there is more");
        assert_eq!(hints.take_done(&"aws", 2), ["receipt of 3"]);
        assert!(hints.stores_done().is_empty() && hints.count_done(&"aws") == 0);
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
        fn messages_stay_within_bounds_and_leave_other_namespaces_their_share(steps in steps()) {
            let most = Most { messages: 5, bytes: 6_000 };
            let mut hints = Plain::new(most, own);
            let held = |hints: &Plain, namespace: &str| -> (usize, usize) {
                let stores = hints.by_store.iter().filter(|(store, _)| own(store) == Some(namespace));
                let stores = stores.map(|(_, held)| (held.numbers.len() + held.done.len(), held.bytes));
                stores.fold((0, 0), |(count, bytes), (more, size)| (count + more, bytes + size))
            };
            for step in steps {
                let before = ["shop", "bank"].map(|namespace| (namespace, held(&hints, namespace)));
                let taken_in = match &step {
                    Step::TakeIn { store, .. } => own(&STORES[*store]),
                    _ => None,
                };
                match step {
                    Step::TakeIn { store, id, objects, receipt } => {
                        hints.take_in(&STORES[store], &id.to_string(), &"r".repeat(receipt), None, objects);
                    }
                    Step::Begin(object) => hints.begin(&OBJECTS[object]),
                    Step::End(object, settled) => hints.end(&OBJECTS[object], settled),
                    Step::Settle(object) => hints.settle(&OBJECTS[object]),
                    Step::Acknowledge(store) => drop(hints.take_done(&STORES[store], 3)),
                    Step::Forget(store) => hints.forget(&STORES[store]),
                }
                for store in STORES {
                    let of_store = || hints.messages.values().filter(|message| message.store == store);
                    let (count, bytes) = (of_store().count(), of_store().map(Message::size).sum::<usize>());
                    prop_assert!(count <= most.messages);
                    if let Some(held) = hints.by_store.get(store) {
                        let done: usize = held.done.iter().map(|receipt| receipt_size(receipt)).sum();
                        prop_assert_eq!((held.numbers.len(), held.bytes), (count, bytes + done));
                    } else {
                        prop_assert_eq!(count, 0);
                    }
                }
                let all: usize = hints.by_store.values().map(|held| held.bytes).sum();
                prop_assert!(all <= most.bytes);
                for (namespace, (count, bytes)) in before {
                    if taken_in.is_some_and(|taken_in| taken_in != namespace) && bytes <= most.bytes / 2 {
                        prop_assert_eq!(held(&hints, namespace), (count, bytes));
                    }
                }
                prop_assert_eq!(hints.by_id.len(), hints.messages.len());
                let linked: usize = hints.by_object.values().map(BTreeSet::len).sum();
                let waiting: usize = hints.messages.values().map(|message| message.waits_for.len()).sum();
                prop_assert_eq!(linked, waiting);
            }
        }
    }

    #[test]
    fn a_version_that_there_is_not_is_looked_for_once_and_its_message_waits_like_another() {
        let mut hints = hints();
        let at: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let pin = |version: &str| Pin {
            keys: vec!["key".to_owned()],
            version: version.to_owned(),
            told: version.to_owned(),
            at: Some(at),
        };
        for id in ["1", "2"] {
            hints.take_in(&"aws", id, id, Some(pin(id)), set(["a", "b"]));
        }
        let versions = |hints: &Plain, object| -> Vec<(u64, String)> {
            let pins = hints.pins(&object, at, |store, key| (*store, key) == ("aws", "key"));
            let pins = pins.into_iter();
            pins.map(|(number, _, pin)| (number, pin.version.clone()))
                .collect()
        };
        let pins = versions(&hints, "a");
        assert_eq!(
            pins.iter().map(|(_, version)| version).collect::<Vec<_>>(),
            ["2", "1"]
        );
        hints.refute(pins[1].0);
        for object in ["a", "b"] {
            assert_eq!(versions(&hints, object), [pins[0].clone()], "for nobody");
        }
        assert_eq!(hints.len(), 2);
        for object in ["a", "b"] {
            hints.begin(&object);
            hints.end(&object, true);
        }
        assert_eq!(hints.take_done(&"aws", 10), ["1", "2"]);
    }

    #[test]
    fn versions_are_shared_and_only_the_newest_of_each_value_read() {
        let most = Most {
            messages: 1_000,
            bytes: usize::MAX,
        };
        let mut hints = Plain::new(most, own);
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let pin = |number: i64, seconds| Pin {
            keys: vec!["key".to_owned(), format!("other {number}")],
            version: number.to_string(),
            told: "t".repeat(2_048),
            at: Some(now + Duration::from_secs(seconds)),
        };
        // messages of another day and about other values leave no true message out
        for number in 0..300 {
            let seconds = match number % 3 {
                0 => u64::try_from(number).unwrap(),
                _ => 86_400,
            };
            let id = number.to_string();
            hints.take_in(&"aws", &id, &id, Some(pin(number, seconds)), set(["a", "b"]));
        }
        let pins = |object| hints.pins(&object, now, |store, key| (*store, key) == ("aws", "key"));
        let first = pins("a");
        let versions: Vec<&str> = first.iter().map(|(.., pin)| &*pin.version).collect();
        assert_eq!(versions, ["297", "294", "291", "288", "285"]);
        assert_eq!(versions.len(), MAX_CONFIRMED + 1);
        for ((.., one), (.., other)) in first.iter().zip(&pins("b")) {
            assert!(Arc::ptr_eq(one, other));
        }
        assert!(hints.pins(&"a", now, |_, _| false).is_empty());
    }

    #[test]
    fn when_an_object_was_woken_is_known_until_a_sync_that_began_after_it_has_settled() {
        let mut hints = hints();
        let first = Instant::now();
        let second = first + Duration::from_secs(1);
        assert_eq!(hints.woken_at(&"a"), None);
        hints.begin(&"a");
        hints.wake(&set(["a", "b"]), first);
        hints.end(&"a", true);
        assert_eq!(hints.woken_at(&"a"), Some(first), "that sync began before");
        hints.begin(&"a");
        hints.end(&"a", false);
        assert_eq!(hints.woken_at(&"a"), Some(first), "it is tried again");
        hints.begin(&"a");
        hints.wake(&set(["a"]), second);
        hints.end(&"a", true);
        assert_eq!(hints.woken_at(&"a"), Some(second), "it was woken meanwhile");
        hints.begin(&"a");
        hints.end(&"a", true);
        assert_eq!(hints.woken_at(&"a"), None);
        hints.settle(&"b");
        assert!(hints.woken.is_empty());
    }

    #[test]
    fn an_object_that_is_gone_holds_no_message_and_a_store_that_is_gone_has_none() {
        let mut hints = hints();
        take_in(&mut hints, "1", ["a"]);
        hints.settle(&"a");
        assert_eq!(hints.stores_done(), ["aws"]);
        take_in(&mut hints, "2", ["a"]);
        hints.forget(&"aws");
        assert!(hints.is_empty() && hints.take_done(&"aws", 10).is_empty());
        assert!(hints.by_object.is_empty() && hints.by_id.is_empty());
    }
}
