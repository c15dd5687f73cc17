//! Bad input: specs that name what is not there or not allowed, and Secrets that Kubernetes would not take.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use lockstep_api::SyncedSecret;
use lockstep_testkit::operator;
use serde_json::{Value, json};

use crate::{
    stage::{Room, ready, stage, text},
    witness::one,
};

#[tokio::test]
async fn an_unknown_store_is_named_and_its_coming_heals_at_once() {
    let room = stage().await.room("nostore").await;
    room.put("a", json!({ "x": "1" })).await;
    let spec = json!({ "refreshInterval": "1h", "data": [one("x", &room.key("a"), "x")] });
    let old = room.sync("s", spec).await;
    room.change("s", json!({ "secretStoreRef": { "name": "late" } }))
        .await;
    let said = format!(
        "data[0] (secretKey \"x\"): SecretStore/late does not exist in namespace \"{}\"",
        room.namespace
    );
    room.fails("s", &old, "StoreNotFound", &said).await;
    room.add_token_store("late", &["read"]).await.unwrap();
    room.heals("s").await;
}

#[tokio::test]
async fn a_cluster_store_is_refused_until_its_access_and_the_namespaces_labels_grant_it() {
    let room = stage().await.room("access").await;
    let namespace = room.namespace.clone();
    room.put("a", json!({ "x": "1" })).await;
    let store = ClusterStore::add(&room).await;
    let name = &store.name;
    room.declare(
        "s",
        json!({
            "secretStoreRef": { "name": name, "kind": "ClusterSecretStore" },
            "data": [one("x", &room.key("a"), "x")],
        }),
    )
    .await;
    let denied = |grants: &str| {
        format!(
            "ClusterSecretStore/{name} does not grant namespace \"{namespace}\" the key \"{namespace}/a\" ({grants}). Ask its owner, or use another store"
        )
    };
    let nothing = denied("no entry of access grants this namespace anything");
    room.fails_at_first("s", "AccessDenied", &nothing).await;

    let selected = json!({ "selector": { "matchLabels": { "team": namespace } } });
    store
        .grant(&room, json!([{ "namespaces": selected, "keys": ["**"] }]))
        .await;
    room.fails_at_first("s", "AccessDenied", &nothing).await;
    label(&room, json!({ "team": namespace })).await;
    room.heals("s").await;
    let old = room.whole("s").await;

    label(&room, json!({ "team": null })).await;
    room.fails("s", &old, "AccessDenied", &nothing).await;
    let named = json!({ "names": [namespace] });
    store
        .grant(&room, json!([{ "namespaces": named, "keys": ["elsewhere/*"] }]))
        .await;
    let other_key = denied("access[0] grants \"elsewhere/*\"");
    room.wait_for("s", "the other message", |object| {
        crate::stage::message(object).starts_with(&other_key)
    })
    .await;
    room.fails("s", &old, "AccessDenied", &other_key).await;
    store
        .grant(
            &room,
            json!([{ "namespaces": named, "keys": [format!("{namespace}/*")] }]),
        )
        .await;
    room.heals("s").await;
    store.remove(&room).await;
}

#[tokio::test]
async fn two_entries_with_one_key_are_an_error_and_not_a_race() {
    let room = stage().await.room("twice").await;
    room.put("a", json!({ "x": "1", "y": "2" })).await;
    room.put("b", json!({ "z": "3" })).await;
    let (a, b) = (room.key("a"), room.key("b"));
    let old = room.sync("s", json!({ "data": [one("x", &a, "x")] })).await;
    room.change("s", json!({ "data": [one("x", &a, "x"), one("x", &a, "y")] }))
        .await;
    room.fails(
        "s",
        &old,
        "DuplicateKey",
        "data[0] and data[1] both write the key \"x\"",
    )
    .await;
    let both = json!({ "data": [one("x", &a, "x")], "dataFrom": [{ "extract": { "key": b } }] });
    room.change("s", both).await;
    room.heals("s").await;
    let old = room.whole("s").await;
    // it comes from the source this time, so it heals from there
    room.put("b", json!({ "x": "theirs", "z": "3" })).await;
    let said = "data[0] (secretKey \"x\") and dataFrom[0].extract both write the key \"x\"";
    room.fails("s", &old, "DuplicateKey", said).await;
    room.put("b", json!({ "z": "4" })).await;
    room.heals("s").await;
}

