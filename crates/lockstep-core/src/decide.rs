//! Decides what is due for a SyncedSecret: nothing, a probe of the Secret, a rollout step, a lease
//! action or a sync.
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

use jiff::{SignedDuration, Timestamp};
use lockstep_api::{
    ConditionStatus, ConditionType, Reason, RefreshPolicy, SyncedSecret, SyncedSecretSpec,
    SyncedSecretStatus, WaitsFor, annotation, synced_secret::DEFAULT_REFRESH_INTERVAL,
};

use crate::{
    lease::{self, Action, Issuer},
    remote::SecretValue,
    rotation::{self, rollout},
    schedule::{self, RefreshSchedule},
    time::{later, until},
};

/// The SyncedSecret as last received from the API server.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The uid of the SyncedSecret.
    pub uid: &'a str,
    /// The generation of its spec.
    pub generation: i64,
    /// Whether the object is being deleted.
    pub deleting: bool,
    /// The deletion timestamp.
    pub deleted_at: Option<Timestamp>,
    /// Whether it has the finalizer that delays deletion until its leases are revoked.
    pub guarded: bool,
    /// How far the wall clock is ahead of the monotonic clock, which leases use.
    pub ahead: SignedDuration,
    /// The value of the annotation `lockstep.dev/refresh`.
    pub refresh: Option<&'a str>,
    /// The value of the annotation `lockstep.dev/rotate-now`.
    pub rotate_now: Option<&'a str>,
    /// The spec of the object.
    pub spec: &'a SyncedSecretSpec,
    /// The last reported status.
    pub status: Option<&'a SyncedSecretStatus>,
    /// Verifies the MACs of its leases.
    pub issuer: Issuer<'a>,
}

impl<'a> Observed<'a> {
    /// Returns an object as decisions see it. `ahead` is how far the wall clock is ahead of the
    /// monotonic clock.
    pub fn new(
        object: &'a SyncedSecret,
        status: Option<&'a SyncedSecretStatus>,
        issuer: Issuer<'a>,
        ahead: SignedDuration,
    ) -> Self {
        let metadata = &object.metadata;
        let deleted_at = metadata.deletion_timestamp.as_ref().map(|time| time.0);
        let finalizers = metadata.finalizers.as_deref().unwrap_or_default();
        let annotations = metadata.annotations.as_ref();
        let annotation = |name| annotations.and_then(|all| all.get(name)).map(String::as_str);
        Self {
            uid: issuer.uid,
            generation: metadata.generation.unwrap_or_default(),
            deleting: deleted_at.is_some(),
            deleted_at,
            guarded: finalizers.iter().any(|name| name == annotation::REVOKE_LEASE),
            ahead,
            refresh: annotation(annotation::REFRESH),
            rotate_now: annotation(annotation::ROTATE_NOW),
            spec: &object.spec,
            status,
            issuer,
        }
    }

    /// Whether `rotate-now` has a value that was not handled yet.
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

/// The in-memory state of the object. It can be lost at any time; then the object is examined
/// again.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// The time of the next refresh, once planned.
    pub next_refresh: Option<Timestamp>,
    /// The time of the next probe of the Secret.
    pub next_probe: Option<Timestamp>,
    /// The time of the next retry after a failed sync.
    pub retry_at: Option<Timestamp>,
    /// The number of consecutive failures.
    pub attempt: u32,
    /// The number of refreshes so far.
    pub round: u64,
    /// The time of the next observation of the rollout targets; `None` until planned.
    pub next_look: Option<Timestamp>,
    /// The request that the last attempt handled.
    pub attempted: Option<Attempt>,
    /// The fingerprint of the pending change.
    pub waiting: Option<String>,
    /// Whether a store, a credential or a label changed since the last sync.
    pub dirty: bool,
    /// Whether a store reported that a value may have changed.
    pub hinted: bool,
    /// The assumed state of the Secret.
    pub belief: SecretState,
    /// The lease actions that failed, and when they are retried.
    pub lease_retries: lease::Retries,
    /// When a status that could not be written is written again.
    pub next_report: Option<Timestamp>,
    /// How soon a source changes by itself, according to the last sync.
    pub fresh_for: Option<Duration>,
    /// Whether the values were large at the last sync, so that the next one waits for a slot before
    /// it reads them.
    pub large: bool,
    /// The fields of the issued credential by the id of its lease. Other changes then need no new
    /// credential. They cannot be read again, and are wiped with this memory.
    pub credential: Option<(String, SecretValue)>,
}

