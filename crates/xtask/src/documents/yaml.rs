//! YAML on the pages: in blocks, here-documents and patches. Objects of lockstep are validated as
//! at admission.

use std::{fs, path::Path, process::Command};

use lockstep_testkit::{binaries, example::Expected};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::blocks::Block;

/// Problems that are right on a page: the page, part of the problem, and why.
const EXPECTED: [(&str, &str, &str); 1] = [(
    "docs/guides/ciphertext.md",
    "not sealed",
    "the page shows values before `lockstep seal`",
)];

/// Top-level fields of YAML that is only parsed, and what it is.
const ONLY_PARSED: [(&str, &str); 4] = [
    ("alert", "Prometheus rules: the workspace has no schema for them"),
    ("data", "part of a ConfigMap"),
    ("patches", "part of a kustomization"),
    ("resources", "part of a kustomization"),
];

/// Returns what is wrong with the YAML in blocks.
fn faults(blocks: &[Block]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut objects = Vec::new();
    for (place, text) in texts(blocks) {
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            let value = match Value::deserialize(document) {
                Ok(value) => value,
                Err(error) => {
                    faults.push(format!("{place}: not YAML: {error}"));
                    // the deserializer would return the same error forever
                    break;
                }
            };
            match object(value) {
                Ok(object) => objects.extend(object.map(|object| (place.clone(), object))),
                Err(fault) => faults.push(format!("{place}: {fault}")),
            }
        }
    }
    faults.extend(problems(&objects));
    faults
}

/// Returns the YAML in blocks with its place.
fn texts(blocks: &[Block]) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for block in blocks {
        let place = || block.place.clone();
        if block.language == "yaml" {
            texts.push((place(), block.text.clone()));
        } else if let Some(Ok(script)) = block.script() {
            let words = script.commands.into_iter().flatten();
            let patches = words.filter(|word| word.contains("\nspec:"));
            let documents = script.documents.into_iter().chain(patches);
            let with_address = |text: String| text.replace("$VAULT_ADDR", "https://vault.example.org");
            texts.extend(documents.map(|text| (place(), with_address(text))));
        }
    }
    texts
}

/// Returns the object of lockstep that a document contains.
fn object(value: Value) -> Result<Option<Value>, String> {
    let has = |field: &str| !value[field].is_null();
    let version = value["apiVersion"].as_str().unwrap_or_default();
    if value["objects"].is_array() {
        let expected = serde_json::from_value::<Expected>(value).map(|_| None);
        return expected.map_err(|error| format!("not an expected.yaml: {error}"));
    }
    if has("kind") && (version.is_empty() || value["metadata"]["name"].is_null()) {
        return Err("no apiVersion or no name".to_owned());
    }
    if version.starts_with("lockstep.dev/") || has("spec") && !has("kind") {
        return Ok(Some(complete(value)));
    }
    let first = value.get(0).unwrap_or(&value);
    let is_known = has("kind") || ONLY_PARSED.iter().any(|(field, _)| first.get(field).is_some());
    if is_known {
        Ok(None)
    } else {
        Err("YAML without a kind".to_owned())
    }
}

/// Completes part of an object: kind, name, and required fields that it leaves out.
fn complete(mut value: Value) -> Value {
    if value["kind"].is_null() {
        let spec = &value["spec"];
        let (kind, mut whole) = if spec.get("access").is_some() {
            (
                "ClusterSecretStore",
                json!({ "provider": { "file": { "path": "a" } } }),
            )
        } else if spec["provider"]["vault"].is_object() {
            let vault = json!({ "server": "https://vault.example.org", "path": "secret" });
            ("SecretStore", json!({ "provider": { "vault": vault } }))
        } else if spec.get("provider").is_some() {
            ("SecretStore", json!({}))
        } else {
            let mut whole = json!({ "secretStoreRef": { "name": "vault" } });
            if spec.get("dataFrom").is_none() {
                whole["data"] = json!([{ "secretKey": "a", "remoteRef": { "key": "a" } }]);
            }
            ("SyncedSecret", whole)
        };
        merge(&mut whole, spec);
        value = json!({ "apiVersion": "lockstep.dev/v1alpha1", "kind": kind, "spec": whole });
    }
    value
}

fn merge(whole: &mut Value, part: &Value) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (name, value) in part {
                merge(whole.entry(name).or_insert(Value::Null), value);
            }
        }
        (whole, part) => *whole = part.clone(),
    }
}

/// Returns what `lockstep plan` finds wrong with objects: it validates them as the API server does.
fn problems(objects: &[(String, Value)]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    for (number, (_, object)) in objects.iter().enumerate() {
        let mut object = object.clone();
        object["metadata"]["name"] = json!(format!("object-{number}"));
        let text = serde_yaml_ng::to_string(&object).unwrap();
        fs::write(folder.path().join(format!("{number}.yaml")), text).unwrap();
    }
    let output = Command::new(binaries::lockstep().unwrap())
        .args(["plan", "--output", "json", "-f"])
        .arg(folder.path())
        .output()
        .unwrap();
    let result: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let problems = result["problems"].as_array().unwrap().iter();
    problems
        .map(|problem| {
            let file = Path::new(problem["file"].as_str().unwrap()).file_stem().unwrap();
            let number: usize = file.to_str().unwrap().parse().unwrap();
            format!("{}: {}", objects[number].0, problem["message"])
        })
        .collect()
}

#[test]
fn every_yaml_block_is_valid() {
    let mut faults = faults(&Block::all());
    for (page, part, _) in EXPECTED {
        let before = faults.len();
        faults.retain(|fault| !(fault.starts_with(page) && fault.contains(part)));
        assert!(faults.len() < before, "{page}: no problem \"{part}\"");
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn invalid_yaml_is_reported_with_its_place() {
    let page = "
```yaml
spec: { rotation: { maxAgee: 90d } }
```

    kubectl apply -f - <<EOF
    apiVersion: lockstep.dev/v1alpha1
    kind: SecretStore
    metadata: { name: a }
    spec: {}
    EOF

```yaml
a: [
```

```yaml
unknown: true
```

```yaml
objects: []
secret: []
```
";
    let found = faults(&Block::of_page(Path::new("page.md"), page));
    for expected in [
        "page.md:2: \"spec.rotation.maxAgee: unknown field",
        "page.md:6: \"spec.provider: required",
        "page.md:13: not YAML",
        "page.md:17: YAML without a kind",
        "page.md:21: not an expected.yaml",
    ] {
        let is_found = found.iter().any(|fault| fault.starts_with(expected));
        assert!(is_found, "{expected} is not in {found:#?}");
    }
    assert_eq!(found.len(), 5, "{found:#?}");
}