#[tokio::test]
async fn a_key_that_no_secret_may_have_is_refused_without_its_name() {
    let room = stage().await.room("keys").await;
    room.put("a", json!({ "good": "1" })).await;
    let spec = json!({ "dataFrom": [{ "extract": { "key": room.key("a") } }] });
    let old = room.sync("s", spec).await;
    room.put("a", json!({ "good": "1", "not good": "2" })).await;
    let said = "a key that dataFrom brings is not allowed as a key of a Secret: letters, digits, \"-\", \"_\" and \".\" are, 253 of them at most. dataFrom[].rewrite renames keys";
    room.fails("s", &old, "InvalidKey", said).await;
    room.put("a", json!({ "good": "2" })).await;
    room.heals("s").await;
    // what the user wrote is refused at once
    let object: SyncedSecret = serde_json::from_value(json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "SyncedSecret",
        "metadata": { "name": "refused" },
        "spec": { "secretStoreRef": { "name": "vault" }, "data": [one("not good", "a", "x")] },
    }))
    .unwrap();
    let refused = room
        .synced_secrets()
        .create(&PostParams::default(), &object)
        .await;
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 422));
}

#[tokio::test]
async fn a_mebibyte_is_written_and_a_byte_more_is_not() {
    let room = stage().await.room("large").await;
    let half = |less: usize| json!({ "x": "x".repeat(512 * 1024 - less) });
    // the two names count as well
    room.put("a", half(1)).await;
    room.put("b", half(1)).await;
    let entries = [one("a", &room.key("a"), "x"), one("b", &room.key("b"), "x")];
    let old = room.sync("s", json!({ "data": entries })).await;
    room.put("b", half(0)).await;
    let said = "the Secret would have 1048577 bytes in 2 keys; Kubernetes allows 1048576";
    room.fails("s", &old, "TooLarge", said).await;
    room.put("b", json!({ "x": "small" })).await;
    room.heals("s").await;
}

#[tokio::test]
async fn binary_and_empty_values_arrive_as_they_are() {
    let room = stage().await.room("binary").await;
    let bytes: Vec<u8> = (0..=255).chain([0, 0, 255, 254]).collect();
    let coded = BASE64_STANDARD.encode(&bytes);
    room.put(
        "a",
        json!({ "binary": coded, "empty": "", "text": "\u{feff}ü\n" }),
    )
    .await;
    let key = room.key("a");
    let decoded = |secret_key: &str, property: &str| {
        let mut entry = one(secret_key, &key, property);
        entry["decodingStrategy"] = json!("Base64");
        entry
    };
    let spec = json!({
        "data": [
            decoded("binary", "binary"), one("empty", &key, "empty"), decoded("decoded-empty", "empty"),
            one("text", &key, "text"),
        ],
        "target": { "template": { "mergePolicy": "Merge", "data": {
            "copy": "{{ .binary }}", "length": "{{ len .empty }}",
        } } },
    });
    let whole = room.sync("s", spec).await;
    let secret = room.secrets().get("s").await.unwrap();
    let data = secret.data.as_ref().unwrap();
    assert_eq!(data["binary"].0, bytes);
    assert_eq!(data["copy"].0, bytes, "a template hands binary values through");
    assert_eq!(data["empty"].0, b"");
    assert_eq!(data["decoded-empty"].0, b"");
    assert_eq!(text(&secret, "text").unwrap(), "\u{feff}ü\n");
    assert_eq!(text(&secret, "length").unwrap(), "0");
    // what is no base64 is told without being shown
    let canary = "§canary-of-binaries-77ab";
    room.put("a", json!({ "binary": canary, "empty": "", "text": "t" }))
        .await;
    let said = "data[0] (secretKey \"binary\"): the value is not standard base64, which decodingStrategy Base64 asks for";
    room.fails("s", &whole, "DecodeFailed", said).await;
    room.put("a", json!({ "binary": coded, "empty": "", "text": "t" }))
        .await;
    room.heals("s").await;
    room.tells_nobody(canary).await;
}

#[tokio::test]
async fn a_synced_secret_with_a_thousand_entries_reads_each_remote_value_once() {
    let room = stage().await.room("thousand").await;
    let mut entries = Vec::new();
    for remote in 0..10 {
        let name = format!("r{remote}");
        let fields: Value = (0..100)
            .map(|n| (format!("p{n}"), json!(format!("{remote}-{n}"))))
            .collect();
        room.put(&name, fields).await;
        entries.extend((0..100).map(|n| one(&format!("{name}.p{n}"), &room.key(&name), &format!("p{n}"))));
    }
    let spec = json!({ "refreshInterval": "1h", "data": entries });
    let whole = room.sync("s", spec).await;
    let secret = room.secrets().get("s").await.unwrap();
    assert_eq!(secret.data.as_ref().unwrap().len(), 1000);
    assert_eq!(text(&secret, "r7.p93").unwrap(), "7-93");
    let reads = room.reads("vault").await;
    assert!(
        (reads - 10.0).abs() < f64::EPSILON,
        "{reads} reads of 10 remote values"
    );
    // one missing property of a thousand, and nothing is written
    room.put("r9", json!({ "p0": "new" })).await;
    room.refresh("s", "1").await;
    let said = format!(
        "data[901] (secretKey \"r9.p1\"): key \"{}\" has no property \"p1\" in store SecretStore/vault; it has 1 property",
        room.key("r9")
    );
    room.fails("s", &whole, "SourceNotFound", &said).await;
    let reads = room.reads("vault").await;
    assert!((reads - 20.0).abs() < f64::EPSILON, "{reads} reads in two rounds");
}

