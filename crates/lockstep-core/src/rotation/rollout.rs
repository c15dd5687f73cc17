//! The rollout of a new revision to the workloads that read the Secret.
//!
//! ```text
//!   written             every target of the wave is ready
//! ─────────▶ ┌─────────────┐ ─────────────────────────────▶ ┌─────────┐
//!            │ Progressing │ ◀───────────────────────────── │ Soaking │
//!            └─────────────┘   one no longer is             └─────────┘
//!  not ready in time, │ ▲  ▲                                     │ soaked, verify is set
//!  paused, overwritten│ │  │        one no longer is             ▼
//!      or forbidden   ▼ │  │◀────────────────────────────── ┌───────────┐
//!                 ┌──────┐│                                 │ Verifying │
//!                 │ Held ││◀─────────────────────────────── └───────────┘
//!                 └──────┘   next wave (also from Soaking,       │ passed, no wave is left
//!                     ▲      without verify)                     ▼
//!                     │                                     ┌──────────┐
//!                     └── the check failed, was late or     │ Complete │
//!                         cannot be made, see [`verify`]    └──────────┘
//!
//!    not ready in time, or the check
//!      failed, onFailure: Rollback
//! Progressing ─────────────────▶ ┌─────────────┐  previous written, restarted, ready  ┌────────────┐
//! Verifying                      │ RollingBack │ ───────────────────────────────────▶ │ RolledBack │
//!                                └─────────────┘                                      └────────────┘
//! ```
//!
//! The state is in `status.rotation.rollout`, and each target has its revision in its pod template.
//! So each step can be repeated, and the operator can restart between any two steps: a target that
//! has the revision is not restarted again, and one without it is.
//!
//! [`verify`]: super::verify
//!
//! A newer value waits for a rollout in progress. It replaces a rollout that is held or rolled
//! back.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lockstep_api::{
    OnFailure, PreviousRevision, Rollout, RolloutPhase, RolloutStatus, TargetProgress, TargetState,
    WorkloadKind,
};

use super::{
    input::RolloutInput,
    verify::{self, Judgement},
    workload::{Observation, Readiness, Target, Workload},
};
use crate::time::{later, to_seconds};

/// Interval between observations of held or soaking targets, and the maximum for all others.
const SLOW_INTERVAL: std::time::Duration = std::time::Duration::from_secs(15);
/// Interval between observations right after a restart. A tenth of the time since the restart is
/// added.
const QUICK_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);
/// Represents every target while the status does not list them yet.
const ANY: &str = "*";
/// Maximum number of targets of a rollout.
pub const MAX_TARGETS: usize = 256;

/// The result of a rollout step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The rollout after the step.
    pub rollout: RolloutStatus,
    /// The workloads to restart with their uids. Record the results with [`restarted`] and
    /// [`refused`].
    pub restart: Vec<(Target, String)>,
}

/// Starts the rollout of a revision that was just written. The first step resolves its targets.
pub fn begin(
    revision: &str,
    previous: Option<PreviousRevision>,
    old: Option<&RolloutStatus>,
    spec: &Rollout,
    now: Timestamp,
) -> RolloutStatus {
    let mut rollout = RolloutStatus {
        phase: RolloutPhase::Progressing,
        revision: revision.to_owned(),
        generation: None,
        start_time: to_seconds(now),
        end_time: None,
        wave: 0,
        rollback: false,
        touched: old.map(possibly_restarted).unwrap_or_default(),
        soak_end_time: None,
        verification: None,
        message: None,
        targets: Vec::new(),
        previous: None,
    };
    let unfinished = old.filter(|old| !old.phase.is_over());
    let good = unfinished.and_then(|old| old.previous.clone()).or(previous);
    if let Some(old) = unfinished.filter(|_| !is_any(&rollout.touched))
        && good.as_ref().is_some_and(|good| good.revision == revision)
    {
        // the source went back to the earlier value: targets that were not restarted still run on
        // it
        rollout.generation = old.generation;
        rollout.targets = carry_over(old, &rollout.touched, &sizes(spec));
        rollout.wave = 1;
        if rollout.targets.is_empty() {
            finish(&mut rollout, now);
        }
        return rollout;
    }
    // if this is the last good revision, there is nothing to roll back to
    rollout.previous = good.filter(|good| good.revision != revision);
    rollout
}

