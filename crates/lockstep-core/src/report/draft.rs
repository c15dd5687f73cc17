//! Builds a status from the last one and an outcome.

use jiff::Timestamp;
use lockstep_api::{
    ConditionStatus, ConditionType, LeaseStatus, Reason, RotationStatus, SourceStatus, SyncedSecretStatus,
    TargetStatus,
};

use super::{
    conditions::{add_derived, condition, lasting},
    input::{Outcome, Subject, Waiting},
    messages::{bounded, describe_secret, gone, in_sync},
};
use crate::{
    Failure,
    history::{self, MAX_SOURCES},
    lease,
    rotation::{self, Written},
    time::to_seconds,
};

/// Builds the status after a sync, or after another step of the reconcile.
pub fn report(subject: &Subject<'_>, outcome: Outcome<'_>, now: Timestamp) -> SyncedSecretStatus {
    let mut draft = Draft::new(subject, now);
    match outcome {
        Outcome::Synced {
            target,
            sources,
            back,
            waits,
        } => draft.synced(target, sources, back, waits),
        Outcome::Waits(pending) => draft.pending(pending),
        Outcome::Unchanged => draft.keep_conditions(),
        Outcome::Intends(target) => draft.intended(target),
        Outcome::Cleared(names) => draft.cleared(&names),
        Outcome::Stepped(rotation) => draft.stepped(rotation),
        Outcome::Leased(leases) => draft.leased(leases),
        Outcome::Failed(failure) => draft.failed(failure),
        Outcome::Gone { left_alone } => draft.gone(left_alone),
        Outcome::Acknowledged { suspended: true } => draft.suspended(),
        Outcome::Acknowledged { suspended: false } => draft.created_once(),
    }
    draft.finish()
}

/// A status in the making: the last one, without its conditions.
struct Draft<'a> {
    subject: &'a Subject<'a>,
    old: SyncedSecretStatus,
    status: SyncedSecretStatus,
    now: Timestamp,
}

impl<'a> Draft<'a> {
    fn new(subject: &'a Subject<'a>, now: Timestamp) -> Self {
        let old = subject.old.cloned().unwrap_or_default();
        let status = SyncedSecretStatus {
            conditions: Vec::new(),
            ..old.clone()
        };
        Self {
            subject,
            old,
            status,
            now,
        }
    }

    fn set(&mut self, kind: ConditionType, holds: ConditionStatus, reason: Reason, message: &str) {
        let generation = self.subject.generation;
        let condition = condition(
            &self.old.conditions,
            kind,
            holds,
            reason,
            message,
            generation,
            self.now,
        );
        self.status.conditions.push(condition);
    }

    fn set_ready(&mut self, reason: Reason, message: &str) {
        self.set(ConditionType::Ready, ConditionStatus::True, reason, message);
    }

    /// Records that the spec and the request for a refresh were handled.
    fn handled(&mut self) {
        self.status.observed_generation = Some(self.subject.generation);
        self.status.handled_refresh = self.subject.refresh.map(str::to_owned);
    }

    /// The Secret is in sync with the sources.
    fn synced(
        &mut self,
        mut target: TargetStatus,
        mut sources: Vec<SourceStatus>,
        back: bool,
        waits: Option<Waiting>,
    ) {
        self.handled();
        let rotation = self.rotation_after_write(&target, &sources, back, waits);
        let refused = rotation.as_ref().and_then(|rotation| rotation.refused.as_ref());
        let message = in_sync(&target, sources.len(), refused);
        self.set_ready(Reason::Synced, &message);
        target.last_change_time = match &self.old.target {
            Some(before) if before.revision == target.revision && before.name == target.name => {
                before.last_change_time
            }
            _ => Some(to_seconds(self.now)),
        };
        target.generation = Some(self.subject.generation);
        let status = &mut self.status;
        status.versions = rotation::versions::record(&self.old, &target);
        status.lease = lease::written(self.old.lease.as_ref(), &sources, self.now);
        status.target = Some(target);
        status.source_count = i64::try_from(sources.len()).ok();
        sources.truncate(MAX_SOURCES);
        status.sources = sources;
        status.rotation = rotation;
    }

