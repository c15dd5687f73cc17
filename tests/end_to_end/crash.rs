//! A lost machine: the operator is killed (signal 9) at each of its writes, before and after it reaches the API server,
//! and the next start brings everything where it has to be.

use http::Method;
use lockstep_testkit::operator;
use serde_json::json;

use crate::api_proxy::{Asked, Fault, NAMESPACE, ProxiedCluster};

#[tokio::test]
async fn kill_at_any_write_loses_nothing() {
    let mut cluster = ProxiedCluster::set(&[]).await.unwrap();
    let mut uids = Vec::new();
    for name in ["a", "b"] {
        cluster.put(name, "0");
    }
    cluster.operator.run().await.unwrap();
    for name in ["a", "b"] {
        cluster.declare(name).await.unwrap();
        uids.push(cluster.synced(name, "0").await["metadata"]["uid"].clone());
    }
    let mut round = 0;
    for fault in [Fault::Hangs, Fault::LosesAnswer] {
        // two objects, two writes each
        for nth in 0..4 {
            round += 1;
            cluster.proxy.strike(fault, nth, 1, Asked::is_write);
            for name in ["a", "b"] {
                cluster.put(name, &round.to_string());
            }
            cluster.proxy.struck().await;
            cluster.operator.kill();
            cluster.proxy.heal();
            cluster.operator.run().await.unwrap();
            for (name, uid) in ["a", "b"].iter().zip(&uids) {
                let secret = cluster.synced(name, &round.to_string()).await;
                assert_eq!(
                    secret["metadata"]["uid"], *uid,
                    "{fault:?} at write {nth}: it is the same Secret"
                );
            }
        }
    }
}

#[tokio::test]
async fn kill_during_a_first_sync_leaves_nothing_unfinished() {
    let mut cluster = ProxiedCluster::set(&[]).await.unwrap();
    cluster.operator.run().await.unwrap();
    for fault in [Fault::Hangs, Fault::LosesAnswer] {
        for nth in 0..2 {
            let name = format!("{fault:?}-{nth}").to_lowercase();
            cluster.put(&name, "0");
            cluster.proxy.strike(fault, nth, 1, Asked::is_write);
            cluster.declare(&name).await.unwrap();
            cluster.proxy.struck().await;
            cluster.operator.kill();
            cluster.proxy.heal();
            cluster.operator.run().await.unwrap();
            cluster.synced(&name, "0").await;
        }
    }
}

#[tokio::test]
async fn kill_during_an_immutable_replacement_ends_with_the_new_secret() {
    let mut cluster = ProxiedCluster::set(&[]).await.unwrap();
    cluster.put("a", "0");
    cluster.operator.run().await.unwrap();
    let object = json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "SyncedSecret",
        "metadata": { "name": "a", "namespace": NAMESPACE },
        "spec": {
            "secretStoreRef": { "name": "files", "kind": "ClusterSecretStore" },
            "refreshInterval": "1s",
            "target": { "immutable": true },
            "data": [{ "secretKey": "value", "remoteRef": { "key": "a" } }],
        },
    });
    for nth in 0..4 {
        // the new Secret, its uid, the seal, the status; and the value changes before the next start
        cluster.proxy.strike(Fault::LosesAnswer, nth, 1, Asked::is_write);
        let mut object = object.clone();
        object["metadata"]["name"] = json!(format!("new-{nth}"));
        cluster.apply(&object).await.unwrap();
        cluster.proxy.struck().await;
        cluster.operator.kill();
        cluster.put("a", &format!("changed {nth}"));
        cluster.proxy.heal();
        cluster.operator.run().await.unwrap();
        let name = format!("new-{nth}");
        if nth == 2 {
            // sealed, and nothing shows by whom: someone may have handed it over meanwhile
            cluster.wait_for_reason(&name, "TargetNotDeletable").await;
            let delete = ["delete", "secret", &name, "-n", NAMESPACE];
            operator::kubectl(&cluster.plane.kubeconfig(), &delete, None)
                .await
                .unwrap();
        }
        cluster.synced(&name, &format!("changed {nth}")).await;
        let delete = ["delete", "syncedsecret", &format!("new-{nth}"), "-n", NAMESPACE];
        operator::kubectl(&cluster.plane.kubeconfig(), &delete, None)
            .await
            .unwrap();
    }
    cluster.put("a", "0");
    cluster.apply(&object).await.unwrap();
    cluster.synced("a", "0").await;
    let mut round = 0;
    for fault in [Fault::Hangs, Fault::LosesAnswer] {
        // the replacement that is refused, the rehearsal, the deletion, the new Secret, its uid, the seal, the status
        for nth in 0..7 {
            round += 1;
            cluster.proxy.strike(fault, nth, 1, Asked::is_write);
            cluster.put("a", &round.to_string());
            cluster.proxy.struck().await;
            cluster.operator.kill();
            cluster.proxy.heal();
            cluster.operator.run().await.unwrap();
            cluster.synced("a", &round.to_string()).await;
        }
    }
}

#[tokio::test]
async fn secret_deleted_before_it_is_immutable_ends_immutable() {
    let mut cluster = ProxiedCluster::set(&[]).await.unwrap();
    cluster.put("a", "0");
    cluster.operator.run().await.unwrap();
    // the first replacement of a Secret seals it
    let seals = |asked: &Asked| asked.method == Method::PUT && asked.is_of_secrets();
    cluster.proxy.strike(Fault::Waits, 0, 1, seals);
    let object = json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "SyncedSecret",
        "metadata": { "name": "a", "namespace": NAMESPACE },
        "spec": {
            "secretStoreRef": { "name": "files", "kind": "ClusterSecretStore" },
            "target": { "immutable": true },
            "data": [{ "secretKey": "value", "remoteRef": { "key": "a" } }],
        },
    });
    cluster.apply(&object).await.unwrap();
    cluster.proxy.struck().await;
    let secret = ["secret", "a", "-n", NAMESPACE];
    let kubeconfig = cluster.plane.kubeconfig();
    operator::kubectl(&kubeconfig, &[&["delete"], &secret[..]].concat(), None)
        .await
        .unwrap();
    cluster.proxy.heal();
    cluster.synced("a", "0").await;
    let immutable = [
        "get",
        "secret",
        "a",
        "-n",
        NAMESPACE,
        "-o",
        "jsonpath={.immutable}",
    ];
    let immutable = operator::kubectl(&kubeconfig, &immutable, None).await.unwrap();
    assert_eq!(immutable, "true");
}
