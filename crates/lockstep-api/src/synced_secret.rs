//! `SyncedSecret`: which remote values become which Kubernetes Secret.

use std::collections::BTreeMap;

use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ciphertext::CiphertextScope, duration::Duration, lease::Generate, rotation::Rotation,
    status::SyncedSecretStatus, store::StoreRef,
};

/// Which remote values become which Kubernetes Secret of the same namespace.
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
    validation = ("has(self.data) && self.data.size() > 0 || has(self.dataFrom) && self.dataFrom.size() > 0", "at least one entry in data or dataFrom is needed"),
    validation = (
        "has(self.secretStoreRef) || (!has(self.data) || self.data.all(e, has(e.secretStoreRef))) && (!has(self.dataFrom) || self.dataFrom.all(e, has(e.secretStoreRef)))",
        "secretStoreRef is needed, on top or in every entry of data and dataFrom"
    ),
    validation = (
        "!has(self.target) || !has(self.target.versioned) || !self.target.versioned || has(self.rotation) && has(self.rotation.rollout)",
        "target.versioned needs rotation.rollout, which moves the workloads from one Secret to the next"
    ),
    validation = (
        "!has(self.dataFrom) || self.dataFrom.filter(e, has(e.generate)).size() <= 1",
        "one entry of dataFrom at most generates: a second credential needs a SyncedSecret of its own"
    ),
    validation = (
        "!has(self.dataFrom) || !has(self.refreshPolicy) || self.refreshPolicy != 'CreatedOnce' || !self.dataFrom.exists(e, has(e.generate))",
        "refreshPolicy: CreatedOnce never writes the credential that follows one whose lease ends: use Periodic or OnChange"
    )
)]
pub struct SyncedSecretSpec {
    /// The store of every entry that does not name its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_store_ref: Option<StoreRef>,
    /// How often the remote values are read again; the operator adds up to 10 % of jitter, or, where a store gives many
    /// values with one call, reads those that fall due in the same tenth of the interval together. Go's durations and
    /// `d` for days; at least `1s`. Default: `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_interval: Option<Duration>,
    /// When the remote values are read again. Default: `Periodic`.
    #[serde(default)]
    pub refresh_policy: RefreshPolicy,
    /// Stop syncing; the Secret stays as it is. Default: `false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// One key of the Secret from one remote value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2000))]
    pub data: Vec<DataEntry>,
    /// Many keys of the Secret from one remote value or from many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub data_from: Vec<DataFromEntry>,
    /// The Secret to write. Default: a Secret with the SyncedSecret's own name.
    #[serde(default, skip_serializing_if = "Target::is_default")]
    pub target: Target,
    /// When a value that changed at its source may be written, and how old it may get. Default: at once, and any age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
}

/// The refresh interval where none is given.
pub const DEFAULT_REFRESH_INTERVAL: Duration = Duration::from_secs(3600);

/// When the remote values are read again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RefreshPolicy {
    /// Every refresh interval, and when the spec changes.
    #[default]
    Periodic,
    /// When the spec changes.
    OnChange,
    /// Never again after the Secret was written once.
    CreatedOnce,
}

/// One key of the Secret, from one remote value or from a ciphertext.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "has(self.remoteRef) != has(self.ciphertext)",
        "an entry of data needs exactly one of remoteRef, ciphertext"
    ),
    validation = (
        "has(self.ciphertext) || !has(self.ciphertextScope)",
        "ciphertextScope is for ciphertext, which is not set"
    ),
    validation = (
        "!(has(self.ciphertext) && has(self.optional) && self.optional)",
        "optional is for remoteRef: a ciphertext is always there"
    )
)]
pub struct DataEntry {
    /// The key in the Secret: letters, digits, `-`, `_` and `.`.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::name::DATA_KEY))]
    pub secret_key: String,
    /// The remote value. Either this or `ciphertext`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_ref: Option<RemoteRef>,
    /// The value, encrypted with the store's KMS key by `lockstep seal`. It can be kept in Git: it is worthless without the key,
    /// and outside of the place that it was sealed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1_500_000))]
    pub ciphertext: Option<String>,
    /// Where the ciphertext may be used, as it was sealed. Default: `Strict`.
    #[serde(default, skip_serializing_if = "CiphertextScope::is_strict")]
    pub ciphertext_scope: CiphertextScope,
    /// How the value is decoded before it is written. Default: `None`.
    #[serde(default)]
    pub decoding_strategy: DecodingStrategy,
    /// A missing remote value leaves the key out, where it would otherwise fail the sync. Default: `false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// The store of this entry. Default: the SyncedSecret's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_store_ref: Option<StoreRef>,
}

