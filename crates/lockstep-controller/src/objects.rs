//! The in-memory state of each SyncedSecret. All of it may be lost at any time.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use lockstep_api::{
    ConditionStatus, ConditionType, RolloutPhase, RolloutStatus, SyncedSecret, SyncedSecretStatus,
    TargetState,
};
use lockstep_core::{
    lease,
    reconcile::{Marks, Memory},
    rotation,
};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::index::ObjectKey;

/// The state of one SyncedSecret.
#[derive(Debug, Default)]
pub struct Tracked {
    uid: String,
    /// The memory that decisions depend on. A reconcile of the object updates it when it ends.
    pub memory: Memory,
    /// Marks that were set since the last reconcile started.
    pub marks: Marks,
    /// The last status that was written, until the watch delivers it.
    written: Option<(u64, Arc<SyncedSecretStatus>)>,
    /// The newest version that the watch delivered.
    seen: u64,
    deleted: Deleted,
    sample: Sample,
}

/// Cancelled when the object is being deleted, and when it is forgotten.
#[derive(Debug, Default)]
struct Deleted(CancellationToken);

impl Drop for Deleted {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// What the metrics say about one SyncedSecret. Times are Unix time, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// Whether it is Ready.
    pub ready: bool,
    /// When it last succeeded in this process.
    pub last_success: Option<i64>,
    /// When the content of the Secret last changed.
    pub last_change: Option<i64>,
    /// When the oldest source version was created.
    pub source_created: Option<i64>,
    /// When the sources are read next.
    pub next_refresh: Option<i64>,
    /// Since when a changed value has been waiting for a window.
    pub pending_since: Option<i64>,
    /// When that window opens.
    pub next_window: Option<i64>,
    /// When the lease of the credential in the Secret expires unless it is renewed.
    pub lease_expiry: Option<i64>,
    /// Whether a source version is older than `maxAge`; `None` without rotation.
    pub overdue: Option<bool>,
    /// The rollout of the Secret's revision.
    pub rollout: Option<RolloutSample>,
}

/// The metrics of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RolloutSample {
    /// The phase of the rollout.
    pub phase: RolloutPhase,
    /// The current wave.
    pub wave: i64,
    targets: [i64; TargetState::ALL.len()],
}

impl RolloutSample {
    fn of(rollout: &RolloutStatus) -> Self {
        let mut targets = [0; TargetState::ALL.len()];
        for target in &rollout.targets {
            if let Some(count) = targets.get_mut(target.state as usize) {
                *count += 1;
            }
        }
        Self {
            phase: rollout.phase,
            wave: rollout.wave,
            targets,
        }
    }

    /// Returns the number of targets in each state. States without targets are omitted.
    pub fn states(self) -> impl Iterator<Item = (TargetState, i64)> {
        TargetState::ALL
            .iter()
            .copied()
            .zip(self.targets)
            .filter(|(_, count)| *count > 0)
    }
}

/// The state of all SyncedSecrets.
#[derive(Debug, Default)]
pub struct Objects(Mutex<HashMap<ObjectKey, Tracked>>);

impl Objects {
    /// Reads or changes the state of an object. A new uid is a new object.
    pub fn with<T>(&self, key: &ObjectKey, uid: &str, change: impl FnOnce(&mut Tracked) -> T) -> T {
        let mut objects = self.0.lock();
        let tracked = objects.entry(key.clone()).or_default();
        if tracked.uid != uid {
            *tracked = Tracked {
                uid: uid.to_owned(),
                ..Tracked::default()
            };
        }
        change(tracked)
    }

    /// Marks objects that have a changed dependency.
    pub fn mark_dirty<'a>(&self, keys: impl IntoIterator<Item = &'a ObjectKey>) {
        let mut objects = self.0.lock();
        for key in keys {
            if let Some(tracked) = objects.get_mut(key) {
                tracked.marks.dirty = true;
            }
        }
    }

    /// Marks an object for which a store reported a change: of one of its values, or of an unknown
    /// value if `any`. It works even before the object's first reconcile.
    pub fn mark_hinted(&self, key: &ObjectKey, uid: &str, any: bool) {
        self.with(key, uid, |tracked| {
            if any {
                tracked.marks.dirty = true;
            } else {
                tracked.marks.hinted = true;
            }
        });
    }

    /// Makes a probe of the object's Secret due now.
    pub fn request_probe(&self, key: &ObjectKey, now: &Timestamp) {
        if let Some(tracked) = self.0.lock().get_mut(key) {
            tracked.marks.probe_at = Some(*now);
        }
    }

    /// Records that the watch delivered this version of an object. An older written status is no
    /// longer needed.
    pub fn observe(&self, key: &ObjectKey, object: &SyncedSecret) {
        if let Some(tracked) = self.0.lock().get_mut(key) {
            tracked.observe(object);
        }
    }

    /// Removes an object and its metrics.
    pub fn remove(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }

    /// Returns the metrics of all objects, sorted by name.
    pub fn samples(&self) -> Vec<(ObjectKey, Sample)> {
        let mut samples: Vec<_> = self
            .0
            .lock()
            .iter()
            .map(|(key, tracked)| (key.clone(), tracked.sample()))
            .collect();
        samples.sort_by(|a, b| a.0.cmp(&b.0));
        samples
    }
}

impl Tracked {
    /// Returns the status of an object: the one that was last written if the watch has not
    /// delivered it yet.
    pub fn status(&mut self, object: &SyncedSecret) -> Option<Arc<SyncedSecretStatus>> {
        self.observe(object);
        match &self.written {
            Some((_, status)) => Some(status.clone()),
            None => object.status.clone().map(Arc::new),
        }
    }

