//! A cluster that misbehaves: the Secret stays as it was, and all heals by itself when the cause goes.

use lockstep_testkit::operator;
use serde_json::json;

use crate::{
    api_proxy::{Asked, Fault, NAMESPACE, ProxiedCluster},
    shared_cluster::eventually,
};

fn of_secret(asked: &Asked) -> bool {
    asked.is_write() && asked.path.contains("/namespaces/scene/secrets")
}

fn of_status(asked: &Asked) -> bool {
    asked.is_write() && asked.path.ends_with("/status")
}

#[tokio::test]
async fn rejected_throttled_and_lost_writes_are_retried() {
    let mut cluster = ProxiedCluster::set(&[]).await.unwrap();
    cluster.put("a", "0");
    cluster.operator.run().await.unwrap();
    cluster.declare("a").await.unwrap();
    let uid = cluster.synced("a", "0").await["metadata"]["uid"].clone();
    let mut round = 0;
    for matches in [of_secret as fn(&Asked) -> bool, of_status] {
        for fault in [
            Fault::Status(429),
            Fault::Status(500),
            Fault::Status(409),
            Fault::Status(503),
        ] {
            round += 1;
            cluster.proxy.strike(fault, 0, 2, matches);
            cluster.put("a", &round.to_string());
            cluster.proxy.struck().await;
            let secret = cluster.synced("a", &round.to_string()).await;
            assert_eq!(secret["metadata"]["uid"], uid, "{fault:?}: it is the same Secret");
            cluster.proxy.heal();
        }
    }
}

#[tokio::test]
async fn repeatedly_rejected_write_is_reported_and_counted() {
    let mut cluster = ProxiedCluster::set(&[]).await.unwrap();
    cluster.put("a", "0");
    cluster.operator.run().await.unwrap();
    cluster.declare("a").await.unwrap();
    let before = cluster.synced("a", "0").await;
    cluster.proxy.strike(Fault::Status(500), 0, usize::MAX, of_secret);
    cluster.put("a", "1");
    let ready = cluster.wait_for_reason("a", "WriteFailed").await;
    let told = ready["message"].as_str().unwrap();
    assert!(
        told.starts_with("Secret \"a\" could not be written: the API server returned 500"),
        "{told}"
    );
    assert!(told.contains("was left unchanged (revision "), "{told}");
    assert!(!told.contains("injected by the test"), "{told}");
    cluster
        .metric_reaches("lockstep_secret_writes_total", &["outcome=\"error\""], 1.0)
        .await;
    let now = cluster.get("secret", "a").await;
    assert_eq!(now["data"], before["data"]);
    cluster.proxy.heal();
    cluster.synced("a", "1").await;
}

#[tokio::test]
async fn operator_reconnects_after_an_api_server_restart() {
    let mut cluster = ProxiedCluster::set(&[]).await.unwrap();
    cluster.put("a", "0");
    cluster.put("b", "0");
    cluster.operator.run().await.unwrap();
    cluster.declare("a").await.unwrap();
    cluster.synced("a", "0").await;
    cluster.plane.restart_api_server().await.unwrap();
    cluster.put("a", "1");
    cluster.synced("a", "1").await;
    cluster.declare("b").await.unwrap();
    cluster.synced("b", "0").await;
    assert!(
        cluster.operator.process().unwrap().try_wait().unwrap().is_none(),
        "it did not end"
    );
}

