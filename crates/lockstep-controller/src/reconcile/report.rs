//! Reports a reconcile in the status and in events.

use std::{sync::PoisonError, time::Duration};

use http::{HeaderValue, header};
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
    core::{PartialObjectMeta, request::Request},
    runtime::events::{Event, EventType},
};
use lockstep_api::{
    Condition, ConditionStatus, ConditionType, Reason, RolloutPhase, SyncedSecret, SyncedSecretStatus,
    annotation,
};
use lockstep_core::{
    Failure,
    decide::SecretState,
    history,
    remote::Requeue,
    report::{self, Outcome, Subject},
    text,
    time::later,
};
use serde_json::json;

use super::item::Reconcile;
use crate::secret::{self, WRITE_TIMEOUT};

/// The metadata in the response of the API server.
pub(super) const METADATA_ONLY: HeaderValue = HeaderValue::from_static(secret::METADATA_ONLY);

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
const WRITES_AT_MOST: usize = 5;
/// Delay before an object is reconciled again after another process wrote its status.
const SUPERSEDED_PAUSE: Duration = Duration::from_secs(1);

impl Reconcile {
    /// Writes the status if it changed, and an event if users should know.
    pub(super) async fn report(&self, old: Option<&SyncedSecretStatus>, outcome: Outcome<'_>) {
        self.report_durably(old, outcome).await;
    }

    /// Like [`Self::report`], and returns whether the status is persisted.
    pub(super) async fn report_durably(
        &self,
        old: Option<&SyncedSecretStatus>,
        outcome: Outcome<'_>,
    ) -> StatusWrite {
        let committed = self.committed();
        let old = committed.as_ref().or(old);
        let owner = self.owner();
        let subject = Subject {
            generation: self.object.metadata.generation.unwrap_or_default(),
            refresh: self.annotation(annotation::REFRESH),
            rotate_now: self.annotation(annotation::ROTATE_NOW),
            rotation: self.object.spec.rotation.as_ref(),
            target_name: owner.target,
            old,
            drifted: self.remember(|tracked, _, _| tracked.memory.belief == SecretState::Drifted),
        };
        let now = self.shared.clock.now();
        let status = report::report(&subject, outcome, now);
        if old == Some(&status) {
            return StatusWrite::Persisted;
        }
        let written = {
            let _slot = self.shared.writes.acquire(self.priority).await;
            tokio::time::timeout(WRITE_TIMEOUT, self.write_status(old, &status))
                .await
                .unwrap_or(Write::Failed)
        };
        let (outcome, said) = match written {
            Write::Done(version) => {
                self.version
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone_from(&version);
                *self.committed.lock().unwrap_or_else(PoisonError::into_inner) = Some(status.clone());
                self.remember(|tracked, _, _| {
                    tracked.note_status(&status);
                    tracked.note_written(version.as_deref(), status.clone());
                });
                for (stage, took) in history::reached(old, &status, now) {
                    let propagation = &self.shared.metrics.propagation;
                    propagation
                        .with_label_values(&[stage.label()])
                        .observe(took.as_secs_f64());
                }
                self.publish(old, &status).await;
                ("ok", StatusWrite::Persisted)
            }
            // the object is gone, so there is nothing to report
            Write::Gone => ("ok", StatusWrite::Lost),
            Write::Superseded => {
                tracing::info!("another process wrote the status; dropping the result of this reconcile");
                let soon = later(self.shared.clock.now(), SUPERSEDED_PAUSE);
                self.remember(|tracked, _, _| {
                    let memory = &mut tracked.memory;
                    memory.retry_at = Some(memory.retry_at.map_or(soon, |at| at.min(soon)));
                });
                ("superseded", StatusWrite::Lost)
            }
            Write::Failed => {
                tracing::warn!("the status could not be written");
                let failure = Failure::new(Reason::WriteFailed, "the status could not be written");
                let now = self.shared.clock.now();
                self.remember(|tracked, observed, _| {
                    tracked
                        .memory
                        .failed(&observed, &failure.requeued(Requeue::Backoff), now)
                });
                ("error", StatusWrite::Lost)
            }
        };
        self.shared.metrics.status.with_label_values(&[outcome]).inc();
        said
    }

