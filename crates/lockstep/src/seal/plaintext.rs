//! What is plaintext in Git, besides what waits to be sealed: Secrets, and ciphertexts that are none.

use lockstep_api::CiphertextScope;
use lockstep_core::ciphertext::{Binding, CiphertextError, Sealed};
use serde_json::Value;

use super::tree::Step;
use crate::manifests::yaml::shown;

const SECRET: &str = "it is plaintext, encoded at the most: whoever reads the repository has it. \
    Make it an entry of a SyncedSecret, and seal it";

/// Something that should not stand there.
#[derive(Debug)]
pub(super) struct Found<'a> {
    /// The way to it from its object.
    pub(super) steps: Vec<Step<'a>>,
    /// The same for people.
    pub(super) field: String,
    pub(super) message: &'static str,
}

/// What an object of another kind than ours holds in plaintext.
pub(super) fn of_object<'a>(group: &str, kind: &str, object: &'a Value) -> Vec<Found<'a>> {
    match (group, kind) {
        // sops keeps its own metadata there, and says itself what is encrypted
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

/// What is wrong with a ciphertext, as far as that can be told without its key. Its place is scope, namespace, name and
/// key; where nothing says the namespace it cannot be compared.
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
        CiphertextError::NotSealed => format!("the ciphertext {error}. What stands there may be plaintext"),
        _ => format!("the ciphertext {error}. Seal the value again for this one"),
    })
}
