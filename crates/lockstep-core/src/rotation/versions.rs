//! Versioned targets: one Secret per revision, and the references to it in pod templates.
//!
//! A workload allows lockstep to change its references by naming the Secret in the annotation
//! `lockstep.dev/versioned`, which the operator's account cannot write. Otherwise someone who can create
//! Secrets and change references could choose what any workload reads.
//!
//! Each revision is its own Secret, `<name>-<revision>`, which never changes. A rollout moves the
//! references of its targets to the next revision, wave by wave. So what a pod reads depends only
//! on its template, not on when it starts.
//!
//! Earlier Secrets are listed in `status.versions` until no target can need them. They are not
//! deleted while a rollout is in progress, held or rolling back, or before every target runs on the
//! current one.

use std::collections::BTreeMap;

use lockstep_api::{Reason, SyncedSecretStatus, Target as SecretTarget, TargetStatus};
use serde_json::{Value, json};

use super::{
    references::name,
    workload::{Observation, Readiness, Target, Workload, revision_annotation},
};
use crate::Failure;

/// Maximum length of the name of a versioned target. The annotation on pod templates contains it,
/// and the admission policy reads it there.
pub const LONGEST_NAME: usize = 54;
/// Maximum number of earlier Secrets in the status.
const MAX_VERSIONS: usize = 64;

/// Whether the last written Secret is the target of the spec. `base` is the name in the spec.
pub fn is_target(base: &str, target: &SecretTarget, written: &TargetStatus) -> bool {
    if target.versioned {
        written.versioned && written.name == name(base, &written.revision)
    } else {
        written.name == base
    }
}

/// Checks the name of a versioned target, which admission cannot check.
///
/// # Errors
/// When the name of a versioned target is too long.
pub fn check(base: &str, target: &SecretTarget) -> Result<(), Failure> {
    if !target.versioned || base.len() <= LONGEST_NAME {
        return Ok(());
    }
    Err(Failure::new(
        Reason::InvalidSpec,
        format!(
            "target.versioned: the name \"{base}\" has {} characters, but at most {LONGEST_NAME} are allowed. Set a shorter target.name",
            base.len()
        ),
    ))
}

/// Returns the JSON patch that moves a workload to a revision. Each step has a test: it fails if
/// the workload was replaced or a reference changed since it was observed.
///
/// It is not a server-side apply, because some lists with references have no keys, so an apply
/// would have to own the whole list.
pub fn reference_patch(workload: &Workload, base: &str, revision: &str) -> Value {
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

/// Returns the Secret to record in the status before it is written; `None` if it is recorded
/// already. A recorded Secret is found and pruned even if the operator stops right after the write.
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

/// Returns the earlier Secrets after `target` is written.
pub fn record(old: &SyncedSecretStatus, target: &TargetStatus) -> Vec<TargetStatus> {
    let replaced = old.target.iter().filter(|before| {
        before.name != target.name && (before.versioned || target.versioned) && !before.merged
    });
    let mut all: Vec<TargetStatus> = Vec::new();
    for version in replaced.chain(&old.versions) {
        // Secrets of an earlier name were deleted before this status is reported
        let is_kept = version.versioned || target.versioned;
        if is_kept && version.name != target.name && !all.iter().any(|known| known.name == version.name) {
            all.push(version.clone());
        }
    }
    all.truncate(MAX_VERSIONS);
    all
}

/// Returns the earlier Secrets beyond `revisionHistoryLimit`; none while a target may need them.
pub fn beyond_history_limit(status: &SyncedSecretStatus, spec: &SecretTarget) -> Vec<TargetStatus> {
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

/// Whether every target is observed to need only the Secret of this revision.
pub fn are_all_on(seen: &BTreeMap<Target, Observation>, revision: &str) -> bool {
    seen.values().all(|observation| match observation {
        Observation::Missing => true,
        Observation::There(workload) => {
            let older = workload
                .references
                .as_ref()
                .is_none_or(|references| references.keeps_older);
            !older
                && workload.revision.as_deref() == Some(revision)
                && matches!(workload.readiness, Readiness::Ready | Readiness::ScaledToZero)
        }
        Observation::Unknown
        | Observation::Forbidden
        | Observation::NoTemplate
        | Observation::NoReference => false,
    })
}
