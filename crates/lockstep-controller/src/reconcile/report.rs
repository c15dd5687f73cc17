//! What is said of a reconcile: the status, and an event.

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

/// The metadata that the API server answers with.
pub(super) const METADATA_ONLY: HeaderValue = HeaderValue::from_static(secret::METADATA_ONLY);

/// What became of a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatusWrite {
    /// It stands in the API server.
    Persisted,
    /// It could not be written, or the object is gone, or somebody else wrote another meanwhile.
    Lost,
}

/// What a write of a status came to.
enum Write {
    /// It stands there; the object's version since.
    Done(Option<String>),
    /// The object is gone.
    Gone,
    /// Another status stands there than the one that this one follows: another process went on.
    Superseded,
    /// Anything else.
    Failed,
}

/// How often a status is written again because something else of the object changed at the same time.
const WRITES_AT_MOST: usize = 5;
/// How soon an object is looked at again of which another process wrote the status.
const SUPERSEDED_PAUSE: Duration = Duration::from_secs(1);

impl Reconcile {
    /// Writes the status, when it changed, and an event, when somebody should know.
    pub(super) async fn report(&self, old: Option<&SyncedSecretStatus>, outcome: Outcome<'_>) {
        self.report_durably(old, outcome).await;
    }

    /// The same, and whether it will be found there after a restart.
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
            // the object is gone: nobody is left to be told
            Write::Gone => ("ok", StatusWrite::Lost),
            Write::Superseded => {
                tracing::info!("another process wrote the status meanwhile: what this one found is dropped");
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

    /// Writes the status in the place of the one that it follows, and of no other: a process that slept while another went on must
    /// not bring back what it knew. A change of anything else of the object, such as an edit of the spec, is no obstacle.
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
                // an earlier request wrote it, and its answer was lost
                return Write::Done(version);
            }
            if found.status.as_ref() != old {
                return Write::Superseded;
            }
        }
        Write::Failed
    }

    /// Patches the status of that version of the object. The answer is metadata only: of the object, that is all that is new.
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

    /// One event for each phase of a rollout, wave by wave.
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
        // a first success is in the status, and costs no third write
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

    /// An event that no condition stands for.
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

/// The status as a merge patch: what is no longer there has to be said.
fn replaced(old: Option<&SyncedSecretStatus>, new: &SyncedSecretStatus) -> serde_json::Value {
    let mut patch = serde_json::to_value(new).unwrap_or_default();
    let before = serde_json::to_value(old).unwrap_or_default();
    forget(&before, &mut patch);
    patch
}

/// Names every field that goes away, in nested objects too: a merge patch would leave it.
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
