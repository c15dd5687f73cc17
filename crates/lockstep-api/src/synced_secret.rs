//! `SyncedSecret`: the remote values to read and the Secret to write.

use std::collections::BTreeMap;

use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ciphertext::CiphertextScope, duration::Duration, lease::Generate, rotation::Rotation,
    status::SyncedSecretStatus, store_ref::StoreRef,
};

/// SyncedSecretSpec declares the remote values to read and the Secret to write
/// in the same namespace.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "lockstep.dev",
    version = "v1alpha1",
    kind = "SyncedSecret",
    plural = "syncedsecrets",
    singular = "syncedsecret",
    shortname = "sysec",
    category = "lockstep",
    namespaced,
    status = "SyncedSecretStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Which remote values become which Kubernetes Secret of the same namespace.",
    crates(kube_core = "::kube_core"),
    printcolumn(name = "Store", type_ = "string", json_path = ".spec.secretStoreRef.name"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Last change",
        type_ = "date",
        json_path = ".status.target.lastChangeTime"
    ),
    printcolumn(name = "Rotation", type_ = "string", json_path = ".status.rotation.phase"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = ("has(self.data) && self.data.size() > 0 || has(self.dataFrom) && self.dataFrom.size() > 0", "data or dataFrom must have at least one entry"),
    validation = (
        "has(self.secretStoreRef) || (!has(self.data) || self.data.all(e, has(e.secretStoreRef))) && (!has(self.dataFrom) || self.dataFrom.all(e, has(e.secretStoreRef)))",
        "secretStoreRef is required, in spec or in every entry of data and dataFrom"
    ),
    validation = (
        "!has(self.target) || !has(self.target.versioned) || !self.target.versioned || has(self.rotation) && has(self.rotation.rollout)",
        "target.versioned requires rotation.rollout, which moves the workloads from one Secret to the next"
    ),
    validation = (
        "!has(self.dataFrom) || self.dataFrom.filter(e, has(e.generate)).size() <= 1",
        "only one entry of dataFrom can use generate: use another SyncedSecret for a second credential"
    ),
    validation = (
        "!has(self.dataFrom) || !has(self.refreshPolicy) || self.refreshPolicy != 'CreatedOnce' || !self.dataFrom.exists(e, has(e.generate))",
        "generate cannot be used with refreshPolicy: CreatedOnce, because credentials end: use Periodic or OnChange"
    )
)]
pub struct SyncedSecretSpec {
    /// secretStoreRef is the store of every entry that names no store of its own.
    /// Required unless each entry of data and dataFrom sets its own secretStoreRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_store_ref: Option<StoreRef>,
    /// refreshInterval is the time between two reads of the remote values, as a Go
    /// duration or in days: `90s`, `1h30m`, `7d`. Defaults to `1h`. Minimum `1s`.
    /// Used only with refreshPolicy `Periodic`.
    ///
    /// lockstep adds up to 10% of jitter. For a store that returns many values per
    /// call, it assigns SyncedSecrets to shared slots of the interval instead, so
    /// that one call serves many of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_interval: Option<Duration>,
    /// refreshPolicy determines when lockstep reads the remote values again.
    /// Defaults to `Periodic`. The annotation `lockstep.dev/refresh` forces a read
    /// with `Periodic` and `OnChange`.
    ///
    /// - `Periodic`: every refreshInterval, on an event of the store, and when the
    ///   spec changes.
    /// - `OnChange`: only when the spec changes.
    /// - `CreatedOnce`: never again once the Secret has been written. Not allowed
    ///   with `dataFrom[].generate`.
    #[serde(default)]
    pub refresh_policy: RefreshPolicy,
    /// suspend stops syncing and leaves the Secret as it is. Leases are still
    /// renewed and revoked. Defaults to `false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// data is the list of keys that are written from one remote value or one
    /// ciphertext each. At most 2000 entries. data or dataFrom needs at least one
    /// entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2000))]
    pub data: Vec<DataEntry>,
    /// dataFrom is the list of entries that each write many keys: all properties of
    /// a value (extract), all values that match (find), or an issued credential
    /// (generate). At most 100 entries. Two entries that write the same key are an
    /// error (reason `DuplicateKey`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub data_from: Vec<DataFromEntry>,
    /// target is the Secret to write. Defaults to a Secret with the name of the
    /// SyncedSecret.
    #[serde(default, skip_serializing_if = "Target::is_default")]
    pub target: Target,
    /// rotation determines when a changed value is written, how it reaches the
    /// pods, and how old a value may get. If absent, changes are written at once
    /// and no workload is restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
}

