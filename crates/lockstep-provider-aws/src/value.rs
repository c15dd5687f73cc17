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

/// Whether an id has the form of Secrets Manager's versions: 32 to 64 letters, digits and dashes,
/// usually a UUID. The status shows versions, so a server could publish a value as one.
pub(crate) fn is_version_id(id: &str) -> bool {
    (32..=64).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
