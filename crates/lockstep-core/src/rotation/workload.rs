//! A workload as the API server shows it: which revision its pods get, and whether all of them run on it.

use std::fmt;

use lockstep_api::{TargetProgress, WorkloadKind, annotation};
use serde_json::{Value, json};

use super::references::{self, References};
use crate::schedule;

/// A workload of the SyncedSecret's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// What it is.
    pub kind: WorkloadKind,
    /// Its name.
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

/// What a look at a workload found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// The API server did not answer: nothing is known.
    Unknown,
    /// lockstep may not look at it, or not change it.
    Forbidden,
    /// It does not exist.
    Missing,
    /// It has no pod template of its own: an Argo Rollout with `workloadRef`.
    NoTemplate,
    /// Its pod template refers to no Secret of the versioned target.
    NoReference,
    /// It is there.
    There(Workload),
}

/// A workload that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Its uid.
    pub uid: String,
    /// The revision that its pod template carries; of a versioned target, in the annotation and in every reference.
    pub revision: Option<String>,
    /// What its pod template says of a versioned target; `None` where the target is not versioned.
    pub references: Option<References>,
    /// Whether its pods are what its pod template says.
    pub readiness: Readiness,
}

/// Whether the pods of a workload are what its pod template says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Every pod is, and is available. No older one is left.
    Ready,
    /// Every pod that its own strategy replaces is, and all are available; older ones are to stay.
    Partial,
    /// There are to be none.
    ScaledToZero,
    /// Not all are yet.
    Progressing,
    /// Not all are yet, and its own controller says that too few are available: it is in trouble, or replaces all at once.
    Unavailable,
    /// It is paused, and replaces none.
    Paused,
    /// It replaces none by itself.
    OnDelete,
    /// Its own controller gave up.
    Failed,
}

/// The longest name of a Secret that stands in an annotation as it is: names of annotations have 63 characters at most.
const LONGEST_NAME: usize = 54;
/// How much is left of a longer one, beside a hash of it.
const SHORTENED_NAME: usize = 45;

fn short(secret: &str) -> String {
    if secret.len() <= LONGEST_NAME {
        return secret.to_owned();
    }
    // names of Secrets are ASCII
    let head = secret.get(..SHORTENED_NAME).unwrap_or_default();
    format!("{head}-{:08x}", schedule::hash(secret) >> 32)
}

/// The annotation on pod templates that says which revision of a Secret their pods run on.
pub fn revision_annotation(secret: &str) -> String {
    format!("{}{}", annotation::REVISION, short(secret))
}

/// The field manager that owns this annotation and nothing else: one for each Secret, since an apply takes away what the same
/// manager applied before and no longer names.
pub fn field_manager(secret: &str) -> String {
    format!("{}.{}", annotation::MANAGER, short(secret))
}

/// What is applied to have the pods of a workload replaced. The uid makes it fail where the workload is another one by now.
pub fn restart(target: &Target, uid: &str, secret: &str, revision: &str) -> Value {
    let kind = target.kind;
    json!({
        "apiVersion": format!("{}/{}", kind.group(), kind.version()),
        "kind": kind.as_str(),
        "metadata": { "name": target.name, "uid": uid },
        "spec": { "template": { "metadata": { "annotations": { (revision_annotation(secret)): revision } } } },
    })
}

/// Reads a workload. `versioned`: its pods read a Secret of their own revision.
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

/// Numbers of pods, as a workload's controller counts them.
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
            // pods that are on the wrong node go by themselves
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
                // those below the partition are to stay as they are
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
        // it is complete when its own strategy says so: a canary of all pods can still be waiting for its analysis
        WorkloadKind::Rollout if complete && phase.is_none_or(|phase| phase == "Healthy") => Readiness::Ready,
        // a canary can wait for somebody, or for hours: that is its own way, and no failure
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
        WorkloadKind::Deployment if says(object, "Available", "False", None) => Readiness::Unavailable,
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

/// Whether the workload's controller has seen what its spec says now. Argo Rollouts writes the number as text.
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
    says(object, "Progressing", "False", Some("ProgressDeadlineExceeded"))
}

fn says(object: &Value, kind: &str, holds: &str, reason: Option<&str>) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        condition["type"] == *kind
            && condition["status"] == *holds
            && reason.is_none_or(|reason| condition["reason"] == *reason)
    })
}

/// Whether a StatefulSet's pods are all of the same template: then `partition` keeps none back.
fn is_of_one_revision(object: &Value) -> bool {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str);
    let (current, updated) = (text("/status/currentRevision"), text("/status/updateRevision"));
    current.is_some() && current == updated
}
