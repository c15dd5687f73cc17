//! A sync: read the sources, decide whether their values may be written now, and write them.

use std::sync::Arc;

use jiff::Timestamp;
use lockstep_api::{
    CreationPolicy, Reason, RefusedRevision, RotationStatus, SourceStatus, TargetStatus, WaitsFor,
};

use super::{
    due::Trigger,
    effect::Record,
    run::Run,
    sources::{Inputs, Reading},
};
use crate::{
    Failure, lease,
    remote::Requeue,
    report::Waiting,
    revision::{self, Candidate, Name, Revision},
    rotation::{self, Change, Entry, Windows, references},
};

/// Used instead of a revision for a pending credential that is not issued yet.
const NEW_CREDENTIAL: &str = "new";

/// The result of a sync.
pub(super) enum Synced {
    /// The Secret is in sync.
    InSync {
        target: Box<TargetStatus>,
        sources: Vec<SourceStatus>,
        /// Whether the Secret has earlier values, because the rollout of the current ones failed.
        back: bool,
        /// A newer value that may not be written yet.
        waits: Option<Box<Waiting>>,
    },
    /// A change is pending.
    Waits(Box<RotationStatus>),
    /// All sources are gone and the Secret was deleted.
    Gone {
        /// Whether the Secret belongs to someone else now, and was left alone.
        left_alone: bool,
    },
}

impl Synced {
    fn in_sync(target: TargetStatus, sources: Vec<SourceStatus>, back: bool) -> Self {
        Self::InSync {
            target: Box::new(target),
            sources,
            back,
            waits: None,
        }
    }
}

impl Run {
    pub(super) async fn sync(&mut self, why: Trigger) -> Result<Synced, Failure> {
        if self.facts.view.terminating {
            let message = format!("namespace \"{}\" is being deleted", self.facts.namespace);
            return Err(Failure::new(Reason::NamespaceTerminating, message));
        }
        let inputs = Inputs::new(&self.facts, self.facts.object.clone(), self.generated());
        let Some(reading) = self.read(inputs).await? else {
            return self.remove_everything().await;
        };
        self.memory.fresh_for = reading.collected.fresh_for;
        let requested = self.observed().is_rotation_requested();
        let refused = rotation::refused(&self.facts.object.spec, self.rotation());
        let refused = refused.filter(|_| !requested).cloned();
        let is_refused = |refused: &&RefusedRevision| {
            rotation::is_still_refused(refused, &reading.fingerprint, &reading.collected.sources)
        };
        if let Some(refused) = refused.as_ref().filter(is_refused) {
            return self.restore_pinned(refused, why).await;
        }
        self.write_when_allowed(reading, refused, why, requested).await
    }

    /// Keeps the Secret, writes the values that were read, or records that they are pending.
    async fn write_when_allowed(
        &mut self,
        mut reading: Reading,
        refused: Option<RefusedRevision>,
        why: Trigger,
        requested: bool,
    ) -> Result<Synced, Failure> {
        let generation = reading.plan.generation.clone();
        let cause = generation
            .as_ref()
            .and_then(|generation| self.lease_cause(generation));
        if cause.is_none()
            && let Some(target) = self.kept(&mut reading, why).await
        {
            return Ok(Synced::in_sync(target, reading.collected.sources, false));
        }
        let gate = Gate {
            windows: reading.plan.windows.clone(),
            // a Secret that is not immutable yet has its new values already
            drifted: why == Trigger::Drift || self.observed().is_unsealed(),
            requested,
        };
        // issue another credential as soon as it may be written, or before the current one ends
        if let Some(generation) = generation
            && (cause.is_some() || reading.lacks_credential())
        {
            if let Entry::Wait(waits_for, next) = self.entry(&gate, NEW_CREDENTIAL)
                && !lease::is_replacement_urgent(self.leases(), self.moment().steady)
            {
                return Ok(self.pending(NEW_CREDENTIAL.to_owned(), waits_for, next));
            }
            let generated = self.issue(&generation).await?;
            self.add_credential(&mut reading, generated).await?;
            self.decrypt(&mut reading).await?;
            let revision = self.revision(&reading, refused.as_ref().map(Name::from)).await;
            return self.write_reading(reading, revision, false).await;
        }
        // a rollout failed and a newer value may not be written yet: roll back first
        let back = refused
            .as_ref()
            .filter(|_| rotation::awaits_rollback(self.rotation()));
        // a pending change is not decrypted again while it waits
        if back.is_none()
            && self.memory.waiting.as_ref() == Some(&reading.fingerprint)
            && let Some(revision) = self.rotation().and_then(|old| old.pending_revision.clone())
            && let Entry::Wait(waits_for, next) = self.entry(&gate, &revision)
        {
            return Ok(self.pending(revision, waits_for, next));
        }
        self.decrypt(&mut reading).await?;
        let revision = self.revision(&reading, refused.as_ref().map(Name::from)).await;
        if let Some(refused) = refused
            .as_ref()
            .filter(|refused| refused.revision == revision.name)
        {
            return self.restore_pinned(refused, why).await;
        }
        let Entry::Wait(waits_for, next) = self.entry(&gate, &revision.name) else {
            return self.write_reading(reading, revision, false).await;
        };
        let Some(refused) = back else {
            self.memory.waiting = Some(reading.fingerprint);
            return Ok(self.pending(revision.name, waits_for, next));
        };
        let mut synced = self.restore_pinned(refused, why).await?;
        if let Synced::InSync { waits, .. } = &mut synced {
            *waits = Some(Box::new(Waiting {
                revision: revision.name,
                waits_for,
                next,
            }));
        }
        Ok(synced)
    }

