//! The Kubernetes API of lockstep: group `lockstep.dev`, version `v1alpha1`.
//!
//! There are three kinds. A [`SyncedSecret`] declares the remote values to read and the Secret to
//! write. A [`SecretStore`] or [`ClusterSecretStore`] declares where remote values are and how
//! lockstep authenticates. [`crd::all`] generates the YAML in `crds/` from these types. Rules that
//! can be checked at admission are CEL rules on the fields that they apply to.
//!
//! The doc comments of fields become the descriptions in the CRDs, which `kubectl explain` prints.
//! It keeps line breaks and wraps at 76 characters, so these comments wrap at 76 characters too.
//! The comments of enum variants do not reach the CRDs, so the comment of each field lists the
//! values. If the type of a field is an `Option` of an enum, the comment of the enum becomes the
//! description. Then that comment lists the values as well.

#![expect(
    unreachable_pub,
    reason = "the schema derive copies each public struct into a private scope"
)]

pub mod annotation;
pub mod aws;
pub mod ciphertext;
pub mod condition;
pub mod crd;
pub mod credential;
pub mod duration;
pub mod events;
pub mod file;
pub mod gcp;
pub mod history;
pub mod lease;
pub mod name;
pub mod reason;
pub mod rollout;
pub mod rotation;
pub mod selector;
pub mod source;
pub mod status;
pub mod store;
pub mod store_ref;
pub mod synced_secret;
pub mod vault;
pub mod verify;

pub use aws::AwsProvider;
pub use ciphertext::CiphertextScope;
pub use condition::{Condition, ConditionStatus, ConditionType};
pub use credential::{CredentialKind, CredentialRef, SecretKeyRef, ServiceAccountRef};
pub use duration::Duration;
pub use events::{PubsubEvents, SqsEvents, StoreEvents, VaultEvents};
pub use file::FileProvider;
pub use gcp::GcpProvider;
pub use history::RevisionRecord;
pub use lease::{Generate, GenerateMethod, Lease, LeaseEnd, LeaseIntent, LeaseStatus, VaultGenerate};
pub use reason::Reason;
pub use rollout::{
    OnFailure, PreviousRevision, RefusedRevision, Rollout, RolloutPhase, RolloutStatus, RolloutTarget,
    TargetProgress, TargetState, WorkloadKind,
};
pub use rotation::{Rotation, RotationPhase, RotationStatus, RotationWindow, WaitsFor};
pub use source::SourceStatus;
pub use status::{StoreStatus, SyncedSecretStatus, TargetStatus};
pub use store::{
    Access, AccessNamespaces, ClusterSecretStore, ClusterSecretStoreSpec, Limits, SecretStore,
    SecretStoreSpec, StoreProvider,
};
pub use store_ref::{StoreKind, StoreRef};
pub use synced_secret::{
    CreationPolicy, DataEntry, DataFromEntry, DecodingStrategy, DeletionPolicy, Extract, Find, FindName,
    MergePolicy, MetadataPolicy, RefreshPolicy, RemoteRef, Rewrite, RewriteMerge, RewriteMergeConflictPolicy,
    RewriteMergePriorityPolicy, RewriteMergeStrategy, RewriteRegexp, RewriteTransform, SyncedSecret,
    SyncedSecretSpec, Target, Template, TemplateFrom, TemplateMetadata, TemplateTarget,
};
pub use vault::VaultProvider;
pub use verify::{HttpScheme, VerificationState, VerificationStatus, Verify, VerifyHttpGet, VerifyJob};

/// The API group of every lockstep kind.
pub const GROUP: &str = "lockstep.dev";
/// The API version that is served and stored.
pub const VERSION: &str = "v1alpha1";
