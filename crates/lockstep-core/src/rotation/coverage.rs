//! How far a rollout is known to have replaced the pods that run on earlier revisions.

use jiff::Timestamp;
use lockstep_api::{SyncedSecretStatus, TargetState};

/// How far the revision that the Secret has is known to have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// Its rollout goes on or is held, or a target keeps pods on an earlier one.
    InProgress,
    /// Its rollout ended then, and does not prove that no pod runs on an earlier one: a target does not exist, or there is none.
    Ended(Timestamp),
    /// Every pod of every target runs on it.
    Complete,
}

/// How far the revision that the Secret has is known to have come; `None` where nothing was ever rolled out.
pub fn of(status: &SyncedSecretStatus) -> Option<Coverage> {
    let rollout = status.rotation.as_ref()?.rollout.as_ref()?;
    let target = status.target.as_ref()?;
    let any = |state: TargetState| rollout.targets.iter().any(|target| target.state == state);
    if !rollout.phase.is_over() || rollout.revision != target.revision || any(TargetState::Partial) {
        return Some(Coverage::InProgress);
    }
    let proves = |state| matches!(state, TargetState::Ready | TargetState::ScaledToZero);
    if !rollout.targets.is_empty() && rollout.targets.iter().all(|target| proves(target.state)) {
        return Some(Coverage::Complete);
    }
    let end = rollout.end_time.as_deref().unwrap_or(&rollout.start_time);
    Some(end.parse().map_or(Coverage::InProgress, Coverage::Ended))
}