/// Applies if `refreshInterval` is absent.
pub const DEFAULT_REFRESH_INTERVAL: Duration = Duration::from_secs(3600);

/// RefreshPolicy determines when the remote values are read again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RefreshPolicy {
    /// Every `refreshInterval`, on an event of the store, and when the spec
    /// changes.
    #[default]
    Periodic,
    /// Only when the spec changes.
    OnChange,
    /// Never again once the Secret has been written.
    CreatedOnce,
}

/// Each entry writes one key, from exactly one of remoteRef and ciphertext.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "has(self.remoteRef) != has(self.ciphertext)",
        "an entry of data requires exactly one of remoteRef, ciphertext"
    ),
    validation = (
        "has(self.ciphertext) || !has(self.ciphertextScope)",
        "ciphertextScope requires ciphertext"
    ),
    validation = (
        "!(has(self.ciphertext) && has(self.optional) && self.optional)",
        "optional requires remoteRef"
    )
)]
pub struct DataEntry {
    /// secretKey is the key in the Secret: letters, digits, `-`, `_` and `.`, at
    /// most 253 characters.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::name::DATA_KEY))]
    pub secret_key: String,
    /// remoteRef is the remote value to read. Exactly one of remoteRef and
    /// ciphertext is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_ref: Option<RemoteRef>,
    /// ciphertext is the value, encrypted with the store's KMS key by
    /// `lockstep seal`. It is safe to commit to Git: it cannot be decrypted without
    /// the key, or outside ciphertextScope. At most 1,500,000 characters. Exactly
    /// one of remoteRef and ciphertext is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1_500_000))]
    pub ciphertext: Option<String>,
    /// ciphertextScope is the scope that the ciphertext was sealed for. The KMS
    /// refuses to decrypt it with another one. Defaults to `Strict`. Allowed only
    /// with ciphertext.
    ///
    /// - `Strict`: valid only in this namespace, in this SyncedSecret, under this
    ///   secretKey.
    /// - `Namespace`: valid anywhere in this namespace.
    /// - `Cluster`: valid in every namespace.
    #[serde(default, skip_serializing_if = "CiphertextScope::is_strict")]
    pub ciphertext_scope: CiphertextScope,
    /// decodingStrategy is how the value is decoded before it is written. Defaults
    /// to `None`. Padding is optional for `Base64` and `Base64URL`, and whitespace
    /// is ignored.
    ///
    /// - `None`: written as it is.
    /// - `Base64`: standard base64. Any other value is an error.
    /// - `Base64URL`: URL-safe base64. Any other value is an error.
    /// - `Auto`: decoded if it is base64 or URL-safe base64 with full padding,
    ///   otherwise written as it is. This is a guess: the plain text `password` is
    ///   valid base64 and is decoded.
    #[serde(default)]
    pub decoding_strategy: DecodingStrategy,
    /// optional leaves the key out if the remote value or its property does not
    /// exist. Defaults to `false`: the sync fails and the Secret is left unchanged.
    /// Not allowed with ciphertext.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// secretStoreRef is the store of this entry. Defaults to the SyncedSecret's
    /// secretStoreRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_store_ref: Option<StoreRef>,
}

