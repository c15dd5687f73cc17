//! What a SyncedSecret does with its Secret beyond syncing: suspend, refreshPolicy, creationPolicy, deletionPolicy.

use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    stage::{Room, eventually, message, ready, stage, text},
    witness::one,
};

/// Longer than the refresh interval of these tests, jitter and a sync.
const SEVERAL_ROUNDS: Duration = Duration::from_millis(2500);

fn from(room: &Room, more: Value) -> Value {
    let mut spec = json!({ "refreshInterval": "1s", "data": [one("x", &room.key("a"), "x")] });
    if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
        spec.extend(more);
    }
    spec
}

async fn secret_is_gone(room: &Room, name: &str) {
    eventually("the end of the Secret", || async {
        anyhow::ensure!(room.secrets().get_opt(name).await?.is_none(), "still there");
        Ok(())
    })
    .await
    .unwrap();
}

/// A Secret of somebody else.
async fn somebodys_secret(room: &Room, name: &str, annotations: Value) {
    room.apply_raw(&json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": name, "namespace": room.namespace, "annotations": annotations },
        "stringData": { "theirs": "kept" },
    }))
    .await
    .unwrap();
}

async fn remove_remote(room: &Room, name: &str) {
    let path = format!("secret/metadata/{}", room.key(name));
    room.stage.bao.delete(&path).await.unwrap();
}

#[tokio::test]
async fn while_suspended_the_secret_stays_and_no_store_is_asked() {
    let room = stage().await.room("suspend").await;
    room.put("a", json!({ "x": "1" })).await;
    let old = room.sync("s", from(&room, json!({}))).await;
    room.change("s", json!({ "suspend": true })).await;
    let object = room.wait_for_reason("s", "Suspended").await;
    assert!(
        message(&object).starts_with("suspend is set. The Secret \"s\" keeps its last good revision "),
        "{}",
        message(&object)
    );
    let reads = room.reads("vault").await;
    room.put("a", json!({ "x": "2" })).await;
    sleep(SEVERAL_ROUNDS).await;
    assert_eq!(room.whole("s").await, old);
    assert!((room.reads("vault").await - reads).abs() < f64::EPSILON);
    room.change("s", json!({ "suspend": false })).await;
    room.wait_for_secret("s", "the value of meanwhile", |secret| {
        text(secret, "x").as_deref() == Some("2")
    })
    .await;
    room.heals("s").await;
    room.declare("never", from(&room, json!({ "suspend": true })))
        .await;
    let object = room.wait_for_reason("never", "Suspended").await;
    assert_eq!(
        message(&object),
        "suspend is set. The Secret \"never\" has not been written yet"
    );
    assert!(room.secrets().get_opt("never").await.unwrap().is_none());
}

#[tokio::test]
async fn on_change_reads_when_the_spec_changes_and_created_once_never_again() {
    let room = stage().await.room("refresh").await;
    room.put("a", json!({ "x": "1", "y": "one" })).await;
    room.sync("on-change", from(&room, json!({ "refreshPolicy": "OnChange" })))
        .await;
    room.sync("once", from(&room, json!({ "refreshPolicy": "CreatedOnce" })))
        .await;
    let (on_change, once) = (room.whole("on-change").await, room.whole("once").await);
    let reads = room.reads("vault").await;
    room.put("a", json!({ "x": "2", "y": "two" })).await;
    sleep(SEVERAL_ROUNDS).await;
    assert!(
        (room.reads("vault").await - reads).abs() < f64::EPSILON,
        "nobody asked"
    );
    let both = json!({ "data": [one("x", &room.key("a"), "x"), one("y", &room.key("a"), "y")] });
    room.change("on-change", both.clone()).await;
    room.change("once", both).await;
    room.wait_for_secret("on-change", "the new spec", |secret| {
        text(secret, "x").as_deref() == Some("2") && text(secret, "y").as_deref() == Some("two")
    })
    .await;
    assert_ne!(room.whole("on-change").await, on_change);
    let object = room.wait_for_reason("once", "Synced").await;
    assert!(
        message(&object).starts_with("refreshPolicy: CreatedOnce. The Secret \"once\" keeps "),
        "{}",
        message(&object)
    );
    assert_eq!(room.whole("once").await, once);
}

#[tokio::test]
async fn a_secret_of_an_earlier_name_goes_too_when_every_source_is_gone() {
    let room = stage().await.room("renamed").await;
    room.put("a", json!({ "x": "1" })).await;
    let spec = |name: &str| {
        from(
            &room,
            json!({ "target": { "name": name, "deletionPolicy": "Delete" } }),
        )
    };
    room.declare("s", spec("one")).await;
    room.wait_for_reason("s", "Synced").await;
    remove_remote(&room, "a").await;
    let rename = json!({ "spec": spec("two") });
    room.synced_secrets()
        .patch("s", &PatchParams::default(), &Patch::Merge(rename))
        .await
        .unwrap();
    room.wait_for_reason("s", "SourceDeleted").await;
    for name in ["one", "two"] {
        assert!(
            room.secrets().get_opt(name).await.unwrap().is_none(),
            "{name} is left"
        );
    }
}

