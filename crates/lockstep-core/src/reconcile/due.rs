//! Decides what is due for a SyncedSecret: nothing, a probe of the Secret, a rollout step, a lease
//! action or a sync. [`RULES`] are asked in order; the first that knows a step decides.
//!
//! ```text
//!                 never synced, spec changed, refresh requested,
//!                 a dependency changed, a store reported a change,
//!                 retry due, interval elapsed, a window opened
//!      ┌────────┐ ─────────────────────────────────────────────▶ ┌───────┐
//!      │  Idle  │                                                │ Fetch │
//!      └────────┘ ◀───────────────────────────────────────────── └───────┘
//!          │ ▲       in sync: next refresh; failed: retry            ▲
//!   probe  │ │ same                                                  │
//!    due   ▼ │                  edited or gone                       │
//!      ┌────────┐ ───────────────────────────────────────────────────┘
//!      │ Probe  │
//!      └────────┘
//! ```

use std::time::Duration;

use jiff::Timestamp;
use lockstep_api::{ConditionType, Reason, RefreshPolicy, WaitsFor};

use super::{
    memory::{Memory, SecretState},
    observed::{Observed, Settings, interval},
};
use crate::{
    lease::{self, Action},
    rotation::{self, rollout},
    schedule,
    time::{later, until},
};

/// When a window opens, waiting objects are spread over at most this time.
const WINDOW_SPREAD: Duration = Duration::from_secs(60);

/// Delay before an object that changed during its reconcile is reconciled again.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// The reason why a sync is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The object was never synced. It has priority over all others.
    First,
    /// The spec changed.
    SpecChanged,
    /// An annotation requests it.
    Requested,
    /// A store, a credential or a label changed.
    Dependency,
    /// A store reported that a value may have changed.
    Event,
    /// The last sync failed.
    Retry,
    /// `refreshInterval` elapsed.
    Interval,
    /// A window opened for a pending change.
    Window,
    /// The rollout or `minimumInterval` that a change waited for is over.
    Queued,
    /// A rollout failed and the previous revision has to be written.
    Rollback,
    /// The Secret was edited or deleted.
    Drift,
    /// A credential ends or is in doubt, and has to be replaced.
    Lease,
}

impl Step {
    /// Whether a reconcile with this step is served before those that only refresh.
    pub const fn is_urgent(&self) -> bool {
        matches!(
            self,
            Self::Lease(_)
                | Self::Fetch(
                    Trigger::First
                        | Trigger::SpecChanged
                        | Trigger::Requested
                        | Trigger::Event
                        | Trigger::Rollback
                        | Trigger::Lease
                )
        )
    }

    /// Whether a reconcile with this step may send requests to stores, and so waits for its turn
    /// there. Rollout steps do not, so they continue while a store hangs.
    pub fn uses_stores(&self) -> bool {
        *self != Self::RollOut
    }

    /// Returns when the object is due again after this step was found to be next; `None` when it
    /// waits for a change.
    pub fn wakeup(&self) -> Option<Duration> {
        match self {
            Self::Await => None,
            Self::Idle(wait) => Some(*wait),
            // something changed during the reconcile: run again at once, but not in a tight loop
            _ => Some(BUSY_PAUSE),
        }
    }
}

impl Trigger {
    /// Returns the label in logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::First => "first_sync",
            Self::SpecChanged => "spec_changed",
            Self::Requested => "refresh_requested",
            Self::Dependency => "dependency_changed",
            Self::Event => "event",
            Self::Retry => "retry",
            Self::Interval => "interval",
            Self::Window => "window_open",
            Self::Queued => "rollout_over",
            Self::Rollback => "rollback",
            Self::Drift => "drift",
            Self::Lease => "lease",
        }
    }
}

/// The next step for an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Do nothing until the object changes.
    Await,
    /// Do nothing for this long.
    Idle(Duration),
    /// Record in the status that the spec was observed, without a sync.
    Acknowledge,
    /// Update conditions that change with time.
    Report,
    /// Check that the Secret is still as it was written.
    Probe,
    /// Observe the targets of the rollout and advance it.
    RollOut,
    /// Renew or revoke a lease.
    Lease(Action),
    /// Read the sources and write changes.
    Fetch(Trigger),
}