/// What others noted about an object since its last reconcile started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// A store, a credential or a label changed.
    pub dirty: bool,
    /// A store reported that a value may have changed.
    pub hinted: bool,
    /// The Secret has to be probed at this time.
    pub probe_at: Option<Timestamp>,
}

/// The user input that an attempt handles: the spec, a refresh, a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    generation: i64,
    refresh: Option<String>,
    rotate_now: Option<String>,
}

/// The assumed state of the Secret in the cluster, which cannot be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SecretState {
    /// The Secret matches the status.
    #[default]
    InSync,
    /// A write failed and may or may not have been applied.
    Unknown,
    /// The Secret was edited, deleted or taken over by someone else.
    Drifted,
}

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
    pub fn asks_stores(&self) -> bool {
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

/// The process settings that decisions depend on.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Time between two probes of a Secret. With zero, only requested probes run.
    pub drift_probe_interval: Duration,
    /// A number that differs on each start of the process.
    pub process_seed: u64,
}

/// When a window opens, waiting objects are spread over at most this time.
const WINDOW_SPREAD: Duration = Duration::from_secs(60);

/// Delay before an object that changed during its reconcile is reconciled again.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// Delay before a probe is repeated after the API server did not respond.
const PROBE_RETRY: Duration = Duration::from_secs(30);

/// Minimum time between two reads of the sources.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// Returns the `refreshInterval` of a spec, or its default.
pub fn interval(spec: &SyncedSecretSpec) -> Duration {
    let interval = spec.refresh_interval.unwrap_or(DEFAULT_REFRESH_INTERVAL).to_std();
    // a shorter one is an error, which must not be reported without a pause
    interval.max(MIN_REFRESH_INTERVAL)
}

/// Returns the next step, and plans refreshes and probes that were not planned yet.
pub fn decide(observed: &Observed<'_>, memory: &mut Memory, settings: Settings, now: Timestamp) -> Step {
    if observed.deleting {
        return release(observed, memory, now);
    }
    let lease = lease_at(observed, memory);
    if let Some((at, action)) = lease.clone()
        && now >= at
    {
        return Step::Lease(action);
    }
    let step = match (others(observed, memory, settings, now), memory.next_report) {
        // the last status could not be written
        (Step::Acknowledge | Step::Report | Step::RollOut, Some(at)) if now < at => {
            Step::Idle(until(at, now))
        }
        (step, _) => step,
    };
    match (step, lease) {
        (Step::Await, Some((at, _))) => Step::Idle(until(at, now)),
        (Step::Idle(wait), Some((at, _))) => Step::Idle(wait.min(until(at, now))),
        (step, _) => step,
    }
}

/// Returns the next step for an object that is being deleted: its leases are revoked.
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

/// Returns the next lease action and its time.
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
    // the MACs of all leases are checked before any other lease action
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

/// Returns when a new credential is due.
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

/// Whether lockstep created a Secret to make it immutable, and ended before it did.
fn is_unsealed(status: &SyncedSecretStatus) -> bool {
    let Some(target) = status.target.as_ref().filter(|target| !target.versioned) else {
        return false;
    };
    let mut recorded = status.versions.iter();
    recorded.any(|version| {
        version.name == target.name && !version.uid.is_empty() && version.fingerprint.is_empty()
    })
}

