//! Versioned targets: a Secret for each revision, and the references to it in pod templates.
//!
//! A workload lets its references be moved by naming the Secret in `lockstep.dev/versioned`, an annotation that the operator's account
//! cannot write: who can make Secrets and move references could otherwise choose what any workload reads.
//!
//! Each revision is a Secret of its own, `<name>-<revision>`, which never changes. A rollout moves the references of its targets
//! from one to the next, wave by wave. So what a pod sees depends on its template alone, and not on when it starts.
//!
//! Earlier Secrets stand in `status.versions` until no target can need them: not while a rollout is under way, held or going back,
//! and then only when every target is seen to run on the current one.

use std::collections::BTreeMap;

use lockstep_api::{Reason, SyncedSecretStatus, Target as SecretTarget, TargetStatus, annotation};
use serde_json::{Value, json};

use super::workload::{Readiness, Sight, Target, Workload, revision_annotation};
use crate::{Failure, plan::Input};

/// The longest name of a versioned target: the annotation on pod templates holds it as it is, and the admission policy reads it
/// there.
pub const LONGEST_NAME: usize = 54;
/// How many characters a revision has.
const REVISION_LENGTH: usize = 8;
/// How many earlier Secrets a status lists.
const MAX_VERSIONS: usize = 64;

/// A place of a pod template that names a Secret of the versioned target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Where it stands in the workload: a JSON pointer.
    pub pointer: String,
    /// The Secret that it names.
    pub name: String,
}

/// What a pod template says of a versioned target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Every place that names a Secret of it.
    pub all: Vec<Reference>,
    /// Whether the template has any annotation.
    pub annotated: bool,
    /// Whether the workload itself keeps pods of an earlier template: a StatefulSet with `partition`.
    pub keeps_older: bool,
}

/// The name of the Secret of a revision.
pub fn name(base: &str, revision: &str) -> String {
    format!("{base}-{revision}")
}

