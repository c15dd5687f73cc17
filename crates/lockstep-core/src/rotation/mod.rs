//! When a value that changed at its source may be written.
//!
//! ```text
//!                  changed, no window open
//!     ┌──────────┐ ──────────────────────────────▶ ┌─────────┐ ──┐ changed again: the newest waits,
//!     │ Complete │                                 │ Pending │   │ since the first change
//!     └──────────┘ ◀────────────────────────────── └─────────┘ ◀─┘
//!         │  ▲       a window opens, rotate-now,
//! changed │  │       drift repaired, changed back
//!  while  ▼  │
//!     open: written
//! ```
//!
//! Nothing of this is kept in memory: what is written stands in `status.target`, what waits in `status.rotation`, and each look
//! at the sources decides anew. So a restart at any point changes nothing.

mod window;

use jiff::Timestamp;
use lockstep_api::{Reason, Rotation, RotationPhase, RotationStatus, SourceStatus, TargetStatus};

pub use self::window::{Opening, Windows};
use crate::{Failure, decide::later, time::to_seconds};

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
}

/// Whether a change may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Now.
    Now,
    /// Not before the next window, which opens then, if ever.
    Wait(Option<Timestamp>),
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
    match windows.at(now) {
        Opening::Open => Entry::Now,
        Opening::Closed { next } => Entry::Wait(next),
    }
}

/// What waits, as the status says it.
pub fn pending(
    old: Option<&RotationStatus>,
    revision: String,
    next: Option<Timestamp>,
    now: Timestamp,
) -> RotationStatus {
    let since = old.and_then(|old| old.pending_since.clone());
    RotationStatus {
        phase: RotationPhase::Pending,
        pending_since: Some(since.unwrap_or_else(|| to_seconds(now))),
        pending_revision: Some(revision),
        next_window: next.map(to_seconds),
        handled_rotate_now: old.and_then(|old| old.handled_rotate_now.clone()),
    }
}

/// What is left to say when nothing waits; `None` where the spec has no rotation and nobody ever asked for one.
pub fn complete(rotation: Option<&Rotation>, rotate_now: Option<&str>) -> Option<RotationStatus> {
    (rotation.is_some() || rotate_now.is_some()).then(|| RotationStatus {
        phase: RotationPhase::Complete,
        pending_since: None,
        pending_revision: None,
        next_window: None,
        handled_rotate_now: rotate_now.map(str::to_owned),
    })
}

/// When what waits may be written, as far as the status says it.
pub fn due(status: Option<&RotationStatus>) -> Option<Timestamp> {
    status?.next_window.as_deref()?.parse().ok()
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
