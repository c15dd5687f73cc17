//! Versioned targets: which references are moved, how, and when earlier Secrets go.

use std::collections::BTreeMap;

use lockstep_api::{
    RolloutPhase, RolloutStatus, RotationPhase, RotationStatus, SyncedSecretStatus, Target as SecretTarget,
    TargetStatus, WorkloadKind,
};
use lockstep_core::rotation::{
    references::{self, Reference, References},
    versions,
    workload::{self, Observation, Readiness, Target, Workload},
};
use serde_json::{Value, json};

const OLD: &str = "database-00000001";
const NEW: &str = "database-0000000f";

/// A Deployment that refers to a Secret in every way, and to others.
fn deployment(name: &str, annotations: &Value) -> Value {
    let container = |container: &str| {
        json!({
            "name": container,
            "env": [
                { "name": "PLAIN", "value": "database" },
                { "name": "PASSWORD", "valueFrom": { "secretKeyRef": { "name": name, "key": "password" } } },
                { "name": "OTHER", "valueFrom": { "secretKeyRef": { "name": "database-replica-00000001", "key": "x" } } },
            ],
            "envFrom": [{ "configMapRef": { "name": "database" } }, { "prefix": "DB_", "secretRef": { "name": name } }],
        })
    };
    json!({
        "metadata": { "uid": "uid", "generation": 1, "annotations": { "lockstep.dev/versioned": "cache, database" } },
        "spec": { "replicas": 0, "template": {
            "metadata": { "labels": { "app": "api" }, "annotations": annotations },
            "spec": {
                "volumes": [
                    { "name": "plain", "emptyDir": {} },
                    { "name": "one", "secret": { "secretName": name } },
                    { "name": "near", "secret": { "secretName": "database-000000001" } },
                    { "name": "many", "projected": { "sources": [
                        { "configMap": { "name": "database" } }, { "secret": { "name": name } },
                    ] } },
                ],
                "initContainers": [container("init")],
                "containers": [container("app")],
                "imagePullSecrets": [{ "name": name }],
            },
        } },
        "status": { "observedGeneration": 1 },
    })
}

fn read(object: &Value) -> Workload {
    match workload::read(WorkloadKind::Deployment, object, "database", true) {
        Observation::There(workload) => workload,
        other => panic!("{other:?}"),
    }
}

/// Applies a JSON patch of the kind that [`versions::reference_patch`] makes.
fn apply(object: &mut Value, patch: &Value) -> Result<(), String> {
    for step in patch.as_array().unwrap() {
        let path = step["path"].as_str().unwrap();
        match step["op"].as_str().unwrap() {
            "test" if object.pointer(path) != Some(&step["value"]) => return Err(path.to_owned()),
            "test" => {}
            "replace" => *object.pointer_mut(path).unwrap() = step["value"].clone(),
            "add" => {
                let (parent, key) = path.rsplit_once('/').unwrap();
                let key = key.replace("~1", "/").replace("~0", "~");
                object.pointer_mut(parent).unwrap()[key] = step["value"].clone();
            }
            other => panic!("{other}"),
        }
    }
    Ok(())
}

#[test]
fn only_references_in_the_pod_template_are_moved() {
    for (before, annotations) in [("database", json!({ "team": "shop" })), (OLD, Value::Null)] {
        let mut object = deployment(before, &annotations);
        let seen = read(&object);
        let references = seen.references.clone().unwrap();
        assert_eq!(references.all.len(), 6, "{:?}", references.all);
        assert_eq!(seen.revision, None);
        let patch = versions::reference_patch(&seen, "database", "0000000f");
        apply(&mut object, &patch).unwrap();
        let mut wanted = annotations;
        wanted["lockstep.dev/revision.database"] = json!("0000000f");
        let mut expected = deployment(NEW, &wanted);
        // the node reads it, and not the pod
        expected["spec"]["template"]["spec"]["imagePullSecrets"] = json!([{ "name": before }]);
        assert_eq!(object, expected);
        assert_eq!(read(&object).revision.as_deref(), Some("0000000f"));
    }
}

