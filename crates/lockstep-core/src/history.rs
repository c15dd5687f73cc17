//! Records the revision history in the status, and measures how long a change took.
//!
//! Both are derived from the status before and after a reconcile. They are therefore correct after
//! a restart, and need no extra write.

use std::time::Duration;

use jiff::Timestamp;
use lockstep_api::{RevisionRecord, RolloutPhase, SourceStatus, SyncedSecretStatus};

use crate::time::to_seconds;

/// Maximum number of sources in a status.
pub const MAX_SOURCES: usize = 64;
/// Maximum number of revisions in a status.
pub const MAX_RECORDS: usize = 10;
/// Maximum number of changed sources in one record.
const MAX_CHANGED: usize = 4;

/// Returns the history after the change from `old` to `new`, the newest revision first. Adds a
/// record if the revision changed, and copies the rollout's progress into the newest record.
pub fn update(old: &SyncedSecretStatus, new: &SyncedSecretStatus, now: Timestamp) -> Vec<RevisionRecord> {
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
        // the first sync is not a change
        let mut changed_sources = if records.is_empty() {
            Vec::new()
        } else {
            find_changed(&old.sources, &new.sources)
        };
        let changed_count = i64::try_from(changed_sources.len()).ok();
        changed_sources.truncate(MAX_CHANGED);
        let noticed_time = old.rotation.as_ref().and_then(|rotation| rotation.noticed_time);
        let record = RevisionRecord {
            revision: target.revision.clone(),
            noticed_time,
            written_time: to_seconds(now),
            rollback: rollout.is_some_and(|rollout| rollout.rollback && rollout.revision == target.revision),
            changed: changed_sources,
            changed_count,
            ..RevisionRecord::default()
        };
        records.insert(0, record);
        records.truncate(MAX_RECORDS);
    }
    let own_rollout = rollout.filter(|rollout| rollout.revision == target.revision);
    if let (Some(newest), Some(rollout)) = (records.first_mut(), own_rollout) {
        newest.rollout = Some(rollout.phase);
        newest.target_count = i64::try_from(rollout.targets.len()).ok();
        newest.end_time = rollout.end_time;
        // keep the reason why the rollout was held, even if it continued later
        if rollout.message.is_some() {
            newest.message.clone_from(&rollout.message);
        }
    }
    records
}

/// Returns the sources that are new or changed.
fn find_changed(old: &[SourceStatus], new: &[SourceStatus]) -> Vec<SourceStatus> {
    let before: std::collections::BTreeSet<&SourceStatus> = old.iter().collect();
    new.iter()
        .filter(|source| !before.contains(source))
        .cloned()
        .collect()
}

/// A stage that a change reaches on its way from the source to the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Stage {
    /// lockstep noticed the change.
    Noticed,
    /// The change was written to the Secret.
    Written,
    /// Every target runs on the change.
    Ready,
}

impl Stage {
    /// Returns the label in metrics.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

/// Returns the stages that a change reached between two statuses, with the time since it was made
/// at its source. Empty for the first sync, for a rollback, and if the source does not report the
/// time of the change.
pub fn reached(
    old: Option<&SyncedSecretStatus>,
    new: &SyncedSecretStatus,
    now: Timestamp,
) -> Vec<(Stage, Duration)> {
    let mut reached = Vec::new();
    let (Some(old), Some(record)) = (old, new.history.first()) else {
        return reached;
    };
    // the first sync leaves one record
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
    // the clock of the source may be ahead, so a negative duration counts as zero
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
