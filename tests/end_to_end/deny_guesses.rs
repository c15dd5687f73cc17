//! The operator with the component `deny-guesses`, which denies some of its requests before the policy `lockstep-secrets` does.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use lockstep_testkit::operator;
use serde_json::{Value, json};

use crate::{
    bad_input::one,
    shared_cluster::{SharedCluster, TestNamespace, message, text},
};

async fn declare(test: &TestNamespace, name: &str, target: Value) {
    let data = json!([one("x", &test.key("a"), "x")]);
    test.declare(name, json!({ "data": data, "target": target }))
        .await;
}

async fn someones_secret(test: &TestNamespace, name: &str, annotations: Value, immutable: bool) -> Secret {
    test.apply_raw(&json!({
        "apiVersion": "v1", "kind": "Secret", "immutable": immutable,
        "metadata": { "name": name, "namespace": test.namespace, "annotations": annotations },
        "stringData": { "x": "1" },
    }))
    .await
    .unwrap();
    test.secrets().get(name).await.unwrap()
}

#[tokio::test]
async fn operator_works_with_the_component() {
    let cluster = SharedCluster::raise_without_operator(&[]).await.unwrap();
    let cluster = Box::leak(Box::new(cluster));
    let overlay = operator::repository().join("deploy/kustomize/overlays/deny-guesses");
    operator::apply_folder(&cluster.plane.kubeconfig(), &overlay)
        .await
        .unwrap();
    cluster.operator.run().await.unwrap();
    let test = cluster.test_namespace("deny-guesses").await;
    test.put("a", json!({ "x": "1" })).await;

    // created, replaced, and created again for another type
    declare(&test, "owned", json!({})).await;
    test.wait_for_reason("owned", "Synced").await;
    let written = test.secrets().get("owned").await.unwrap();
    assert_eq!(
        written.metadata.managed_fields.map(|fields| fields.len()),
        Some(1),
        "of the creation"
    );
    let typed = json!({ "target": { "template": { "type": "example.org/x", "mergePolicy": "Merge" } } });
    test.change("owned", typed).await;
    test.wait_for_secret("owned", "the type", |secret| {
        secret.type_.as_deref() == Some("example.org/x")
    })
    .await;

    // an immutable Secret is found again although the status is lost
    declare(&test, "sealed", json!({ "immutable": true })).await;
    test.wait_for_reason("sealed", "Synced").await;
    let before = test.secrets().get("sealed").await.unwrap();
    assert_eq!(before.immutable, Some(true));
    let orphan = json!({ "metadata": { "ownerReferences": null } });
    test.secrets()
        .patch("sealed", &PatchParams::default(), &Patch::Merge(orphan))
        .await
        .unwrap();
    test.synced_secrets()
        .delete("sealed", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    declare(
        &test,
        "sealed",
        json!({ "immutable": true, "creationPolicy": "Orphan" }),
    )
    .await;
    test.wait_for_reason("sealed", "Synced").await;
    let after = test.secrets().get("sealed").await.unwrap();
    assert_eq!(after.metadata.uid, before.metadata.uid);

    someones_secret(
        &test,
        "offered",
        json!({ "lockstep.dev/adopt": "offered" }),
        false,
    )
    .await;
    declare(&test, "offered", json!({})).await;
    test.wait_for_reason("offered", "Synced").await;

    // the data of an immutable Secret is what the SyncedSecret writes
    for (name, immutable) in [("foreign", false), ("foreign-immutable", true)] {
        let before = someones_secret(&test, name, json!({}), immutable).await;
        declare(&test, name, json!({ "immutable": immutable })).await;
        let object = test.wait_for_reason(name, "TargetForeign").await;
        assert!(
            message(&object).contains("already exists"),
            "{}",
            message(&object)
        );
        assert_eq!(test.secrets().get(name).await.unwrap(), before);
    }

    someones_secret(&test, "merged", json!({ "lockstep.dev/merge": "listed" }), false).await;
    let namespace = &test.namespace;
    test.apply_raw(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": { "name": "merge", "namespace": namespace },
        "rules": [{ "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["merged"], "verbs": ["patch"] }],
    }))
    .await
    .unwrap();
    test.apply_raw(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": { "name": "merge", "namespace": namespace },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "merge" },
        "subjects": [{ "kind": "ServiceAccount", "name": "lockstep", "namespace": "lockstep-system" }],
    }))
    .await
    .unwrap();
    let merge =
        json!({ "name": "merged", "creationPolicy": "Merge", "template": { "data": { "y": "{{ .x }}" } } });
    declare(&test, "listed", merge.clone()).await;
    test.wait_for_reason("listed", "Synced").await;
    declare(&test, "unlisted", merge).await;
    let object = test.wait_for_reason("unlisted", "TargetForeign").await;
    assert!(message(&object).contains("does not list"), "{}", message(&object));
    let merged = test.secrets().get("merged").await.unwrap();
    assert_eq!(text(&merged, "y").as_deref(), Some("1"));
}
