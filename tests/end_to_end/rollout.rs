//! A rotation is a rollout: with the real controllers of Kubernetes, and pods that are played.

use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use lockstep_api::{ConditionType, RolloutPhase, RolloutStatus, SyncedSecret, TargetState};
use lockstep_testkit::pods::{self, Pods};
use serde_json::{Value, json};

use crate::{
    rights::{added_entries, as_lockstep, as_operator, forged_managed_fields},
    shared_cluster::{SharedCluster, TestNamespace, eventually, shared_cluster, text},
    versioned::{entry, move_with},
};

const REVISION: &str = "/spec/template/metadata/annotations/lockstep.dev~1revision.database";

/// A namespace whose workloads lockstep may restart.
pub(crate) struct TestWorkloads {
    pub(crate) test: TestNamespace,
    pub(crate) pods: Pods,
}

impl TestWorkloads {
    pub(crate) async fn new(name: &str) -> Self {
        Self::on(shared_cluster().await, name).await
    }

    pub(crate) async fn on(cluster: &'static SharedCluster, name: &str) -> Self {
        let test = cluster.test_namespace(name).await;
        let pods = Pods::play(test.client.clone(), &test.namespace);
        let workloads = Self { test, pods };
        workloads.grant().await;
        workloads
    }

    pub(crate) async fn grant(&self) {
        self.test
            .apply_raw(&json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": { "name": "lockstep-rollouts", "namespace": self.test.namespace },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "lockstep-rollouts" },
                "subjects": [{ "kind": "ServiceAccount", "name": "lockstep", "namespace": "lockstep-system" }],
            }))
            .await
            .unwrap();
    }

    pub(crate) async fn workload(&self, kind: &str, name: &str, more: Value) {
        let mut spec = json!({
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name }, "annotations": { "team": "shop" } },
                "spec": { "containers": [{ "name": "app", "image": "example.org/app" }], "terminationGracePeriodSeconds": 0 },
            },
        });
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let object = json!({
            "apiVersion": "apps/v1", "kind": kind,
            "metadata": { "name": name, "namespace": self.test.namespace, "labels": { "tier": "web" } },
            "spec": spec,
        });
        self.test.apply_raw(&object).await.unwrap();
    }

    pub(crate) fn api(&self, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", kind));
        Api::namespaced_with(self.test.client.clone(), &self.test.namespace, &resource)
    }

    pub(crate) async fn get(&self, kind: &str, name: &str) -> Value {
        serde_json::to_value(self.api(kind).get(name).await.unwrap()).unwrap()
    }

    /// Waits until a Deployment is ready: what was not before its restart is not the new value's fault.
    pub(crate) async fn is_ready(&self, name: &str) {
        eventually("a ready Deployment", || async {
            let object = self.get("Deployment", name).await;
            let status = &object["status"];
            anyhow::ensure!(
                status["availableReplicas"] == object["spec"]["replicas"],
                "{status}"
            );
            Ok(())
        })
        .await
        .unwrap();
    }

    /// Waits until a Deployment is ready and its controllers no longer change its managed fields.
    pub(crate) async fn settled(&self, name: &str) -> Value {
        self.is_ready(name).await;
        eventually("a Deployment that nobody changes", || async {
            let before = self.get("Deployment", name).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let after = self.get("Deployment", name).await;
            anyhow::ensure!(before == after, "changed");
            Ok(after)
        })
        .await
        .unwrap()
    }

    /// The revision that a workload's pods get.
    pub(crate) async fn revision(&self, kind: &str, name: &str) -> Option<String> {
        let object = self.get(kind, name).await;
        object
            .pointer(REVISION)
            .and_then(Value::as_str)
            .map(str::to_owned)
    }

    pub(crate) async fn put(&self, value: &str) {
        self.test.put("database", json!({ "password": value })).await;
    }

    /// A SyncedSecret with that rollout, whose Secret holds `one`.
    pub(crate) async fn declare(&self, rollout: Value) -> String {
        self.put("one").await;
        let spec = json!({
            "refreshInterval": "1s",
            "data": [{ "secretKey": "password", "remoteRef": { "key": self.test.key("database"), "property": "password" } }],
            "rotation": { "rollout": rollout },
        });
        self.test.declare("database", spec).await;
        self.holds("one").await
    }

    /// Waits until the Secret holds that, and answers its revision.
    pub(crate) async fn holds(&self, value: &str) -> String {
        let secret = self
            .test
            .wait_for_secret("database", value, |secret| {
                text(secret, "password").as_deref() == Some(value)
            })
            .await;
        let version = secret.metadata.resource_version;
        let said = |object: &SyncedSecret| {
            let target = object.status.as_ref()?.target.as_ref()?;
            (Some(&target.resource_version) == version.as_ref()).then(|| target.revision.clone())
        };
        let object = self
            .test
            .wait_for("database", "the status of that Secret", |object| {
                said(object).is_some()
            })
            .await;
        said(&object).unwrap()
    }

    /// Changes how long a target may take, and waits until the operator has seen it. Tests give time to the rollouts that end
    /// well, however slow the machine is, and little to those whose targets are broken.
    pub(crate) async fn progress_deadline(&self, deadline: &str) {
        let change = json!({ "spec": { "rotation": { "rollout": { "progressDeadline": deadline } } } });
        let changed = self
            .test
            .synced_secrets()
            .patch("database", &PatchParams::default(), &Patch::Merge(change))
            .await
            .unwrap();
        self.test
            .wait_for("database", "the status of that spec", |object| {
                let status = object.status.as_ref();
                status.and_then(|status| status.observed_generation) == changed.metadata.generation
            })
            .await;
    }

    pub(crate) async fn phase(&self, phase: RolloutPhase) -> RolloutStatus {
        let object = self
            .test
            .wait_for("database", phase.as_str(), |object| {
                rollout(object).is_some_and(|rollout| rollout.phase == phase)
            })
            .await;
        rollout(&object).unwrap().clone()
    }

    pub(crate) async fn says(&self, reason: &str, text: &str) -> SyncedSecret {
        let is = |object: &SyncedSecret| {
            let status = object.status.as_ref()?;
            let condition = status.condition(ConditionType::RolloutComplete)?;
            Some(condition.reason == reason && condition.message.contains(text))
        };
        self.test
            .wait_for("database", &format!("{reason}: {text}"), |object| {
                is(object) == Some(true)
            })
            .await
    }
}

