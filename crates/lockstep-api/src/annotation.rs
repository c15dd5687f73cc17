//! Annotations and labels that lockstep reads or writes.

/// On a Secret: the name of the SyncedSecret that writes it. The admission policy checks every
/// write against it.
pub const OWNER: &str = "lockstep.dev/owner";
/// On a Secret that lockstep did not create: the name of the SyncedSecret that may replace its
/// content.
pub const ADOPT: &str = "lockstep.dev/adopt";
/// On a Secret that lockstep did not create: the comma-separated names of the SyncedSecrets that
/// may merge keys into it.
pub const MERGE: &str = "lockstep.dev/merge";
/// On a dry run that checks whether a Secret belongs to a SyncedSecret. It is never stored.
pub const CLAIM: &str = "lockstep.dev/claim";
/// On a SyncedSecret: each new value forces one refresh.
pub const REFRESH: &str = "lockstep.dev/refresh";
/// On a SyncedSecret: each new value writes a pending change at once, or retries a held rollout.
pub const ROTATE_NOW: &str = "lockstep.dev/rotate-now";
/// On a pod template, followed by the name of the Secret: the revision that its pods run.
pub const REVISION: &str = "lockstep.dev/revision.";
/// On a workload, not on its pod template: the comma-separated versioned Secrets whose references
/// lockstep may move. The admission policy allows lockstep to move no other reference and to write
/// no such annotation.
pub const VERSIONED: &str = "lockstep.dev/versioned";
/// On a Job: the rollout, wave and attempt that it checks.
pub const VERIFIES: &str = "lockstep.dev/verifies";
/// Finalizer on a SyncedSecret that has a lease. lockstep revokes the lease before the object is
/// deleted.
pub const REVOKE_LEASE: &str = "lockstep.dev/revoke-lease";
/// Label on every Secret and Job that lockstep writes. The option `--drift-watch` selects Secrets
/// by it.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY_LABEL`], and the name of the field manager.
pub const MANAGER: &str = "lockstep";
