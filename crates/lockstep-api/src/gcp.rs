//! The `gcp` provider: Google Secret Manager.

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ciphertext::GcpKms,
    credential::{CredentialRef, SecretKeyRef},
};

/// Google Secret Manager.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "has(self.projectID) || has(self.kms)",
        "gcp needs projectID, or kms for ciphertexts alone"
    )
)]
pub struct GcpProvider {
    /// The project that holds the secrets, by id or number. Full names of secrets in other projects are refused. A store that only
    /// decrypts (`kms`) needs none.
    #[x_kube(validation = (
        "self.matches('^([a-z0-9.-]+:)?[a-z0-9-]+$')",
        "projectID must be the id or the number of a project, such as shop-prod"
    ))]
    #[serde(rename = "projectID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub project_id: Option<String>,
    /// The region of regional secrets, such as `europe-west3`. Default: secrets that are replicated across regions.
    #[x_kube(validation = (
        "self.matches('^[a-z0-9-]+$')",
        "location must be the name of a region, such as europe-west3"
    ))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub location: Option<String>,
    /// Address of Secret Manager in place of Google's own, such as that of a Private Service Connect endpoint.
    #[x_kube(validation = (
        "self.matches('^https?://[^/?#@\\\\s]+(/[^?#\\\\s]*)?$')",
        "endpoint must be an http or https URL with a host and without credentials, query or fragment"
    ))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub endpoint: Option<String>,
    /// Address of the Security Token Service in place of Google's own.
    #[x_kube(validation = (
        "self.matches('^https?://[^/?#@\\\\s]+(/[^?#\\\\s]*)?$')",
        "stsEndpoint must be an http or https URL with a host and without credentials, query or fragment"
    ))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub sts_endpoint: Option<String>,
    /// Address of the Service Account Credentials API, which impersonates, in place of Google's own.
    #[x_kube(validation = (
        "self.matches('^https?://[^/?#@\\\\s]+(/[^?#\\\\s]*)?$')",
        "iamEndpoint must be an http or https URL with a host and without credentials, query or fragment"
    ))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub iam_endpoint: Option<String>,
    /// What is read where a reference names no version and the latest one is disabled or destroyed. Default:
    /// `LatestOrFail`.
    #[serde(default, skip_serializing_if = "GcpVersionSelection::is_default")]
    pub secret_version_selection_policy: GcpVersionSelection,
    /// The key of Cloud KMS that decrypts `data[].ciphertext`. The identity needs
    /// `roles/cloudkms.cryptoKeyDecrypter` on it, and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms: Option<GcpKms>,
    /// Whose credentials are used. Default: the operator's own (Workload Identity Federation for GKE, its environment), in a
    /// ClusterSecretStore only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<GcpAuth>,
}

/// What is read where the latest version is disabled or destroyed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GcpVersionSelection {
    /// Nothing: that is an error, and the Secret stays as it is.
    #[default]
    LatestOrFail,
    /// The newest version that is enabled. It costs listing the versions, which the identity must be allowed to.
    LatestOrFetch,
}

impl GcpVersionSelection {
    /// Whether it is the default, which need not be written.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_default(&self) -> bool {
        *self == Self::LatestOrFail
    }
}

/// Whose credentials are used: exactly one method.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "[has(self.secretRef), has(self.workloadIdentityFederation), has(self.workloadIdentity)].filter(x, x).size() == 1",
        "auth must hold exactly one of secretRef, workloadIdentityFederation, workloadIdentity"
    )
)]
pub struct GcpAuth {
    /// The key of a service account from a Secret. It does not end by itself: prefer the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<GcpSecretAuth>,
    /// A ServiceAccount's token of any cluster, exchanged through a workload identity pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_identity_federation: Option<GcpFederationAuth>,
    /// A ServiceAccount's token of a GKE cluster, exchanged through the cluster's own pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_identity: Option<GcpWorkloadIdentityAuth>,
}

/// The key of a service account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GcpSecretAuth {
    /// The key, as the JSON that Google gives out.
    pub secret_access_key_secret_ref: SecretKeyRef,
}

/// A ServiceAccount's token, exchanged through a workload identity pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct GcpFederationAuth {
    /// The provider of the pool:
    /// `//iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER`.
    #[x_kube(validation = (
        "self.matches('^//iam[.]googleapis[.]com/projects/[0-9]+/locations/[a-z0-9-]+/workloadIdentityPools/[a-z0-9-]+/providers/[a-z0-9-]+$')",
        "audience must name the provider of a pool: //iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER"
    ))]
    #[schemars(length(min = 1, max = 512))]
    pub audience: String,
    /// The ServiceAccount whose token is exchanged.
    pub service_account_ref: GcpServiceAccountRef,
    /// The service account of Google that is impersonated with it, such as `shop@shop-prod.iam.gserviceaccount.com`.
    /// Default: the ServiceAccount reads as itself, a principal of the pool.
    #[x_kube(validation = (
        "self.matches('^[a-z0-9.-]+@[a-z0-9.-]+$')",
        "serviceAccountEmail must be the address of a service account, such as shop@shop-prod.iam.gserviceaccount.com"
    ))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 253))]
    pub service_account_email: Option<String>,
}

/// A ServiceAccount whose token is requested (TokenRequest, one audience, ten minutes): in the store's own namespace
/// for a SecretStore, in the operator's namespace for a ClusterSecretStore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GcpServiceAccountRef {
    /// Name of the ServiceAccount.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::name::SUBDOMAIN))]
    pub name: String,
    /// The one audience of the token; it must be on the allow-list of the admission policy. Default: `https:` and the
    /// provider of the pool, which is what a provider expects that names no audience of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub audience: Option<String>,
}

/// A ServiceAccount's token of a GKE cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct GcpWorkloadIdentityAuth {
    /// The ServiceAccount whose token is exchanged. Where it carries the annotation `iam.gke.io/gcp-service-account`, that
    /// service account of Google is impersonated with it.
    pub service_account_ref: GcpNamedServiceAccount,
    /// The project of the cluster, by id. The token's audience is `PROJECT.svc.id.goog`, which must be on the allow-list of
    /// the admission policy. Default: `projectID`.
    #[x_kube(validation = (
        "self.matches('^([a-z0-9.-]+:)?[a-z0-9-]+$')",
        "clusterProjectID must be the id of a project, such as shop-prod"
    ))]
    #[serde(rename = "clusterProjectID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub cluster_project_id: Option<String>,
    /// The region or zone of the cluster.
    #[x_kube(validation = (
        "self.matches('^[a-z0-9-]+$')",
        "clusterLocation must be the name of a region or zone, such as europe-west3"
    ))]
    #[schemars(length(min = 1, max = 63))]
    pub cluster_location: String,
    /// The name of the cluster.
    #[x_kube(validation = (
        "self.matches('^[a-z0-9-]+$')",
        "clusterName must be the name of a GKE cluster"
    ))]
    #[schemars(length(min = 1, max = 63))]
    pub cluster_name: String,
}

/// A ServiceAccount: in the store's own namespace for a SecretStore, in the operator's namespace for a ClusterSecretStore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GcpNamedServiceAccount {
    /// Name of the ServiceAccount.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::name::SUBDOMAIN))]
    pub name: String,
}

impl GcpProvider {
    /// Every Secret that this configuration reads.
    pub fn credential_refs(&self) -> Vec<CredentialRef> {
        let auth = self.auth.as_ref().and_then(|auth| auth.secret_ref.as_ref());
        auth.map(|auth| CredentialRef::secret(&auth.secret_access_key_secret_ref.name))
            .into_iter()
            .collect()
    }
}
