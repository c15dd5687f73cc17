//! Finds the references of pod templates to the Secrets of a versioned target.

use lockstep_api::annotation;
use serde_json::Value;

/// The number of characters of a revision.
const REVISION_LENGTH: usize = 8;

/// A field of a pod template that names a Secret of the versioned target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The JSON pointer of the field in the workload.
    pub pointer: String,
    /// The name of the Secret.
    pub name: String,
}

/// The references of a pod template to a versioned target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Every field that names a Secret of the target.
    pub all: Vec<Reference>,
    /// Whether the template has annotations.
    pub annotated: bool,
    /// Whether the workload keeps pods of an earlier template, like a StatefulSet with `partition`.
    pub keeps_older: bool,
}

/// Returns the name of the Secret of a revision.
pub fn name(base: &str, revision: &str) -> String {
    format!("{base}-{revision}")
}

/// Whether `name` is the base name or the name of any revision of a versioned target.
pub fn is_of(base: &str, name: &str) -> bool {
    let revision = || name.strip_prefix(base)?.strip_prefix('-');
    let is_revision = |text: &str| {
        text.len() == REVISION_LENGTH && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    name == base || revision().is_some_and(is_revision)
}

/// Returns the fields of a pod template that name a Secret of the versioned target.
/// `imagePullSecrets` and Secrets of storage drivers are not included, because the node reads them,
/// not the pod.
pub fn references(object: &Value, base: &str) -> Vec<Reference> {
    const POD: &str = "/spec/template/spec";
    let list = |pointer: &str| {
        let all = object.pointer(pointer).and_then(Value::as_array);
        all.map_or(0, Vec::len)
    };
    let mut places = Vec::new();
    for volume in 0..list(&format!("{POD}/volumes")) {
        let volume = format!("{POD}/volumes/{volume}");
        places.push(format!("{volume}/secret/secretName"));
        for source in 0..list(&format!("{volume}/projected/sources")) {
            places.push(format!("{volume}/projected/sources/{source}/secret/name"));
        }
    }
    for containers in ["initContainers", "containers"] {
        for container in 0..list(&format!("{POD}/{containers}")) {
            let container = format!("{POD}/{containers}/{container}");
            for variable in 0..list(&format!("{container}/env")) {
                places.push(format!("{container}/env/{variable}/valueFrom/secretKeyRef/name"));
            }
            for source in 0..list(&format!("{container}/envFrom")) {
                places.push(format!("{container}/envFrom/{source}/secretRef/name"));
            }
        }
    }
    let named = |pointer: String| {
        let name = object.pointer(&pointer)?.as_str()?.to_owned();
        is_of(base, &name).then_some(Reference { pointer, name })
    };
    places.into_iter().filter_map(named).collect()
}

/// Whether a workload allows lockstep to change its references to a versioned target. The workload
/// allows it with an annotation that the operator's account cannot write.
pub fn allows_move(object: &Value, base: &str) -> bool {
    let annotations = object.pointer("/metadata/annotations");
    let named = annotations
        .and_then(|annotations| annotations.get(annotation::VERSIONED))
        .and_then(Value::as_str);
    let mut names = named.unwrap_or_default().split(',');
    names.any(|name| name.trim() == base)
}

/// Returns the references of a template to a versioned target, and the revision that all of them
/// name. A workload that does not allow changes has no references.
pub(super) fn read(object: &Value, base: &str, carried: Option<&str>) -> (References, Option<String>) {
    let all = if allows_move(object, base) {
        references(object, base)
    } else {
        Vec::new()
    };
    let agrees = |revision: &&str| {
        let wanted = name(base, revision);
        all.iter().all(|reference| reference.name == wanted)
    };
    let revision = carried.filter(agrees).map(str::to_owned);
    let annotations = object.pointer("/spec/template/metadata/annotations");
    let text = |path: &str| object.pointer(path).and_then(Value::as_str);
    let partition = object.pointer("/spec/updateStrategy/rollingUpdate/partition");
    let keeps_older = partition.and_then(Value::as_i64).is_some_and(|kept| kept > 0)
        && text("/status/currentRevision") != text("/status/updateRevision");
    let seen = References {
        all,
        annotated: annotations.is_some_and(Value::is_object),
        keeps_older,
    };
    (seen, revision)
}
