//! `SecretStore` and `ClusterSecretStore`: backends of remote values, and access to them.

use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    aws::AwsProvider, ciphertext::CiphertextScope, credential::CredentialRef, duration::Duration,
    events::StoreEvents, file::FileProvider, gcp::GcpProvider, selector::LabelSelector, status::StoreStatus,
    vault::VaultProvider,
};

/// SecretStoreSpec declares the backend of a SecretStore and how lockstep
/// authenticates to it. Only SyncedSecrets of the same namespace can use the
/// store, and its credentials are in that namespace.
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
    validation = ("!has(self.provider.file)", "provider.file is allowed only in a ClusterSecretStore"),
    validation = (
        "!has(self.provider.aws) || has(self.provider.aws.auth)",
        "provider.aws requires auth: only a ClusterSecretStore can use the operator's own identity"
    ),
    validation = (
        "!has(self.provider.gcp) || has(self.provider.gcp.auth)",
        "provider.gcp requires auth: only a ClusterSecretStore can use the operator's own identity"
    ),
    validation = (
        "!has(self.events) || !has(self.events.sqs) || (has(self.provider.aws) && has(self.provider.aws.service))",
        "events.sqs requires provider.aws with a service"
    ),
    validation = (
        "!has(self.events) || !has(self.events.pubsub) || has(self.provider.gcp)",
        "events.pubsub requires provider.gcp"
    ),
    validation = (
        "!has(self.events) || !has(self.events.vault) || has(self.provider.vault)",
        "events.vault requires provider.vault"
    )
)]
pub struct SecretStoreSpec {
    /// provider is the backend that contains the remote values. Exactly one of
    /// vault, aws and gcp is required.
    pub provider: StoreProvider,
    /// limits restricts the requests of this store. If absent, the defaults of its
    /// fields apply. Stores do not share limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// events is a source of change events. If absent, lockstep notices a change at
    /// the next refresh (refreshInterval of the SyncedSecret).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<StoreEvents>,
}

/// ClusterSecretStoreSpec declares a backend that SyncedSecrets of several
/// namespaces can use, as far as access grants it. Its credentials are in the
/// namespace of the operator.
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
        "events.sqs requires provider.aws with a service"
    ),
    validation = (
        "!has(self.events) || !has(self.events.pubsub) || has(self.provider.gcp)",
        "events.pubsub requires provider.gcp"
    ),
    validation = (
        "!has(self.events) || !has(self.events.vault) || has(self.provider.vault)",
        "events.vault requires provider.vault"
    )
)]
pub struct ClusterSecretStoreSpec {
    /// provider is the backend that contains the remote values. Exactly one of
    /// vault, aws, gcp and file is required.
    pub provider: StoreProvider,
    /// limits restricts the requests of this store. If absent, the defaults of its
    /// fields apply. Stores do not share limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// events is a source of change events. If absent, lockstep notices a change at
    /// the next refresh (refreshInterval of the SyncedSecret).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<StoreEvents>,
    /// access is the list of grants: which namespaces may use which keys. If empty,
    /// no namespace may use the store. At most 256 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub access: Vec<Access>,
}

/// StoreProvider configures exactly one backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "[has(self.vault), has(self.aws), has(self.gcp), has(self.file)].filter(x, x).size() == 1",
        "provider must contain exactly one of vault, aws, gcp, file"
    )
)]
pub struct StoreProvider {
    /// vault reads HashiCorp Vault or OpenBao.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<VaultProvider>,
    /// aws reads AWS Secrets Manager or AWS Systems Manager Parameter Store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsProvider>,
    /// gcp reads Google Secret Manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcp: Option<GcpProvider>,
    /// file reads files below the folder that the operator's option `--file-root`
    /// names. Allowed only in a ClusterSecretStore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileProvider>,
}

impl StoreProvider {
    /// Returns the name of the backend as in YAML and in metrics, or `None` unless exactly one is
    /// set.
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

    /// Returns every Secret and ConfigMap that the backend reads in the credential namespace of the
    /// store.
    pub fn credential_refs(&self) -> Vec<CredentialRef> {
        let vault = self.vault.as_ref().map(VaultProvider::credential_refs);
        let aws = self.aws.as_ref().map(AwsProvider::credential_refs);
        let gcp = self.gcp.as_ref().map(GcpProvider::credential_refs);
        vault.into_iter().chain(aws).chain(gcp).flatten().collect()
    }
}

/// Limits restricts the requests of one store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// requestsPerSecond is the average number of requests per second. Defaults to
    /// no limit. Minimum 1, maximum 100,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub requests_per_second: Option<u32>,
    /// burst is the number of requests that may be sent at once before
    /// requestsPerSecond applies. Defaults to requestsPerSecond. Minimum 1, maximum
    /// 100,000. Ignored without requestsPerSecond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub burst: Option<u32>,
    /// maxConcurrent is the number of requests that may be in flight at the same
    /// time. Defaults to 32. Minimum 1, maximum 1024. A SecretStore uses at most 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_concurrent: Option<u32>,
    /// timeout is the time that one request may take, without retries. Defaults to
    /// `10s`. A request that takes longer fails (reason `Timeout`) and is retried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

/// Each entry grants keys, paths and ciphertext scopes to namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// namespaces selects the namespaces that the entry grants access to.
    pub namespaces: AccessNamespaces,
    /// keys is the list of globs of keys that may be read, for example `shop/**`.
    /// At most 256. If empty, the entry grants no key. `*` and `?` match within a
    /// path segment, `**` matches any number of segments.
    ///
    /// Globs are matched against the canonical form of a key: in Vault the path
    /// below the mount, in AWS the name below prefix, in Google the ID of the
    /// secret. A glob grants an ARN only if it contains everything before the name.
    /// See `docs/reference/permissions.md`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub keys: Vec<String>,
    /// generate is the list of globs of paths where credentials may be issued
    /// (`dataFrom[].generate`), including the mount path of the engine:
    /// `database/creds/shop-*`. At most 256. If empty, the entry grants no path;
    /// keys do not grant any. Engines that do not issue credentials are never used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub generate: Vec<String>,
    /// ciphertextScopes is the list of scopes of ciphertexts that the store
    /// decrypts for the namespaces. At most 3. If empty, it decrypts none. With
    /// only `Strict`, a ciphertext works only for the key that it was sealed for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub ciphertext_scopes: Vec<CiphertextScope>,
}

/// AccessNamespaces selects namespaces by name or by label. A namespace that
/// either one matches is selected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "(has(self.names) && self.names.size() > 0) || has(self.selector)",
        "namespaces requires names or a selector. To grant every namespace, set selector to {matchLabels: {}}"
    )
)]
pub struct AccessNamespaces {
    /// names is the list of names of namespaces. At most 1024. Required if selector
    /// is absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 1024),
        inner(length(min = 1, max = 63), regex(pattern = crate::name::LABEL))
    )]
    pub names: Vec<String>,
    /// selector selects namespaces by their labels. `matchLabels: {}` selects every
    /// namespace. If the operator runs with `--namespaces`, it cannot read the labels
    /// of namespaces, and selector matches no namespace. Required if names is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}
