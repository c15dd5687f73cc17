//! A Secret for each revision, and the references to it that a rollout moves.

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use lockstep_api::{RolloutPhase, SyncedSecret, TargetState};
use serde_json::{Value, json};

use crate::{
    rights::{added_entries, as_operator},
    rollout::TestWorkloads,
    shared_cluster::{eventually, text},
};

/// A pod template that refers to a Secret in every way that is moved.
fn template(app: &str, secret: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": app } },
        "spec": {
            "containers": [{
                "name": "app", "image": "example.org/app",
                "env": [
                    { "name": "PLAIN", "value": "x" },
                    { "name": "PASSWORD", "valueFrom": { "secretKeyRef": { "name": secret, "key": "password" } } },
                    { "name": "OTHER", "valueFrom": { "secretKeyRef": { "name": "other", "key": "x" } } },
                ],
                "envFrom": [{ "prefix": "DB_", "secretRef": { "name": secret } }],
            }],
            "initContainers": [{
                "name": "init", "image": "example.org/init", "envFrom": [{ "secretRef": { "name": secret, "optional": true } }],
            }],
            "volumes": [
                { "name": "one", "secret": { "secretName": secret, "items": [{ "key": "password", "path": "p" }] } },
                { "name": "many", "projected": { "sources": [
                    { "configMap": { "name": "settings" } }, { "secret": { "name": secret } },
                ] } },
            ],
            "terminationGracePeriodSeconds": 0,
        },
    })
}

/// The names of Secrets in a pod template, in its order, without those of others.
fn referred(object: &Value) -> Vec<String> {
    let pod = &object["spec"]["template"]["spec"];
    let places = [
        "/containers/0/env/1/valueFrom/secretKeyRef/name",
        "/containers/0/envFrom/0/secretRef/name",
        "/initContainers/0/envFrom/0/secretRef/name",
        "/volumes/0/secret/secretName",
        "/volumes/1/projected/sources/1/secret/name",
    ];
    let mut names: Vec<String> = places
        .iter()
        .map(|place| pod.pointer(place).unwrap().as_str().unwrap().to_owned())
        .collect();
    names.dedup();
    names
}

/// A workload that lets lockstep move its references.
async fn workload(workloads: &TestWorkloads, name: &str) {
    closed_workload(workloads, name).await;
    open(workloads, name, json!("cache, database")).await;
}

/// One that does not.
async fn closed_workload(workloads: &TestWorkloads, name: &str) {
    let template = template(name, "database");
    workloads
        .workload("Deployment", name, json!({ "replicas": 1, "template": template }))
        .await;
}

/// Says on a workload which references may be moved.
async fn open(workloads: &TestWorkloads, name: &str, secrets: Value) {
    let own = json!({ "metadata": { "annotations": { "lockstep.dev/versioned": secrets } } });
    workloads
        .api("Deployment")
        .patch(name, &PatchParams::default(), &Patch::Merge(own))
        .await
        .unwrap();
}

async fn declare(workloads: &TestWorkloads, target: Value, rollout: Value) -> String {
    workloads.put("one").await;
    let mut target = target;
    target["versioned"] = json!(true);
    let spec = json!({
        "refreshInterval": "1s",
        "data": [{ "secretKey": "password", "remoteRef": { "key": workloads.test.key("database"), "property": "password" } }],
        "target": target,
        "rotation": { "rollout": rollout },
    });
    workloads.test.declare("database", spec).await;
    holds(workloads, "one").await
}

/// Waits until the current Secret holds that, and answers its name.
async fn holds(workloads: &TestWorkloads, value: &str) -> String {
    let name = eventually("the current Secret", || async {
        let object = workloads.test.synced_secrets().get("database").await?;
        let target = object.status.and_then(|status| status.target);
        let target = target.ok_or_else(|| anyhow::anyhow!("not written yet"))?;
        let secret = workloads.test.secrets().get(&target.name).await?;
        anyhow::ensure!(
            text(&secret, "password").as_deref() == Some(value),
            "another value"
        );
        anyhow::ensure!(
            target.name == format!("database-{}", target.revision),
            "{}",
            target.name
        );
        anyhow::ensure!(secret.immutable == Some(true), "it can be changed");
        Ok(target.name)
    });
    match name.await {
        Ok(name) => name,
        Err(error) => panic!("{error:#}\n{}", workloads.test.cluster.operator.log()),
    }
}

