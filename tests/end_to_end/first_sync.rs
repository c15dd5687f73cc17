//! From YAML to Secret, and what follows.

use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::shared_cluster::{message, shared_cluster, text};

fn one(key: &str, remote: &str, property: &str) -> serde_json::Value {
    json!({ "secretKey": key, "remoteRef": { "key": remote, "property": property } })
}

#[tokio::test]
async fn synced_secret_creates_a_secret_and_follows_its_source() {
    let test = shared_cluster().await.test_namespace("follow").await;
    test.put("database", json!({ "username": "shop", "password": "one/two" }))
        .await;
    let key = test.key("database");
    test.declare(
        "database",
        json!({
            "data": [one("username", &key, "username"), one("password", &key, "password")],
            "target": { "template": { "mergePolicy": "Merge", "data": {
                "url": "postgres://{{ .username }}:{{ .password | urlquery }}@db/shop",
            } } },
        }),
    )
    .await;
    let object = test.wait_for_reason("database", "Synced").await;
    let secret = test.secrets().get("database").await.unwrap();
    assert_eq!(text(&secret, "url").unwrap(), "postgres://shop:one%2Ftwo@db/shop");
    assert_eq!(
        secret.metadata.annotations.as_ref().unwrap()["lockstep.dev/owner"],
        "database"
    );
    assert_eq!(
        secret.metadata.owner_references.as_ref().unwrap()[0].name,
        "database"
    );
    let before = object.status.unwrap();
    assert_eq!(before.sources[0].version.as_deref(), Some("1"));

    test.put("database", json!({ "username": "shop", "password": "three" }))
        .await;
    test.refresh("database", "now").await;
    test.wait_for_secret("database", "the new password", |secret| {
        text(secret, "password").as_deref() == Some("three")
    })
    .await;
    let after = test
        .wait_for("database", "the new version", |object| {
            object
                .status
                .as_ref()
                .is_some_and(|status| status.handled_refresh.as_deref() == Some("now"))
        })
        .await
        .status
        .unwrap();
    assert_eq!(after.sources[0].version.as_deref(), Some("2"));
    assert_ne!(before.target.unwrap().revision, after.target.unwrap().revision);
}

#[tokio::test]
async fn edited_or_deleted_secret_is_restored() {
    let test = shared_cluster().await.test_namespace("drift").await;
    test.put("a", json!({ "x": "good" })).await;
    test.declare("drift", json!({ "data": [one("x", &test.key("a"), "x")] }))
        .await;
    test.wait_for_reason("drift", "Synced").await;
    let edit = json!({ "stringData": { "x": "bad" } });
    test.secrets()
        .patch("drift", &PatchParams::default(), &Patch::Merge(edit))
        .await
        .unwrap();
    test.wait_for_secret("drift", "the repair", |secret| {
        text(secret, "x").as_deref() == Some("good")
    })
    .await;
    test.secrets()
        .delete("drift", &DeleteParams::default())
        .await
        .unwrap();
    test.wait_for_secret("drift", "the new Secret", |secret| {
        text(secret, "x").as_deref() == Some("good")
    })
    .await;
}