    fn rotation_after_write(
        &self,
        target: &TargetStatus,
        sources: &[SourceStatus],
        back: bool,
        waits: Option<Waiting>,
    ) -> Option<RotationStatus> {
        let subject = self.subject;
        let written = Written {
            target,
            sources,
            back,
        };
        let mut rotation = rotation::written(
            subject.old,
            &written,
            subject.rotation,
            subject.rotate_now,
            self.now,
        );
        if let (Some(rotation), Some(waits)) = (&mut rotation, waits) {
            let before = self.old.rotation.as_ref();
            rotation.noticed_time = before.and_then(|before| before.noticed_time);
            let Waiting {
                revision,
                waits_for,
                next,
            } = waits;
            *rotation = rotation::pending(Some(&*rotation), revision, waits_for, next, self.now);
        }
        rotation
    }

    /// A change is pending, and the Secret was left unchanged.
    fn pending(&mut self, pending: RotationStatus) {
        self.handled();
        let message = format!("{}. A newer value is pending", describe_secret(self.subject));
        self.set_ready(Reason::Synced, &message);
        self.status.rotation = Some(pending);
    }

    /// Nothing was synced, so the conditions about the Secret last.
    fn keep_conditions(&mut self) {
        self.status.conditions = lasting(&self.old);
    }

    /// A Secret is about to be written, or is not yet immutable.
    fn intended(&mut self, target: TargetStatus) {
        self.keep_conditions();
        let versions = &mut self.status.versions;
        versions.retain(|known| known.name != target.name);
        versions.insert(0, target);
    }

    /// Earlier Secrets of a versioned target were deleted.
    fn cleared(&mut self, names: &[String]) {
        self.keep_conditions();
        self.status
            .versions
            .retain(|version| !names.contains(&version.name));
    }

    /// The rollout advanced.
    fn stepped(&mut self, rotation: RotationStatus) {
        self.keep_conditions();
        self.status.rotation = Some(rotation);
    }

    /// A lease was recorded, renewed or revoked.
    fn leased(&mut self, leases: Option<LeaseStatus>) {
        self.keep_conditions();
        self.status.lease = leases;
    }

    /// The sync failed.
    fn failed(&mut self, failure: &Failure) {
        self.handled();
        let sentence = failure.message.trim_end_matches('.');
        let message = bounded(format!("{sentence}. {}", describe_secret(self.subject)));
        self.set(
            ConditionType::Ready,
            ConditionStatus::False,
            failure.reason,
            &message,
        );
        let kind = if failure.is_stalled() {
            ConditionType::Stalled
        } else {
            ConditionType::Reconciling
        };
        self.set(kind, ConditionStatus::True, failure.reason, &message);
    }

    /// Every remote value is gone, and the Secret was deleted.
    fn gone(&mut self, left_alone: bool) {
        self.handled();
        let message = gone(self.subject, &self.old, left_alone);
        self.set(
            ConditionType::Ready,
            ConditionStatus::False,
            Reason::SourceDeleted,
            &message,
        );
        let status = &mut self.status;
        status.target = None;
        status.versions = Vec::new();
        status.sources = Vec::new();
        status.source_count = Some(0);
        if !left_alone {
            // the credential is in no Secret any more
            status.lease = lease::written(self.old.lease.as_ref(), &[], self.now);
        }
        status.rotation = rotation::complete(self.subject.rotation, self.subject.rotate_now, None);
    }

    /// Nothing was done, because of `suspend`.
    fn suspended(&mut self) {
        self.handled();
        let ready = if self.old.target.is_some() {
            ConditionStatus::True
        } else {
            ConditionStatus::False
        };
        let message = format!("suspend is set. {}", describe_secret(self.subject));
        self.set(ConditionType::Ready, ready, Reason::Suspended, &message);
        handled_rotate_now(&mut self.status, self.subject);
    }

    /// Nothing was done, because of `refreshPolicy: CreatedOnce`.
    fn created_once(&mut self) {
        self.handled();
        let message = format!("refreshPolicy: CreatedOnce. {}", describe_secret(self.subject));
        self.set_ready(Reason::Synced, &message);
        handled_rotate_now(&mut self.status, self.subject);
    }

    /// Adds the conditions that follow from the rest of the status, and the history.
    fn finish(mut self) -> SyncedSecretStatus {
        add_derived(&mut self.status, &self.old.conditions, self.subject, self.now);
        self.status.history = history::update(&self.old, &self.status, self.now);
        self.status
    }
}

/// Records `rotate-now` as handled although nothing was written. A later request needs a new value.
fn handled_rotate_now(status: &mut SyncedSecretStatus, subject: &Subject<'_>) {
    let Some(asked) = subject.rotate_now else { return };
    let complete = || rotation::complete(subject.rotation, subject.rotate_now, None);
    match &mut status.rotation {
        Some(rotation) => rotation.handled_rotate_now = Some(asked.to_owned()),
        none => *none = complete(),
    }
}