/// One remote value, or a property of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "!(has(self.version) && has(self.metadataPolicy) && self.metadataPolicy == 'Fetch')",
        "metadataPolicy: Fetch reads what is kept beside all versions: leave version out"
    )
)]
pub struct RemoteRef {
    /// key names the remote value. It is parsed into the canonical form of the store's provider, which `access[].keys` of a
    /// ClusterSecretStore are matched against and which is read; `docs/reference/permissions.md` describes it. Whitespace and invisible
    /// characters are an error.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^\S+$"))]
    pub key: String,
    /// Path into the value, which must be JSON: a literal field name, or field names and indexes joined by dots.
    /// Default: the whole value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub property: Option<String>,
    /// The version in the store. Default: the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub version: Option<String>,
    /// What is read: the value (default), or, with `Fetch`, what the store keeps beside it (tags, labels, custom
    /// metadata), as a JSON object. Default: `None`.
    #[serde(default, skip_serializing_if = "MetadataPolicy::is_none")]
    pub metadata_policy: MetadataPolicy,
}

/// Whether the value is read, or what the store keeps beside it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MetadataPolicy {
    /// The value.
    #[default]
    None,
    /// The metadata.
    Fetch,
}

impl MetadataPolicy {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// How a remote value is decoded before it is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DecodingStrategy {
    /// Written as it is.
    #[default]
    None,
    /// Standard base64.
    Base64,
    /// URL-safe base64.
    #[serde(rename = "Base64URL")]
    Base64Url,
    /// Base64 or URL-safe base64 where the value is one of them, as it is otherwise.
    Auto,
}

/// Many keys of the Secret: from `extract`, from `find` or from `generate`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "[has(self.extract), has(self.find), has(self.generate)].filter(x, x).size() == 1",
        "an entry of dataFrom needs exactly one of extract, find, generate"
    )
)]
pub struct DataFromEntry {
    /// Every property of one remote value, which must be a JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extract: Option<Extract>,
    /// Every remote value that matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub find: Option<Find>,
    /// Every property of a credential that the store makes for this SyncedSecret alone. One entry at most does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate: Option<Generate>,
    /// How the keys are renamed, step by step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub rewrite: Vec<Rewrite>,
    /// The store of this entry. Default: the SyncedSecret's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_store_ref: Option<StoreRef>,
}

/// Every property of one remote value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "!(has(self.version) && has(self.metadataPolicy) && self.metadataPolicy == 'Fetch')",
        "metadataPolicy: Fetch reads what is kept beside all versions: leave version out"
    )
)]
pub struct Extract {
    /// key names the remote value, as `remoteRef.key` does.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^\S+$"))]
    pub key: String,
    /// Path to the JSON object inside the value. Default: the value itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub property: Option<String>,
    /// The version in the store. Default: the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub version: Option<String>,
    /// What is read: the value (default), or, with `Fetch`, what the store keeps beside it (tags, labels, custom
    /// metadata), as a JSON object. Default: `None`.
    #[serde(default, skip_serializing_if = "MetadataPolicy::is_none")]
    pub metadata_policy: MetadataPolicy,
    /// How each value is decoded. Default: `None`.
    #[serde(default)]
    pub decoding_strategy: DecodingStrategy,
}

/// Every remote value that matches all that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = ("has(self.path) || has(self.name) || has(self.tags)", "find needs at least one of path, name, tags")
)]
pub struct Find {
    /// path is the folder below which values are searched. Defaults to the root of the store. In a ClusterSecretStore, only folders
    /// that may hold granted keys are listed. Whitespace and invisible characters are an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^\S*$"))]
    pub path: Option<String>,
    /// Name of the remote value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<FindName>,
    /// Tags (in Vault: custom metadata) that the remote value must carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// How each value is decoded. Default: `None`.
    #[serde(default)]
    pub decoding_strategy: DecodingStrategy,
}

/// Name of a remote value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FindName {
    /// Regular expression (RE2 syntax) that the name must match somewhere; anchor it with `^` and `$`.
    #[schemars(length(min = 1, max = 1024))]
    pub regexp: String,
}

/// One step of renaming keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "[has(self.regexp), has(self.transform), has(self.merge)].filter(x, x).size() == 1",
        "a rewrite step needs exactly one of regexp, transform, merge"
    )
)]
pub struct Rewrite {
    /// Replace what a regular expression matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regexp: Option<RewriteRegexp>,
    /// Rename by a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<RewriteTransform>,
    /// Merge the JSON objects in the values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<RewriteMerge>,
}

/// Replace what a regular expression matches in each key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RewriteRegexp {
    /// The regular expression (RE2 syntax).
    #[schemars(length(min = 1, max = 1024))]
    pub source: String,
    /// The replacement; `$1` and `${name}` are groups.
    #[schemars(length(max = 1024))]
    pub target: String,
}

/// Rename each key by a template.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RewriteTransform {
    /// Go template that yields the new key; `.value` is the old key.
    #[schemars(length(min = 1, max = 4096))]
    pub template: String,
}

/// Merge the JSON objects in the values into one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = ("self.strategy != 'JSON' || has(self.into)", "merge with strategy JSON needs into")
)]
pub struct RewriteMerge {
    /// The key that receives the merged object, with strategy `JSON`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub into: Option<String>,
    /// Keys whose objects win over others, the last one most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub priority: Vec<String>,
    /// What a key in `priority` that is not there means. Default: `Strict`.
    #[serde(default)]
    pub priority_policy: RewriteMergePriorityPolicy,
    /// What it means when two objects hold the same field and neither has priority. Default: `Error`.
    #[serde(default)]
    pub conflict_policy: RewriteMergeConflictPolicy,
    /// Where the merged fields go. Default: `Extract`.
    #[serde(default)]
    pub strategy: RewriteMergeStrategy,
}

