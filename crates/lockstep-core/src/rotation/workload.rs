//! Reads a workload: the revision of its pod template, and whether all its pods run on it.

use std::fmt;

use lockstep_api::{TargetProgress, WorkloadKind, annotation};
use serde_json::{Value, json};

use super::references::{self, References};
use crate::stable_hash::StableHash;

/// A workload in the namespace of the SyncedSecret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The kind of the workload.
    pub kind: WorkloadKind,
    /// The name of the workload.
    pub name: String,
}

impl From<&TargetProgress> for Target {
    fn from(progress: &TargetProgress) -> Self {
        Self {
            kind: progress.kind,
            name: progress.name.clone(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// The result of observing a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// The API server did not respond, so the state is unknown.
    Unknown,
    /// lockstep may not read or change the workload.
    Forbidden,
    /// The workload does not exist.
    Missing,
    /// The workload has no pod template, like an Argo Rollout with `workloadRef`.
    NoTemplate,
    /// The pod template refers to no Secret of the versioned target.
    NoReference,
    /// The workload exists.
    There(Workload),
}

/// An existing workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// The uid of the workload.
    pub uid: String,
    /// The revision in the pod template. For a versioned target, the annotation and every reference
    /// must agree.
    pub revision: Option<String>,
    /// The references of the pod template; `None` if the target is not versioned.
    pub references: Option<References>,
    /// Whether the pods match the pod template.
    pub readiness: Readiness,
}

/// Whether the pods of a workload match its pod template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Every pod matches and is available. No older pod is left.
    Ready,
    /// Every pod that the update strategy replaces matches, and all are available. Older pods stay.
    Partial,
    /// The workload is scaled to zero.
    ScaledToZero,
    /// Not all pods match yet.
    Progressing,
    /// Not all pods match yet, and too few are available: the workload fails, or replaces all pods
    /// at once.
    Unavailable,
    /// The workload is paused and replaces no pods.
    Paused,
    /// The update strategy is `OnDelete`, so no pods are replaced automatically.
    OnDelete,
    /// The controller of the workload gave up.
    Failed,
}

/// Why a workload could not be found, read or restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// RBAC does not allow it.
    Forbidden,
    /// RBAC allows it, but an admission webhook, an admission policy or a quota rejects it.
    Refused,
    /// The workload or its kind does not exist.
    Missing,
    /// The admission policy for workloads is not enforced.
    Unguarded,
    /// Any other error, which may be transient.
    Unknown,
}

/// The Secret whose targets are observed and restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutSecret {
    /// The name without a revision.
    pub name: String,
    /// Whether each revision is its own Secret.
    pub versioned: bool,
}

/// Maximum length of a Secret name that an annotation contains unchanged. Annotation names have at
/// most 63 characters.
const LONGEST_NAME: usize = 54;
/// Number of characters kept of a longer name, before its hash.
const SHORTENED_NAME: usize = 45;

fn short(secret: &str) -> String {
    if secret.len() <= LONGEST_NAME {
        return secret.to_owned();
    }
    // names of Secrets are ASCII
    let head = secret.get(..SHORTENED_NAME).unwrap_or_default();
    format!("{head}-{}", StableHash::default().text(secret).finish())
}

/// Returns the pod template annotation that contains the revision of a Secret.
pub fn revision_annotation(secret: &str) -> String {
    format!("{}{}", annotation::REVISION, short(secret))
}

/// The field manager that moves references to versioned Secrets. All Secrets share it, because the
/// API server keeps few managers of updates.
pub const MOVER: &str = annotation::MANAGER;

/// Returns the field manager that owns only this annotation. Each Secret has its own, because an
/// apply removes the fields that the same manager applied before and omits now.
pub fn field_manager(secret: &str) -> String {
    format!("{}.{}", annotation::MANAGER, short(secret))
}

/// Returns the object to apply to restart a workload. The uid makes the apply fail if the workload
/// was replaced.
pub fn restart(target: &Target, uid: &str, secret: &str, revision: &str) -> Value {
    let kind = target.kind;
    json!({
        "apiVersion": format!("{}/{}", kind.group(), kind.version()),
        "kind": kind.as_str(),
        "metadata": { "name": target.name, "uid": uid },
        "spec": { "template": { "metadata": { "annotations": { (revision_annotation(secret)): revision } } } },
    })
}

/// Reads a workload. With `versioned`, its pods read the Secret of their revision.
pub fn read(kind: WorkloadKind, object: &Value, secret: &str, versioned: bool) -> Observation {
    let Some(template) = object.pointer("/spec/template") else {
        return Observation::NoTemplate;
    };
    let revision = template
        .pointer("/metadata/annotations")
        .and_then(|annotations| annotations.get(revision_annotation(secret)))
        .and_then(Value::as_str);
    let (references, revision) = if versioned {
        let (seen, revision) = references::read(object, secret, revision);
        if seen.all.is_empty() {
            return Observation::NoReference;
        }
        (Some(seen), revision)
    } else {
        (None, revision.map(str::to_owned))
    };
    Observation::There(Workload {
        uid: object
            .pointer("/metadata/uid")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        revision,
        references,
        readiness: readiness(kind, object),
    })
}