/// Starts the rollback of a failed rollout after the previous revision was written. It covers all
/// targets that this rollout, or an unfinished one before it, may have restarted. Targets that are
/// not ready go first, then the others in waves.
pub fn begin_rollback(
    failed: &RolloutStatus,
    revision: &str,
    spec: &Rollout,
    now: Timestamp,
) -> RolloutStatus {
    let mut names = failed.touched.clone();
    // a rollback in progress keeps all its targets
    let own = failed
        .targets
        .iter()
        .filter(|target| failed.rollback || target.updated_time.is_some());
    names.extend(own.map(ToString::to_string));
    let mut rollout = RolloutStatus {
        phase: RolloutPhase::RollingBack,
        revision: revision.to_owned(),
        rollback: true,
        end_time: None,
        wave: 1,
        soak_end_time: None,
        verification: None,
        targets: carry_over(failed, &names, &sizes(spec)),
        touched: Vec::new(),
        previous: None,
        ..failed.clone()
    };
    if rollout.targets.is_empty() {
        finish(&mut rollout, now);
    }
    rollout
}

/// Holds a failed rollout whose earlier versions produce the same Secret, because only the spec
/// changed.
pub fn hold_without_rollback(failed: &RolloutStatus) -> RolloutStatus {
    RolloutStatus {
        phase: RolloutPhase::Held,
        previous: None,
        message: Some(super::messages::nothing_earlier(failed)),
        ..failed.clone()
    }
}

/// Marks every target as restarted. With a versioned Secret, a target that was not restarted may
/// refer to no revision yet. A target that already has the revision is not restarted again.
pub fn mark_all_restarted(rollout: &RolloutStatus) -> RolloutStatus {
    let mut touched = rollout.clone();
    for target in &mut touched.targets {
        target.updated_time.get_or_insert(rollout.start_time);
    }
    touched
}

fn is_any(touched: &[String]) -> bool {
    touched.iter().any(|name| name == ANY)
}

