//! Converts types of the SDK to remote values.

use std::collections::BTreeMap;

use aws_smithy_types::DateTime;
use jiff::Timestamp;
use lockstep_provider::{RemoteSecret, SecretValue};

/// The advice for a search that is too large.
pub(crate) const NARROW: &str = "Narrow it down with find.path";

/// Returns tags as a JSON object, which is read instead of a value.
pub(crate) fn tags_as_value(tags: &BTreeMap<&str, &str>) -> RemoteSecret {
    RemoteSecret {
        // A map of strings is always valid JSON.
        value: SecretValue::from(serde_json::to_string(tags).unwrap_or_default()),
        version: None,
        created: None,
        fresh_for: None,
    }
}

/// Converts the creation time of a version.
pub(crate) fn created(date: Option<&DateTime>) -> Option<Timestamp> {
    let date = date?;
    Timestamp::new(date.secs(), i32::try_from(date.subsec_nanos()).ok()?).ok()
}
