//! The check between two waves: with the real controller of Jobs, and through the real API server's proxy of Services.

use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use lockstep_api::{RolloutPhase, VerificationState};
use serde_json::{Value, json};

use crate::{
    api_proxy::{Fault, NAMESPACE, ProxiedCluster},
    rollout::TestWorkloads,
    shared_cluster::{TestNamespace, eventually},
};

/// A value that must come out nowhere.
const CANARY: &str = "canary-5b0d1e-of-a-job";

/// Binds a ClusterRole to the operator.
async fn bind(test: &TestNamespace, role: &str) {
    test.apply_raw(&binding(&test.namespace, role)).await.unwrap();
}

fn binding(namespace: &str, role: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": { "name": role, "namespace": namespace },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        "subjects": [{ "kind": "ServiceAccount", "name": "lockstep", "namespace": "lockstep-system" }],
    })
}

/// A suspended CronJob whose pods have the label `app` of its name.
async fn smoke(test: &TestNamespace) -> CronJob {
    test.apply_raw(&json!({
        "apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": { "name": "smoke", "namespace": test.namespace },
        "spec": {
            "schedule": "0 0 1 1 *", "suspend": true,
            // the CronJob's own controller would clear its Jobs away at once, and so would that of Jobs
            "successfulJobsHistoryLimit": 0,
            "jobTemplate": {
                "metadata": { "labels": { "team": "shop" } },
                "spec": { "backoffLimit": 0, "ttlSecondsAfterFinished": 0, "template": {
                    "metadata": { "labels": { "app": "smoke" } },
                    "spec": {
                        "containers": [{
                            "name": "smoke", "image": "example.org/smoke",
                            "env": [{ "name": "TOKEN", "value": CANARY }],
                        }],
                        "restartPolicy": "Never",
                    },
                } },
            },
        },
    }))
    .await
    .unwrap();
    let api: Api<CronJob> = Api::namespaced(test.client.clone(), &test.namespace);
    api.get("smoke").await.unwrap()
}

fn jobs(test: &TestNamespace) -> Api<Job> {
    Api::namespaced(test.client.clone(), &test.namespace)
}

async fn all_jobs(test: &TestNamespace) -> Vec<Job> {
    jobs(test).list(&ListParams::default()).await.unwrap().items
}

/// Two Deployments, in two waves.
async fn two_waves(workloads: &TestWorkloads) -> Value {
    for name in ["api", "worker"] {
        workloads
            .workload("Deployment", name, json!({ "replicas": 1 }))
            .await;
    }
    json!([{ "kind": "Deployment", "name": "api" }, { "kind": "Deployment", "name": "worker" }])
}

#[tokio::test]
async fn verification_job_must_complete_before_the_next_wave() {
    let workloads = TestWorkloads::new("verify-job").await;
    let cron_job = smoke(&workloads.test).await;
    bind(&workloads.test, "lockstep-verify-jobs").await;
    let targets = two_waves(&workloads).await;
    workloads
        .declare(
            json!({ "targets": targets, "minimumInterval": "0s", "verify": { "job": { "cronJob": "smoke" }, "timeout": "40s" } }),
        )
        .await;
    assert!(
        all_jobs(&workloads.test).await.is_empty(),
        "a first sync is no rollout"
    );
    workloads.pods.break_app("smoke");
    workloads.put("two").await;
    let second = workloads.holds("two").await;
    let held = workloads.phase(RolloutPhase::Held).await;
    let check = held.verification.clone().unwrap();
    assert_eq!(
        (check.wave, check.attempt, check.state),
        (1, 1, VerificationState::Failed)
    );
    assert_eq!(workloads.revision("Deployment", "worker").await, None);
    let object = workloads
        .says("VerificationFailed", "failed (BackoffLimitExceeded)")
        .await;
    assert!(!format!("{:?}", object.status).contains(CANARY));

    let made = all_jobs(&workloads.test).await;
    let [job] = made.as_slice() else {
        panic!("one attempt is one Job: {made:?}")
    };
    let owner = &job.owner_references()[0];
    assert_eq!(
        (owner.kind.as_str(), &owner.uid, owner.controller),
        ("CronJob", cron_job.metadata.uid.as_ref().unwrap(), None)
    );
    assert_eq!(job.labels()["app.kubernetes.io/managed-by"], "lockstep");
    assert_eq!(job.labels()["team"], "shop");
    let verifies = &job.annotations()["lockstep.dev/verifies"];
    assert!(
        verifies.starts_with(&format!("database revision {second} wave 1 attempt 1 ")),
        "{verifies}"
    );
    let spec = job.spec.as_ref().unwrap();
    assert_eq!(
        (spec.active_deadline_seconds, spec.ttl_seconds_after_finished),
        (Some(40), Some(3600))
    );

    // mended; but nothing is tried again before somebody asks
    workloads.pods.mend_app("smoke");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(all_jobs(&workloads.test).await.len(), 1);
    let ask = json!({ "metadata": { "annotations": { "lockstep.dev/rotate-now": "again" } } });
    workloads
        .test
        .synced_secrets()
        .patch("database", &PatchParams::default(), &Patch::Merge(ask))
        .await
        .unwrap();
    let done = workloads.phase(RolloutPhase::Complete).await;
    assert_eq!(workloads.revision("Deployment", "worker").await, Some(second));
    assert_eq!(done.verification.unwrap().state, VerificationState::Passed);
    let mut names: Vec<String> = all_jobs(&workloads.test)
        .await
        .iter()
        .map(|job| {
            let said = &job.annotations()["lockstep.dev/verifies"];
            said.split(" of the rollout").next().unwrap().to_owned()
        })
        .collect();
    names.sort();
    let waves: Vec<&str> = names
        .iter()
        .map(|name| name.split_once(" wave ").unwrap().1)
        .collect();
    assert_eq!(waves, ["1 attempt 1", "1 attempt 2", "2 attempt 1"]);
    let log = workloads.test.cluster.operator.log();
    assert!(!log.contains(CANARY), "what a Job's pods are given is not logged");
}

