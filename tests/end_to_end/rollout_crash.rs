//! A lost machine in the middle of a rollout: the operator is killed (signal 9) at each write of it, before and after the write
//! reaches the API server, or freezes and is replaced. Each workload is restarted once all the same, and the end is the same.

use axum::http::Method;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use lockstep_api::RolloutPhase;
use lockstep_testkit::operator::{self, Operator};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    api_proxy::{ApiProxy, Asked, Fault},
    rollout::{TestWorkloads, argo_rollout_changes_only_references, argo_rollout_is_a_target},
    shared_cluster::{SharedCluster, eventually},
};

pub(crate) const TARGETS: [&str; 2] = ["api", "worker"];

/// Two Deployments, and an operator behind a proxy.
pub(crate) struct Trial {
    pub(crate) workloads: TestWorkloads,
    pub(crate) proxy: ApiProxy,
    operator: Operator,
    value: u32,
}

fn is_write(asked: &Asked) -> bool {
    asked.is_write() || asked.method != Method::GET && asked.path.contains("/deployments/")
}

impl Drop for Trial {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stdout, reason = "what the operator says of a test that failed")]
            {
                println!("{}", self.operator.log());
            }
        }
    }
}

impl Trial {
    pub(crate) async fn set(name: &str, rollout: Value) -> Self {
        let trial = Self::raise(name).await;
        for target in TARGETS {
            trial
                .workloads
                .workload("Deployment", target, json!({ "replicas": 1 }))
                .await;
        }
        trial.workloads.declare(rollout).await;
        trial
    }

    /// Without workloads, and without a SyncedSecret.
    pub(crate) async fn raise(name: &str) -> Self {
        let cluster = SharedCluster::raise_without_operator(&[]).await.unwrap();
        // as the cluster of all other tests, it lives until the process ends
        let cluster: &'static SharedCluster = Box::leak(Box::new(cluster));
        let proxy = ApiProxy::start(&cluster.plane).await.unwrap();
        let mut operator = Operator::prepare_through(&cluster.plane, &proxy.address, &[])
            .await
            .unwrap();
        operator.run().await.unwrap();
        Self {
            workloads: TestWorkloads::on(cluster, name).await,
            proxy,
            operator,
            value: 0,
        }
    }

    /// Gives the source a new value.
    pub(crate) async fn rotate(&mut self) -> String {
        self.value += 1;
        let value = format!("value-{}", self.value);
        self.workloads.put(&value).await;
        value
    }

    /// Waits until that value is everywhere, and answers its revision.
    pub(crate) async fn everywhere(&self, value: &str) -> String {
        let revision = self.workloads.holds(value).await;
        self.rolled(&revision, RolloutPhase::Complete).await;
        for target in TARGETS {
            assert_eq!(
                self.workloads.revision("Deployment", target).await.as_ref(),
                Some(&revision),
                "{target}"
            );
        }
        revision
    }

    async fn rolled(&self, revision: &str, phase: RolloutPhase) {
        let waited = self
            .workloads
            .test
            .wait_for("database", phase.as_str(), |object| {
                let rollout = || object.status.as_ref()?.rotation.as_ref()?.rollout.as_ref();
                rollout().is_some_and(|rollout| rollout.phase == phase && rollout.revision == revision)
            });
        waited.await;
    }

    pub(crate) async fn generations(&self) -> Vec<i64> {
        let mut all = Vec::new();
        for target in TARGETS {
            let generation = &self.workloads.get("Deployment", target).await["metadata"]["generation"];
            all.push(generation.as_i64().unwrap());
        }
        all
    }

    pub(crate) async fn start_anew(&mut self) {
        self.operator.kill();
        self.proxy.heal();
        self.operator.run().await.unwrap();
    }
}