/// RemoteRef names one remote value, or one property of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "!(has(self.version) && has(self.metadataPolicy) && self.metadataPolicy == 'Fetch')",
        "metadataPolicy: Fetch cannot be used with version: metadata has no versions"
    )
)]
pub struct RemoteRef {
    /// key is the name of the remote value, for example `shop/database`. Its form
    /// depends on the provider; see `docs/reference/permissions.md`.
    /// `access[].keys` of a ClusterSecretStore are matched against the canonical
    /// form. Whitespace and invisible characters are an error. At most 2048
    /// characters.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^\S+$"))]
    pub key: String,
    /// property is the path of a field in the value, which must be JSON:
    /// `password`, or names and indexes joined by dots, such as `users.0.name`.
    /// `\.` is a dot in a name. A field named like the whole path takes precedence.
    /// Defaults to the whole value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub property: Option<String>,
    /// version is the version to read, in the provider's notation: a number in
    /// Vault and Google, a stage such as `AWSPREVIOUS` in AWS Secrets Manager.
    /// Defaults to the current version. Not allowed with metadataPolicy `Fetch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub version: Option<String>,
    /// metadataPolicy determines what is read. Defaults to `None`.
    ///
    /// - `None`: the value.
    /// - `Fetch`: the metadata that the store keeps for the value (tags, labels,
    ///   custom metadata), as a JSON object.
    #[serde(default, skip_serializing_if = "MetadataPolicy::is_none")]
    pub metadata_policy: MetadataPolicy,
}

/// MetadataPolicy selects between a remote value and its metadata.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MetadataPolicy {
    /// Reads the value.
    #[default]
    None,
    /// Reads the metadata (tags, labels, custom metadata) as a JSON object.
    Fetch,
}

impl MetadataPolicy {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// DecodingStrategy is how a remote value is decoded before it is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DecodingStrategy {
    /// The value is written as it is.
    #[default]
    None,
    /// The value must be standard base64; padding is optional.
    Base64,
    /// The value must be URL-safe base64; padding is optional.
    #[serde(rename = "Base64URL")]
    Base64Url,
    /// The value is decoded if it is base64 or URL-safe base64 with full padding,
    /// otherwise it is written as it is.
    Auto,
}

/// Each entry writes many keys, from exactly one of extract, find and generate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "[has(self.extract), has(self.find), has(self.generate)].filter(x, x).size() == 1",
        "an entry of dataFrom requires exactly one of extract, find, generate"
    )
)]
pub struct DataFromEntry {
    /// extract writes one key for each property of one remote value, which must be
    /// a JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extract: Option<Extract>,
    /// find writes one key for each remote value that matches. The key is the name
    /// of the value; use rewrite to turn it into a valid key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub find: Option<Find>,
    /// generate writes one key for each field of a credential that the store issues
    /// for this SyncedSecret alone. Allowed in one entry of a SyncedSecret. Not
    /// allowed with refreshPolicy `CreatedOnce` or onFailure `Rollback`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate: Option<Generate>,
    /// rewrite is the list of steps that rename the keys of this entry, applied in
    /// order. At most 32 steps. If empty, the keys are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub rewrite: Vec<Rewrite>,
    /// secretStoreRef is the store of this entry. Defaults to the SyncedSecret's
    /// secretStoreRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_store_ref: Option<StoreRef>,
}

/// Extract names one remote value whose properties become keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "!(has(self.version) && has(self.metadataPolicy) && self.metadataPolicy == 'Fetch')",
        "metadataPolicy: Fetch cannot be used with version: metadata has no versions"
    )
)]
pub struct Extract {
    /// key is the name of the remote value, in the form of `remoteRef.key`. At most
    /// 2048 characters.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^\S+$"))]
    pub key: String,
    /// property is the path of a JSON object in the value, in the form of
    /// `remoteRef.property`. Defaults to the value itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub property: Option<String>,
    /// version is the version to read, in the form of `remoteRef.version`. Defaults
    /// to the current version. Not allowed with metadataPolicy `Fetch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub version: Option<String>,
    /// metadataPolicy determines what is read. Defaults to `None`.
    ///
    /// - `None`: the value.
    /// - `Fetch`: the metadata that the store keeps for the value (tags, labels,
    ///   custom metadata), as a JSON object.
    #[serde(default, skip_serializing_if = "MetadataPolicy::is_none")]
    pub metadata_policy: MetadataPolicy,
    /// decodingStrategy is how each value is decoded before it is written. Defaults
    /// to `None`.
    ///
    /// - `None`: written as it is.
    /// - `Base64`: standard base64. Any other value is an error.
    /// - `Base64URL`: URL-safe base64. Any other value is an error.
    /// - `Auto`: decoded if it is base64 or URL-safe base64 with full padding,
    ///   otherwise written as it is. This is a guess: see
    ///   `data[].decodingStrategy`.
    #[serde(default)]
    pub decoding_strategy: DecodingStrategy,
}

