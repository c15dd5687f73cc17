//! Reasons of conditions: one list for status, events, logs and metrics.

use std::fmt;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Reason is why a condition has its status. Events, logs and metrics use the same names.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// Lists every reason, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Returns the reason as in the status.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// Returns what happened, in one sentence, for `docs/reference/reasons.md`.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

reasons! {
    /// The Secret is in sync, or a changed value is pending (condition `RotationPending`).
    Synced,
    /// `suspend` is set, so the Secret is left as it is.
    Suspended,
    /// lockstep connected to the store and authenticated.
    StoreReady,
    /// The spec contains an error that admission cannot detect.
    InvalidSpec,
    /// The store in `secretStoreRef` does not exist.
    StoreNotFound,
    /// The ClusterSecretStore does not grant this namespace the key, path or ciphertext scope.
    AccessDenied,
    /// The configuration of the store is invalid.
    ConfigInvalid,
    /// The credentials in the store's `auth` do not exist, or lockstep may not use them.
    CredentialsUnavailable,
    /// The store rejected the credentials.
    Unauthenticated,
    /// The store does not allow these credentials to make the request.
    PermissionDenied,
    /// The remote value, or its property, does not exist.
    SourceNotFound,
    /// All remote values were deleted, and `deletionPolicy: Delete` deleted the Secret.
    SourceDeleted,
    /// The store or its `limits` throttle requests.
    RateLimited,
    /// The store cannot be reached, or reports that it cannot serve requests.
    Unavailable,
    /// The store did not respond in time.
    Timeout,
    /// A response of the store, or a remote value, does not have the required format.
    Malformed,
    /// The provider does not support what the spec requires.
    Unsupported,
    /// A ciphertext is damaged, or was sealed with another key or for another scope.
    DecryptFailed,
    /// The KMS key is disabled, destroyed or missing, or the version of the remote value is
    /// disabled or destroyed.
    KeyUnavailable,
    /// A value changed at its source, but no window of `rotation.windows` is open.
    WindowClosed,
    /// A value changed at its source during the rollout of an earlier change.
    RolloutUnderWay,
    /// A value changed at its source less than `rotation.rollout.minimumInterval` after the last
    /// rollout began.
    TooSoon,
    /// Every target runs the revision.
    RolledOut,
    /// A target does not exist; all others run the revision.
    TargetMissing,
    /// A wave of targets is being restarted, is soaking or is being verified.
    Progressing,
    /// A target did not become ready after its restart.
    TargetNotReady,
    /// A target replaces no pods, because it is paused or its update strategy is `OnDelete`.
    TargetPaused,
    /// A target was not ready before its restart, and still is not.
    TargetFailing,
    /// Someone removed the revision from the pod template of a target.
    TargetOverwritten,
    /// lockstep may not restart workloads in this namespace, or the API server rejects the restart.
    RolloutForbidden,
    /// The check of a wave failed, or did not pass within `rotation.rollout.verify.timeout`.
    VerificationFailed,
    /// The check of a wave cannot run: what it refers to does not exist, or the API server rejects
    /// it or does not respond.
    VerificationBlocked,
    /// lockstep may not run the check in this namespace.
    VerificationForbidden,
    /// A target did not become ready or a check failed, and lockstep is restoring the previous
    /// revision.
    RollingBack,
    /// A target did not become ready or a check failed, and lockstep restored the previous
    /// revision.
    RolledBack,
    /// The store issued a credential for this SyncedSecret.
    LeaseIssued,
    /// A lease is no longer renewed. lockstep replaces its credential.
    LeaseEnds,
    /// lockstep revoked a lease that was no longer used.
    LeaseRevoked,
    /// A lease that is no longer used could not be revoked and is left to expire, or too many such
    /// leases prevent a new credential.
    LeaseLeft,
    /// A lease in the status has no valid `mac`, so lockstep neither renews nor revokes it.
    LeaseUnproven,
    /// A version at its source is older than `rotation.maxAge`.
    SourceTooOld,
    /// Two entries write the same key.
    DuplicateKey,
    /// A key is not valid in a Secret.
    InvalidKey,
    /// The Secret exceeds 1 MiB, or its remote values exceed 4 MiB in total.
    TooLarge,
    /// A value could not be decoded.
    DecodeFailed,
    /// A step of `rewrite` failed.
    RewriteFailed,
    /// A template failed.
    TemplateFailed,
    /// The Secret already exists, and this SyncedSecret may not write it.
    TargetForeign,
    /// The Secret that `creationPolicy: Merge` writes to does not exist.
    TargetNotFound,
    /// lockstep may not patch the Secret that `creationPolicy: Merge` writes to.
    MergeForbidden,
    /// The Secret has finalizers, is being deleted, or is immutable and was changed by someone else. lockstep does not delete it.
    TargetNotDeletable,
    /// Another SyncedSecret already writes this Secret, or merges the same key into it.
    Conflict,
    /// The Secret or the status could not be written to the API server.
    WriteFailed,
    /// The namespace is being deleted.
    NamespaceTerminating,
    /// A bug in lockstep.
    Internal,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
