//! Finds other plaintext in Git: Secrets, and invalid ciphertexts.

use lockstep_api::CiphertextScope;
use lockstep_core::ciphertext::{Binding, CiphertextError, Sealed};
use serde_json::Value;

use super::tree::Step;
use crate::manifests::yaml::shown;

const SECRET: &str = "plaintext or only encoded: anyone who can read the repository can read it. \
    Move it to an entry of a SyncedSecret and seal it";

/// Plaintext found in an object.
#[derive(Debug)]
pub(super) struct Found<'a> {
    /// Path from its object.
    pub(super) steps: Vec<Step<'a>>,
    /// The path as shown in messages.
    pub(super) field: String,
    pub(super) message: &'static str,
}

/// Returns the plaintext in an object that is not a SyncedSecret.
pub(super) fn of_object<'a>(group: &str, kind: &str, object: &'a Value) -> Vec<Found<'a>> {
    match (group, kind) {
        // sops adds its metadata and marks each encrypted value
        ("v1", "Secret") if object["sops"].is_object() => of_secret(object, true),
        ("v1", "Secret") => of_secret(object, false),
        ("kustomize.config.k8s.io", "Kustomization") => of_kustomization(object),
        _ => Vec::new(),
    }
}

fn of_secret(secret: &Value, sops: bool) -> Vec<Found<'_>> {
    let mut found = Vec::new();
    for field in ["data", "stringData"] {
        for (key, value) in secret[field].as_object().into_iter().flatten() {
            let text = value.as_str().unwrap_or_default();
            let encrypted = sops && text.starts_with("ENC[");
            if value.is_null() || value.as_str().is_some_and(str::is_empty) || encrypted {
                continue;
            }
            found.push(Found {
                steps: vec![Step::Field(field), Step::Field(key)],
                field: format!("{field}.{}", shown(key)),
                message: SECRET,
            });
        }
    }
    found
}

fn of_kustomization(kustomization: &Value) -> Vec<Found<'_>> {
    let mut found = Vec::new();
    let generators = kustomization["secretGenerator"].as_array();
    for (index, generator) in generators.into_iter().flatten().enumerate() {
        if generator["literals"]
            .as_array()
            .is_some_and(|literals| !literals.is_empty())
        {
            found.push(Found {
                steps: vec![
                    Step::Field("secretGenerator"),
                    Step::Item(index),
                    Step::Field("literals"),
                ],
                field: format!("secretGenerator[{index}].literals"),
                message: SECRET,
            });
        }
    }
    found
}

/// Returns what is wrong with a ciphertext, as far as this can be checked without its key. `place`
/// is scope, namespace, name and key; without a known namespace it is not compared.
pub(super) fn of_ciphertext(
    text: &str,
    place: Option<(CiphertextScope, &str, &str, &str)>,
) -> Option<String> {
    let whole = Sealed::parse(text);
    let error = match (whole, place) {
        (Err(error), _) => error,
        (Ok(_), None) => return None,
        (Ok(sealed), Some((scope, namespace, name, key))) => sealed
            .ciphertext(Binding::new(scope, namespace, name, key))
            .err()?,
    };
    Some(match error {
        CiphertextError::NotSealed => format!("the ciphertext {error}. It may be plaintext"),
        _ => format!("the ciphertext {error}. Seal the value again for this object and key"),
    })
}
