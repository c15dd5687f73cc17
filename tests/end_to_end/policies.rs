//! What a SyncedSecret does with its Secret beyond syncing: suspend, refreshPolicy, creationPolicy, deletionPolicy.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use lockstep_testkit::operator;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    bad_input::one,
    rights::as_operator,
    shared_cluster::{TestNamespace, eventually, message, ready, shared_cluster, text},
};

/// Longer than the refresh interval of these tests, jitter and a sync.
const SEVERAL_ROUNDS: Duration = Duration::from_millis(2500);

fn from(test: &TestNamespace, more: Value) -> Value {
    let mut spec = json!({ "refreshInterval": "1s", "data": [one("x", &test.key("a"), "x")] });
    if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
        spec.extend(more);
    }
    spec
}

async fn secret_is_gone(test: &TestNamespace, name: &str) {
    eventually("the end of the Secret", || async {
        anyhow::ensure!(test.secrets().get_opt(name).await?.is_none(), "still there");
        Ok(())
    })
    .await
    .unwrap();
}

/// A Secret of somebody else.
async fn somebodys_secret(test: &TestNamespace, name: &str, annotations: Value) {
    test.apply_raw(&json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": name, "namespace": test.namespace, "annotations": annotations },
        "stringData": { "theirs": "kept" },
    }))
    .await
    .unwrap();
}

async fn remove_remote(test: &TestNamespace, name: &str) {
    let path = format!("secret/metadata/{}", test.key(name));
    test.cluster.bao.delete(&path).await.unwrap();
}

#[tokio::test]
async fn suspended_object_keeps_its_secret_and_sends_no_request() {
    let test = shared_cluster().await.test_namespace("suspend").await;
    test.put("a", json!({ "x": "1" })).await;
    let old = test.sync("s", from(&test, json!({}))).await;
    test.change("s", json!({ "suspend": true })).await;
    let object = test.wait_for_reason("s", "Suspended").await;
    assert!(
        message(&object).starts_with("suspend is set. Secret \"s\" was left unchanged (revision "),
        "{}",
        message(&object)
    );
    let reads = test.reads("vault").await;
    test.put("a", json!({ "x": "2" })).await;
    sleep(SEVERAL_ROUNDS).await;
    assert_eq!(test.whole("s").await, old);
    assert!((test.reads("vault").await - reads).abs() < f64::EPSILON);
    test.change("s", json!({ "suspend": false })).await;
    test.wait_for_secret("s", "the value of meanwhile", |secret| {
        text(secret, "x").as_deref() == Some("2")
    })
    .await;
    test.heals("s").await;
    test.declare("never", from(&test, json!({ "suspend": true })))
        .await;
    let object = test.wait_for_reason("never", "Suspended").await;
    assert_eq!(
        message(&object),
        "suspend is set. Secret \"never\" has not been written yet"
    );
    assert!(test.secrets().get_opt("never").await.unwrap().is_none());
}

#[tokio::test]
async fn on_change_reads_after_spec_changes_and_created_once_once() {
    let test = shared_cluster().await.test_namespace("refresh").await;
    test.put("a", json!({ "x": "1", "y": "one" })).await;
    test.sync("on-change", from(&test, json!({ "refreshPolicy": "OnChange" })))
        .await;
    test.sync("once", from(&test, json!({ "refreshPolicy": "CreatedOnce" })))
        .await;
    let (on_change, once) = (test.whole("on-change").await, test.whole("once").await);
    let reads = test.reads("vault").await;
    test.put("a", json!({ "x": "2", "y": "two" })).await;
    sleep(SEVERAL_ROUNDS).await;
    assert!(
        (test.reads("vault").await - reads).abs() < f64::EPSILON,
        "nobody asked"
    );
    let both = json!({ "data": [one("x", &test.key("a"), "x"), one("y", &test.key("a"), "y")] });
    test.change("on-change", both.clone()).await;
    test.change("once", both).await;
    test.wait_for_secret("on-change", "the new spec", |secret| {
        text(secret, "x").as_deref() == Some("2") && text(secret, "y").as_deref() == Some("two")
    })
    .await;
    assert_ne!(test.whole("on-change").await, on_change);
    let object = test.wait_for_reason("once", "Synced").await;
    assert!(
        message(&object)
            .starts_with("refreshPolicy: CreatedOnce. Secret \"once\" was left unchanged (revision "),
        "{}",
        message(&object)
    );
    assert_eq!(test.whole("once").await, once);
}

