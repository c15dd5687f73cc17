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
    bad_input::one,
    shared_cluster::{TestNamespace, ready, shared_cluster, text},
};

#[tokio::test]
async fn unknown_store_is_named_and_its_creation_heals_at_once() {
    let test = shared_cluster().await.test_namespace("nostore").await;
    test.put("a", json!({ "x": "1" })).await;
    let spec = json!({ "refreshInterval": "1h", "data": [one("x", &test.key("a"), "x")] });
    let old = test.sync("s", spec).await;
    test.change("s", json!({ "secretStoreRef": { "name": "late" } }))
        .await;
    let said = format!(
        "data[0] (secretKey \"x\"): SecretStore/late does not exist in namespace \"{}\"",
        test.namespace
    );
    test.fails("s", &old, "StoreNotFound", &said).await;
    test.add_token_store("late", &["read"]).await.unwrap();
    test.heals("s").await;
}

#[tokio::test]
async fn cluster_store_needs_access_and_matching_namespace_labels() {
    let test = shared_cluster().await.test_namespace("access").await;
    let namespace = test.namespace.clone();
    test.put("a", json!({ "x": "1" })).await;
    let store = ClusterStore::add(&test).await;
    let name = &store.name;
    test.declare(
        "s",
        json!({
            "secretStoreRef": { "name": name, "kind": "ClusterSecretStore" },
            "data": [one("x", &test.key("a"), "x")],
        }),
    )
    .await;
    let denied = |grants: &str| {
        format!(
            "ClusterSecretStore/{name} does not grant namespace \"{namespace}\" the key \"{namespace}/a\" ({grants}). Ask the store's owner to add an entry to access, or use another store"
        )
    };
    let nothing = denied("no entry of access grants this namespace anything");
    test.fails_at_first("s", "AccessDenied", &nothing).await;

    let selected = json!({ "selector": { "matchLabels": { "team": namespace } } });
    store
        .grant(&test, json!([{ "namespaces": selected, "keys": ["**"] }]))
        .await;
    test.fails_at_first("s", "AccessDenied", &nothing).await;
    label(&test, json!({ "team": namespace })).await;
    test.heals("s").await;
    let old = test.whole("s").await;

    label(&test, json!({ "team": null })).await;
    test.fails("s", &old, "AccessDenied", &nothing).await;
    let named = json!({ "names": [namespace] });
    store
        .grant(&test, json!([{ "namespaces": named, "keys": ["elsewhere/*"] }]))
        .await;
    let other_key = denied("access[0] grants \"elsewhere/*\"");
    test.wait_for("s", "the other message", |object| {
        crate::shared_cluster::message(object).starts_with(&other_key)
    })
    .await;
    test.fails("s", &old, "AccessDenied", &other_key).await;
    store
        .grant(
            &test,
            json!([{ "namespaces": named, "keys": [format!("{namespace}/*")] }]),
        )
        .await;
    test.heals("s").await;
    store.remove(&test).await;
}

#[tokio::test]
async fn two_entries_with_the_same_key_are_an_error() {
    let test = shared_cluster().await.test_namespace("twice").await;
    test.put("a", json!({ "x": "1", "y": "2" })).await;
    test.put("b", json!({ "z": "3" })).await;
    let (a, b) = (test.key("a"), test.key("b"));
    let old = test.sync("s", json!({ "data": [one("x", &a, "x")] })).await;
    test.change("s", json!({ "data": [one("x", &a, "x"), one("x", &a, "y")] }))
        .await;
    test.fails(
        "s",
        &old,
        "DuplicateKey",
        "data[0] and data[1] both write the key \"x\"",
    )
    .await;
    let both = json!({ "data": [one("x", &a, "x")], "dataFrom": [{ "extract": { "key": b } }] });
    test.change("s", both).await;
    test.heals("s").await;
    let old = test.whole("s").await;
    // it comes from the source this time, so it heals from there
    test.put("b", json!({ "x": "theirs", "z": "3" })).await;
    let said = "data[0] and dataFrom[0] both write the key \"x\"";
    test.fails("s", &old, "DuplicateKey", said).await;
    test.put("b", json!({ "z": "4" })).await;
    test.heals("s").await;
}

