//! The `gcp` provider: Google Secret Manager.

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ciphertext::GcpKms,
    credential::{CredentialRef, SecretKeyRef},
};

/// GcpProvider configures Google Secret Manager.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "has(self.projectID) || has(self.kms)",
        "gcp requires projectID, or kms if the store only decrypts"
    )
)]
pub struct GcpProvider {
    /// projectID is the ID or number of the project that contains the secrets, for
    /// example `shop-prod`. Full names of secrets in other projects are rejected.
    /// Required unless kms is set; a store that only decrypts needs no project. At
    /// most 128 characters.
    #[x_kube(validation = (
        "self.matches('^([a-z0-9.-]+:)?[a-z0-9-]+$')",
        "projectID must be the id or the number of a project, such as shop-prod"
    ))]
    #[serde(rename = "projectID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub project_id: Option<String>,
    /// location is the region of regional secrets, for example `europe-west3`. If
    /// absent, the store reads secrets that are replicated across regions. At most
    /// 63 characters.
    #[x_kube(validation = (
        "self.matches('^[a-z0-9-]+$')",
        "location must be the name of a region, such as europe-west3"
    ))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub location: Option<String>,
    /// endpoint is the URL of Secret Manager, for example that of a Private Service
    /// Connect endpoint. Defaults to the endpoint of Google. A SecretStore requires
    /// `https`. At most 2048 characters.
    #[x_kube(validation = (
        "self.matches('^https?://[^/?#@\\\\s]+(/[^?#\\\\s]*)?$')",
        "endpoint must be an http or https URL with a host and without credentials, query or fragment"
    ))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub endpoint: Option<String>,
    /// stsEndpoint is the URL of the Security Token Service. Defaults to the
    /// endpoint of Google. A SecretStore requires `https`. At most 2048 characters.
    #[x_kube(validation = (
        "self.matches('^https?://[^/?#@\\\\s]+(/[^?#\\\\s]*)?$')",
        "stsEndpoint must be an http or https URL with a host and without credentials, query or fragment"
    ))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub sts_endpoint: Option<String>,
    /// iamEndpoint is the URL of the Service Account Credentials API, which
    /// impersonates service accounts. Defaults to the endpoint of Google. A
    /// SecretStore requires `https`. At most 2048 characters.
    #[x_kube(validation = (
        "self.matches('^https?://[^/?#@\\\\s]+(/[^?#\\\\s]*)?$')",
        "iamEndpoint must be an http or https URL with a host and without credentials, query or fragment"
    ))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub iam_endpoint: Option<String>,
    /// secretVersionSelectionPolicy determines what is read if a reference names no
    /// version and the latest version is disabled or destroyed. Defaults to
    /// `LatestOrFail`.
    ///
    /// - `LatestOrFail`: the sync fails (reason `KeyUnavailable`) and the Secret is
    ///   left unchanged.
    /// - `LatestOrFetch`: the newest enabled version is read. The identity must be
    ///   allowed to list versions (`secretmanager.versions.list`).
    #[serde(default, skip_serializing_if = "GcpVersionSelection::is_default")]
    pub secret_version_selection_policy: GcpVersionSelection,
    /// kms is the Cloud KMS key that decrypts `data[].ciphertext`. The identity
    /// needs only `roles/cloudkms.cryptoKeyDecrypter` on it. If absent, the store
    /// decrypts nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms: Option<GcpKms>,
    /// auth is how lockstep authenticates, by exactly one method. Required in a
    /// SecretStore. In a ClusterSecretStore, it defaults to the identity of the
    /// operator (Workload Identity Federation for GKE or its environment).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<GcpAuth>,
}

/// GcpVersionSelection determines what is read if the latest version is
/// disabled or destroyed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GcpVersionSelection {
    /// The sync fails and the Secret is left unchanged.
    #[default]
    LatestOrFail,
    /// The newest enabled version is read. The identity must be allowed to list
    /// versions.
    LatestOrFetch,
}

impl GcpVersionSelection {
    /// Returns true for the default, which is omitted in YAML.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_default(&self) -> bool {
        *self == Self::LatestOrFail
    }
}

/// GcpAuth configures exactly one method of authentication.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "[has(self.secretRef), has(self.workloadIdentityFederation), has(self.workloadIdentity)].filter(x, x).size() == 1",
        "auth must contain exactly one of secretRef, workloadIdentityFederation, workloadIdentity"
    )
)]
pub struct GcpAuth {
    /// secretRef reads the key of a service account from a Secret. The key does not
    /// expire. Prefer the other methods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<GcpSecretAuth>,
    /// workloadIdentityFederation exchanges the token of a ServiceAccount through a
    /// workload identity pool. It works in any cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_identity_federation: Option<GcpFederationAuth>,
    /// workloadIdentity exchanges the token of a ServiceAccount through the pool of
    /// a GKE cluster with Workload Identity Federation for GKE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_identity: Option<GcpWorkloadIdentityAuth>,
}