/// Returns the next step apart from lease actions.
fn others(observed: &Observed<'_>, memory: &mut Memory, settings: Settings, now: Timestamp) -> Step {
    let status = observed.status;
    let seen = status.is_some_and(|status| {
        status.observed_generation == Some(observed.generation)
            && status.handled_refresh.as_deref() == observed.refresh
            && !observed.asks_to_rotate()
    });
    if observed.spec.suspend {
        // changes to the Secret are detected when the suspension ends
        memory.next_probe = Some(now);
        let said = ready_reason(status) == Some(Reason::Suspended.as_str());
        return if said && seen {
            Step::Await
        } else {
            Step::Acknowledge
        };
    }
    let unsealed = status.is_some_and(is_unsealed);
    let seen = seen && !unsealed;
    let written = !unsealed && status.is_some_and(|status| status.target.is_some());
    if observed.spec.refresh_policy == RefreshPolicy::CreatedOnce && written && is_ready(status) {
        return if !seen || ready_reason(status) == Some(Reason::Suspended.as_str()) {
            Step::Acknowledge
        } else {
            probe_or_idle(observed, memory, settings, now, None)
        };
    }
    if let Some(why) = trigger(observed, memory, seen, written) {
        if why == Trigger::Requested {
            // a requested refresh also checks the Secret itself
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

/// Returns when to observe the rollout targets: at once if this process has not observed them yet.
/// While the Secret may differ from the status, pods that restart could read another value than the
/// one that is rolled out.
fn rollout_at(observed: &Observed<'_>, memory: &Memory, now: Timestamp) -> Option<Timestamp> {
    if memory.belief != SecretState::InSync {
        return None;
    }
    observed.spec.rotation.as_ref()?.rollout.as_ref()?;
    let rollout = observed.status?.rotation.as_ref()?.rollout.as_ref()?;
    let moves = rollout::wants_targets(rollout, observed.generation) || !rollout::looks(rollout).is_empty();
    moves.then(|| memory.next_look.unwrap_or(now))
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

/// Whether a hint that a value may have changed can trigger a sync. If not, the next sync reads the
/// current values anyway.
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
        // a failed sync waits for its retry, even if the status could not be written
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
    // a requested probe can exist without an interval
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
    /// Takes over what others noted.
    pub fn take(&mut self, marks: &mut Marks) {
        let Marks {
            dirty,
            hinted,
            probe_at,
        } = std::mem::take(marks);
        self.dirty |= dirty;
        self.hinted |= hinted;
        self.next_probe = probe_at.or(self.next_probe);
    }

    /// Wipes the credential unless its lease is in the status, in use or about to be.
    pub fn keep_credential_of(&mut self, status: &SyncedSecretStatus) {
        let leases = status.lease.as_ref();
        let mut held = leases
            .iter()
            .flat_map(|leases| leases.current.iter().chain(&leases.minted));
        let mut kept = |id: &str| held.any(|lease| lease.id == id);
        if self.credential.as_ref().is_some_and(|(id, _)| !kept(id)) {
            self.credential = None;
        }
    }

    /// Records that a sync begins, which handles its triggers.
    pub fn begin(&mut self, observed: &Observed<'_>) {
        self.dirty = false;
        self.hinted = false;
        let attempt = observed.attempt();
        if self.attempted.as_ref() != Some(&attempt) {
            // a changed spec or a request does not wait for the next observation of a held rollout
            self.next_look = None;
        }
        self.attempted = Some(attempt);
    }

    /// Plans the next steps after a successful sync.
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
        // keep a planned probe: a sync without changes does not check the Secret, and frequent
        // refreshes would postpone the probe forever
        if self.next_probe.is_none() {
            self.probed(observed, settings, now);
        }
    }

    /// Records that the Secret matches the status, and plans the next probe.
    pub fn probed(&mut self, observed: &Observed<'_>, settings: Settings, now: Timestamp) {
        self.belief = SecretState::InSync;
        let interval = settings.drift_probe_interval;
        self.next_probe =
            (!interval.is_zero()).then(|| later(now, schedule::refresh(interval, observed.uid, self.round)));
    }

    /// Plans another probe after one failed.
    pub fn probe_failed(&mut self, now: Timestamp) {
        self.next_probe = Some(later(now, PROBE_RETRY));
    }

    /// Records that the Secret differs from the status.
    pub const fn drifted(&mut self) {
        self.belief = SecretState::Drifted;
    }

    /// Records that a write of the Secret begins.
    pub fn writes(&mut self) {
        if self.belief == SecretState::InSync {
            self.belief = SecretState::Unknown;
        }
    }

    /// Whether the Secret is assumed to match the status, so unchanged inputs need no write.
    pub fn trusts(&self, status: Option<&SyncedSecretStatus>) -> bool {
        // an earlier process may have set these reasons; its memory of the doubt is lost
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

    /// Moves the next refresh forward because a source changes by itself earlier.
    pub fn refresh_within(&mut self, wait: Duration, now: Timestamp) {
        let at = later(now, wait);
        self.next_refresh = Some(self.next_refresh.map_or(at, |next| next.min(at)));
    }

    /// Plans the retry of a failed sync and returns the delay.
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
