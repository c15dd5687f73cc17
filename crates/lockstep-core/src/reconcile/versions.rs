//! Restores and prunes the earlier Secrets of a versioned target.

use lockstep_api::{Reason, TargetStatus};

use super::{effect::Record, run::Run, status::StatusWrite};
use crate::{
    Failure,
    remote::Requeue,
    report::Outcome,
    rotation::{rollout::MAX_TARGETS, versions, workload::RolloutSecret},
    secret_write::{Drift, WriteError},
};

impl Run {
    /// Returns the earlier Secret of a revision if it still exists. Then a rollback reads and
    /// writes nothing.
    pub(super) async fn kept_version(&self, revision: &str) -> Result<Option<TargetStatus>, Failure> {
        let Some(status) = self.status.as_deref() else {
            return Ok(None);
        };
        let mut all = status.target.iter().chain(&status.versions);
        let Some(kept) = all.find(|kept| kept.revision == revision && self.facts.is_target(kept)) else {
            return Ok(None);
        };
        if kept.uid.is_empty() || kept.fingerprint.is_empty() {
            // it was recorded before it was written
            return Ok(None);
        }
        self.check_may_write()?;
        match self.find_drift(&kept.name, kept).await {
            Ok(Drift::None) => Ok(Some(kept.clone())),
            // a changed Secret is written again
            Ok(Drift::Edited | Drift::Gone) => Ok(None),
            Err(error) => Err(error.failure(&self.facts.owner_of(&kept.name))),
        }
    }

    /// Records the Secret of a revision before it is written.
    pub(super) async fn record_version(&mut self, name: &str, revision: &str) -> Result<(), Failure> {
        let Some(version) = versions::intend(self.status.as_deref(), name, revision) else {
            return Ok(());
        };
        self.record_target(version).await
    }

    /// Records a Secret in the status before it is written, or before it becomes immutable.
    pub(super) async fn record_target(&mut self, target: TargetStatus) -> Result<(), Failure> {
        let name = target.name.clone();
        if self.report(Outcome::Intends(target)).await == StatusWrite::Persisted {
            return Ok(());
        }
        let message = format!(
            "Secret \"{name}\" was not written, because it could not be recorded in the status first"
        );
        Err(Failure::new(Reason::WriteFailed, message).requeued(Requeue::Backoff))
    }

    /// Prunes the earlier Secrets beyond `revisionHistoryLimit` once every target is observed to
    /// run on the current one. It uses the status that this reconcile wrote or confirmed, because
    /// an older status could list the current Secret as an earlier one.
    pub(super) async fn prune_versions(&mut self) {
        let Some(status) = self.status.clone() else {
            return;
        };
        let target_spec = &self.facts.object.spec.target;
        let surplus = versions::beyond_history_limit(&status, target_spec);
        let rotation = self.facts.object.spec.rotation.as_ref();
        let rollout = rotation.and_then(|rotation| rotation.rollout.as_ref());
        let (Some(rollout), Some(target), false) = (rollout, &status.target, surplus.is_empty()) else {
            return;
        };
        if self.check_may_write().is_err() {
            return;
        }
        // an unobserved target may need any of them
        let Ok(found) = self.effects.find_targets(rollout.targets.clone()).await else {
            return;
        };
        if found.len() > MAX_TARGETS {
            return;
        }
        let secret = RolloutSecret {
            name: self.facts.target_name().to_owned(),
            versioned: true,
        };
        let seen = self.effects.observe_targets((secret, found)).await;
        if !versions::are_all_on(&seen, &target.revision) {
            return;
        }
        let mut pruned = Vec::new();
        for version in surplus {
            match self.delete_recorded(&version).await {
                // someone else took it over, so lockstep does not delete it
                Ok(()) | Err(WriteError::Foreign) => {
                    self.record(Record::Pruned(version.name.clone(), "deleted")).await;
                    pruned.push(version.name);
                }
                // the next refresh tries again
                Err(error) => self.record(Record::Pruned(version.name, error.label())).await,
            }
        }
        if !pruned.is_empty() {
            self.report(Outcome::Cleared(pruned)).await;
        }
    }
}
