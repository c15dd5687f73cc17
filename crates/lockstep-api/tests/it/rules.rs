//! The rules of the CRDs, without a cluster: every row of `tests/data/rules.yaml`, and no rule without a row.

use std::collections::BTreeSet;

use lockstep_api::{ClusterSecretStore, SecretStore, SyncedSecret, crd};
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

#[test]
fn every_row_is_taken_or_refused_as_it_says() {
    for row in rows() {
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
fn every_rule_refuses_a_row() {
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