#[test]
fn workload_that_changed_since_observation_is_not_moved() {
    let seen = read(&deployment(OLD, &json!({})));
    let patch = versions::reference_patch(&seen, "database", "0000000f");
    let mut replaced = deployment(OLD, &json!({}));
    replaced["metadata"]["uid"] = json!("another");
    assert_eq!(apply(&mut replaced, &patch), Err("/metadata/uid".to_owned()));
    let mut shifted = deployment(OLD, &json!({}));
    shifted["spec"]["template"]["spec"]["volumes"]
        .as_array_mut()
        .unwrap()
        .remove(0);
    assert!(apply(&mut shifted, &patch).is_err());
}

#[test]
fn revision_requires_that_all_references_agree() {
    let annotation = json!({ "lockstep.dev/revision.database": "0000000f" });
    let mut object = deployment(NEW, &annotation);
    assert_eq!(read(&object).revision.as_deref(), Some("0000000f"));
    // somebody applied the manifest again, and one reference is as it was at first
    object["spec"]["template"]["spec"]["volumes"][1]["secret"]["secretName"] = json!("database");
    assert_eq!(read(&object).revision, None);
    assert_eq!(read(&deployment(NEW, &json!({}))).revision, None);
    let other = deployment("cache", &annotation);
    assert_eq!(
        workload::read(WorkloadKind::Deployment, &other, "database", true),
        Observation::NoReference
    );
}

#[test]
fn references_move_only_with_an_annotation_on_the_workload() {
    let read = |own: Value, template: Value| {
        let mut object = deployment("database", &template);
        object["metadata"]["annotations"] = own;
        workload::read(WorkloadKind::Deployment, &object, "database", true)
    };
    let names = |names: &str| json!({ "lockstep.dev/versioned": names });
    for lets in ["database", "cache,database", " database , cache"] {
        assert!(
            matches!(read(names(lets), json!({})), Observation::There(_)),
            "{lets}"
        );
    }
    for own in [
        Value::Null,
        json!({}),
        names(""),
        names("true"),
        names("databases,data"),
        names("database-00000001"),
        json!({ "lockstep.dev/versioned": true }),
    ] {
        // what the operator itself can write says nothing
        assert_eq!(
            read(own.clone(), names("database")),
            Observation::NoReference,
            "{own}"
        );
    }
}

#[test]
fn version_names_of_other_secrets_are_distinguished() {
    for (name, expected) in [
        ("database", true),
        (OLD, true),
        (NEW, true),
        ("database-0000000F", false),
        ("database-000000", false),
        ("database-000000001", false),
        ("database-replica-00000001", false),
        ("database-", false),
        ("database00000001", false),
        ("data-00000001", false),
    ] {
        assert_eq!(references::is_of("database", name), expected, "{name}");
    }
    let spec = SecretTarget {
        versioned: true,
        ..SecretTarget::default()
    };
    let written = version("0000000f");
    assert!(versions::is_target("database", &spec, &written));
    assert!(!versions::is_target("renamed", &spec, &written));
    assert!(!versions::is_target(
        "database",
        &SecretTarget::default(),
        &written
    ));
}

fn version(revision: &str) -> TargetStatus {
    TargetStatus {
        name: references::name("database", revision),
        revision: revision.to_owned(),
        versioned: true,
        ..TargetStatus::default()
    }
}

fn status(phase: RolloutPhase, current: &str, earlier: &[&str]) -> SyncedSecretStatus {
    let rollout: RolloutStatus = serde_json::from_value(json!({
        "phase": phase, "revision": current, "startTime": "2026-01-01T00:00:00Z", "wave": 1,
    }))
    .unwrap();
    SyncedSecretStatus {
        target: Some(version(current)),
        versions: earlier.iter().map(|revision| version(revision)).collect(),
        rotation: Some(RotationStatus {
            phase: RotationPhase::from(phase),
            noticed_time: None,
            pending_revision: None,
            waits_for: None,
            next_window_time: None,
            handled_rotate_now: None,
            rollout: Some(rollout),
            refused: None,
        }),
        ..SyncedSecretStatus::default()
    }
}