#[tokio::test]
async fn malformed_object_does_not_affect_others() {
    let mut cluster = ProxiedCluster::set(&[]).await.unwrap();
    for name in ["a", "b"] {
        cluster.put(name, "0");
    }
    // as an older operator sees a newer schema: the API server takes what this version cannot read
    let crd = json!([{ "op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema",
        "value": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } }]);
    let patch = crd.to_string();
    let loosen = [
        "patch",
        "crd",
        "syncedsecrets.lockstep.dev",
        "--type=json",
        "-p",
        &patch,
    ];
    operator::kubectl(&cluster.plane.kubeconfig(), &loosen, None)
        .await
        .unwrap();
    let newer = json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "SyncedSecret",
        "metadata": { "name": "newer", "namespace": NAMESPACE },
        "spec": { "data": "of another form", "refreshInterval": { "every": "hour" } },
    });
    eventually("the loosened schema", || cluster.apply(&newer))
        .await
        .unwrap();
    cluster.declare("a").await.unwrap();
    cluster.operator.run().await.unwrap();
    cluster.synced("a", "0").await;
    cluster.declare("b").await.unwrap();
    cluster.synced("b", "0").await;
    cluster
        .metric_reaches("lockstep_malformed_objects", &["SyncedSecret"], 1.0)
        .await;
}

#[tokio::test]
async fn deleted_namespace_leaves_no_work_behind() {
    let mut cluster = ProxiedCluster::set(&[]).await.unwrap();
    cluster.put("a", "0");
    cluster.operator.run().await.unwrap();
    cluster
        .apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "leaving" } }))
        .await
        .unwrap();
    cluster.declare_in("leaving", "a").await.unwrap();
    cluster.declare("a").await.unwrap();
    cluster.synced("a", "0").await;
    let delete = ["delete", "namespace", "leaving", "--timeout=40s"];
    operator::kubectl(&cluster.plane.kubeconfig(), &delete, None)
        .await
        .unwrap();
    cluster.put("a", "1");
    cluster.synced("a", "1").await;
    let writes = |cluster: &ProxiedCluster| {
        let asked = cluster.proxy.asked();
        asked
            .iter()
            .filter(|asked| asked.path.contains("/namespaces/leaving/"))
            .count()
    };
    let before = writes(&cluster);
    cluster.put("a", "2");
    cluster.synced("a", "2").await;
    assert_eq!(
        writes(&cluster),
        before,
        "nothing is asked of a namespace that is gone"
    );
}

#[tokio::test]
async fn writes_stop_while_the_admission_policy_is_missing() {
    let arguments = ["--admission-check-interval", "1s", "--drift-probe-interval", "1s"];
    let mut cluster = ProxiedCluster::set(&arguments).await.unwrap();
    cluster.put("a", "0");
    cluster.operator.run().await.unwrap();
    cluster.declare("a").await.unwrap();
    let before = cluster.synced("a", "0").await;
    let kubeconfig = cluster.plane.kubeconfig();
    let policies = ["lockstep-secrets", "lockstep-token-requests"];
    for policy in policies {
        let delete = ["delete", "validatingadmissionpolicybinding", policy];
        operator::kubectl(&kubeconfig, &delete, None).await.unwrap();
    }
    let unready = async || {
        let answer = reqwest::get(format!("{}/readyz", cluster.operator.address())).await?;
        anyhow::ensure!(!answer.status().is_success(), "it is ready");
        Ok(answer.text().await?)
    };
    let told = eventually("readyz", unready).await.unwrap();
    assert!(told.contains("lockstep-secrets no longer refuses"), "{told}");
    for policy in ["secrets", "token_requests"] {
        let label = format!("policy=\"{policy}\"");
        let open = async || {
            let figure = cluster
                .operator
                .metric("lockstep_admission_self_test", &[&label])
                .await?;
            anyhow::ensure!(figure < 0.5, "{label} is {figure}");
            Ok(())
        };
        eventually(policy, open).await.unwrap();
    }

    let asked = cluster.proxy.asked().len();
    cluster.put("a", "1");
    let ready = cluster.wait_for_reason("a", "WriteFailed").await;
    assert!(
        ready["message"].as_str().unwrap().contains("admission policy"),
        "{ready}"
    );
    assert_eq!(cluster.get("secret", "a").await["data"], before["data"]);
    let patched = cluster
        .proxy
        .asked()
        .split_off(asked)
        .into_iter()
        .any(|asked| of_secret(&asked));
    assert!(!patched, "not even a look, which is a patch, touches a Secret");

    operator::install(&kubeconfig).await.unwrap();
    cluster.synced("a", "1").await;
}
