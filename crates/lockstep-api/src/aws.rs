//! The `aws` provider: Secrets Manager and Systems Manager Parameter Store.

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ciphertext::AwsKms,
    credential::{CredentialRef, SecretKeyRef},
};

/// AwsProvider configures AWS Secrets Manager or AWS Systems Manager Parameter
/// Store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = ("has(self.role) || !has(self.externalID)", "externalID requires role"),
    validation = (
        "has(self.role) || !(has(self.sessionTags) || (has(self.storeSessionTags) && self.storeSessionTags))",
        "sessionTags and storeSessionTags require role"
    ),
    validation = ("has(self.service) || has(self.kms)", "aws requires service, or kms if the store only decrypts")
)]
pub struct AwsProvider {
    /// service is the AWS service that contains the values. Required unless kms is
    /// set; a store that only decrypts needs no service.
    ///
    /// - `SecretsManager`: AWS Secrets Manager.
    /// - `ParameterStore`: AWS Systems Manager Parameter Store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<AwsService>,
    /// region is the AWS region, for example `eu-central-1`. At most 64 characters.
    #[x_kube(validation = ("self.matches('^[a-z]{2}(-[a-z]+)+-[0-9]+$')", "region must be the name of a region, such as eu-central-1"))]
    #[schemars(length(min = 1, max = 64))]
    pub region: String,
    /// role is the ARN of an IAM role to assume, for example
    /// `arn:aws:iam::123456789012:role/shop`. If absent, the credentials of auth
    /// are used directly. 20 to 2048 characters.
    ///
    /// With `auth.jwt`, the token of the ServiceAccount is exchanged for this role.
    /// If externalID or session tags are set, see `auth.jwt.serviceAccountRef`.
    #[x_kube(validation = (
        "self.matches('^arn:[a-z0-9-]+:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]+$')",
        "role must be the ARN of an IAM role, such as arn:aws:iam::123456789012:role/shop"
    ))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 20, max = 2048))]
    pub role: Option<String>,
    /// externalID is the external ID that the trust policy of role requires.
    /// Allowed only with role. 2 to 1224 characters.
    #[serde(rename = "externalID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1224))]
    pub external_id: Option<String>,
    /// sessionTags is the list of tags of the session as role, which policies can
    /// refer to as `aws:PrincipalTag/KEY`. The trust policy must grant
    /// `sts:TagSession`. Allowed only with role. At most 48.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 48))]
    pub session_tags: Vec<SessionTag>,
    /// storeSessionTags adds the session tags `lockstep:store` and, in a
    /// SecretStore, `lockstep:namespace`, so that policies can restrict a shared
    /// role. The trust policy must grant `sts:TagSession`. Defaults to `false`.
    /// Allowed only with role.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub store_session_tags: bool,
    /// endpoint is the URL of the service, for example that of a VPC endpoint.
    /// Defaults to the endpoint of AWS in region. A SecretStore requires `https`.
    /// At most 2048 characters.
    #[x_kube(validation = (
        "self.matches('^https?://[^/?#@\\\\s]+(/[^?#\\\\s]*)?$')",
        "endpoint must be an http or https URL with a host and without credentials, query or fragment"
    ))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub endpoint: Option<String>,
    /// stsEndpoint is the URL of the Security Token Service. Defaults to the
    /// endpoint of AWS in region. A SecretStore requires `https`. At most 2048
    /// characters.
    #[x_kube(validation = (
        "self.matches('^https?://[^/?#@\\\\s]+(/[^?#\\\\s]*)?$')",
        "stsEndpoint must be an http or https URL with a host and without credentials, query or fragment"
    ))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub sts_endpoint: Option<String>,
    /// prefix is prepended to every key, for example `/live/`. It is not part of
    /// the keys that find returns. A store with a prefix rejects ARNs. Defaults to
    /// none. At most 512 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub prefix: Option<String>,
    /// kms is the AWS KMS key that decrypts `data[].ciphertext`. The identity needs
    /// only `kms:Decrypt` on it. If absent, the store decrypts nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms: Option<AwsKms>,
    /// auth is how lockstep authenticates, by exactly one method. Required in a
    /// SecretStore. In a ClusterSecretStore, it defaults to the identity of the
    /// operator (IRSA, EKS Pod Identity or its environment).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AwsAuth>,
}