/// What the rules decide about.
struct Case<'a, 'b> {
    observed: &'a Observed<'b>,
    memory: &'a mut Memory,
    settings: Settings,
    now: Timestamp,
    /// When rules that found nothing due know something to do.
    wakeups: Vec<Timestamp>,
}

/// A rule returns the step that is due, or `None` to continue with the next rule. A rule that ends
/// the chain without a step returns [`Step::Await`].
type Rule = fn(&mut Case<'_, '_>) -> Option<Step>;

/// The rules in their order.
const RULES: [Rule; 14] = [
    deletion,
    lease_action,
    suspension,
    created_once,
    request_or_event,
    rollout_step,
    retry,
    failure_of_an_earlier_process,
    refresh,
    rollback,
    new_credential,
    pending_change,
    overdue_rotation,
    requested_or_planned_probe,
];

/// Returns the next step, and plans refreshes and probes that were not planned yet.
pub fn decide(observed: &Observed<'_>, memory: &mut Memory, settings: Settings, now: Timestamp) -> Step {
    let mut case = Case {
        observed,
        memory,
        settings,
        now,
        wakeups: Vec::new(),
    };
    let step = RULES
        .iter()
        .find_map(|rule| rule(&mut case))
        .unwrap_or(Step::Await);
    let step = match (step, case.memory.next_report) {
        // the last status could not be written
        (Step::Acknowledge | Step::Report | Step::RollOut, Some(at)) if now < at => {
            case.wakeups.push(at);
            Step::Await
        }
        (step, _) => step,
    };
    match (step, case.wakeups.iter().min()) {
        (Step::Await, Some(at)) => Step::Idle(until(*at, now)),
        (step, _) => step,
    }
}

impl Case<'_, '_> {
    /// Returns the step if its time has come, or remembers the time.
    fn at(&mut self, at: Option<Timestamp>, step: Step) -> Option<Step> {
        let at = at?;
        if self.now >= at {
            return Some(step);
        }
        self.wakeups.push(at);
        None
    }
}

/// An object that is being deleted only has its leases revoked.
fn deletion(case: &mut Case<'_, '_>) -> Option<Step> {
    let observed = case.observed;
    if !observed.deleting {
        return None;
    }
    if !observed.guarded {
        return Some(Step::Await);
    }
    let leases = observed.status.and_then(|status| status.lease.as_ref());
    let (at, action) = lease::release(
        leases,
        &observed.issuer,
        observed.deleted_at.unwrap_or(case.now),
        case.settings.issue_timeout,
        &case.memory.lease_retries,
        observed.ahead,
        case.now,
    );
    let due = case.at(Some(at), Step::Lease(action));
    Some(due.unwrap_or(Step::Await))
}

/// Leases are renewed and revoked in time, whatever else is due.
fn lease_action(case: &mut Case<'_, '_>) -> Option<Step> {
    let (at, action) = lease_at(case)?;
    case.at(Some(at), Step::Lease(action))
}

/// A suspended object is not reconciled once its status records the suspension.
fn suspension(case: &mut Case<'_, '_>) -> Option<Step> {
    let observed = case.observed;
    if !observed.spec.suspend {
        return None;
    }
    // changes to the Secret are detected when the suspension ends
    case.memory.next_probe = Some(case.now);
    let is_said = observed.ready_reason() == Some(Reason::Suspended.as_str());
    Some(if is_said && observed.is_acknowledged() {
        Step::Await
    } else {
        Step::Acknowledge
    })
}

/// With `refreshPolicy: CreatedOnce`, a Secret that was written is only probed.
fn created_once(case: &mut Case<'_, '_>) -> Option<Step> {
    let observed = case.observed;
    if !observed.is_created() {
        return None;
    }
    if !observed.is_acknowledged() || observed.ready_reason() == Some(Reason::Suspended.as_str()) {
        return Some(Step::Acknowledge);
    }
    Some(requested_or_planned_probe(case).unwrap_or(Step::Await))
}

