//! `SecretStore` and `ClusterSecretStore`: where remote values are, and with whose credentials they are read.

use std::{collections::BTreeMap, fmt};

use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    aws::AwsProvider, ciphertext::CiphertextScope, credential::CredentialRef, duration::Duration,
    events::StoreEvents, file::FileProvider, gcp::GcpProvider, status::StoreStatus, vault::VaultProvider,
};

/// A store that SyncedSecrets of the same namespace read from, with credentials of that namespace.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "lockstep.dev",
    version = "v1alpha1",
    kind = "SecretStore",
    plural = "secretstores",
    singular = "secretstore",
    shortname = "ssto",
    category = "lockstep",
    namespaced,
    status = "StoreStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A store that SyncedSecrets of the same namespace read from, with credentials of that namespace.",
    crates(kube_core = "::kube_core"),
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
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = ("!has(self.provider.file)", "provider.file exists only in a ClusterSecretStore"),
    validation = (
        "!has(self.provider.aws) || has(self.provider.aws.auth)",
        "provider.aws needs auth: the operator's own identity serves ClusterSecretStores only"
    ),
    validation = (
        "!has(self.provider.gcp) || has(self.provider.gcp.auth)",
        "provider.gcp needs auth: the operator's own identity serves ClusterSecretStores only"
    ),
    validation = (
        "!has(self.events) || !has(self.events.sqs) || (has(self.provider.aws) && has(self.provider.aws.service))",
        "events.sqs needs provider.aws with a service"
    ),
    validation = (
        "!has(self.events) || !has(self.events.pubsub) || has(self.provider.gcp)",
        "events.pubsub needs provider.gcp"
    ),
    validation = (
        "!has(self.events) || !has(self.events.vault) || has(self.provider.vault)",
        "events.vault needs provider.vault"
    )
)]
pub struct SecretStoreSpec {
    /// The backend: exactly one.
    pub provider: StoreProvider,
    /// The store's budget of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Where the store hears of changes. Default: nowhere, and a change is noticed at the refresh interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<StoreEvents>,
}

/// A store that SyncedSecrets of several namespaces read from, as far as `access` grants it, with credentials of the
/// operator's own namespace.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "lockstep.dev",
    version = "v1alpha1",
    kind = "ClusterSecretStore",
    plural = "clustersecretstores",
    singular = "clustersecretstore",
    shortname = "cssto",
    category = "lockstep",
    status = "StoreStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A store that SyncedSecrets of several namespaces read from, as far as access grants it, with credentials of the operator's own namespace.",
    crates(kube_core = "::kube_core"),
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
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "!has(self.events) || !has(self.events.sqs) || (has(self.provider.aws) && has(self.provider.aws.service))",
        "events.sqs needs provider.aws with a service"
    ),
    validation = (
        "!has(self.events) || !has(self.events.pubsub) || has(self.provider.gcp)",
        "events.pubsub needs provider.gcp"
    ),
    validation = (
        "!has(self.events) || !has(self.events.vault) || has(self.provider.vault)",
        "events.vault needs provider.vault"
    )
)]
pub struct ClusterSecretStoreSpec {
    /// The backend: exactly one.
    pub provider: StoreProvider,
    /// The store's budget of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Where the store hears of changes. Default: nowhere, and a change is noticed at the refresh interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<StoreEvents>,
    /// Who may read what. With no entry nobody may use the store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub access: Vec<Access>,
}

/// The backend of a store: exactly one field is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "[has(self.vault), has(self.aws), has(self.gcp), has(self.file)].filter(x, x).size() == 1",
        "provider must hold exactly one of vault, aws, gcp, file"
    )
)]
pub struct StoreProvider {
    /// HashiCorp Vault or OpenBao.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<VaultProvider>,
    /// AWS Secrets Manager or Systems Manager Parameter Store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsProvider>,
    /// Google Secret Manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcp: Option<GcpProvider>,
    /// Files below the operator's `--file-root`. ClusterSecretStore only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileProvider>,
}