/// service is the AWS service that contains the values. Required unless kms is
/// set; a store that only decrypts needs no service.
///
/// - `SecretsManager`: AWS Secrets Manager.
/// - `ParameterStore`: AWS Systems Manager Parameter Store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AwsService {
    /// AWS Secrets Manager.
    SecretsManager,
    /// AWS Systems Manager Parameter Store.
    ParameterStore,
}

/// Each entry is one session tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "!self.key.lowerAscii().startsWith('lockstep:')",
        "keys of session tags must not begin with lockstep:, which storeSessionTags sets"
    )
)]
pub struct SessionTag {
    /// key is the key of the tag, in ASCII. It cannot begin with `lockstep:`, which
    /// storeSessionTags sets. At most 128 characters.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[ -~]+$"))]
    pub key: String,
    /// value is the value of the tag. It may be empty. At most 256 characters.
    #[schemars(length(max = 256))]
    pub value: String,
}

/// AwsAuth configures exactly one method of authentication.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = ("has(self.secretRef) != has(self.jwt)", "auth must contain exactly one of secretRef, jwt")
)]
pub struct AwsAuth {
    /// secretRef reads an access key from a Secret. The key does not expire. Prefer
    /// jwt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<AwsSecretAuth>,
    /// jwt exchanges the token of a ServiceAccount for credentials of a role
    /// (AssumeRoleWithWebIdentity).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<AwsJwtAuth>,
}

/// AwsSecretAuth reads an access key from Secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsSecretAuth {
    /// accessKeyIDSecretRef reads the access key ID from a Secret.
    #[serde(rename = "accessKeyIDSecretRef")]
    pub access_key_id_secret_ref: SecretKeyRef,
    /// secretAccessKeySecretRef reads the secret access key from a Secret.
    pub secret_access_key_secret_ref: SecretKeyRef,
    /// sessionTokenSecretRef reads the session token from a Secret. Required only
    /// for a temporary access key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token_secret_ref: Option<SecretKeyRef>,
}

/// AwsJwtAuth exchanges the token of a ServiceAccount for credentials of a
/// role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsJwtAuth {
    /// serviceAccountRef is the ServiceAccount whose token is exchanged for
    /// credentials.
    ///
    /// - If role is set without externalID and session tags, the token is exchanged
    ///   for role. The annotation of the ServiceAccount is not read.
    /// - Otherwise the token is exchanged for the role in the annotation
    ///   `eks.amazonaws.com/role-arn` of the ServiceAccount. If role is set, it is
    ///   then assumed with the credentials of that role. lockstep needs `get` on
    ///   the ServiceAccount to read the annotation.
    pub service_account_ref: AwsServiceAccountRef,
}

/// AwsServiceAccountRef names a ServiceAccount: in the namespace of a
/// SecretStore, or in the namespace of the operator for a ClusterSecretStore.
/// lockstep requests a token with one audience that expires after ten minutes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsServiceAccountRef {
    /// name is the name of the ServiceAccount, in the namespace of the SecretStore,
    /// or of the operator for a ClusterSecretStore. At most 253 characters.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::name::SUBDOMAIN))]
    pub name: String,
    /// audience is the only audience of the token. Defaults to `sts.amazonaws.com`.
    /// It must be in the operator's `--token-audiences` and in the admission policy
    /// `lockstep-token-requests`. At most 253 characters.
    #[serde(default = "sts")]
    #[schemars(length(min = 1, max = 253))]
    pub audience: String,
}

fn sts() -> String {
    "sts.amazonaws.com".to_owned()
}

impl AwsProvider {
    /// Returns every Secret that this configuration reads.
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

/// Returns true if the text has the form of a region of AWS, such as `us-gov-west-1`. Other labels
/// lead to other services: `kms.s3.amazonaws.com` is a bucket of a customer.
pub fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let is_word = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    match parts.as_slice() {
        [area, words @ .., number] => {
            area.len() == 2
                && is_word(area)
                && !words.is_empty()
                && words.iter().all(is_word)
                && !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
        }
        _ => false,
    }
}
