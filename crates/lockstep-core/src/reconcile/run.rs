//! The state of one reconcile.

use std::sync::Arc;

use lockstep_api::{LeaseStatus, Reason, SyncedSecretStatus, TargetStatus};

use super::{
    due::{self, Step},
    effect::{Effects, Moment, Record},
    facts::Facts,
    memory::Memory,
    observed::Observed,
};
use crate::{Failure, remote::Requeue};

/// One reconcile of one object. The other files of this folder implement its steps.
pub(super) struct Run {
    pub(super) facts: Facts,
    pub(super) memory: Memory,
    /// The last known status: the one of the facts, or the last one that this reconcile wrote.
    pub(super) status: Option<Arc<SyncedSecretStatus>>,
    /// The version of the object that has this status.
    pub(super) resource_version: Option<String>,
    /// Whether the version that a message names could not be read.
    pub(super) has_unconfirmed: bool,
    pub(super) effects: Effects,
}

impl Run {
    pub(super) fn new(mut facts: Facts, effects: Effects) -> Self {
        let status = facts.status.take();
        let mut memory = std::mem::take(&mut facts.memory);
        if let Some(status) = &status {
            memory.keep_credential_of(status);
        }
        Self {
            memory,
            resource_version: facts.resource_version.take(),
            status,
            facts,
            has_unconfirmed: false,
            effects,
        }
    }

    pub(super) fn moment(&self) -> Moment {
        self.effects.moment()
    }

    /// Returns the object and its last known status as decisions see them.
    pub(super) fn observed(&self) -> Observed<'_> {
        self.facts.observed(self.status.as_deref(), self.moment())
    }

    pub(super) fn decide(&mut self) -> Step {
        let moment = self.moment();
        let observed = self.facts.observed(self.status.as_deref(), moment);
        due::decide(&observed, &mut self.memory, self.facts.settings, moment.wall)
    }

    /// Returns the Secret that was written last.
    pub(super) fn known_target(&self) -> Option<TargetStatus> {
        self.status.as_ref()?.target.clone()
    }

    pub(super) fn leases(&self) -> Option<&LeaseStatus> {
        self.status.as_ref()?.lease.as_ref()
    }

    pub(super) async fn record(&self, record: Record) {
        self.effects.record(record).await;
    }

    pub(super) fn check_may_write(&self) -> Result<(), Failure> {
        if self.moment().may_write {
            return Ok(());
        }
        let message = "the admission policy lockstep-secrets is not enforced, so lockstep writes no Secrets. Install it again";
        Err(Failure::new(Reason::WriteFailed, message).requeued(Requeue::Backoff))
    }

    /// Records that a sync failed, and plans its retry.
    pub(super) fn note_failure(&mut self, failure: &Failure) {
        let moment = self.moment();
        let observed = self.facts.observed(None, moment);
        self.memory.failed(&observed, failure, moment.wall);
    }

    /// Records that the Secret matches the status, and plans the next probe.
    pub(super) fn note_probed(&mut self) {
        let moment = self.moment();
        let observed = self.facts.observed(None, moment);
        self.memory.probed(&observed, self.facts.settings, moment.wall);
    }
}
