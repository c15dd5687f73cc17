//! Values that are kept encrypted in Git: their scopes, and the keys that decrypt them.

use std::fmt;

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Each scope is one that ciphertexts were sealed for. The KMS refuses to
/// decrypt a ciphertext outside its scope.
///
/// - `Strict`: valid only in one namespace, in one SyncedSecret, under one
///   secretKey.
/// - `Namespace`: valid anywhere in one namespace.
/// - `Cluster`: valid in every namespace.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum CiphertextScope {
    /// Valid only in one namespace, in one SyncedSecret, under one `secretKey`.
    #[default]
    Strict,
    /// Valid anywhere in one namespace.
    Namespace,
    /// Valid in every namespace.
    Cluster,
}

impl CiphertextScope {
    /// Lists every scope, the narrowest first.
    pub const ALL: &'static [Self] = &[Self::Strict, Self::Namespace, Self::Cluster];

    /// Returns the name of the scope as in YAML.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Namespace => "Namespace",
            Self::Cluster => "Cluster",
        }
    }

    /// Returns true for the default, which is omitted in YAML.
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

/// AwsKms names the AWS KMS key that decrypts `data[].ciphertext`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct AwsKms {
    /// keyId is the ARN or ID of the key, or `alias/` and a name, for example
    /// `arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab`.
    /// Ciphertexts of another key are rejected. At most 2048 characters.
    #[x_kube(validation = (
        "self.matches('^[A-Za-z0-9:/_-]+$')",
        "keyId must be the ARN or the id of a KMS key, or alias/ and a name"
    ))]
    #[schemars(length(min = 1, max = 2048))]
    pub key_id: String,
    /// encryptionAlgorithm is the algorithm of the key. Defaults to
    /// `SYMMETRIC_DEFAULT`.
    ///
    /// - `SYMMETRIC_DEFAULT`: AES-256-GCM with an encryption context, which binds a
    ///   ciphertext to its scope. Key pairs are not supported: they have no
    ///   encryption context, so anyone with the public key could seal for any
    ///   scope.
    #[serde(default)]
    pub encryption_algorithm: AwsEncryptionAlgorithm,
    /// endpoint is the URL of AWS KMS, for example that of a VPC endpoint. Defaults
    /// to the endpoint of AWS in region. A SecretStore requires `https`. At most
    /// 2048 characters.
    #[x_kube(validation = (
        "self.matches('^https?://[^/?#@\\\\s]+(/[^?#\\\\s]*)?$')",
        "kms.endpoint must be an http or https URL with a host and without credentials, query or fragment"
    ))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub endpoint: Option<String>,
}

/// AwsEncryptionAlgorithm is the algorithm of an AWS KMS key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AwsEncryptionAlgorithm {
    /// AES-256-GCM with an encryption context.
    #[default]
    #[serde(rename = "SYMMETRIC_DEFAULT")]
    SymmetricDefault,
}

/// GcpKms names the Google Cloud KMS key that decrypts `data[].ciphertext`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct GcpKms {
    /// key is the name of the symmetric key:
    /// `projects/P/locations/L/keyRings/R/cryptoKeys/K`. Ciphertexts of another key
    /// are rejected. At most 512 characters.
    #[x_kube(validation = (
        "self.matches('^projects/[a-z0-9.:-]+/locations/[a-z0-9-]+/keyRings/[A-Za-z0-9_-]+/cryptoKeys/[A-Za-z0-9_-]+$')",
        "kms.key must be the name of a key: projects/P/locations/L/keyRings/R/cryptoKeys/K"
    ))]
    #[schemars(length(min = 1, max = 512))]
    pub key: String,
    /// endpoint is the URL of Cloud KMS. Defaults to the endpoint of Google. A
    /// SecretStore requires `https`. At most 2048 characters.
    #[x_kube(validation = (
        "self.matches('^https?://[^/?#@\\\\s]+(/[^?#\\\\s]*)?$')",
        "kms.endpoint must be an http or https URL with a host and without credentials, query or fragment"
    ))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub endpoint: Option<String>,
}

/// VaultTransit names the key of Vault's transit engine that decrypts
/// `data[].ciphertext`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct VaultTransit {
    /// path is the mount path of the transit engine. Defaults to `transit`. A mount
    /// of another engine is an error. At most 1024 characters.
    #[serde(default = "transit")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// key is the name of the key, of type `aes256-gcm96`, `aes128-gcm96` or
    /// `chacha20-poly1305`: letters, digits, `-`, `_` and `.`, at most 256
    /// characters.
    #[x_kube(validation = (
        "self.matches('^[A-Za-z0-9_.-]+$')",
        "transit.key must be the name of a key: letters, digits, '-', '_' and '.'"
    ))]
    #[schemars(length(min = 1, max = 256))]
    pub key: String,
    /// derived is true if the key was created with `derived=true`. The scope of a
    /// ciphertext is then the context of the key derivation instead of associated
    /// data. Defaults to `false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub derived: bool,
}

fn transit() -> String {
    "transit".to_owned()
}