/// Returns the targets that an unfinished rollout, or one before it, may have restarted, as
/// `Kind/name`. It includes every target of the started waves, because the operator can stop
/// between a restart and its record.
pub fn possibly_restarted(rollout: &RolloutStatus) -> Vec<String> {
    if rollout.phase.is_over() {
        return Vec::new();
    }
    let own = rollout
        .targets
        .iter()
        .filter(|target| rollout.rollback || target.wave <= rollout.wave);
    if rollout.targets.is_empty() {
        return vec![ANY.to_owned()];
    }
    let mut all = rollout.touched.clone();
    for name in own.map(ToString::to_string) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

/// Returns the named targets of a rollout as targets of another one: first those that are not
/// ready, in one wave, then the others in waves.
fn carry_over(rollout: &RolloutStatus, names: &[String], sizes: &[usize]) -> Vec<TargetProgress> {
    let touched = rollout
        .targets
        .iter()
        .filter(|target| is_any(names) || names.contains(&target.to_string()));
    let (ready, broken): (Vec<&TargetProgress>, Vec<&TargetProgress>) =
        touched.partition(|target| target.state.is_done());
    let targets = |of: Vec<&TargetProgress>| of.into_iter().map(Target::from).collect::<Vec<_>>();
    let mut dealt = in_waves(&targets(broken), &[MAX_TARGETS], 0);
    let before = dealt.last().map_or(0, |target| target.wave);
    dealt.extend(in_waves(&targets(ready), sizes, before));
    dealt
}

fn sizes(spec: &Rollout) -> Vec<usize> {
    let size = |size: u32| usize::try_from(size).unwrap_or(usize::MAX).max(1);
    if spec.waves.is_empty() {
        vec![size(spec.max_concurrent.unwrap_or(1))]
    } else {
        spec.waves.iter().copied().map(size).collect()
    }
}

/// Distributes targets to waves. The last size applies to all further waves. `before` waves exist
/// already.
fn in_waves(targets: &[Target], sizes: &[usize], before: i64) -> Vec<TargetProgress> {
    let mut dealt = Vec::with_capacity(targets.len());
    let mut rest = targets;
    let mut wave = before;
    while !rest.is_empty() {
        let nth = usize::try_from(wave).unwrap_or_default();
        let size = sizes.get(nth).or(sizes.last()).copied().unwrap_or(1);
        wave += 1;
        let (now, later) = rest.split_at(size.min(rest.len()));
        dealt.extend(now.iter().map(|target| TargetProgress {
            kind: target.kind,
            name: target.name.clone(),
            wave,
            state: TargetState::Waiting,
            updated_time: None,
            was_failing: false,
        }));
        rest = later;
    }
    dealt
}

/// Whether the targets have to be resolved: at the start, and after a change of the spec.
pub fn wants_targets(rollout: &RolloutStatus, generation: i64) -> bool {
    !rollout.rollback
        && !rollout.phase.is_over()
        && !rollout.awaits_rollback()
        && rollout.generation != Some(generation)
}

/// Updates the targets from the spec. Targets of started waves keep their wave, targets that the
/// spec no longer selects are removed, and new ones come last. With more than [`MAX_TARGETS`], the
/// rollout is held.
pub fn resolve(
    rollout: &RolloutStatus,
    found: &[Target],
    spec: &Rollout,
    generation: i64,
    now: Timestamp,
) -> RolloutStatus {
    let mut next = rollout.clone();
    if next.generation.is_some_and(|known| known != generation) {
        // another spec can have another check
        verify::supersede(&mut next);
    }
    next.generation = Some(generation);
    next.targets
        .retain(|target| target.wave <= next.wave && found.contains(&Target::from(target)));
    let known: Vec<Target> = next.targets.iter().map(Target::from).collect();
    let mut fresh: Vec<Target> = Vec::new();
    for target in found {
        if !known.contains(target) && !fresh.contains(target) {
            fresh.push(target.clone());
        }
    }
    let all = known.len() + fresh.len();
    if all > MAX_TARGETS {
        return RolloutStatus {
            phase: RolloutPhase::Held,
            generation: None,
            message: Some(super::messages::too_many(all, MAX_TARGETS)),
            ..rollout.clone()
        };
    }
    if next.phase == RolloutPhase::Held && rollout.generation.is_none() {
        next.phase = RolloutPhase::Progressing;
        next.message = None;
    }
    next.targets.extend(in_waves(&fresh, &sizes(spec), next.wave));
    next.wave = next.wave.max(1);
    // a wave without targets is complete
    while next.wave < next.waves() && !next.targets.iter().any(|target| target.wave == next.wave) {
        next.wave += 1;
    }
    if next.wave > next.waves() {
        finish(&mut next, now);
    }
    next
}

/// Returns the targets that the next step has to observe.
pub fn targets_to_observe(rollout: &RolloutStatus) -> Vec<Target> {
    if rollout.phase.is_over() || rollout.awaits_rollback() {
        return Vec::new();
    }
    let now = rollout
        .targets
        .iter()
        .filter(|target| target.wave == rollout.wave);
    now.map(Target::from).collect()
}

/// Advances the rollout as far as the observations allow.
pub fn step(rollout: &RolloutStatus, cx: &RolloutInput<'_>) -> Step {
    let mut next = rollout.clone();
    let mut restart = Vec::new();
    if targets_to_observe(rollout).is_empty() {
        return Step {
            rollout: next,
            restart,
        };
    }
    let mut blind = false;
    for target in next
        .targets
        .iter_mut()
        .filter(|target| target.wave == rollout.wave)
    {
        let name = Target::from(&*target);
        match cx.seen.get(&name).unwrap_or(&Observation::Unknown) {
            Observation::Unknown => blind = true,
            Observation::Forbidden => target.state = TargetState::Forbidden,
            // the pods of a target that appears later start with the new value
            Observation::Missing => target.state = TargetState::Missing,
            Observation::NoTemplate => target.state = TargetState::NoTemplate,
            Observation::NoReference => target.state = TargetState::NoReference,
            Observation::There(_) if target.state == TargetState::Missing => {}
            Observation::There(workload) => {
                if judge(target, workload, rollout, cx) == Verdict::Restart {
                    restart.push((name, workload.uid.clone()));
                }
            }
        }
    }
    settle(&mut next, cx, blind);
    Step {
        rollout: next,
        restart,
    }
}

#[derive(PartialEq, Eq)]
enum Verdict {
    Restart,
    Leave,
}

fn judge(
    target: &mut TargetProgress,
    workload: &Workload,
    rollout: &RolloutStatus,
    cx: &RolloutInput<'_>,
) -> Verdict {
    let carries = workload.revision.as_deref() == Some(rollout.revision.as_str());
    if target.updated_time.is_none() {
        target.state = TargetState::Waiting;
        if !carries {
            let failing = match workload.readiness {
                Readiness::Failed | Readiness::Unavailable => true,
                // the controllers of these two never report a failure
                Readiness::Progressing => {
                    matches!(target.kind, WorkloadKind::StatefulSet | WorkloadKind::DaemonSet)
                }
                _ => false,
            };
            // a target that an earlier value broke does not count as failing before
            let touched = is_any(&rollout.touched) || rollout.touched.contains(&target.to_string());
            let failing = failing && !touched;
            let noted = target.was_failing;
            target.was_failing = failing;
            if failing && !noted {
                // record it in the status before the restart, so a crash in between keeps the cause
                // correct
                return Verdict::Leave;
            }
            let earliest = cx
                .restarted
                .get(&Target::from(&*target))
                .map(|last| later(*last, cx.spec.minimum_interval()));
            // a rollback does not wait for minimumInterval
            return if !rollout.rollback && earliest.is_some_and(|at| cx.now < at) {
                Verdict::Leave
            } else {
                Verdict::Restart
            };
        }
        // it was restarted, but the operator stopped before it recorded that
        target.updated_time = Some(to_seconds(cx.now));
    }
    if !carries {
        target.state = TargetState::Overwritten;
        return Verdict::Leave;
    }
    let stood = match target.state {
        TargetState::Paused => workload.readiness != Readiness::Paused,
        TargetState::OnDelete => workload.readiness != Readiness::OnDelete,
        _ => false,
    };
    if stood {
        // its deadline starts when it is resumed
        target.updated_time = Some(to_seconds(cx.now));
        target.state = TargetState::Updating;
    }
    let late = target
        .updated_time
        .is_some_and(|updated| cx.now >= later(updated, cx.spec.progress_deadline()));
    target.state = match workload.readiness {
        Readiness::Ready => TargetState::Ready,
        Readiness::Partial => TargetState::Partial,
        Readiness::ScaledToZero => TargetState::ScaledToZero,
        Readiness::Paused => TargetState::Paused,
        Readiness::OnDelete => TargetState::OnDelete,
        _ if late && target.was_failing => TargetState::Failing,
        _ if late => TargetState::NotReady,
        Readiness::Failed if !target.was_failing => TargetState::NotReady,
        Readiness::Progressing | Readiness::Unavailable | Readiness::Failed => TargetState::Updating,
    };
    Verdict::Leave
}

/// Derives the phase of the rollout from the targets of the wave.
fn settle(next: &mut RolloutStatus, cx: &RolloutInput<'_>, blind: bool) {
    let moving = if next.rollback {
        RolloutPhase::RollingBack
    } else {
        RolloutPhase::Progressing
    };
    let verify = cx.spec.verify.as_ref().filter(|_| !next.rollback);
    if verify.is_none() {
        next.verification = None;
    }
    if verify.is_some() && verify::has_failed(next) {
        // a failed check is repeated only on request
        stop(next, cx, true);
        return;
    }
    let wave: Vec<&TargetProgress> = next
        .targets
        .iter()
        .filter(|target| target.wave == next.wave)
        .collect();
    if wave.iter().any(|target| target.state.stops()) {
        let blamed = wave.iter().any(|target| target.state == TargetState::NotReady);
        verify::supersede(next);
        stop(next, cx, blamed);
        return;
    }
    if blind {
        // an unobserved target proves nothing
        return;
    }
    if !wave.iter().all(|target| target.state.is_done()) {
        next.message = None;
        next.phase = moving;
        next.soak_end_time = None;
        verify::supersede(next);
        return;
    }
    if let Some(verify) = verify
        && verify::wanted(next, cx.spec).is_some()
    {
        match verify::judge(next, verify, cx) {
            Judgement::Passed => advance(next, cx, moving),
            Judgement::Waits => {
                next.message = None;
                next.phase = RolloutPhase::Verifying;
            }
            Judgement::Stops => {
                let blamed = verify::has_failed(next);
                stop(next, cx, blamed);
            }
        }
        return;
    }
    next.message = None;
    let soak = cx.spec.soak();
    if !soak.is_zero() && !next.rollback {
        let until = next.soak_end_time.unwrap_or_else(|| later(cx.now, soak));
        if cx.now < until {
            next.phase = RolloutPhase::Soaking;
            next.soak_end_time = Some(to_seconds(until));
            return;
        }
    }
    next.soak_end_time = None;
    if verify.is_some() {
        // the check starts after this is in the status
        verify::begin(next, cx.now);
        next.phase = RolloutPhase::Verifying;
        return;
    }
    advance(next, cx, moving);
}

/// Completes the wave.
fn advance(next: &mut RolloutStatus, cx: &RolloutInput<'_>, moving: RolloutPhase) {
    next.message = None;
    if next.wave >= next.waves() {
        finish(next, cx.now);
    } else {
        next.wave += 1;
        next.phase = moving;
    }
}

/// Holds the rollout, or rolls it back if the new value is the cause and `onFailure` is `Rollback`.
fn stop(next: &mut RolloutStatus, cx: &RolloutInput<'_>, blamed: bool) {
    let back = cx.spec.on_failure == OnFailure::Rollback && next.previous.is_some();
    let goes_back = blamed && back && !next.rollback;
    next.message = Some(super::messages::stopped(next, cx.spec, cx.grant, goes_back));
    next.soak_end_time = None;
    next.phase = if goes_back {
        RolloutPhase::RollingBack
    } else {
        RolloutPhase::Held
    };
}

fn finish(rollout: &mut RolloutStatus, now: Timestamp) {
    rollout.phase = if rollout.rollback {
        RolloutPhase::RolledBack
    } else {
        RolloutPhase::Complete
    };
    rollout.end_time = Some(to_seconds(now));
    rollout.previous = None;
}

/// Records that a target was restarted.
pub fn restarted(rollout: &mut RolloutStatus, target: &Target, now: Timestamp) {
    if let Some(progress) = find(rollout, target) {
        progress.state = TargetState::Updating;
        progress.updated_time = Some(to_seconds(now));
    }
}

/// Records that lockstep may not restart a target.
pub fn refused(rollout: &mut RolloutStatus, target: &Target, cx: &RolloutInput<'_>) {
    if let Some(progress) = find(rollout, target) {
        progress.state = TargetState::Forbidden;
        rollout.phase = RolloutPhase::Held;
        rollout.message = Some(super::messages::stopped(rollout, cx.spec, cx.grant, false));
    }
}

fn find<'a>(rollout: &'a mut RolloutStatus, target: &Target) -> Option<&'a mut TargetProgress> {
    let mut targets = rollout.targets.iter_mut();
    targets.find(|progress| progress.kind == target.kind && progress.name == target.name)
}

