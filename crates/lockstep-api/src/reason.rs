//! Why a condition is as it is: one enumerated list, the same in status, events, logs and metrics.

use std::fmt;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Reason of a condition.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// Every reason, for documentation and for tests.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The reason as it stands in status.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// What it means, in a sentence, for documentation.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

reasons! {
    /// The Secret holds what the sources hold.
    Synced,
    /// `suspend` is set: the Secret stays as it is.
    Suspended,
    /// The store was reached with its credentials.
    StoreReady,
    /// The spec holds what cannot work, in a way that admission could not see.
    InvalidSpec,
    /// The store that is named does not exist.
    StoreNotFound,
    /// The store does not grant this namespace the key.
    AccessDenied,
    /// The store's own configuration cannot work.
    ConfigInvalid,
    /// lockstep may not read what the store's `auth` names, or it is not there.
    CredentialsUnavailable,
    /// The store refused the credentials.
    Unauthenticated,
    /// The store does not let these credentials read the key.
    PermissionDenied,
    /// The remote value, or the property of it, does not exist.
    SourceNotFound,
    /// Every remote value is gone, and `deletionPolicy` deleted the Secret.
    SourceDeleted,
    /// The store asks to slow down.
    RateLimited,
    /// The store cannot be reached, or says that it cannot serve.
    Unavailable,
    /// The store did not answer in time.
    Timeout,
    /// The store, or a remote value, is not in the form that it must have.
    Malformed,
    /// The provider cannot do what is asked.
    Unsupported,
    /// A ciphertext cannot be decrypted: it is damaged, or sealed for another place or with another key.
    DecryptFailed,
    /// The KMS key is disabled, destroyed or missing, or the version of a remote key is disabled or destroyed.
    KeyUnavailable,
    /// A value changed at its source, and no window of `rotation.windows` is open.
    WindowClosed,
    /// A value changed at its source while the rollout of an earlier one is under way.
    RolloutUnderWay,
    /// A value changed at its source sooner than `rotation.rollout.minimumInterval` after the last rollout.
    TooSoon,
    /// Every target runs on the revision.
    RolledOut,
    /// A target that the spec names does not exist; all others run on the revision.
    TargetMissing,
    /// A wave of targets is restarted, or has to stay ready.
    Progressing,
    /// A target did not become ready in time after its restart.
    TargetNotReady,
    /// A target is paused, and replaces no pods.
    TargetPaused,
    /// A target was failing before its restart, and still is.
    TargetFailing,
    /// Somebody removed the revision from the pod template of a target.
    TargetOverwritten,
    /// The installation does not grant lockstep the right to restart workloads of this namespace, or the API server refuses it.
    RolloutForbidden,
    /// The check of a wave failed, or did not pass within `rotation.rollout.verify.timeout`.
    VerificationFailed,
    /// The check of a wave cannot be made: what it names does not exist, or the API server refuses it.
    VerificationBlocked,
    /// The installation does not grant lockstep the right to make the check in this namespace.
    VerificationForbidden,
    /// The previous revision is brought back, because a target did not become ready or a check failed.
    RollingBack,
    /// The previous revision is back, because a target did not become ready or a check failed.
    RolledBack,
    /// The store made a credential for this SyncedSecret.
    LeaseIssued,
    /// A lease is not renewed any more, and another credential takes its place.
    LeaseEnds,
    /// A lease that is no longer used was revoked.
    LeaseRevoked,
    /// The store did not revoke a lease that is no longer used: it is left to expire.
    LeaseLeft,
    /// A lease in the status has no MAC that proves that lockstep noted it: it is neither renewed nor revoked.
    LeaseUnproven,
    /// A version at its source is older than `rotation.maxAge`.
    SourceTooOld,
    /// Two entries write the same key.
    DuplicateKey,
    /// A key is not allowed in a Secret.
    InvalidKey,
    /// The Secret would be larger than 1 MiB, or its remote values are larger than 4 MiB together.
    TooLarge,
    /// A value could not be decoded.
    DecodeFailed,
    /// A rewrite failed.
    RewriteFailed,
    /// A template failed.
    TemplateFailed,
    /// The Secret exists, and is not lockstep's.
    TargetForeign,
    /// The Secret that `creationPolicy: Merge` writes to does not exist.
    TargetNotFound,
    /// lockstep may not patch the Secret that `creationPolicy: Merge` writes to.
    MergeForbidden,
    /// The Secret has finalizers or is being deleted, so lockstep does not delete it.
    TargetNotDeletable,
    /// Another SyncedSecret writes the same Secret, or merges the same key.
    Conflict,
    /// The API server refused to write the Secret.
    WriteFailed,
    /// The namespace is being deleted.
    NamespaceTerminating,
    /// A fault in lockstep itself.
    Internal,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
