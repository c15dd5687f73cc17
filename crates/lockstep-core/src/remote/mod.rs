//! The types of requests to providers and of their results.

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

/// One remote value to read. It names no property: properties are extracted after the read, so a
/// key with many properties is read once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemoteRef {
    /// The location of the value.
    pub key: Location,
    /// The version; `None` for the current one.
    pub version: Option<String>,
    /// The part to read.
    pub part: Part,
}

/// The part of a remote value to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// The value.
    #[default]
    Value,
    /// The metadata that the backend stores with the value (tags, labels, custom metadata), as a
    /// JSON object.
    Metadata,
}

/// The output of a KMS: an encrypted value, or the encrypted data key of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ciphertext {
    /// The bytes that the KMS returned.
    pub bytes: Vec<u8>,
    /// The binding to a location. The KMS does not decrypt with another one.
    pub binding: Binding,
}

impl RemoteRef {
    /// Refers to the current version of a key.
    pub fn current(key: Location) -> Self {
        Self {
            key,
            version: None,
            part: Part::Value,
        }
    }

    /// Refers to the metadata of the same key and version.
    #[must_use]
    pub fn metadata(mut self) -> Self {
        self.part = Part::Metadata;
        self
    }

    /// Refers to a named version of a key.
    pub fn version(key: Location, version: impl Into<String>) -> Self {
        Self {
            key,
            version: Some(version.into()),
            part: Part::Value,
        }
    }
}

/// One remote value that was read.
#[derive(Debug, Clone)]
pub struct RemoteSecret {
    /// The value. A backend that stores fields (Vault) returns them as one JSON object.
    pub value: SecretValue,
    /// The version that was read, if the backend has versions.
    pub version: Option<String>,
    /// The creation time of this version, if the backend reports it.
    pub created: Option<Timestamp>,
    /// The time until the backend changes the value by itself, if it reports one (static roles of
    /// Vault). The next read follows right after it.
    pub fresh_for: Option<Duration>,
}

/// A search for remote values. A value must match every field that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FindQuery {
    /// Limits the search to what the caller is granted.
    pub scope: Scope,
    /// Limits the search to values below this location.
    pub path: Option<Location>,
    /// Limits the search to names that match this regular expression (RE2 syntax).
    pub name: Option<String>,
    /// Limits the search to values with these tags.
    pub tags: BTreeMap<String, String>,
}

/// One remote value that a search found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RemoteMeta {
    /// The location of the value.
    pub key: Location,
}
