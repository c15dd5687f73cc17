//! The sources of a Secret.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::store_ref::StoreRef;

/// Each entry is one remote value.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// store is the store of the value.
    pub store: StoreRef,
    /// key is the key of the value in the store.
    pub key: String,
    /// version is the version of the value. Absent if the store has no versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// createdTime is the time when the version was created (RFC 3339). Absent if
    /// the store does not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_time: Option<Timestamp>,
}