    fn rotation(&self) -> Option<&RotationStatus> {
        self.status.as_ref()?.rotation.as_ref()
    }

    /// Whether a revision may be written now.
    fn entry(&self, gate: &Gate, revision: &str) -> Entry {
        let known = self.status.as_ref().and_then(|status| status.target.as_ref());
        let rollout = self.facts.object.spec.rotation.as_ref();
        let change = Change {
            written: known,
            target_name: self.facts.current_name(known),
            revision,
            drifted: gate.drifted,
            requested: gate.requested,
            rollout: rollout.and_then(|rotation| rotation.rollout.as_ref()),
            last_rollout: self.rotation().and_then(|rotation| rotation.rollout.as_ref()),
        };
        rotation::entry(&gate.windows, &change, self.moment().wall)
    }

    fn pending(&self, revision: String, waits_for: WaitsFor, next: Option<Timestamp>) -> Synced {
        let pending = rotation::pending(self.rotation(), revision, waits_for, next, self.moment().wall);
        Synced::Waits(Box::new(pending))
    }

    /// Removes what this SyncedSecret wrote, because every source is gone.
    async fn remove_everything(&mut self) -> Result<Synced, Failure> {
        self.check_may_write()?;
        let left_alone = !self.facts.object.spec.target.versioned && self.remove().await?;
        let status = self.status.clone();
        let known = status.iter().flat_map(|status| &status.target);
        let renamed = known.filter(|known| known.name != self.facts.target_name());
        let versions = status.iter().flat_map(|status| &status.versions);
        for old in renamed.chain(versions) {
            self.remove_renamed(old).await?;
        }
        Ok(Synced::Gone { left_alone })
    }