/// A new object, a changed spec, a request or an event is synced at once.
fn request_or_event(case: &mut Case<'_, '_>) -> Option<Step> {
    let why = trigger(case.observed, case.memory)?;
    if why == Trigger::Requested {
        // a requested refresh also checks the Secret itself
        case.memory.next_probe = Some(case.now);
    }
    Some(Step::Fetch(why))
}

/// The targets of a rollout are observed in time.
fn rollout_step(case: &mut Case<'_, '_>) -> Option<Step> {
    let at = rollout_at(case.observed, case.memory, case.now);
    case.at(at, Step::RollOut)
}

/// A failed sync waits for its retry, and nothing else is due until then.
fn retry(case: &mut Case<'_, '_>) -> Option<Step> {
    let at = case.memory.retry_at?;
    let due = case.at(Some(at), Step::Fetch(Trigger::Retry));
    Some(due.unwrap_or(Step::Await))
}

/// A failure of an earlier process, or the end of a suspension, is followed by a sync at once.
fn failure_of_an_earlier_process(case: &mut Case<'_, '_>) -> Option<Step> {
    let observed = case.observed;
    let resumed = observed.ready_reason() == Some(Reason::Suspended.as_str());
    (!observed.is_ready() || resumed).then_some(Step::Fetch(Trigger::Retry))
}

/// The sources are read again at the refresh interval.
fn refresh(case: &mut Case<'_, '_>) -> Option<Step> {
    let Case {
        observed,
        memory,
        settings,
        now,
        ..
    } = case;
    if observed.spec.refresh_policy != RefreshPolicy::Periodic {
        return None;
    }
    let at = *memory.next_refresh.get_or_insert_with(|| {
        let interval = interval(observed.spec);
        let wait = schedule::first_after_restart(interval, observed.uid, settings.process_seed);
        later(*now, wait)
    });
    case.at(Some(at), Step::Fetch(Trigger::Interval))
}

/// A failed rollout is followed by the previous revision.
fn rollback(case: &mut Case<'_, '_>) -> Option<Step> {
    let rotation = case.observed.status.and_then(|status| status.rotation.as_ref());
    rotation::awaits_rollback(rotation).then_some(Step::Fetch(Trigger::Rollback))
}

/// A credential that ends is replaced.
fn new_credential(case: &mut Case<'_, '_>) -> Option<Step> {
    let at = mint_at(case.observed);
    case.at(at, Step::Fetch(Trigger::Lease))
}

/// A pending change is written when it may be.
fn pending_change(case: &mut Case<'_, '_>) -> Option<Step> {
    let (why, at) = entry_at(case.observed)?;
    case.at(Some(at), Step::Fetch(why))
}

/// The condition `RotationOverdue` is set when a source becomes too old.
fn overdue_rotation(case: &mut Case<'_, '_>) -> Option<Step> {
    let at = overdue_at(case.observed);
    case.at(at, Step::Report)
}

/// The Secret is probed at an interval, or because a probe was requested.
fn requested_or_planned_probe(case: &mut Case<'_, '_>) -> Option<Step> {
    let (interval, now) = (case.settings.drift_probe_interval, case.now);
    if !interval.is_zero() {
        case.memory.next_probe.get_or_insert_with(|| {
            let seed = (case.observed.uid, case.settings.process_seed, "probe");
            later(now, interval.mul_f64(schedule::fraction(seed)))
        });
    }
    // a requested probe can exist without an interval
    case.at(case.memory.next_probe, Step::Probe)
}

/// Returns the next lease action and its time.
fn lease_at(case: &Case<'_, '_>) -> Option<(Timestamp, Action)> {
    let (observed, memory) = (case.observed, &*case.memory);
    let wanted = lease::wanted(observed.spec);
    let status = observed.status;
    if observed.guarded
        && wanted.is_none()
        && lease::is_empty(status.and_then(|status| status.lease.as_ref()))
    {
        let at = memory.lease_retries.not_before(&Action::Release);
        return Some((lease::to_wall_clock(at, observed.ahead), Action::Release));
    }
    // the MACs of all leases are checked before any other lease action
    if status
        .and_then(|status| status.lease.as_ref())
        .is_some_and(|leases| lease::has_unproven(leases, &observed.issuer))
    {
        let at = memory.lease_retries.not_before(&Action::Disown);
        return Some((lease::to_wall_clock(at, observed.ahead), Action::Disown));
    }
    let retention = lease::Retention::of(observed.spec, case.settings.issue_timeout);
    lease::next(status?, retention, &memory.lease_retries, observed.ahead)
}