/// Find selects remote values by path, name and tags; a value must match all
/// that are set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = ("has(self.path) || has(self.name) || has(self.tags)", "find requires at least one of path, name, tags")
)]
pub struct Find {
    /// path is the folder to search. Defaults to the root of the store. In Google
    /// Secret Manager it is a name prefix. For a ClusterSecretStore, only folders
    /// that may contain granted keys are listed. Whitespace and invisible
    /// characters are an error. At least one of path, name and tags is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^\S*$"))]
    pub path: Option<String>,
    /// name selects remote values by name. If absent, every name matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<FindName>,
    /// tags are the tags (AWS), labels (Google) or custom metadata (Vault) that a
    /// remote value must have. If empty, tags are ignored.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// decodingStrategy is how each value is decoded before it is written. Defaults
    /// to `None`.
    ///
    /// - `None`: written as it is.
    /// - `Base64`: standard base64. Any other value is an error.
    /// - `Base64URL`: URL-safe base64. Any other value is an error.
    /// - `Auto`: decoded if it is base64 or URL-safe base64 with full padding,
    ///   otherwise written as it is. This is a guess: see
    ///   `data[].decodingStrategy`.
    #[serde(default)]
    pub decoding_strategy: DecodingStrategy,
}

/// FindName matches the names of remote values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FindName {
    /// regexp is a regular expression (RE2 syntax) that matches anywhere in the
    /// name. Use `^` and `$` to match the whole name, for example
    /// `^shop/db-[0-9]+$`. At most 1024 characters. An expression that repeats a group
    /// many times matches short names only.
    #[schemars(length(min = 1, max = 1024))]
    pub regexp: String,
}

/// Each step is exactly one of regexp, transform and merge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "[has(self.regexp), has(self.transform), has(self.merge)].filter(x, x).size() == 1",
        "a rewrite step requires exactly one of regexp, transform, merge"
    )
)]
pub struct Rewrite {
    /// regexp replaces the text that a regular expression matches in each key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regexp: Option<RewriteRegexp>,
    /// transform renames each key with a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<RewriteTransform>,
    /// merge merges the values of all keys, which must be JSON objects, into one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<RewriteMerge>,
}

/// RewriteRegexp replaces the text that a regular expression matches in each
/// key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RewriteRegexp {
    /// source is the regular expression (RE2 syntax), for example `^shop/(.+)$`.
    /// Every match is replaced. At most 1024 characters.
    #[schemars(length(min = 1, max = 1024))]
    pub source: String,
    /// target is the replacement, which may refer to groups of source as `$1`,
    /// `${1}` or `${name}`. It may be empty. At most 1024 characters. Two keys with
    /// the same new name are an error.
    #[schemars(length(max = 1024))]
    pub target: String,
}

/// RewriteTransform renames each key with a template.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RewriteTransform {
    /// template is a Go template that returns the new key; `.value` is the old key,
    /// as in `{{ .value | upper }}`. At most 4096 characters. Two keys with the
    /// same new name are an error.
    #[schemars(length(min = 1, max = 4096))]
    pub template: String,
}

/// RewriteMerge merges the JSON objects in the values of all keys into one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = ("self.strategy != 'JSON' || has(self.into)", "merge with strategy JSON requires into")
)]
pub struct RewriteMerge {
    /// into is the key that receives the merged object. Required with strategy
    /// `JSON`, ignored with `Extract`. At most 253 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub into: Option<String>,
    /// priority is the list of keys whose fields replace those of other keys. The
    /// last key in the list has the highest priority. At most 100 keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub priority: Vec<String>,
    /// priorityPolicy determines what happens if a key in priority does not exist.
    /// Defaults to `Strict`.
    ///
    /// - `Strict`: the sync fails.
    /// - `IgnoreNotFound`: the key is ignored.
    #[serde(default)]
    pub priority_policy: RewriteMergePriorityPolicy,
    /// conflictPolicy determines what happens if two objects of the same priority
    /// contain the same field. Defaults to `Error`.
    ///
    /// - `Error`: the sync fails.
    /// - `Ignore`: the object whose key comes later in alphabetical order replaces
    ///   the other.
    #[serde(default)]
    pub conflict_policy: RewriteMergeConflictPolicy,
    /// strategy determines where the merged fields are written. Defaults to
    /// `Extract`.
    ///
    /// - `Extract`: each field becomes a key.
    /// - `JSON`: the merged object becomes the value of the key `into`.
    #[serde(default)]
    pub strategy: RewriteMergeStrategy,
}

