//! The Kubernetes API of lockstep: group `lockstep.dev`, version `v1alpha1`.
//!
//! Three kinds: [`SyncedSecret`] says which remote values become which Kubernetes Secret, [`SecretStore`] and
//! [`ClusterSecretStore`] say where remote values are and with whose credentials they are read. The YAML in
//! `crds/` is generated from these types by [`crd::all`]; the rules that can be checked at admission are CEL rules
//! beside the fields that they are about.

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
pub mod status;
pub mod store;
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
pub use status::{SourceStatus, StoreStatus, SyncedSecretStatus, TargetStatus};
pub use store::{
    Access, AccessNamespaces, ClusterSecretStore, ClusterSecretStoreSpec, Limits, SecretStore,
    SecretStoreSpec, StoreKind, StoreProvider, StoreRef,
};
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
/// The served and stored version.
pub const VERSION: &str = "v1alpha1";
