//! When a value that changed at its source may be written, and how it reaches the pods.
//!
//! ```text
//!             changed; no window open, a rollout moves,
//!                 or the last one began just now
//!     ┌──────────┐ ──────────────────────────────▶ ┌─────────┐ ──┐ changed again: the newest waits,
//!     │ Complete │                                 │ Pending │   │ since the first change
//!     └──────────┘ ◀────────────────────────────── └─────────┘ ◀─┘
//!         │  ▲       let in, drift repaired,            │
//!         │  │       changed back                       │ let in
//! changed │  │                                          │
//!         ▼  │ no targets                               ▼
//!       written ◀───────────────────────────────────────┘
//!         │
//!         ▼ targets: the rollout, see [`rollout`]
//! ```
//!
//! Nothing of this is kept in memory: what is written stands in `status.target`, what waits and what is rolled out in
//! `status.rotation`, and each look at the sources and at the targets decides anew. So a restart at any point changes nothing.

pub mod coverage;
mod input;
mod messages;
pub mod references;
mod rollback;
pub mod rollout;
pub mod verify;
pub mod versions;
mod window;
pub mod workload;

use std::time::Duration;

use jiff::Timestamp;
use lockstep_api::{
    PreviousRevision, Reason, RefusedRevision, Rollout, RolloutPhase, RolloutStatus, Rotation, RotationPhase,
    RotationStatus, SourceStatus, SyncedSecretStatus, TargetStatus, WaitsFor,
};

pub use self::{
    input::{Check, RolloutInput},
    rollback::{check, check_sources, pin, refused, still_says},
    window::{Opening, Windows},
};
use crate::{
    Failure, lease,
    time::{later, to_seconds},
};

/// A change that could be written.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// The Secret that was written last; `None` before the first.
    pub written: Option<&'a TargetStatus>,
    /// The name that the Secret has to have.
    pub target_name: &'a str,
    /// The revision that it would have.
    pub revision: &'a str,
    /// Whether the Secret was found edited or gone.
    pub drifted: bool,
    /// Whether somebody asks to let it in.
    pub requested: bool,
    /// How revisions reach the pods, where the spec says.
    pub rollout: Option<&'a Rollout>,
    /// The rollout of the revision that was written last.
    pub last_rollout: Option<&'a RolloutStatus>,
}

/// Whether a change may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Now.
    Now,
    /// Not before that, and not before then, as far as it is known when.
    Wait(WaitsFor, Option<Timestamp>),
}

/// Decides whether a change may be written. What was never written does not wait, nor does the repair of a drift, nor what is
/// no change of values.
pub fn entry(windows: &Windows, change: &Change<'_>, now: Timestamp) -> Entry {
    let rotates = change
        .written
        .is_some_and(|written| written.name == change.target_name && written.revision != change.revision);
    if !rotates || change.drifted || change.requested {
        return Entry::Now;
    }
    if let Opening::Closed { next } = windows.at(now) {
        return Entry::Wait(WaitsFor::Window, next);
    }
    let (Some(spec), Some(last)) = (change.rollout, change.last_rollout) else {
        return Entry::Now;
    };
    if last.awaits_rollback() {
        // forward is as good a way out of a failure as back
        return Entry::Now;
    }
    if last.phase.is_moving() {
        return Entry::Wait(WaitsFor::Rollout, None);
    }
    match soonest(last, spec.minimum_interval()) {
        Some(at) if now < at => Entry::Wait(WaitsFor::Interval, Some(at)),
        _ => Entry::Now,
    }
}

/// When the next rollout may begin.
fn soonest(last: &RolloutStatus, interval: Duration) -> Option<Timestamp> {
    let began = last.start_time.parse().ok()?;
    Some(later(began, interval))
}

/// What waits, as the status says it.
pub fn pending(
    old: Option<&RotationStatus>,
    revision: String,
    waits_for: WaitsFor,
    next: Option<Timestamp>,
    now: Timestamp,
) -> RotationStatus {
    let since = old.and_then(|old| old.pending_since.clone());
    let rollout = old.and_then(|old| old.rollout.clone());
    RotationStatus {
        phase: match &rollout {
            Some(rollout) if !rollout.phase.is_over() => rollout.phase.into(),
            _ => RotationPhase::Pending,
        },
        pending_since: Some(since.unwrap_or_else(|| to_seconds(now))),
        pending_revision: Some(revision),
        waits_for: Some(waits_for),
        next_window: next.map(to_seconds),
        handled_rotate_now: old.and_then(|old| old.handled_rotate_now.clone()),
        rollout,
        refused: old.and_then(|old| old.refused.clone()),
    }
}