/// RewriteMergePriorityPolicy determines what happens if a key in `priority`
/// does not exist.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RewriteMergePriorityPolicy {
    /// The sync fails.
    #[default]
    Strict,
    /// The key is ignored.
    IgnoreNotFound,
}

/// RewriteMergeConflictPolicy determines what happens if two objects of the
/// same priority contain the same field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RewriteMergeConflictPolicy {
    /// The sync fails.
    #[default]
    Error,
    /// The object whose key comes later in alphabetical order replaces the other.
    Ignore,
}

/// RewriteMergeStrategy determines where merged fields are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RewriteMergeStrategy {
    /// Each field becomes a key.
    #[default]
    Extract,
    /// The merged object becomes the value of the key `into`.
    #[serde(rename = "JSON")]
    Json,
}

/// Applies if `revisionHistoryLimit` is absent.
pub const DEFAULT_REVISION_HISTORY_LIMIT: u32 = 2;

/// Target describes the Secret to write.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "!has(self.versioned) || !self.versioned || !has(self.creationPolicy) || self.creationPolicy == 'Owner'",
        "versioned requires creationPolicy: Owner"
    ),
    validation = (
        "!has(self.versioned) || !self.versioned || !has(self.name) || self.name.size() <= 54",
        "the name of a versioned Secret must have at most 54 characters"
    ),
    validation = (
        "!has(self.revisionHistoryLimit) || has(self.versioned) && self.versioned",
        "revisionHistoryLimit requires versioned"
    )
)]
pub struct Target {
    /// name is the name of the Secret. Defaults to the name of the SyncedSecret. At
    /// most 253 characters, or 54 if versioned is true. If it changes, lockstep
    /// writes the Secret under the new name and deletes the earlier one. With
    /// creationPolicy `Orphan`, the earlier one stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = crate::name::SUBDOMAIN)
    )]
    pub name: Option<String>,
    /// template defines the type, metadata and keys of the Secret. If absent, the
    /// Secret has the type `Opaque` and the keys of data and dataFrom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
    /// creationPolicy determines who owns the Secret. Defaults to `Owner`. With
    /// `Owner` and `Orphan`, lockstep replaces the whole Secret: keys, labels and
    /// annotations that others added are removed at the next write.
    ///
    /// - `Owner`: lockstep creates the Secret. It is deleted with the SyncedSecret.
    /// - `Orphan`: lockstep creates the Secret. It is kept when the SyncedSecret is
    ///   deleted. A change from `Owner` takes effect when the Secret is written
    ///   next.
    /// - `Merge`: the Secret exists and belongs to someone else. lockstep writes
    ///   only the keys of this SyncedSecret. The Secret must list the SyncedSecret
    ///   in its annotation `lockstep.dev/merge`, and the namespace must grant
    ///   lockstep `patch` on it. This grant also lets lockstep read the Secret.
    ///   Keys that someone else wrote are a conflict. When the SyncedSecret is
    ///   deleted, its keys stay.
    #[serde(default)]
    pub creation_policy: CreationPolicy,
    /// deletionPolicy determines what happens to the Secret when all remote values
    /// have been deleted at the source. Defaults to `Retain`.
    ///
    /// - `Retain`: the Secret is left unchanged.
    /// - `Delete`: the Secret is deleted. With creationPolicy `Merge`, only the
    ///   keys of this SyncedSecret are removed. The Secret is kept if any value in
    ///   `status.sources` still exists or cannot be read, for example after a typo
    ///   in the spec or a change of the grants.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// immutable makes the Secret immutable. To change it, lockstep deletes and
    /// recreates it. Defaults to `false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub immutable: bool,
    /// versioned writes an immutable Secret `<name>-<revision>` for each revision,
    /// instead of one Secret. The rollout then moves the references in the pod
    /// templates of its targets to the new Secret, wave by wave, so a pod of a
    /// later wave that restarts early keeps the old value. Defaults to `false`.
    /// Requires `rotation.rollout` and creationPolicy `Owner`.
    ///
    /// Each target must refer to `<name>` at first, and must list `<name>` in its
    /// own annotation `lockstep.dev/versioned`. lockstep moves no reference without
    /// this annotation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub versioned: bool,
    /// revisionHistoryLimit is the number of earlier Secrets of a versioned target
    /// to keep when no target uses them, for `kubectl rollout undo`. Defaults to 2.
    /// Minimum 0, maximum 20. Allowed only if versioned is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 20))]
    pub revision_history_limit: Option<u32>,
}