/// Updates a rollout whose revision matches the source: it is no longer a rollback. If `onFailure`
/// is now `Hold`, a rollback that has not started is cancelled.
pub fn accept(rollout: &RolloutStatus, spec: &Rollout) -> RolloutStatus {
    if rollout.awaits_rollback() && spec.on_failure == OnFailure::Hold {
        return RolloutStatus {
            phase: RolloutPhase::Held,
            ..rollout.clone()
        };
    }
    if !rollout.rollback {
        return rollout.clone();
    }
    RolloutStatus {
        rollback: false,
        phase: match rollout.phase {
            RolloutPhase::RollingBack => RolloutPhase::Progressing,
            RolloutPhase::RolledBack => RolloutPhase::Complete,
            phase => phase,
        },
        ..rollout.clone()
    }
}

/// Retries the targets or the check that hold a rollout.
pub fn retry(rollout: &RolloutStatus, now: Timestamp) -> RolloutStatus {
    let mut next = rollout.clone();
    // a rollback that has not started is replaced by a retry
    if next.phase != RolloutPhase::Held && !next.awaits_rollback() {
        return next;
    }
    for target in next.targets.iter_mut().filter(|target| target.state.stops()) {
        let overwritten = target.state == TargetState::Overwritten;
        target.state = TargetState::Waiting;
        target.updated_time = target
            .updated_time
            .take()
            .filter(|_| !overwritten)
            .map(|_| to_seconds(now));
    }
    verify::supersede(&mut next);
    next.phase = if next.rollback {
        RolloutPhase::RollingBack
    } else {
        RolloutPhase::Progressing
    };
    next.message = None;
    next
}