    /// Replaces the known status, and no other: a process that was paused while another continued
    /// must not restore an old status. Other changes of the object, such as an edit of the spec, do
    /// not matter.
    async fn write_status(&self, old: Option<&SyncedSecretStatus>, status: &SyncedSecretStatus) -> Write {
        let patch = replaced(old, status);
        let mut version = {
            let version = self.version.lock().unwrap_or_else(PoisonError::into_inner);
            version.clone()
        };
        for _ in 0..WRITES_AT_MOST {
            match self.patch_status(version.as_deref(), &patch).await {
                Ok(meta) => return Write::Done(meta.metadata.resource_version),
                Err(kube::Error::Api(error)) if error.code == 404 => return Write::Gone,
                Err(kube::Error::Api(error)) if error.code == 409 => {}
                Err(_) => return Write::Failed,
            }
            let api: Api<SyncedSecret> = Api::namespaced(self.shared.client.clone(), &self.key.namespace);
            let found = match api.get_opt(&self.key.name).await {
                Ok(Some(found)) if found.metadata.uid.as_deref() == Some(&self.uid) => found,
                Ok(_) => return Write::Gone,
                Err(_) => return Write::Failed,
            };
            version = found.metadata.resource_version;
            if found.status.as_ref() == Some(status) {
                // an earlier request wrote it, and its response was lost
                return Write::Done(version);
            }
            if found.status.as_ref() != old {
                return Write::Superseded;
            }
        }
        Write::Failed
    }

