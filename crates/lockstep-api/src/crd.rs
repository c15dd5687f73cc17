//! The CustomResourceDefinitions, generated from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_core::CustomResourceExt;
use serde::Serialize;

use crate::{ClusterSecretStore, SecretStore, SyncedSecret};

/// Every CustomResourceDefinition, in the order in which `crds/` lists them.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![ClusterSecretStore::crd(), SecretStore::crd(), SyncedSecret::crd()]
}

/// Runs the CRD's own CEL rules on an object, as the API server does at admission.
///
/// # Errors
/// One sentence for each rule that does not hold, with the field's path.
pub fn validate<K: CustomResourceExt + Serialize>(object: &K) -> Result<(), Vec<String>> {
    kube_core::cel::validate_cel(object).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}