/// What is left to say when nothing waits; `None` where the spec has no rotation and nobody ever asked for one.
pub fn complete(
    rotation: Option<&Rotation>,
    rotate_now: Option<&str>,
    rollout: Option<RolloutStatus>,
) -> Option<RotationStatus> {
    (rotation.is_some() || rotate_now.is_some()).then(|| RotationStatus {
        phase: rollout
            .as_ref()
            .map_or(RotationPhase::Complete, |rollout| rollout.phase.into()),
        pending_since: None,
        pending_revision: None,
        waits_for: None,
        next_window: None,
        handled_rotate_now: rotate_now.map(str::to_owned),
        rollout,
        refused: None,
    })
}

/// The rotation once the Secret is as `target` says: a revision that is new to the Secret begins a rollout. `back` says that it was
/// written in the place of a revision that failed, which the source still says.
pub fn written(
    old: Option<&SyncedSecretStatus>,
    new: &Written<'_>,
    rotation: Option<&Rotation>,
    rotate_now: Option<&str>,
    now: Timestamp,
) -> Option<RotationStatus> {
    let &Written {
        target,
        sources,
        back,
    } = new;
    let before = old.and_then(|old| old.rotation.as_ref());
    let last = before.and_then(|before| before.rollout.as_ref());
    let refused = before.and_then(|before| before.refused.as_ref());
    let spec = rotation.and_then(|rotation| rotation.rollout.as_ref());
    let replaced = old
        .and_then(|old| Some((old.target.as_ref()?, old.sources.as_slice())))
        .filter(|(replaced, _)| {
            let same = replaced.name == target.name || replaced.versioned && target.versioned;
            same && replaced.revision != target.revision
        });
    // another Secret, to which no target refers yet
    let moves = target.versioned
        && old
            .and_then(|old| old.target.as_ref())
            .is_none_or(|before| before.name != target.name);
    // it was gone with its sources, and comes back as another one
    let returns = old
        .filter(|old| old.target.is_none())
        .and_then(|old| old.history.first())
        .is_some_and(|last| last.revision != target.revision);
    // an earlier process may have written a credential, on which pods may have begun
    let unsure = old.is_some_and(|old| old.target.is_none() && lease::may_have_written(old.lease.as_ref()));
    let mut back = refused.filter(|_| back && spec.is_some());
    let asked =
        rotate_now.is_some() && before.and_then(|before| before.handled_rotate_now.as_deref()) != rotate_now;
    let rollout = match (spec, replaced) {
        (None, _) => None,
        (Some(spec), None)
            if moves
                || returns
                || unsure
                || asked
                    && target.versioned
                    && last.is_some_and(|last| last.phase == RolloutPhase::Complete) =>
        {
            Some(rollout::begin(&target.revision, None, None, spec, now))
        }
        (Some(_), None) if asked => last.map(|last| rollout::retry(last, now)),
        // what the sources held before makes the same Secret
        (Some(_), None) if back.is_some() && last.is_some_and(RolloutStatus::awaits_rollback) => {
            back = None;
            last.map(rollout::cannot_go_back)
        }
        // the source itself says by now what was brought back
        (Some(spec), None) if back.is_none() => last.map(|last| rollout::accept(last, spec)),
        (Some(_), None) => last.cloned(),
        (Some(spec), Some((replaced, before))) => Some(match last.filter(|last| !last.phase.is_over()) {
            Some(failed) if back.is_some() && target.versioned => {
                rollout::begin_rollback(&rollout::touch_all(failed), &target.revision, spec, now)
            }
            Some(failed) if back.is_some() => rollout::begin_rollback(failed, &target.revision, spec, now),
            unfinished => {
                let previous = previous(replaced, before);
                let good = unfinished.and_then(|last| last.previous.clone());
                let good = good.unwrap_or(previous);
                let mut begun = if target.versioned {
                    // a target that was not restarted may refer to no revision yet
                    let touched = unfinished.map(rollout::reached).unwrap_or_default();
                    let good = Some(good).filter(|good| good.revision != target.revision);
                    RolloutStatus {
                        touched,
                        ..rollout::begin(&target.revision, good, None, spec, now)
                    }
                } else {
                    rollout::begin(&target.revision, Some(good), unfinished, spec, now)
                };
                // what the spec alone changed, no version of a source brings back
                begun.previous = begun
                    .previous
                    .filter(|good| back.is_none() && !rollback::are_same(&good.sources, sources));
                begun
            }
        }),
    };
    let mut status = complete(rotation, rotate_now, rollout)?;
    status.refused = back.cloned().map(|refused| RefusedRevision {
        pinned: previous(target, sources),
        ..refused
    });
    Some(status)
}

