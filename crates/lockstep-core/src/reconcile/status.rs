//! Writes the status, and publishes what changed in it.

use std::{sync::Arc, time::Duration};

use lockstep_api::{Reason, SyncedSecretStatus, annotation};
use serde_json::Value;

use super::{
    effect::{CurrentStatus, Notice, Record, StatusAnswer, StatusPatch},
    memory::SecretState,
    notices,
    run::Run,
};
use crate::{
    Failure, history,
    remote::Requeue,
    report::{self, Outcome, Subject},
    time::later,
};

/// Whether a status was persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatusWrite {
    /// The API server has the status.
    Persisted,
    /// The status was not written, because of an error, a deleted object or another writer.
    Lost,
}

/// The result of writing a status.
enum Write {
    /// The status was written. Contains the new version of the object.
    Done(Option<String>),
    /// The object was deleted.
    Gone,
    /// Another process wrote a status since the known one.
    Superseded,
    /// Any other error.
    Failed,
}

/// Maximum number of attempts to write a status while other parts of the object change.
const MAX_ATTEMPTS: usize = 5;
/// Delay before an object is reconciled again after another process wrote its status.
const SUPERSEDED_PAUSE: Duration = Duration::from_secs(1);

impl Run {
    /// Writes the status if it changed, and events if users should know. Returns whether the status
    /// is persisted.
    pub(super) async fn report(&mut self, outcome: Outcome<'_>) -> StatusWrite {
        let old = self.status.clone();
        let now = self.moment().wall;
        let subject = Subject {
            generation: self.facts.generation(),
            refresh: self.facts.annotation(annotation::REFRESH),
            rotate_now: self.facts.annotation(annotation::ROTATE_NOW),
            rotation: self.facts.object.spec.rotation.as_ref(),
            target_name: self.facts.target_name(),
            old: old.as_deref(),
            drifted: self.memory.secret_state == SecretState::Drifted,
        };
        let describes_write = matches!(outcome, Outcome::Synced { .. });
        let status = report::report(&subject, outcome, now);
        if old.as_deref() == Some(&status) {
            return StatusWrite::Persisted;
        }
        let (label, written) = match self.write_status(old.as_deref(), &status).await {
            Write::Done(version) => {
                self.memory.next_report = None;
                self.persisted(old.as_deref(), Arc::new(status), version).await;
                ("ok", StatusWrite::Persisted)
            }
            // the object is gone, so there is nothing to report
            Write::Gone => ("ok", StatusWrite::Lost),
            Write::Superseded => {
                let soon = later(self.moment().wall, SUPERSEDED_PAUSE);
                let memory = &mut self.memory;
                memory.retry_at = Some(memory.retry_at.map_or(soon, |at| at.min(soon)));
                memory.next_report = Some(soon);
                ("superseded", StatusWrite::Lost)
            }
            Write::Failed => {
                let failure = Failure::new(Reason::WriteFailed, "the status could not be written");
                self.note_failure(&failure.requeued(Requeue::Backoff));
                self.memory.next_report = self.memory.retry_at;
                ("error", StatusWrite::Lost)
            }
        };
        if written == StatusWrite::Lost && describes_write {
            // the Secret may have been written, and no status describes it
            self.memory.begin_write();
        }
        self.record(Record::StatusWrite(label)).await;
        written
    }

    async fn persisted(
        &mut self,
        old: Option<&SyncedSecretStatus>,
        status: Arc<SyncedSecretStatus>,
        version: Option<String>,
    ) {
        self.resource_version.clone_from(&version);
        self.status = Some(status.clone());
        self.memory.keep_credential_of(&status);
        let record = Record::StatusPersisted {
            resource_version: version,
            status: status.clone(),
        };
        self.record(record).await;
        for (stage, took) in history::reached(old, &status, self.moment().wall) {
            self.record(Record::Propagation(stage.label(), took)).await;
        }
        for notice in notices::of(old, &status) {
            self.publish(notice).await;
        }
    }

    pub(super) async fn publish(&self, notice: Notice) {
        self.effects.publish(notice).await;
    }

    /// Replaces the known status, and no other: a process that was paused while another continued
    /// must not restore an old status. Other changes of the object, such as an edit of the spec, do
    /// not matter.
    async fn write_status(&mut self, old: Option<&SyncedSecretStatus>, status: &SyncedSecretStatus) -> Write {
        let patch = replaced(old, status);
        let mut resource_version = self.resource_version.clone();
        for _ in 0..MAX_ATTEMPTS {
            let attempt = StatusPatch {
                resource_version,
                patch: patch.clone(),
            };
            match self.effects.write_status(attempt).await {
                StatusAnswer::Written(version) => return Write::Done(version),
                StatusAnswer::NotFound => return Write::Gone,
                StatusAnswer::Failed => return Write::Failed,
                StatusAnswer::Conflict => {}
            }
            match self.effects.read_status(()).await {
                CurrentStatus::Gone => return Write::Gone,
                CurrentStatus::Failed => return Write::Failed,
                CurrentStatus::Found {
                    resource_version: current,
                    status: found,
                } => {
                    if found.as_deref() == Some(status) {
                        // an earlier request wrote it, and its response was lost
                        return Write::Done(current);
                    }
                    if found.as_deref() != old {
                        return Write::Superseded;
                    }
                    resource_version = current;
                }
            }
        }
        Write::Failed
    }
}

/// Returns the status as a merge patch, which names removed fields.
fn replaced(old: Option<&SyncedSecretStatus>, new: &SyncedSecretStatus) -> Value {
    let mut patch = serde_json::to_value(new).unwrap_or_default();
    let before = serde_json::to_value(old).unwrap_or_default();
    remove_missing(&before, &mut patch);
    patch
}

/// Sets every removed field to null, also in nested objects. Otherwise a merge patch keeps it.
fn remove_missing(before: &Value, patch: &mut Value) {
    let (Some(before), Some(patch)) = (before.as_object(), patch.as_object_mut()) else {
        return;
    };
    for (field, value) in before {
        match patch.get_mut(field) {
            Some(kept) => remove_missing(value, kept),
            None => {
                patch.insert(field.clone(), Value::Null);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use lockstep_api::{RotationPhase, RotationStatus};

    use serde_json::json;

    use super::*;

    const TIME: &str = "2026-01-01T00:00:00Z";

    #[test]
    fn patch_names_removed_fields_at_every_depth() {
        let status = |value| serde_json::from_value::<SyncedSecretStatus>(value).unwrap();
        let old = status(json!({
            "observedGeneration": 1,
            "rotation": {
                "phase": "Soaking", "pendingRevision": "b",
                "rollout": { "phase": "Soaking", "revision": "a", "startTime": TIME, "wave": 1, "soakEndTime": TIME },
            },
        }));
        let mut new = old.clone();
        new.observed_generation = None;
        if let Some(RotationStatus {
            phase,
            pending_revision,
            rollout: Some(rollout),
            ..
        }) = &mut new.rotation
        {
            *phase = RotationPhase::Complete;
            *pending_revision = None;
            rollout.soak_end_time = None;
        }
        let patch = replaced(Some(&old), &new);
        assert!(
            patch["observedGeneration"].is_null()
                && patch.as_object().unwrap().contains_key("observedGeneration")
        );
        let rotation = patch["rotation"].as_object().unwrap();
        assert!(rotation["pendingRevision"].is_null() && rotation.contains_key("pendingRevision"));
        let rollout = rotation["rollout"].as_object().unwrap();
        assert!(rollout["soakEndTime"].is_null() && rollout.contains_key("soakEndTime"));
        assert_eq!(rollout["wave"], 1);
    }
}
