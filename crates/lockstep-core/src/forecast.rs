//! How many calls a set of SyncedSecrets is to its stores, while nothing changes and nothing fails.
//!
//! SyncedSecrets whose first store takes batches are refreshed in slots ([`RefreshSchedule`]): what is due in one slot goes out
//! together, and a key that several of them want is read once. All others are refreshed by themselves, each after its
//! interval and some jitter: nothing of theirs meets, so a key that several want is read for each of them. A store
//! where both kinds read sees both.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::{Add, AddAssign},
    time::Duration,
};

use crate::{
    remote::{FindQuery, Part, RemoteRef},
    schedule::{BatchKey, RefreshSchedule},
};

/// A month of 30 days, in milliseconds.
const MONTH: u128 = 30 * 24 * 3600 * 1000;

/// How a backend takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// The most values that one call reads; 1 where the service has no batches.
    pub batch: usize,
    /// Whether a value whose version is named can be read together with others.
    pub versions_in_batches: bool,
    /// Keys that one call of a search lists.
    pub page: usize,
}

/// A store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Its label, which shifts its slots.
    pub label: String,
    /// How many objects those that it leads have, suspended ones as well.
    pub members: usize,
    /// How it takes requests.
    pub backend: Backend,
}

impl Store {
    /// Returns the refresh schedule of an object that the store leads.
    pub fn refresh_schedule(&self, batch_key: BatchKey) -> RefreshSchedule {
        RefreshSchedule::new(&self.label, self.members, self.backend.batch, batch_key)
    }
}

/// What a SyncedSecret wants from one store.
#[derive(Debug, Clone, Default)]
pub struct Wants {
    /// Values, and what is kept beside values.
    pub reads: BTreeSet<RemoteRef>,
    /// Searches.
    pub searches: HashSet<FindQuery>,
    /// Ciphertexts, which are decrypted once and not at a refresh.
    pub decryptions: u64,
    /// The entries of the spec that are read at each refresh, by what they would be if each were a call of its own.
    pub entries: Calls,
}

/// A SyncedSecret.
#[derive(Debug, Clone)]
pub struct Object<S> {
    /// Where it sits, which says whose slot it is.
    pub batch_key: BatchKey,
    /// The time between two refreshes; `None` when there are none after the first sync.
    pub interval: Option<Duration>,
    /// The store whose slots it takes.
    pub leader: S,
    /// What it wants, by store.
    pub wants: BTreeMap<S, Wants>,
}

/// Calls, by what they ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Of values.
    pub reads: u64,
    /// Of what is kept beside values.
    pub metadata: u64,
    /// Of pages of searches.
    pub finds: u64,
    /// Of ciphertexts.
    pub decryptions: u64,
}

impl Calls {
    /// All of them.
    pub const fn all(self) -> u64 {
        self.reads + self.metadata + self.finds + self.decryptions
    }

    fn each(self, change: impl Fn(u64) -> u64) -> Self {
        Self {
            reads: change(self.reads),
            metadata: change(self.metadata),
            finds: change(self.finds),
            decryptions: change(self.decryptions),
        }
    }

    /// Of a day, where these are of a month of 30 days; what is begun counts as a whole call.
    pub fn a_day(self) -> Self {
        self.each(|calls| calls.div_ceil(30))
    }

    /// In a month, when these come once in `time`.
    fn a_month(self, time: u128) -> Self {
        self.each(|calls| {
            let calls = (u128::from(calls) * MONTH).div_ceil(time.max(1));
            u64::try_from(calls).unwrap_or(u64::MAX)
        })
    }
}

impl Add for Calls {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            reads: self.reads + other.reads,
            metadata: self.metadata + other.metadata,
            finds: self.finds + other.finds,
            decryptions: self.decryptions + other.decryptions,
        }
    }
}

impl AddAssign for Calls {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// What comes to one store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forecast {
    /// SyncedSecrets that want something from it.
    pub objects: usize,
    /// Entries of their specs, ciphertexts included.
    pub references: u64,
    /// Keys that they name, each once.
    pub keys: usize,
    /// When everything is synced for the first time, at the same time.
    pub first_sync: Calls,
    /// When everything is refreshed once.
    pub round: Calls,
    /// In a month of 30 days.
    pub month: Calls,
    /// In a month of 30 days, if each entry were a call of its own in each interval.
    pub month_by_entry: Calls,
}

