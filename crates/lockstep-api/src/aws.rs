//! The `aws` provider: Secrets Manager and Systems Manager Parameter Store.

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ciphertext::AwsKms,
    credential::{CredentialRef, SecretKeyRef},
};

/// AWS Secrets Manager, or AWS Systems Manager Parameter Store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = ("has(self.role) || !has(self.externalID)", "externalID is for assuming role, which is not set"),
    validation = (
        "has(self.role) || !(has(self.sessionTags) || (has(self.storeSessionTags) && self.storeSessionTags))",
        "sessionTags and storeSessionTags are for assuming role, which is not set"
    ),
    validation = ("has(self.service) || has(self.kms)", "aws needs service, or kms for ciphertexts alone")
)]
pub struct AwsProvider {
    /// The service: `SecretsManager` or `ParameterStore`. A store that only decrypts (`kms`) needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<AwsService>,
    /// The region, such as `eu-central-1`.
    #[x_kube(validation = ("self.matches('^[a-z0-9-]+$')", "region must be the name of a region, such as eu-central-1"))]
    #[schemars(length(min = 1, max = 64))]
    pub region: String,
    /// ARN of an IAM role that is assumed with the credentials of `auth`, such as
    /// `arn:aws:iam::123456789012:role/shop`. With `auth.jwt`, it is the role that the ServiceAccount's token is exchanged
    /// for, unless an annotation of the ServiceAccount names that one.
    #[x_kube(validation = (
        "self.matches('^arn:[a-z0-9-]+:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]+$')",
        "role must be the ARN of an IAM role, such as arn:aws:iam::123456789012:role/shop"
    ))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 20, max = 2048))]
    pub role: Option<String>,
    /// The external id that `role`'s trust policy asks for.
    #[serde(rename = "externalID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1224))]
    pub external_id: Option<String>,
    /// Tags of the session as `role`, which policies can refer to as `aws:PrincipalTag/…`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 48))]
    pub session_tags: Vec<SessionTag>,
    /// Adds the session tags `lockstep:namespace` (of a SecretStore) and `lockstep:store`, so that one role can be narrowed
    /// by tag. Default: `false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub store_session_tags: bool,
    /// Address of the service in place of AWS' own, such as that of a VPC endpoint.
    #[x_kube(validation = (
        "self.matches('^https?://[^/?#@\\\\s]+(/[^?#\\\\s]*)?$')",
        "endpoint must be an http or https URL with a host and without credentials, query or fragment"
    ))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub endpoint: Option<String>,
    /// Address of the Security Token Service in place of AWS' own.
    #[x_kube(validation = (
        "self.matches('^https?://[^/?#@\\\\s]+(/[^?#\\\\s]*)?$')",
        "stsEndpoint must be an http or https URL with a host and without credentials, query or fragment"
    ))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub sts_endpoint: Option<String>,
    /// prefix is what every name in this store begins with; keys come after it. A store with a prefix refuses ARNs. Defaults to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub prefix: Option<String>,
    /// The KMS key that decrypts `data[].ciphertext`. The identity needs `kms:Decrypt` on it, and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms: Option<AwsKms>,
    /// Whose credentials are used. Default: the operator's own (IRSA, EKS Pod Identity, its environment), in a
    /// ClusterSecretStore only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AwsAuth>,
}

/// The service of AWS that holds the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AwsService {
    /// Secrets Manager.
    SecretsManager,
    /// Systems Manager Parameter Store.
    ParameterStore,
}

/// One tag of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "!self.key.lowerAscii().startsWith('lockstep:')",
        "keys of session tags that begin with lockstep: are set by storeSessionTags alone"
    )
)]
pub struct SessionTag {
    /// The key.
    #[schemars(length(min = 1, max = 128))]
    pub key: String,
    /// The value.
    #[schemars(length(max = 256))]
    pub value: String,
}

/// Whose credentials are used: exactly one method.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = ("has(self.secretRef) != has(self.jwt)", "auth must hold exactly one of secretRef, jwt")
)]
pub struct AwsAuth {
    /// An access key from a Secret. It does not end by itself: prefer `jwt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<AwsSecretAuth>,
    /// A ServiceAccount's token, exchanged for credentials of a role (AssumeRoleWithWebIdentity).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<AwsJwtAuth>,
}

/// An access key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsSecretAuth {
    /// The access key id.
    #[serde(rename = "accessKeyIDSecretRef")]
    pub access_key_id_secret_ref: SecretKeyRef,
    /// The secret access key.
    pub secret_access_key_secret_ref: SecretKeyRef,
    /// The session token, where the key is a temporary one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token_secret_ref: Option<SecretKeyRef>,
}

/// A ServiceAccount's token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsJwtAuth {
    /// The ServiceAccount whose token is exchanged. Where it carries the annotation `eks.amazonaws.com/role-arn`, that is
    /// the role it is exchanged for, and the store's `role` is then assumed as that role.
    pub service_account_ref: AwsServiceAccountRef,
}

/// A ServiceAccount whose token is requested (TokenRequest, one audience, ten minutes): in the store's own namespace
/// for a SecretStore, in the operator's namespace for a ClusterSecretStore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsServiceAccountRef {
    /// Name of the ServiceAccount.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::name::SUBDOMAIN))]
    pub name: String,
    /// The one audience of the token; it must be on the allow-list of the admission policy. Default: `sts.amazonaws.com`.
    #[serde(default = "sts")]
    #[schemars(length(min = 1, max = 253))]
    pub audience: String,
}

fn sts() -> String {
    "sts.amazonaws.com".to_owned()
}

impl AwsProvider {
    /// Every Secret that this configuration reads.
    pub fn credential_refs(&self) -> Vec<CredentialRef> {
        let Some(auth) = self.auth.as_ref().and_then(|auth| auth.secret_ref.as_ref()) else {
            return Vec::new();
        };
        let secrets = [
            Some(&auth.access_key_id_secret_ref),
            Some(&auth.secret_access_key_secret_ref),
            auth.session_token_secret_ref.as_ref(),
        ];
        let mut refs: Vec<_> = secrets
            .into_iter()
            .flatten()
            .map(|secret| CredentialRef::secret(&secret.name))
            .collect();
        refs.sort();
        refs.dedup();
        refs
    }
}
