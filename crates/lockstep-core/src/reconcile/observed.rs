//! The SyncedSecret and its status, as decisions see them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lockstep_api::{
    ConditionStatus, ConditionType, RefreshPolicy, SyncedSecret, SyncedSecretSpec, SyncedSecretStatus,
    annotation, synced_secret::DEFAULT_REFRESH_INTERVAL,
};

use crate::lease::Issuer;

/// Minimum time between two reads of the sources.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// The process settings that decisions depend on.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Time between two probes of a Secret. With zero, only requested probes run.
    pub drift_probe_interval: Duration,
    /// How long after a request for a credential the server may still issue it, if there was no
    /// answer.
    pub issue_timeout: Duration,
    /// How long all values must be gone before their Secret is deleted.
    pub deletion_delay: Duration,
    /// A number that differs on each start of the process.
    pub process_seed: u64,
}

/// Returns the `refreshInterval` of a spec, or its default.
pub fn interval(spec: &SyncedSecretSpec) -> Duration {
    let interval = spec.refresh_interval.unwrap_or(DEFAULT_REFRESH_INTERVAL).to_std();
    // a shorter one is an error, which must not be reported without a pause
    interval.max(MIN_REFRESH_INTERVAL)
}

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
    pub fn is_rotation_requested(&self) -> bool {
        let rotation = self.status.and_then(|status| status.rotation.as_ref());
        let handled = rotation.and_then(|rotation| rotation.handled_rotate_now.as_deref());
        self.rotate_now.is_some_and(|asked| handled != Some(asked))
    }

    /// Returns the reason of the `Ready` condition.
    pub(super) fn ready_reason(&self) -> Option<&str> {
        let ready = self.status?.condition(ConditionType::Ready)?;
        Some(ready.reason.as_str())
    }

    /// Whether the `Ready` condition is true.
    pub(super) fn is_ready(&self) -> bool {
        let ready = self
            .status
            .and_then(|status| status.condition(ConditionType::Ready));
        ready.is_some_and(|ready| ready.status == ConditionStatus::True)
    }

    /// Whether lockstep created a Secret to make it immutable, and ended before it did.
    pub(super) fn is_unsealed(&self) -> bool {
        let target = self.status.and_then(|status| status.target.as_ref());
        let Some(target) = target.filter(|target| !target.versioned) else {
            return false;
        };
        let mut recorded = self.status.iter().flat_map(|status| &status.versions);
        recorded.any(|version| {
            version.name == target.name && !version.uid.is_empty() && version.fingerprint.is_empty()
        })
    }

    /// Whether the Secret was written, and is as it has to be.
    pub(super) fn is_written(&self) -> bool {
        !self.is_unsealed() && self.status.is_some_and(|status| status.target.is_some())
    }

    /// Whether `refreshPolicy: CreatedOnce` is done: the sources are not read again.
    pub(super) fn is_created(&self) -> bool {
        self.spec.refresh_policy == RefreshPolicy::CreatedOnce && self.is_written() && self.is_ready()
    }

    /// Whether the status contains what users asked for last.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.status.is_some_and(|status| {
            status.observed_generation == Some(self.generation)
                && status.handled_refresh.as_deref() == self.refresh
                && !self.is_rotation_requested()
        })
    }

    /// Whether an event of a store can trigger a sync. If not, the next sync reads the current
    /// values anyway.
    pub fn reacts_to_events(&self) -> bool {
        let rests = self.deleting || self.spec.suspend || self.is_created();
        !rests && self.spec.refresh_policy != RefreshPolicy::OnChange
    }

    pub(super) fn attempt(&self) -> Attempt {
        Attempt {
            generation: self.generation,
            refresh: self.refresh.map(str::to_owned),
            rotate_now: self.rotate_now.map(str::to_owned),
        }
    }
}

/// The user input that an attempt handles: the spec, a refresh, a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    generation: i64,
    refresh: Option<String>,
    rotate_now: Option<String>,
}
