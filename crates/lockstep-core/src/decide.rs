//! What is due for a SyncedSecret right now: nothing, a look at the Secret, or a sync.
//!
//! ```text
//!                 never synced, spec changed, refresh asked for,
//!                 a dependency changed, a store told of a change,
//!                 retry due, interval over, a window opened
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

use jiff::{SignedDuration, Timestamp};
use lockstep_api::{
    ConditionStatus, ConditionType, Reason, RefreshPolicy, SyncedSecretSpec, SyncedSecretStatus, WaitsFor,
    synced_secret::DEFAULT_REFRESH_INTERVAL,
};

use crate::{
    lease::{self, Action, Issuer},
    rotation::{self, rollout},
    schedule::{self, RefreshSchedule},
    time::{later, until},
};

/// What is known about the object from the API server.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// Its uid.
    pub uid: &'a str,
    /// Its generation.
    pub generation: i64,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Since when it is being deleted.
    pub deleted_at: Option<Timestamp>,
    /// Whether it waits for its leases to be revoked before it goes.
    pub guarded: bool,
    /// How far the clock on the wall is ahead of the steady one, by which leases go.
    pub ahead: SignedDuration,
    /// The value of the annotation that asks for a refresh.
    pub refresh: Option<&'a str>,
    /// The value of the annotation that lets in what waits for a window.
    pub rotate_now: Option<&'a str>,
    /// What it declares.
    pub spec: &'a SyncedSecretSpec,
    /// What was reported last.
    pub status: Option<&'a SyncedSecretStatus>,
    /// What its leases are proven with.
    pub issuer: Issuer<'a>,
}

impl Observed<'_> {
    /// Whether somebody asks to let in what waits, and was not heard yet.
    pub fn asks_to_rotate(&self) -> bool {
        let rotation = self.status.and_then(|status| status.rotation.as_ref());
        let handled = rotation.and_then(|rotation| rotation.handled_rotate_now.as_deref());
        self.rotate_now.is_some_and(|asked| handled != Some(asked))
    }

    fn attempt(&self) -> Attempt {
        Attempt {
            generation: self.generation,
            refresh: self.refresh.map(str::to_owned),
            rotate_now: self.rotate_now.map(str::to_owned),
        }
    }
}

/// What this process remembers about the object. It may be lost at any time: then the object is looked at anew.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// The next refresh, once one was planned.
    pub next_refresh: Option<Timestamp>,
    /// The next look at the Secret.
    pub next_probe: Option<Timestamp>,
    /// When a failed sync is tried again.
    pub retry_at: Option<Timestamp>,
    /// Failures in a row.
    pub attempt: u32,
    /// Refreshes so far.
    pub round: u64,
    /// The next look at the targets of a rollout; none is planned at first.
    pub next_look: Option<Timestamp>,
    /// What the last attempt was about.
    pub attempted: Option<Attempt>,
    /// The fingerprint of what was found to wait for a window.
    pub waiting: Option<String>,
    /// A store, a credential or a label changed since the last sync.
    pub dirty: bool,
    /// A store told that a value may have changed.
    pub hinted: bool,
    /// What is believed of the Secret.
    pub belief: SecretState,
    /// What could not be done for a lease, and when it is tried again.
    pub lease_retries: lease::Retries,
}

/// What somebody asked for: the spec, a refresh, a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    generation: i64,
    refresh: Option<String>,
    rotate_now: Option<String>,
}

/// What is believed of the Secret in the cluster, which cannot be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SecretState {
    /// It is as the status says.
    #[default]
    InSync,
    /// A write of it failed, and may have come to pass or not.
    Unknown,
    /// It was found edited, gone, or somebody else's.
    Drifted,
}

/// Why a sync is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// It never succeeded: it goes before all others.
    First,
    /// The spec changed.
    SpecChanged,
    /// The annotation asks for it.
    Requested,
    /// A store, a credential or a label changed.
    Dependency,
    /// A store told that a value may have changed.
    Event,
    /// The last one failed.
    Retry,
    /// The interval is over.
    Interval,
    /// A window opened for a value that waits.
    Window,
    /// What a value waited for is over: a rollout, or the time after one.
    Queued,
    /// A rollout failed, and the previous revision has to be written.
    Rollback,
    /// The Secret was edited or deleted.
    Drift,
    /// A credential ends, or is in doubt, and another has to take its place.
    Lease,
}

