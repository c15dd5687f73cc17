//! What can befall a Secret that was written: it is refused, taken away, deleted while its source is away, or cannot be
//! looked at.

use std::{fs, time::Duration};

use axum::http::Method;
use kube::api::{Patch, PatchParams};
use lockstep_testkit::operator;
use serde_json::json;

use crate::{
    api_proxy::{Asked, Fault, NAMESPACE, ProxiedCluster},
    shared_cluster::{message, shared_cluster, text},
};

fn status_writes(cluster: &ProxiedCluster) -> usize {
    let of_status = |asked: &&Asked| asked.is_write() && asked.path.ends_with("syncedsecrets/a/status");
    cluster.proxy.asked().iter().filter(of_status).count()
}

/// Replacements of the Secret `a`.
fn applies(cluster: &ProxiedCluster) -> usize {
    let replace = |asked: &&Asked| asked.method == Method::PUT && asked.path.ends_with("/secrets/a");
    cluster.proxy.asked().iter().filter(replace).count()
}

#[tokio::test]
async fn rejected_replacement_keeps_the_old_secret() {
    let test = shared_cluster().await.test_namespace("refused").await;
    test.put(
        "registry",
        json!({ "config": "{\"auths\":{}}", "certificate": "x" }),
    )
    .await;
    let data = |key: &str, property: &str| json!([{ "secretKey": key, "remoteRef": { "key": test.key("registry"), "property": property } }]);
    // the name holds the word that the API server uses for fields that cannot change
    let pull = json!({
        "data": data(".dockerconfigjson", "config"),
        "target": { "name": "immutable-pull", "template": { "type": "kubernetes.io/dockerconfigjson", "mergePolicy": "Merge" } },
    });
    let fixed = |kind: &str| {
        json!({
            "data": data("value", "certificate"),
            "target": { "name": "fixed", "immutable": true, "template": { "type": kind, "mergePolicy": "Merge" } },
        })
    };
    test.declare("pull", pull).await;
    test.declare("fixed", fixed("Opaque")).await;
    let mut uids = Vec::new();
    for (object, secret) in [("pull", "immutable-pull"), ("fixed", "fixed")] {
        test.wait_for_reason(object, "Synced").await;
        uids.push(test.secrets().get(secret).await.unwrap().metadata.uid);
    }

    test.put("registry", json!({ "config": "no JSON", "certificate": "x" }))
        .await;
    test.refresh("pull", "now").await;
    let change = json!({ "spec": fixed("kubernetes.io/tls") });
    test.synced_secrets()
        .patch("fixed", &PatchParams::default(), &Patch::Merge(change))
        .await
        .unwrap();
    for (index, (object, secret)) in [("pull", "immutable-pull"), ("fixed", "fixed")]
        .into_iter()
        .enumerate()
    {
        let said = test.wait_for_reason(object, "WriteFailed").await;
        assert!(!message(&said).contains("no JSON"), "{}", message(&said));
        let kept = test.secrets().get(secret).await.unwrap();
        assert_eq!(kept.metadata.uid, uids[index], "{secret} was deleted");
    }
    let kept = test.secrets().get("immutable-pull").await.unwrap();
    assert_eq!(
        text(&kept, ".dockerconfigjson").as_deref(),
        Some("{\"auths\":{}}")
    );

    // it heals when the cause goes
    let change = json!({ "spec": fixed("Opaque") });
    test.synced_secrets()
        .patch("fixed", &PatchParams::default(), &Patch::Merge(change))
        .await
        .unwrap();
    test.put("registry", json!({ "config": "{}", "certificate": "x" }))
        .await;
    test.refresh("pull", "again").await;
    for object in ["pull", "fixed"] {
        test.wait_for_reason(object, "Synced").await;
    }
    assert_eq!(test.secrets().get("fixed").await.unwrap().metadata.uid, uids[1]);
}

