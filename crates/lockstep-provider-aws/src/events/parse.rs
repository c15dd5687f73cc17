//! Parses the EventBridge events that report a change: events of the services, and calls that
//! CloudTrail recorded.
//!
//! Events of the services: "Secret Label Updated event" in the AWS Secrets Manager User Guide, and
//! "Amazon EventBridge event examples for Systems Manager" in the AWS Systems Manager User Guide.
//! Calls: "AWS CloudTrail entries for Secrets Manager" there. CloudTrail also contains calls that
//! only read, including lockstep's own. They report no change.

use jiff::Timestamp;
use lockstep_api::aws::AwsService;
use lockstep_core::events::VersionHint;
use lockstep_provider::EventKind;
use serde_json::Value;

use crate::{locate::is_arn, value::is_version_id};

/// The maximum length of an SQS message in bytes is 1 MiB; an event is much shorter.
const LONGEST: usize = 1 << 20;
/// The label of the version that a reference without a version reads.
const CURRENT: &str = "AWSCURRENT";
/// The label of a version that is being created.
const PENDING: &str = "AWSPENDING";
/// The length of the suffix that Secrets Manager appends to a name in an ARN: a hyphen and six
/// characters.
const SUFFIX: usize = 7;

/// Calls of Secrets Manager that can change a value or its metadata.
const SECRET_CALLS: &[&str] = &[
    "CreateSecret",
    "DeleteSecret",
    "PutSecretValue",
    "ReplicateSecretToRegions",
    "RestoreSecret",
    "RotationSucceeded",
    "TagResource",
    "UntagResource",
    "UpdateSecret",
    "UpdateSecretVersionStage",
];
/// Calls of Parameter Store that can change a value or its metadata.
const PARAMETER_CALLS: &[&str] = &[
    "AddTagsToResource",
    "DeleteParameter",
    "DeleteParameters",
    "LabelParameterVersion",
    "PutParameter",
    "RemoveTagsFromResource",
    "UnlabelParameterVersion",
];

/// An event of EventBridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) kind: EventKind,
    pub(super) at: Option<Timestamp>,
}

/// Parses the body of a message for a store of this service whose names start with `prefix`.
pub(super) fn parse(body: &str, service: AwsService, prefix: &str) -> Event {
    let malformed = Event {
        kind: EventKind::Malformed,
        at: None,
    };
    if body.len() > LONGEST {
        return malformed;
    }
    let Ok(event) = serde_json::from_str::<Value>(body) else {
        return malformed;
    };
    let at = text(&event, &["time"]).and_then(|time| time.parse().ok());
    let kind = match (text(&event, &["source"]), text(&event, &["detail-type"])) {
        (Some(source), Some(kind)) => event_kind(&event, source, kind, service, prefix, at),
        _ => EventKind::Malformed,
    };
    Event { kind, at }
}

/// Classifies an EventBridge event. Events of the other service are irrelevant.
fn event_kind(
    event: &Value,
    source: &str,
    detail_type: &str,
    service: AwsService,
    prefix: &str,
    at: Option<Timestamp>,
) -> EventKind {
    let event_service = match source {
        "aws.secretsmanager" => AwsService::SecretsManager,
        "aws.ssm" => AwsService::ParameterStore,
        _ => return EventKind::Malformed,
    };
    if event_service != service {
        // One queue can serve a store of the other service.
        return EventKind::Irrelevant;
    }
    let Some(detail) = event.get("detail").filter(|detail| detail.is_object()) else {
        return EventKind::Malformed;
    };
    let is_call = matches!(
        detail_type,
        "AWS API Call via CloudTrail" | "AWS Service Event via CloudTrail"
    );
    match (service, is_call) {
        (AwsService::SecretsManager, true) => secret_call(detail, prefix, at),
        (AwsService::ParameterStore, true) => parameter_call(detail, prefix),
        (AwsService::SecretsManager, false) if detail_type == "Secret Label Updated" => {
            let names = Names::of_secret(
                [
                    text(detail, &["name"]),
                    text(event, &["resources", "0"]).filter(|arn| is_arn(arn)),
                ],
                prefix,
            );
            let is_current = text(detail, &["labelUpdated"]) == Some(CURRENT);
            let version = text(detail, &["versionId"]).filter(|_| is_current);
            names.changed(version, at)
        }
        (AwsService::ParameterStore, false) if detail_type == "Parameter Store Change" => {
            let names = [
                text(detail, &["name"]),
                text(event, &["resources", "0"]).filter(|arn| is_arn(arn)),
            ];
            Names::of_parameters(names.into_iter().flatten(), prefix).changed(None, at)
        }
        // Other events of the same service, for example that a parameter's policy acted.
        _ => EventKind::Irrelevant,
    }
}

