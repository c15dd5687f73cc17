//! References from a store to the credentials that it reads with.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One key of a Kubernetes Secret: in the store's own namespace for a SecretStore, in the operator's namespace for a
/// ClusterSecretStore. No field names another namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::name::SUBDOMAIN))]
    pub name: String,
    /// Key in the Secret's data.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::name::DATA_KEY))]
    pub key: String,
}

/// A ServiceAccount whose token is requested (TokenRequest, one audience, ten minutes): in the store's own namespace
/// for a SecretStore, in the operator's namespace for a ClusterSecretStore.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountRef {
    /// Name of the ServiceAccount.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::name::SUBDOMAIN))]
    pub name: String,
    /// The one audience of the token; it must be on the allow-list of the admission policy. Default: `vault`.
    #[serde(default = "default_audience")]
    #[schemars(length(min = 1, max = 253))]
    pub audience: String,
}

fn default_audience() -> String {
    "vault".to_owned()
}

/// What kind of object a [`CredentialRef`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CredentialKind {
    /// A Secret.
    Secret,
    /// A ConfigMap (certificate authorities).
    ConfigMap,
}

/// An object that a store reads its credentials or certificates from; a change of it wakes the store's dependents.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialRef {
    /// Secret or ConfigMap.
    pub kind: CredentialKind,
    /// Its name, in the store's credential namespace.
    pub name: String,
}

impl CredentialRef {
    /// A reference to a Secret.
    pub fn secret(name: impl Into<String>) -> Self {
        Self {
            kind: CredentialKind::Secret,
            name: name.into(),
        }
    }

    /// A reference to a ConfigMap.
    pub fn config_map(name: impl Into<String>) -> Self {
        Self {
            kind: CredentialKind::ConfigMap,
            name: name.into(),
        }
    }
}
