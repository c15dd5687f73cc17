//! Decides when a changed value may be written and how it reaches the pods.
//!
//! ```text
//!        changed; no window open, a rollout in progress,
//!              or minimumInterval not yet passed
//!     ┌──────────┐ ──────────────────────────────▶ ┌─────────┐ ──┐ changed again: the newest is pending,
//!     │ Complete │                                 │ Pending │   │ since the first change
//!     └──────────┘ ◀────────────────────────────── └─────────┘ ◀─┘
//!         │  ▲      written, drift repaired,            │
//!         │  │      changed back                        │ may be written
//! changed │  │                                          │
//!         ▼  │ no targets                               ▼
//!       written ◀───────────────────────────────────────┘
//!         │
//!         ▼ targets: the rollout, see [`rollout`]
//! ```
//!
//! None of this is kept in memory: `status.target` has the written revision, `status.rotation` the
//! pending one and the rollout. Each reconcile decides again from the sources and targets, so a
//! restart at any point changes nothing.

pub mod coverage;
mod input;
mod messages;
pub mod references;
mod rollback;
pub mod rollout;
mod transition;
pub mod verify;
pub mod versions;
mod window;
pub mod workload;

use std::time::Duration;

use jiff::Timestamp;
use lockstep_api::{
    Reason, Rollout, RolloutPhase, RolloutStatus, Rotation, RotationPhase, RotationStatus, SourceStatus,
    TargetStatus, WaitsFor,
};

pub use self::{
    input::{Check, RolloutInput},
    rollback::{check, check_sources, is_still_refused, pin, refused},
    transition::{Written, written},
    window::{Opening, Windows},
};
use crate::{
    Failure,
    time::{later, to_seconds},
};

/// A change of the Secret that is ready to be written.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// The last written Secret; `None` before the first write.
    pub written: Option<&'a TargetStatus>,
    /// The name of the Secret in the spec.
    pub target_name: &'a str,
    /// The revision of the change.
    pub revision: &'a str,
    /// Whether the Secret was edited or deleted.
    pub drifted: bool,
    /// Whether `rotate-now` requests the change.
    pub requested: bool,
    /// `rotation.rollout` of the spec.
    pub rollout: Option<&'a Rollout>,
    /// The rollout of the last written revision.
    pub last_rollout: Option<&'a RolloutStatus>,
}

/// Whether a change may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The change may be written now.
    Now,
    /// The change has to wait, with the cause and the end of the wait if known.
    Wait(WaitsFor, Option<Timestamp>),
}

/// Decides whether a change may be written. A first write, the repair of a drift and an unchanged
/// revision never wait.
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
        // a newer value replaces a failed one as well as a rollback does
        return Entry::Now;
    }
    if last.phase.is_moving() {
        return Entry::Wait(WaitsFor::Rollout, None);
    }
    let earliest = earliest_start(last, spec.minimum_interval());
    if now < earliest {
        return Entry::Wait(WaitsFor::Interval, Some(earliest));
    }
    Entry::Now
}

/// Returns when the next rollout may start.
fn earliest_start(last: &RolloutStatus, interval: Duration) -> Timestamp {
    later(last.start_time, interval)
}

/// Returns the status of a pending change.
pub fn pending(
    old: Option<&RotationStatus>,
    revision: String,
    waits_for: WaitsFor,
    next: Option<Timestamp>,
    now: Timestamp,
) -> RotationStatus {
    let noticed = old.and_then(|old| old.noticed_time);
    let rollout = old.and_then(|old| old.rollout.clone());
    RotationStatus {
        phase: match &rollout {
            Some(rollout) if !rollout.phase.is_over() => rollout.phase.into(),
            _ => RotationPhase::Pending,
        },
        noticed_time: Some(noticed.unwrap_or_else(|| to_seconds(now))),
        pending_revision: Some(revision),
        waits_for: Some(waits_for),
        next_window_time: next.map(to_seconds),
        handled_rotate_now: old.and_then(|old| old.handled_rotate_now.clone()),
        rollout,
        refused: old.and_then(|old| old.refused.clone()),
    }
}

/// Returns the status without a pending change; `None` if the spec has no rotation and `rotate-now`
/// was never set.
pub fn complete(
    rotation: Option<&Rotation>,
    rotate_now: Option<&str>,
    rollout: Option<RolloutStatus>,
) -> Option<RotationStatus> {
    (rotation.is_some() || rotate_now.is_some()).then(|| RotationStatus {
        phase: rollout
            .as_ref()
            .map_or(RotationPhase::Complete, |rollout| rollout.phase.into()),
        noticed_time: None,
        pending_revision: None,
        waits_for: None,
        next_window_time: None,
        handled_rotate_now: rotate_now.map(str::to_owned),
        rollout,
        refused: None,
    })
}

/// Returns the rotation after a rollout step. A failed rollout with a rollback rejects the revision
/// and sources that the Secret `held`.
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

/// Returns the phase, reason and message of the rollout; `None` if there never was one.
pub fn progress(status: Option<&RotationStatus>) -> Option<(RolloutPhase, Reason, String)> {
    let rollout = status?.rollout.as_ref()?;
    let (reason, message) = messages::progress(rollout);
    Some((rollout.phase, reason, message))
}

/// Returns when the pending change may be written, if the status contains the time.
pub fn due(status: Option<&RotationStatus>) -> Option<(WaitsFor, Timestamp)> {
    let status = status?;
    status.pending_revision.as_ref()?;
    let at = || status.next_window_time;
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

/// Whether the previous revision has to be written because a rollout failed.
pub fn awaits_rollback(status: Option<&RotationStatus>) -> bool {
    status
        .filter(|status| status.refused.is_some())
        .and_then(|status| status.rollout.as_ref())
        .is_some_and(RolloutStatus::awaits_rollback)
}

/// Returns the oldest source version, and when it becomes older than `maxAge`.
pub fn overdue_at<'a>(
    rotation: Option<&Rotation>,
    sources: &'a [SourceStatus],
) -> Option<(&'a SourceStatus, Timestamp)> {
    let max_age = rotation?.max_age?.to_std();
    oldest(sources).map(|(source, created)| (source, later(created, max_age)))
}

/// Returns the oldest source version with a known creation time, and that time.
pub fn oldest(sources: &[SourceStatus]) -> Option<(&SourceStatus, Timestamp)> {
    sources
        .iter()
        .filter_map(|source| Some((source, source.created_time?)))
        .min_by_key(|(_, created)| *created)
}

/// Parses the windows of a spec, which admission cannot check fully.
///
/// # Errors
/// When a schedule, a duration or a time zone cannot be used.
pub fn windows(rotation: Option<&Rotation>) -> Result<Windows, Failure> {
    let windows = rotation
        .map(|rotation| rotation.windows.as_slice())
        .unwrap_or_default();
    Windows::new(windows).map_err(|error| Failure::new(Reason::InvalidSpec, error.to_string()))
}