#[tokio::test]
async fn merge_writes_its_own_keys_into_a_secret_that_it_was_handed() {
    let room = stage().await.room("merge").await;
    room.put("a", json!({ "x": "1" })).await;
    let merge = |more: Value| {
        let mut target = json!({ "creationPolicy": "Merge" });
        if let (Some(target), Value::Object(more)) = (target.as_object_mut(), more) {
            target.extend(more);
        }
        from(&room, json!({ "target": target }))
    };
    // a template that reads a key must not keep lockstep from giving back what it took
    let template = json!({ "data": { "x": "{{ .x }}" } });
    room.declare(
        "s",
        merge(json!({ "deletionPolicy": "Delete", "template": template })),
    )
    .await;
    let said = "creationPolicy: Merge writes to a Secret that exists, and \"s\" does not";
    room.fails_at_first("s", "TargetNotFound", said).await;
    somebodys_secret(&room, "s", json!({ "lockstep.dev/adopt": "s" })).await;
    room.heals("s").await;
    let secret = room.secrets().get("s").await.unwrap();
    assert_eq!(text(&secret, "theirs").unwrap(), "kept");
    assert_eq!(text(&secret, "x").unwrap(), "1");
    assert_eq!(secret.metadata.owner_references, None);
    // what lockstep took, it gives back; what it did not write, it leaves
    remove_remote(&room, "a").await;
    room.wait_for_reason("s", "SourceDeleted").await;
    let secret = room.secrets().get("s").await.unwrap();
    assert_eq!(text(&secret, "theirs").unwrap(), "kept");
    assert_eq!(text(&secret, "x"), None);
    room.put("a", json!({ "x": "2" })).await;
    room.heals("s").await;
    let secret = room.secrets().get("s").await.unwrap();
    assert_eq!(text(&secret, "theirs").unwrap(), "kept");
    assert_eq!(text(&secret, "x").unwrap(), "2");
    room.synced_secrets()
        .delete("s", &DeleteParams::default())
        .await
        .unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        text(&room.secrets().get("s").await.unwrap(), "theirs").unwrap(),
        "kept"
    );
    // one that was not handed over is left alone
    somebodys_secret(&room, "foreign", json!({})).await;
    room.declare("foreign", merge(json!({}))).await;
    let object = room.wait_for_reason("foreign", "TargetForeign").await;
    assert!(
        message(&object).contains(&format!(
            "Secret \"foreign\" exists and is not lockstep's. To hand it over: kubectl annotate secret foreign -n {} lockstep.dev/adopt=foreign",
            room.namespace
        )),
        "{}",
        message(&object)
    );
    assert_eq!(text(&room.secrets().get("foreign").await.unwrap(), "x"), None);
}

#[tokio::test]
async fn an_orphan_outlives_its_synced_secret() {
    let room = stage().await.room("orphan").await;
    room.put("a", json!({ "x": "1" })).await;
    let target = |policy: &str| from(&room, json!({ "target": { "creationPolicy": policy } }));
    room.sync("orphan", target("Orphan")).await;
    room.sync("owned", target("Owner")).await;
    assert_eq!(
        room.secrets()
            .get("orphan")
            .await
            .unwrap()
            .metadata
            .owner_references,
        None
    );
    for name in ["orphan", "owned"] {
        room.synced_secrets()
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }
    secret_is_gone(&room, "owned").await;
    assert_eq!(
        text(&room.secrets().get("orphan").await.unwrap(), "x").unwrap(),
        "1"
    );
}

#[tokio::test]
async fn a_value_that_is_gone_takes_its_secret_along_only_where_the_spec_says_so() {
    let room = stage().await.room("deletion").await;
    room.put("a", json!({ "x": "1" })).await;
    let target = |policy: &str| from(&room, json!({ "target": { "deletionPolicy": policy } }));
    let old = room.sync("kept", target("Retain")).await;
    room.sync("gone", target("Delete")).await;
    remove_remote(&room, "a").await;
    let key = room.key("a");
    let said = format!("data[0] (secretKey \"x\"): SecretStore/vault: key \"{key}\" does not exist");
    room.fails("kept", &old, "SourceNotFound", &said).await;
    room.requests_counted("vault", "read", "not_found").await;
    let object = room.wait_for_reason("gone", "SourceDeleted").await;
    assert_eq!(
        message(&object),
        "every remote value is gone, and deletionPolicy: Delete removed the Secret \"gone\"; it comes back with the first of them"
    );
    assert_eq!(object.status.unwrap().target, None);
    secret_is_gone(&room, "gone").await;
    room.gauge_of("gone", 0.0).await;
    room.put("a", json!({ "x": "2" })).await;
    for name in ["kept", "gone"] {
        room.heals(name).await;
        assert_eq!(text(&room.secrets().get(name).await.unwrap(), "x").unwrap(), "2");
    }
}