    /// Returns the version of the object that [`Self::status`] belongs to.
    pub fn version(&self, object: &SyncedSecret) -> Option<String> {
        match &self.written {
            Some((version, _)) => Some(version.to_string()),
            None => object.metadata.resource_version.clone(),
        }
    }

    /// Whether the watch delivered a newer version of the object. The status of this one is then
    /// outdated, and the written one may be gone, so nothing can be decided.
    pub fn is_stale(&self, object: &SyncedSecret) -> bool {
        version_of(object.metadata.resource_version.as_deref()) < self.seen && self.written.is_none()
    }

    /// Ends reads for an object that is deleted meanwhile.
    pub fn deleted(&self) -> CancellationToken {
        self.deleted.0.clone()
    }

    fn observe(&mut self, object: &SyncedSecret) {
        if object.metadata.deletion_timestamp.is_some() {
            self.deleted.0.cancel();
        }
        self.seen = self
            .seen
            .max(version_of(object.metadata.resource_version.as_deref()));
        if self
            .written
            .as_ref()
            .is_some_and(|(version, _)| self.seen >= *version)
        {
            self.written = None;
        }
    }

    /// Records a status that was written, and the resulting version of the object.
    pub fn note_written(&mut self, resource_version: Option<&str>, status: Arc<SyncedSecretStatus>) {
        let version = version_of(resource_version);
        // The watch can be faster than the response to the write.
        self.written = (version > self.seen).then_some((version, status));
    }

    /// Records a successful sync.
    pub fn note_success(&mut self, now: Timestamp) {
        self.sample.last_success = Some(now.as_second());
    }

    /// Records the metrics that the status contains.
    pub fn note_status(&mut self, status: &SyncedSecretStatus) {
        let seconds = |time: Option<Timestamp>| time.map(Timestamp::as_second);
        self.sample.ready = status
            .condition(ConditionType::Ready)
            .is_some_and(|condition| condition.status == ConditionStatus::True);
        let target = status.target.as_ref();
        self.sample.last_change = seconds(target.and_then(|target| target.last_change_time));
        let rotation = status.rotation.as_ref();
        self.sample.pending_since = seconds(rotation.and_then(|rotation| rotation.noticed_time));
        self.sample.next_window = seconds(rotation.and_then(|rotation| rotation.next_window_time));
        self.sample.overdue = rotation.map(|_| status.condition(ConditionType::RotationOverdue).is_some());
        self.sample.rollout = rotation
            .and_then(|rotation| rotation.rollout.as_ref())
            .map(RolloutSample::of);
        self.sample.lease_expiry = seconds(lease::expiry(status.lease.as_ref()));
        self.sample.source_created =
            rotation::oldest(&status.sources).map(|(_, created)| created.as_second());
    }

    fn sample(&self) -> Sample {
        let next = self.memory.retry_at.or(self.memory.next_refresh);
        Sample {
            next_refresh: next.map(Timestamp::as_second),
            ..self.sample
        }
    }
}

/// Parses a resource version. Kubernetes guarantees that versions of one resource can be compared
/// as numbers. Anything else counts as the oldest.
fn version_of(resource_version: Option<&str>) -> u64 {
    resource_version
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn object(version: &str, generation: Option<i64>) -> SyncedSecret {
        let mut object = SyncedSecret::default();
        object.metadata.resource_version = Some(version.to_owned());
        object.status = Some(status(generation));
        object
    }

    fn status(generation: Option<i64>) -> SyncedSecretStatus {
        SyncedSecretStatus {
            observed_generation: generation,
            ..SyncedSecretStatus::default()
        }
    }

    #[test]
    fn deletion_ends_reads_of_the_object_only() {
        let (key, objects) = (ObjectKey::new("shop", "database"), Objects::default());
        let deleted = || objects.with(&key, "uid", |tracked| tracked.deleted());
        let mut object = object("9", Some(1));
        objects.observe(&key, &object);
        let first = deleted();
        objects.observe(&key, &object);
        assert!(!first.is_cancelled());
        object.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        objects.observe(&key, &object);
        assert!(first.is_cancelled());
        let second = objects.with(&key, "another", |tracked| tracked.deleted());
        assert!(!second.is_cancelled());
        objects.remove(&key);
        assert!(second.is_cancelled());
    }

    #[test]
    fn the_status_that_was_written_counts_until_the_watch_has_brought_it_back() {
        let (key, objects) = (ObjectKey::new("shop", "database"), Objects::default());
        let (before, after) = (object("9", Some(1)), object("10", Some(2)));
        objects.with(&key, "uid", |tracked| {
            tracked.note_written(Some("10"), Arc::new(status(Some(2))));
            assert_eq!(tracked.status(&before), Some(Arc::new(status(Some(2)))));
            assert_eq!(tracked.version(&before).as_deref(), Some("10"));
            assert!(!tracked.is_stale(&before));
        });
        objects.observe(&key, &after);
        objects.with(&key, "uid", |tracked| {
            assert!(tracked.is_stale(&before), "its status is not the last one");
            assert!(!tracked.is_stale(&after));
            assert_eq!(tracked.status(&after), Some(Arc::new(status(Some(2)))));
            assert_eq!(tracked.version(&after).as_deref(), Some("10"));
        });
    }

    #[test]
    fn watch_faster_than_the_response_leaves_no_stale_status() {
        let (key, objects) = (ObjectKey::new("shop", "database"), Objects::default());
        let (before, after) = (object("9", Some(1)), object("10", Some(2)));
        objects.with(&key, "uid", |tracked| tracked.status(&before));
        objects.observe(&key, &after);
        objects.with(&key, "uid", |tracked| {
            tracked.note_written(Some("10"), Arc::new(status(Some(2))));
            assert!(tracked.is_stale(&before));
            assert_eq!(tracked.status(&after), Some(Arc::new(status(Some(2)))));
        });
    }
}