    /// Keeps or writes the revision that replaces a failed one.
    async fn restore_pinned(&mut self, refused: &RefusedRevision, why: Trigger) -> Result<Synced, Failure> {
        let pinned = &refused.pinned;
        let known = self.known_target();
        // a changed spec changes the revision
        let same_spec = self
            .status
            .as_deref()
            .is_some_and(|status| revision::has_same_spec(status, self.facts.object.metadata.generation));
        let is_back = |known: &TargetStatus| {
            known.revision == pinned.revision
                && self.facts.is_target(known)
                && same_spec
                && why != Trigger::Drift
                && self.memory.assumes_in_sync(self.status.as_deref())
        };
        if let Some(known) = known.clone().filter(is_back) {
            return Ok(Synced::in_sync(known, pinned.sources.clone(), true));
        }
        if same_spec
            && self.facts.object.spec.target.versioned
            && let Some(target) = self.kept_version(&pinned.revision).await?
        {
            return Ok(Synced::in_sync(target, pinned.sources.clone(), true));
        }
        let unreadable = |mut failure: Failure| {
            failure.message = format!(
                "the rollback to revision {} failed: {}",
                pinned.revision, failure.message
            );
            failure
        };
        let mut object = (*self.facts.object).clone();
        object.spec = rotation::pin(&object.spec, &self.facts.view.views, &pinned.sources);
        let inputs = Inputs::new(&self.facts, Arc::new(object), None);
        let Some(mut reading) = self.read(inputs).await.map_err(unreadable)? else {
            let gone = Failure::new(Reason::SourceNotFound, "its remote values are gone");
            return Err(unreadable(gone.requeued(Requeue::RefreshInterval)));
        };
        if let Some(target) = self.kept(&mut reading, why).await {
            return Ok(Synced::in_sync(target, reading.collected.sources, true));
        }
        self.decrypt(&mut reading).await.map_err(unreadable)?;
        // the versions of the previous revision produce it again under another key, unless the spec
        // changed
        let names = known
            .as_ref()
            .map(|known| Candidate::new(known, self.is_unchanged(&reading)))
            .into_iter()
            .chain([Candidate::new(pinned, same_spec)]);
        let revision = self.content(&reading).await.revision(names);
        if same_spec && revision.name != pinned.revision {
            // versions of a key that was deleted and created again begin with the first number
            let message = "the earlier versions of its remote values have other values now";
            let changed = Failure::new(Reason::SourceNotFound, message);
            return Err(unreadable(changed.requeued(Requeue::RefreshInterval)));
        }
        self.write_reading(reading, revision, true).await
    }

    /// Returns the recorded Secret if it is assumed to contain the values that were read. If the
    /// status was written under another fingerprint key, only the hashes are updated.
    async fn kept(&self, reading: &mut Reading, why: Trigger) -> Option<TargetStatus> {
        let known = self.known_target()?;
        let is_current = known.key_id.as_deref() == Some(&*revision::key_id(&self.facts.key));
        let same = known.fingerprint == reading.fingerprint || !is_current && self.is_unchanged(reading);
        let holds = same
            && why != Trigger::Drift
            && !lease::has_uncertain_credential(self.leases())
            && self.memory.assumes_in_sync(self.status.as_deref())
            && self.facts.is_target(&known);
        if !holds {
            return None;
        }
        // without the values, they cannot be hashed: the next sync tries again
        if is_current || self.decrypt(reading).await.is_err() {
            return Some(known);
        }
        let mut target = known.clone();
        target.fingerprint.clone_from(&reading.fingerprint);
        let content = self.content(reading).await;
        content.revision([Candidate::new(&known, true)]).set(&mut target);
        if reading.lacks_credential() {
            // the hashed content is incomplete; the next write contains another credential
            target.revision_hash = None;
        }
        let record = Record::Debug("recorded the hashes under the current fingerprint key");
        self.record(record).await;
        Some(target)
    }

    /// Writes the values that were read.
    async fn write_reading(
        &mut self,
        reading: Reading,
        revision: Revision,
        back: bool,
    ) -> Result<Synced, Failure> {
        let mut secret = self.assemble(&reading).await?;
        let versioned = self.facts.object.spec.target.versioned;
        let earlier: Vec<TargetStatus> = self
            .status
            .iter()
            .flat_map(|status| status.target.iter().chain(&status.versions))
            .cloned()
            .collect();
        let is_noted = earlier.iter().any(|earlier| earlier.name == secret.name);
        let merges = secret.creation_policy == CreationPolicy::Merge;
        if versioned {
            secret.name = references::name(&secret.name, &revision.name);
            secret.immutable = true;
            self.record_version(&secret.name, &revision.name).await?;
        } else if merges && !is_noted && self.known_target().is_some() {
            // otherwise the keys would stay in this Secret if the process stopped before it is
            // recorded
            let merged = TargetStatus {
                name: secret.name.clone(),
                merged: true,
                ..TargetStatus::default()
            };
            self.record_target(merged).await?;
        }
        let target = self.write(secret, reading.fingerprint, revision).await?;
        // versioned Secrets, which targets may refer to, are pruned with the history
        for old in earlier {
            if old.name == target.name || old.versioned || versioned {
                continue;
            }
            if let Err(failure) = self.remove_renamed(&old).await {
                self.record_target(target).await?;
                return Err(failure);
            }
        }
        Ok(Synced::in_sync(target, reading.collected.sources, back))
    }
}

/// Decides, together with the status, whether a change may be written.
struct Gate {
    windows: Windows,
    drifted: bool,
    requested: bool,
}
