//! What a provider is asked for and what it answers: the vocabulary between the pipeline and the providers.

mod error;
mod value;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use error::{ErrorKind, Operation, ProviderError, Requeue};
pub use value::SecretValue;

/// One remote value to read. Properties are taken out of the value by the pipeline, so that a key is read once however
/// many properties are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemoteRef {
    /// The key, as the user wrote it.
    pub key: String,
    /// The version, as the user wrote it; `None` is the current one.
    pub version: Option<String>,
}

impl RemoteRef {
    /// The current version of a key.
    pub fn current(key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            version: None,
        }
    }

    /// A certain version of a key.
    pub fn version(key: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            version: Some(version.into()),
        }
    }
}

/// One remote value.
#[derive(Debug, Clone)]
pub struct RemoteSecret {
    /// The value. A backend that stores fields (Vault) answers them as one JSON object.
    pub value: SecretValue,
    /// The version that this is, where the backend has versions.
    pub version: Option<String>,
    /// When this version was created, where the backend tells.
    pub created: Option<Timestamp>,
}

/// Which remote values to look for: all that is set must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FindQuery {
    /// Only below this path.
    pub path: Option<String>,
    /// Only names in which this regular expression (RE2 syntax) matches.
    pub name: Option<String>,
    /// Only values that carry these tags.
    pub tags: BTreeMap<String, String>,
}

/// One remote value that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RemoteMeta {
    /// Its key, in the form that [`RemoteRef::key`] takes.
    pub key: String,
}