#[tokio::test]
async fn deleted_job_is_recreated_only_on_request() {
    let workloads = TestWorkloads::new("verify-deleted").await;
    smoke(&workloads.test).await;
    let cron_jobs: Api<CronJob> = Api::namespaced(workloads.test.client.clone(), &workloads.test.namespace);
    let template = async |change: Value| {
        let change = json!({ "spec": { "jobTemplate": { "spec": change } } });
        cron_jobs
            .patch("smoke", &PatchParams::default(), &Patch::Merge(change))
            .await
            .unwrap();
    };
    // its Job starts no pod, and does not end
    template(json!({ "parallelism": 0 })).await;
    bind(&workloads.test, "lockstep-verify-jobs").await;
    let targets = two_waves(&workloads).await;
    workloads
        .declare(json!({
            "targets": targets, "minimumInterval": "0s", "onFailure": "Rollback",
            "verify": { "job": { "cronJob": "smoke" }, "timeout": "90s" },
        }))
        .await;
    workloads.put("two").await;
    workloads
        .test
        .wait_for("database", "the Job", |object| {
            let rotation = object.status.as_ref().and_then(|status| status.rotation.as_ref());
            let rollout = rotation.and_then(|rotation| rotation.rollout.as_ref());
            let check = rollout.and_then(|rollout| rollout.verification.as_ref());
            check.is_some_and(|check| check.job_created)
        })
        .await;
    let made = all_jobs(&workloads.test).await;
    let name = made[0].name_any();
    let delete = DeleteParams::background();
    jobs(&workloads.test).delete(&name, &delete).await.unwrap();
    let said = format!("Job/{name} was deleted before its result was known");
    workloads.says("VerificationBlocked", &said).await;
    let left = all_jobs(&workloads.test).await;
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(workloads.revision("Deployment", "worker").await, None);

    template(json!({ "parallelism": 1 })).await;
    let ask = json!({ "metadata": { "annotations": { "lockstep.dev/rotate-now": "again" } } });
    workloads
        .test
        .synced_secrets()
        .patch("database", &PatchParams::default(), &Patch::Merge(ask))
        .await
        .unwrap();
    workloads.phase(RolloutPhase::Complete).await;
    let again = all_jobs(&workloads.test).await;
    assert!(again.iter().all(|job| job.name_any() != name), "{again:?}");
}

#[tokio::test]
async fn failed_check_rolls_back_if_the_spec_asks_for_it() {
    let workloads = TestWorkloads::new("verify-back").await;
    smoke(&workloads.test).await;
    bind(&workloads.test, "lockstep-verify-jobs").await;
    let targets = two_waves(&workloads).await;
    let first = workloads
        .declare(json!({
            "targets": targets, "minimumInterval": "0s", "onFailure": "Rollback",
            "verify": { "job": { "cronJob": "smoke" } },
        }))
        .await;
    workloads.pods.break_app("smoke");
    workloads.put("two").await;
    let back = workloads.phase(RolloutPhase::RolledBack).await;
    assert_eq!(back.revision, first);
    assert_eq!(back.verification, None, "the way back is not verified");
    assert_eq!(all_jobs(&workloads.test).await.len(), 1);
    assert_eq!(workloads.revision("Deployment", "worker").await, None);
    workloads.holds("one").await;
}

