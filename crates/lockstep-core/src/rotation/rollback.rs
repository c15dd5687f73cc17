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
    remote::Part,
    spec::{self, Source, StoreView},
};

/// Returns the revision that was rolled back, if `onFailure` is still `Rollback`.
pub fn refused<'a>(
    spec: &SyncedSecretSpec,
    status: Option<&'a RotationStatus>,
) -> Option<&'a RefusedRevision> {
    rolls_back(spec).then_some(status?.refused.as_ref()?)
}

fn rolls_back(spec: &SyncedSecretSpec) -> bool {
    spec::rollout(spec).is_some_and(|rollout| rollout.on_failure == OnFailure::Rollback)
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
fn version_of(source: &SourceStatus) -> (&StoreRef, &str, Option<&str>) {
    (&source.store, &source.key, source.version.as_deref())
}

/// Whether both lists contain the same remote values at the same versions.
pub(super) fn are_same(one: &[SourceStatus], other: &[SourceStatus]) -> bool {
    let one: BTreeSet<_> = one.iter().map(version_of).collect();
    one == other.iter().map(version_of).collect()
}

/// Whether the sources still have the rejected values: every version that is in the failed revision
/// but not in the one before is still current. Changes of the spec do not matter.
pub fn is_still_refused(refused: &RefusedRevision, fingerprint: &str, sources: &[SourceStatus]) -> bool {
    let good: BTreeSet<_> = refused.pinned.sources.iter().map(version_of).collect();
    let mut bad = refused
        .sources
        .iter()
        .map(version_of)
        .filter(|source| !good.contains(source))
        .peekable();
    let now: BTreeSet<_> = sources.iter().map(version_of).collect();
    refused.fingerprint == fingerprint || bad.peek().is_some() && bad.all(|source| now.contains(&source))
}

/// Returns a spec that reads these versions instead of the current ones. Sources are identified by
/// their location.
pub fn pin(
    spec: &SyncedSecretSpec,
    stores: &BTreeMap<StoreRef, StoreView>,
    sources: &[SourceStatus],
) -> SyncedSecretSpec {
    let references: Vec<_> = spec::entries(spec)
        .map(|entry| {
            let entry = entry.ok()?;
            let reference = entry.reference()?;
            let locator = stores
                .get(entry.store)
                .and_then(|view| view.locator.as_ref().ok());
            let located = locator.and_then(|locator| locator.locate(reference.key, None).ok());
            let key = located.map_or_else(
                || reference.key.to_owned(),
                |located| located.location.to_string(),
            );
            Some((entry.store, key, reference.version))
        })
        .collect();
    let mut versions: BTreeMap<(&StoreRef, &str), &String> = BTreeMap::new();
    for source in sources {
        let Some(version) = &source.version else { continue };
        let place = (&source.store, source.key.as_str());
        // a version that the spec itself names was not the current one
        let is_named = references
            .iter()
            .flatten()
            .any(|(store, key, named)| (*store, &**key) == place && *named == Some(version));
        if is_named {
            versions.entry(place).or_insert(version);
        } else {
            versions.insert(place, version);
        }
    }
    let mut pinned = spec.clone();
    for (version, reference) in spec::versions_mut(&mut pinned).zip(&references) {
        if let (Some(version @ None), Some((store, key, _))) = (version, reference) {
            *version = versions.get(&(*store, &**key)).map(|version| (*version).clone());
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
    for entry in spec::entries(spec).flatten() {
        let why = match entry.source {
            Source::Search(_) => "is a search, which has no versions",
            Source::Generated(_) => "issues a credential, which cannot be read again",
            Source::Value(_, reference) | Source::Fields(reference) if reference.part == Part::Metadata => {
                "reads metadata, which has no versions"
            }
            Source::Value(..) | Source::Fields(_) | Source::Ciphertext { .. } => continue,
        };
        return Err(Failure::new(
            Reason::InvalidSpec,
            format!(
                "rotation.rollout.onFailure: Rollback needs values that have versions, but {} {why}. Use Hold",
                entry.path
            ),
        ));
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