impl Trigger {
    /// The label in logs.
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

/// What is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until the object changes.
    Await,
    /// Nothing, for this long.
    Idle(Duration),
    /// Say in status that the spec was seen, without syncing.
    Acknowledge,
    /// Say in status what has become true as time passed.
    Report,
    /// Look whether the Secret is as it was written.
    Probe,
    /// Look at the targets of the rollout, and go on with it.
    RollOut,
    /// Renew or revoke a lease.
    Lease(Action),
    /// Read the sources and write what changed.
    Fetch(Trigger),
}

/// The settings of the process that a decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Time between two looks at the same Secret; with zero there are only those that somebody asks for.
    pub drift_probe_interval: Duration,
    /// A number that differs between two starts of the process.
    pub process_seed: u64,
}

/// Over how much time those who wait for a window are spread when it opens.
const WINDOW_SPREAD: Duration = Duration::from_secs(60);

/// How soon the Secret is looked at again after a look that the API server did not answer.
const PROBE_RETRY: Duration = Duration::from_secs(30);

/// The shortest time between two reads of the sources.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// The time between two refreshes that a spec asks for.
pub fn interval(spec: &SyncedSecretSpec) -> Duration {
    let interval = spec.refresh_interval.unwrap_or(DEFAULT_REFRESH_INTERVAL).to_std();
    // a shorter one is an error, which is not to be told again without a pause
    interval.max(MIN_REFRESH_INTERVAL)
}

/// Decides what is due, and plans what was not yet planned.
pub fn decide(observed: &Observed<'_>, memory: &mut Memory, settings: Settings, now: Timestamp) -> Step {
    if observed.deleting {
        return release(observed, memory, now);
    }
    match lease_at(observed, memory) {
        Some((at, action)) if now >= at => Step::Lease(action),
        Some((at, _)) => match others(observed, memory, settings, now) {
            Step::Await => Step::Idle(until(at, now)),
            Step::Idle(wait) => Step::Idle(wait.min(until(at, now))),
            step => step,
        },
        None => others(observed, memory, settings, now),
    }
}

/// What is due of an object that is being deleted: its leases are revoked.
fn release(observed: &Observed<'_>, memory: &Memory, now: Timestamp) -> Step {
    if !observed.guarded {
        return Step::Await;
    }
    let leases = observed.status.and_then(|status| status.lease.as_ref());
    let deleted = observed.deleted_at.unwrap_or(now);
    match lease::release(
        leases,
        &observed.issuer,
        deleted,
        &memory.lease_retries,
        observed.ahead,
        now,
    ) {
        (at, action) if now >= at => Step::Lease(action),
        (at, _) => Step::Idle(until(at, now)),
    }
}

/// What is due for the leases, and when.
fn lease_at(observed: &Observed<'_>, memory: &Memory) -> Option<(Timestamp, Action)> {
    let wanted = lease::wanted(observed.spec);
    let status = observed.status;
    if observed.guarded
        && wanted.is_none()
        && lease::is_empty(status.and_then(|status| status.lease.as_ref()))
    {
        let at = memory.lease_retries.not_before(&Action::Release);
        return Some((lease::on_the_wall(at, observed.ahead), Action::Release));
    }
    // before anything else is done with a lease, it is proven to be lockstep's
    if status
        .and_then(|status| status.lease.as_ref())
        .is_some_and(|leases| lease::has_unproven(leases, &observed.issuer))
    {
        let at = memory.lease_retries.not_before(&Action::Disown);
        return Some((lease::on_the_wall(at, observed.ahead), Action::Disown));
    }
    let retention = lease::Retention::of(observed.spec);
    lease::next(status?, retention, &memory.lease_retries, observed.ahead)
}

/// When a new credential is due.
fn mint_at(observed: &Observed<'_>) -> Option<Timestamp> {
    lease::wanted(observed.spec)?;
    let status = observed.status?;
    let pending = status
        .rotation
        .as_ref()
        .and_then(|rotation| rotation.pending_revision.as_ref());
    let (at, _) = lease::mint_at(status.lease.as_ref(), pending.is_some())?;
    Some(lease::on_the_wall(at, observed.ahead))
}