    /// Patches the status of a version of the object. The response contains only metadata.
    async fn patch_status(
        &self,
        version: Option<&str>,
        status: &serde_json::Value,
    ) -> kube::Result<PartialObjectMeta<SyncedSecret>> {
        let params = PatchParams {
            field_manager: Some(annotation::MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let mut body = json!({ "status": status });
        if let Some(version) = version {
            body["metadata"] = json!({ "resourceVersion": version });
        }
        let patch = Patch::Merge(body);
        let objects = Request::new(SyncedSecret::url_path(&(), Some(&self.key.namespace)));
        let mut request = objects
            .patch_subresource("status", &self.key.name, &params, &patch)
            .map_err(kube::Error::BuildRequest)?;
        request.headers_mut().insert(header::ACCEPT, METADATA_ONLY);
        self.shared.client.request(request).await
    }

    async fn publish(&self, old: Option<&SyncedSecretStatus>, status: &SyncedSecretStatus) {
        self.publish_ready(old, status).await;
        for (kind, type_) in [
            (ConditionType::RotationPending, EventType::Normal),
            (ConditionType::RotationOverdue, EventType::Warning),
        ] {
            let before = old.and_then(|old| old.condition(kind));
            if let Some(begun) = status.condition(kind).filter(|_| before.is_none()) {
                self.say(type_, "Rotate", begun).await;
            }
        }
        self.publish_rollout(old, status).await;
        self.publish_leases(old, status).await;
    }

    /// Publishes an event for each phase of a rollout, wave by wave.
    async fn publish_rollout(&self, old: Option<&SyncedSecretStatus>, status: &SyncedSecretStatus) {
        let rollout = |status: &SyncedSecretStatus| {
            let rollout = status.rotation.as_ref()?.rollout.as_ref()?;
            Some((
                rollout.phase,
                rollout.revision.clone(),
                rollout.wave,
                rollout.rollback,
            ))
        };
        let Some(now) = rollout(status) else { return };
        if old.and_then(rollout).as_ref() == Some(&now) {
            return;
        }
        if let Some(condition) = status.condition(ConditionType::RolloutComplete) {
            let type_ = match now.0 {
                RolloutPhase::Held | RolloutPhase::RollingBack | RolloutPhase::RolledBack => {
                    EventType::Warning
                }
                RolloutPhase::Progressing
                | RolloutPhase::Soaking
                | RolloutPhase::Verifying
                | RolloutPhase::Complete => EventType::Normal,
            };
            self.say(type_, "RollOut", condition).await;
        }
    }

    async fn publish_ready(&self, old: Option<&SyncedSecretStatus>, status: &SyncedSecretStatus) {
        let Some(ready) = status.condition(ConditionType::Ready) else {
            return;
        };
        let before = old.and_then(|old| old.condition(ConditionType::Ready));
        let revision =
            |status: &SyncedSecretStatus| status.target.as_ref().map(|target| target.revision.clone());
        let turned =
            before.is_none_or(|before| before.status != ready.status || before.reason != ready.reason);
        let rewritten = old.is_some_and(|old| revision(old) != revision(status));
        // a first success is in the status; an event would be a third write
        if !(turned || rewritten) || (before.is_none() && ready.status == ConditionStatus::True) {
            return;
        }
        let type_ = if ready.status == ConditionStatus::True {
            EventType::Normal
        } else {
            EventType::Warning
        };
        self.say(type_, "Sync", ready).await;
    }

    async fn say(&self, type_: EventType, action: &str, condition: &Condition) {
        self.emit(type_, condition.reason.clone(), action, &condition.message)
            .await;
    }

    /// Publishes an event that has no condition.
    pub(super) async fn announce(&self, type_: EventType, reason: Reason, action: &str, note: String) {
        self.emit(type_, reason.as_str().to_owned(), action, &note).await;
    }

    async fn emit(&self, type_: EventType, reason: String, action: &str, note: &str) {
        let event = Event {
            type_,
            reason,
            note: Some(text::escape(note).chars().take(1000).collect()),
            action: action.to_owned(),
            secondary: None,
        };
        let reference = self.object.object_ref(&());
        let publish = self.shared.recorder.publish(&event, &reference);
        if !matches!(
            tokio::time::timeout(Duration::from_secs(5), publish).await,
            Ok(Ok(()))
        ) {
            tracing::debug!("an event could not be published");
        }
    }
}

/// Returns the status as a merge patch, which names removed fields.
fn replaced(old: Option<&SyncedSecretStatus>, new: &SyncedSecretStatus) -> serde_json::Value {
    let mut patch = serde_json::to_value(new).unwrap_or_default();
    let before = serde_json::to_value(old).unwrap_or_default();
    forget(&before, &mut patch);
    patch
}

/// Sets every removed field to null, also in nested objects. Otherwise a merge patch keeps it.
fn forget(before: &serde_json::Value, patch: &mut serde_json::Value) {
    let (Some(before), Some(patch)) = (before.as_object(), patch.as_object_mut()) else {
        return;
    };
    for (field, value) in before {
        match patch.get_mut(field) {
            Some(kept) => forget(value, kept),
            None => {
                patch.insert(field.clone(), serde_json::Value::Null);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use lockstep_api::{RotationPhase, RotationStatus};

    use super::*;

    #[test]
    fn a_patch_names_what_goes_away_however_deep() {
        let status = |value| serde_json::from_value::<SyncedSecretStatus>(value).unwrap();
        let old = status(json!({
            "observedGeneration": 1,
            "rotation": {
                "phase": "Soaking", "pendingRevision": "b",
                "rollout": { "phase": "Soaking", "revision": "a", "startTime": "t", "wave": 1, "soakUntil": "t" },
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
            rollout.soak_until = None;
        }
        let patch = replaced(Some(&old), &new);
        assert!(
            patch["observedGeneration"].is_null()
                && patch.as_object().unwrap().contains_key("observedGeneration")
        );
        let rotation = patch["rotation"].as_object().unwrap();
        assert!(rotation["pendingRevision"].is_null() && rotation.contains_key("pendingRevision"));
        let rollout = rotation["rollout"].as_object().unwrap();
        assert!(rollout["soakUntil"].is_null() && rollout.contains_key("soakUntil"));
        assert_eq!(rollout["wave"], 1);
    }
}
