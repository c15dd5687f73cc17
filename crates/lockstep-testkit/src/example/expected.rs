//! Types of `expected.yaml`. `examples/expected.schema.json` is generated from them, with their
//! descriptions.

use std::collections::BTreeMap;

use lockstep_api::{ConditionStatus, Reason, aws::AwsService, rollout::RolloutPhase};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema, schema_for};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

/// What to prepare for an example, and its expected result.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "expected.yaml of an example")]
pub struct Expected {
    /// vault lists requests that prepare Vault. They are sent in order, after those of
    /// `_shared/vault/setup.yaml` and after `values/` is written.
    #[serde(default)]
    pub vault: Vec<Request>,
    /// files is the folder below `--file-root` that `values/` is copied to. Without `files`, `aws`
    /// and `gcp`, `values/` is written to Vault.
    pub files: Option<String>,
    /// aws is the service of AWS that `values/` is written to.
    pub aws: Option<AwsSource>,
    /// gcp writes `values/` to Google Secret Manager.
    pub gcp: Option<GcpSource>,
    /// render is false if `lockstep render` cannot show this example. Defaults to true.
    #[serde(default = "yes")]
    pub render: bool,
    /// objects are the objects of lockstep after the manifests are applied.
    pub objects: Vec<ExpectedObject>,
    /// secrets exist after the manifests are applied.
    #[serde(default)]
    pub secrets: Vec<ExpectedSecret>,
    /// absent lists Secrets that do not exist after the manifests are applied.
    #[serde(default)]
    pub absent: Vec<SecretName>,
    /// then lists the next steps, in order.
    #[serde(default)]
    pub then: Vec<Step>,
}

/// A request that prepares Vault.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// path is the path below `/v1/`. The method is `POST`.
    pub path: String,
    /// body is the JSON to send.
    pub body: Value,
}

/// A service of AWS that holds the values, and who may read them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsSource {
    /// service is where the values are written.
    pub service: AwsService,
    /// prefix is written before each name.
    #[serde(default)]
    pub prefix: String,
    /// tags are the tags of each value, by key.
    #[serde(default)]
    pub tags: BTreeMap<String, BTreeMap<String, String>>,
    /// trust maps ServiceAccounts (`system:serviceaccount:NAMESPACE:NAME`) to the role that trusts
    /// their tokens.
    #[serde(default)]
    pub trust: BTreeMap<String, String>,
}

/// Labels of the values in Google Secret Manager, and who may read them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GcpSource {
    /// labels are the labels of each value, by key.
    #[serde(default)]
    pub labels: BTreeMap<String, BTreeMap<String, String>>,
    /// trust lists ServiceAccounts (`system:serviceaccount:NAMESPACE:NAME`) whose tokens the pool
    /// trusts.
    #[serde(default)]
    pub trust: Vec<String>,
}

/// A change, and the state that it leads to. Changes are made in the order of these fields.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// what describes the step.
    pub what: String,
    /// write sets values in the store, by key.
    #[serde(default)]
    pub write: BTreeMap<String, Value>,
    /// delete lists keys to delete in the store.
    #[serde(default)]
    pub delete: Vec<String>,
    /// notify lists keys for which the service sends its event.
    #[serde(default)]
    pub notify: Vec<String>,
    /// patch merges into the specs of objects.
    #[serde(default)]
    pub patch: Vec<SpecPatch>,
    /// refresh lists SyncedSecrets (`NAMESPACE/NAME`) whose annotation `lockstep.dev/refresh` gets
    /// a new value.
    #[serde(default)]
    pub refresh: Vec<String>,
    /// objects are the objects of lockstep after the step.
    #[serde(default)]
    pub objects: Vec<ExpectedObject>,
    /// secrets exist after the step.
    #[serde(default)]
    pub secrets: Vec<ExpectedSecret>,
    /// absent lists Secrets that do not exist after the step.
    #[serde(default)]
    pub absent: Vec<SecretName>,
}

