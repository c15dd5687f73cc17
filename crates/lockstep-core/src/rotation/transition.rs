//! What the write of a Secret means for the rollout of its revisions.

use jiff::Timestamp;
use lockstep_api::{
    PreviousRevision, RefusedRevision, Rollout, RolloutPhase, RolloutStatus, Rotation, RotationStatus,
    SourceStatus, SyncedSecretStatus, TargetStatus,
};

use super::{complete, rollback, rollout};
use crate::lease;

/// The Secret after a sync.
#[derive(Debug, Clone, Copy)]
pub struct Written<'a> {
    /// The status of the Secret.
    pub target: &'a TargetStatus,
    /// The sources that the Secret was built from.
    pub sources: &'a [SourceStatus],
    /// Whether the Secret holds earlier values, because the rollout of the current ones failed.
    pub back: bool,
}

/// A revision that the Secret no longer holds, and its sources.
#[derive(Debug, Clone, Copy)]
struct Replaced<'a> {
    target: &'a TargetStatus,
    sources: &'a [SourceStatus],
}

/// How a write changes the rollout.
#[derive(Debug)]
enum Transition<'a> {
    /// The targets need the revision, but there is none before it to return to.
    Start,
    /// The revision replaces another one.
    Replace(Replaced<'a>, Option<&'a RolloutStatus>),
    /// The revision replaces one whose rollout failed, and was written before it.
    RollBack(&'a RolloutStatus),
    /// The rollout failed, and the earlier source versions produce the same Secret.
    CannotRollBack(&'a RolloutStatus),
    /// `rotate-now` requests another attempt of the last rollout.
    Retry(&'a RolloutStatus),
    /// The source has the revision of the last rollout.
    Accept(&'a RolloutStatus),
    /// The last rollout stays as it is.
    Keep(&'a RolloutStatus),
}

/// Returns the rotation after the Secret was written. A new revision starts a rollout.
pub fn written(
    old: Option<&SyncedSecretStatus>,
    new: &Written<'_>,
    rotation: Option<&Rotation>,
    rotate_now: Option<&str>,
    now: Timestamp,
) -> Option<RotationStatus> {
    let write = Write::new(old, new, rotate_now);
    let spec = rotation.and_then(|rotation| rotation.rollout.as_ref());
    let transition = spec.and_then(|spec| Some((spec, write.transition()?)));
    let gives_up = matches!(transition, Some((_, Transition::CannotRollBack(_))));
    let rollout = transition
        .as_ref()
        .map(|(spec, transition)| write.apply(transition, spec, now));
    let mut status = complete(rotation, rotate_now, rollout)?;
    status.refused = write
        .refused
        .filter(|_| spec.is_some() && !gives_up)
        .map(|refused| RefusedRevision {
            pinned: previous(new.target, new.sources),
            ..refused.clone()
        });
    Some(status)
}

/// A write, and the status before it.
struct Write<'a> {
    old: Option<&'a SyncedSecretStatus>,
    new: &'a Written<'a>,
    /// The last rollout.
    last: Option<&'a RolloutStatus>,
    /// The revision that failed, if the Secret holds earlier values because of it.
    refused: Option<&'a RefusedRevision>,
    /// Whether `rotate-now` has a new value.
    requested: bool,
}

impl<'a> Write<'a> {
    fn new(old: Option<&'a SyncedSecretStatus>, new: &'a Written<'a>, rotate_now: Option<&str>) -> Self {
        let before = old.and_then(|old| old.rotation.as_ref());
        let handled = before.and_then(|before| before.handled_rotate_now.as_deref());
        Self {
            old,
            new,
            last: before.and_then(|before| before.rollout.as_ref()),
            refused: before
                .and_then(|before| before.refused.as_ref())
                .filter(|_| new.back),
            requested: rotate_now.is_some() && handled != rotate_now,
        }
    }

    /// Returns the effect on the rollout; `None` if there is no rollout and none starts.
    fn transition(&self) -> Option<Transition<'a>> {
        if let Some(replaced) = self.replaced() {
            let unfinished = self.last.filter(|last| !last.phase.is_over());
            return Some(match (unfinished, self.refused) {
                (Some(failed), Some(_)) => Transition::RollBack(failed),
                (unfinished, _) => Transition::Replace(replaced, unfinished),
            });
        }
        if self.needs_rollout() {
            return Some(Transition::Start);
        }
        let last = self.last?;
        Some(if self.requested {
            Transition::Retry(last)
        } else if self.refused.is_some() && last.awaits_rollback() {
            Transition::CannotRollBack(last)
        } else if self.refused.is_none() {
            Transition::Accept(last)
        } else {
            Transition::Keep(last)
        })
    }

    fn written_before(&self) -> Option<&'a TargetStatus> {
        self.old?.target.as_ref()
    }

    /// Returns the revision that this one replaces in the Secret.
    fn replaced(&self) -> Option<Replaced<'a>> {
        let target = self.written_before()?;
        let is_same = target.name == self.new.target.name || target.versioned && self.new.target.versioned;
        let sources = self.old?.sources.as_slice();
        (is_same && target.revision != self.new.target.revision).then_some(Replaced { target, sources })
    }

    /// Whether the targets need the revision although it replaces none.
    fn needs_rollout(&self) -> bool {
        self.has_new_reference()
            || self.is_renamed()
            || self.is_recreated()
            || self.may_have_earlier_credential()
            || self.moves_references_again()
    }

    /// Whether no target can refer to the versioned Secret yet.
    fn has_new_reference(&self) -> bool {
        let target = self.new.target;
        target.versioned
            && self
                .written_before()
                .is_none_or(|before| before.name != target.name)
    }

    /// Whether the Secret has another name, and another revision than the last rollout.
    fn is_renamed(&self) -> bool {
        let target = self.new.target;
        self.written_before()
            .is_some_and(|before| before.name != target.name)
            && self.last.is_some_and(|last| last.revision != target.revision)
    }

    /// Whether the Secret was deleted with its sources and is written again with other values.
    fn is_recreated(&self) -> bool {
        self.old
            .filter(|old| old.target.is_none())
            .and_then(|old| old.history.first())
            .is_some_and(|last| last.revision != self.new.target.revision)
    }

    /// Whether an earlier process may have written a credential that pods started with.
    fn may_have_earlier_credential(&self) -> bool {
        self.old
            .is_some_and(|old| old.target.is_none() && lease::may_have_written(old.lease.as_ref()))
    }

    /// Whether `rotate-now` requests that targets get their references to a versioned Secret again.
    fn moves_references_again(&self) -> bool {
        let is_complete = |last: &RolloutStatus| last.phase == RolloutPhase::Complete;
        self.requested && self.new.target.versioned && self.last.is_some_and(is_complete)
    }

    fn apply(&self, transition: &Transition<'_>, spec: &Rollout, now: Timestamp) -> RolloutStatus {
        let target = self.new.target;
        match *transition {
            Transition::Start => rollout::begin(&target.revision, None, None, spec, now),
            Transition::Replace(replaced, unfinished) => self.replace(replaced, unfinished, spec, now),
            Transition::RollBack(failed) if target.versioned => {
                rollout::begin_rollback(&rollout::mark_all_restarted(failed), &target.revision, spec, now)
            }
            Transition::RollBack(failed) => rollout::begin_rollback(failed, &target.revision, spec, now),
            Transition::CannotRollBack(failed) => rollout::hold_without_rollback(failed),
            Transition::Retry(last) => rollout::retry(last, now),
            Transition::Accept(last) => rollout::accept(last, spec),
            Transition::Keep(last) => last.clone(),
        }
    }

    /// Starts the rollout of a revision that replaces another one. A rollout that is unfinished
    /// passes on its targets and the revision before it.
    fn replace(
        &self,
        replaced: Replaced<'_>,
        unfinished: Option<&RolloutStatus>,
        spec: &Rollout,
        now: Timestamp,
    ) -> RolloutStatus {
        let Written { target, sources, .. } = *self.new;
        let good = unfinished.and_then(|last| last.previous.clone());
        let good = good.unwrap_or_else(|| previous(replaced.target, replaced.sources));
        let mut begun = if target.versioned {
            // a target that was not restarted may refer to no revision yet
            let touched = unfinished.map(rollout::possibly_restarted).unwrap_or_default();
            let good = Some(good).filter(|good| good.revision != target.revision);
            RolloutStatus {
                touched,
                ..rollout::begin(&target.revision, good, None, spec, now)
            }
        } else {
            rollout::begin(&target.revision, Some(good), unfinished, spec, now)
        };
        // a change of the spec alone cannot be undone with source versions
        begun.previous = begun
            .previous
            .filter(|good| self.refused.is_none() && !rollback::are_same(&good.sources, sources));
        begun
    }
}

/// Returns the current revision as a rollback target.
fn previous(target: &TargetStatus, sources: &[SourceStatus]) -> PreviousRevision {
    PreviousRevision {
        revision: target.revision.clone(),
        key_id: target.key_id.clone(),
        revision_hash: target.revision_hash.clone(),
        sources: sources.to_vec(),
    }
}