pub(crate) fn rollout(more: &Value) -> Value {
    let mut rollout = json!({
        "targets": TARGETS.map(|name| json!({ "kind": "Deployment", "name": name })),
        "minimumInterval": "0s",
    });
    for (field, value) in more.as_object().unwrap() {
        rollout[field] = value.clone();
    }
    rollout
}

#[tokio::test]
async fn kill_at_any_write_of_a_rollout_restarts_each_target_once() {
    let mut trial = Trial::set("kill-rollout", rollout(&json!({}))).await;
    let mut nth = 0;
    // the property of the reconcile tries each fault at each effect
    for fault in [Fault::Hangs, Fault::LosesAnswer].into_iter().cycle() {
        let before = trial.generations().await;
        trial.proxy.strike(fault, nth, 1, is_write);
        let value = trial.rotate().await;
        let struck = tokio::select! {
            () = trial.proxy.struck() => true,
            _ = trial.everywhere(&value) => false,
        };
        if struck {
            trial.start_anew().await;
            trial.everywhere(&value).await;
        }
        trial.proxy.heal();
        let once: Vec<i64> = before.iter().map(|generation| generation + 1).collect();
        assert_eq!(trial.generations().await, once, "{fault:?} at write {nth}");
        if !struck {
            break;
        }
        nth += 1;
    }
    // the Secret, its status, two restarts, and what was seen of each
    assert!(nth >= 6, "a rollout has more writes than {nth}");
}

#[tokio::test]
async fn frozen_operator_that_wakes_after_its_successor_is_harmless() {
    let mut trial = Trial::set("freeze", rollout(&json!({ "soak": "3s" }))).await;
    let before = trial.generations().await;
    let value = trial.rotate().await;
    trial.workloads.phase(RolloutPhase::Soaking).await;
    let frozen = trial.operator.process().unwrap();
    frozen.signal(Signal::STOP).unwrap();
    let successor = Operator::start(&trial.workloads.test.cluster.plane, &[])
        .await
        .unwrap();
    trial.everywhere(&value).await;
    trial.operator.process().unwrap().signal(Signal::CONT).unwrap();
    let value = trial.rotate().await;
    trial.everywhere(&value).await;
    let twice: Vec<i64> = before.iter().map(|generation| generation + 2).collect();
    assert_eq!(trial.generations().await, twice);
    drop(successor);
}

fn is_status(asked: &Asked) -> bool {
    asked.method == Method::PATCH && asked.path.ends_with("/syncedsecrets/database/status")
}

/// The answers to writes of the status, without those of the first `before`.
fn answers(proxy: &ApiProxy, before: usize) -> Vec<u16> {
    let all = proxy.answered();
    let of_status = all.iter().skip(before).filter(|(asked, _)| is_status(asked));
    of_status.map(|(_, code)| *code).collect()
}

