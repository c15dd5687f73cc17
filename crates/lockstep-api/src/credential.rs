//! References from a store to its credentials.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// SecretKeyRef names one key of a Secret: in the namespace of a SecretStore,
/// or in the namespace of the operator for a ClusterSecretStore. It cannot name
/// another namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// name is the name of the Secret, in the namespace of the SecretStore, or of
    /// the operator for a ClusterSecretStore. The namespace of a SecretStore must
    /// grant lockstep `get`, `list` and `watch` on it. At most 253 characters.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::name::SUBDOMAIN))]
    pub name: String,
    /// key is the key in the data of the Secret. At most 253 characters.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::name::DATA_KEY))]
    pub key: String,
}

/// ServiceAccountRef names a ServiceAccount: in the namespace of a SecretStore,
/// or in the namespace of the operator for a ClusterSecretStore. lockstep
/// requests a token with one audience that expires after ten minutes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountRef {
    /// name is the name of the ServiceAccount, in the namespace of the SecretStore,
    /// or of the operator for a ClusterSecretStore. At most 253 characters.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::name::SUBDOMAIN))]
    pub name: String,
    /// audience is the only audience of the token. Defaults to `vault`. It must be
    /// in the operator's `--token-audiences` and in the admission policy
    /// `lockstep-token-requests`. At most 253 characters.
    #[serde(default = "default_audience")]
    #[schemars(length(min = 1, max = 253))]
    pub audience: String,
}

fn default_audience() -> String {
    "vault".to_owned()
}

/// CredentialKind is the kind of object that a [`CredentialRef`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CredentialKind {
    /// A Secret with credentials or certificate authorities.
    Secret,
    /// A ConfigMap with certificate authorities.
    ConfigMap,
}

/// CredentialRef names an object that a store reads credentials or certificates
/// from. When it changes, everything that uses the store is reconciled.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialRef {
    /// Secret or ConfigMap.
    pub kind: CredentialKind,
    /// Name of the object in the credential namespace of the store.
    pub name: String,
}

impl CredentialRef {
    /// Returns a reference to a Secret.
    pub fn secret(name: impl Into<String>) -> Self {
        Self {
            kind: CredentialKind::Secret,
            name: name.into(),
        }
    }

    /// Returns a reference to a ConfigMap.
    pub fn config_map(name: impl Into<String>) -> Self {
        Self {
            kind: CredentialKind::ConfigMap,
            name: name.into(),
        }
    }
}
