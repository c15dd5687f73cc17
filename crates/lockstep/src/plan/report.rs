//! Computes costs from counts, and the notes that explain them.

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

/// The forecast of one store.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) key: &'a StoreKey,
    pub(super) known: &'a Known,
    pub(super) forecast: Forecast,
    /// Cost of the calls of a month; `None` if the service does not charge for calls.
    pub(super) usd: Option<MicroUsd>,
    /// The same with one call per reference.
    pub(super) usd_by_entry: Option<MicroUsd>,
    /// Monthly cost of storing the named keys, whether or not they are read.
    pub(super) usd_kept: Option<MicroUsd>,
    /// Share of the most used quota that the first sync uses, in tenths of a percent.
    pub(super) peak: Option<u64>,
}

/// Everything that is printed.
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

    /// Returns the sum over all stores.
    pub(super) fn sum(&self, of: impl Fn(&Row<'a>) -> u64) -> u64 {
        self.rows.iter().map(of).sum()
    }

    /// Returns the sum over all stores that have a price; `None` if none has one.
    pub(super) fn usd(&self, of: impl Fn(&Row<'a>) -> Option<MicroUsd>) -> Option<MicroUsd> {
        self.rows.iter().filter_map(of).reduce(std::ops::Add::add)
    }

    /// Returns the date of the published figures, the earliest if they differ.
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

    /// Returns the kinds of calls that the forecast contains.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &'a Call> {
        let all = self.forecast.first_sync + self.forecast.month + self.forecast.month_by_entry;
        self.known
            .costs
            .kinds(all)
            .into_iter()
            .filter_map(|(call, count)| (count > 0).then_some(call))
    }
}

/// Returns the share of a quota that `calls` at once use, in tenths of a percent, reduced by the
/// store's own limits.
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
        "A month has 30 days without changes or failures. Logins, store checks, retries and operator restarts cause additional calls.".to_owned(),
    ];
    let refreshed = |refresh_schedule: fn(RefreshSchedule) -> bool| {
        counted.objects.iter().any(|object| {
            let primary_store = counted.stores.get(&object.primary_store);
            object.interval.is_some()
                && refresh_schedule(primary_store.map_or(RefreshSchedule::Free, |known| {
                    known.store.refresh_schedule(object.batch_key)
                }))
        })
    };
    if refreshed(|refresh_schedule| refresh_schedule != RefreshSchedule::Free) {
        notes.push("SyncedSecrets of a store with batches are refreshed in shared slots, once per interval. Reads that are due together are sent together, and a key that several SyncedSecrets use is read once.".to_owned());
    }
    if refreshed(|refresh_schedule| refresh_schedule == RefreshSchedule::Free) {
        notes.push("SyncedSecrets of a store without batches are refreshed individually, on average 5 % later than their interval. A key that several SyncedSecrets use is read for each of them.".to_owned());
    }
    let any = |what: fn(Calls) -> u64| rows.iter().any(|row| what(row.forecast.first_sync) > 0);
    if any(|calls| calls.finds) {
        notes.push(format!(
            "Each search is assumed to find {found} keys (--found), each of which is read. Only the store knows the real number."
        ));
    }
    if any(|calls| calls.decryptions) {
        notes.push("A ciphertext is decrypted at the first sync, and again only after a change.".to_owned());
    }
    if rows.iter().any(|row| row.peak.is_some()) {
        notes.push("PEAK is the share of the published quota that the first sync uses if all calls are sent at once, within the limits of the store. If the service throttles calls, lockstep slows down.".to_owned());
    }
    if rows.iter().any(|row| row.usd_kept.is_some()) {
        notes.push("Storage costs the same whether or not values are read. Only the named keys are counted, each with one version in one location.".to_owned());
    }
    if counted.once > 0 {
        notes.push(format!(
            "{}: refreshPolicy is OnChange or CreatedOnce. Only the first sync causes calls.",
            many(
                counted.once,
                "SyncedSecret is not refreshed",
                "SyncedSecrets are not refreshed"
            )
        ));
    }
    if counted.suspended > 0 {
        notes.push(format!(
            "{} and not counted.",
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

/// Formats a note of a provider as a sentence.
fn sentence(note: &str) -> String {
    let mut letters = note.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).chain(['.']).collect()
}