/// Waits until the rollout of that Secret is so far.
async fn phase(workloads: &TestWorkloads, secret: &str, phase: RolloutPhase) -> SyncedSecret {
    let revision = secret.trim_start_matches("database-").to_owned();
    workloads
        .test
        .wait_for("database", &format!("{phase:?} of {secret}"), |object| {
            let rotation = object.status.as_ref().and_then(|status| status.rotation.as_ref());
            let rollout = rotation.and_then(|rotation| rotation.rollout.as_ref());
            rollout.is_some_and(|rollout| rollout.phase == phase && rollout.revision == revision)
        })
        .await
}

async fn refers(workloads: &TestWorkloads, name: &str) -> Vec<String> {
    referred(&workloads.get("Deployment", name).await)
}

/// The Secrets of the target that are there.
async fn secrets(workloads: &TestWorkloads) -> Vec<String> {
    let all = workloads
        .test
        .secrets()
        .list(&ListParams::default())
        .await
        .unwrap();
    let names = all.items.iter().map(Secret::name_any);
    names.filter(|name| name.starts_with("database")).collect()
}

async fn only_these_are_left(workloads: &TestWorkloads, expected: &[&String]) {
    let mut expected: Vec<&str> = expected.iter().map(|name| name.as_str()).collect();
    expected.sort_unstable();
    let left = eventually("earlier Secrets to go", || async {
        let left = secrets(workloads).await;
        anyhow::ensure!(left == expected, "{left:?}, not {expected:?}");
        Ok(())
    });
    if let Err(error) = left.await {
        panic!("{error:#}\n{}", workloads.test.cluster.operator.log());
    }
}

#[tokio::test]
async fn targets_move_to_each_versioned_secret_wave_by_wave() {
    let workloads = TestWorkloads::new("versioned").await;
    workload(&workloads, "api").await;
    workload(&workloads, "worker").await;
    let before = workloads.get("Deployment", "api").await;
    let first = declare(
        &workloads,
        json!({ "revisionHistoryLimit": 1 }),
        json!({
            "targets": [{ "kind": "Deployment", "name": "api" }, { "kind": "Deployment", "name": "worker" }],
            "minimumInterval": "0s",
        }),
    )
    .await;
    // nothing refers to it before, so the first one is rolled out too
    phase(&workloads, &first, RolloutPhase::Complete).await;
    for name in ["api", "worker"] {
        assert_eq!(
            refers(&workloads, name).await,
            std::slice::from_ref(&first),
            "{name}"
        );
    }
    let after = workloads.get("Deployment", "api").await;
    let mut expected = before["spec"].clone();
    let pod = template("api", &first)["spec"].clone();
    for (field, value) in after["spec"]["template"]["spec"].as_object().unwrap() {
        let set = pod.get(field).is_none();
        if set {
            assert_eq!(value, &expected["template"]["spec"][field], "{field}");
        }
    }
    let text = serde_json::to_string(&expected["template"]).unwrap();
    let moved = text.replace(":\"database\"", &format!(":\"{first}\""));
    expected["template"] = serde_json::from_str(&moved).unwrap();
    expected["template"]["metadata"]["annotations"] =
        json!({ "lockstep.dev/revision.database": first.trim_start_matches("database-") });
    assert_eq!(after["spec"], expected, "nothing else changed");

    // a wave that does not become ready: the rest stays on the Secret that it has
    workloads.progress_deadline("3s").await;
    workloads.pods.break_app("api");
    workloads.put("two").await;
    let second = holds(&workloads, "two").await;
    phase(&workloads, &second, RolloutPhase::Held).await;
    assert_eq!(refers(&workloads, "api").await, std::slice::from_ref(&second));
    assert_eq!(refers(&workloads, "worker").await, std::slice::from_ref(&first));
    let kept = workloads.test.secrets().get(&first).await.unwrap();
    assert_eq!(
        crate::shared_cluster::text(&kept, "password").as_deref(),
        Some("one")
    );
    // a held rollout gives way to a newer value, and what its targets run on stays
    workloads.put("three").await;
    let third = holds(&workloads, "three").await;
    phase(&workloads, &third, RolloutPhase::Held).await;
    only_these_are_left(&workloads, &[&first, &second, &third]).await;
    workloads.progress_deadline("10m").await;
    workloads.pods.mend_app("api");
    let object = phase(&workloads, &third, RolloutPhase::Complete).await;
    for name in ["api", "worker"] {
        assert_eq!(
            refers(&workloads, name).await,
            std::slice::from_ref(&third),
            "{name}"
        );
    }
    assert_eq!(object.status.unwrap().versions[0].name, second);
    only_these_are_left(&workloads, &[&second, &third]).await;

    // it is put back when somebody deletes it
    let old = workloads.test.secrets().get(&third).await.unwrap();
    workloads
        .test
        .secrets()
        .delete(&third, &DeleteParams::default())
        .await
        .unwrap();
    eventually("the Secret to come back", || async {
        let new = workloads.test.secrets().get(&third).await?;
        anyhow::ensure!(new.uid() != old.uid(), "not deleted yet");
        Ok(())
    })
    .await
    .unwrap();

    // the manifest is applied again: nobody fights over it, and who asks has it moved again
    let again = json!({ "spec": { "template": { "spec": { "volumes": [
        { "name": "one", "secret": { "secretName": "database" } },
    ] } } } });
    workloads
        .api("Deployment")
        .patch("worker", &PatchParams::default(), &Patch::Strategic(again))
        .await
        .unwrap();
    let ask = json!({ "metadata": { "annotations": { "lockstep.dev/rotate-now": "again" } } });
    workloads
        .test
        .synced_secrets()
        .patch("database", &PatchParams::default(), &Patch::Merge(ask))
        .await
        .unwrap();
    eventually("the references to be moved again", || async {
        let names = refers(&workloads, "worker").await;
        anyhow::ensure!(names == std::slice::from_ref(&third), "{names:?}");
        Ok(())
    })
    .await
    .unwrap();
}