/// Returns when to observe the targets next, after an observation now; `None` if there is nothing
/// to observe.
pub fn next_observation(
    rollout: &RolloutStatus,
    spec: &Rollout,
    restarts: &BTreeMap<Target, Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    if rollout.phase.is_over() || rollout.awaits_rollback() {
        return None;
    }
    let wave = rollout
        .targets
        .iter()
        .filter(|target| target.wave == rollout.wave);
    let slow = later(now, SLOW_INTERVAL);
    Some(match rollout.phase {
        RolloutPhase::Soaking => {
            // the soak may have ended while the targets could not be observed
            let ends = rollout.soak_end_time.filter(|ends| *ends > now);
            ends.unwrap_or_else(|| later(now, QUICK_INTERVAL)).min(slow)
        }
        RolloutPhase::Held => slow,
        RolloutPhase::Verifying => {
            let began = rollout
                .verification
                .as_ref()
                .map_or(now, |check| check.start_time);
            let passed = std::time::Duration::try_from(now.duration_since(began));
            later(now, QUICK_INTERVAL + passed.unwrap_or_default() / 10).min(slow)
        }
        _ => {
            let mut next = slow;
            for target in wave.filter(|target| !target.state.is_done()) {
                let at = match target.updated_time {
                    Some(updated) => {
                        let passed = std::time::Duration::try_from(now.duration_since(updated));
                        let pause = QUICK_INTERVAL + passed.unwrap_or_default() / 10;
                        let deadline = later(updated, spec.progress_deadline());
                        later(now, pause).min(deadline.max(later(now, QUICK_INTERVAL)))
                    }
                    None => restarts
                        .get(&Target::from(target))
                        .filter(|_| !rollout.rollback)
                        .map_or(now, |last| later(*last, spec.minimum_interval()))
                        .max(later(now, QUICK_INTERVAL)),
                };
                next = next.min(at);
            }
            next
        }
    })
}