fn rollout(object: &SyncedSecret) -> Option<&RolloutStatus> {
    object.status.as_ref()?.rotation.as_ref()?.rollout.as_ref()
}

fn state(rollout: &RolloutStatus, name: &str) -> TargetState {
    let mut targets = rollout.targets.iter();
    targets.find(|target| target.name == name).unwrap().state
}

#[tokio::test]
async fn new_value_is_rolled_out_wave_by_wave() {
    let workloads = TestWorkloads::new("waves").await;
    pods::add_node(&workloads.test.client).await.unwrap();
    let all = [
        ("Deployment", "api"),
        ("StatefulSet", "queue"),
        ("DaemonSet", "agent"),
    ];
    workloads
        .workload("Deployment", "api", json!({ "replicas": 2 }))
        .await;
    workloads
        .workload(
            "StatefulSet",
            "queue",
            json!({ "replicas": 2, "serviceName": "queue" }),
        )
        .await;
    workloads.workload("DaemonSet", "agent", json!({})).await;
    let targets: Vec<Value> = all
        .iter()
        .map(|(kind, name)| json!({ "kind": kind, "name": name }))
        .collect();
    let first = workloads
        .declare(json!({ "targets": targets, "soak": "1s" }))
        .await;
    let mut before = Vec::new();
    for (kind, name) in all {
        assert_eq!(
            workloads.revision(kind, name).await,
            None,
            "a first sync restarts nothing"
        );
        before.push(workloads.get(kind, name).await);
    }

    workloads.put("two").await;
    let second = workloads.holds("two").await;
    let done = workloads.phase(RolloutPhase::Complete).await;
    assert_eq!((done.revision.as_str(), done.targets.len()), (second.as_str(), 3));
    let mut times = Vec::new();
    for (target, ((kind, name), before)) in done.targets.iter().zip(all.iter().zip(&before)) {
        assert_eq!(target.state, TargetState::Ready, "{target}");
        assert_eq!(workloads.revision(kind, name).await.as_ref(), Some(&second));
        let after = workloads.get(kind, name).await;
        let mut spec = after["spec"].clone();
        spec["template"]["metadata"]["annotations"]
            .as_object_mut()
            .unwrap()
            .remove("lockstep.dev/revision.database");
        assert_eq!(spec, before["spec"], "nothing else of {target} changed");
        let ours = after["metadata"]["managedFields"]
            .as_array()
            .unwrap()
            .iter()
            .find(|fields| fields["manager"] == "lockstep.database");
        let owned = &ours.unwrap()["fieldsV1"]["f:spec"]["f:template"]["f:metadata"]["f:annotations"];
        assert_eq!(owned, &json!({ "f:lockstep.dev/revision.database": {} }));
        times.push(target.updated_time.unwrap());
    }
    assert!(
        times.is_sorted() && times[0] < times[1] && times[1] < times[2],
        "each after the soak of the one before: {times:?}"
    );
    let object = workloads.says("RolledOut", "3 targets").await;
    let conditions = &object.status.as_ref().unwrap().conditions;
    assert!(
        !conditions
            .iter()
            .any(|condition| condition.kind == ConditionType::Reconciling),
        "{conditions:?}"
    );

    // the spec changes, the value does not
    let generations = async || {
        let mut all_of_them = Vec::new();
        for (kind, name) in all {
            all_of_them.push(workloads.get(kind, name).await["metadata"]["generation"].clone());
        }
        all_of_them
    };
    let settled = generations().await;
    workloads
        .test
        .change("database", json!({ "refreshInterval": "2s" }))
        .await;
    workloads.test.refresh("database", "again").await;
    workloads.test.wait_for_reason("database", "Synced").await;
    assert_eq!(generations().await, settled);
    assert_ne!(first, second);
}

