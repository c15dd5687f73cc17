//! References to stores.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// StoreKind distinguishes stores of a namespace from stores of the cluster.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum StoreKind {
    /// A store in the namespace of the SyncedSecret.
    #[default]
    SecretStore,
    /// A store of the cluster, which must grant the namespace access.
    ClusterSecretStore,
}

impl StoreKind {
    /// Returns the name of the kind as in YAML.
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

/// StoreRef refers to a SecretStore of the same namespace or to a
/// ClusterSecretStore.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreRef {
    /// name is the name of the store. At most 253 characters.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::name::SUBDOMAIN))]
    pub name: String,
    /// kind is the kind of the store. Defaults to `SecretStore`.
    ///
    /// - `SecretStore`: a store in the namespace of the SyncedSecret.
    /// - `ClusterSecretStore`: a store of the cluster, which must grant the
    ///   namespace access.
    #[serde(default)]
    pub kind: StoreKind,
}

impl StoreRef {
    /// Refers to the store of that kind and name.
    pub fn new(kind: StoreKind, name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind,
        }
    }
}

impl fmt::Display for StoreRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}
