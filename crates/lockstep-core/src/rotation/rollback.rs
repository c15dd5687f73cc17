//! Rolls back to the previous versions of the remote values, which are read by version id.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use lockstep_api::{
    OnFailure, PreviousRevision, Reason, RefusedRevision, RotationStatus, SourceStatus, StoreRef,
    SyncedSecretSpec, TargetStatus,
};

use crate::{
    Failure,
    history::MAX_SOURCES,
    spec::{self, StoreView},
};

/// Returns the revision that was rolled back, if `onFailure` is still `Rollback`.
pub fn refused<'a>(
    spec: &SyncedSecretSpec,
    status: Option<&'a RotationStatus>,
) -> Option<&'a RefusedRevision> {
    rolls_back(spec).then_some(status?.refused.as_ref()?)
}

fn rolls_back(spec: &SyncedSecretSpec) -> bool {
    let rollout = spec
        .rotation
        .as_ref()
        .and_then(|rotation| rotation.rollout.as_ref());
    rollout.is_some_and(|rollout| rollout.on_failure == OnFailure::Rollback)
}

/// Records the rejected revision and the one that replaces it.
pub(super) fn refuse(
    target: &TargetStatus,
    sources: &[SourceStatus],
    pinned: PreviousRevision,
    message: String,
    rolled_back_time: Timestamp,
) -> RefusedRevision {
    RefusedRevision {
        revision: target.revision.clone(),
        fingerprint: target.fingerprint.clone(),
        key_id: target.key_id.clone(),
        revision_hash: target.revision_hash.clone(),
        sources: sources.to_vec(),
        pinned,
        rolled_back_time,
        message,
    }
}

/// Returns what identifies a remote value at a version.
fn at(source: &SourceStatus) -> (&StoreRef, &str, Option<&str>) {
    (&source.store, &source.key, source.version.as_deref())
}

/// Whether both lists contain the same remote values at the same versions.
pub(super) fn are_same(one: &[SourceStatus], other: &[SourceStatus]) -> bool {
    let one: BTreeSet<_> = one.iter().map(at).collect();
    one == other.iter().map(at).collect()
}

/// Whether the sources still have the rejected values: every version that is in the failed revision
/// but not in the one before is still current. Changes of the spec do not matter.
pub fn still_says(refused: &RefusedRevision, fingerprint: &str, sources: &[SourceStatus]) -> bool {
    let good: BTreeSet<_> = refused.pinned.sources.iter().map(at).collect();
    let mut bad = refused
        .sources
        .iter()
        .map(at)
        .filter(|source| !good.contains(source))
        .peekable();
    let now: BTreeSet<_> = sources.iter().map(at).collect();
    refused.fingerprint == fingerprint || bad.peek().is_some() && bad.all(|source| now.contains(&source))
}