#[tokio::test]
async fn unready_target_holds_the_rollout_until_it_is_ready() {
    let workloads = TestWorkloads::new("hold").await;
    for name in ["api", "worker", "web"] {
        workloads
            .workload("Deployment", name, json!({ "replicas": 1 }))
            .await;
    }
    let selector = json!({ "kind": "Deployment", "selector": { "matchLabels": { "tier": "web" } } });
    let targets = json!([{ "kind": "Deployment", "name": "worker" }, selector]);
    workloads
        .declare(
            json!({ "targets": targets, "waves": [1, 5], "progressDeadline": "3s", "minimumInterval": "0s" }),
        )
        .await;
    workloads.is_ready("worker").await;
    workloads.pods.break_app("worker");
    workloads.put("two").await;
    let second = workloads.holds("two").await;
    let held = workloads.phase(RolloutPhase::Held).await;
    assert_eq!(
        (state(&held, "worker"), state(&held, "api")),
        (TargetState::NotReady, TargetState::Waiting)
    );
    assert_eq!(workloads.revision("Deployment", "api").await, None);
    let object = workloads
        .says(
            "TargetNotReady",
            "Deployment/worker: not ready within progressDeadline 3s",
        )
        .await;
    let status = object.status.as_ref().unwrap();
    assert!(status.condition(ConditionType::Stalled).is_some());
    assert!(
        status
            .condition(ConditionType::RolloutComplete)
            .unwrap()
            .message
            .contains("2 targets of later waves are unchanged")
    );

    let operator = &workloads.test.cluster.operator;
    let namespace = format!("namespace=\"{}\"", workloads.test.namespace);
    let metric = async |name: &str, label: &str| {
        let labels = [namespace.as_str(), label];
        operator
            .metric(&format!("lockstep_synced_secret_rollout_{name}"), &labels)
            .await
            .unwrap()
    };
    assert!((metric("phase", "phase=\"Held\"").await - 1.0).abs() < f64::EPSILON);
    assert!((metric("wave", "").await - 1.0).abs() < f64::EPSILON);
    assert!((metric("targets", "state=\"NotReady\"").await - 1.0).abs() < f64::EPSILON);
    assert!((metric("targets", "state=\"Waiting\"").await - 2.0).abs() < f64::EPSILON);

    workloads.pods.mend_app("worker");
    let done = workloads.phase(RolloutPhase::Complete).await;
    assert!(metric("phase", "phase=\"Held\"").await.abs() < f64::EPSILON);
    let ready = operator
        .metric("lockstep_propagation_seconds_count", &["stage=\"ready\""])
        .await;
    assert!(ready.unwrap() >= 1.0);
    let events: Api<Event> = Api::namespaced(workloads.test.client.clone(), &workloads.test.namespace);
    let events = events.list(&ListParams::default()).await.unwrap();
    for (reason, count) in [("TargetNotReady", 1), ("RolledOut", 1)] {
        let of = events
            .iter()
            .filter(|event| event.reason.as_deref() == Some(reason));
        assert_eq!(of.count(), count, "one event of {reason}");
    }
    let waves: Vec<(&str, i64)> = done
        .targets
        .iter()
        .map(|target| (target.name.as_str(), target.wave))
        .collect();
    assert_eq!(waves, [("worker", 1), ("api", 2), ("web", 2)]);
    assert_eq!(workloads.revision("Deployment", "api").await, Some(second));
}