/// What the Secret holds, as something that can be gone back to.
fn previous(target: &TargetStatus, sources: &[SourceStatus]) -> PreviousRevision {
    PreviousRevision {
        revision: target.revision.clone(),
        key_id: target.key_id.clone(),
        revision_hash: target.revision_hash.clone(),
        sources: sources.to_vec(),
    }
}

/// The Secret as it is, after a sync.
#[derive(Debug, Clone, Copy)]
pub struct Written<'a> {
    /// The Secret.
    pub target: &'a TargetStatus,
    /// What it was made from.
    pub sources: &'a [SourceStatus],
    /// Whether it holds what the sources held before, because what they hold now failed.
    pub back: bool,
}

/// The rotation after a step of its rollout. A rollout that failed, and is to be rolled back, gives up what the Secret `held` and
/// the sources that it was made from.
pub fn stepped(
    old: &RotationStatus,
    rollout: RolloutStatus,
    held: Option<(&TargetStatus, &[SourceStatus])>,
    now: Timestamp,
) -> RotationStatus {
    let mut next = old.clone();
    if rollout.awaits_rollback()
        && let (Some((target, sources)), Some(pinned)) = (held, rollout.previous.clone())
    {
        let message = rollout.message.clone().unwrap_or_default();
        let refused = rollback::refuse(target, sources, pinned, message, to_seconds(now));
        next.refused = Some(refused);
    }
    next.phase = if rollout.phase.is_over() && next.pending_revision.is_some() {
        RotationPhase::Pending
    } else {
        rollout.phase.into()
    };
    next.rollout = Some(rollout);
    next
}

/// How far the rollout is, in a sentence, and why; `None` where there never was one.
pub fn progress(status: Option<&RotationStatus>) -> Option<(RolloutPhase, Reason, String)> {
    let rollout = status?.rollout.as_ref()?;
    let (reason, message) = messages::progress(rollout);
    Some((rollout.phase, reason, message))
}

/// When what waits may be written, as far as the status says it.
pub fn due(status: Option<&RotationStatus>) -> Option<(WaitsFor, Timestamp)> {
    let status = status?;
    status.pending_revision.as_ref()?;
    let at = || status.next_window.as_deref()?.parse().ok();
    match status.waits_for.unwrap_or(WaitsFor::Window) {
        WaitsFor::Rollout => {
            let moves = status
                .rollout
                .as_ref()
                .is_some_and(|rollout| rollout.phase.is_moving());
            (!moves).then_some((WaitsFor::Rollout, Timestamp::MIN))
        }
        other => Some((other, at()?)),
    }
}

/// Whether the previous revision has to be written, because a rollout failed.
pub fn awaits_rollback(status: Option<&RotationStatus>) -> bool {
    status
        .filter(|status| status.refused.is_some())
        .and_then(|status| status.rollout.as_ref())
        .is_some_and(RolloutStatus::awaits_rollback)
}

/// The oldest version among the sources, and when it is older than `maxAge`.
pub fn overdue_at<'a>(
    rotation: Option<&Rotation>,
    sources: &'a [SourceStatus],
) -> Option<(&'a SourceStatus, Timestamp)> {
    let max_age = rotation?.max_age?.to_std();
    oldest(sources).map(|(source, created)| (source, later(created, max_age)))
}

/// The oldest version among the sources whose store tells their age, and when it was created.
pub fn oldest(sources: &[SourceStatus]) -> Option<(&SourceStatus, Timestamp)> {
    sources
        .iter()
        .filter_map(|source| Some((source, source.created_time.as_deref()?.parse().ok()?)))
        .min_by_key(|(_, created)| *created)
}

/// Checks what admission cannot see.
///
/// # Errors
/// When a schedule, a duration or a time zone cannot be used.
pub fn windows(rotation: Option<&Rotation>) -> Result<Windows, Failure> {
    let windows = rotation
        .map(|rotation| rotation.windows.as_slice())
        .unwrap_or_default();
    Windows::new(windows).map_err(|error| Failure::new(Reason::InvalidSpec, error.to_string()))
}
