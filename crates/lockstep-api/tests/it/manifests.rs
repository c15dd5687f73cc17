//! The types against the manifests of `examples/`: nothing that they say is lost.

use std::{
    fs,
    path::{Path, PathBuf},
};

use lockstep_api::{ClusterSecretStore, SecretStore, SyncedSecret};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Whether everything in `part` is in `whole` too.
fn is_within(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part.iter().all(|(key, value)| match whole.get(key) {
            Some(other) => is_within(value, other),
            // a default may be left out
            None => [Value::Null, Value::Bool(false)].contains(value),
        }),
        (Value::Array(part), Value::Array(whole)) => {
            part.len() == whole.len() && part.iter().zip(whole).all(|(part, whole)| is_within(part, whole))
        }
        _ => part == whole,
    }
}

fn there_and_back<K: DeserializeOwned + Serialize>(value: &Value, place: &str) {
    let object: K = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{place}: {error}"));
    let back = serde_json::to_value(object).expect("JSON");
    assert!(
        is_within(&value["spec"], &back["spec"]),
        "{place}: {} became {}",
        value["spec"],
        back["spec"]
    );
}

/// Adds every `manifests.yaml` below a folder.
fn add_manifests(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            add_manifests(&path, found);
        } else if path.ends_with("manifests.yaml") {
            found.push(path);
        }
    }
}

#[test]
fn every_field_of_an_example_survives_parsing() {
    let mut files = Vec::new();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    add_manifests(&examples, &mut files);
    let mut seen = 0;
    for path in files {
        let text = fs::read_to_string(&path).expect("a file");
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            let value = Value::deserialize(document).expect("YAML");
            let place = format!("{}: {}", path.display(), value["metadata"]["name"]);
            seen += 1;
            match value["kind"].as_str() {
                Some("SyncedSecret") => there_and_back::<SyncedSecret>(&value, &place),
                Some("SecretStore") => there_and_back::<SecretStore>(&value, &place),
                Some("ClusterSecretStore") => there_and_back::<ClusterSecretStore>(&value, &place),
                _ => {}
            }
        }
    }
    assert!(seen > 50, "only {seen} documents were found");
}