impl StoreProvider {
    /// The name of the backend that is set, as in YAML and in metrics; `None` when none or several are.
    pub fn name(&self) -> Option<&'static str> {
        let set = [
            self.vault.as_ref().map(|_| "vault"),
            self.aws.as_ref().map(|_| "aws"),
            self.gcp.as_ref().map(|_| "gcp"),
            self.file.as_ref().map(|_| "file"),
        ];
        let mut names = set.into_iter().flatten();
        names.next().filter(|_| names.next().is_none())
    }

    /// Every Secret and ConfigMap that the backend's configuration reads, in the store's credential namespace.
    pub fn credential_refs(&self) -> Vec<CredentialRef> {
        let vault = self.vault.as_ref().map(VaultProvider::credential_refs);
        let aws = self.aws.as_ref().map(AwsProvider::credential_refs);
        let gcp = self.gcp.as_ref().map(GcpProvider::credential_refs);
        vault.into_iter().chain(aws).chain(gcp).flatten().collect()
    }
}

/// What a store may spend. One store's budget never takes from another's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Requests a second, on average. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub requests_per_second: Option<u32>,
    /// Requests that may go out at once before `requestsPerSecond` paces them. Default: `requestsPerSecond`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub burst: Option<u32>,
    /// Requests in flight at once. Default: 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_concurrent: Option<u32>,
    /// How long one request may take, retries not counted. Default: `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

/// One grant of a ClusterSecretStore: these namespaces may read these keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// The namespaces that are granted.
    pub namespaces: AccessNamespaces,
    /// keys are the globs of the keys that may be read. They are matched against the canonical form of a key, which is what is
    /// read: in Vault the path below the mount (`path`), in AWS the name below `prefix`, in Google the id of the secret.
    /// `docs/reference/permissions.md` describes it per provider. `*` and `?` match within one path segment, `**` matches across them. An ARN
    /// is granted only by a glob that spells out everything before the name. Defaults to none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub keys: Vec<String>,
    /// generate are the globs of the paths at which credentials are issued (`dataFrom[].generate`), with the mount path of the engine:
    /// `database/creds/shop-*`. `keys` do not grant them. Only engines that issue credentials are used, whatever is granted.
    /// Defaults to none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub generate: Vec<String>,
    /// The scopes of ciphertexts that are decrypted for them. `Strict` alone keeps a ciphertext to the one key that it was
    /// sealed for. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub ciphertext_scopes: Vec<CiphertextScope>,
}

/// Namespaces by name or by label; a namespace that either matches is granted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "(has(self.names) && self.names.size() > 0) || has(self.selector)",
        "namespaces needs names or a selector; an empty selector ({matchLabels: {}}) grants every namespace"
    )
)]
pub struct AccessNamespaces {
    /// Namespaces by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 1024),
        inner(length(min = 1, max = 63), regex(pattern = crate::name::LABEL))
    )]
    pub names: Vec<String>,
    /// Namespaces by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// A label selector, with Kubernetes' meaning.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels that must have these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements; all must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// One requirement of a [`LabelSelector`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelectorRequirement {
    /// The label.
    pub key: String,
    /// How it is compared.
    pub operator: LabelSelectorOperator,
    /// The values of `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelSelectorOperator {
    /// The label's value is one of `values`.
    In,
    /// The label is absent, or its value is none of `values`.
    NotIn,
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

/// Kind of a store.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum StoreKind {
    /// A store of the same namespace.
    #[default]
    SecretStore,
    /// A store of the cluster.
    ClusterSecretStore,
}

impl StoreKind {
    /// The kind's name, as in YAML.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SecretStore => "SecretStore",
            Self::ClusterSecretStore => "ClusterSecretStore",
        }
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reference to a store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreRef {
    /// Name of the store.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::name::SUBDOMAIN))]
    pub name: String,
    /// `SecretStore` (default) or `ClusterSecretStore`.
    #[serde(default)]
    pub kind: StoreKind,
}

impl fmt::Display for StoreRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}
