//! Restores and prunes the earlier Secrets of a versioned target.

use lockstep_api::{Reason, SyncedSecretStatus, TargetStatus};
use lockstep_core::{
    Failure,
    remote::Requeue,
    report::Outcome,
    rotation::{rollout::MAX_TARGETS, versions},
};

use super::{item::Reconcile, report::StatusWrite};
use crate::{
    secret::{Drift, WriteError},
    workloads::Carried,
};

impl Reconcile {
    /// Returns the earlier Secret of a revision if it still exists. Then a rollback reads and
    /// writes nothing.
    pub(super) async fn kept_version(
        &self,
        status: Option<&SyncedSecretStatus>,
        revision: &str,
    ) -> Result<Option<TargetStatus>, Failure> {
        let current = status.and_then(|status| status.target.as_ref());
        let earlier = status.into_iter().flat_map(|status| &status.versions);
        let mut all = current.into_iter().chain(earlier);
        let Some(kept) = all.find(|kept| kept.revision == revision && self.is_target(kept)) else {
            return Ok(None);
        };
        if kept.uid.is_empty() || kept.fingerprint.is_empty() {
            // it was recorded before it was written
            return Ok(None);
        }
        self.check_may_write()?;
        let owner = self.owner_of_name(&kept.name);
        let _slot = self.shared.writes.acquire(self.priority).await;
        match self.shared.writer.probe(&owner, kept).await {
            Ok(Drift::None) => Ok(Some(kept.clone())),
            // a changed Secret is written again
            Ok(Drift::Edited | Drift::Gone) => Ok(None),
            Err(error) => Err(error.failure(&owner)),
        }
    }

    /// Records the Secret of a revision before it is written.
    pub(super) async fn intend(
        &self,
        status: Option<&SyncedSecretStatus>,
        name: &str,
        revision: &str,
    ) -> Result<(), Failure> {
        let Some(version) = versions::intend(status, name, revision) else {
            return Ok(());
        };
        self.record(status, version).await
    }

    /// Records a Secret in the status before it is written, or before it becomes immutable.
    pub(super) async fn record(
        &self,
        status: Option<&SyncedSecretStatus>,
        version: TargetStatus,
    ) -> Result<(), Failure> {
        let name = version.name.clone();
        if self.report_durably(status, Outcome::Intends(version)).await == StatusWrite::Persisted {
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
    pub(super) async fn clear_versions(&self, status: Option<&SyncedSecretStatus>) {
        let shared = &self.shared;
        let committed = self.committed();
        let Some(status) = committed.as_ref().or(status) else {
            return;
        };
        let surplus = versions::surplus(status, &self.object.spec.target);
        let spec = self.object.spec.rotation.as_ref();
        let spec = spec.and_then(|rotation| rotation.rollout.as_ref());
        let (Some(spec), Some(target), false) = (spec, &status.target, surplus.is_empty()) else {
            return;
        };
        if self.check_may_write().is_err() {
            return;
        }
        let namespace = &*self.key.namespace;
        let found = shared
            .workloads
            .find(&shared.client, namespace, &spec.targets)
            .await;
        // an unobserved target may need any of them
        let Ok(found) = found else { return };
        if found.len() > MAX_TARGETS {
            return;
        }
        let secret = Carried {
            name: self.owner().target,
            versioned: true,
        };
        let seen = shared
            .workloads
            .look(&shared.client, namespace, secret, found)
            .await;
        if !versions::are_all_on(&seen, &target.revision) {
            return;
        }
        let mut cleared = Vec::new();
        for version in surplus {
            let owner = self.owner_of_name(&version.name);
            match self.delete_recorded(&owner, &version).await {
                // someone else took it over, so lockstep does not delete it
                Ok(()) | Err(WriteError::Foreign) => {
                    tracing::info!(secret = %version.name, "pruned the Secret of an earlier revision");
                    cleared.push(version.name);
                }
                // the next refresh tries again
                Err(error) => {
                    tracing::debug!(secret = %version.name, outcome = error.label(), "could not prune the Secret of an earlier revision");
                }
            }
        }
        if !cleared.is_empty() {
            self.report(Some(status), Outcome::Cleared(cleared)).await;
        }
    }
}
