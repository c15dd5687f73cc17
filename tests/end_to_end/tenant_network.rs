//! What a tenant's store can reach on the operator's machine, and what its status says of it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use kube::{Api, api::PostParams};
use lockstep_api::{ClusterSecretStore, Condition, SecretStore};
use lockstep_testkit::{ControlPlane, Operator, operator, ports};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::shared_cluster::eventually;

/// A sidecar that counts connections.
async fn sidecar() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's own runtime")]
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    (port, count)
}

/// `spec` of a store on that server.
fn spec(server: &str) -> Value {
    json!({
        "provider": { "vault": {
            "server": server, "path": "secret",
            "auth": { "kubernetes": { "role": "shop", "serviceAccountRef": { "name": "reader", "audience": "vault" } } },
        } },
        "limits": { "timeout": "2s" },
    })
}

#[tokio::test]
async fn tenant_store_cannot_reach_or_scan_the_operator_host() {
    let plane = ControlPlane::start().await.unwrap();
    plane.install_crds().await.unwrap();
    operator::install(&plane.kubeconfig()).await.unwrap();
    let client = plane.client().await.unwrap();
    let namespace = plane.namespace("tenant").await.unwrap();
    for (name, namespace) in [("reader", namespace.as_str()), ("reader", operator::NAMESPACE)] {
        let account = ["create", "serviceaccount", name, "-n", namespace];
        operator::kubectl(&plane.kubeconfig(), &account, None)
            .await
            .unwrap();
    }
    let (open, connections) = sidecar().await;
    let closed = ports::free().unwrap();
    let mut operator = Operator::prepare_strict(&plane, &["--token-audiences=vault"])
        .await
        .unwrap();
    operator.run().await.unwrap();
    let stores: Api<SecretStore> = Api::namespaced(client.clone(), &namespace);
    let condition = async |name: &str, server: &str| -> Condition {
        let store: SecretStore = serde_json::from_value(json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "SecretStore",
            "metadata": { "name": name }, "spec": spec(server),
        }))
        .unwrap();
        stores.create(&PostParams::default(), &store).await.unwrap();
        let found = eventually("the store's condition", || async {
            let status = stores.get(name).await?.status;
            let ready = status.and_then(|status| status.conditions.into_iter().next());
            ready.ok_or_else(|| anyhow::anyhow!("no condition"))
        });
        match found.await {
            Ok(condition) => condition,
            Err(error) => panic!("{error:#}\n{}", operator.log()),
        }
    };
    let mut said = Vec::new();
    for (number, (host, port)) in [
        ("127.0.0.1", open),
        ("127.0.0.1", closed),
        ("localhost", open),
        ("localhost", closed),
        ("[::ffff:127.0.0.1]", open),
        ("169.254.169.254", 443),
    ]
    .into_iter()
    .enumerate()
    {
        let server = format!("https://{host}:{port}").replace(":443", "");
        let condition = condition(&format!("scan-{number}"), &server).await;
        let url = if host.contains("ffff") {
            format!("https://[::ffff:7f00:1]:{port}")
        } else {
            server
        };
        let message = condition.message.replace(&url, "SERVER");
        said.push((
            condition.reason,
            message.replace(&format!("scan-{number}"), "STORE"),
        ));
    }
    said.dedup();
    assert_eq!(said.len(), 1, "open, closed and blocked look alike: {said:#?}");
    assert!(said[0].1.contains("could not connect to SERVER"), "{said:?}");

    let plain = condition("plain", &format!("http://127.0.0.1:{open}")).await;
    assert_eq!(plain.reason, "ConfigInvalid", "{plain:?}");
    assert!(
        plain.message.contains("a SecretStore cannot use plain http"),
        "{plain:?}"
    );
    let name = condition("name", "https://no-such-host.invalid").await;
    assert!(name.message.contains("could not be resolved"), "{name:?}");
    assert_eq!(
        connections.load(Ordering::Relaxed),
        0,
        "the sidecar was not reached"
    );
    let log = operator.log();
    assert!(
        log.contains("the endpoint policy blocks"),
        "the reason is in the log"
    );

    // a store that a cluster administrator wrote reaches it
    let store: ClusterSecretStore = serde_json::from_value(json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "ClusterSecretStore",
        "metadata": { "name": "sidecar" }, "spec": spec(&format!("http://127.0.0.1:{open}")),
    }))
    .unwrap();
    let api: Api<ClusterSecretStore> = Api::all(client);
    api.create(&PostParams::default(), &store).await.unwrap();
    let reached = eventually("a connection", || async {
        anyhow::ensure!(connections.load(Ordering::Relaxed) > 0, "none");
        Ok(())
    });
    if let Err(error) = reached.await {
        panic!("{error:#}\n{}", operator.log());
    }
}