#[tokio::test]
async fn missing_property_is_named_and_keeps_the_secret() {
    let test = shared_cluster().await.test_namespace("missing").await;
    test.put("smtp", json!({ "user": "u", "password": "p" })).await;
    let key = test.key("smtp");
    test.declare("smtp", json!({ "data": [one("password", &key, "password")] }))
        .await;
    test.wait_for_reason("smtp", "Synced").await;
    let patch = json!({ "spec": { "data": [one("password", &key, "pasword")] } });
    test.synced_secrets()
        .patch("smtp", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    let object = test.wait_for_reason("smtp", "SourceNotFound").await;
    let said = message(&object);
    assert!(
        said.starts_with(&format!(
            "data[0] (secretKey \"password\"): key \"{key}\" has no property \"pasword\" in store SecretStore/vault; it has 2 properties."
        )),
        "{said}"
    );
    assert!(
        said.contains(" Secret \"smtp\" was left unchanged (revision "),
        "{said}"
    );
    assert_eq!(
        text(&test.secrets().get("smtp").await.unwrap(), "password").as_deref(),
        Some("p")
    );
    let patch = json!({ "spec": { "data": [one("password", &key, "password")] } });
    test.synced_secrets()
        .patch("smtp", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    test.wait_for_reason("smtp", "Synced").await;
}

#[tokio::test]
async fn store_created_later_wakes_its_dependents() {
    let test = shared_cluster().await.test_namespace("later").await;
    test.put("a", json!({ "x": "1" })).await;
    test.declare(
        "early",
        json!({ "secretStoreRef": { "name": "late" }, "data": [one("x", &test.key("a"), "x")] }),
    )
    .await;
    let object = test.wait_for_reason("early", "StoreNotFound").await;
    assert!(
        message(&object).contains("SecretStore/late does not exist in namespace"),
        "{}",
        message(&object)
    );
    test.add_token_store("late", &["read"]).await.unwrap();
    test.wait_for_reason("early", "Synced").await;
}

#[tokio::test]
async fn unowned_secret_is_left_alone_until_it_is_handed_over() {
    let test = shared_cluster().await.test_namespace("foreign").await;
    test.put("a", json!({ "x": "ours" })).await;
    test.apply_raw(&json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": "taken", "namespace": test.namespace },
        "stringData": { "x": "theirs" },
    }))
    .await
    .unwrap();
    test.declare("taken", json!({ "data": [one("x", &test.key("a"), "x")] }))
        .await;
    let object = test.wait_for_reason("taken", "TargetForeign").await;
    assert!(
        message(&object).contains("lockstep.dev/adopt=taken"),
        "{}",
        message(&object)
    );
    assert_eq!(
        text(&test.secrets().get("taken").await.unwrap(), "x").as_deref(),
        Some("theirs")
    );
    let adopt = json!({ "metadata": { "annotations": { "lockstep.dev/adopt": "taken" } } });
    test.secrets()
        .patch("taken", &PatchParams::default(), &Patch::Merge(adopt))
        .await
        .unwrap();
    test.refresh("taken", "adopted").await;
    test.wait_for_secret("taken", "the adoption", |secret| {
        text(secret, "x").as_deref() == Some("ours")
    })
    .await;
}

#[tokio::test]
async fn older_of_two_objects_with_one_target_wins() {
    let test = shared_cluster().await.test_namespace("rivals").await;
    test.put("a", json!({ "x": "1" })).await;
    let spec = |key: &str| json!({ "data": [one("x", key, "x")], "target": { "name": "shared" } });
    test.declare("older", spec(&test.key("a"))).await;
    test.wait_for_reason("older", "Synced").await;
    // ages are told in whole seconds
    tokio::time::sleep(Duration::from_millis(1100)).await;
    test.declare("younger", spec(&test.key("a"))).await;
    let object = test.wait_for_reason("younger", "Conflict").await;
    assert!(
        message(&object).contains("managed by the older SyncedSecret \"older\""),
        "{}",
        message(&object)
    );
    test.wait_for_reason("older", "Synced").await;
}

#[tokio::test]
async fn secret_is_deleted_with_its_synced_secret() {
    let test = shared_cluster().await.test_namespace("owner").await;
    test.put("a", json!({ "x": "1" })).await;
    test.declare("gone", json!({ "data": [one("x", &test.key("a"), "x")] }))
        .await;
    test.wait_for_reason("gone", "Synced").await;
    test.synced_secrets()
        .delete("gone", &DeleteParams::default())
        .await
        .unwrap();
    let is_gone = || async {
        let secret = test.secrets().get_opt("gone").await?;
        anyhow::ensure!(secret.is_none(), "still there");
        Ok(())
    };
    // Kubernetes' garbage collector learns of new kinds every thirty seconds: right after their installation it takes so long
    if crate::shared_cluster::eventually("the end of the Secret", is_gone)
        .await
        .is_err()
    {
        crate::shared_cluster::eventually("the end of the Secret", is_gone)
            .await
            .unwrap();
    }
    crate::shared_cluster::eventually("the end of its metrics", || async {
        let (_, text) = test.cluster.operator.get("metrics").await?;
        anyhow::ensure!(
            !text.contains(&format!("namespace=\"{}\"", test.namespace)),
            "still there"
        );
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn immutable_secret_is_replaced() {
    let test = shared_cluster().await.test_namespace("immutable").await;
    test.put("a", json!({ "x": "1" })).await;
    let spec = json!({ "data": [one("x", &test.key("a"), "x")], "target": { "immutable": true } });
    test.declare("fixed", spec).await;
    test.wait_for_reason("fixed", "Synced").await;
    let before = test.secrets().get("fixed").await.unwrap();
    assert_eq!(before.immutable, Some(true));
    test.put("a", json!({ "x": "2" })).await;
    test.refresh("fixed", "1").await;
    let after = test
        // it is mutable until its uid is recorded
        .wait_for_secret("fixed", "the new value", |secret| {
            text(secret, "x").as_deref() == Some("2") && secret.immutable == Some(true)
        })
        .await;
    assert_ne!(before.metadata.uid, after.metadata.uid);
}