#[test]
fn versions_are_pruned_to_the_limit_after_the_rollout() {
    let spec = |kept| SecretTarget {
        versioned: true,
        revision_history_limit: kept,
        ..SecretTarget::default()
    };
    let earlier = ["00000003", "00000002", "00000001"];
    for phase in RolloutPhase::ALL {
        let surplus = versions::beyond_history_limit(&status(*phase, "00000004", &earlier), &spec(Some(1)));
        let names: Vec<&str> = surplus.iter().map(|version| version.revision.as_str()).collect();
        let expected: &[&str] = if phase.is_over() {
            &["00000002", "00000001"]
        } else {
            &[]
        };
        assert_eq!(names, expected, "{phase:?}");
    }
    let over = status(RolloutPhase::Complete, "00000004", &earlier);
    assert_eq!(
        versions::beyond_history_limit(&over, &spec(None)).len(),
        1,
        "two are kept by default"
    );
    // written, and its rollout has not begun
    let mut ahead = over.clone();
    ahead.target = Some(version("00000005"));
    assert!(versions::beyond_history_limit(&ahead, &spec(Some(0))).is_empty());
}

#[test]
fn history_lists_earlier_versions_once_newest_first() {
    let before = status(RolloutPhase::Complete, "00000003", &["00000002", "00000001"]);
    let names = |noted: Vec<TargetStatus>| -> Vec<String> {
        noted.into_iter().map(|version| version.revision).collect()
    };
    assert_eq!(
        names(versions::record(&before, &version("00000004"))),
        ["00000003", "00000002", "00000001"]
    );
    assert_eq!(
        names(versions::record(&before, &version("00000002"))),
        ["00000003", "00000001"],
        "gone back"
    );
    assert_eq!(
        names(versions::record(&before, &version("00000003"))),
        ["00000002", "00000001"],
        "written again"
    );
    let plain = TargetStatus {
        name: "database".to_owned(),
        ..TargetStatus::default()
    };
    let first = SyncedSecretStatus {
        target: Some(plain.clone()),
        ..SyncedSecretStatus::default()
    };
    assert_eq!(
        versions::record(&first, &version("00000001")),
        [plain],
        "targets still refer to it"
    );
}

#[test]
fn earlier_version_is_needed_until_all_targets_are_current() {
    let sight = |revision: &str, readiness, keeps_older| {
        Observation::There(Workload {
            uid: "uid".to_owned(),
            revision: Some(revision.to_owned()),
            references: Some(References {
                all: vec![Reference {
                    pointer: String::new(),
                    name: String::new(),
                }],
                annotated: true,
                keeps_older,
            }),
            readiness,
        })
    };
    for (sight, expected) in [
        (sight("new", Readiness::Ready, false), true),
        (sight("new", Readiness::ScaledToZero, false), true),
        (Observation::Missing, true),
        (sight("new", Readiness::Ready, true), false),
        (sight("new", Readiness::Progressing, false), false),
        (sight("old", Readiness::Ready, false), false),
        (Observation::Unknown, false),
        (Observation::Forbidden, false),
        (Observation::NoTemplate, false),
        (Observation::NoReference, false),
    ] {
        let target = Target {
            kind: WorkloadKind::Deployment,
            name: "a".to_owned(),
        };
        let said = format!("{sight:?}");
        assert_eq!(
            versions::are_all_on(&BTreeMap::from([(target, sight)]), "new"),
            expected,
            "{said}"
        );
    }
    let mut stateful = deployment(NEW, &json!({ "lockstep.dev/revision.database": "0000000f" }));
    stateful["spec"]["updateStrategy"] = json!({ "rollingUpdate": { "partition": 1 } });
    stateful["status"] = json!({ "observedGeneration": 1, "currentRevision": "a", "updateRevision": "b" });
    assert!(read(&stateful).references.unwrap().keeps_older);
    stateful["status"]["currentRevision"] = json!("b");
    assert!(!read(&stateful).references.unwrap().keeps_older);
}
