//! Values that stand encrypted in Git: how widely they are bound, and the keys that decrypt them.

use std::fmt;

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a ciphertext may be used. It is sealed for a scope, and the KMS refuses it anywhere else.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum CiphertextScope {
    /// In this namespace, this SyncedSecret, under this key.
    #[default]
    Strict,
    /// Anywhere in this namespace.
    Namespace,
    /// Anywhere.
    Cluster,
}

impl CiphertextScope {
    /// Every scope, the narrowest first.
    pub const ALL: &'static [Self] = &[Self::Strict, Self::Namespace, Self::Cluster];

    /// The scope's name, as in YAML.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Namespace => "Namespace",
            Self::Cluster => "Cluster",
        }
    }

    /// Whether it is the default, which need not be written.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(crate) fn is_strict(&self) -> bool {
        *self == Self::Strict
    }
}

impl fmt::Display for CiphertextScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The key of AWS KMS that decrypts `data[].ciphertext`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct AwsKms {
    /// ARN of the key, or of an alias, such as `arn:aws:kms:eu-central-1:123456789012:key/1234abcd-…`. Anything that another
    /// key encrypted is refused.
    #[x_kube(validation = (
        "self.matches('^[A-Za-z0-9:/_-]+$')",
        "keyId must be the ARN or the id of a KMS key, or alias/ and a name"
    ))]
    #[schemars(length(min = 1, max = 2048))]
    pub key_id: String,
    /// The algorithm. Default: `SYMMETRIC_DEFAULT`, the one that binds a ciphertext to its place: key pairs know no
    /// encryption context, so whoever knows the public key could seal for any place.
    #[serde(default)]
    pub encryption_algorithm: AwsEncryptionAlgorithm,
    /// Address of the Key Management Service in place of AWS' own.
    #[x_kube(validation = (
        "self.matches('^https?://[^/?#@\\\\s]+(/[^?#\\\\s]*)?$')",
        "kms.endpoint must be an http or https URL with a host and without credentials, query or fragment"
    ))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub endpoint: Option<String>,
}

/// How AWS KMS encrypts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AwsEncryptionAlgorithm {
    /// A symmetric key: AES-256-GCM with an encryption context.
    #[default]
    #[serde(rename = "SYMMETRIC_DEFAULT")]
    SymmetricDefault,
}

/// The key of Google Cloud KMS that decrypts `data[].ciphertext`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct GcpKms {
    /// Name of the symmetric key: `projects/P/locations/L/keyRings/R/cryptoKeys/K`. Anything that another key encrypted is
    /// refused.
    #[x_kube(validation = (
        "self.matches('^projects/[a-z0-9.:-]+/locations/[a-z0-9-]+/keyRings/[A-Za-z0-9_-]+/cryptoKeys/[A-Za-z0-9_-]+$')",
        "kms.key must be the name of a key: projects/P/locations/L/keyRings/R/cryptoKeys/K"
    ))]
    #[schemars(length(min = 1, max = 512))]
    pub key: String,
    /// Address of the Key Management Service in place of Google's own.
    #[x_kube(validation = (
        "self.matches('^https?://[^/?#@\\\\s]+(/[^?#\\\\s]*)?$')",
        "kms.endpoint must be an http or https URL with a host and without credentials, query or fragment"
    ))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub endpoint: Option<String>,
}

/// The key of Vault's transit engine that decrypts `data[].ciphertext`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct VaultTransit {
    /// Mount path of the transit engine. Default: `transit`.
    #[serde(default = "transit")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// Name of the key: of type `aes256-gcm96`, `aes128-gcm96` or `chacha20-poly1305`.
    #[x_kube(validation = (
        "self.matches('^[A-Za-z0-9_.-]+$')",
        "transit.key must be the name of a key: letters, digits, '-', '_' and '.'"
    ))]
    #[schemars(length(min = 1, max = 256))]
    pub key: String,
    /// Set it where the key was made with `derived=true`: the binding is then the context that the key is derived with,
    /// in place of associated data. Default: `false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub derived: bool,
}

fn transit() -> String {
    "transit".to_owned()
}