/// GcpSecretAuth reads the key of a service account from a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GcpSecretAuth {
    /// secretAccessKeySecretRef reads the key file of the service account (JSON)
    /// from a Secret.
    pub secret_access_key_secret_ref: SecretKeyRef,
}

/// GcpFederationAuth exchanges the token of a ServiceAccount through a workload
/// identity pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct GcpFederationAuth {
    /// audience is the provider of the pool:
    /// `//iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER`.
    /// At most 512 characters.
    #[x_kube(validation = (
        "self.matches('^//iam[.]googleapis[.]com/projects/[0-9]+/locations/[a-z0-9-]+/workloadIdentityPools/[a-z0-9-]+/providers/[a-z0-9-]+$')",
        "audience must name the provider of a pool: //iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER"
    ))]
    #[schemars(length(min = 1, max = 512))]
    pub audience: String,
    /// serviceAccountRef is the ServiceAccount whose token is exchanged.
    pub service_account_ref: GcpServiceAccountRef,
    /// serviceAccountEmail is the Google service account to impersonate, for
    /// example `shop@shop-prod.iam.gserviceaccount.com`. If absent, lockstep reads
    /// as the ServiceAccount itself, a principal of the pool. 3 to 253 characters.
    #[x_kube(validation = (
        "self.matches('^[a-z0-9.-]+@[a-z0-9.-]+$')",
        "serviceAccountEmail must be the address of a service account, such as shop@shop-prod.iam.gserviceaccount.com"
    ))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 253))]
    pub service_account_email: Option<String>,
}

/// GcpServiceAccountRef names a ServiceAccount: in the namespace of a
/// SecretStore, or in the namespace of the operator for a ClusterSecretStore.
/// lockstep requests a token with one audience that expires after ten minutes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GcpServiceAccountRef {
    /// name is the name of the ServiceAccount, in the namespace of the SecretStore,
    /// or of the operator for a ClusterSecretStore. At most 253 characters.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::name::SUBDOMAIN))]
    pub name: String,
    /// audience is the only audience of the token. Defaults to `https:` followed by
    /// the provider of the pool, which a provider without allowed audiences
    /// expects. It must be in the operator's `--token-audiences` and in the
    /// admission policy `lockstep-token-requests`. At most 512 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub audience: Option<String>,
}

/// GcpWorkloadIdentityAuth exchanges the token of a ServiceAccount of a GKE
/// cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct GcpWorkloadIdentityAuth {
    /// serviceAccountRef is the ServiceAccount whose token is exchanged. If it has
    /// the annotation `iam.gke.io/gcp-service-account`, lockstep impersonates that
    /// Google service account. lockstep needs `get` on the ServiceAccount to read
    /// the annotation.
    pub service_account_ref: GcpNamedServiceAccount,
    /// clusterProjectID is the ID of the project of the cluster. Defaults to
    /// projectID. The audience of the token is `PROJECT.svc.id.goog`, which must be
    /// in the operator's `--token-audiences` and in the admission policy
    /// `lockstep-token-requests`. At most 128 characters.
    #[x_kube(validation = (
        "self.matches('^([a-z0-9.-]+:)?[a-z0-9-]+$')",
        "clusterProjectID must be the id of a project, such as shop-prod"
    ))]
    #[serde(rename = "clusterProjectID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub cluster_project_id: Option<String>,
    /// clusterLocation is the region or zone of the cluster, for example
    /// `europe-west3`. At most 63 characters.
    #[x_kube(validation = (
        "self.matches('^[a-z0-9-]+$')",
        "clusterLocation must be the name of a region or zone, such as europe-west3"
    ))]
    #[schemars(length(min = 1, max = 63))]
    pub cluster_location: String,
    /// clusterName is the name of the GKE cluster. At most 63 characters.
    #[x_kube(validation = (
        "self.matches('^[a-z0-9-]+$')",
        "clusterName must be the name of a GKE cluster"
    ))]
    #[schemars(length(min = 1, max = 63))]
    pub cluster_name: String,
}

/// GcpNamedServiceAccount names a ServiceAccount: in the namespace of a
/// SecretStore, or in the namespace of the operator for a ClusterSecretStore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GcpNamedServiceAccount {
    /// name is the name of the ServiceAccount, in the namespace of the SecretStore,
    /// or of the operator for a ClusterSecretStore. At most 253 characters.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::name::SUBDOMAIN))]
    pub name: String,
}

impl GcpProvider {
    /// Returns every Secret that this configuration reads.
    pub fn credential_refs(&self) -> Vec<CredentialRef> {
        let auth = self.auth.as_ref().and_then(|auth| auth.secret_ref.as_ref());
        auth.map(|auth| CredentialRef::secret(&auth.secret_access_key_secret_ref.name))
            .into_iter()
            .collect()
    }
}
