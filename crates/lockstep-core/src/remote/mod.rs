//! What a provider is asked for and what it answers: the vocabulary between the pipeline and the providers.

mod error;
mod lease;
mod location;
mod scope;
mod value;

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use crate::ciphertext::Binding;

pub use error::{ErrorKind, Operation, ProviderError, RETRY_AFTER_MAX, Requeue};
pub use lease::{IssuanceToken, LeaseHandle, LeaseRequest, Minted};
pub use location::{Located, Location, LocationError, Locator, Verbatim, check, check_visible, is_invisible};
pub use scope::{Pattern, Scope, folders};
pub use value::SecretValue;

/// One remote value to read. Properties are taken out of the value by the pipeline, so that a key is read once however
/// many properties are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemoteRef {
    /// Where it is.
    pub key: Location,
    /// The version; `None` is the current one.
    pub version: Option<String>,
    /// What of it is read.
    pub part: Part,
}

/// What of a remote value is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// The value.
    #[default]
    Value,
    /// What the backend keeps beside it (tags, labels, custom metadata), as a JSON object.
    Metadata,
}

/// What a KMS encrypted: a value, or the data key of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ciphertext {
    /// What the KMS gave out.
    pub bytes: Vec<u8>,
    /// Where it belongs: the KMS refuses it elsewhere.
    pub binding: Binding,
}

impl RemoteRef {
    /// The current version of a key.
    pub fn current(key: Location) -> Self {
        Self {
            key,
            version: None,
            part: Part::Value,
        }
    }

    /// The same key and version, but what the backend keeps beside the value.
    #[must_use]
    pub fn metadata(mut self) -> Self {
        self.part = Part::Metadata;
        self
    }

    /// A certain version of a key.
    pub fn version(key: Location, version: impl Into<String>) -> Self {
        Self {
            key,
            version: Some(version.into()),
            part: Part::Value,
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
    /// How long it stays what it is, where the backend changes it by itself and tells when (Vault's static roles): the next read comes
    /// right after that, and no later.
    pub fresh_for: Option<Duration>,
}

/// Which remote values to look for: all that is set must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FindQuery {
    /// Only what the caller is granted.
    pub scope: Scope,
    /// Only below this location.
    pub path: Option<Location>,
    /// Only names in which this regular expression (RE2 syntax) matches.
    pub name: Option<String>,
    /// Only values that carry these tags.
    pub tags: BTreeMap<String, String>,
}

/// One remote value that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RemoteMeta {
    /// Where it is.
    pub key: Location,
}
