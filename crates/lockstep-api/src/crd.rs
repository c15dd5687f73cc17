//! The CustomResourceDefinitions, generated from the types.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_cel::{CompiledSchema, Validator, compile_schema};
use kube_core::CustomResourceExt;
use serde::Serialize;

use crate::{ClusterSecretStore, SecretStore, SyncedSecret};

/// Returns every CustomResourceDefinition, in the order of the files in `crds/`.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![ClusterSecretStore::crd(), SecretStore::crd(), SyncedSecret::crd()]
}

/// Checks an object with the CEL rules of its CRD, as the API server does at admission.
///
/// # Errors
/// One sentence for each rule that fails, with the path of the field.
pub fn validate<K: CustomResourceExt + Serialize>(object: &K) -> Result<(), Vec<String>> {
    let rules = rules_of(K::crd_name(), K::crd);
    let object = serde_json::to_value(object).map_err(|error| vec![error.to_string()])?;
    rules
        .validator
        .validate_compiled(&rules.compiled, &object, None)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

/// The compiled CEL rules of a kind.
struct Rules {
    validator: Validator,
    compiled: CompiledSchema,
}

/// Returns the rules of a kind. They are compiled once per process, because that takes longer than
/// checking many objects.
fn rules_of(name: &str, crd: fn() -> CustomResourceDefinition) -> Arc<Rules> {
    static KNOWN: LazyLock<Mutex<BTreeMap<String, Arc<Rules>>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(rules) = known.get(name) {
        return Arc::clone(rules);
    }
    let version = crd().spec.versions.into_iter().next();
    let schema = version
        .and_then(|version| version.schema)
        .and_then(|schema| schema.open_api_v3_schema);
    let schema = serde_json::to_value(schema).unwrap_or_default();
    let rules = Arc::new(Rules {
        validator: Validator::new(),
        compiled: compile_schema(&schema),
    });
    known.insert(name.to_owned(), Arc::clone(&rules));
    rules
}
