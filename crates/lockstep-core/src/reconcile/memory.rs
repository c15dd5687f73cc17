//! What the process remembers about an object between two reconciles.

use std::time::Duration;

use jiff::Timestamp;
use lockstep_api::{ConditionType, Reason, SyncedSecretStatus};

use super::observed::{Attempt, Observed, Settings, interval};
use crate::{
    Failure, lease,
    remote::SecretValue,
    schedule::{self, RefreshSchedule},
    time::later,
};

/// Delay before a probe is repeated after the API server did not respond.
const PROBE_RETRY: Duration = Duration::from_secs(30);

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
    pub next_observation: Option<Timestamp>,
    /// The request that the last attempt handled.
    pub attempted: Option<Attempt>,
    /// The fingerprint of the pending change.
    pub waiting: Option<String>,
    /// Whether a store, a credential or a label changed since the last sync.
    pub dirty: bool,
    /// Whether a store reported that a value may have changed.
    pub hinted: bool,
    /// The assumed state of the Secret.
    pub secret_state: SecretState,
    /// The lease actions that failed, and when they are retried.
    pub lease_retries: lease::Retries,
    /// When a status that could not be written is written again.
    pub next_report: Option<Timestamp>,
    /// How soon a source changes by itself, according to the last sync.
    pub fresh_for: Option<Duration>,
    /// Since when all sources are gone.
    pub gone_since: Option<Timestamp>,
    /// Since when a source returns an earlier version than the one that was written.
    pub stale_since: Option<Timestamp>,
    /// Whether the values were large at the last sync, so that the next one waits for a slot before
    /// it reads them.
    pub large: bool,
    /// The fields of the issued credential by the id of its lease. Other changes then need no new
    /// credential. They cannot be read again, and are wiped with this memory.
    pub credential: Option<(String, SecretValue)>,
}

/// Marks that other tasks set on an object since its last reconcile started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// A store, a credential or a label changed.
    pub dirty: bool,
    /// A store reported that a value may have changed.
    pub hinted: bool,
    /// The Secret has to be probed at this time.
    pub probe_at: Option<Timestamp>,
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

impl Memory {
    /// Applies and clears the marks.
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
            self.next_observation = None;
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
        self.secret_state = SecretState::InSync;
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
        self.secret_state = SecretState::Drifted;
    }

    /// Records that a write of the Secret begins.
    pub fn begin_write(&mut self) {
        if self.secret_state == SecretState::InSync {
            self.secret_state = SecretState::Unknown;
        }
    }

    /// Whether the Secret is assumed to match the status, so unchanged inputs need no write.
    pub fn assumes_in_sync(&self, status: Option<&SyncedSecretStatus>) -> bool {
        // an earlier process may have set these reasons; its memory of the doubt is lost
        let uncertain = [
            Reason::TargetForeign,
            Reason::TargetNotFound,
            Reason::MergeForbidden,
            Reason::Conflict,
            Reason::WriteFailed,
        ];
        let reported = status
            .and_then(|status| status.condition(ConditionType::Ready))
            .map(|ready| ready.reason.as_str());
        self.secret_state == SecretState::InSync
            && !uncertain.iter().any(|reason| reported == Some(reason.as_str()))
    }

    /// Moves the next refresh forward because a source changes by itself earlier.
    pub fn refresh_within(&mut self, wait: Duration, now: Timestamp) {
        let at = later(now, wait);
        self.next_refresh = Some(self.next_refresh.map_or(at, |next| next.min(at)));
    }

    /// Plans the retry of a failed sync and returns the delay.
    pub fn failed(&mut self, observed: &Observed<'_>, failure: &Failure, now: Timestamp) -> Duration {
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
