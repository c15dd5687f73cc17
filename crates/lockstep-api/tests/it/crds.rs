//! The CustomResourceDefinitions themselves.

use std::path::Path;

use jiff::Timestamp;
use lockstep_api::crd::TIMES;
use regex::Regex;
use serde_json::Value;

/// Client-side `kubectl apply` keeps the whole object in an annotation, and annotations may have 256 KiB together.
const MAX_BYTES: usize = 100_000;

fn schemas() -> Vec<(String, Value)> {
    lockstep_api::crd::all()
        .into_iter()
        .map(|crd| {
            let kind = crd.spec.names.kind.clone();
            let schema = crd.spec.versions[0]
                .schema
                .as_ref()
                .and_then(|schema| schema.open_api_v3_schema.as_ref());
            (
                kind,
                serde_json::to_value(schema.expect("a schema")).expect("JSON"),
            )
        })
        .collect()
}

fn undescribed(schema: &Value, path: &str, missing: &mut Vec<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let described = field["description"]
            .as_str()
            .is_some_and(|text| !text.trim().is_empty());
        if !described {
            missing.push(path.clone());
        }
        undescribed(field, &path, missing);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            undescribed(&schema[inner], &format!("{path}[]"), missing);
        }
    }
}

#[test]
fn every_field_has_a_description() {
    let mut missing = Vec::new();
    for (kind, schema) in schemas() {
        undescribed(
            &schema["properties"]["spec"],
            &format!("{kind}.spec"),
            &mut missing,
        );
        undescribed(
            &schema["properties"]["status"],
            &format!("{kind}.status"),
            &mut missing,
        );
    }
    assert!(missing.is_empty(), "fields without a description: {missing:#?}");
}

fn times<'a>(schema: &'a Value, path: &str, found: &mut Vec<(String, &'a Value)>) {
    if schema["format"] == "date-time" {
        found.push((path.to_owned(), schema));
    }
    // also finds the keywords that no CRD uses yet, such as anyOf
    match schema {
        Value::Object(inner) => {
            for (name, inner) in inner {
                times(inner, &format!("{path}.{name}"), found);
            }
        }
        Value::Array(inner) => inner.iter().for_each(|inner| times(inner, path, found)),
        _ => {}
    }
}

#[test]
fn every_time_admits_only_times_that_can_be_read() {
    let written = [*TIMES.start(), *TIMES.end()].map(|time| time.to_string());
    let others = [
        "9999-12-31T23:59:59-23:59",
        "2026-01-01T00:00:00+00:00",
        "2026-01-01T00:00:00.0000000001Z",
        "2026-01-01t00:00:00z",
        "0999-12-31T23:59:59Z",
        "3000-01-01T00:00:00Z",
    ];
    for (kind, schema) in schemas() {
        let mut found = Vec::new();
        times(&schema, &kind, &mut found);
        assert!(!found.is_empty(), "{kind} has times");
        for (path, schema) in found {
            let pattern = schema["pattern"].as_str();
            let pattern = Regex::new(pattern.unwrap_or_else(|| panic!("{path} has no pattern"))).unwrap();
            for time in &written {
                assert!(pattern.is_match(time), "{path}: {time}");
                assert!(schema["maxLength"].as_u64() >= Some(time.len() as u64), "{path}");
                assert_eq!(time.parse::<Timestamp>().unwrap().to_string(), *time);
            }
            for time in others {
                assert!(!pattern.is_match(time), "{path}: {time}");
            }
        }
    }
}

#[test]
fn every_crd_is_small_enough_for_client_side_apply() {
    for crd in lockstep_api::crd::all() {
        let bytes = serde_json::to_vec(&crd).expect("JSON").len();
        assert!(bytes < MAX_BYTES, "{} has {bytes} bytes", crd.spec.names.kind);
    }
}

#[test]
fn names_categories_and_columns_match_the_documentation() {
    let told: Vec<_> = lockstep_api::crd::all()
        .into_iter()
        .map(|crd| {
            let columns = crd.spec.versions[0]
                .additional_printer_columns
                .clone()
                .unwrap_or_default();
            assert!(
                columns.iter().any(|column| column.name == "Ready"),
                "{}",
                crd.spec.names.kind
            );
            assert_eq!(crd.spec.names.categories, Some(vec!["lockstep".to_owned()]));
            (
                crd.spec.names.kind,
                crd.spec.scope,
                crd.spec.names.short_names.unwrap_or_default().join(","),
            )
        })
        .collect();
    let told: Vec<_> = told
        .iter()
        .map(|(kind, scope, short)| (kind.as_str(), scope.as_str(), short.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("ClusterSecretStore", "Cluster", "cssto"),
            ("SecretStore", "Namespaced", "ssto"),
            ("SyncedSecret", "Namespaced", "sysec"),
        ]
    );
}

#[test]
fn printer_columns_are_as_documented() {
    for crd in lockstep_api::crd::all() {
        let columns = crd.spec.versions[0].additional_printer_columns.clone();
        let columns: Vec<_> = columns
            .unwrap_or_default()
            .into_iter()
            .map(|column| column.name)
            .collect();
        let wanted = match crd.spec.names.kind.as_str() {
            "SyncedSecret" => vec!["Store", "Ready", "Reason", "Last change", "Rotation", "Age"],
            _ => vec!["Ready", "Reason", "Age"],
        };
        assert_eq!(columns, wanted, "{}", crd.spec.names.kind);
    }
}

#[test]
fn crds_folder_matches_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds");
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("crds/") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a file");
        let document: Value = serde_yaml_ng::from_str(&text).expect("YAML");
        if document["kind"] == "CustomResourceDefinition" {
            kept.push(document);
        }
    }
    let made: Vec<_> = lockstep_api::crd::all()
        .iter()
        .map(|crd| serde_json::to_value(crd).expect("JSON"))
        .collect();
    assert_eq!(kept.len(), made.len());
    for crd in made {
        assert!(
            kept.contains(&crd),
            "{} is not as generated: cargo xtask generate",
            crd["metadata"]["name"]
        );
    }
}