/// Returns a spec that reads these versions instead of the current ones. Sources are identified by
/// their location.
pub fn pin(
    spec: &SyncedSecretSpec,
    stores: &BTreeMap<StoreRef, StoreView>,
    sources: &[SourceStatus],
) -> SyncedSecretSpec {
    let location = |own: Option<&StoreRef>, key: &str| {
        let store = spec::store_ref(spec, own)?;
        let location = spec::location_of(stores, store, key);
        let key = location.map_or_else(|| key.to_owned(), |location| location.to_string());
        Some((store.clone(), key))
    };
    // a version that the spec itself names was not the current one
    let of_data = spec.data.iter().filter_map(|entry| {
        let reference = entry.remote_ref.as_ref()?;
        Some((
            entry.secret_store_ref.as_ref(),
            &reference.key,
            reference.version.as_ref()?,
        ))
    });
    let of_extracts = spec.data_from.iter().filter_map(|entry| {
        let extract = entry.extract.as_ref()?;
        Some((
            entry.secret_store_ref.as_ref(),
            &extract.key,
            extract.version.as_ref()?,
        ))
    });
    let named: BTreeSet<(StoreRef, String, &str)> = of_data
        .chain(of_extracts)
        .filter_map(|(own, key, version)| {
            let (store, key) = location(own, key)?;
            Some((store, key, version.as_str()))
        })
        .collect();
    let mut versions: BTreeMap<(&StoreRef, &str), &String> = BTreeMap::new();
    for source in sources {
        let Some(version) = &source.version else { continue };
        let place = (&source.store, source.key.as_str());
        if named.contains(&(source.store.clone(), source.key.clone(), version)) {
            versions.entry(place).or_insert(version);
        } else {
            versions.insert(place, version);
        }
    }
    let version = |own: Option<&StoreRef>, key: &str| {
        let (store, key) = location(own, key)?;
        versions
            .get(&(&store, key.as_str()))
            .map(|version| (*version).clone())
    };
    let mut pinned = spec.clone();
    for entry in &mut pinned.data {
        let own = entry.secret_store_ref.as_ref();
        if let Some(reference) = entry
            .remote_ref
            .as_mut()
            .filter(|reference| reference.version.is_none())
        {
            reference.version = version(own, &reference.key);
        }
    }
    for entry in &mut pinned.data_from {
        let own = entry.secret_store_ref.as_ref();
        if let Some(extract) = entry.extract.as_mut().filter(|extract| extract.version.is_none()) {
            extract.version = version(own, &extract.key);
        }
    }
    pinned
}

/// Checks that a rollback will be possible, as far as the spec shows.
///
/// # Errors
/// When `onFailure` is `Rollback` and an entry cannot be read at an earlier version.
pub fn check(spec: &SyncedSecretSpec) -> Result<(), Failure> {
    if !rolls_back(spec) {
        return Ok(());
    }
    let refuse = |place: String, why: &str| {
        Err(Failure::new(
            Reason::InvalidSpec,
            format!(
                "rotation.rollout.onFailure: Rollback needs values that have versions, but {place} {why}. Use Hold"
            ),
        ))
    };
    for (index, entry) in spec.data_from.iter().enumerate() {
        if entry.find.is_some() {
            let place = spec::data_from_place(index, entry);
            return refuse(place, "is a search, which has no versions");
        }
        if entry.generate.is_some() {
            let place = spec::data_from_place(index, entry);
            return refuse(place, "issues a credential, which cannot be read again");
        }
    }
    let fetches = |policy| policy == lockstep_api::MetadataPolicy::Fetch;
    let metadata = spec.data.iter().position(|entry| {
        entry
            .remote_ref
            .as_ref()
            .is_some_and(|reference| fetches(reference.metadata_policy))
    });
    if let Some(index) = metadata {
        let place = spec::data_place(index, &spec.data[index].secret_key);
        return refuse(place, "reads metadata, which has no versions");
    }
    let extracted = spec.data_from.iter().position(|entry| {
        entry
            .extract
            .as_ref()
            .is_some_and(|extract| fetches(extract.metadata_policy))
    });
    if let Some(index) = extracted {
        let place = spec::data_from_place(index, &spec.data_from[index]);
        return refuse(place, "reads metadata, which has no versions");
    }
    Ok(())
}

/// Checks that the stores returned versions for a rollback.
///
/// # Errors
/// When `onFailure` is `Rollback` and a store has no versions, or there are too many sources for
/// the status.
pub fn check_sources(spec: &SyncedSecretSpec, sources: &[SourceStatus]) -> Result<(), Failure> {
    if !rolls_back(spec) {
        return Ok(());
    }
    if sources.len() > MAX_SOURCES {
        return Err(Failure::new(
            Reason::InvalidSpec,
            format!(
                "rotation.rollout.onFailure: Rollback supports at most {MAX_SOURCES} remote values, but there are {}. Use Hold, or several SyncedSecrets",
                sources.len()
            ),
        ));
    }
    match sources.iter().find(|source| source.version.is_none()) {
        None => Ok(()),
        Some(source) => Err(Failure::new(
            Reason::Unsupported,
            format!(
                "rotation.rollout.onFailure: Rollback needs values that have versions, but {} has none of \"{}\". Use Hold",
                source.store, source.key
            ),
        )),
    }
}