#[tokio::test]
async fn blocked_check_names_the_missing_permission_or_cron_job() {
    let workloads = TestWorkloads::new("verify-right").await;
    let targets = two_waves(&workloads).await;
    workloads
        .declare(json!({
            "targets": targets, "minimumInterval": "0s", "onFailure": "Rollback",
            "verify": { "job": { "cronJob": "smoke" }, "timeout": "20s" },
        }))
        .await;
    workloads.put("two").await;
    let second = workloads.holds("two").await;
    let said = format!(
        "kubectl create rolebinding lockstep-verify-jobs -n {} --clusterrole=lockstep-verify-jobs --serviceaccount=lockstep-system:lockstep",
        workloads.test.namespace
    );
    workloads.says("VerificationForbidden", &said).await;
    bind(&workloads.test, "lockstep-verify-jobs").await;
    workloads
        .says("VerificationBlocked", "CronJob/smoke does not exist")
        .await;
    smoke(&workloads.test).await;
    workloads.phase(RolloutPhase::Complete).await;
    assert_eq!(workloads.revision("Deployment", "worker").await, Some(second));
}

#[tokio::test]
async fn rejected_job_template_is_reported_with_the_rule() {
    let workloads = TestWorkloads::new("verify-template").await;
    smoke(&workloads.test).await;
    let cron_jobs: Api<CronJob> = Api::namespaced(workloads.test.client.clone(), &workloads.test.namespace);
    let suspend = async |suspended: bool| {
        let change = json!({ "spec": { "jobTemplate": { "spec": { "suspend": suspended } } } });
        cron_jobs
            .patch("smoke", &PatchParams::default(), &Patch::Merge(change))
            .await
            .unwrap();
    };
    suspend(true).await;
    bind(&workloads.test, "lockstep-verify-jobs").await;
    let targets = two_waves(&workloads).await;
    workloads
        .declare(json!({
            "targets": targets, "minimumInterval": "0s",
            "verify": { "job": { "cronJob": "smoke" }, "timeout": "20s" },
        }))
        .await;
    workloads.put("two").await;
    let said = "the admission policy lockstep-jobs rejects the Job of CronJob/smoke: a Job that lockstep makes is not suspended";
    workloads.says("VerificationBlocked", said).await;
    suspend(false).await;
    workloads.phase(RolloutPhase::Complete).await;
}

#[tokio::test]
async fn http_check_is_repeated_until_success_or_timeout() {
    let workloads = TestWorkloads::new("verify-http").await;
    let targets = two_waves(&workloads).await;
    // it has no pods: the API server itself answers with 503
    workloads
        .test
        .apply_raw(&json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "shop", "namespace": workloads.test.namespace },
            "spec": { "selector": { "app": "nobody" }, "ports": [{ "port": 80 }] },
        }))
        .await
        .unwrap();
    workloads
        .declare(json!({
            "targets": targets, "minimumInterval": "0s",
            "verify": { "httpGet": { "service": "shop", "port": 80, "path": "/ready" }, "timeout": "3s" },
        }))
        .await;
    workloads.put("two").await;
    workloads.holds("two").await;
    let said = format!(
        "kubectl create rolebinding lockstep-verify-services -n {} --clusterrole=lockstep-verify-services --serviceaccount=lockstep-system:lockstep",
        workloads.test.namespace
    );
    workloads.says("VerificationForbidden", &said).await;
    bind(&workloads.test, "lockstep-verify-services").await;
    workloads
        .says(
            "VerificationFailed",
            "verify: not passed within timeout 3s: Service/shop returned status 503, or has no ready pod",
        )
        .await;
    assert_eq!(workloads.revision("Deployment", "worker").await, None);
}

/// A request that goes to a Service.
fn is_proxied(path: &str) -> bool {
    path.contains("/proxy")
}