/// Whether that is the name of a Secret of a versioned target, of any revision or of none.
pub fn is_of(base: &str, name: &str) -> bool {
    let revision = || name.strip_prefix(base)?.strip_prefix('-');
    let is_revision = |text: &str| {
        text.len() == REVISION_LENGTH && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    name == base || revision().is_some_and(is_revision)
}

/// Whether the Secret that was written last is the one that the spec means; `base` is the name that the spec gives.
pub fn is_target(base: &str, target: &SecretTarget, written: &TargetStatus) -> bool {
    if target.versioned {
        written.versioned && written.name == name(base, &written.revision)
    } else {
        written.name == base
    }
}

/// Checks what admission cannot see.
///
/// # Errors
/// When the name of a versioned target is too long.
pub fn check(input: &Input<'_>) -> Result<(), Failure> {
    let base = input.target_name();
    if !input.spec.target.versioned || base.len() <= LONGEST_NAME {
        return Ok(());
    }
    Err(Failure::new(
        Reason::InvalidSpec,
        format!(
            "target.versioned: the name \"{base}\" has {} characters, and {LONGEST_NAME} are the most. Give a shorter target.name",
            base.len()
        ),
    ))
}

/// The places of a workload's pod template that name a Secret of the versioned target. The Secret of `imagePullSecrets` and those of
/// storage drivers are none: they are read by the node, and not by the pod.
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

/// The JSON patch that moves a workload to a revision. Each step of it is guarded: it fails where the workload is another one, or
/// where a reference is no longer what was seen.
///
/// It is no server-side apply, because some of the lists that hold references have no keys, and an apply would have to own them whole.
pub fn moves(workload: &Workload, base: &str, revision: &str) -> Value {
    let mut steps = vec![json!({ "op": "test", "path": "/metadata/uid", "value": workload.uid })];
    let seen = workload.references.clone().unwrap_or_default();
    let wanted = name(base, revision);
    for reference in seen.all.iter().filter(|reference| reference.name != wanted) {
        steps.push(json!({ "op": "test", "path": reference.pointer, "value": reference.name }));
        steps.push(json!({ "op": "replace", "path": reference.pointer, "value": wanted }));
    }
    let key = revision_annotation(base);
    let annotations = "/spec/template/metadata/annotations";
    steps.push(if seen.annotated {
        let escaped = key.replace('~', "~0").replace('/', "~1");
        json!({ "op": "add", "path": format!("{annotations}/{escaped}"), "value": revision })
    } else {
        json!({ "op": "add", "path": annotations, "value": { key: revision } })
    });
    Value::Array(steps)
}

/// The Secrets to note before that of a revision is written: what stands there is found and cleared away, also when the operator ends
/// right after the write and another value comes. `None` where it stands there already.
pub fn intend(old: Option<&SyncedSecretStatus>, name: &str, revision: &str) -> Option<TargetStatus> {
    let known = old
        .into_iter()
        .flat_map(|old| old.target.iter().chain(&old.versions));
    let is_known = known.into_iter().any(|known| known.name == name);
    (!is_known).then(|| TargetStatus {
        name: name.to_owned(),
        revision: revision.to_owned(),
        versioned: true,
        ..TargetStatus::default()
    })
}

/// The earlier Secrets once `target` is written.
pub fn note(old: &SyncedSecretStatus, target: &TargetStatus) -> Vec<TargetStatus> {
    let replaced = old.target.iter().filter(|before| {
        before.name != target.name && (before.versioned || target.versioned) && !before.merged
    });
    let mut all: Vec<TargetStatus> = Vec::new();
    for version in replaced.chain(&old.versions) {
        // what only an earlier name recorded was removed before this is reported
        let is_kept = version.versioned || target.versioned;
        if is_kept && version.name != target.name && !all.iter().any(|known| known.name == version.name) {
            all.push(version.clone());
        }
    }
    all.truncate(MAX_VERSIONS);
    all
}

/// The earlier Secrets that are more than are kept; none while any target can need one.
pub fn surplus(status: &SyncedSecretStatus, spec: &SecretTarget) -> Vec<TargetStatus> {
    let rollout = status
        .rotation
        .as_ref()
        .and_then(|rotation| rotation.rollout.as_ref());
    let over = |target: &TargetStatus| {
        target.versioned
            && rollout.is_some_and(|rollout| rollout.phase.is_over() && rollout.revision == target.revision)
    };
    if !status.target.as_ref().is_some_and(over) {
        return Vec::new();
    }
    let kept = usize::try_from(spec.revision_history_limit()).unwrap_or(usize::MAX);
    status.versions.iter().skip(kept).cloned().collect()
}

/// Whether every target is seen to need no Secret but that of this revision.
pub fn are_all_on(seen: &BTreeMap<Target, Sight>, revision: &str) -> bool {
    seen.values().all(|sight| match sight {
        Sight::Missing => true,
        Sight::There(workload) => {
            let older = workload
                .references
                .as_ref()
                .is_none_or(|references| references.keeps_older);
            !older
                && workload.revision.as_deref() == Some(revision)
                && matches!(workload.readiness, Readiness::Ready | Readiness::ScaledToZero)
        }
        Sight::Unknown | Sight::Forbidden | Sight::NoTemplate | Sight::NoReference => false,
    })
}

/// Whether a workload lets lockstep move its references to the Secrets of a versioned target. It says so in an annotation of its own,
/// which the operator's account cannot write.
pub fn is_let(object: &Value, base: &str) -> bool {
    let annotations = object.pointer("/metadata/annotations");
    let named = annotations
        .and_then(|annotations| annotations.get(annotation::VERSIONED))
        .and_then(Value::as_str);
    let mut names = named.unwrap_or_default().split(',');
    names.any(|name| name.trim() == base)
}

/// What a workload's template says of a versioned target, and the revision that all of it agrees on. One that does not let lockstep
/// move its references has none.
pub(super) fn read(object: &Value, base: &str, carried: Option<&str>) -> (References, Option<String>) {
    let all = if is_let(object, base) {
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
