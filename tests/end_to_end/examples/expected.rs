//! What `expected.yaml` of an example says, as examples/README.md explains it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::api::core::v1::Secret;
use kube::core::DynamicObject;
use lockstep_testkit::example::Request;
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Example {
    #[serde(default)]
    pub(super) vault: Vec<Request>,
    pub(super) files: Option<String>,
    pub(super) aws: Option<AwsSource>,
    pub(super) gcp: Option<GcpSource>,
    #[serde(default, rename = "render")]
    _render: Option<bool>,
    pub(super) objects: Vec<ExpectedObject>,
    #[serde(default)]
    pub(super) secrets: Vec<ExpectedSecret>,
    #[serde(default)]
    pub(super) absent: Vec<Named>,
    #[serde(default)]
    pub(super) then: Vec<Step>,
}

/// The service of AWS that holds the values, and who may read them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AwsSource {
    pub(super) service: String,
    /// What names begin with.
    #[serde(default)]
    pub(super) prefix: String,
    /// Tags by key.
    #[serde(default)]
    pub(super) tags: BTreeMap<String, BTreeMap<String, String>>,
    /// Roles by the ServiceAccounts that they trust.
    #[serde(default)]
    pub(super) trust: BTreeMap<String, String>,
}

/// That Google holds the values, and who may read them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GcpSource {
    /// Labels by key.
    #[serde(default)]
    pub(super) labels: BTreeMap<String, BTreeMap<String, String>>,
    /// The ServiceAccounts whose tokens the pool trusts.
    #[serde(default)]
    pub(super) trust: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    pub(super) what: String,
    #[serde(default)]
    pub(super) write: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) delete: Vec<String>,
    #[serde(default)]
    pub(super) tell: Vec<String>,
    #[serde(default)]
    pub(super) patch: Vec<Change>,
    #[serde(default)]
    pub(super) refresh: Vec<String>,
    #[serde(default)]
    pub(super) objects: Vec<ExpectedObject>,
    #[serde(default)]
    pub(super) secrets: Vec<ExpectedSecret>,
    #[serde(default)]
    pub(super) absent: Vec<Named>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectedObject {
    pub(super) kind: String,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) ready: String,
    pub(super) reason: String,
    pub(super) rollout: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectedSecret {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) r#type: Option<String>,
    pub(super) immutable: Option<bool>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) data: BTreeMap<String, String>,
    #[serde(default)]
    base64: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) json: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    pub(super) namespace: String,
    pub(super) name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) spec: Value,
}

impl ExpectedObject {
    /// Whether the status of an object says so of its newest generation.
    pub(super) fn compare(&self, object: &DynamicObject) -> Result<()> {
        let status = &object.data["status"];
        ensure!(
            status["observedGeneration"].as_i64() == object.metadata.generation,
            "{} {} was not looked at yet",
            self.kind,
            self.name
        );
        let ready = status["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == "Ready");
        let ready = ready.with_context(|| format!("{} {} has no Ready", self.kind, self.name))?;
        ensure!(
            ready["status"] == *self.ready && ready["reason"] == *self.reason,
            "{} {} is {ready}",
            self.kind,
            self.name
        );
        if let Some(expected) = &self.rollout {
            let phase = &status["rotation"]["rollout"]["phase"];
            ensure!(
                phase == expected.as_str(),
                "the rollout of {} is {phase}",
                self.name
            );
        }
        Ok(())
    }
}

/// Whether a Secret is as expected, with no key more.
pub(super) fn compare_secret(expected: &ExpectedSecret, secret: &Secret) -> Result<()> {
    let data = secret.data.clone().unwrap_or_default();
    let keys = expected
        .data
        .keys()
        .chain(expected.base64.keys())
        .chain(expected.json.keys());
    let mut keys: Vec<_> = keys.collect();
    keys.sort();
    ensure!(
        keys == data.keys().collect::<Vec<_>>(),
        "has the keys {:?}",
        data.keys().collect::<Vec<_>>()
    );
    for (key, bytes) in &data {
        let same = if let Some(text) = expected.data.get(key) {
            text.as_bytes() == bytes.0.as_slice()
        } else if let Some(text) = expected.base64.get(key) {
            BASE64_STANDARD.decode(text)? == bytes.0
        } else {
            serde_json::from_slice::<Value>(&bytes.0)
                .is_ok_and(|value| expected.json.get(key) == Some(&value))
        };
        ensure!(same, "{key} is {:?}", String::from_utf8_lossy(&bytes.0));
    }
    if let Some(wanted) = &expected.r#type {
        ensure!(
            secret.type_.as_ref() == Some(wanted),
            "is of type {:?}",
            secret.type_
        );
    }
    if let Some(wanted) = expected.immutable {
        ensure!(
            secret.immutable.unwrap_or_default() == wanted,
            "immutable is {:?}",
            secret.immutable
        );
    }
    let pairs = [
        (&expected.labels, &secret.metadata.labels),
        (&expected.annotations, &secret.metadata.annotations),
    ];
    for (expected, there) in pairs {
        for (key, value) in expected {
            let found = there.as_ref().and_then(|there| there.get(key));
            ensure!(found == Some(value), "{key} is {found:?}");
        }
    }
    Ok(())
}