#[tokio::test]
async fn value_that_breaks_a_target_is_rolled_back() {
    let workloads = TestWorkloads::new("rollback").await;
    workloads
        .workload("Deployment", "api", json!({ "replicas": 1 }))
        .await;
    workloads
        .workload("Deployment", "worker", json!({ "replicas": 1 }))
        .await;
    let targets =
        json!([{ "kind": "Deployment", "name": "api" }, { "kind": "Deployment", "name": "worker" }]);
    let first = workloads
        .declare(json!({ "targets": targets, "minimumInterval": "0s", "onFailure": "Rollback" }))
        .await;
    // a rollout that goes well, so that there is something to go back to
    workloads.put("two").await;
    let good = workloads.holds("two").await;
    workloads.phase(RolloutPhase::Complete).await;
    assert_ne!(first, good);

    workloads.progress_deadline("3s").await;
    workloads.pods.break_app("api");
    workloads.put("three").await;
    let bad = workloads.holds("three").await;
    let object = workloads.says("RollingBack", "").await;
    assert!(object.status.unwrap().rotation.unwrap().refused.is_some());
    workloads.progress_deadline("10m").await;
    workloads.pods.mend_app("api");
    let back = workloads.phase(RolloutPhase::RolledBack).await;
    assert_eq!(workloads.holds("two").await, good);
    assert_eq!(
        (back.revision.as_str(), back.targets.len()),
        (good.as_str(), 1),
        "worker was never restarted"
    );
    assert_eq!(workloads.revision("Deployment", "api").await, Some(good.clone()));
    assert_eq!(
        workloads.revision("Deployment", "worker").await,
        Some(good.clone())
    );
    let object = workloads.test.synced_secrets().get("database").await.unwrap();
    let refused = object
        .status
        .as_ref()
        .unwrap()
        .rotation
        .as_ref()
        .unwrap()
        .refused
        .clone()
        .unwrap();
    assert_eq!(refused.revision, bad);
    assert_eq!(
        object.status.unwrap().sources[0].version.as_deref(),
        Some("2"),
        "what the Secret holds"
    );

    // somebody deletes the Secret: it comes back as it was, not with what failed
    workloads
        .test
        .secrets()
        .delete("database", &DeleteParams::default())
        .await
        .unwrap();
    workloads.holds("two").await;

    workloads.put("four").await;
    let newest = workloads.holds("four").await;
    workloads.phase(RolloutPhase::Complete).await;
    assert_eq!(workloads.revision("Deployment", "worker").await, Some(newest));
    let object = workloads.test.synced_secrets().get("database").await.unwrap();
    assert!(object.status.unwrap().rotation.unwrap().refused.is_none());
}

/// `kubectl rollout undo` leaves an entry of managed fields that has only the revision, and the API server
/// drops it when lockstep writes another revision.
#[tokio::test]
async fn restart_works_after_undo_and_without_managed_fields() {
    let workloads = TestWorkloads::new("undo").await;
    for name in ["undone", "bare"] {
        workloads
            .workload("Deployment", name, json!({ "replicas": 1 }))
            .await;
    }
    let targets = ["undone", "bare"].map(|name| json!({ "kind": "Deployment", "name": name }));
    workloads
        .declare(json!({ "targets": targets, "minimumInterval": "0s" }))
        .await;
    workloads.put("two").await;
    workloads.holds("two").await;
    workloads.phase(RolloutPhase::Complete).await;
    let annotations = json!({ "lockstep.dev/revision.database": "00000000" });
    let undo = json!({ "spec": { "template": { "metadata": { "annotations": annotations } } } });
    let kubectl = PatchParams {
        field_manager: Some("kubectl".to_owned()),
        ..PatchParams::default()
    };
    let api = workloads.api("Deployment");
    api.patch("undone", &kubectl, &Patch::Merge(undo)).await.unwrap();
    let bare = json!({ "metadata": { "managedFields": [{}] } });
    api.patch("bare", &kubectl, &Patch::Merge(bare)).await.unwrap();
    workloads.put("three").await;
    let third = workloads.holds("three").await;
    workloads.phase(RolloutPhase::Complete).await;
    for name in ["undone", "bare"] {
        let revision = workloads.revision("Deployment", name).await;
        assert_eq!(revision, Some(third.clone()), "{name}");
    }
}

#[tokio::test]
async fn missing_restart_permission_is_reported_with_the_command() {
    let test = shared_cluster().await.test_namespace("no-right").await;
    let pods = Pods::play(test.client.clone(), &test.namespace);
    let workloads = TestWorkloads { test, pods };
    workloads
        .workload("Deployment", "api", json!({ "replicas": 1 }))
        .await;
    workloads
        .declare(json!({ "targets": [{ "kind": "Deployment", "name": "api" }], "minimumInterval": "0s" }))
        .await;
    workloads.put("two").await;
    let second = workloads.holds("two").await;
    let said = format!(
        "kubectl create rolebinding lockstep-rollouts -n {} --clusterrole=lockstep-rollouts --serviceaccount=lockstep-system:lockstep",
        workloads.test.namespace
    );
    workloads.says("RolloutForbidden", &said).await;
    workloads.grant().await;
    workloads.phase(RolloutPhase::Complete).await;
    assert_eq!(workloads.revision("Deployment", "api").await, Some(second));
}

