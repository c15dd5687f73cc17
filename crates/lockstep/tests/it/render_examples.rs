//! Every folder of `examples/` through `lockstep render`, against its `expected.yaml`.

use std::{collections::BTreeMap, fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{example, examples, lockstep};

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn key(object: &Value) -> (String, String) {
    let of = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    (of("namespace"), of("name"))
}

fn render(folder: &Path, show_values: bool) -> (i32, Value, Vec<u8>) {
    let (manifests, values) = (folder.join("manifests.yaml"), folder.join("values"));
    let mut arguments = vec![
        "render",
        "--output",
        "json",
        "-f",
        manifests.to_str().expect("UTF-8"),
    ];
    arguments.extend(["--values", values.to_str().expect("UTF-8")]);
    if show_values {
        arguments.push("--show-values");
    }
    let output = lockstep(&arguments).get_output().clone();
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "{}: {error}: {}",
            folder.display(),
            String::from_utf8_lossy(&output.stderr)
        )
    });
    (
        output.status.code().expect("an exit code"),
        json,
        [output.stdout, output.stderr].concat(),
    )
}

/// The data that `expected.yaml` lists for a Secret, compared with what was rendered.
fn compare(folder: &str, expected: &Value, made: &Value) {
    let place = format!("{folder}: Secret {}", expected["name"]);
    let data: BTreeMap<String, Vec<u8>> = made["data"]
        .as_object()
        .expect("data")
        .iter()
        .map(|(key, value)| {
            (
                key.clone(),
                STANDARD.decode(value.as_str().expect("text")).expect("base64"),
            )
        })
        .collect();
    let mut wanted = Vec::new();
    for (form, fields) in ["data", "base64", "json"].map(|form| (form, expected[form].as_object())) {
        for (key, value) in fields.into_iter().flatten() {
            wanted.push(key.clone());
            let bytes = data
                .get(key)
                .unwrap_or_else(|| panic!("{place}: {key} is missing"));
            let same = match form {
                "json" => {
                    let wanted = value.as_str().map_or_else(
                        || value.clone(),
                        |text| serde_json::from_str(text).unwrap_or_else(|_| value.clone()),
                    );
                    serde_json::from_slice::<Value>(bytes).is_ok_and(|json| json == wanted)
                }
                "base64" => STANDARD.decode(value.as_str().expect("text")).expect("base64") == *bytes,
                _ => value.as_str().expect("text").as_bytes() == bytes.as_slice(),
            };
            assert!(
                same,
                "{place}: {key} is {:?}, and not {value}",
                String::from_utf8_lossy(bytes)
            );
        }
    }
    wanted.sort();
    assert_eq!(
        data.keys().collect::<Vec<_>>(),
        wanted.iter().collect::<Vec<_>>(),
        "{place}"
    );
    if let Some(kind) = expected["type"].as_str() {
        assert_eq!(made["type"].as_str().unwrap_or("Opaque"), kind, "{place}: type");
    }
    for field in ["labels", "annotations"] {
        for (key, value) in expected[field].as_object().into_iter().flatten() {
            assert_eq!(made["metadata"][field][key], *value, "{place}: {field} {key}");
        }
    }
}

#[test]
fn every_example_renders_what_it_promises() {
    let mut seen = 0;
    for folder in examples() {
        let name = folder.display().to_string();
        let expected: Value = serde_yaml_ng::from_str(&read(&folder.join("expected.yaml"))).expect("YAML");
        if expected["render"] == false {
            continue;
        }
        seen += 1;
        let (code, document, _) = render(&folder, true);
        assert_eq!(document["problems"], serde_json::json!([]), "{name}");
        let results: BTreeMap<_, _> = document["results"]
            .as_array()
            .expect("results")
            .iter()
            .map(|result| (key(result), result))
            .collect();
        let mut fails = false;
        for object in expected["objects"].as_array().into_iter().flatten() {
            if object["kind"] != "SyncedSecret" {
                continue;
            }
            let result = results
                .get(&key(object))
                .unwrap_or_else(|| panic!("{name}: {object} is missing"));
            if object["ready"] == "True" {
                assert_ne!(result["outcome"], "Failed", "{name}: {result}");
            } else {
                fails = true;
                assert_eq!(result["outcome"], "Failed", "{name}: {}", object["name"]);
                assert_eq!(result["reason"], object["reason"], "{name}: {}", object["name"]);
            }
        }
        assert_eq!(code, i32::from(fails), "{name}: exit code");
        let made: BTreeMap<_, _> = results
            .values()
            .filter(|result| result["secret"].is_object())
            .map(|result| (key(&result["secret"]["metadata"]), &result["secret"]))
            .collect();
        for secret in expected["secrets"].as_array().into_iter().flatten() {
            let merged = ["foreign", "unmanaged"]
                .iter()
                .any(|word| secret["name"] == **word);
            match made.get(&key(secret)) {
                Some(made) if made["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "lockstep" => {
                    compare(&name, secret, made);
                }
                // what somebody else wrote is in the cluster only
                Some(_) => {}
                None => assert!(merged, "{name}: Secret {} was not rendered", secret["name"]),
            }
        }
    }
    assert!(seen > 20, "only {seen} examples were found");
}

#[test]
fn no_value_of_an_example_is_shown_unless_asked_for() {
    let folder = example("getting-started/quickstart");
    let (code, document, everything) = render(&folder, false);
    assert_eq!(code, 0);
    let shown = String::from_utf8(everything).expect("UTF-8");
    for value in ["correct", "battery"] {
        assert!(
            !shown.contains(value) && !shown.contains(&STANDARD.encode(value)),
            "{shown}"
        );
    }
    let password = &document["results"][0]["secret"]["data"]["password"];
    assert_eq!(password, "●●●●●●●● (21 bytes)");
}