impl Target {
    /// Returns `revisionHistoryLimit` or its default.
    pub fn revision_history_limit(&self) -> u32 {
        self.revision_history_limit
            .unwrap_or(DEFAULT_REVISION_HISTORY_LIMIT)
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// CreationPolicy determines who owns the Secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CreationPolicy {
    /// lockstep creates the Secret. It is deleted with the SyncedSecret.
    #[default]
    Owner,
    /// lockstep creates the Secret. It is kept when the SyncedSecret is deleted.
    Orphan,
    /// The Secret exists and belongs to someone else. lockstep writes only the keys
    /// of this SyncedSecret. The Secret must list the SyncedSecret in its
    /// annotation `lockstep.dev/merge`, and the namespace must grant lockstep
    /// `patch` on it, which also lets lockstep read it.
    Merge,
}

/// DeletionPolicy determines what happens to the Secret when all remote values
/// have been deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// The Secret is left unchanged.
    #[default]
    Retain,
    /// The Secret is deleted. With `Merge`, only the keys of this SyncedSecret are
    /// removed.
    Delete,
}

/// Template defines the type, metadata and keys of the Secret.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// type is the type of the Secret, for example `kubernetes.io/tls`. Defaults to
    /// `Opaque`. `kubernetes.io/service-account-token` and
    /// `bootstrap.kubernetes.io/token` are rejected (reason `InvalidSpec`).
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_type: Option<String>,
    /// metadata contains labels and annotations of the Secret. Their values are Go
    /// templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,
    /// data maps keys of the Secret to Go templates, which read the keys of data
    /// and dataFrom:
    /// `postgres://{{ .username }}:{{ .password | urlquery }}@db/shop`.
    /// `docs/reference/functions.md` lists the functions and limits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, String>,
    /// templateFrom is a list of templates that each return several keys, labels or
    /// annotations. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub template_from: Vec<TemplateFrom>,
    /// mergePolicy determines whether the keys of data and dataFrom are written in
    /// addition to the output of templates. Defaults to `Replace`.
    ///
    /// - `Replace`: if there are templates for data, only their output is written.
    /// - `Merge`: the keys of data and dataFrom are written too. A template
    ///   replaces a key of the same name.
    #[serde(default)]
    pub merge_policy: MergePolicy,
}

/// TemplateMetadata contains labels and annotations of the Secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMetadata {
    /// labels maps names of labels to Go templates. Names under `lockstep.dev` are
    /// an error (reason `InvalidSpec`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// annotations maps names of annotations to Go templates. Names under
    /// `lockstep.dev` are rejected (reason `InvalidSpec`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Each entry is a template that returns several keys, labels or annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateFrom {
    /// literal is a Go template whose output is a YAML map of strings. At most
    /// 65,536 characters.
    #[schemars(length(min = 1, max = 65536))]
    pub literal: String,
    /// target determines where the entries of the map are written. Defaults to
    /// `Data`.
    ///
    /// - `Data`: the data of the Secret.
    /// - `Annotations`: the annotations of the Secret.
    /// - `Labels`: the labels of the Secret.
    #[serde(default)]
    pub target: TemplateTarget,
}

/// TemplateTarget determines where the output of a [`TemplateFrom`] is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TemplateTarget {
    /// The data of the Secret.
    #[default]
    Data,
    /// The annotations of the Secret.
    Annotations,
    /// The labels of the Secret.
    Labels,
}

/// MergePolicy determines whether the keys of `data` and `dataFrom` are written
/// in addition to the output of templates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MergePolicy {
    /// If there are templates for data, only their output is written.
    #[default]
    Replace,
    /// The keys of `data` and `dataFrom` are written too.
    Merge,
}