#[tokio::test]
async fn invalid_secret_key_is_rejected_without_showing_it() {
    let test = shared_cluster().await.test_namespace("keys").await;
    test.put("a", json!({ "good": "1" })).await;
    let spec = json!({ "dataFrom": [{ "extract": { "key": test.key("a") } }] });
    let old = test.sync("s", spec).await;
    test.put("a", json!({ "good": "1", "not good": "2" })).await;
    let said = "a key of dataFrom is not a valid key of a Secret. Use at most 253 letters, digits, \"-\", \"_\" and \".\". dataFrom[].rewrite renames keys";
    test.fails("s", &old, "InvalidKey", said).await;
    test.put("a", json!({ "good": "2" })).await;
    test.heals("s").await;
    // what the user wrote is refused at once
    let object: SyncedSecret = serde_json::from_value(json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "SyncedSecret",
        "metadata": { "name": "refused" },
        "spec": { "secretStoreRef": { "name": "vault" }, "data": [one("not good", "a", "x")] },
    }))
    .unwrap();
    let refused = test
        .synced_secrets()
        .create(&PostParams::default(), &object)
        .await;
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 422));
}

#[tokio::test]
async fn secret_of_one_mebibyte_is_written_and_a_larger_one_is_not() {
    let test = shared_cluster().await.test_namespace("large").await;
    let half = |less: usize| json!({ "x": "x".repeat(512 * 1024 - less) });
    // the two names count as well
    test.put("a", half(1)).await;
    test.put("b", half(1)).await;
    let entries = [one("a", &test.key("a"), "x"), one("b", &test.key("b"), "x")];
    let old = test.sync("s", json!({ "data": entries })).await;
    test.put("b", half(0)).await;
    let said = "the Secret is too large. Kubernetes allows 1048576 bytes";
    test.fails("s", &old, "TooLarge", said).await;
    test.put("b", json!({ "x": "small" })).await;
    test.heals("s").await;
}

#[tokio::test]
async fn binary_and_empty_values_are_unchanged() {
    let test = shared_cluster().await.test_namespace("binary").await;
    let bytes: Vec<u8> = (0..=255).chain([0, 0, 255, 254]).collect();
    let coded = BASE64_STANDARD.encode(&bytes);
    test.put(
        "a",
        json!({ "binary": coded, "empty": "", "text": "\u{feff}ü\n" }),
    )
    .await;
    let key = test.key("a");
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
    let whole = test.sync("s", spec).await;
    let secret = test.secrets().get("s").await.unwrap();
    let data = secret.data.as_ref().unwrap();
    assert_eq!(data["binary"].0, bytes);
    assert_eq!(data["copy"].0, bytes, "a template hands binary values through");
    assert_eq!(data["empty"].0, b"");
    assert_eq!(data["decoded-empty"].0, b"");
    assert_eq!(text(&secret, "text").unwrap(), "\u{feff}ü\n");
    assert_eq!(text(&secret, "length").unwrap(), "0");
    // what is no base64 is told without being shown
    let canary = "§canary-of-binaries-77ab";
    test.put("a", json!({ "binary": canary, "empty": "", "text": "t" }))
        .await;
    let said = "data[0] (secretKey \"binary\"): the value is not standard base64, which decodingStrategy: Base64 requires";
    test.fails("s", &whole, "DecodeFailed", said).await;
    test.put("a", json!({ "binary": coded, "empty": "", "text": "t" }))
        .await;
    test.heals("s").await;
    test.tells_nobody(canary).await;
}