#[tokio::test]
async fn renamed_secret_is_also_deleted_when_all_sources_are_gone() {
    let test = shared_cluster().await.test_namespace("renamed").await;
    test.put("a", json!({ "x": "1" })).await;
    let spec = |name: &str| {
        from(
            &test,
            json!({ "target": { "name": name, "deletionPolicy": "Delete" } }),
        )
    };
    test.declare("s", spec("one")).await;
    test.wait_for_reason("s", "Synced").await;
    remove_remote(&test, "a").await;
    let rename = json!({ "spec": spec("two") });
    test.synced_secrets()
        .patch("s", &PatchParams::default(), &Patch::Merge(rename))
        .await
        .unwrap();
    test.wait_for_reason("s", "SourceDeleted").await;
    for name in ["one", "two"] {
        assert!(
            test.secrets().get_opt(name).await.unwrap().is_none(),
            "{name} is left"
        );
    }
}

#[tokio::test]
async fn merge_writes_only_its_keys_into_a_secret_that_allows_it() {
    let test = shared_cluster().await.test_namespace("merge").await;
    test.put("a", json!({ "x": "1" })).await;
    let merge = |more: Value| {
        let mut target = json!({ "creationPolicy": "Merge" });
        if let (Some(target), Value::Object(more)) = (target.as_object_mut(), more) {
            target.extend(more);
        }
        from(&test, json!({ "target": target }))
    };
    // a template that reads a key must not keep lockstep from giving back what it took
    let template = json!({ "data": { "x": "{{ .x }}" } });
    test.declare(
        "s",
        merge(json!({ "deletionPolicy": "Delete", "template": template })),
    )
    .await;
    let namespace = &test.namespace;
    let said = format!(
        "lockstep may not patch Secret \"s\" in namespace \"{namespace}\", which creationPolicy: Merge needs. The grant also lets lockstep read this one Secret. Run: kubectl create role lockstep-merge-s -n {namespace} --verb=patch --resource=secrets --resource-name=s && kubectl create rolebinding lockstep-merge-s -n {namespace} --role=lockstep-merge-s --serviceaccount=lockstep-system:lockstep"
    );
    test.fails_at_first("s", "MergeForbidden", &said).await;
    run_the_commands(&test, &said).await;
    test.refresh("s", "granted").await;
    let said = "Secret \"s\" does not exist, and creationPolicy: Merge only writes to an existing Secret";
    test.fails_at_first("s", "TargetNotFound", said).await;
    somebodys_secret(&test, "s", json!({ "lockstep.dev/merge": "other, s" })).await;
    test.heals("s").await;
    let secret = test.secrets().get("s").await.unwrap();
    assert_eq!(text(&secret, "theirs").unwrap(), "kept");
    assert_eq!(text(&secret, "x").unwrap(), "1");
    assert_eq!(secret.metadata.owner_references, None);
    // a Secret that another SyncedSecret owned, or left, lists nobody
    for owner in ["other", "s"] {
        let annotations = json!({ "metadata": { "annotations": {
            "lockstep.dev/merge": null, "lockstep.dev/owner": owner,
        } } });
        let secrets = test.secrets();
        let params = kube::api::PatchParams::default();
        secrets
            .patch("s", &params, &kube::api::Patch::Merge(annotations))
            .await
            .unwrap();
        test.put("a", json!({ "x": "stolen" })).await;
        test.refresh("s", owner).await;
        test.wait_for_reason("s", "TargetForeign").await;
        let secret = test.secrets().get("s").await.unwrap();
        assert_eq!(text(&secret, "x").unwrap(), "1", "{owner}");
    }
    let listed = json!({ "metadata": { "annotations": {
        "lockstep.dev/merge": "other, s", "lockstep.dev/owner": null,
    } } });
    let params = kube::api::PatchParams::default();
    let secrets = test.secrets();
    secrets
        .patch("s", &params, &kube::api::Patch::Merge(listed))
        .await
        .unwrap();
    test.heals("s").await;
    // what lockstep took, it gives back; what it did not write, it leaves
    remove_remote(&test, "a").await;
    test.wait_for_reason("s", "SourceDeleted").await;
    let secret = test.secrets().get("s").await.unwrap();
    assert_eq!(text(&secret, "theirs").unwrap(), "kept");
    assert_eq!(text(&secret, "x"), None);
    test.put("a", json!({ "x": "2" })).await;
    test.heals("s").await;
    let secret = test.secrets().get("s").await.unwrap();
    assert_eq!(text(&secret, "theirs").unwrap(), "kept");
    assert_eq!(text(&secret, "x").unwrap(), "2");
    test.synced_secrets()
        .delete("s", &DeleteParams::default())
        .await
        .unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        text(&test.secrets().get("s").await.unwrap(), "theirs").unwrap(),
        "kept"
    );
    // a Secret that does not list the SyncedSecret is left alone, also if the right was granted
    somebodys_secret(&test, "foreign", json!({ "lockstep.dev/merge": "foreigner" })).await;
    grant_merge(&test, "foreign").await;
    test.declare("foreign", merge(json!({}))).await;
    let object = test.wait_for_reason("foreign", "TargetForeign").await;
    assert!(
        message(&object).contains(&format!(
            "Secret \"foreign\" does not list SyncedSecret \"foreign\" in its annotation lockstep.dev/merge, which holds names separated by commas. If it is the only one, run: kubectl annotate secret foreign -n {namespace} lockstep.dev/merge=foreign"
        )),
        "{}",
        message(&object)
    );
    assert_eq!(text(&test.secrets().get("foreign").await.unwrap(), "x"), None);
}