/// What is due beside the leases.
fn others(observed: &Observed<'_>, memory: &mut Memory, settings: Settings, now: Timestamp) -> Step {
    let status = observed.status;
    let seen = status.is_some_and(|status| {
        status.observed_generation == Some(observed.generation)
            && status.handled_refresh.as_deref() == observed.refresh
            && !observed.asks_to_rotate()
    });
    if observed.spec.suspend {
        // whatever happens to the Secret meanwhile is looked at when the suspension ends
        memory.next_probe = Some(now);
        let said = ready_reason(status) == Some(Reason::Suspended.as_str());
        return if said && seen {
            Step::Await
        } else {
            Step::Acknowledge
        };
    }
    let written = status.is_some_and(|status| status.target.is_some());
    if observed.spec.refresh_policy == RefreshPolicy::CreatedOnce && written && is_ready(status) {
        return if !seen || ready_reason(status) == Some(Reason::Suspended.as_str()) {
            Step::Acknowledge
        } else {
            probe_or_idle(observed, memory, settings, now, None)
        };
    }
    if let Some(why) = trigger(observed, memory, seen, written) {
        if why == Trigger::Requested {
            // who asks for a refresh wants the Secret to be right, not only the values to be known
            memory.next_probe = Some(now);
        }
        return Step::Fetch(why);
    }
    let rollout = rollout_at(observed, memory, now);
    if rollout.is_some_and(|at| now >= at) {
        return Step::RollOut;
    }
    if let Some(at) = memory.retry_at {
        return if now >= at {
            Step::Fetch(Trigger::Retry)
        } else {
            Step::Idle(until(rollout.map_or(at, |look| look.min(at)), now))
        };
    }
    if !is_ready(status) || ready_reason(status) == Some(Reason::Suspended.as_str()) {
        // a failure of an earlier process, or the end of a suspension
        return Step::Fetch(Trigger::Retry);
    }
    let refresh = (observed.spec.refresh_policy == RefreshPolicy::Periodic).then(|| {
        *memory.next_refresh.get_or_insert_with(|| {
            later(
                now,
                schedule::first_after_restart(interval(observed.spec), observed.uid, settings.process_seed),
            )
        })
    });
    if refresh.is_some_and(|at| now >= at) {
        return Step::Fetch(Trigger::Interval);
    }
    let rotation = status.and_then(|status| status.rotation.as_ref());
    if rotation::awaits_rollback(rotation) {
        return Step::Fetch(Trigger::Rollback);
    }
    let mint = mint_at(observed);
    if mint.is_some_and(|at| now >= at) {
        return Step::Fetch(Trigger::Lease);
    }
    let entry = entry_at(observed);
    if let Some((why, _)) = entry.filter(|(_, at)| now >= *at) {
        return Step::Fetch(why);
    }
    let overdue = overdue_at(observed);
    if overdue.is_some_and(|at| now >= at) {
        return Step::Report;
    }
    let entry = entry.map(|(_, at)| at);
    let next = [refresh, rollout, mint, entry, overdue]
        .into_iter()
        .flatten()
        .min();
    probe_or_idle(observed, memory, settings, now, next)
}

/// When the targets of a rollout are looked at: at once, where this process has not looked yet.
fn rollout_at(observed: &Observed<'_>, memory: &Memory, now: Timestamp) -> Option<Timestamp> {
    observed.spec.rotation.as_ref()?.rollout.as_ref()?;
    let rollout = observed.status?.rotation.as_ref()?.rollout.as_ref()?;
    let moves = rollout::wants_targets(rollout, observed.generation) || !rollout::looks(rollout).is_empty();
    moves.then(|| memory.next_look.unwrap_or(now))
}

/// When what waits may come in. Those who wait for the same window are spread over its first minute, or over a tenth of it.
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

/// When the status has to say that a source is too old; `None` where it does already, or never will.
fn overdue_at(observed: &Observed<'_>) -> Option<Timestamp> {
    let status = observed.status?;
    if status.condition(ConditionType::RotationOverdue).is_some() {
        return None;
    }
    rotation::overdue_at(observed.spec.rotation.as_ref(), &status.sources).map(|(_, at)| at)
}

/// Whether a hint that a value may have changed can make a sync due. Where it cannot, what will make one due reads the
/// values as they are then.
pub fn heeds_hints(observed: &Observed<'_>) -> bool {
    let written = observed.status.is_some_and(|status| status.target.is_some());
    let done =
        observed.spec.refresh_policy == RefreshPolicy::CreatedOnce && written && is_ready(observed.status);
    let rests = observed.deleting || observed.spec.suspend || done;
    !rests && observed.spec.refresh_policy != RefreshPolicy::OnChange
}

fn trigger(observed: &Observed<'_>, memory: &Memory, seen: bool, written: bool) -> Option<Trigger> {
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
        // what failed waits for its retry, also when not even the status could be written
        return (memory.dirty && memory.retry_at.is_some()).then_some(Trigger::Dependency);
    }
    Some(match observed.status {
        _ if !written => Trigger::First,
        Some(status) if status.observed_generation == Some(observed.generation) => Trigger::Requested,
        _ => Trigger::SpecChanged,
    })
}