#[tokio::test]
async fn unusual_targets_have_distinct_states() {
    let workloads = TestWorkloads::new("odd").await;
    workloads
        .workload("Deployment", "idle", json!({ "replicas": 0 }))
        .await;
    workloads
        .workload("Deployment", "paused", json!({ "replicas": 1, "paused": true }))
        .await;
    let target = |name: &str| json!({ "kind": "Deployment", "name": name });
    // no Argo Rollouts in this cluster: there is none of its objects
    let targets =
        json!([target("idle"), target("nobody"), { "kind": "Rollout", "name": "canary" }, target("paused")]);
    workloads
        .declare(json!({ "targets": targets, "minimumInterval": "0s" }))
        .await;
    workloads.put("two").await;
    let held = workloads.phase(RolloutPhase::Held).await;
    for (name, expected) in [
        ("idle", TargetState::ScaledToZero),
        ("nobody", TargetState::Missing),
        ("canary", TargetState::Missing),
        ("paused", TargetState::Paused),
    ] {
        assert_eq!(state(&held, name), expected, "{name}");
    }
    workloads.says("TargetPaused", "Deployment/paused: paused").await;
    let resume = json!({ "spec": { "paused": false } });
    workloads
        .api("Deployment")
        .patch("paused", &PatchParams::default(), &Patch::Merge(resume))
        .await
        .unwrap();
    workloads.phase(RolloutPhase::Complete).await;
    workloads
        .says(
            "TargetMissing",
            "these targets do not exist: Deployment/nobody, Rollout/canary",
        )
        .await;
}

/// The definition of Argo Rollouts' kind, as far as a rollout meets it.
fn argo() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "rollouts.argoproj.io" },
        "spec": {
            "group": "argoproj.io", "scope": "Namespaced",
            "names": { "kind": "Rollout", "plural": "rollouts", "singular": "rollout", "listKind": "RolloutList" },
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true, "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
            }],
        },
    })
}

/// An Argo Rollout is a target where its kind is installed: on a cluster that no other test uses meanwhile.
pub(crate) async fn argo_rollout_is_a_target(cluster: &'static SharedCluster) {
    let workloads = TestWorkloads::on(cluster, "argo").await;
    workloads.test.apply_raw(&argo()).await.unwrap();
    let namespace = &workloads.test.namespace;
    let canary = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
        "metadata": { "name": "canary", "namespace": namespace },
        "spec": {
            "replicas": 2, "selector": { "matchLabels": { "app": "canary" } }, "strategy": { "canary": {} },
            "template": {
                "metadata": { "labels": { "app": "canary" } },
                "spec": { "containers": [{ "name": "app", "image": "example.org/app" }] },
            },
        },
    });
    eventually("the kind is served", || workloads.test.apply_raw(&canary))
        .await
        .unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Rollout"));
    let api: Api<DynamicObject> = Api::namespaced_with(workloads.test.client.clone(), namespace, &resource);
    // its controller is played: it writes the generation as text
    let play = async |phase: &str| {
        let object = api.get("canary").await.unwrap();
        let status = json!({ "status": {
            "observedGeneration": object.metadata.generation.unwrap().to_string(), "phase": phase,
            "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2,
        } });
        api.patch_status("canary", &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    };
    play("Healthy").await;
    workloads
        .declare(json!({ "targets": [{ "kind": "Rollout", "name": "canary" }], "minimumInterval": "0s" }))
        .await;
    workloads.put("two").await;
    let second = workloads.holds("two").await;
    eventually("the revision in its template", || async {
        let object = serde_json::to_value(api.get("canary").await?)?;
        anyhow::ensure!(object.pointer(REVISION) == Some(&json!(second)), "{object}");
        Ok(())
    })
    .await
    .unwrap();
    play("Paused").await;
    workloads
        .says("TargetPaused", "kubectl argo rollouts promote")
        .await;
    play("Healthy").await;
    workloads.phase(RolloutPhase::Complete).await;
}