/// An owner reference would delete the Secret, and the keys of others in it, with the SyncedSecret.
#[tokio::test]
async fn owned_secret_accepts_merges_only_after_handover() {
    let test = shared_cluster().await.test_namespace("owner-to-merge").await;
    test.put("a", json!({ "x": "1" })).await;
    test.declare("s", from(&test, json!({}))).await;
    test.wait_for_reason("s", "Synced").await;
    grant_merge(&test, "s").await;
    let secrets = test.secrets();
    let params = kube::api::PatchParams::default();
    let listed = json!({ "metadata": { "annotations": { "lockstep.dev/merge": "s" } } });
    secrets
        .patch("s", &params, &kube::api::Patch::Merge(listed))
        .await
        .unwrap();
    let merge = json!({ "spec": { "target": { "creationPolicy": "Merge" } } });
    test.synced_secrets()
        .patch("s", &params, &kube::api::Patch::Merge(merge))
        .await
        .unwrap();
    let object = test.wait_for_reason("s", "TargetForeign").await;
    let said = message(&object);
    assert!(
        said.contains("Secret \"s\" is owned by SyncedSecret \"s\""),
        "{said}"
    );
    let (_, command) = said.split_once("run: ").unwrap();
    let (command, _) = command.rsplit_once("'. ").unwrap();
    run_the_commands(&test, &format!("Run: {command}'")).await;
    test.heals("s").await;
    let secret = secrets.get("s").await.unwrap();
    assert_eq!(secret.metadata.owner_references, None);
    test.synced_secrets()
        .delete("s", &DeleteParams::default())
        .await
        .unwrap();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(text(&secrets.get("s").await.unwrap(), "x").unwrap(), "1");
}

async fn grant_merge(test: &TestNamespace, secret: &str) {
    let namespace = &test.namespace;
    let commands = format!(
        "Run: kubectl create role lockstep-merge-{secret} -n {namespace} --verb=patch --resource=secrets --resource-name={secret} && kubectl create rolebinding lockstep-merge-{secret} -n {namespace} --role=lockstep-merge-{secret} --serviceaccount=lockstep-system:lockstep"
    );
    run_the_commands(test, &commands).await;
}

