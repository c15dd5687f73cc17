//! The CustomResourceDefinitions, generated from the types.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{Arc, LazyLock},
};

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube_cel::{CompiledSchema, Validator, compile_schema};
use kube_core::CustomResourceExt;
use parking_lot::Mutex;
use serde::Serialize;

use crate::{ClusterSecretStore, SecretStore, SyncedSecret};

/// Returns every CustomResourceDefinition, in the order of the files in `crds/`.
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![ClusterSecretStore::crd(), SecretStore::crd(), SyncedSecret::crd()];
    let versions = crds.iter_mut().flat_map(|crd| &mut crd.spec.versions);
    versions
        .filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut())
        .for_each(bound_times);
    crds
}

/// The times that a field can contain: the years 1000 to 2999 in UTC.
pub const TIMES: RangeInclusive<Timestamp> =
    Timestamp::constant(-30_610_224_000, 0)..=Timestamp::constant(32_503_679_999, 999_999_999);

/// The format `date-time` also admits times that this crate cannot parse. An object with such a
/// time could not be read until its status is repaired.
const TIME: &str = r"^[12][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z$";
/// The length of a time with nanoseconds.
const MAX_TIME: i64 = 30;

/// Restricts every time in a schema to [`TIMES`], in the form that this crate writes.
fn bound_times(schema: &mut JSONSchemaProps) {
    if schema.format.as_deref() == Some("date-time") {
        schema.pattern = Some(TIME.to_owned());
        schema.max_length = Some(MAX_TIME);
    }
    let fields = schema.properties.iter_mut().flat_map(BTreeMap::values_mut);
    fields.for_each(bound_times);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        bound_times(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        bound_times(values);
    }
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
    let mut known = KNOWN.lock();
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
