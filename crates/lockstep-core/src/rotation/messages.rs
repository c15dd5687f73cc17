//! What is said of a rollout.

use lockstep_api::{
    OnFailure, Reason, Rollout, RolloutPhase, RolloutStatus, TargetProgress, TargetState, VerificationState,
    annotation,
};

use super::verify;
use crate::text::shell_quote;

/// How many targets a message names.
const NAMED: usize = 5;

/// Why a rollout stands still: the state of the target that weighs most.
pub(super) fn stop(rollout: &RolloutStatus) -> Option<(TargetState, Reason)> {
    let order = [
        (TargetState::Forbidden, Reason::RolloutForbidden),
        (TargetState::NoTemplate, Reason::InvalidSpec),
        (TargetState::NoReference, Reason::InvalidSpec),
        (TargetState::NotReady, Reason::TargetNotReady),
        (TargetState::Failing, Reason::TargetFailing),
        (TargetState::Overwritten, Reason::TargetOverwritten),
        (TargetState::Paused, Reason::TargetPaused),
        (TargetState::OnDelete, Reason::TargetPaused),
    ];
    order
        .into_iter()
        .find(|(state, _)| rollout.targets.iter().any(|target| target.state == *state))
}

/// Why a rollout stands still at a check, if it does.
fn check(rollout: &RolloutStatus) -> Option<Reason> {
    match verify::of_wave(rollout)?.state {
        VerificationState::Failed => Some(Reason::VerificationFailed),
        VerificationState::Blocked => Some(Reason::VerificationBlocked),
        VerificationState::Forbidden => Some(Reason::VerificationForbidden),
        VerificationState::Running | VerificationState::Passed | VerificationState::Superseded => None,
    }
}