/// What a key in `priority` that is not there means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RewriteMergePriorityPolicy {
    /// An error.
    #[default]
    Strict,
    /// Nothing.
    IgnoreNotFound,
}

/// What it means when two objects hold the same field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RewriteMergeConflictPolicy {
    /// An error.
    #[default]
    Error,
    /// The one that comes later in the order of the keys wins.
    Ignore,
}

/// Where merged fields go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RewriteMergeStrategy {
    /// Each field becomes a key of its own.
    #[default]
    Extract,
    /// The whole object, as JSON, becomes the value of `into`.
    #[serde(rename = "JSON")]
    Json,
}

/// How many earlier Secrets of a versioned target are kept where the spec does not say.
pub const DEFAULT_REVISION_HISTORY_LIMIT: u32 = 2;

/// The Secret to write.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "!has(self.versioned) || !self.versioned || !has(self.creationPolicy) || self.creationPolicy == 'Owner'",
        "versioned is for creationPolicy: Owner"
    ),
    validation = (
        "!has(self.versioned) || !self.versioned || !has(self.name) || self.name.size() <= 54",
        "the name of a versioned Secret has 54 characters at most"
    ),
    validation = (
        "!has(self.revisionHistoryLimit) || has(self.versioned) && self.versioned",
        "revisionHistoryLimit is for versioned, which is not set"
    )
)]
pub struct Target {
    /// Name of the Secret. Default: the SyncedSecret's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = crate::name::SUBDOMAIN)
    )]
    pub name: Option<String>,
    /// What is written beyond the values as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
    /// creationPolicy says whether the Secret belongs to the SyncedSecret. Secrets of `Owner` and `Orphan` are replaced as a whole: keys,
    /// labels and annotations that others add are removed at the next write. Defaults to `Owner`.
    #[serde(default)]
    pub creation_policy: CreationPolicy,
    /// What happens to the Secret when every remote value is gone. Default: `Retain`.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// immutable makes the Secret immutable; a change deletes it and creates another one. Defaults to `false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub immutable: bool,
    /// Write an immutable Secret for each revision, named `<name>-<revision>`, and have `rotation.rollout` move the references of
    /// its targets from one to the next, wave by wave: a pod of a later wave that restarts in the middle keeps the old value. The
    /// targets refer to `<name>` at first, and name it in an annotation of their own, `lockstep.dev/versioned`: without it no
    /// reference is moved. Default: `false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub versioned: bool,
    /// How many earlier Secrets of a versioned target are kept once no target needs them, so that `kubectl rollout undo` finds them.
    /// Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 20))]
    pub revision_history_limit: Option<u32>,
}

impl Target {
    /// `revisionHistoryLimit`, or its default.
    pub fn revision_history_limit(&self) -> u32 {
        self.revision_history_limit
            .unwrap_or(DEFAULT_REVISION_HISTORY_LIMIT)
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whose the Secret is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CreationPolicy {
    /// The Secret is deleted with the SyncedSecret.
    #[default]
    Owner,
    /// lockstep creates the Secret, and it stays when the SyncedSecret is deleted.
    Orphan,
    /// The Secret exists and belongs to someone else. Only the keys of this SyncedSecret are written. The Secret lists the SyncedSecret in
    /// its annotation `lockstep.dev/merge`, and the namespace grants lockstep `patch` on it, which also lets lockstep read it.
    Merge,
}

/// What happens to the Secret when every remote value is gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It stays as it was.
    #[default]
    Retain,
    /// It is deleted (with `Merge`: the keys of this SyncedSecret are).
    Delete,
}

/// What is written beyond the values as they are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// Type of the Secret, such as `kubernetes.io/tls`. Default: `Opaque`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_type: Option<String>,
    /// Labels and annotations of the Secret; the values are templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,
    /// Keys of the Secret; the values are Go templates over the keys that `data` and `dataFrom` yield.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, String>,
    /// More templates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub template_from: Vec<TemplateFrom>,
    /// What happens to the values that no template names. Default: `Replace`.
    #[serde(default)]
    pub merge_policy: MergePolicy,
}

/// Labels and annotations of the Secret; the values are templates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMetadata {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations. Those of lockstep itself (`lockstep.dev/…`) are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A template that yields several keys at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateFrom {
    /// Go template whose output is a YAML map of strings.
    #[schemars(length(min = 1, max = 65536))]
    pub literal: String,
    /// Where the map goes. Default: `Data`.
    #[serde(default)]
    pub target: TemplateTarget,
}

/// Where the output of a [`TemplateFrom`] goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TemplateTarget {
    /// The Secret's data.
    #[default]
    Data,
    /// The Secret's annotations.
    Annotations,
    /// The Secret's labels.
    Labels,
}

/// What happens to the values that no template names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MergePolicy {
    /// Where there are templates for data, only their output is written.
    #[default]
    Replace,
    /// They are written beside the templates' output.
    Merge,
}