/// Runs the kubectl commands of a message.
async fn run_the_commands(test: &TestNamespace, message: &str) {
    let (_, commands) = message.split_once("Run: ").expect("commands");
    for command in commands.split(" && ") {
        let unquoted = |argument: &'_ str| argument.trim_matches('\'').to_owned();
        let arguments: Vec<String> = command.split(' ').skip(1).map(unquoted).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        operator::kubectl(&test.cluster.plane.kubeconfig(), &arguments, None)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn several_objects_merge_different_keys_but_not_the_same() {
    let test = shared_cluster().await.test_namespace("mergers").await;
    test.put("a", json!({ "x": "1", "y": "2" })).await;
    let merge = |key: &str, property: &str| {
        json!({
            "refreshInterval": "1s",
            "data": [one(key, &test.key("a"), property)],
            "target": { "name": "shared", "creationPolicy": "Merge" },
        })
    };
    somebodys_secret(
        &test,
        "shared",
        json!({ "lockstep.dev/merge": "one,two,three,four" }),
    )
    .await;
    grant_merge(&test, "shared").await;
    test.declare("one", merge("x", "x")).await;
    test.declare("two", merge("y", "y")).await;
    for name in ["one", "two"] {
        test.wait_for_reason(name, "Synced").await;
    }
    let shared = test.secrets().get("shared").await.unwrap();
    for (key, value) in [("theirs", "kept"), ("x", "1"), ("y", "2")] {
        assert_eq!(text(&shared, key).as_deref(), Some(value));
    }
    test.declare("three", merge("y", "x")).await;
    let object = test.wait_for_reason("three", "Conflict").await;
    let said = "Secret \"shared\": key \"y\" is already written by SyncedSecret \"two\", and SyncedSecret \"three\" writes it too";
    assert!(message(&object).contains(said), "{}", message(&object));
    assert_eq!(
        text(&test.secrets().get("shared").await.unwrap(), "y").as_deref(),
        Some("2")
    );
    // the same value is a conflict too, because anything else would confirm a guess
    test.declare("four", merge("y", "y")).await;
    let object = test.wait_for_reason("four", "Conflict").await;
    let said = said.replace("three", "four");
    assert!(message(&object).contains(&said), "{}", message(&object));
    test.refresh("two", "after the conflict").await;
    test.heals("two").await;
    test.synced_secrets()
        .delete("four", &DeleteParams::default())
        .await
        .unwrap();
    // someone else's edit of a merged key is repaired
    let edit = json!({ "stringData": { "x": "edited" } });
    test.secrets()
        .patch("shared", &PatchParams::default(), &Patch::Merge(edit))
        .await
        .unwrap();
    test.wait_for_secret("shared", "the repair", |secret| {
        text(secret, "x").as_deref() == Some("1") && text(secret, "theirs").as_deref() == Some("kept")
    })
    .await;
    // it heals when the other gives the key up
    test.change("two", json!({ "data": [one("z", &test.key("a"), "y")] }))
        .await;
    test.wait_for_secret("shared", "the key of the other", |secret| {
        text(secret, "z").is_some()
    })
    .await;
    test.refresh("three", "again").await;
    test.heals("three").await;
    assert_eq!(
        text(&test.secrets().get("shared").await.unwrap(), "y").as_deref(),
        Some("1")
    );
}

#[tokio::test]
async fn secret_adopted_by_mistake_is_not_deleted() {
    let test = shared_cluster().await.test_namespace("only-copy").await;
    somebodys_secret(&test, "s", json!({ "lockstep.dev/adopt": "s" })).await;
    // a typo in the key: nothing was ever read, so nothing was ever written
    test.declare(
        "s",
        from(&test, json!({ "target": { "deletionPolicy": "Delete" } })),
    )
    .await;
    let object = test.wait_for_reason("s", "SourceDeleted").await;
    let said = "no remote value exists. This SyncedSecret has not written Secret \"s\", so deletionPolicy: Delete removed nothing";
    assert_eq!(message(&object), said);
    let kept = test.secrets().get("s").await.unwrap();
    assert_eq!(text(&kept, "theirs").as_deref(), Some("kept"));
}

#[tokio::test]
async fn secret_that_cannot_be_updated_is_not_adopted() {
    let test = shared_cluster().await.test_namespace("unadoptable").await;
    test.put("a", json!({ "x": "1" })).await;
    let adopt = |name: &str| json!({ "name": name, "namespace": test.namespace, "annotations": { "lockstep.dev/adopt": name } });
    for (name, more) in [
        ("fixed", json!({ "immutable": true })),
        ("typed", json!({ "type": "example.org/other" })),
    ] {
        let mut secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": adopt(name), "stringData": { "theirs": "kept" },
        });
        if let (Some(secret), Value::Object(more)) = (secret.as_object_mut(), more) {
            secret.extend(more);
        }
        test.apply_raw(&secret).await.unwrap();
        let before = test.secrets().get(name).await.unwrap();
        test.declare(name, from(&test, json!({}))).await;
        let object = test.wait_for_reason(name, "TargetForeign").await;
        let said = format!(
            "Secret \"{name}\" already exists and cannot be adopted: it is immutable or has another type. Delete it, or set target.name to another name"
        );
        assert!(message(&object).contains(&said), "{}", message(&object));
        assert_eq!(test.secrets().get(name).await.unwrap(), before);
    }
}