#[tokio::test]
async fn outdated_status_of_a_predecessor_is_not_written() {
    let mut trial = Trial::set("fenced", rollout(&json!({}))).await;
    let before = trial.generations().await;

    // somebody edits the object between the look and the write: that is no other status
    trial.proxy.strike(Fault::Waits, 0, 1, is_status);
    let asked = trial.proxy.answered().len();
    let value = trial.rotate().await;
    trial.proxy.struck().await;
    let edit = json!({ "metadata": { "annotations": { "example.org/edited": "yes" } } });
    trial
        .workloads
        .test
        .synced_secrets()
        .patch("database", &PatchParams::default(), &Patch::Merge(edit))
        .await
        .unwrap();
    trial.proxy.heal();
    trial.everywhere(&value).await;
    let codes = answers(&trial.proxy, asked);
    assert_eq!(codes[..2], [409, 200], "{codes:?}");
    let failed = ["outcome=\"error\""];
    let failed = trial
        .operator
        .metric("lockstep_status_writes_total", &failed)
        .await;
    assert!(failed.unwrap().abs() < f64::EPSILON, "it counts as no failure");

    trial.proxy.strike(Fault::Waits, 0, 1, is_status);
    let asked = trial.proxy.answered().len();
    let value = trial.rotate().await;
    trial.proxy.struck().await;
    trial.operator.process().unwrap().signal(Signal::STOP).unwrap();
    let successor = Operator::start(&trial.workloads.test.cluster.plane, &[])
        .await
        .unwrap();
    trial.everywhere(&value).await;
    let value = trial.rotate().await;
    let revision = trial.everywhere(&value).await;
    // what was on its way arrives
    trial.proxy.heal();
    eventually("the answer to the write", || async {
        anyhow::ensure!(!answers(&trial.proxy, asked).is_empty(), "no answer yet");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(answers(&trial.proxy, asked), [409]);
    trial.operator.process().unwrap().signal(Signal::CONT).unwrap();
    assert_eq!(trial.everywhere(&value).await, revision);
    let value = trial.rotate().await;
    trial.everywhere(&value).await;
    let once_each: Vec<i64> = before.iter().map(|generation| generation + 4).collect();
    assert_eq!(trial.generations().await, once_each);
    drop(successor);
}

#[tokio::test]
async fn restart_denied_by_a_webhook_is_not_blamed_on_rbac() {
    let mut trial = Trial::set("refused", rollout(&json!({}))).await;
    let before = trial.generations().await;
    trial.proxy.strike(Fault::Status(403), 0, usize::MAX, |asked| {
        let is_restart = asked.method == Method::PATCH && asked.path.ends_with("/deployments/api");
        is_restart && !asked.query.contains("dryRun")
    });
    let value = trial.rotate().await;
    let said = "Deployment/api: RBAC allows the restart, but an admission webhook, an admission policy or a quota rejects it";
    let object = trial.workloads.says("RolloutForbidden", said).await;
    let told = serde_json::to_string(&object.status).unwrap();
    assert!(!told.contains("rolebinding"), "{told}");
    let refused = ["outcome=\"refused\""];
    let refused = trial
        .operator
        .metric("lockstep_workload_restarts_total", &refused)
        .await;
    assert!(refused.unwrap() >= 1.0);
    assert_eq!(trial.generations().await, before);
    trial.proxy.heal();
    trial.everywhere(&value).await;
}

#[tokio::test]
async fn restarts_require_the_workload_policy() {
    let mut trial = Trial::set("unguarded", rollout(&json!({}))).await;
    let kubeconfig = trial.workloads.test.cluster.plane.kubeconfig();
    let policy = ["delete", "validatingadmissionpolicybinding", "lockstep-workloads"];
    operator::kubectl(&kubeconfig, &policy, None).await.unwrap();
    // the API server takes a moment to see that it is gone
    let plane = &trial.workloads.test.cluster.plane;
    let client = plane
        .client_for_service_account("lockstep-system", "lockstep")
        .await
        .unwrap();
    let workloads: Api<Deployment> = Api::namespaced(client, &trial.workloads.test.namespace);
    let foreign = Patch::Merge(json!({ "metadata": { "labels": { "x": "y" } } }));
    eventually("a change that nothing refuses", || async {
        let dry = PatchParams::default().dry_run();
        workloads.patch("api", &dry, &foreign).await?;
        Ok(())
    })
    .await
    .unwrap();
    let before = trial.generations().await;
    let value = trial.rotate().await;
    let held = trial.workloads.phase(RolloutPhase::Held).await;
    let message = held.message.unwrap();
    assert!(
        message.contains("installs the admission policy lockstep-workloads"),
        "{message}"
    );
    assert_eq!(trial.generations().await, before);
    assert!(
        trial
            .operator
            .log()
            .contains("lockstep-workloads does not reject")
    );

    operator::install(&kubeconfig).await.unwrap();
    trial.everywhere(&value).await;
    argo_rollout_is_a_target(trial.workloads.test.cluster).await;
    argo_rollout_changes_only_references(trial.workloads.test.cluster).await;
}
