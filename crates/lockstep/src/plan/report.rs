//! From counts to costs, and what has to be known to read them.

use std::collections::BTreeMap;

use lockstep_api::Limits;
use lockstep_core::{
    forecast::{self, Calls, Forecast},
    schedule::RefreshSchedule,
};
use lockstep_provider::{
    StoreKey,
    costs::{Call, MicroUsd, Quota},
};

use super::count::{Counted, Known};

/// What comes to one store.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) key: &'a StoreKey,
    pub(super) known: &'a Known,
    pub(super) forecast: Forecast,
    /// What the calls of a month cost; `None` where nobody charges for them.
    pub(super) usd: Option<MicroUsd>,
    /// The same with a call for each reference.
    pub(super) usd_by_entry: Option<MicroUsd>,
    /// What keeping the named keys costs in a month, whoever reads them.
    pub(super) usd_kept: Option<MicroUsd>,
    /// What the first sync takes of the quota that it comes closest to, in tenths of a percent.
    pub(super) peak: Option<u64>,
}

/// Everything that is told.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) rows: Vec<Row<'a>>,
    pub(super) objects: usize,
    pub(super) notes: Vec<String>,
}

impl<'a> Report<'a> {
    pub(super) fn new(counted: &'a Counted<'_>, found: usize) -> Self {
        let stores = counted
            .stores
            .iter()
            .map(|(key, known)| (key.clone(), known.store.clone()))
            .collect();
        let mut forecasts = forecast::forecast(&stores, &counted.objects, found);
        let rows: Vec<_> = counted
            .stores
            .iter()
            .map(|(key, known)| Row::new(key, known, forecasts.remove(key).unwrap_or_default()))
            .collect();
        let notes = notes(counted, &rows, found);
        Self {
            rows,
            objects: counted.objects.len(),
            notes,
        }
    }

    /// The sum over all stores.
    pub(super) fn sum(&self, of: impl Fn(&Row<'a>) -> u64) -> u64 {
        self.rows.iter().map(of).sum()
    }

    /// The sum over all stores that have a price; `None` where none has.
    pub(super) fn usd(&self, of: impl Fn(&Row<'a>) -> Option<MicroUsd>) -> Option<MicroUsd> {
        self.rows.iter().filter_map(of).reduce(std::ops::Add::add)
    }

    /// When the figures were looked up: the earliest, where they differ.
    pub(super) fn as_of(&self) -> Option<&'static str> {
        self.rows.iter().filter_map(|row| row.known.costs.as_of).min()
    }
}

impl<'a> Row<'a> {
    fn new(key: &'a StoreKey, known: &'a Known, forecast: Forecast) -> Self {
        let costs = &known.costs;
        let keys = u64::try_from(forecast.keys).unwrap_or(u64::MAX);
        let mut quotas: BTreeMap<&str, (Quota, u64)> = BTreeMap::new();
        for (call, count) in costs.kinds(forecast.first_sync) {
            if let Some(quota) = call.quota {
                quotas.entry(quota.value.operations).or_insert((quota.value, 0)).1 += count;
            }
        }
        let shares = quotas
            .into_values()
            .map(|(quota, count)| share(quota, count, known.limits));
        Self {
            key,
            known,
            forecast,
            usd: costs.price(forecast.month),
            usd_by_entry: costs.price(forecast.month_by_entry),
            usd_kept: costs.kept.map(|kept| kept.price.value.times(keys)),
            peak: shares.max(),
        }
    }

    /// The kinds of calls that there are.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &'a Call> {
        let all = self.forecast.first_sync + self.forecast.month + self.forecast.month_by_entry;
        self.known
            .costs
            .kinds(all)
            .into_iter()
            .filter_map(|(call, count)| (count > 0).then_some(call))
    }
}

/// What so many calls at once take of a quota, in tenths of a percent; the store's own limits hold them back.
fn share(quota: Quota, calls: u64, limits: Limits) -> u64 {
    let allowed = limits.requests_per_second.map(|rate| {
        let burst = limits.burst.unwrap_or(rate);
        u64::from(rate) * quota.seconds + u64::from(burst)
    });
    let calls = allowed.map_or(calls, |allowed| calls.min(allowed));
    calls.saturating_mul(1000).div_ceil(quota.calls.max(1))
}

fn notes(counted: &Counted<'_>, rows: &[Row<'_>], found: usize) -> Vec<String> {
    let mut notes = vec![
        "A month has 30 days, in which nothing changes and nothing fails: logins, checks of stores, retries and restarts of the operator come on top.".to_owned(),
    ];
    let refreshed = |refresh_schedule: fn(RefreshSchedule) -> bool| {
        counted.objects.iter().any(|object| {
            let leader = counted.stores.get(&object.leader);
            object.interval.is_some()
                && refresh_schedule(leader.map_or(RefreshSchedule::Free, |known| {
                    let store = &known.store;
                    RefreshSchedule::new(&store.label, store.members, store.backend.batch, object.batch_key)
                }))
        })
    };
    if refreshed(|refresh_schedule| refresh_schedule != RefreshSchedule::Free) {
        notes.push("SyncedSecrets of a store that takes batches are refreshed in turns, once in every interval: what is due together goes out together, and a key that several want is read once.".to_owned());
    }
    if refreshed(|refresh_schedule| refresh_schedule == RefreshSchedule::Free) {
        notes.push("Those of a store without batches are refreshed by themselves, each 5 % later than its interval on average: a key that several want is read for each of them.".to_owned());
    }
    let any = |what: fn(Calls) -> u64| rows.iter().any(|row| what(row.forecast.first_sync) > 0);
    if any(|calls| calls.finds) {
        notes.push(format!(
            "A search is taken to find {found} keys (--found), each of which is read; only the store knows how many there are."
        ));
    }
    if any(|calls| calls.decryptions) {
        notes.push(
            "A ciphertext is decrypted at the first sync, and again only when something has changed."
                .to_owned(),
        );
    }
    if rows.iter().any(|row| row.peak.is_some()) {
        notes.push("Peak is the share of the published quota that the first sync of everything takes, if it all goes out at once; the store's limits are kept, and where the service asks to slow down, lockstep does.".to_owned());
    }
    if rows.iter().any(|row| row.usd_kept.is_some()) {
        notes.push("What is kept costs its price whoever reads it; keys that are named are counted, each with one version in one place.".to_owned());
    }
    if counted.once > 0 {
        notes.push(format!(
            "{}: refreshPolicy is OnChange or CreatedOnce. They come to calls in the first sync only.",
            many(
                counted.once,
                "SyncedSecret is not refreshed",
                "SyncedSecrets are not refreshed"
            )
        ));
    }
    if counted.suspended > 0 {
        notes.push(format!(
            "{}, and not counted.",
            many(
                counted.suspended,
                "SyncedSecret is suspended",
                "SyncedSecrets are suspended"
            )
        ));
    }
    let mut own: Vec<_> = rows.iter().flat_map(|row| &row.known.costs.notes).collect();
    own.sort_unstable();
    own.dedup();
    notes.extend(own.into_iter().map(|note| sentence(note)));
    notes
}

fn many(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// A note of a provider as a sentence.
fn sentence(note: &str) -> String {
    let mut letters = note.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).chain(['.']).collect()
}