/// Someone who moves a reference by hand leaves an entry of managed fields that has only the reference.
#[tokio::test]
async fn reference_that_was_changed_by_hand_moves_on() {
    let workloads = TestWorkloads::new("by-hand").await;
    workload(&workloads, "api").await;
    let rollout = json!({ "targets": [{ "kind": "Deployment", "name": "api" }], "minimumInterval": "0s" });
    let first = declare(&workloads, json!({}), rollout).await;
    phase(&workloads, &first, RolloutPhase::Complete).await;
    let current = workloads.get("Deployment", "api").await;
    let moved: Value = serde_json::from_str(
        &current["spec"]["template"]
            .to_string()
            .replace(&first, "database"),
    )
    .unwrap();
    let kubectl = PatchParams {
        field_manager: Some("kubectl-patch".to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(json!({ "spec": { "template": { "spec": moved["spec"] } } }));
    workloads
        .api("Deployment")
        .patch("api", &kubectl, &patch)
        .await
        .unwrap();
    workloads.put("two").await;
    let second = holds(&workloads, "two").await;
    phase(&workloads, &second, RolloutPhase::Complete).await;
    let refers = refers(&workloads, "api").await;
    assert!(refers.iter().all(|name| *name == second), "{refers:?}");
    let object = workloads.get("Deployment", "api").await;
    let managers = object["metadata"]["managedFields"].as_array().unwrap();
    let movers = managers.iter().filter(|entry| {
        entry["operation"] == "Update" && entry["manager"].as_str().unwrap().starts_with("lockstep")
    });
    let names: Vec<_> = movers.map(|entry| entry["manager"].clone()).collect();
    assert_eq!(names, ["lockstep"], "one manager moves all references");
}

#[tokio::test]
async fn rollback_moves_references_back_and_writes_no_secret() {
    let workloads = TestWorkloads::new("versioned-back").await;
    workload(&workloads, "api").await;
    workload(&workloads, "worker").await;
    let first = declare(
        &workloads,
        json!({ "deletionPolicy": "Delete" }),
        json!({
            "targets": [{ "kind": "Deployment", "name": "api" }, { "kind": "Deployment", "name": "worker" }],
            "minimumInterval": "0s", "onFailure": "Rollback",
        }),
    )
    .await;
    phase(&workloads, &first, RolloutPhase::Complete).await;
    let good = workloads.test.secrets().get(&first).await.unwrap();
    workloads.progress_deadline("3s").await;
    workloads.pods.break_app("api");
    workloads.put("two").await;
    let object = workloads.says("RollingBack", "").await;
    workloads.progress_deadline("10m").await;
    let second = object.status.unwrap().rotation.unwrap().refused.unwrap().revision;
    workloads.pods.mend_app("api");
    let object = phase(&workloads, &first, RolloutPhase::RolledBack).await;
    let status = object.status.unwrap();
    assert_eq!(status.target.unwrap().name, first);
    assert_eq!(status.versions[0].revision, second);
    for name in ["api", "worker"] {
        assert_eq!(
            refers(&workloads, name).await,
            std::slice::from_ref(&first),
            "{name}"
        );
    }
    let back = workloads.test.secrets().get(&first).await.unwrap();
    assert_eq!(
        (back.uid(), back.resource_version()),
        (good.uid(), good.resource_version())
    );

    // every remote value is gone, and so are all of its Secrets
    let path = format!("secret/metadata/{}", workloads.test.key("database"));
    workloads.test.cluster.bao.delete(&path).await.unwrap();
    only_these_are_left(&workloads, &[]).await;
}

#[tokio::test]
async fn target_without_a_movable_reference_is_reported() {
    let workloads = TestWorkloads::new("versioned-none").await;
    workloads
        .workload("Deployment", "api", json!({ "replicas": 1 }))
        .await;
    let first = declare(
        &workloads,
        json!({}),
        json!({ "targets": [{ "kind": "Deployment", "name": "api" }], "minimumInterval": "0s" }),
    )
    .await;
    let object = phase(&workloads, &first, RolloutPhase::Held).await;
    let rollout = object.status.unwrap().rotation.unwrap().rollout.unwrap();
    assert_eq!(rollout.targets[0].state, TargetState::NoReference);
    workloads
        .says("InvalidSpec", "its pod template refers to no Secret of it")
        .await;
    closed_workload(&workloads, "api").await;
    let before = workloads.get("Deployment", "api").await["metadata"]["generation"].clone();
    let ask = json!({ "metadata": { "annotations": { "lockstep.dev/rotate-now": "look" } } });
    workloads
        .test
        .synced_secrets()
        .patch("database", &PatchParams::default(), &Patch::Merge(ask))
        .await
        .unwrap();
    workloads
        .test
        .wait_for("database", "another look", |object| {
            let rotation = object.status.as_ref().and_then(|status| status.rotation.as_ref());
            rotation.is_some_and(|rotation| {
                let rollout = rotation.rollout.as_ref();
                rotation.handled_rotate_now.as_deref() == Some("look")
                    && rollout.is_some_and(|rollout| rollout.phase == RolloutPhase::Held)
            })
        })
        .await;
    workloads
        .says(
            "InvalidSpec",
            "kubectl annotate deployment/api lockstep.dev/versioned=<Secret>",
        )
        .await;
    let object = workloads.get("Deployment", "api").await;
    assert_eq!(object["metadata"]["generation"], before);
    assert_eq!(referred(&object), ["database"]);
    open(&workloads, "api", json!("database")).await;
    phase(&workloads, &first, RolloutPhase::Complete).await;
}

#[tokio::test]
async fn operator_account_moves_only_references_to_the_named_version() {
    let workloads = TestWorkloads::new("versioned-guard").await;
    workload(&workloads, "api").await;
    let client = workloads
        .test
        .cluster
        .plane
        .client_for_service_account("lockstep-system", "lockstep")
        .await
        .unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment"));
    let api: Api<DynamicObject> = Api::namespaced_with(client, &workloads.test.namespace, &resource);
    let original = api.get("api").await.unwrap();
    let as_it_was = serde_json::to_value(&original).unwrap();
    // each is a change of one place, besides the annotation
    let pod = "/spec/template/spec";
    let places = [
        "containers/0/env/1/valueFrom/secretKeyRef/name",
        "containers/0/envFrom/0/secretRef/name",
        "initContainers/0/envFrom/0/secretRef/name",
        "volumes/0/secret/secretName",
        "volumes/1/projected/sources/1/secret/name",
    ];
    let new = "database-0000000f";
    let put = async |changes: &[(&str, Value)], annotation: &str| {
        let mut object = as_it_was.clone();
        for (place, value) in changes {
            let pointer = format!("{pod}/{place}");
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            match object.pointer_mut(parent).unwrap() {
                Value::Array(items) => items[key.parse::<usize>().unwrap()] = value.clone(),
                parent => parent[key] = value.clone(),
            }
        }
        object["spec"]["template"]["metadata"]["annotations"] =
            json!({ "lockstep.dev/revision.database": annotation });
        // what is not named stays, so lists and maps are named whole
        let mut template = object["spec"]["template"].clone();
        template["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("creationTimestamp");
        let patch = json!([{ "op": "replace", "path": "/spec/template", "value": template }]);
        let request = axum::http::Request::patch(format!(
            "/apis/apps/v1/namespaces/{}/deployments/api?dryRun=All&fieldManager=lockstep",
            workloads.test.namespace
        ))
        .header("content-type", "application/json-patch+json")
        .body(serde_json::to_vec(&patch).unwrap())
        .unwrap();
        api.clone().into_client().request::<Value>(request).await
    };
    let everything: Vec<(&str, Value)> = places.iter().map(|place| (*place, json!(new))).collect();
    put(&everything, "0000000f").await.unwrap();
    for place in places {
        put(&[(place, json!(new))], "0000000f").await.unwrap();
    }
    // what the account can write itself opens nothing
    let closed = async || {
        for place in places {
            match put(&[(place, json!(new))], "0000000f").await {
                Err(kube::Error::Api(status)) => {
                    assert!(
                        status.message.contains("lockstep-workloads"),
                        "{}",
                        status.message
                    );
                }
                other => panic!("{place}: {other:?}"),
            }
        }
    };
    for own in [
        Value::Null,
        json!(""),
        json!("cache"),
        json!("database-0000000f,databases"),
    ] {
        open(&workloads, "api", own).await;
        closed().await;
    }
    let own = json!({ "metadata": { "annotations": { "lockstep.dev/versioned": "database" } } });
    match api
        .patch("api", &PatchParams::default(), &Patch::Merge(own))
        .await
    {
        Err(kube::Error::Api(status)) => {
            assert!(
                status.message.contains("lockstep-workloads"),
                "{}",
                status.message
            );
        }
        other => panic!("the account opened a workload by itself: {other:?}"),
    }
    open(&workloads, "api", json!("database")).await;
    let refused = async |changes: &[(&str, Value)], annotation: &str| match put(changes, annotation).await {
        Err(kube::Error::Api(status)) => assert!(
            status.message.contains("lockstep-workloads"),
            "{changes:?}: {}",
            status.message
        ),
        other => panic!("{changes:?} {annotation}: {other:?}"),
    };
    for place in places {
        // to a revision that the annotation does not name, to another Secret, to one of no revision
        refused(&[(place, json!(new))], "0000000e").await;
        refused(&[(place, json!("other-0000000f"))], "0000000f").await;
        refused(&[(place, json!("other"))], "0000000f").await;
        refused(&[(place, json!("database-x"))], "x").await;
        refused(&[(place, json!("database-admin"))], "admin").await;
    }
    let (env, volumes) = (
        &as_it_was["spec"]["template"]["spec"]["containers"][0]["env"],
        "volumes",
    );
    for (place, value) in [
        // from the Secret of somebody else
        ("containers/0/env/2/valueFrom/secretKeyRef/name", json!(new)),
        // beside the reference, or in its place
        ("containers/0/env/1/valueFrom/secretKeyRef/key", json!("other")),
        ("containers/0/env/1/valueFrom/secretKeyRef/optional", json!(true)),
        (
            "containers/0/env/1/valueFrom",
            json!({ "configMapKeyRef": { "name": "database", "key": "x" } }),
        ),
        ("containers/0/env/1", json!({ "name": "PASSWORD", "value": "x" })),
        ("containers/0/env/0/value", json!("y")),
        (
            "containers/0/env/0",
            json!({ "name": "PLAIN", "valueFrom": { "secretKeyRef": { "name": new, "key": "x" } } }),
        ),
        ("containers/0/env", json!([env[1]])),
        ("containers/0/envFrom/0/prefix", json!("X_")),
        (
            "containers/0/envFrom/0",
            json!({ "prefix": "DB_", "configMapRef": { "name": "x" } }),
        ),
        ("containers/0/envFrom", json!([])),
        ("containers/0/image", json!("example.org/evil")),
        ("containers/0/command", json!(["sh"])),
        (
            "containers/0/volumeMounts",
            json!([{ "name": "one", "mountPath": "/x" }]),
        ),
        ("containers/0/securityContext", json!({ "privileged": true })),
        ("initContainers/0/image", json!("example.org/evil")),
        ("initContainers/0/envFrom/0/secretRef/optional", json!(false)),
        ("initContainers", json!([])),
        (
            "containers",
            json!([{ "name": "app", "image": "example.org/app" }, { "name": "x", "image": "example.org/x" }]),
        ),
        ("volumes/0/secret/items/0/path", json!("q")),
        ("volumes/0/secret/defaultMode", json!(511)),
        ("volumes/0", json!({ "name": "one", "hostPath": { "path": "/" } })),
        ("volumes/0/name", json!("renamed")),
        ("volumes/1/projected/defaultMode", json!(511)),
        ("volumes/1/projected/sources/0/configMap/name", json!("x")),
        (
            "volumes/1/projected/sources/1",
            json!({ "serviceAccountToken": { "path": "t" } }),
        ),
        ("volumes/1/projected/sources/1/secret/optional", json!(true)),
        (
            "volumes/1/projected/sources",
            json!([{ "configMap": { "name": "settings" } }]),
        ),
        (volumes, json!([])),
        ("serviceAccountName", json!("admin")),
        ("hostNetwork", json!(true)),
        ("imagePullSecrets", json!([{ "name": new }])),
    ] {
        refused(&[(place, value.clone())], "0000000f").await;
        // nor together with what is allowed
        let mut both = vec![(places[3], json!(new))];
        if !place.starts_with("volumes/0") && place != volumes {
            both.push((place, value));
            refused(&both, "0000000f").await;
        }
    }
}

/// Sends what a rollout sends to move the references of a workload, with these managed fields in the same request.
pub(crate) async fn move_with(
    client: kube::Client,
    path: &str,
    object: &Value,
    managed_fields: Option<&Value>,
) -> kube::Result<Value> {
    let pointer = "/spec/template/spec";
    let pod = object.pointer(pointer).unwrap().to_string();
    let pod: Value = serde_json::from_str(&pod.replace(":\"database\"", ":\"database-0000000f\"")).unwrap();
    let mut patch = vec![
        json!({ "op": "replace", "path": pointer, "value": pod }),
        json!({
            "op": "add", "path": "/spec/template/metadata/annotations",
            "value": { "lockstep.dev/revision.database": "0000000f" },
        }),
    ];
    if let Some(managed_fields) = managed_fields {
        patch.push(json!({ "op": "replace", "path": "/metadata/managedFields", "value": managed_fields }));
    }
    let request = axum::http::Request::patch(format!("{path}?dryRun=All&fieldManager=lockstep"))
        .header("content-type", "application/json-patch+json")
        .body(serde_json::to_vec(&patch).unwrap())
        .unwrap();
    client.request::<Value>(request).await
}

/// The entry of a manager in an object's managed fields.
pub(crate) fn entry<'a>(managed_fields: &'a mut Value, manager: &str) -> &'a mut Value {
    let mut entries = managed_fields.as_array_mut().unwrap().iter_mut();
    entries.find(|entry| entry["manager"] == manager).unwrap()
}

/// A server-side apply removes fields that its manager owned before. Nobody may choose these fields together with a move.
#[tokio::test]
async fn move_changes_only_managed_fields_of_references() {
    let workloads = TestWorkloads::new("versioned-fields").await;
    let path = format!(
        "/apis/apps/v1/namespaces/{}/deployments/api",
        workloads.test.namespace
    );
    let api = workloads.api("Deployment");
    let applied = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "api", "annotations": { "lockstep.dev/versioned": "database" } },
        "spec": { "selector": { "matchLabels": { "app": "api" } }, "template": template("api", "database") },
    });
    api.patch("api", &PatchParams::apply("gitops"), &Patch::Apply(&applied))
        .await
        .unwrap();
    let hardened = json!({ "spec": { "template": { "spec": {
        "automountServiceAccountToken": false, "securityContext": { "runAsNonRoot": true },
    } } } });
    let security = PatchParams {
        field_manager: Some("security".to_owned()),
        ..PatchParams::default()
    };
    api.patch("api", &security, &Patch::Merge(hardened))
        .await
        .unwrap();
    // an entry that has only references
    let references = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "api" },
        "spec": { "template": { "spec": { "containers": [{
            "name": "app", "envFrom": [{ "prefix": "DB_", "secretRef": { "name": "database" } }],
        }] } } },
    });
    api.patch(
        "api",
        &PatchParams::apply("wiring").force(),
        &Patch::Apply(&references),
    )
    .await
    .unwrap();
    let stored = workloads.settled("api").await;
    let managed_fields = &stored["metadata"]["managedFields"];
    let client = as_operator(&workloads.test).await;

    let mut moved = move_with(client.clone(), &path, &stored, None).await.unwrap();
    let names: Vec<String> = referred(&moved);
    assert_eq!(names, ["database-0000000f"]);
    let pod = "/fieldsV1/f:spec/f:template/f:spec";
    let gitops = entry(&mut moved["metadata"]["managedFields"], "gitops");
    let container = &gitops.pointer(pod).unwrap()["f:containers"]["k:{\"name\":\"app\"}"];
    assert!(container.get("f:image").is_some(), "{gitops}");
    assert_eq!(container.get("f:envFrom"), None, "{gitops}");
    // managed fields as they are change nothing
    move_with(client.clone(), &path, &stored, Some(managed_fields))
        .await
        .unwrap();

    let app = "f:containers/k:{\"name\":\"app\"}";
    let password = format!("{app}/f:env/k:{{\"name\":\"PASSWORD\"}}");
    let volume = "f:volumes/k:{\"name\":\"one\"}";
    let nothing = json!({});
    let mut all_forged: Vec<(String, Value)> = Vec::new();
    let mut forge = |manager: &str, change: &dyn Fn(&mut Value)| {
        let mut forged = managed_fields.clone();
        let entry = entry(&mut forged, manager);
        change(entry.pointer_mut(pod).unwrap());
        all_forged.push((format!("{manager}: {}", entry["fieldsV1"]), forged));
    };
    for added in [
        "f:automountServiceAccountToken".to_owned(),
        "f:securityContext".to_owned(),
        "f:hostNetwork".to_owned(),
        format!("{app}/f:securityContext"),
        format!("{app}/f:resources"),
        format!("{password}/f:value"),
        format!("{password}/f:valueFrom/f:fieldRef"),
        format!("{volume}/f:secret/f:defaultMode"),
        "f:containers/k:{\"name\":\"other\"}".to_owned(),
        "f:volumes/k:{\"name\":\"other\"}/f:secret/f:secretName".to_owned(),
    ] {
        forge("gitops", &|fields| {
            let mut place = fields;
            for key in added.split('/') {
                place = &mut place[key];
            }
            *place = nothing.clone();
        });
    }
    for (parent, field) in [
        (String::new(), "f:terminationGracePeriodSeconds"),
        (app.to_owned(), "f:image"),
        (app.to_owned(), "."),
        (app.to_owned(), "f:env"),
        (format!("{app}/f:env/k:{{\"name\":\"PLAIN\"}}"), "f:value"),
        (password.clone(), "f:name"),
        (volume.to_owned(), "."),
        (format!("{volume}/f:secret"), "f:items"),
        ("f:volumes".to_owned(), "k:{\"name\":\"one\"}"),
    ] {
        forge("gitops", &|fields| {
            let mut place = fields;
            for key in parent.split('/').filter(|key| !key.is_empty()) {
                place = &mut place[key];
            }
            place.as_object_mut().unwrap().remove(field).unwrap();
        });
    }
    forge("security", &|fields| *fields = json!({ "f:securityContext": {} }));
    // an empty map owns the field itself, with everything in it
    forge("gitops", &|fields| fields["f:containers"] = nothing.clone());
    forge("wiring", &|fields| fields["f:containers"] = nothing.clone());
    forge("wiring", &|fields| *fields = nothing.clone());
    for own in [
        json!({ "f:automountServiceAccountToken": {} }),
        json!({ "f:containers": {} }),
        json!({ "f:containers": { "k:{\"name\":\"app\"}": {} } }),
        json!({ "f:containers": { "k:{\"name\":\"app\"}": { "f:image": {} } } }),
        json!({ "f:containers": { "k:{\"name\":\"app\"}": { "f:env": {} } } }),
        json!({ "f:containers": { "k:{\"name\":\"app\"}": { "f:env": { "k:{\"name\":\"PLAIN\"}": { "f:value": {} } } } } }),
        json!({ "f:volumes": { "k:{\"name\":\"one\"}": { "f:secret": {} } } }),
        json!({ "f:volumes": { "k:{\"name\":\"one\"}": { "f:secret": { "f:secretName": {}, "f:items": {} } } } }),
    ] {
        let fields = json!({ "f:spec": { "f:template": { "f:spec": own } } });
        let changes = [
            json!({}),
            json!({ "manager": "lockstep.database", "operation": "Apply" }),
        ];
        for forged in added_entries(&stored, &fields, &changes) {
            all_forged.push((format!("lockstep: {own}"), forged));
        }
    }
    for (what, forged) in all_forged {
        match move_with(client.clone(), &path, &stored, Some(&forged)).await {
            Err(kube::Error::Api(status)) => {
                assert!(
                    status.message.contains("managed fields"),
                    "{what}: {}",
                    status.message
                );
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// Two variables of one name are one field to the API server.
#[tokio::test]
async fn repeated_variables_and_large_workloads_can_be_moved() {
    let workloads = TestWorkloads::new("versioned-size").await;
    let client = as_operator(&workloads.test).await;
    let password = |name: &str| json!({ "name": name, "valueFrom": { "secretKeyRef": { "name": "database", "key": "password" } } });
    let mut repeated = template("repeated", "database");
    let env = repeated["spec"]["containers"][0]["env"].as_array_mut().unwrap();
    env.extend([password("PASSWORD"), password("SAID \"SO\"")]);
    let mut large = template("large", "database");
    let container = |name: String| {
        let env: Vec<Value> = (0..60)
            .map(|variable| password(&format!("PASSWORD_{variable}")))
            .collect();
        json!({ "name": name, "image": "example.org/app", "env": env })
    };
    large["spec"]["containers"] = (0..60).map(|index| container(format!("app-{index}"))).collect();
    for (name, template) in [("repeated", repeated), ("large", large)] {
        let object = json!({
            "metadata": { "name": name, "annotations": { "lockstep.dev/versioned": "database" } },
            "spec": {
                "replicas": 0, "paused": true, "selector": { "matchLabels": { "app": name } }, "template": template,
            },
        });
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        // an apply rejects what is repeated
        workloads
            .api("Deployment")
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
        let path = format!(
            "/apis/apps/v1/namespaces/{}/deployments/{name}",
            workloads.test.namespace
        );
        let stored = workloads.get("Deployment", name).await;
        let moved = move_with(client.clone(), &path, &stored, None).await.unwrap();
        let pod = moved["spec"]["template"]["spec"].to_string();
        assert!(!pod.contains(":\"database\""), "{pod}");
    }
}
