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

use lockstep_api::{Reason, SyncedSecretStatus, Target as SecretTarget, TargetStatus};
use serde_json::{Value, json};

use super::{
    references::name,
    workload::{Observation, Readiness, Target, Workload, revision_annotation},
};
use crate::Failure;

/// The longest name of a versioned target: the annotation on pod templates holds it as it is, and the admission policy reads it
/// there.
pub const LONGEST_NAME: usize = 54;
/// How many earlier Secrets a status lists.
const MAX_VERSIONS: usize = 64;

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
pub fn check(base: &str, target: &SecretTarget) -> Result<(), Failure> {
    if !target.versioned || base.len() <= LONGEST_NAME {
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
pub fn are_all_on(seen: &BTreeMap<Target, Observation>, revision: &str) -> bool {
    seen.values().all(|sight| match sight {
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
