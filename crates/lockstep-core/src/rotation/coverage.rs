//! Determines whether a rollout has replaced all pods that run on earlier revisions.

use jiff::Timestamp;
use lockstep_api::{SyncedSecretStatus, TargetState};

/// How far the current revision of the Secret is rolled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// The rollout is in progress or held, or a target keeps pods on an earlier revision.
    InProgress,
    /// The rollout ended at this time, but pods may run on an earlier revision, because a target
    /// does not exist or there are none.
    Ended(Timestamp),
    /// Every pod of every target runs on the current revision.
    Complete,
}

/// Returns the coverage of the current revision; `None` if nothing was ever rolled out.
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
    let end = rollout.end_time.unwrap_or(rollout.start_time);
    Some(Coverage::Ended(end))
}