#[tokio::test]
async fn types_that_hold_kubernetes_own_credentials_are_refused() {
    let room = stage().await.room("types").await;
    room.put("a", json!({ "x": "1" })).await;
    let spec = |kind: &str| json!({ "data": [one("x", &room.key("a"), "x")], "target": { "template": { "type": kind } } });
    for kind in [
        "kubernetes.io/service-account-token",
        "bootstrap.kubernetes.io/token",
    ] {
        let name = kind.replace(['.', '/'], "-");
        room.declare(&name, spec(kind)).await;
        let said = format!("target.template.type: lockstep does not write Secrets of type {kind}");
        room.fails_at_first(&name, "InvalidSpec", &said).await;
        room.change(&name, spec("example.org/good")).await;
        room.heals(&name).await;
        let secret = room.secrets().get(&name).await.unwrap();
        assert_eq!(secret.type_.as_deref(), Some("example.org/good"));
    }
}

#[tokio::test]
async fn a_younger_synced_secret_takes_over_when_the_older_one_goes() {
    let room = stage().await.room("heir").await;
    room.put("a", json!({ "x": "1" })).await;
    let spec = |own: &str| {
        json!({
            "refreshInterval": "1s", "data": [one(own, &room.key("a"), "x")], "target": { "name": "shared" },
        })
    };
    room.declare("older", spec("of-older")).await;
    room.wait_for_reason("older", "Synced").await;
    let old = room.secrets().get("shared").await.unwrap();
    // ages are told in whole seconds
    tokio::time::sleep(Duration::from_millis(1100)).await;
    room.declare("younger", spec("of-younger")).await;
    let object = room.wait_for_reason("younger", "Conflict").await;
    assert_eq!(
        crate::stage::message(&object),
        "Secret \"shared\" is already written by SyncedSecret \"older\" (it came first). Rename target.name, or delete one of the two. The Secret \"shared\" has not been written yet"
    );
    room.gauge_of("younger", 0.0).await;
    assert_eq!(room.secrets().get("shared").await.unwrap().data, old.data);
    room.synced_secrets()
        .delete("older", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    let object = room
        .wait_for("younger", "its turn", |object| {
            ready(object).is_some_and(|condition| condition.reason == "Synced")
        })
        .await;
    let secret = room
        .wait_for_secret("shared", "the heir's keys", |secret| {
            text(secret, "of-younger").is_some()
        })
        .await;
    assert_eq!(text(&secret, "of-older"), None);
    assert_eq!(
        object.status.unwrap().target.unwrap().uid,
        secret.metadata.uid.unwrap()
    );
}

/// Sets labels of the room's namespace.
async fn label(room: &Room, labels: Value) {
    let api: Api<Namespace> = Api::all(room.client.clone());
    let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
    api.patch(&room.namespace, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// A ClusterSecretStore of one test.
struct ClusterStore {
    name: String,
    server: String,
}

impl ClusterStore {
    /// A store that nobody may use; its token lies in the operator's namespace.
    async fn add(room: &Room) -> Self {
        let bao = &room.stage.bao;
        let rules = format!(
            "path \"secret/data/{}/*\" {{ capabilities = [\"read\"] }}",
            room.namespace
        );
        let name = format!("cluster-{}", room.namespace);
        bao.put_policy(&name, &rules).await.unwrap();
        let token = bao.create_token(&[&name, "default"]).await.unwrap();
        room.apply_raw(&json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": name, "namespace": operator::NAMESPACE },
            "stringData": { "token": token },
        }))
        .await
        .unwrap();
        let store = Self {
            name,
            server: bao.address().to_owned(),
        };
        store.grant(room, json!([])).await;
        store
    }

    async fn grant(&self, room: &Room, access: Value) {
        room.apply_raw(&json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "ClusterSecretStore",
            "metadata": { "name": self.name },
            "spec": {
                "provider": { "vault": {
                    "server": self.server, "path": "secret",
                    "auth": { "tokenSecretRef": { "name": self.name, "key": "token" } },
                } },
                "access": access,
            },
        }))
        .await
        .unwrap();
    }

    async fn remove(&self, room: &Room) {
        let api: Api<lockstep_api::ClusterSecretStore> = Api::all(room.client.clone());
        api.delete(&self.name, &kube::api::DeleteParams::default())
            .await
            .unwrap();
    }
}
