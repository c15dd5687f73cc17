//! From the SDK's types to remote values.

use std::collections::BTreeMap;

use aws_smithy_types::DateTime;
use jiff::Timestamp;
use lockstep_provider::{RemoteSecret, SecretValue};

/// How a user narrows a search that is too large.
pub(crate) const NARROW: &str = "Narrow it down with find.path";

/// Tags, as the JSON object that is read in place of a value.
pub(crate) fn tags_as_value(tags: &BTreeMap<&str, &str>) -> RemoteSecret {
    RemoteSecret {
        // a map of texts is always JSON
        value: SecretValue::from(serde_json::to_string(tags).unwrap_or_default()),
        version: None,
        created: None,
        fresh_for: None,
    }
}

/// When a version was created.
pub(crate) fn created(date: Option<&DateTime>) -> Option<Timestamp> {
    let date = date?;
    Timestamp::new(date.secs(), i32::try_from(date.subsec_nanos()).ok()?).ok()
}