#[tokio::test]
async fn secret_with_a_finalizer_is_not_deleted() {
    let test = shared_cluster().await.test_namespace("finalizer").await;
    test.put("a", json!({ "x": "1" })).await;
    let target = json!({ "target": { "deletionPolicy": "Delete" }, "refreshPolicy": "OnChange" });
    test.sync("s", from(&test, target)).await;
    remove_remote(&test, "a").await;
    let keep = json!({ "metadata": { "finalizers": ["example.org/keep"] } });
    test.secrets()
        .patch("s", &PatchParams::default(), &Patch::Merge(keep))
        .await
        .unwrap();
    test.refresh("s", "gone").await;
    let object = test.wait_for_reason("s", "TargetNotDeletable").await;
    assert!(
        message(&object).contains("has finalizers or is being deleted"),
        "{}",
        message(&object)
    );
    assert_eq!(
        text(&test.secrets().get("s").await.unwrap(), "x").as_deref(),
        Some("1")
    );
    let free = json!({ "metadata": { "finalizers": null } });
    test.secrets()
        .patch("s", &PatchParams::default(), &Patch::Merge(free))
        .await
        .unwrap();
    test.refresh("s", "free").await;
    secret_is_gone(&test, "s").await;
}

#[tokio::test]
async fn orphaned_secret_outlives_its_synced_secret() {
    let test = shared_cluster().await.test_namespace("orphan").await;
    test.put("a", json!({ "x": "1" })).await;
    let target = |policy: &str| from(&test, json!({ "target": { "creationPolicy": policy } }));
    test.sync("orphan", target("Orphan")).await;
    test.sync("owned", target("Owner")).await;
    assert_eq!(
        test.secrets()
            .get("orphan")
            .await
            .unwrap()
            .metadata
            .owner_references,
        None
    );
    for name in ["orphan", "owned"] {
        test.synced_secrets()
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }
    secret_is_gone(&test, "owned").await;
    assert_eq!(
        text(&test.secrets().get("orphan").await.unwrap(), "x").unwrap(),
        "1"
    );
}

#[tokio::test]
async fn missing_value_deletes_its_secret_only_with_policy_delete() {
    let test = shared_cluster().await.test_namespace("deletion").await;
    test.put("a", json!({ "x": "1" })).await;
    let target = |policy: &str| from(&test, json!({ "target": { "deletionPolicy": policy } }));
    let old = test.sync("kept", target("Retain")).await;
    test.sync("gone", target("Delete")).await;
    remove_remote(&test, "a").await;
    let key = test.key("a");
    let said = format!("data[0] (secretKey \"x\"): SecretStore/vault: key \"{key}\" does not exist");
    test.fails("kept", &old, "SourceNotFound", &said).await;
    test.requests_counted("vault", "read", "not_found").await;
    let object = test.wait_for_reason("gone", "SourceDeleted").await;
    assert_eq!(
        message(&object),
        "every remote value is gone, so deletionPolicy: Delete deleted Secret \"gone\". lockstep writes it again when the remote values exist"
    );
    assert_eq!(object.status.unwrap().target, None);
    secret_is_gone(&test, "gone").await;
    test.gauge_of("gone", 0.0).await;
    test.put("a", json!({ "x": "2" })).await;
    for name in ["kept", "gone"] {
        test.heals(name).await;
        assert_eq!(text(&test.secrets().get(name).await.unwrap(), "x").unwrap(), "2");
    }
}