#[tokio::test]
async fn thousand_entries_read_each_remote_value_once() {
    let test = shared_cluster().await.test_namespace("thousand").await;
    let mut entries = Vec::new();
    for remote in 0..10 {
        let name = format!("r{remote}");
        let fields: Value = (0..100)
            .map(|n| (format!("p{n}"), json!(format!("{remote}-{n}"))))
            .collect();
        test.put(&name, fields).await;
        entries.extend((0..100).map(|n| one(&format!("{name}.p{n}"), &test.key(&name), &format!("p{n}"))));
    }
    let spec = json!({ "refreshInterval": "1h", "data": entries });
    let whole = test.sync("s", spec).await;
    let secret = test.secrets().get("s").await.unwrap();
    assert_eq!(secret.data.as_ref().unwrap().len(), 1000);
    assert_eq!(text(&secret, "r7.p93").unwrap(), "7-93");
    let reads = test.reads("vault").await;
    assert!(
        (reads - 10.0).abs() < f64::EPSILON,
        "{reads} reads of 10 remote values"
    );
    // one missing property of a thousand, and nothing is written
    test.put("r9", json!({ "p0": "new" })).await;
    test.refresh("s", "1").await;
    let said = format!(
        "data[901] (secretKey \"r9.p1\"): key \"{}\" has no property \"p1\" in store SecretStore/vault; it has 1 property",
        test.key("r9")
    );
    test.fails("s", &whole, "SourceNotFound", &said).await;
    let reads = test.reads("vault").await;
    assert!((reads - 20.0).abs() < f64::EPSILON, "{reads} reads in two rounds");
}

#[tokio::test]
async fn secret_types_of_kubernetes_credentials_are_rejected() {
    let test = shared_cluster().await.test_namespace("types").await;
    test.put("a", json!({ "x": "1" })).await;
    let spec = |kind: &str| json!({ "data": [one("x", &test.key("a"), "x")], "target": { "template": { "type": kind } } });
    for kind in [
        "kubernetes.io/service-account-token",
        "bootstrap.kubernetes.io/token",
    ] {
        let name = kind.replace(['.', '/'], "-");
        test.declare(&name, spec(kind)).await;
        let said = format!("target.template.type: lockstep does not write Secrets of type {kind}");
        test.fails_at_first(&name, "InvalidSpec", &said).await;
        test.change(&name, spec("example.org/good")).await;
        test.heals(&name).await;
        let secret = test.secrets().get(&name).await.unwrap();
        assert_eq!(secret.type_.as_deref(), Some("example.org/good"));
    }
}

#[tokio::test]
async fn younger_object_takes_over_when_the_older_one_is_deleted() {
    let test = shared_cluster().await.test_namespace("heir").await;
    test.put("a", json!({ "x": "1" })).await;
    let spec = |own: &str| {
        json!({
            "refreshInterval": "1s", "data": [one(own, &test.key("a"), "x")], "target": { "name": "shared" },
        })
    };
    test.declare("older", spec("of-older")).await;
    test.wait_for_reason("older", "Synced").await;
    let old = test.secrets().get("shared").await.unwrap();
    // ages are told in whole seconds
    tokio::time::sleep(Duration::from_millis(1100)).await;
    test.declare("younger", spec("of-younger")).await;
    let object = test.wait_for_reason("younger", "Conflict").await;
    assert_eq!(
        crate::shared_cluster::message(&object),
        "Secret \"shared\" is already managed by the older SyncedSecret \"older\". Change target.name, or delete one of the two. Secret \"shared\" has not been written yet"
    );
    test.gauge_of("younger", 0.0).await;
    assert_eq!(test.secrets().get("shared").await.unwrap().data, old.data);
    test.synced_secrets()
        .delete("older", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    let object = test
        .wait_for("younger", "its turn", |object| {
            ready(object).is_some_and(|condition| condition.reason == "Synced")
        })
        .await;
    let secret = test
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

/// Sets labels of the namespace's namespace.
async fn label(test: &TestNamespace, labels: Value) {
    let api: Api<Namespace> = Api::all(test.client.clone());
    let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
    api.patch(&test.namespace, &PatchParams::default(), &patch)
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
    async fn add(test: &TestNamespace) -> Self {
        let bao = &test.cluster.bao;
        let rules = format!(
            "path \"secret/data/{}/*\" {{ capabilities = [\"read\"] }}",
            test.namespace
        );
        let name = format!("cluster-{}", test.namespace);
        bao.put_policy(&name, &rules).await.unwrap();
        let token = bao.create_token(&[&name, "default"]).await.unwrap();
        test.apply_raw(&json!({
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
        store.grant(test, json!([])).await;
        store
    }

    async fn grant(&self, test: &TestNamespace, access: Value) {
        test.apply_raw(&json!({
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

    async fn remove(&self, test: &TestNamespace) {
        let api: Api<lockstep_api::ClusterSecretStore> = Api::all(test.client.clone());
        api.delete(&self.name, &kube::api::DeleteParams::default())
            .await
            .unwrap();
    }
}
