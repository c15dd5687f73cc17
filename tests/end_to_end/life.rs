//! From the start of the operator to its end.

use std::time::Duration;

use lockstep_testkit::{Operator, operator};

use crate::{
    api_proxy::{Asked, Fault, ProxiedCluster},
    shared_cluster::eventually,
};

/// How long the end may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn operator_shuts_down_cleanly_while_the_cluster_hangs() {
    let mut cluster = ProxiedCluster::set(&[]).await.unwrap();
    cluster.put("a", "0");
    cluster.operator.run().await.unwrap();
    cluster.declare("a").await.unwrap();
    cluster.synced("a", "0").await;
    let end = cluster.operator.terminate(PATIENCE).unwrap();
    assert_eq!(end.code(), Some(0), "{}", cluster.operator.log());

    cluster.operator.kill();
    cluster.operator.run().await.unwrap();
    cluster
        .proxy
        .strike(Fault::Hangs, 0, 100, |asked| asked.path.ends_with("/secrets/a"));
    cluster.put("a", "1");
    cluster.proxy.struck().await;
    let end = cluster.operator.terminate(PATIENCE).unwrap();
    assert_eq!(end.code(), Some(0), "{}", cluster.operator.log());
}

#[tokio::test]
async fn operator_is_live_but_not_ready_before_its_first_list() {
    let mut cluster = ProxiedCluster::set(&[]).await.unwrap();
    let lists = |asked: &Asked| asked.path.ends_with("/syncedsecrets");
    cluster.proxy.strike(Fault::Status(503), 0, 1000, lists);
    let (proxy, address) = (cluster.proxy.clone(), cluster.operator.address());
    let status = async |path: &str| {
        let answer = reqwest::get(format!("{address}/{path}")).await;
        answer.expect("an answer").status().as_u16()
    };
    let watched = async {
        proxy.struck().await;
        let seen = (status("livez").await, status("readyz").await);
        proxy.heal();
        seen
    };
    let (started, seen) = tokio::join!(cluster.operator.run(), watched);
    assert_eq!(seen, (200, 503));
    started.unwrap();
}

#[tokio::test]
async fn operator_watches_only_the_configured_namespaces() {
    let mut cluster = ProxiedCluster::set(&["--namespaces", "scene"]).await.unwrap();
    cluster.put("a", "0");
    cluster.operator.run().await.unwrap();
    cluster.declare_in("default", "a").await.unwrap();
    cluster.declare("a").await.unwrap();
    cluster.synced("a", "0").await;
    let strays: Vec<_> = cluster
        .proxy
        .asked()
        .into_iter()
        .filter(|asked| asked.path.contains("syncedsecrets") && !asked.path.contains("/namespaces/scene/"))
        .collect();
    assert!(strays.is_empty(), "{strays:?}");
}

#[tokio::test]
async fn start_without_the_admission_policy_requires_the_option() {
    let flag = "--unsafe-without-admission-policy";
    let mut cluster = ProxiedCluster::set(&[flag]).await.unwrap();
    let kubeconfig = cluster.plane.kubeconfig();
    let delete = ["delete", "validatingadmissionpolicybindings", "--all"];
    operator::kubectl(&kubeconfig, &delete, None).await.unwrap();
    // the API server needs a moment to forget a policy
    let account = "--as=system:serviceaccount:lockstep-system:lockstep";
    let write = [
        "create",
        "secret",
        "generic",
        "foreign",
        "-n",
        "scene",
        "--dry-run=server",
        account,
    ];
    eventually("no policy", || operator::kubectl(&kubeconfig, &write, None))
        .await
        .unwrap();

    let mut careful = Operator::prepare(&cluster.plane, &[]).await.unwrap();
    let ready = tokio::time::timeout(Duration::from_secs(5), careful.run()).await;
    assert!(ready.is_err(), "it waits for the policy: {}", careful.log());
    careful.kill();

    cluster.put("a", "0");
    cluster.operator.run().await.unwrap();
    cluster.declare("a").await.unwrap();
    cluster.synced("a", "0").await;
    assert!(
        cluster.operator.log().contains(flag),
        "it says what it does without"
    );
}
