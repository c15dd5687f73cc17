//! Annotations and labels that lockstep reads or writes.

/// On a Secret: the name of the SyncedSecret that writes it. The admission policy binds every write to it.
pub const OWNER: &str = "lockstep.dev/owner";
/// On a Secret that lockstep did not create: the name of the SyncedSecret that may take it over.
pub const ADOPT: &str = "lockstep.dev/adopt";
/// On a Secret that lockstep did not create: the names of the SyncedSecrets that may merge keys into it, separated by commas.
pub const MERGE: &str = "lockstep.dev/merge";
/// On a dry run that finds out whether a Secret belongs to a SyncedSecret. It is never stored.
pub const CLAIM: &str = "lockstep.dev/claim";
/// On a SyncedSecret: any new value forces one refresh.
pub const REFRESH: &str = "lockstep.dev/refresh";
/// On a SyncedSecret: any new value lets a changed value in that waits for a window.
pub const ROTATE_NOW: &str = "lockstep.dev/rotate-now";
/// On a pod template, followed by the name of the Secret: the revision of the Secret that its pods run on.
pub const REVISION: &str = "lockstep.dev/revision.";
/// On a workload itself, and not on its pod template: the versioned Secrets whose references lockstep may move there, with commas
/// between them. The admission policy lets no other reference move, and lets lockstep not write it.
pub const VERSIONED: &str = "lockstep.dev/versioned";
/// On a Job: which wave of which rollout it checks.
pub const VERIFIES: &str = "lockstep.dev/verifies";
/// Finalizer on a SyncedSecret that holds a lease: it is revoked before the object goes.
pub const REVOKE_LEASE: &str = "lockstep.dev/revoke-lease";
/// Label on every Secret and every Job that lockstep writes; `driftWatch` selects by it.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY_LABEL`], and the name of the field manager.
pub const MANAGER: &str = "lockstep";
