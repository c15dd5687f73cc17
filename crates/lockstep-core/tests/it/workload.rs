//! When a workload is ready, as its controller's status says.

use lockstep_api::WorkloadKind;
use lockstep_core::rotation::workload::{self, Observation, Readiness, Target};
use serde_json::{Value, json};

fn readiness(kind: WorkloadKind, spec: &Value, status: &Value) -> Readiness {
    let mut spec = spec.clone();
    spec["template"] = json!({});
    let object = json!({ "metadata": { "generation": 3, "uid": "u" }, "spec": spec, "status": status });
    match workload::read(kind, &object, "database", false) {
        Observation::There(workload) => workload.readiness,
        other => panic!("{other:?}"),
    }
}

#[test]
fn workload_is_ready_when_all_pods_are_new_and_available() {
    use Readiness::{Failed, OnDelete, Partial, Paused, Progressing, Ready, ScaledToZero, Unavailable};
    use WorkloadKind::{DaemonSet, Deployment, Rollout, StatefulSet};
    let three = json!({ "replicas": 3 });
    let paused = json!({ "replicas": 3, "paused": true });
    let gave_up = json!([{ "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded" }]);
    let rows = [
        // nobody has seen the new spec: whatever is available is old
        (
            Deployment,
            three.clone(),
            json!({ "observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3 }),
            Progressing,
        ),
        (Deployment, three.clone(), json!({}), Progressing),
        (
            Deployment,
            three.clone(),
            json!({ "observedGeneration": 3, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3 }),
            Ready,
        ),
        // the available ones are old
        (
            Deployment,
            three.clone(),
            json!({ "observedGeneration": 3, "replicas": 4, "updatedReplicas": 1, "availableReplicas": 3 }),
            Progressing,
        ),
        // an old one is left
        (
            Deployment,
            three.clone(),
            json!({ "observedGeneration": 3, "replicas": 4, "updatedReplicas": 3, "availableReplicas": 4 }),
            Progressing,
        ),
        (
            Deployment,
            three.clone(),
            json!({ "observedGeneration": 3, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 2 }),
            Progressing,
        ),
        (
            Deployment,
            three.clone(),
            json!({ "observedGeneration": 3, "replicas": 4, "updatedReplicas": 1, "availableReplicas": 3, "conditions": gave_up }),
            Failed,
        ),
        (
            Deployment,
            json!({}),
            json!({ "observedGeneration": 3, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1 }),
            Ready,
        ),
        (
            Deployment,
            json!({ "replicas": 0 }),
            json!({ "observedGeneration": 3 }),
            ScaledToZero,
        ),
        (
            Deployment,
            json!({ "replicas": 0 }),
            json!({ "observedGeneration": 3, "replicas": 1 }),
            Progressing,
        ),
        (
            Deployment,
            paused.clone(),
            json!({ "observedGeneration": 2, "replicas": 3 }),
            Paused,
        ),
        (
            Deployment,
            paused,
            json!({ "observedGeneration": 3, "replicas": 3, "availableReplicas": 3 }),
            Paused,
        ),
        (
            StatefulSet,
            three.clone(),
            json!({ "observedGeneration": 3, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3 }),
            Ready,
        ),
        (
            StatefulSet,
            three.clone(),
            json!({ "observedGeneration": 3, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 3 }),
            Progressing,
        ),
        // what is below the partition is to stay old
        (
            StatefulSet,
            json!({ "replicas": 3, "updateStrategy": { "rollingUpdate": { "partition": 2 } } }),
            json!({ "observedGeneration": 3, "replicas": 3, "updatedReplicas": 1, "availableReplicas": 3 }),
            Partial,
        ),
        (
            StatefulSet,
            json!({ "replicas": 3, "updateStrategy": { "rollingUpdate": { "partition": 2 } } }),
            json!({ "observedGeneration": 3, "replicas": 3, "availableReplicas": 3 }),
            Progressing,
        ),
        (
            DaemonSet,
            json!({}),
            json!({ "observedGeneration": 3, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 2 }),
            Ready,
        ),
        (
            DaemonSet,
            json!({}),
            json!({ "observedGeneration": 3, "desiredNumberScheduled": 2, "updatedNumberScheduled": 1, "numberAvailable": 2 }),
            Progressing,
        ),
        (
            DaemonSet,
            json!({}),
            json!({ "observedGeneration": 3 }),
            ScaledToZero,
        ),
        // its pods are of one template: partition keeps none back
        (
            StatefulSet,
            json!({ "replicas": 3, "updateStrategy": { "rollingUpdate": { "partition": 2 } } }),
            json!({ "observedGeneration": 3, "replicas": 3, "updatedReplicas": 1, "availableReplicas": 3, "currentRevision": "a", "updateRevision": "a" }),
            Ready,
        ),
        (
            DaemonSet,
            json!({ "updateStrategy": { "type": "OnDelete" } }),
            json!({ "observedGeneration": 3, "desiredNumberScheduled": 2, "updatedNumberScheduled": 1, "numberAvailable": 2 }),
            OnDelete,
        ),
        (
            StatefulSet,
            json!({ "replicas": 3, "updateStrategy": { "type": "OnDelete" } }),
            json!({ "observedGeneration": 3, "replicas": 3, "availableReplicas": 3 }),
            OnDelete,
        ),
        (
            Deployment,
            three.clone(),
            json!({ "observedGeneration": 3, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 1, "conditions": [{ "type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable" }] }),
            Unavailable,
        ),
        // Argo Rollouts writes the generation as text
        (
            Rollout,
            three.clone(),
            json!({ "observedGeneration": "3", "phase": "Healthy", "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3 }),
            Ready,
        ),
        (
            Rollout,
            three.clone(),
            json!({ "observedGeneration": "3", "phase": "Paused", "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3 }),
            Paused,
        ),
        (
            Rollout,
            three.clone(),
            json!({ "observedGeneration": "3", "phase": "Degraded", "replicas": 3 }),
            Failed,
        ),
        (
            Rollout,
            three,
            json!({ "observedGeneration": "2", "phase": "Healthy", "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3 }),
            Progressing,
        ),
    ];
    for (kind, spec, status, expected) in rows {
        assert_eq!(
            readiness(kind, &spec, &status),
            expected,
            "{kind} {spec} {status}"
        );
    }
    let reference = json!({ "metadata": { "uid": "u" }, "spec": { "workloadRef": { "name": "api" } } });
    assert_eq!(
        workload::read(Rollout, &reference, "database", false),
        Observation::NoTemplate
    );
}

#[test]
fn patch_contains_only_one_pod_template_annotation() {
    let target = Target {
        kind: WorkloadKind::Deployment,
        name: "api".to_owned(),
    };
    assert_eq!(
        workload::restart(&target, "u", "database", "9c41"),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "api", "uid": "u" },
            "spec": { "template": { "metadata": { "annotations": { "lockstep.dev/revision.database": "9c41" } } } },
        })
    );
}

#[test]
fn long_names_yield_valid_annotations_and_field_managers() {
    let mut seen = std::collections::BTreeSet::new();
    for secret in [
        "a".to_owned(),
        "b".repeat(54),
        "c".repeat(55),
        "c".repeat(56),
        "d".repeat(253),
    ] {
        let annotation = workload::revision_annotation(&secret);
        let (_, name) = annotation.split_once('/').unwrap();
        assert!(
            name.len() <= 63 && workload::field_manager(&secret).len() <= 128,
            "{name}"
        );
        assert!(seen.insert(annotation.clone()), "two Secrets share {name}");
    }
}