#[tokio::test]
async fn successful_http_check_starts_the_next_wave() {
    let mut cluster = ProxiedCluster::set(&["--drift-probe-interval", "0s"])
        .await
        .unwrap();
    cluster.operator.run().await.unwrap();
    for role in ["lockstep-rollouts", "lockstep-verify-services"] {
        cluster.apply(&binding(NAMESPACE, role)).await.unwrap();
    }
    cluster.put("database", "one");
    cluster
        .apply(&json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "SyncedSecret",
            "metadata": { "name": "database", "namespace": NAMESPACE },
            "spec": {
                "secretStoreRef": { "name": "files", "kind": "ClusterSecretStore" },
                "refreshInterval": "1s",
                "data": [{ "secretKey": "value", "remoteRef": { "key": "database" } }],
                "rotation": { "rollout": {
                    "targets": [{ "kind": "Deployment", "name": "idle" }],
                    "minimumInterval": "0s",
                    "verify": { "httpGet": { "service": "shop", "port": 8443, "scheme": "https", "path": "/health/ready" }, "timeout": "60s" },
                } },
            },
        }))
        .await
        .unwrap();
    cluster
        .apply(&json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "idle", "namespace": NAMESPACE },
            "spec": {
                "replicas": 0, "selector": { "matchLabels": { "app": "idle" } },
                "template": {
                    "metadata": { "labels": { "app": "idle" } },
                    "spec": { "containers": [{ "name": "app", "image": "example.org/app" }] },
                },
            },
        }))
        .await
        .unwrap();
    cluster.synced("database", "one").await;
    // first it redirects, then it refuses twice, then it fails, then it is well: tests may only talk on loopback, and the API server's own
    // proxy never does
    for code in [307, 401, 403, 500, 200] {
        cluster
            .proxy
            .strike(Fault::Status(code), 0, 1, |asked| is_proxied(&asked.path));
    }
    cluster.put("database", "two");
    let done = eventually("the rollout", || async {
        let object = cluster.get("syncedsecret", "database").await;
        let rollout = &object["status"]["rotation"]["rollout"];
        anyhow::ensure!(rollout["phase"] == "Complete", "{rollout}");
        Ok(rollout.clone())
    });
    let done = match done.await {
        Ok(done) => done,
        Err(error) => panic!("{error:#}\n{}", cluster.operator.log()),
    };
    assert_eq!(done["verification"]["state"], "Passed");
    let asked: Vec<_> = cluster
        .proxy
        .asked()
        .into_iter()
        .filter(|asked| is_proxied(&asked.path))
        .collect();
    assert_eq!(asked.len(), 5, "{asked:?}");
    for asked in asked {
        assert_eq!(
            (asked.path.as_str(), asked.query.as_str()),
            (
                "/api/v1/namespaces/scene/services/https:shop:8443/proxy/health/ready",
                ""
            )
        );
    }
}