/// Lists of a custom resource are atomic, and an empty one is kept.
pub(crate) async fn argo_rollout_changes_only_references(cluster: &'static SharedCluster) {
    let workloads = TestWorkloads::on(cluster, "argo-guard").await;
    workloads.test.apply_raw(&argo()).await.unwrap();
    let namespace = &workloads.test.namespace;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Rollout"));
    let api: Api<DynamicObject> = Api::namespaced_with(workloads.test.client.clone(), namespace, &resource);
    let applied = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": { "name": "canary" },
        "spec": { "template": {
            "metadata": { "labels": { "app": "canary" } },
            "spec": {
                "containers": [{
                    "name": "app", "image": "example.org/app",
                    "envFrom": [{ "secretRef": { "name": "database" } }],
                }],
                "priority": 1,
            },
        } },
    });
    let gitops = PatchParams::apply("gitops");
    eventually("the kind is served", || async {
        api.patch("canary", &gitops, &Patch::Apply(&applied)).await?;
        Ok(())
    })
    .await
    .unwrap();
    let security = PatchParams {
        field_manager: Some("security".to_owned()),
        ..PatchParams::default()
    };
    let hardened = json!({ "spec": { "template": { "spec": {
        "automountServiceAccountToken": false, "securityContext": { "runAsNonRoot": true },
    } } } });
    let stored = api
        .patch("canary", &security, &Patch::Merge(hardened))
        .await
        .unwrap();
    let stored = serde_json::to_value(&stored).unwrap();
    let mut forged = stored["metadata"]["managedFields"].clone();
    let pod = "/fieldsV1/f:spec/f:template/f:spec";
    entry(&mut forged, "gitops").pointer_mut(pod).unwrap()["f:automountServiceAccountToken"] = json!({});
    let client = as_operator(&workloads.test).await;
    let guarded: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let refused = |result: kube::Result<()>, what: &str| match result {
        Err(kube::Error::Api(status)) => {
            assert!(
                status.message.contains("lockstep-workloads"),
                "{what}: {}",
                status.message
            );
        }
        other => panic!("{what}: {other:?}"),
    };
    let annotation = |key: &str, value: Value| json!({ "spec": { "template": { "metadata": { "annotations": { key: value } } } } });
    for change in [
        json!({ "spec": { "template": { "spec": { "initContainers": [] } } } }),
        json!({ "spec": { "template": { "spec": { "volumes": [] } } } }),
        json!({ "spec": { "template": { "spec": {} } } }),
        json!({ "other": "field" }),
        annotation("lockstep.dev/revision.database", json!(5)),
        annotation("lockstep.dev/revision.database", json!({ "a": "b" })),
        annotation("lockstep.dev/revision.a b", json!("0000000f")),
        annotation(
            &format!("lockstep.dev/revision.{}", "a".repeat(55)),
            json!("0000000f"),
        ),
    ] {
        for managed_fields in [&stored["metadata"]["managedFields"], &forged] {
            let mut patch = change.clone();
            patch["metadata"] = json!({ "managedFields": managed_fields });
            // alone, the managed fields as they are change nothing
            if change["spec"]["template"]["spec"] == json!({}) && *managed_fields != forged {
                continue;
            }
            let result = guarded
                .patch("canary", &as_lockstep(), &Patch::Merge(&patch))
                .await;
            refused(result.map(drop), &patch.to_string());
        }
    }

    let own = json!({ "metadata": { "annotations": { "lockstep.dev/versioned": "database" } } });
    api.patch("canary", &security, &Patch::Merge(own)).await.unwrap();
    let path = format!("/apis/argoproj.io/v1alpha1/namespaces/{namespace}/rollouts/canary");
    let mut moved = move_with(client.clone(), &path, &stored, None).await.unwrap();
    let fields = entry(&mut moved["metadata"]["managedFields"], "gitops")
        .pointer(pod)
        .unwrap();
    assert_eq!(
        *fields,
        json!({ ".": {}, "f:priority": {} }),
        "the list is lockstep's"
    );
    let fields = entry(&mut moved["metadata"]["managedFields"], "lockstep")
        .pointer(pod)
        .unwrap();
    assert_eq!(*fields, json!({ "f:containers": {} }));
    let result = move_with(client.clone(), &path, &stored, Some(&forged)).await;
    refused(result.map(drop), "a move with more fields of gitops");
    let mut forged = stored["metadata"]["managedFields"].clone();
    let fields = entry(&mut forged, "gitops").pointer_mut(pod).unwrap();
    fields.as_object_mut().unwrap().remove("f:priority");
    let result = move_with(client.clone(), &path, &stored, Some(&forged)).await;
    refused(result.map(drop), "a move with fewer fields of gitops");

    // with lists that have keys, like those of Kubernetes
    let any = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let list = |item: Value| {
        json!({
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true, "required": ["name"], "properties": item,
            },
        })
    };
    let env = list(json!({ "name": { "type": "string" }, "valueFrom": any }));
    let containers = list(json!({ "name": { "type": "string" }, "env": env }));
    let within = |field: &str, schema: Value| json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": { field: schema } });
    let mut definition = argo();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = within(
        "spec",
        within("template", within("spec", within("containers", containers))),
    );
    workloads.test.apply_raw(&definition).await.unwrap();
    let mut keyed = applied.clone();
    keyed["metadata"] = json!({ "name": "keyed", "annotations": { "lockstep.dev/versioned": "database" } });
    keyed["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{ "name": "PASSWORD", "valueFrom": { "secretKeyRef": { "name": "database", "key": "password" } } }]);
    let stored = eventually("the new schema", || async {
        let _gone = api.delete("keyed", &DeleteParams::default()).await;
        let object = api.patch("keyed", &gitops, &Patch::Apply(&keyed)).await?;
        let object = serde_json::to_value(&object)?;
        let fields = object["metadata"]["managedFields"][0].pointer(pod);
        let containers = fields.and_then(|fields| fields["f:containers"].as_object());
        anyhow::ensure!(containers.is_some_and(|fields| !fields.is_empty()), "{fields:?}");
        Ok(object)
    })
    .await
    .unwrap();
    let path = format!("/apis/argoproj.io/v1alpha1/namespaces/{namespace}/rollouts/keyed");
    let mut moved = move_with(client.clone(), &path, &stored, None).await.unwrap();
    let variable = format!("{pod}/f:containers/k:{{\"name\":\"app\"}}/f:env/k:{{\"name\":\"PASSWORD\"}}");
    let fields = &mut moved["metadata"]["managedFields"];
    let key = entry(fields, "gitops").pointer(&format!("{variable}/f:valueFrom/f:secretKeyRef"));
    assert_eq!(key, Some(&json!({ ".": {}, "f:key": {} })));
    let key = entry(fields, "lockstep").pointer(&variable);
    assert_eq!(
        key,
        Some(&json!({ "f:valueFrom": { "f:secretKeyRef": { "f:name": {} } } }))
    );
    let mut forged = stored["metadata"]["managedFields"].clone();
    let fields = entry(&mut forged, "gitops").pointer_mut(&format!("{variable}/f:valueFrom/f:secretKeyRef"));
    fields.unwrap().as_object_mut().unwrap().remove("f:key");
    let result = move_with(client, &path, &stored, Some(&forged)).await;
    refused(result.map(drop), "a move with fewer fields of a reference");
}