#[tokio::test]
async fn secret_without_its_owner_annotation_is_reported_once() {
    let mut cluster = ProxiedCluster::set(&["--drift-probe-interval", "1s"])
        .await
        .unwrap();
    cluster.put("a", "one");
    cluster.operator.run().await.unwrap();
    cluster.declare("a").await.unwrap();
    cluster.synced("a", "one").await;
    let take = ["annotate", "secret", "a", "-n", NAMESPACE, "lockstep.dev/owner-"];
    operator::kubectl(&cluster.plane.kubeconfig(), &take, None)
        .await
        .unwrap();
    let ready = cluster.wait_for_reason("a", "TargetForeign").await;
    let told = ready["message"].as_str().unwrap();
    assert!(told.contains("lockstep.dev/adopt=a"), "{told}");
    assert!(told.contains("differs from what lockstep wrote"), "{told}");

    // tries go on, and find the same
    let (before, tries) = (status_writes(&cluster), applies(&cluster));
    for _ in 0..400 {
        if applies(&cluster) > tries {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(
        applies(&cluster) > tries,
        "it is not tried again\n{}",
        cluster.operator.log()
    );
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(status_writes(&cluster), before, "the status does not flap");
    assert_eq!(cluster.ready("a").await["reason"], "TargetForeign");

    let give = ["annotate", "secret", "a", "-n", NAMESPACE, "lockstep.dev/adopt=a"];
    operator::kubectl(&cluster.plane.kubeconfig(), &give, None)
        .await
        .unwrap();
    let refresh = [
        "annotate",
        "syncedsecret",
        "a",
        "-n",
        NAMESPACE,
        "lockstep.dev/refresh=1",
    ];
    operator::kubectl(&cluster.plane.kubeconfig(), &refresh, None)
        .await
        .unwrap();
    cluster.synced("a", "one").await;
}

#[tokio::test]
async fn deleted_secret_is_recreated_when_its_source_returns() {
    let mut cluster = ProxiedCluster::set(&["--drift-probe-interval", "1s"])
        .await
        .unwrap();
    cluster.put("a", "one");
    cluster.operator.run().await.unwrap();
    cluster.declare("a").await.unwrap();
    cluster.synced("a", "one").await;
    let (here, away) = (cluster.root().join("team"), cluster.root().join("away"));
    fs::rename(&here, &away).unwrap();
    cluster.wait_for_reason("a", "Unavailable").await;
    let delete = ["delete", "secret", "a", "-n", NAMESPACE];
    operator::kubectl(&cluster.plane.kubeconfig(), &delete, None)
        .await
        .unwrap();
    fs::rename(&away, &here).unwrap();
    cluster.synced("a", "one").await;
}

#[tokio::test]
async fn failed_drift_probe_does_not_change_the_status() {
    let mut cluster = ProxiedCluster::set(&["--drift-probe-interval", "1s"])
        .await
        .unwrap();
    cluster.put("a", "one");
    cluster.operator.run().await.unwrap();
    cluster.declare("a").await.unwrap();
    cluster.synced("a", "one").await;
    let before = status_writes(&cluster);
    let look = |asked: &Asked| asked.method == Method::DELETE && asked.path.ends_with("/secrets/a");
    cluster.proxy.strike(Fault::Status(503), 0, 1, look);
    cluster.proxy.struck().await;
    cluster
        .metric_reaches("lockstep_drift_probes_total", &["outcome=\"error\""], 1.0)
        .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(status_writes(&cluster), before);
    assert_eq!(cluster.ready("a").await["status"], "True");
}

#[tokio::test]
async fn drift_watch_repairs_at_once_without_probes() {
    let mut cluster = ProxiedCluster::set(&["--drift-probe-interval", "0s", "--drift-watch"])
        .await
        .unwrap();
    let rights = operator::repository().join("deploy/kustomize/components/drift-watch/cluster-role.yaml");
    let grant = ["apply", "-f", rights.to_str().unwrap()];
    operator::kubectl(&cluster.plane.kubeconfig(), &grant, None)
        .await
        .unwrap();
    cluster.put("a", "one");
    cluster.operator.run().await.unwrap();
    cluster.declare("a").await.unwrap();
    let first = cluster.synced("a", "one").await;
    let edit = [
        "patch",
        "secret",
        "a",
        "-n",
        NAMESPACE,
        "-p",
        "{\"stringData\":{\"value\":\"theirs\"}}",
    ];
    operator::kubectl(&cluster.plane.kubeconfig(), &edit, None)
        .await
        .unwrap();
    let second = cluster.synced("a", "one").await;
    assert_eq!(first["metadata"]["uid"], second["metadata"]["uid"]);
    let delete = ["delete", "secret", "a", "-n", NAMESPACE];
    operator::kubectl(&cluster.plane.kubeconfig(), &delete, None)
        .await
        .unwrap();
    let third = cluster.synced("a", "one").await;
    assert_ne!(second["metadata"]["uid"], third["metadata"]["uid"]);
}
