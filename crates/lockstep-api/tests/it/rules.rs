//! The rules of the CRDs, without a cluster: every row of `tests/data/rules.yaml`, and no rule without a row.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use lockstep_api::{ClusterSecretStore, SecretStore, SyncedSecret, crd};
use regex::Regex;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    kind: String,
    spec: Value,
    refused: Option<String>,
    #[serde(default)]
    schema: bool,
    #[serde(default)]
    pattern: bool,
}

fn rows() -> Vec<Row> {
    serde_yaml_ng::from_str(include_str!("../data/rules.yaml")).expect("the table")
}

fn validate(row: &Row) -> Result<(), String> {
    let object = json!({ "metadata": { "name": "a" }, "spec": row.spec });
    let told = |error: serde_json::Error| error.to_string();
    match row.kind.as_str() {
        "SyncedSecret" => crd::validate::<SyncedSecret>(&serde_json::from_value(object).map_err(told)?),
        "SecretStore" => crd::validate::<SecretStore>(&serde_json::from_value(object).map_err(told)?),
        _ => crd::validate::<ClusterSecretStore>(&serde_json::from_value(object).map_err(told)?),
    }
    .map_err(|errors| errors.join("; "))
}

/// The fields of a row that do not match the pattern or the length of the schema.
fn misfits(schemas: &BTreeMap<String, Value>, row: &Row) -> Vec<String> {
    let mut found = Vec::new();
    add_misfits(&schemas[&row.kind], &row.spec, "spec", &mut found);
    found
}

/// The schemas of the specs, by kind.
fn schemas() -> BTreeMap<String, Value> {
    let spec = |crd: CustomResourceDefinition| {
        let mut schema = serde_json::to_value(&crd.spec.versions[0].schema).expect("JSON");
        let spec = schema["openAPIV3Schema"]["properties"]["spec"].take();
        (crd.spec.names.kind, spec)
    };
    crd::all().into_iter().map(spec).collect()
}

fn add_misfits(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                add_misfits(
                    &schema["properties"][name],
                    value,
                    &format!("{path}.{name}"),
                    found,
                );
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                add_misfits(&schema["items"], item, &format!("{path}[{index}]"), found);
            }
        }
        Value::String(text) => {
            let pattern = schema["pattern"].as_str();
            let matches =
                pattern.is_none_or(|pattern| Regex::new(pattern).expect("a pattern").is_match(text));
            let longest = schema["maxLength"].as_u64().unwrap_or(u64::MAX);
            if !matches || text.chars().count() as u64 > longest {
                found.push(path.to_owned());
            }
        }
        _ => {}
    }
}

/// Fields that are called like a name and are none of an object in Kubernetes.
const OTHER_NAMES: [&str; 1] = ["spec.provider.gcp.auth.workloadIdentity.clusterName"];

fn unbounded_names(schema: &Value, path: &str, found: &mut Vec<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let names_object = ["name", "cronJob", "service"].contains(&&**name) && field["type"] == "string";
        let bounded = field["pattern"].is_string() && field["maxLength"].is_u64() || field["enum"].is_array();
        if names_object && !bounded && !OTHER_NAMES.contains(&&*path) {
            found.push(path.clone());
        }
        unbounded_names(field, &path, found);
    }
    if schema["items"].is_object() {
        unbounded_names(&schema["items"], &format!("{path}[]"), found);
    }
}

#[test]
fn every_object_name_has_a_pattern_and_a_maximum_length() {
    for (kind, schema) in schemas() {
        let mut found = Vec::new();
        unbounded_names(&schema, "spec", &mut found);
        assert!(found.is_empty(), "{kind}: {found:#?}");
    }
}

#[test]
fn every_row_is_accepted_or_rejected_as_listed() {
    let schemas = schemas();
    for row in rows() {
        if row.pattern {
            let wanted = row.refused.as_deref().expect("what is refused");
            assert_eq!(misfits(&schemas, &row), [wanted], "{}", row.name);
            continue;
        }
        assert_eq!(misfits(&schemas, &row), Vec::<String>::new(), "{}", row.name);
        match (&row.refused, validate(&row)) {
            (None, result) => assert_eq!(result, Ok(()), "{}", row.name),
            (Some(_), Err(_)) if row.schema => {}
            (Some(wanted), Err(message)) => assert!(message.contains(wanted), "{}: {message}", row.name),
            (Some(_), Ok(())) => panic!("{}: it was taken", row.name),
        }
    }
}

fn messages(schema: &Value, found: &mut BTreeSet<String>) {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        found.insert(
            rule["message"]
                .as_str()
                .expect("each rule has a message")
                .to_owned(),
        );
    }
    for field in schema["properties"]
        .as_object()
        .into_iter()
        .flat_map(|fields| fields.values())
    {
        messages(field, found);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            messages(&schema[inner], found);
        }
    }
}

#[test]
fn every_rule_rejects_at_least_one_row() {
    for crd in crd::all() {
        let kind = crd.spec.names.kind.clone();
        let mut rules = BTreeSet::new();
        messages(
            &serde_json::to_value(&crd.spec.versions[0].schema).expect("JSON")["openAPIV3Schema"],
            &mut rules,
        );
        assert!(!rules.is_empty(), "{kind} has rules");
        for row in rows().into_iter().filter(|row| row.kind == kind && !row.schema) {
            if let Some(refused) = row.refused {
                rules.remove(&refused);
            }
        }
        assert!(rules.is_empty(), "rules of {kind} that no row meets: {rules:#?}");
    }
}