fn probe_or_idle(
    observed: &Observed<'_>,
    memory: &mut Memory,
    settings: Settings,
    now: Timestamp,
    refresh: Option<Timestamp>,
) -> Step {
    if !settings.drift_probe_interval.is_zero() {
        memory.next_probe.get_or_insert_with(|| {
            let spread = schedule::fraction((observed.uid, settings.process_seed, "probe"));
            later(now, settings.drift_probe_interval.mul_f64(spread))
        });
    }
    // without an interval there can be a look that somebody asked for
    let probe = memory.next_probe;
    if probe.is_some_and(|at| now >= at) {
        return Step::Probe;
    }
    match (refresh, probe) {
        (Some(a), Some(b)) => Step::Idle(until(a.min(b), now)),
        (Some(at), None) | (None, Some(at)) => Step::Idle(until(at, now)),
        (None, None) => Step::Await,
    }
}

fn ready_reason(status: Option<&SyncedSecretStatus>) -> Option<&str> {
    status?
        .condition(ConditionType::Ready)
        .map(|condition| condition.reason.as_str())
}

fn is_ready(status: Option<&SyncedSecretStatus>) -> bool {
    status
        .and_then(|status| status.condition(ConditionType::Ready))
        .is_some_and(|condition| condition.status == ConditionStatus::True)
}

impl Memory {
    /// Notes that a sync begins: what triggered it is dealt with.
    pub fn begin(&mut self, observed: &Observed<'_>) {
        self.dirty = false;
        self.hinted = false;
        let attempt = observed.attempt();
        if self.attempted.as_ref() != Some(&attempt) {
            // who changed the spec, or asks for something, does not wait for the next look at a rollout that stands still
            self.next_look = None;
        }
        self.attempted = Some(attempt);
    }

    /// Plans what comes after a sync that succeeded.
    pub fn succeeded(
        &mut self,
        observed: &Observed<'_>,
        settings: Settings,
        refresh_schedule: RefreshSchedule,
        now: Timestamp,
    ) {
        self.round = self.round.wrapping_add(1);
        self.attempt = 0;
        self.retry_at = None;
        let interval = interval(observed.spec);
        self.next_refresh = Some(schedule::next_refresh(
            interval,
            observed.uid,
            self.round,
            refresh_schedule,
            now,
        ));
        // A look that is planned stays planned: a sync that finds nothing new does not see the Secret, and where
        // refreshes come more often than looks, no look would ever come.
        if self.next_probe.is_none() {
            self.probed(observed, settings, now);
        }
    }

    /// Notes that the Secret was found or made as the status says, and plans the next look at it.
    pub fn probed(&mut self, observed: &Observed<'_>, settings: Settings, now: Timestamp) {
        self.belief = SecretState::InSync;
        let interval = settings.drift_probe_interval;
        self.next_probe =
            (!interval.is_zero()).then(|| later(now, schedule::refresh(interval, observed.uid, self.round)));
    }

    /// Plans another look at the Secret, because this one could not be taken.
    pub fn probe_failed(&mut self, now: Timestamp) {
        self.next_probe = Some(later(now, PROBE_RETRY));
    }

    /// Notes that the Secret is not as the status says.
    pub const fn drifted(&mut self) {
        self.belief = SecretState::Drifted;
    }

    /// Notes that a write of the Secret begins.
    pub fn writes(&mut self) {
        if self.belief == SecretState::InSync {
            self.belief = SecretState::Unknown;
        }
    }

    /// Whether the Secret can be taken to be as the status says, so that the same inputs need no write.
    pub fn trusts(&self, status: Option<&SyncedSecretStatus>) -> bool {
        // an earlier process may have left these, and did not hand its doubts on
        let doubtful = [
            Reason::TargetForeign,
            Reason::TargetNotFound,
            Reason::MergeForbidden,
            Reason::Conflict,
            Reason::WriteFailed,
        ];
        let said = ready_reason(status);
        self.belief == SecretState::InSync && !doubtful.iter().any(|reason| said == Some(reason.as_str()))
    }

    /// Brings the next refresh forward, because a source changes by itself before it.
    pub fn refresh_within(&mut self, wait: Duration, now: Timestamp) {
        let at = later(now, wait);
        self.next_refresh = Some(self.next_refresh.map_or(at, |next| next.min(at)));
    }

    /// Plans when a sync that failed is tried again, and tells how long that is.
    pub fn failed(&mut self, observed: &Observed<'_>, failure: &crate::Failure, now: Timestamp) -> Duration {
        let wait = schedule::retry(
            failure.requeue,
            interval(observed.spec),
            failure.retry_after,
            observed.uid,
            self.attempt,
        );
        self.attempt = self.attempt.saturating_add(1);
        self.retry_at = Some(later(now, wait));
        wait
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