#[tokio::test]
async fn one_missing_value_of_two_deletes_nothing() {
    let test = shared_cluster().await.test_namespace("half").await;
    test.put("a", json!({ "x": "1" })).await;
    test.put("b", json!({ "y": "2" })).await;
    let spec = json!({
        "data": [one("x", &test.key("a"), "x"), one("y", &test.key("b"), "y")],
        "target": { "deletionPolicy": "Delete" },
    });
    let old = test.sync("s", spec).await;
    remove_remote(&test, "b").await;
    let said = format!(
        "data[1] (secretKey \"y\"): SecretStore/vault: key \"{}\" does not exist",
        test.key("b")
    );
    test.fails("s", &old, "SourceNotFound", &said).await;
    // an optional entry is left out instead
    let optional =
        json!({ "secretKey": "y", "optional": true, "remoteRef": { "key": test.key("b"), "property": "y" } });
    test.change("s", json!({ "data": [one("x", &test.key("a"), "x"), optional] }))
        .await;
    test.heals("s").await;
    let secret = test.secrets().get("s").await.unwrap();
    assert_eq!(secret.data.unwrap().into_keys().collect::<Vec<_>>(), ["x"]);
}

#[tokio::test]
async fn search_without_results_does_not_empty_the_secret() {
    let test = shared_cluster().await.test_namespace("search").await;
    test.put("many/one", json!({ "v": "1" })).await;
    let spec = |policy: &str| {
        json!({
            "dataFrom": [{
                "find": { "path": test.key("many") },
                "rewrite": [{ "regexp": { "source": ".*/", "target": "" } }],
            }],
            "target": { "deletionPolicy": policy },
        })
    };
    let old = test.sync("kept", spec("Retain")).await;
    test.sync("gone", spec("Delete")).await;
    remove_remote(&test, "many/one").await;
    let said = "dataFrom[0].find: SecretStore/vault: no remote value matches";
    test.fails("kept", &old, "SourceNotFound", said).await;
    test.wait_for_reason("gone", "SourceDeleted").await;
    secret_is_gone(&test, "gone").await;
    test.put("many/two", json!({ "v": "2" })).await;
    for name in ["kept", "gone"] {
        test.heals(name).await;
        let secret = test.secrets().get(name).await.unwrap();
        assert_eq!(secret.data.unwrap().into_keys().collect::<Vec<_>>(), ["two"]);
    }
}

#[tokio::test]
async fn secret_deleted_while_suspended_returns_on_resume() {
    let test = shared_cluster().await.test_namespace("unmissed").await;
    test.put("a", json!({ "x": "1" })).await;
    test.sync("s", from(&test, json!({}))).await;
    test.change("s", json!({ "suspend": true })).await;
    test.wait_for_reason("s", "Suspended").await;
    test.secrets()
        .delete("s", &DeleteParams::default())
        .await
        .unwrap();
    sleep(SEVERAL_ROUNDS).await;
    assert!(
        test.secrets().get_opt("s").await.unwrap().is_none(),
        "a suspended SyncedSecret writes nothing"
    );
    let resume = json!({ "spec": { "suspend": false } });
    test.synced_secrets()
        .patch("s", &PatchParams::default(), &Patch::Merge(resume))
        .await
        .unwrap();
    test.wait_for_secret("s", "its return", |secret| text(secret, "x").is_some())
        .await;
    test.wait_for("s", "Ready", |object| {
        ready(object).is_some_and(|condition| condition.reason == "Synced")
    })
    .await;
}

#[tokio::test]
async fn refresh_without_changes_writes_nothing() {
    let test = shared_cluster().await.test_namespace("quiet").await;
    test.put("a", json!({ "x": "1" })).await;
    let template = json!({ "template": {
        "data": { "one": "{{ .x }}", "two": "{{ .x }}" },
        "templateFrom": [{ "literal": "three: {{ .x }}" }],
    } });
    let old = test.sync("s", from(&test, json!({ "target": template }))).await;
    let before = test.synced_secrets().get("s").await.unwrap();
    let reads = test.reads("vault").await;
    test.metric_becomes(
        "lockstep_provider_requests_total",
        &[
            &format!("store=\"{}/vault\"", test.namespace),
            "operation=\"read\"",
        ],
        |now| now >= reads + 3.0,
    )
    .await;
    assert_eq!(test.whole("s").await, old);
    let after = test.synced_secrets().get("s").await.unwrap();
    assert_eq!(
        before.metadata.resource_version, after.metadata.resource_version,
        "{:?}",
        after.status
    );
}