/// Returns when a new credential is due.
fn mint_at(observed: &Observed<'_>) -> Option<Timestamp> {
    lease::wanted(observed.spec)?;
    let status = observed.status?;
    let pending = status
        .rotation
        .as_ref()
        .and_then(|rotation| rotation.pending_revision.as_ref());
    let (at, _) = lease::mint_at(status.lease.as_ref(), pending.is_some())?;
    Some(lease::to_wall_clock(at, observed.ahead))
}

/// Returns when to observe the rollout targets: at once if this process has not observed them yet.
/// While the Secret may differ from the status, pods that restart could read another value than the
/// one that is rolled out.
fn rollout_at(observed: &Observed<'_>, memory: &Memory, now: Timestamp) -> Option<Timestamp> {
    if memory.secret_state != SecretState::InSync {
        return None;
    }
    observed.spec.rotation.as_ref()?.rollout.as_ref()?;
    let rollout = observed.status?.rotation.as_ref()?.rollout.as_ref()?;
    let moves = rollout::wants_targets(rollout, observed.generation)
        || !rollout::targets_to_observe(rollout).is_empty();
    moves.then(|| memory.next_observation.unwrap_or(now))
}

/// Returns when a pending change may be written. Objects that wait for the same window are spread
/// over its first minute, or a tenth of it if that is shorter.
fn entry_at(observed: &Observed<'_>) -> Option<(Trigger, Timestamp)> {
    let (waits_for, at) = rotation::due(observed.status?.rotation.as_ref())?;
    if waits_for != WaitsFor::Window {
        return Some((Trigger::Queued, at));
    }
    let windows = &observed.spec.rotation.as_ref()?.windows;
    let shortest = windows.iter().map(|window| window.duration.to_std()).min()?;
    let spread = (shortest / 10).min(WINDOW_SPREAD);
    let fraction = schedule::fraction((observed.uid, "window"));
    Some((Trigger::Window, later(at, spread.mul_f64(fraction))))
}

/// Returns when `RotationOverdue` has to be set; `None` if it is set already or never will be.
fn overdue_at(observed: &Observed<'_>) -> Option<Timestamp> {
    let status = observed.status?;
    if status.condition(ConditionType::RotationOverdue).is_some() {
        return None;
    }
    rotation::overdue_at(observed.spec.rotation.as_ref(), &status.sources).map(|(_, at)| at)
}

/// Returns why a sync is due at once.
fn trigger(observed: &Observed<'_>, memory: &Memory) -> Option<Trigger> {
    let written = observed.is_written();
    let seen = observed.is_acknowledged() && !observed.is_unsealed();
    if memory.dirty && observed.spec.refresh_policy != RefreshPolicy::OnChange {
        return Some(if written {
            Trigger::Dependency
        } else {
            Trigger::First
        });
    }
    let attempted = memory.attempted.as_ref() == Some(&observed.attempt());
    if seen || (attempted && memory.retry_at.is_some()) {
        if memory.hinted && observed.spec.refresh_policy != RefreshPolicy::OnChange {
            return Some(if written { Trigger::Event } else { Trigger::First });
        }
        // a failed sync waits for its retry, even if the status could not be written
        return (memory.dirty && memory.retry_at.is_some()).then_some(Trigger::Dependency);
    }
    Some(match observed.status {
        _ if !written => Trigger::First,
        Some(status) if status.observed_generation == Some(observed.generation) => Trigger::Requested,
        _ => Trigger::SpecChanged,
    })
}

#[cfg(test)]
#[path = "due_tests.rs"]
mod tests;