/// An object of lockstep, and its status for the newest generation.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedObject {
    /// kind is the kind of the object.
    pub kind: Kind,
    /// namespace is empty for a ClusterSecretStore.
    pub namespace: Option<String>,
    /// name is the name of the object.
    pub name: String,
    /// ready is the status of the condition `Ready`. Quote it.
    pub ready: ConditionStatus,
    /// reason is the reason of the condition `Ready`.
    #[serde(deserialize_with = "reason")]
    #[schemars(schema_with = "reasons")]
    pub reason: Reason,
    /// rollout is the phase of the rollout. The pods of workloads are simulated and become ready.
    pub rollout: Option<RolloutPhase>,
}

/// A kind of lockstep.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub enum Kind {
    /// One Secret, and what it is made from.
    SyncedSecret,
    /// A store of one namespace.
    SecretStore,
    /// A store for several namespaces.
    ClusterSecretStore,
}

/// A Secret that exists. `data`, `base64` and `json` together are all of its keys.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedSecret {
    /// namespace is the namespace of the Secret.
    pub namespace: String,
    /// name is the name of the Secret.
    pub name: String,
    /// type is the type of the Secret. It is not compared by default.
    pub r#type: Option<String>,
    /// immutable is not compared by default.
    pub immutable: Option<bool>,
    /// labels must exist. Others are ignored.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// annotations must exist. Others are ignored.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// data contains keys whose values are text.
    #[serde(default)]
    pub data: BTreeMap<String, String>,
    /// base64 contains keys whose values are bytes.
    #[serde(default)]
    pub base64: BTreeMap<String, String>,
    /// json contains keys whose values are compared as JSON.
    #[serde(default)]
    pub json: BTreeMap<String, Value>,
}

/// The name of a Secret.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretName {
    /// namespace is the namespace of the Secret.
    pub namespace: String,
    /// name is the name of the Secret.
    pub name: String,
}

/// A merge patch of an object's spec.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpecPatch {
    /// kind is the kind of the object.
    pub kind: Kind,
    /// namespace is the namespace of the object.
    pub namespace: String,
    /// name is the name of the object.
    pub name: String,
    /// spec is merged into the spec of the object.
    pub spec: Value,
}

impl Expected {
    /// Returns the JSON schema of `expected.yaml`.
    #[must_use]
    pub fn schema() -> Schema {
        schema_for!(Self)
    }
}

impl Kind {
    /// Returns the kind as in YAML.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SyncedSecret => "SyncedSecret",
            Self::SecretStore => "SecretStore",
            Self::ClusterSecretStore => "ClusterSecretStore",
        }
    }
}

const fn yes() -> bool {
    true
}

fn reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Reason, D::Error> {
    let text = String::deserialize(deserializer)?;
    let known = Reason::ALL.iter().find(|reason| reason.as_str() == text);
    known
        .copied()
        .ok_or_else(|| D::Error::custom(format!("unknown reason \"{text}\"")))
}

fn reasons(_: &mut SchemaGenerator) -> Schema {
    let names: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    json_schema!({ "type": "string", "enum": names })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example;

    #[test]
    fn every_expected_yaml_has_the_form_of_the_types() {
        for folder in example::folders().unwrap() {
            if let Err(error) = example::expected(&folder) {
                panic!("{}: {error:#}", example::name(&folder));
            }
        }
    }

    #[test]
    fn unknown_fields_and_reasons_are_rejected() {
        for (text, message) in [
            ("{ objects: [], secret: [] }", "unknown field `secret`"),
            (
                "objects: [{ kind: SecretStore, name: a, ready: 'True', reason: Fine }]",
                "unknown reason \"Fine\"",
            ),
        ] {
            let error = serde_yaml_ng::from_str::<Expected>(text).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn every_field_of_the_schema_has_a_description() {
        fn undescribed(path: &str, schema: &Value, found: &mut Vec<String>) {
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                if field["description"].is_null() {
                    found.push(format!("{path}.{name}"));
                }
            }
            for (name, definition) in schema["$defs"].as_object().into_iter().flatten() {
                undescribed(name, definition, found);
            }
        }
        let mut found = Vec::new();
        undescribed("", Expected::schema().as_value(), &mut found);
        assert!(found.is_empty(), "without a description: {found:?}");
    }
}