#[tokio::test]
async fn one_value_of_two_that_is_gone_deletes_nothing() {
    let room = stage().await.room("half").await;
    room.put("a", json!({ "x": "1" })).await;
    room.put("b", json!({ "y": "2" })).await;
    let spec = json!({
        "data": [one("x", &room.key("a"), "x"), one("y", &room.key("b"), "y")],
        "target": { "deletionPolicy": "Delete" },
    });
    let old = room.sync("s", spec).await;
    remove_remote(&room, "b").await;
    let said = format!(
        "data[1] (secretKey \"y\"): SecretStore/vault: key \"{}\" does not exist",
        room.key("b")
    );
    room.fails("s", &old, "SourceNotFound", &said).await;
    // an optional entry is left out instead
    let optional =
        json!({ "secretKey": "y", "optional": true, "remoteRef": { "key": room.key("b"), "property": "y" } });
    room.change("s", json!({ "data": [one("x", &room.key("a"), "x"), optional] }))
        .await;
    room.heals("s").await;
    let secret = room.secrets().get("s").await.unwrap();
    assert_eq!(secret.data.unwrap().into_keys().collect::<Vec<_>>(), ["x"]);
}

#[tokio::test]
async fn a_search_that_finds_nothing_any_more_empties_no_secret() {
    let room = stage().await.room("search").await;
    room.put("many/one", json!({ "v": "1" })).await;
    let spec = |policy: &str| {
        json!({
            "dataFrom": [{
                "find": { "path": room.key("many") },
                "rewrite": [{ "regexp": { "source": ".*/", "target": "" } }],
            }],
            "target": { "deletionPolicy": policy },
        })
    };
    let old = room.sync("kept", spec("Retain")).await;
    room.sync("gone", spec("Delete")).await;
    remove_remote(&room, "many/one").await;
    let said = "dataFrom[0].find: SecretStore/vault: there is no remote value that matches";
    room.fails("kept", &old, "SourceNotFound", said).await;
    room.wait_for_reason("gone", "SourceDeleted").await;
    secret_is_gone(&room, "gone").await;
    room.put("many/two", json!({ "v": "2" })).await;
    for name in ["kept", "gone"] {
        room.heals(name).await;
        let secret = room.secrets().get(name).await.unwrap();
        assert_eq!(secret.data.unwrap().into_keys().collect::<Vec<_>>(), ["two"]);
    }
}

#[tokio::test]
async fn a_secret_that_is_deleted_during_a_suspension_comes_back_after_it() {
    let room = stage().await.room("unmissed").await;
    room.put("a", json!({ "x": "1" })).await;
    room.sync("s", from(&room, json!({}))).await;
    room.change("s", json!({ "suspend": true })).await;
    room.wait_for_reason("s", "Suspended").await;
    room.secrets()
        .delete("s", &DeleteParams::default())
        .await
        .unwrap();
    sleep(SEVERAL_ROUNDS).await;
    assert!(
        room.secrets().get_opt("s").await.unwrap().is_none(),
        "a suspended SyncedSecret writes nothing"
    );
    let resume = json!({ "spec": { "suspend": false } });
    room.synced_secrets()
        .patch("s", &PatchParams::default(), &Patch::Merge(resume))
        .await
        .unwrap();
    room.wait_for_secret("s", "its return", |secret| text(secret, "x").is_some())
        .await;
    room.wait_for("s", "Ready", |object| {
        ready(object).is_some_and(|condition| condition.reason == "Synced")
    })
    .await;
}

#[tokio::test]
async fn a_refresh_that_finds_nothing_new_changes_nothing_at_all() {
    let room = stage().await.room("quiet").await;
    room.put("a", json!({ "x": "1" })).await;
    let template = json!({ "template": {
        "data": { "one": "{{ .x }}", "two": "{{ .x }}" },
        "templateFrom": [{ "literal": "three: {{ .x }}" }],
    } });
    let old = room.sync("s", from(&room, json!({ "target": template }))).await;
    let before = room.synced_secrets().get("s").await.unwrap();
    let reads = room.reads("vault").await;
    room.metric_becomes(
        "lockstep_provider_requests_total",
        &[
            &format!("store=\"{}/vault\"", room.namespace),
            "operation=\"read\"",
        ],
        |now| now >= reads + 3.0,
    )
    .await;
    assert_eq!(room.whole("s").await, old);
    let after = room.synced_secrets().get("s").await.unwrap();
    assert_eq!(
        before.metadata.resource_version, after.metadata.resource_version,
        "{:?}",
        after.status
    );
}
