//! What was written, when, why, and what became of it; and how long a change took on its way.
//!
//! Both follow from two statuses, the one before and the one after: so they are right after a restart too, and cost no write of
//! their own.

use std::time::Duration;

use jiff::Timestamp;
use lockstep_api::{RevisionRecord, RolloutPhase, SourceStatus, SyncedSecretStatus};

use crate::time::to_seconds;

/// How many sources a status lists.
pub const MAX_SOURCES: usize = 64;
/// How many revisions a status remembers.
pub const MAX_RECORDS: usize = 10;
/// How many of the sources that changed a record lists.
const MAX_CHANGED: usize = 4;

/// The history once the status is otherwise as `new` says: newest first.
pub fn note(old: &SyncedSecretStatus, new: &SyncedSecretStatus, now: Timestamp) -> Vec<RevisionRecord> {
    let mut records = old.history.clone();
    let Some(target) = new.target.as_ref().filter(|target| !target.revision.is_empty()) else {
        return records;
    };
    let rollout = new
        .rotation
        .as_ref()
        .and_then(|rotation| rotation.rollout.as_ref());
    if records
        .first()
        .is_none_or(|newest| newest.revision != target.revision)
    {
        // a first sync changes nothing
        let mut changed = if records.is_empty() {
            Vec::new()
        } else {
            changed(&old.sources, &new.sources)
        };
        let changed_count = i64::try_from(changed.len()).ok();
        changed.truncate(MAX_CHANGED);
        let waited = old.rotation.as_ref().and_then(|rotation| rotation.noticed_time);
        let record = RevisionRecord {
            revision: target.revision.clone(),
            noticed_time: waited,
            written_time: to_seconds(now),
            rollback: rollout.is_some_and(|rollout| rollout.rollback && rollout.revision == target.revision),
            changed,
            changed_count,
            ..RevisionRecord::default()
        };
        records.insert(0, record);
        records.truncate(MAX_RECORDS);
    }
    let of = rollout.filter(|rollout| rollout.revision == target.revision);
    if let (Some(newest), Some(rollout)) = (records.first_mut(), of) {
        newest.rollout = Some(rollout.phase);
        newest.target_count = i64::try_from(rollout.targets.len()).ok();
        newest.end_time = rollout.end_time;
        // why it stood still once is worth knowing, also when it went on
        if rollout.message.is_some() {
            newest.message.clone_from(&rollout.message);
        }
    }
    records
}

/// The sources that the earlier ones do not have in the same version.
fn changed(old: &[SourceStatus], new: &[SourceStatus]) -> Vec<SourceStatus> {
    let before: std::collections::BTreeSet<&SourceStatus> = old.iter().collect();
    new.iter()
        .filter(|source| !before.contains(source))
        .cloned()
        .collect()
}

/// A station of a change on its way from the source to the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Stage {
    /// lockstep knows of it.
    Noticed,
    /// It is in the Secret.
    Written,
    /// Every target runs on it.
    Ready,
}

impl Stage {
    /// The label in metrics.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

/// The stages that a change reached between two statuses, and how long after it was made at its source. Nothing for a first sync,
/// which is no change, for a rollback, and where the source does not tell when it changed.
pub fn reached(
    old: Option<&SyncedSecretStatus>,
    new: &SyncedSecretStatus,
    now: Timestamp,
) -> Vec<(Stage, Duration)> {
    let mut reached = Vec::new();
    let (Some(old), Some(record)) = (old, new.history.first()) else {
        return reached;
    };
    // a first sync leaves one record
    if new.history.len() < 2 || record.rollback {
        return reached;
    }
    let created = record
        .changed
        .iter()
        .filter_map(|source| source.created_time)
        .max();
    let Some(created) = created else {
        return reached;
    };
    // clocks differ: what is known before it was made took no time
    let since = |at: Timestamp| Duration::try_from(at.duration_since(created)).unwrap_or_default();
    let before = old.history.first();
    if before
        .is_none_or(|before| before.written_time != record.written_time || before.revision != record.revision)
    {
        let noticed = record.noticed_time.unwrap_or(now);
        reached.push((Stage::Noticed, since(noticed.max(created))));
        reached.push((Stage::Written, since(now)));
    }
    let complete = |record: &RevisionRecord| record.rollout == Some(RolloutPhase::Complete);
    let was = before.is_some_and(|before| before.revision == record.revision && complete(before));
    if complete(record) && !was {
        reached.push((Stage::Ready, since(now)));
    }
    reached
}