/// What is asked for together.
#[derive(Debug, Default)]
struct Together<'a> {
    reads: BTreeSet<&'a RemoteRef>,
    searches: HashSet<&'a FindQuery>,
    decryptions: u64,
}

impl<'a> Together<'a> {
    fn add(&mut self, wants: &'a Wants) {
        self.reads.extend(&wants.reads);
        self.searches.extend(&wants.searches);
        self.decryptions += wants.decryptions;
    }

    /// The calls of a refresh.
    fn calls(&self, backend: Backend, found: usize) -> Calls {
        let count =
            |what: &dyn Fn(&RemoteRef) -> bool| self.reads.iter().filter(|reference| what(reference)).count();
        let metadata = count(&|reference| reference.part == Part::Metadata);
        let alone = count(&|reference| {
            reference.part == Part::Value && reference.version.is_some() && !backend.versions_in_batches
        });
        let together = self.reads.len() - metadata - alone + found * self.searches.len();
        // what cannot share a call goes by itself, and takes no place in a batch
        let batches = together.div_ceil(backend.batch.max(1));
        let pages = found.div_ceil(backend.page.max(1)).max(1);
        Calls {
            reads: number(batches + alone),
            metadata: number(metadata),
            finds: number(pages * self.searches.len()),
            decryptions: 0,
        }
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// What comes to each store. Each search is taken to find `found` keys, which nothing else reads.
pub fn forecast<S: Ord + Clone>(
    stores: &BTreeMap<S, Store>,
    objects: &[Object<S>],
    found: usize,
) -> BTreeMap<S, Forecast> {
    stores
        .iter()
        .map(|(key, store)| (key.clone(), of_store(key, store, stores, objects, found)))
        .collect()
}

fn of_store<S: Ord>(
    key: &S,
    store: &Store,
    stores: &BTreeMap<S, Store>,
    objects: &[Object<S>],
    found: usize,
) -> Forecast {
    let mut forecast = Forecast::default();
    let mut everything = Together::default();
    let mut slots: BTreeMap<(&S, Duration, u32), Together<'_>> = BTreeMap::new();
    let mut rounds: BTreeMap<u128, Calls> = BTreeMap::new();
    for object in objects {
        let Some(wants) = object.wants.get(key) else {
            continue;
        };
        forecast.objects += 1;
        forecast.references += wants.entries.all() + wants.decryptions;
        everything.add(wants);
        let Some(interval) = object.interval else { continue };
        let length = interval.as_millis();
        forecast.month_by_entry += by_entry(wants.entries, store.backend, found).a_month(length);
        let leader = stores.get(&object.leader);
        if let Some(slot) = leader.and_then(|leader| leader.refresh_schedule(object.batch_key).slot()) {
            slots
                .entry((&object.leader, interval, slot))
                .or_default()
                .add(wants);
        } else {
            let mut alone = Together::default();
            alone.add(wants);
            // jitter makes it later by up to a tenth, and by half of that on average
            *rounds.entry(length + length / 20).or_default() += alone.calls(store.backend, found);
        }
    }
    for ((_, interval, _), together) in &slots {
        *rounds.entry(interval.as_millis()).or_default() += together.calls(store.backend, found);
    }
    for (time, calls) in rounds {
        forecast.round += calls;
        forecast.month += calls.a_month(time);
    }
    let keys: BTreeSet<&str> = everything
        .reads
        .iter()
        .map(|reference| reference.key.as_str())
        .collect();
    forecast.keys = keys.len();
    forecast.first_sync = everything.calls(store.backend, found);
    forecast.first_sync.decryptions = everything.decryptions;
    forecast
}

/// The calls of one refresh, if each entry were one of its own.
fn by_entry(entries: Calls, backend: Backend, found: usize) -> Calls {
    let pages = number(found.div_ceil(backend.page.max(1)).max(1));
    Calls {
        reads: entries.reads + entries.finds * number(found),
        finds: entries.finds * pages,
        ..entries
    }
}
