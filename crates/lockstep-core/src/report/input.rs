//! The input of a report.

use jiff::Timestamp;
use lockstep_api::{
    LeaseStatus, Rotation, RotationStatus, SourceStatus, SyncedSecretStatus, TargetStatus, WaitsFor,
};

use crate::Failure;

/// The outcome of a sync, or of another step of the reconcile.
#[derive(Debug, Clone)]
pub enum Outcome<'a> {
    /// The Secret is in sync with the sources.
    Synced {
        /// The Secret. [`report`](super::report) sets its `last_change_time`.
        target: TargetStatus,
        /// The remote values that the Secret was built from.
        sources: Vec<SourceStatus>,
        /// Whether the Secret holds earlier values, because the rollout of the current ones failed.
        back: bool,
        /// A newer value that may not be written yet.
        waits: Option<Waiting>,
    },
    /// A value changed at its source and is pending. The Secret was left unchanged.
    Waits(RotationStatus),
    /// Nothing was done. Conditions may still change with time.
    Unchanged,
    /// The rollout advanced.
    Stepped(RotationStatus),
    /// A Secret is about to be written, or was written and is not yet immutable.
    Intends(TargetStatus),
    /// The earlier Secrets of a versioned target with these names were deleted.
    Cleared(Vec<String>),
    /// A lease was recorded, renewed or revoked.
    Leased(Option<LeaseStatus>),
    /// The sync failed.
    Failed(&'a Failure),
    /// Every remote value is gone and the Secret was deleted.
    Gone {
        /// Whether the Secret belongs to someone else now, and was left alone.
        left_alone: bool,
    },
    /// Nothing was done because of `suspend` or `refreshPolicy`.
    Acknowledged {
        /// Whether `suspend` is set.
        suspended: bool,
    },
}

/// A changed value that may not be written yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The pending revision.
    pub revision: String,
    /// What the revision waits for.
    pub waits_for: WaitsFor,
    /// When the wait ends, if known.
    pub next: Option<Timestamp>,
}

/// The SyncedSecret whose status is built.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The generation of the spec.
    pub generation: i64,
    /// The value of the annotation `lockstep.dev/refresh`.
    pub refresh: Option<&'a str>,
    /// The value of the annotation `lockstep.dev/rotate-now`.
    pub rotate_now: Option<&'a str>,
    /// `spec.rotation`.
    pub rotation: Option<&'a Rotation>,
    /// The name of the Secret.
    pub target_name: &'a str,
    /// The last status.
    pub old: Option<&'a SyncedSecretStatus>,
    /// Whether the Secret was edited, deleted or taken over since lockstep wrote it.
    pub drifted: bool,
}