#[tokio::test]
async fn secret_that_was_merged_into_is_never_replaced_or_deleted() {
    let test = shared_cluster().await.test_namespace("merged").await;
    test.put("a", json!({ "x": "1" })).await;
    somebodys_secret(&test, "shared", json!({ "lockstep.dev/merge": "s" })).await;
    grant_merge(&test, "shared").await;
    let spec = |target: Value| from(&test, json!({ "target": target }));
    test.declare("s", spec(json!({ "name": "shared", "creationPolicy": "Merge" })))
        .await;
    test.wait_for_reason("s", "Synced").await;
    let owned = json!({ "metadata": { "annotations": { "lockstep.dev/owner": "b" } } });
    test.secrets()
        .patch("shared", &PatchParams::default(), &Patch::Merge(owned))
        .await
        .unwrap();
    // its uid is in the status, and it is not lockstep's to delete
    test.change("s", spec(json!({ "name": "own", "creationPolicy": "Owner" })))
        .await;
    test.wait_for_secret("own", "the new Secret", |secret| text(secret, "x").is_some())
        .await;
    test.wait_for_reason("s", "Synced").await;
    let kept = test.secrets().get("shared").await.unwrap();
    assert_eq!(text(&kept, "theirs").as_deref(), Some("kept"));
    // nor to replace
    let replace =
        json!({ "name": "shared", "template": { "type": "example.org/other", "mergePolicy": "Merge" } });
    test.change("s", spec(replace)).await;
    test.wait_for_reason("s", "TargetForeign").await;
    let kept = test.secrets().get("shared").await.unwrap();
    assert_eq!(text(&kept, "theirs").as_deref(), Some("kept"));
}

#[tokio::test]
async fn secret_adopted_by_another_object_survives_a_rename() {
    let test = shared_cluster().await.test_namespace("adopted").await;
    test.put("a", json!({ "x": "1" })).await;
    let named = |name: &str| from(&test, json!({ "target": { "name": name } }));
    test.declare("old", named("first")).await;
    test.wait_for_reason("old", "Synced").await;
    somebodys_secret(&test, "second", json!({})).await;
    test.change("old", named("second")).await;
    test.wait_for_reason("old", "TargetForeign").await;
    let adopt = json!({ "metadata": { "annotations": { "lockstep.dev/adopt": "new" } } });
    test.secrets()
        .patch("first", &PatchParams::default(), &Patch::Merge(adopt))
        .await
        .unwrap();
    test.declare("new", named("first")).await;
    test.wait_for_reason("new", "Synced").await;
    test.secrets()
        .delete("second", &DeleteParams::default())
        .await
        .unwrap();
    test.refresh("old", "again").await;
    test.wait_for_reason("old", "Synced").await;
    let kept = test.secrets().get("first").await.unwrap();
    assert_eq!(kept.metadata.annotations.unwrap()["lockstep.dev/owner"], "new");
}