/// The names of all targets in a state.
pub(super) fn names(rollout: &RolloutStatus, is: impl Fn(&TargetProgress) -> bool) -> String {
    let all: Vec<String> = rollout
        .targets
        .iter()
        .filter(|target| is(target))
        .map(ToString::to_string)
        .collect();
    let named = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// Why a rollout stands still, and what to do about it; or, where it is rolled `back`, why.
pub(super) fn stopped(rollout: &RolloutStatus, spec: &Rollout, grant: &str, back: bool) -> String {
    if let Some(reason) = check(rollout) {
        let found = verify::of_wave(rollout).and_then(|check| check.message.as_deref());
        let found = found.unwrap_or_default();
        return if reason == Reason::VerificationFailed && !back {
            format!(
                "verify: {found}. The rollout goes on when lockstep.dev/rotate-now asks for another try, or with the next value of the source"
            )
        } else {
            format!("verify: {found}")
        };
    }
    let Some((state, _)) = stop(rollout) else {
        return String::new();
    };
    let who = names(rollout, |target| target.state == state);
    let deadline = lockstep_api::Duration::from(spec.progress_deadline());
    match state {
        TargetState::NotReady if back => {
            format!("{who}: not ready within progressDeadline {deadline} of the restart")
        }
        TargetState::NotReady
            if spec.on_failure == OnFailure::Rollback && !rollout.rollback && rollout.previous.is_none() =>
        {
            format!("{who}: not ready within progressDeadline {deadline} of the restart. {NOTHING_EARLIER}")
        }
        TargetState::NotReady => format!(
            "{who}: not ready within progressDeadline {deadline} of the restart. Look at its pods; the rollout goes on when it is ready, or with the next value of the source"
        ),
        TargetState::Failing => format!(
            "{who}: was not ready before the restart, and still is not. Look at its pods; the rollout goes on when it is ready"
        ),
        TargetState::Paused => {
            format!(
                "{who}: paused. The rollout goes on when it is resumed (kubectl rollout resume; of Argo Rollouts: kubectl argo rollouts promote)"
            )
        }
        TargetState::OnDelete => {
            format!(
                "{who}: its update strategy is OnDelete. The rollout goes on when its pods have been deleted"
            )
        }
        TargetState::Overwritten => format!(
            "{who}: somebody removed lockstep's annotation from its pod template, and may have brought old pods back. The rollout goes on when lockstep.dev/rotate-now asks for another restart"
        ),
        TargetState::NoReference => format!(
            "{who}: target.versioned, and its pod template refers to no Secret of it, or it does not let lockstep move the references. Let it refer to the Secret by its name without a revision, and name that in its annotation: kubectl annotate {} {versioned}=<Secret> (with commas between several); or take it out of rotation.rollout.targets",
            shell_quote(&who.split([',', ' ']).next().unwrap_or_default().to_lowercase()),
            versioned = annotation::VERSIONED,
        ),
        TargetState::NoTemplate => {
            format!("{who}: it has no pod template (workloadRef). Name the workload that has it")
        }
        _ => format!(
            "{who}: lockstep may not restart it. Whoever administrates the cluster grants it with: {grant}"
        ),
    }
}

/// Why there is no way back.
const NOTHING_EARLIER: &str = "No remote value has an earlier version to go back to: it is the spec that changed. Change it back, or look at the pods; the rollout goes on when they are ready, and with the next value of the source";

/// Why a rollout that failed is not rolled back, although the spec says so.
pub(super) fn nothing_earlier(failed: &RolloutStatus) -> String {
    let why = failed.message.as_deref().unwrap_or_default();
    format!("{why}. {NOTHING_EARLIER}")
}

/// Why a rollout with too many targets does not begin.
pub(super) fn too_many(all: usize, max: usize) -> String {
    format!(
        "rotation.rollout.targets mean {all} workloads, and a rollout takes {max} at most. Narrow the selectors, or use several SyncedSecrets"
    )
}

/// How far a rollout is, for the condition `RolloutComplete`.
pub(super) fn progress(rollout: &RolloutStatus) -> (Reason, String) {
    let revision = &rollout.revision;
    let all = rollout.targets.len();
    let place = format!("wave {} of {}", rollout.wave, rollout.waves());
    let targets = if all == 1 {
        "1 target".to_owned()
    } else {
        format!("{all} targets")
    };
    match rollout.phase {
        RolloutPhase::Complete => {
            let missing = names(rollout, |target| target.state == TargetState::Missing);
            let partial = names(rollout, |target| target.state == TargetState::Partial);
            let kept = if partial.is_empty() {
                String::new()
            } else {
                format!("; pods that partition keeps back run on what they have: {partial}")
            };
            if missing.is_empty() {
                (
                    Reason::RolledOut,
                    format!("revision {revision} runs on {targets}{kept}"),
                )
            } else {
                (
                    Reason::TargetMissing,
                    format!("revision {revision} is rolled out; missing: {missing}{kept}"),
                )
            }
        }
        RolloutPhase::Progressing if rollout.targets.is_empty() => (
            Reason::Progressing,
            format!("revision {revision} is written, and its targets are looked up"),
        ),
        RolloutPhase::Progressing => (
            Reason::Progressing,
            format!("revision {revision}: {place} is restarted"),
        ),
        RolloutPhase::Soaking => (
            Reason::Progressing,
            format!(
                "revision {revision}: {place} is ready, and has to stay so until {}",
                rollout.soak_until.as_deref().unwrap_or_default()
            ),
        ),
        RolloutPhase::Verifying => (
            Reason::Progressing,
            match verify::of_wave(rollout).and_then(|check| check.message.as_deref()) {
                Some(message) => format!("revision {revision}: {place} is ready, and is verified: {message}"),
                None => format!("revision {revision}: {place} is ready, and is verified"),
            },
        ),
        RolloutPhase::Held => {
            let target = || stop(rollout).map(|(_, reason)| reason);
            let reason = check(rollout).or_else(target).unwrap_or(Reason::InvalidSpec);
            let why = rollout.message.as_deref().unwrap_or_default();
            let waiting = rollout
                .targets
                .iter()
                .filter(|target| target.wave > rollout.wave)
                .count();
            let rest = match waiting {
                0 => String::new(),
                1 => ". 1 target of a later wave stays as it was".to_owned(),
                more => format!(". {more} targets of later waves stay as they were"),
            };
            (
                reason,
                format!("revision {revision} is held in {place}. {why}{rest}"),
            )
        }
        RolloutPhase::RollingBack if rollout.rollback => (
            Reason::RollingBack,
            format!("revision {revision} is brought back on {targets}"),
        ),
        RolloutPhase::RollingBack => (
            Reason::RollingBack,
            format!(
                "revision {revision} is rolled back to {}: {}",
                rollout
                    .previous
                    .as_ref()
                    .map_or("the previous one", |previous| previous.revision.as_str()),
                rollout.message.as_deref().unwrap_or_default()
            ),
        ),
        RolloutPhase::RolledBack => (
            Reason::RolledBack,
            format!(
                "revision {revision} is back on {targets}, and stays until the source has something newer than what failed"
            ),
        ),
    }
}
