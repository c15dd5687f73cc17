//! Estimates the calls that SyncedSecrets make to their stores while nothing changes or fails.
//!
//! SyncedSecrets whose primary store has batches are refreshed in slots ([`RefreshSchedule`]): the
//! reads of one slot are sent together, and a key that several of them use is read once. All others
//! are refreshed individually, so a key is read for each of them. A store can serve both kinds.

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

/// The sizes of requests to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// Maximum number of values that one call reads. 1 if the service has no batches.
    pub batch: usize,
    /// Whether a batch can contain values at a named version.
    pub versions_in_batches: bool,
    /// The number of keys that one call of a search lists.
    pub page: usize,
}

/// A store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The label, which offsets its slots.
    pub label: String,
    /// The number of batch keys of the objects whose primary store it is, including suspended ones.
    pub members: usize,
    /// The sizes of its requests.
    pub backend: Backend,
}

impl Store {
    /// Returns the refresh schedule of an object whose primary store it is.
    pub fn refresh_schedule(&self, batch_key: BatchKey) -> RefreshSchedule {
        RefreshSchedule::new(&self.label, self.members, self.backend.batch, batch_key)
    }
}

/// The requests of a SyncedSecret to one store.
#[derive(Debug, Clone, Default)]
pub struct Wants {
    /// The values and metadata to read.
    pub reads: BTreeSet<RemoteRef>,
    /// The searches.
    pub searches: HashSet<FindQuery>,
    /// The number of ciphertexts, which are decrypted once and not at a refresh.
    pub decryptions: u64,
    /// The calls of a refresh if each entry of the spec made its own.
    pub entries: Calls,
}

/// A SyncedSecret.
#[derive(Debug, Clone)]
pub struct Object<S> {
    /// Determines its slot.
    pub batch_key: BatchKey,
    /// The time between two refreshes. `None` if it is synced only once.
    pub interval: Option<Duration>,
    /// The store that determines its refresh schedule.
    pub primary_store: S,
    /// Its requests by store.
    pub wants: BTreeMap<S, Wants>,
}

/// Numbers of calls by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Reads of values.
    pub reads: u64,
    /// Reads of metadata.
    pub metadata: u64,
    /// Pages of searches.
    pub finds: u64,
    /// Decryptions of ciphertexts.
    pub decryptions: u64,
}

impl Calls {
    /// Returns the sum.
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

    /// Converts the calls of a month of 30 days to calls per day, rounded up.
    pub fn a_day(self) -> Self {
        self.each(|calls| calls.div_ceil(30))
    }

    /// Returns the calls of a month if these are made once per `time`, in milliseconds.
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

/// The calls to one store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forecast {
    /// The number of SyncedSecrets that use it.
    pub objects: usize,
    /// The number of their entries, including ciphertexts.
    pub references: u64,
    /// The number of different keys.
    pub keys: usize,
    /// The calls when everything is synced for the first time, at once.
    pub first_sync: Calls,
    /// The calls when everything is refreshed once.
    pub round: Calls,
    /// The calls of a month of 30 days.
    pub month: Calls,
    /// The calls of a month if each entry made its own in each interval.
    pub month_by_entry: Calls,
}

/// Requests that are sent together.
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

    /// Returns the calls of a refresh.
    fn calls(&self, backend: Backend, found: usize) -> Calls {
        let count =
            |what: &dyn Fn(&RemoteRef) -> bool| self.reads.iter().filter(|reference| what(reference)).count();
        let metadata = count(&|reference| reference.part == Part::Metadata);
        let unbatchable = count(&|reference| {
            reference.part == Part::Value && reference.version.is_some() && !backend.versions_in_batches
        });
        let together = self.reads.len() - metadata - unbatchable + found * self.searches.len();
        let batches = together.div_ceil(backend.batch.max(1));
        let pages = found.div_ceil(backend.page.max(1)).max(1);
        Calls {
            reads: number(batches + unbatchable),
            metadata: number(metadata),
            finds: number(pages * self.searches.len()),
            decryptions: 0,
        }
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Estimates the calls to each store. Each search is assumed to find `found` keys that nothing else
/// reads.
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
        forecast.month_by_entry +=
            calls_without_batching(wants.entries, store.backend, found).a_month(length);
        let schedule = stores
            .get(&object.primary_store)
            .map(|store| store.refresh_schedule(object.batch_key));
        if let Some(slot) = schedule.and_then(RefreshSchedule::slot) {
            slots
                .entry((&object.primary_store, interval, slot))
                .or_default()
                .add(wants);
        } else {
            let mut own = Together::default();
            own.add(wants);
            // jitter delays a refresh by up to a tenth, 5 % on average
            *rounds.entry(length + length / 20).or_default() += own.calls(store.backend, found);
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

/// Returns the calls of one refresh if nothing were batched or shared. `finds` counts searches in
/// `entries`, and pages in the result. `found` is the number of keys that a search returns.
fn calls_without_batching(entries: Calls, backend: Backend, found: usize) -> Calls {
    let pages = number(found.div_ceil(backend.page.max(1)).max(1));
    Calls {
        reads: entries.reads + entries.finds * number(found),
        finds: entries.finds * pages,
        ..entries
    }
}
