//! Status of the kinds. It is written when it changes, not when time passes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    condition::{Condition, ConditionType},
    history::RevisionRecord,
    lease::LeaseStatus,
    rotation::RotationStatus,
};

/// Status of a SyncedSecret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SyncedSecretStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, and `Reconciling` or `Stalled` while it is not; `RotationPending`,
    /// `RotationOverdue` and `LeaseUnrevoked` while they hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The Secret that was written last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetStatus>,
    /// Earlier Secrets of a versioned target that are not cleared away yet, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<TargetStatus>,
    /// The remote values that the Secret was made from; at most 64 are listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceStatus>,
    /// How many remote values the Secret was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_count: Option<i64>,
    /// The value of the annotation `lockstep.dev/refresh` that was last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_refresh: Option<String>,
    /// The rotation, where the spec has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationStatus>,
    /// The last 10 revisions of the Secret, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<RevisionRecord>,
    /// The leases, where `dataFrom` generates a credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseStatus>,
}

impl SyncedSecretStatus {
    /// The condition of that type.
    pub fn condition(&self, kind: ConditionType) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }
}

/// The Secret that was written last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion after the write. A later one means that somebody else changed it.
    pub resource_version: String,
    /// revision is the short name of the Secret's content. It changes when the content does: it is a keyed hash of the content and of
    /// the uid, namespace and name of the SyncedSecret, so equal contents of two SyncedSecrets have different revisions.
    pub revision: String,
    /// fingerprint is a keyed hash (HMAC-SHA-256) of everything that the Secret was made from.
    pub fingerprint: String,
    /// keyId identifies the key and the format of fingerprint and revision. Under another key or format, lockstep records the hashes
    /// again. It keeps the revision and writes no Secret because of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub key_id: Option<String>,
    /// revisionHash is the hash of the content under the key of keyId. It is set only where revision was named under another key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub revision_hash: Option<String>,
    /// generation is the generation of the spec that the Secret was last in sync with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// Whether it holds this revision and no other: the target is versioned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub versioned: bool,
    /// merged is true if the Secret belongs to someone else, and lockstep merged keys into it (`creationPolicy: Merge`). lockstep
    /// neither replaces nor deletes such a Secret.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub merged: bool,
    /// When the content last changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_change_time: Option<String>,
}

/// A remote value that the Secret was made from.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// The store: `SecretStore/name` or `ClusterSecretStore/name`.
    pub store: String,
    /// The key in the store.
    pub key: String,
    /// The version in the store, where it has versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When this version was created (RFC 3339), where the store tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_time: Option<String>,
}

/// Status of a SecretStore or ClusterSecretStore.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, and `Reconciling` or `Stalled` while it is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