#[tokio::test]
async fn changes_during_a_rollout_become_one_next_rollout() {
    let workloads = TestWorkloads::new("queue").await;
    workloads
        .workload("Deployment", "api", json!({ "replicas": 1 }))
        .await;
    workloads.declare(json!({ "targets": [{ "kind": "Deployment", "name": "api" }], "soak": "4s", "minimumInterval": "0s" })).await;
    workloads.put("two").await;
    workloads.phase(RolloutPhase::Soaking).await;
    workloads.put("three").await;
    workloads
        .test
        .wait_for("database", "a value that waits", |object| {
            let status = object.status.as_ref().unwrap();
            let pending = status.condition(ConditionType::RotationPending);
            pending.is_some_and(|pending| pending.reason == "RolloutUnderWay")
        })
        .await;
    workloads.put("four").await;
    let newest = workloads.holds("four").await;
    workloads.phase(RolloutPhase::Complete).await;
    eventually("the newest revision", || async {
        anyhow::ensure!(
            workloads.revision("Deployment", "api").await.as_ref() == Some(&newest),
            "not yet"
        );
        Ok(())
    })
    .await
    .unwrap();
    let object = workloads.get("Deployment", "api").await;
    // made, and restarted for "two" and for "four"
    assert_eq!(object["metadata"]["generation"], 3);
}

