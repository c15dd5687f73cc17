//! The fingerprint key is lost: nothing is written, restarted or issued because of it, and the next change is noticed as before.

use axum::http::Method;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, api::DeleteParams};
use lockstep_testkit::operator;
use serde_json::{Value, json};

use crate::{
    api_proxy::{Asked, NAMESPACE, ProxiedCluster},
    rollout_crash::{Trial, rollout},
    shared_cluster::eventually,
};

async fn lose_key(client: Client) {
    let secrets: Api<Secret> = Api::namespaced(client, operator::NAMESPACE);
    secrets
        .delete("lockstep-fingerprint-key", &DeleteParams::default())
        .await
        .unwrap();
}

fn writes_secret(asked: &Asked) -> bool {
    let here = asked.path.contains(&format!("/namespaces/{NAMESPACE}/"));
    here && asked.is_of_secrets() && asked.method != Method::GET && !asked.query.contains("dryRun")
}

/// Waits until the status has another key id, and answers `status.target`.
async fn adopted(cluster: &ProxiedCluster, name: &str, before: &Value) -> Value {
    let target = eventually("another key id", || async {
        let target = cluster.get("syncedsecret", name).await["status"]["target"].clone();
        anyhow::ensure!(target["keyId"].is_string(), "{target}");
        anyhow::ensure!(target["keyId"] != before["keyId"], "{target}");
        Ok(target)
    });
    match target.await {
        Ok(target) => target,
        Err(error) => panic!("{error:#}\n{}", cluster.operator.log()),
    }
}

#[tokio::test]
async fn lost_key_writes_no_secret_and_hides_no_later_change() {
    let mut cluster = ProxiedCluster::set(&["--drift-probe-interval", "0s"])
        .await
        .unwrap();
    let names = ["a", "b"];
    for name in names {
        cluster.put(name, "same");
    }
    cluster.operator.run().await.unwrap();
    let (mut secrets, mut targets) = (Vec::new(), Vec::new());
    for name in names {
        cluster.declare(name).await.unwrap();
        secrets.push(cluster.synced(name, "same").await);
        targets.push(cluster.get("syncedsecret", name).await["status"]["target"].clone());
    }
    assert_ne!(
        targets[0]["revision"], targets[1]["revision"],
        "equal values are not visible"
    );
    cluster.operator.kill();
    lose_key(cluster.plane.client().await.unwrap()).await;
    let asked = cluster.proxy.asked().len();
    cluster.operator.run().await.unwrap();
    for (name, (secret, target)) in names.iter().zip(secrets.iter().zip(&targets)) {
        let now = adopted(&cluster, name, target).await;
        assert_ne!(now["fingerprint"], target["fingerprint"]);
        for same in ["name", "uid", "resourceVersion", "revision", "lastChangeTime"] {
            assert_eq!(now[same], target[same], "{same}");
        }
        assert_eq!(cluster.synced(name, "same").await["metadata"], secret["metadata"]);
    }
    let writes = |from: usize| {
        let all = cluster.proxy.asked();
        all.into_iter().skip(from).filter(writes_secret).count()
    };
    assert_eq!(writes(asked), 0, "{:?}", cluster.proxy.asked());
    // what differs in metadata only keeps its revision, also under the new key
    let label = json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "SyncedSecret",
        "metadata": { "name": "a", "namespace": NAMESPACE },
        "spec": {
            "secretStoreRef": { "name": "files", "kind": "ClusterSecretStore" },
            "refreshInterval": "1s",
            "data": [{ "secretKey": "value", "remoteRef": { "key": "a" } }],
            "target": { "template": { "metadata": { "labels": { "team": "shop" } } } },
        },
    });
    cluster.apply(&label).await.unwrap();
    let labelled = eventually("the label", || async {
        let secret = cluster.get("secret", "a").await;
        anyhow::ensure!(secret["metadata"]["labels"]["team"] == "shop", "{secret}");
        Ok(())
    });
    labelled.await.unwrap();
    cluster.synced("a", "same").await;
    let target = cluster.get("syncedsecret", "a").await["status"]["target"].clone();
    assert_eq!(target["revision"], targets[0]["revision"]);
    // and a new value is one write and a new revision
    let asked = cluster.proxy.asked().len();
    cluster.put("b", "other");
    cluster.synced("b", "other").await;
    let target = cluster.get("syncedsecret", "b").await["status"]["target"].clone();
    assert_ne!(target["revision"], targets[1]["revision"]);
    assert_eq!(writes(asked), 1);
}

#[tokio::test]
async fn lost_key_restarts_no_workload() {
    let mut trial = Trial::set("key-loss", rollout(&json!({}))).await;
    let value = trial.rotate().await;
    let revision = trial.everywhere(&value).await;
    let generations = trial.generations().await;
    let key_id =
        |object: &lockstep_api::SyncedSecret| object.status.as_ref()?.target.as_ref()?.key_id.clone();
    let before = trial
        .workloads
        .test
        .synced_secrets()
        .get("database")
        .await
        .unwrap();
    lose_key(trial.workloads.test.client.clone()).await;
    trial.start_anew().await;
    let waited = trial
        .workloads
        .test
        .wait_for("database", "another key id", |object| {
            key_id(object).is_some() && key_id(object) != key_id(&before)
        });
    waited.await;
    assert_eq!(trial.everywhere(&value).await, revision);
    assert_eq!(trial.generations().await, generations);
    let value = trial.rotate().await;
    assert_ne!(trial.everywhere(&value).await, revision);
    let once: Vec<i64> = generations.iter().map(|generation| generation + 1).collect();
    assert_eq!(trial.generations().await, once);
}