#[tokio::test]
async fn operator_account_can_create_only_jobs_of_cron_jobs() {
    let workloads = TestWorkloads::new("verify-guard").await;
    let cron_job = smoke(&workloads.test).await;
    bind(&workloads.test, "lockstep-verify-jobs").await;
    // more than it ever has, so that only the policy is tried
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "all-of-batch" },
        "rules": [{ "apiGroups": ["batch"], "resources": ["jobs", "cronjobs"], "verbs": ["*"] }],
    });
    workloads.test.apply_raw(&role).await.unwrap();
    bind(&workloads.test, "all-of-batch").await;
    let client = workloads
        .test
        .cluster
        .plane
        .client_for_service_account("lockstep-system", "lockstep")
        .await
        .unwrap();
    let api: Api<Job> = Api::namespaced(client.clone(), &workloads.test.namespace);
    let good = json!({
        "metadata": {
            "name": "lockstep-verify-x", "labels": { "app.kubernetes.io/managed-by": "lockstep" },
            "annotations": { "lockstep.dev/verifies": "x" },
            "ownerReferences": [{ "apiVersion": "batch/v1", "kind": "CronJob", "name": "smoke", "uid": cron_job.metadata.uid }],
        },
        "spec": {
            "activeDeadlineSeconds": 10, "ttlSecondsAfterFinished": 60,
            "template": {
                "metadata": { "labels": { "app": "x" } },
                "spec": { "containers": [{ "name": "x", "image": "example.org/x" }], "restartPolicy": "Never" },
            },
        },
    });
    let refused = |result: Result<(), kube::Error>, what: &str| match result {
        Err(kube::Error::Api(status)) => {
            assert!(
                status.message.contains("lockstep-jobs"),
                "{what}: {}",
                status.message
            );
        }
        other => panic!("{what}: {other:?}"),
    };
    let claim = |more: Value| {
        let mut spec =
            json!({ "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } });
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        json!([{ "name": "claim", "ephemeral": { "volumeClaimTemplate": { "spec": spec } } }])
    };
    let by_name = json!({ "key": "metadata.name", "operator": "In", "values": ["node"] });
    // the kubelet sends these from the network of the node
    let http = json!({ "httpGet": { "host": "169.254.169.254", "port": 80, "path": "/x" } });
    let tcp = json!({ "tcpSocket": { "host": "127.0.0.1", "port": 10255 } });
    for (pointer, value) in [
        ("/metadata/name", json!("other")),
        ("/metadata/labels", json!({})),
        ("/metadata/annotations", json!({})),
        ("/metadata/finalizers", json!(["example.org/x"])),
        ("/metadata/ownerReferences", json!([])),
        ("/metadata/ownerReferences/0/kind", json!("Job")),
        ("/metadata/ownerReferences/0/apiVersion", json!("batch/v99")),
        ("/metadata/ownerReferences/0/blockOwnerDeletion", json!(true)),
        ("/metadata/ownerReferences/0/controller", json!(true)),
        ("/spec/activeDeadlineSeconds", Value::Null),
        ("/spec/ttlSecondsAfterFinished", Value::Null),
        ("/spec/activeDeadlineSeconds", json!(86_401)),
        ("/spec/ttlSecondsAfterFinished", json!(i32::MAX)),
        ("/spec/suspend", json!(true)),
        ("/spec/managedBy", json!("example.org/other")),
        ("/spec/template/spec/hostPID", json!(true)),
        ("/spec/template/spec/hostIPC", json!(true)),
        ("/spec/template/spec/hostNetwork", json!(true)),
        (
            "/spec/template/spec/volumes",
            json!([{ "name": "node", "hostPath": { "path": "/" } }]),
        ),
        (
            "/spec/template/spec/containers/0/securityContext",
            json!({ "privileged": true }),
        ),
        (
            "/spec/template/spec/initContainers",
            json!([{ "name": "i", "image": "example.org/x", "securityContext": { "privileged": true } }]),
        ),
        (
            "/spec/template/spec/containers/0/securityContext",
            json!({ "capabilities": { "add": ["ALL"] } }),
        ),
        (
            "/spec/template/spec/containers/0/securityContext",
            json!({ "seccompProfile": { "type": "Unconfined" } }),
        ),
        (
            "/spec/template/spec/containers/0/securityContext",
            json!({ "appArmorProfile": { "type": "Unconfined" } }),
        ),
        (
            "/spec/template/spec/initContainers",
            json!([{ "name": "i", "image": "example.org/x", "securityContext": { "capabilities": { "add": ["NET_RAW"] } } }]),
        ),
        (
            "/spec/template/spec/securityContext",
            json!({ "seccompProfile": { "type": "Unconfined" } }),
        ),
        (
            "/spec/template/spec/securityContext",
            json!({ "appArmorProfile": { "type": "Unconfined" } }),
        ),
        (
            "/spec/template/metadata/annotations",
            json!({ "container.apparmor.security.beta.kubernetes.io/x": "unconfined" }),
        ),
        (
            "/spec/template/spec/containers/0/ports",
            json!([{ "containerPort": 80, "hostPort": 80 }]),
        ),
        (
            "/spec/template/spec",
            json!({
                "restartPolicy": "Never", "hostUsers": false,
                "containers": [{ "name": "x", "image": "example.org/x", "securityContext": { "procMount": "Unmasked" } }],
            }),
        ),
        ("/spec/template/spec/nodeName", json!("node")),
        (
            "/spec/template/spec/affinity",
            json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [{ "matchFields": [by_name] }] } } }),
        ),
        (
            "/spec/template/spec/affinity",
            json!({ "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 1, "preference": { "matchFields": [by_name] } }] } }),
        ),
        (
            "/spec/template/spec/volumes",
            claim(json!({ "volumeName": "theirs" })),
        ),
        (
            "/spec/template/spec/volumes",
            claim(json!({ "selector": { "matchLabels": { "a": "b" } } })),
        ),
        (
            "/spec/template/spec/volumes",
            claim(json!({ "storageClassName": "fast" })),
        ),
        (
            "/spec/template/spec/volumes",
            json!([{ "name": "token", "projected": { "sources": [
                { "serviceAccountToken": { "path": "token", "expirationSeconds": 1_000_000_000 } },
            ] } }]),
        ),
        (
            "/spec/template/spec/volumes",
            json!([{ "name": "share", "nfs": { "server": "nfs", "path": "/" } }]),
        ),
        (
            "/spec/template/spec/securityContext",
            json!({ "sysctls": [{ "name": "kernel.msgmax", "value": "1" }] }),
        ),
        (
            "/spec/template/spec/securityContext",
            json!({ "seLinuxOptions": { "user": "system_u" } }),
        ),
        (
            "/spec/template/spec/containers/0/securityContext",
            json!({ "seLinuxOptions": { "type": "spc_t" } }),
        ),
        (
            "/spec/template/spec/containers/0/securityContext",
            json!({ "seLinuxOptions": { "role": "sysadm_r" } }),
        ),
        ("/spec/template/spec/containers/0/readinessProbe", http.clone()),
        ("/spec/template/spec/containers/0/livenessProbe", tcp.clone()),
        ("/spec/template/spec/containers/0/startupProbe", http.clone()),
        (
            "/spec/template/spec/containers/0/lifecycle",
            json!({ "postStart": http }),
        ),
        (
            "/spec/template/spec/containers/0/lifecycle",
            json!({ "preStop": tcp }),
        ),
        (
            "/spec/template/spec/initContainers",
            json!([{ "name": "i", "image": "example.org/x", "restartPolicy": "Always", "startupProbe": tcp }]),
        ),
        ("/spec/template/metadata/finalizers", json!(["example.org/x"])),
        ("/spec/template/spec/terminationGracePeriodSeconds", json!(601)),
    ] {
        let mut job = good.clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        job.pointer_mut(parent).unwrap()[field] = value;
        let job: Job = serde_json::from_value(job).unwrap();
        refused(api.create(&PostParams::default(), &job).await.map(drop), pointer);
    }
    // a Job with a selector of its own adopts pods of others
    let mut adopting = good.clone();
    adopting["spec"]["selector"] = json!({ "matchLabels": { "app": "x" } });
    let job: Job = serde_json::from_value(adopting.clone()).unwrap();
    api.create(&PostParams::default(), &job).await.unwrap_err();
    adopting["spec"]["manualSelector"] = json!(true);
    let job: Job = serde_json::from_value(adopting).unwrap();
    refused(
        api.create(&PostParams::default(), &job).await.map(drop),
        "manualSelector",
    );
    let mut restricted = good;
    let spec = &mut restricted["spec"]["template"]["spec"];
    spec["terminationGracePeriodSeconds"] = json!(600);
    spec["hostUsers"] = json!(false);
    spec["securityContext"] = json!({
        "seccompProfile": { "type": "RuntimeDefault" }, "runAsNonRoot": true,
        "seLinuxOptions": { "type": "container_t", "level": "s0:c1,c2" },
    });
    spec["affinity"] = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "pool", "operator": "Exists" }] }],
    } } });
    spec["containers"][0]["livenessProbe"] = json!({ "httpGet": { "port": 80 } });
    spec["containers"][0]["lifecycle"] = json!({ "preStop": { "exec": { "command": ["true"] } } });
    spec["containers"][0]["securityContext"] = json!({ "capabilities": { "drop": ["ALL"] } });
    spec["containers"][0]["ports"] = json!([{ "containerPort": 80 }]);
    spec["volumes"] = json!([
        { "name": "scratch", "emptyDir": {} },
        { "name": "claim", "persistentVolumeClaim": { "claimName": "existing" } },
    ]);
    restricted["spec"]["suspend"] = json!(false);
    restricted["spec"]["managedBy"] = json!("kubernetes.io/job-controller");
    let job: Job = serde_json::from_value(restricted).unwrap();
    api.create(&PostParams::default(), &job).await.unwrap();
    let change = Patch::Merge(json!({ "spec": { "suspend": true } }));
    refused(
        api.patch("lockstep-verify-x", &PatchParams::default(), &change)
            .await
            .map(drop),
        "patch",
    );
    refused(
        api.delete("lockstep-verify-x", &DeleteParams::default())
            .await
            .map(drop),
        "delete",
    );
    let cron_jobs: Api<CronJob> = Api::namespaced(client, &workloads.test.namespace);
    let change = Patch::Merge(json!({ "spec": { "schedule": "* * * * *" } }));
    refused(
        cron_jobs
            .patch("smoke", &PatchParams::default(), &change)
            .await
            .map(drop),
        "a CronJob",
    );
}