/// A cluster administrator exempts a namespace from the policy by a selector in its binding. The proof at start is of another namespace.
#[tokio::test]
async fn no_secret_is_adopted_where_the_policy_is_not_enforced() {
    let test = shared_cluster().await.test_namespace("unguarded").await;
    test.put("a", json!({ "x": "1" })).await;
    somebodys_secret(&test, "s", json!({})).await;
    let policies = ApiResource::from_gvk(&GroupVersionKind::gvk(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicyBinding",
    ));
    let bindings: Api<DynamicObject> = Api::all_with(test.client.clone(), &policies);
    let selector = json!({ "matchExpressions": [
        { "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [test.namespace] },
    ] });
    let exempt = json!({ "spec": { "matchResources": { "namespaceSelector": selector } } });
    bindings
        .patch("lockstep-secrets", &PatchParams::default(), &Patch::Merge(exempt))
        .await
        .unwrap();
    let operators: Api<Secret> = Api::namespaced(as_operator(&test).await, &test.namespace);
    let unowned: Secret = serde_json::from_value(json!({ "metadata": { "name": "probe" } })).unwrap();
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    eventually("a namespace without the policy", || async {
        operators.create(&dry_run, &unowned).await?;
        Ok(())
    })
    .await
    .unwrap();

    test.declare("s", from(&test, json!({}))).await;
    let object = test.wait_for_reason("s", "TargetForeign").await;
    assert!(
        message(&object).contains("is not enforced in namespace"),
        "{}",
        message(&object)
    );
    let kept = test.secrets().get("s").await.unwrap();
    assert_eq!(text(&kept, "theirs").as_deref(), Some("kept"));

    let everywhere =
        json!({ "spec": { "matchResources": { "namespaceSelector": { "matchExpressions": null } } } });
    bindings
        .patch(
            "lockstep-secrets",
            &PatchParams::default(),
            &Patch::Merge(everywhere),
        )
        .await
        .unwrap();
}

/// A replacement that removes the last finalizer completes the deletion.
#[tokio::test]
async fn secret_being_deleted_is_left_alone_until_it_is_gone() {
    let test = shared_cluster().await.test_namespace("terminating").await;
    test.put("a", json!({ "x": "1" })).await;
    test.sync("s", from(&test, json!({}))).await;
    let old = test.secrets().get("s").await.unwrap();
    let keep = json!({ "metadata": { "finalizers": ["example.org/keep"] } });
    test.secrets()
        .patch("s", &PatchParams::default(), &Patch::Merge(keep))
        .await
        .unwrap();
    test.secrets()
        .delete("s", &DeleteParams::default())
        .await
        .unwrap();
    test.put("a", json!({ "x": "2" })).await;
    test.wait_for_reason("s", "TargetNotDeletable").await;
    let kept = test.secrets().get("s").await.unwrap();
    assert_eq!(kept.metadata.uid, old.metadata.uid);
    assert_eq!(text(&kept, "x").as_deref(), Some("1"));

    let free = json!({ "metadata": { "finalizers": null } });
    test.secrets()
        .patch("s", &PatchParams::default(), &Patch::Merge(free))
        .await
        .unwrap();
    test.wait_for_secret("s", "the new Secret", |secret| {
        text(secret, "x").as_deref() == Some("2")
    })
    .await;
    test.heals("s").await;
}

/// Nobody can claim an immutable Secret, and a handover keeps its uid.
#[tokio::test]
async fn immutable_secret_that_was_handed_over_is_not_deleted() {
    let test = shared_cluster().await.test_namespace("handed-over").await;
    test.put("a", json!({ "x": "1" })).await;
    let named = |name: &str| from(&test, json!({ "target": { "name": name, "immutable": true } }));
    test.declare("old", named("first")).await;
    test.wait_for_reason("old", "Synced").await;
    let hand_over = json!({ "metadata": {
        "annotations": { "lockstep.dev/owner": "new" }, "ownerReferences": null,
    } });
    test.secrets()
        .patch("first", &PatchParams::default(), &Patch::Merge(hand_over))
        .await
        .unwrap();
    test.change("old", named("second")).await;
    let object = test.wait_for_reason("old", "TargetNotDeletable").await;
    assert!(
        message(&object).contains("\"first\" is immutable and was changed by someone else"),
        "{}",
        message(&object)
    );
    assert!(test.secrets().get_opt("first").await.unwrap().is_some());
    test.secrets()
        .delete("first", &DeleteParams::default())
        .await
        .unwrap();
    test.refresh("old", "again").await;
    test.heals("old").await;
}

#[tokio::test]
async fn two_objects_cannot_merge_the_same_annotation() {
    let test = shared_cluster().await.test_namespace("annotations").await;
    test.put("a", json!({ "x": "1", "y": "2" })).await;
    let merge = |key: &str, team: &str| {
        json!({
            "refreshInterval": "1s",
            "data": [one(key, &test.key("a"), key)],
            "target": {
                "name": "shared", "creationPolicy": "Merge",
                "template": { "mergePolicy": "Merge", "metadata": { "annotations": { "example.org/team": team } } },
            },
        })
    };
    somebodys_secret(&test, "shared", json!({ "lockstep.dev/merge": "one,two" })).await;
    grant_merge(&test, "shared").await;
    test.declare("one", merge("x", "red")).await;
    test.wait_for_reason("one", "Synced").await;
    test.declare("two", merge("y", "blue")).await;
    let object = test.wait_for_reason("two", "Conflict").await;
    let said = "annotation \"example.org/team\" is already written by SyncedSecret \"one\"";
    assert!(message(&object).contains(said), "{}", message(&object));
    let shared = test.secrets().get("shared").await.unwrap();
    assert_eq!(shared.metadata.annotations.unwrap()["example.org/team"], "red");
}