/// The pod counts in the status of a workload.
struct Pods {
    wanted: i64,
    all: i64,
    updated: i64,
    available: i64,
}

fn readiness(kind: WorkloadKind, object: &Value) -> Readiness {
    let number = |path: &str| object.pointer(path).and_then(Value::as_i64);
    let count = |path: &str| number(path).unwrap_or(0);
    let holds = |path: &str| object.pointer(path).and_then(Value::as_bool) == Some(true);
    let pods = match kind {
        WorkloadKind::DaemonSet => Pods {
            wanted: count("/status/desiredNumberScheduled"),
            // pods on the wrong node are removed by the controller
            all: count("/status/updatedNumberScheduled"),
            updated: count("/status/updatedNumberScheduled"),
            available: count("/status/numberAvailable"),
        },
        WorkloadKind::StatefulSet => {
            let wanted = number("/spec/replicas").unwrap_or(1);
            let kept = count("/spec/updateStrategy/rollingUpdate/partition").clamp(0, wanted);
            Pods {
                wanted,
                all: count("/status/replicas"),
                // pods below the partition stay as they are
                updated: (count("/status/updatedReplicas") + kept).min(wanted),
                available: count("/status/availableReplicas"),
            }
        }
        WorkloadKind::Deployment | WorkloadKind::Rollout => Pods {
            wanted: number("/spec/replicas").unwrap_or(1),
            all: count("/status/replicas"),
            updated: count("/status/updatedReplicas"),
            available: count("/status/availableReplicas"),
        },
    };
    if !is_observed(object) {
        return if holds("/spec/paused") {
            Readiness::Paused
        } else {
            Readiness::Progressing
        };
    }
    if pods.wanted == 0 && pods.all == 0 {
        return Readiness::ScaledToZero;
    }
    let complete = pods.updated == pods.wanted && pods.all == pods.updated && pods.available >= pods.wanted;
    let phase = object.pointer("/status/phase").and_then(Value::as_str);
    match kind {
        WorkloadKind::Rollout if phase == Some("Degraded") => Readiness::Failed,
        // a canary of all pods can still wait for its analysis
        WorkloadKind::Rollout if complete && phase.is_none_or(|phase| phase == "Healthy") => Readiness::Ready,
        // a canary can wait for hours or for approval, which is not a failure
        WorkloadKind::Rollout if holds("/spec/paused") || phase == Some("Paused") => Readiness::Paused,
        WorkloadKind::Rollout => Readiness::Progressing,
        WorkloadKind::StatefulSet
            if complete && count("/status/updatedReplicas") < pods.wanted && !is_of_one_revision(object) =>
        {
            Readiness::Partial
        }
        _ if complete => Readiness::Ready,
        WorkloadKind::Deployment if holds("/spec/paused") => Readiness::Paused,
        WorkloadKind::Deployment if gave_up(object) => Readiness::Failed,
        WorkloadKind::Deployment if has_condition(object, "Available", "False", None) => {
            Readiness::Unavailable
        }
        WorkloadKind::StatefulSet | WorkloadKind::DaemonSet
            if object
                .pointer("/spec/updateStrategy/type")
                .and_then(Value::as_str)
                == Some("OnDelete")
                && pods.updated < pods.wanted =>
        {
            Readiness::OnDelete
        }
        _ => Readiness::Progressing,
    }
}

/// Whether the controller has observed the current spec. Argo Rollouts writes the generation as
/// text.
fn is_observed(object: &Value) -> bool {
    let generation = object.pointer("/metadata/generation").and_then(Value::as_i64);
    let observed = object.pointer("/status/observedGeneration");
    let observed = observed.and_then(|observed| {
        observed
            .as_i64()
            .or_else(|| observed.as_str().and_then(|text| text.parse().ok()))
    });
    generation.is_some() && observed >= generation
}

fn gave_up(object: &Value) -> bool {
    has_condition(object, "Progressing", "False", Some("ProgressDeadlineExceeded"))
}

fn has_condition(object: &Value, kind: &str, holds: &str, reason: Option<&str>) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        condition["type"] == *kind
            && condition["status"] == *holds
            && reason.is_none_or(|reason| condition["reason"] == *reason)
    })
}

/// Whether all pods of a StatefulSet have the same template, so `partition` holds none back.
fn is_of_one_revision(object: &Value) -> bool {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str);
    let (current, updated) = (text("/status/currentRevision"), text("/status/updateRevision"));
    current.is_some() && current == updated
}