fn secret_call(detail: &Value, prefix: &str, at: Option<Timestamp>) -> EventKind {
    let Some(call) = text(detail, &["eventName"]) else {
        return EventKind::Malformed;
    };
    if !SECRET_CALLS.contains(&call) || detail.get("errorCode").is_some_and(|code| !code.is_null()) {
        return EventKind::Irrelevant;
    }
    let stages = detail.pointer("/requestParameters/versionStages");
    let has = |wanted: &str| {
        stages
            .and_then(Value::as_array)
            .is_some_and(|stages| stages.iter().any(|stage| stage.as_str() == Some(wanted)))
    };
    if call == "PutSecretValue" && has(PENDING) && !has(CURRENT) {
        // A rotation starts. Its end is another event.
        return EventKind::Irrelevant;
    }
    let names = Names::of_secret(
        [
            &["requestParameters", "secretId"][..],
            &["requestParameters", "name"],
            &["responseElements", "arn"],
            &["responseElements", "aRN"],
            &["responseElements", "name"],
            &["additionalEventData", "SecretId"],
        ]
        .map(|path| text(detail, path)),
        prefix,
    );
    let version = match call {
        "PutSecretValue" if stages.is_none_or(Value::is_null) || has(CURRENT) => {
            text(detail, &["responseElements", "versionId"])
        }
        "UpdateSecret" => text(detail, &["responseElements", "versionId"]),
        "UpdateSecretVersionStage"
            if text(detail, &["requestParameters", "versionStage"]) == Some(CURRENT) =>
        {
            text(detail, &["requestParameters", "moveToVersionId"])
        }
        _ => None,
    };
    names.changed(version, at)
}

fn parameter_call(detail: &Value, prefix: &str) -> EventKind {
    let Some(call) = text(detail, &["eventName"]) else {
        return EventKind::Malformed;
    };
    if !PARAMETER_CALLS.contains(&call) || detail.get("errorCode").is_some_and(|code| !code.is_null()) {
        return EventKind::Irrelevant;
    }
    let several = detail
        .pointer("/requestParameters/names")
        .and_then(Value::as_array);
    let several = several.into_iter().flatten().filter_map(Value::as_str);
    let one = ["name", "resourceId"].map(|field| text(detail, &["requestParameters", field]));
    Names::of_parameters(several.chain(one.into_iter().flatten()), prefix).changed(None, None)
}

/// Returns the text at a path of fields and indices.
fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    let mut at = value;
    for field in path {
        at = match at {
            Value::Array(items) => items.get(field.parse::<usize>().ok()?)?,
            other => other.get(field)?,
        };
    }
    at.as_str().filter(|text| !text.is_empty())
}

/// Every form in which a reference can name the changed value.
struct Names(Vec<String>);

impl Names {
    /// Returns the forms of a secret, from names and ARNs.
    fn of_secret<'a>(ids: impl IntoIterator<Item = Option<&'a str>>, prefix: &str) -> Self {
        let mut names = Self(Vec::new());
        for id in ids.into_iter().flatten() {
            if !is_arn(id) {
                names.name(id, prefix);
                continue;
            }
            names.add(id);
            let Some((_, name)) = id.split_once(":secret:") else {
                continue;
            };
            // An ARN that ends like a complete one is taken for one. With its suffix, the name would be
            // that of another secret, whose readers would notice when this one changes.
            let cut = |text: &'a str| {
                let (begin, end) = text.split_at_checked(text.len().checked_sub(SUFFIX)?)?;
                let suffix = end.strip_prefix('-')?;
                suffix
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric())
                    .then_some(begin)
            };
            match (cut(id), cut(name)) {
                (Some(arn), Some(name)) => {
                    names.add(arn);
                    names.name(name, prefix);
                }
                _ => names.name(name, prefix),
            }
        }
        names
    }

    /// Returns the forms of parameters, from names and ARNs.
    fn of_parameters<'a>(ids: impl IntoIterator<Item = &'a str>, prefix: &str) -> Self {
        let mut names = Self(Vec::new());
        for id in ids {
            if !is_arn(id) {
                names.name(id, prefix);
                continue;
            }
            names.add(id);
            if let Some((_, name)) = id.split_once(":parameter/") {
                // A name without a slash in it does not start with one.
                names.name(name, prefix);
                names.name(&format!("/{name}"), prefix);
            }
        }
        names
    }

    fn name(&mut self, name: &str, prefix: &str) {
        if let Some(key) = name.strip_prefix(prefix) {
            self.add(key);
        }
    }

    fn add(&mut self, key: &str) {
        if !key.is_empty() && !self.0.iter().any(|known| known == key) {
            self.0.push(key.to_owned());
        }
    }

    fn changed(self, version: Option<&str>, at: Option<Timestamp>) -> EventKind {
        match version {
            _ if self.0.is_empty() => EventKind::Irrelevant,
            Some(id) if is_version_id(id) => EventKind::VersionChanged(VersionHint {
                keys: self.0,
                version: format!("uuid/{id}@{CURRENT}"),
                read_version: format!("uuid/{id}"),
                at,
            }),
            // Anyone who can write to the queue may have sent another text.
            None | Some(_) => EventKind::Changed(self.0),
        }
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