#[tokio::test]
async fn operator_account_changes_only_its_workload_annotation() {
    let workloads = TestWorkloads::new("guard").await;
    workloads
        .workload("Deployment", "api", json!({ "replicas": 1 }))
        .await;
    let client = workloads
        .test
        .cluster
        .plane
        .client_for_service_account("lockstep-system", "lockstep")
        .await
        .unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment"));
    let api: Api<DynamicObject> = Api::namespaced_with(client, &workloads.test.namespace, &resource);
    let patch = async |patch: Value| api.patch("api", &as_lockstep(), &Patch::Merge(patch)).await;
    let template = |template: Value| json!({ "spec": { "template": template } });
    let many = (0..65).map(|index| (format!("lockstep.dev/revision.x{index}"), json!("0000000f")));
    let many: serde_json::Map<String, Value> = many.collect();
    for refused in [
        json!({ "spec": { "replicas": 5 } }),
        json!({ "spec": { "paused": true } }),
        json!({ "spec": { "minReadySeconds": 7 } }),
        json!({ "metadata": { "labels": { "x": "y" } } }),
        json!({ "metadata": { "annotations": { "x": "y" } } }),
        json!({ "metadata": { "finalizers": ["example.org/x"] } }),
        template(json!({ "spec": { "serviceAccountName": "admin" } })),
        template(json!({ "spec": { "containers": [{ "name": "app", "image": "example.org/evil" }] } })),
        template(json!({ "metadata": { "labels": { "app": "api", "x": "y" } } })),
        template(json!({ "metadata": { "annotations": { "team": "other" } } })),
        template(json!({ "metadata": { "annotations": { "team": null } } })),
        template(json!({ "metadata": { "annotations": { "sidecar.example.org/inject": "true" } } })),
        template(json!({ "metadata": { "annotations": { "lockstep.dev/self-test": "x" } } })),
        template(json!({ "metadata": { "annotations": { "lockstep.dev/revision.database": "x" } } })),
        template(json!({ "metadata": { "annotations": many } })),
    ] {
        match patch(refused.clone()).await {
            Err(kube::Error::Api(status)) => assert!(
                status.message.contains("lockstep-workloads"),
                "{refused}: {}",
                status.message
            ),
            other => panic!("{refused}: {other:?}"),
        }
    }
    let own =
        template(json!({ "metadata": { "annotations": { "lockstep.dev/revision.database": "0000000f" } } }));
    // a manager whose name only begins like one of lockstep's
    let applied = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "api", "labels": { "team": "shop" } },
    });
    let gitops = PatchParams::apply("lockstep-gitops");
    workloads
        .api("Deployment")
        .patch("api", &gitops, &Patch::Apply(applied))
        .await
        .unwrap();
    let stored = workloads.settled("api").await;
    let mut without = stored["metadata"]["managedFields"].clone();
    let entries = without.as_array_mut().unwrap();
    entries.retain(|entry| entry["manager"] != "lockstep-gitops");
    let annotations = json!({ "f:annotations": { "f:lockstep.dev/revision.x0": {} } });
    let fields = json!({ "f:spec": { "f:template": { "f:metadata": annotations } } });
    let mut all_forged = forged_managed_fields(&stored, "minReadySeconds");
    all_forged.extend(added_entries(
        &stored,
        &fields,
        &[
            json!({ "subresource": "s0" }),
            json!({ "manager": "lockstep9" }),
            json!({ "manager": "lockstep.x0", "operation": "Apply", "subresource": "s0" }),
            // the template has no such annotation
            json!({ "manager": "lockstep.x0", "operation": "Apply" }),
            json!({}),
        ],
    ));
    all_forged.push(without);
    for managed_fields in all_forged {
        // alone, and together with what is allowed
        for mut forged in [json!({}), own.clone()] {
            forged["metadata"] = json!({ "managedFields": managed_fields });
            match patch(forged.clone()).await {
                Err(kube::Error::Api(status)) => assert!(
                    status.message.contains("managed fields"),
                    "{forged}: {}",
                    status.message
                ),
                other => panic!("{forged}: {other:?}"),
            }
        }
    }
    patch(own).await.unwrap();
    // an entry for each Secret, but not two in one request, and not of another Secret's manager
    let cache =
        template(json!({ "metadata": { "annotations": { "lockstep.dev/revision.cache": "0000000f" } } }));
    patch(cache).await.unwrap();
    let stored = workloads.settled("api").await;
    let entry = |secret: &str, manager: &str| {
        let annotation = json!({ "f:annotations": { format!("f:lockstep.dev/revision.{secret}"): {} } });
        let fields = json!({ "f:spec": { "f:template": { "f:metadata": annotation } } });
        let applied = json!({ "manager": manager, "operation": "Apply" });
        added_entries(&stored, &fields, &[applied]).remove(0)
    };
    let one = entry("database", "lockstep.database");
    let mut both = one.clone();
    let more = entry("cache", "lockstep.cache");
    let more = more.as_array().unwrap().last().unwrap();
    both.as_array_mut().unwrap().push(more.clone());
    for managed_fields in [both, entry("database", "lockstep.cache")] {
        match patch(json!({ "metadata": { "managedFields": managed_fields } })).await {
            Err(kube::Error::Api(status)) => {
                assert!(status.message.contains("managed fields"), "{}", status.message);
            }
            other => panic!("{managed_fields}: {other:?}"),
        }
    }
    patch(json!({ "metadata": { "managedFields": one } }))
        .await
        .unwrap();
    let gone = template(json!({ "metadata": { "annotations": { "lockstep.dev/revision.database": null } } }));
    patch(gone).await.unwrap();
}
