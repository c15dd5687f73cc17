//! Status of the kinds. It is written only when it changes.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    condition::{Condition, ConditionType},
    history::RevisionRecord,
    lease::LeaseStatus,
    rotation::RotationStatus,
    source::SourceStatus,
};

/// SyncedSecretStatus is the last observed state of a SyncedSecret. lockstep
/// writes it when it changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SyncedSecretStatus {
    /// observedGeneration is the generation of the spec that the status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// conditions report whether the SyncedSecret works. `Ready` is always present
    /// after the first sync; `Reconciling` or `Stalled` while it is not ready or a
    /// rollout is unfinished; `RolloutComplete` since the first rollout;
    /// `RotationPending`, `RotationOverdue` and `LeaseUnrevoked` while they are
    /// true. `docs/reference/reasons.md` lists the reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// target is the Secret that was last written. Absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetStatus>,
    /// versions is the list of earlier Secrets of a versioned target that have not
    /// been pruned, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<TargetStatus>,
    /// sources is the list of remote values that the Secret was made from. At most
    /// 64 are listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceStatus>,
    /// sourceCount is the number of remote values that the Secret was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_count: Option<i64>,
    /// handledRefresh is the value of the annotation `lockstep.dev/refresh` that
    /// lockstep acted on last. Only another value has an effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_refresh: Option<String>,
    /// rotation is the progress of the rotation. Absent if the spec has no rotation
    /// and none was requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationStatus>,
    /// history is the list of the last 10 revisions of the Secret, the newest
    /// first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<RevisionRecord>,
    /// lease contains the leases of issued credentials. Absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseStatus>,
}

impl SyncedSecretStatus {
    /// Returns the condition of that type, if present.
    pub fn condition(&self, kind: ConditionType) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }
}

/// TargetStatus identifies a Secret that lockstep wrote, and its content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// sourceHash identifies the entries of the spec and the configuration of the
    /// stores that the values were read with. Present with deletionPolicy `Delete`:
    /// after a change, a missing value does not show that it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub source_hash: Option<String>,
    /// name is the name of the Secret.
    pub name: String,
    /// uid is the UID of the Secret.
    pub uid: String,
    /// resourceVersion is the resourceVersion after the write. If the Secret has
    /// another one, someone else changed it.
    pub resource_version: String,
    /// revision is the name of the Secret's content, in 8 hexadecimal digits. It
    /// changes with the content. It is the beginning of a keyed hash of the content
    /// and of the uid, namespace and name of the SyncedSecret, so equal contents of
    /// two SyncedSecrets have different revisions.
    pub revision: String,
    /// fingerprint is a keyed hash (HMAC-SHA-256) of everything that the Secret was
    /// made from.
    pub fingerprint: String,
    /// keyId identifies the key and the format of fingerprint and revision. If they
    /// change, lockstep records the hashes again. It keeps the revision and does
    /// not write the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub key_id: Option<String>,
    /// revisionHash is the hash of the content under the key of keyId. Absent
    /// unless revision was computed with another key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub revision_hash: Option<String>,
    /// generation is the generation of the spec that the Secret was last in sync
    /// with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// versioned is true if the Secret contains only this revision, because
    /// `target.versioned` is true.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub versioned: bool,
    /// merged is true if the Secret belongs to someone else, and lockstep merged
    /// keys into it (creationPolicy `Merge`). lockstep neither replaces nor deletes
    /// such a Secret.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub merged: bool,
    /// lastChangeTime is the time when the content last changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_change_time: Option<Timestamp>,
}

/// StoreStatus is the last observed state of a SecretStore or
/// ClusterSecretStore.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreStatus {
    /// observedGeneration is the generation of the spec that the status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// conditions report whether the store works. `Ready` is always present;
    /// `Reconciling` or `Stalled` while it is not true. `docs/reference/reasons.md`
    /// lists the reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
