//! The messages about a rollout in conditions.

use lockstep_api::{
    OnFailure, Reason, Rollout, RolloutPhase, RolloutStatus, TargetProgress, TargetState, VerificationState,
    annotation,
};

use super::verify;
use crate::{text::shell_quote, time};

/// Maximum number of targets that a message names.
const NAMED: usize = 5;

/// Returns the most important target state that holds a rollout.
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

/// Returns why the check of a wave holds a rollout, if it does.
fn check(rollout: &RolloutStatus) -> Option<Reason> {
    match verify::of_wave(rollout)?.state {
        VerificationState::Failed => Some(Reason::VerificationFailed),
        VerificationState::Blocked => Some(Reason::VerificationBlocked),
        VerificationState::Forbidden => Some(Reason::VerificationForbidden),
        VerificationState::Running | VerificationState::Passed | VerificationState::Superseded => None,
    }
}

/// Lists the targets that match, for a message.
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

/// Explains why a rollout is held and what to do about it. With `back`, it only explains why it is
/// rolled back.
pub(super) fn stopped(rollout: &RolloutStatus, spec: &Rollout, grant: &str, back: bool) -> String {
    if let Some(reason) = check(rollout) {
        let found = verify::of_wave(rollout).and_then(|check| check.message.as_deref());
        let found = found.unwrap_or_default();
        return if reason == Reason::VerificationFailed && !back {
            format!(
                "verify: {found}. To retry, set the annotation lockstep.dev/rotate-now to a new value, or change the value at the source"
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
            "{who}: not ready within progressDeadline {deadline} of the restart. Check its pods. The rollout continues when it is ready, or with a new value at the source"
        ),
        TargetState::Failing => format!(
            "{who}: was not ready before the restart and still is not. Check its pods. The rollout continues when it is ready"
        ),
        TargetState::Paused => {
            format!(
                "{who}: paused. The rollout continues when it is resumed (kubectl rollout resume; for Argo Rollouts: kubectl argo rollouts promote)"
            )
        }
        TargetState::OnDelete => {
            format!("{who}: its update strategy is OnDelete. The rollout continues when its pods are deleted")
        }
        TargetState::Overwritten => format!(
            "{who}: lockstep's annotation was removed from its pod template, so old pods may run again. To restart it, set the annotation lockstep.dev/rotate-now to a new value"
        ),
        TargetState::NoReference => format!(
            "{who}: target.versioned is set, but its pod template refers to no Secret of it, or the workload does not allow lockstep to change the references. Refer to the Secret by its name without a revision, and run: kubectl annotate {} {versioned}=<Secret> (separate several names with commas). Or remove the workload from rotation.rollout.targets",
            shell_quote(&who.split([',', ' ']).next().unwrap_or_default().to_lowercase()),
            versioned = annotation::VERSIONED,
        ),
        TargetState::NoTemplate => {
            format!(
                "{who}: it has no pod template (workloadRef). Set the workload with the pod template as the target instead"
            )
        }
        _ => format!(
            "{who}: lockstep is not allowed to restart it. Ask a cluster administrator to run: {grant}"
        ),
    }
}

/// Explains why a rollback is not possible.
const NOTHING_EARLIER: &str = "There is no earlier version to roll back to, because only the spec changed. Change it back, or check the pods. The rollout continues when they are ready, or with a new value at the source";

/// Explains why a failed rollout is not rolled back although `onFailure` is `Rollback`.
pub(super) fn nothing_earlier(failed: &RolloutStatus) -> String {
    let why = failed.message.as_deref().unwrap_or_default();
    format!("{why}. {NOTHING_EARLIER}")
}

/// Explains why a rollout with too many targets does not start.
pub(super) fn too_many(all: usize, max: usize) -> String {
    format!(
        "rotation.rollout.targets: {all} workloads match, but a rollout has at most {max} targets. Narrow the selectors, or use several SyncedSecrets"
    )
}

/// Describes the progress of a rollout for the condition `RolloutComplete`.
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
                format!("; pods that partition holds back keep their revision: {partial}")
            };
            if missing.is_empty() {
                (
                    Reason::RolledOut,
                    format!("revision {revision} runs on {targets}{kept}"),
                )
            } else {
                (
                    Reason::TargetMissing,
                    format!("revision {revision} is rolled out; these targets do not exist: {missing}{kept}"),
                )
            }
        }
        RolloutPhase::Progressing if rollout.targets.is_empty() => (
            Reason::Progressing,
            format!("revision {revision} is written; looking up its targets"),
        ),
        RolloutPhase::Progressing => (
            Reason::Progressing,
            format!("revision {revision}: restarting {place}"),
        ),
        RolloutPhase::Soaking => (
            Reason::Progressing,
            format!(
                "revision {revision}: {place} is ready and soaks until {}",
                time::format(rollout.soak_end_time)
            ),
        ),
        RolloutPhase::Verifying => (
            Reason::Progressing,
            match verify::of_wave(rollout).and_then(|check| check.message.as_deref()) {
                Some(message) => format!("revision {revision}: {place} is ready; verifying it: {message}"),
                None => format!("revision {revision}: {place} is ready; verifying it"),
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
                1 => ". 1 target of a later wave is unchanged".to_owned(),
                more => format!(". {more} targets of later waves are unchanged"),
            };
            (
                reason,
                format!("revision {revision} is held in {place}. {why}{rest}"),
            )
        }
        RolloutPhase::RollingBack if rollout.rollback => (
            Reason::RollingBack,
            format!("rolling back to revision {revision} on {targets}"),
        ),
        RolloutPhase::RollingBack => (
            Reason::RollingBack,
            format!(
                "rolling back revision {revision} to {}: {}",
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
                "rolled back to revision {revision} on {targets}. lockstep waits for a newer value at the source"
            ),
        ),
    }
}
