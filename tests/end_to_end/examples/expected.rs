//! Compares objects with the `expected.yaml` of an example.

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::api::core::v1::Secret;
use kube::core::DynamicObject;
use lockstep_testkit::example::{ExpectedObject, ExpectedSecret};
use serde_json::{Value, json};

/// Checks the status of an object for its newest generation.
pub(super) fn compare_object(expected: &ExpectedObject, object: &DynamicObject) -> Result<()> {
    let name = format!("{} {}", expected.kind.as_str(), expected.name);
    let status = &object.data["status"];
    ensure!(
        status["observedGeneration"].as_i64() == object.metadata.generation,
        "{name}: the newest generation is not observed yet"
    );
    let ready = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Ready");
    let ready = ready.with_context(|| format!("{name}: no condition Ready"))?;
    ensure!(
        ready["status"] == json!(expected.ready) && ready["reason"] == expected.reason.as_str(),
        "{name}: is {ready}"
    );
    if let Some(expected) = expected.rollout {
        let phase = &status["rotation"]["rollout"]["phase"];
        ensure!(phase == expected.as_str(), "{name}: the rollout is {phase}");
    }
    Ok(())
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
