//! Values that stand encrypted in Git: sealed on the command line with the right to encrypt, decrypted by the operator with
//! the right to decrypt, in their place and nowhere else, and only when something has changed.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use lockstep_testkit::{
    Scratch,
    aws::{ACCESS_KEY_ID, Aws, KeyState, REGION, SECRET_ACCESS_KEY},
    binaries,
    gcp::{self, Gcp},
};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    bad_input::Whole,
    shared_cluster::{TestNamespace, eventually, message, shared_cluster, text},
};

/// What no log, event, status or metric may hold, and no line of the command line.
pub(crate) const MARKER: &str = "canary-of-ciphertexts-77aa";
/// The access key of whoever seals.
const DEVELOPER: &str = "AKIALOCKSTEPTEST0002";

/// A KMS of AWS' kind: the operator may decrypt, a developer may encrypt.
pub(crate) async fn kms() -> (Aws, String) {
    let aws = Aws::start().await.expect("a stand-in");
    aws.add_key(DEVELOPER);
    aws.deny_action_to(ACCESS_KEY_ID, "Encrypt");
    aws.deny_action_to(DEVELOPER, "Decrypt");
    let key = aws.add_kms_key("shop");
    (aws, key)
}

fn aws_store(test: &TestNamespace, aws: &Aws, key: &str) -> Value {
    let secret = |key: &str| json!({ "name": "aws", "key": key });
    json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "SecretStore",
        "metadata": { "name": "kms", "namespace": test.namespace },
        "spec": { "provider": { "aws": {
            "region": REGION, "stsEndpoint": aws.address(),
            "kms": { "keyId": key, "endpoint": aws.address() },
            "auth": { "secretRef": {
                "accessKeyIDSecretRef": secret("id"), "secretAccessKeySecretRef": secret("secret"),
            } },
        } } },
    })
}

/// A store that decrypts with a key of the stand-in, in the namespace.
pub(crate) async fn add_aws_store(test: &TestNamespace, aws: &Aws, key: &str) -> Value {
    test.add_credential("aws", "id", ACCESS_KEY_ID)
        .await
        .expect("a credential");
    test.apply_raw(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "aws", "namespace": test.namespace },
        "stringData": { "id": ACCESS_KEY_ID, "secret": SECRET_ACCESS_KEY },
    }))
    .await
    .expect("a credential");
    let store = aws_store(test, aws, key);
    test.apply_raw(&store).await.expect("a store");
    store
}

fn unsealed(test: &TestNamespace, name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "SyncedSecret",
        "metadata": { "name": name, "namespace": test.namespace },
        "spec": {
            "secretStoreRef": { "name": "kms" }, "refreshInterval": "1s",
            "data": [{ "secretKey": "password", "plaintext": value }],
        },
    })
}

/// The options that trust the endpoints of a store: the stand-ins are none of the clouds' own hosts.
pub(crate) fn trust(store: &Value) -> Vec<String> {
    let fields = ["/aws/kms/endpoint", "/gcp/kms/endpoint", "/vault/server"];
    let endpoint = |field: &str| store.pointer(&format!("/spec/provider{field}"))?.as_str();
    let endpoints = fields.into_iter().filter_map(endpoint);
    let authorities = endpoints.filter_map(|endpoint| endpoint.split("://").nth(1));
    authorities
        .map(|authority| format!("--trust-endpoint={}", authority.trim_end_matches('/')))
        .collect()
}

/// What a developer types: the file before, and the file after.
async fn seal(manifest: &Value, store: &Value, environment: &[(&str, &str)]) -> Result<Value> {
    let folder = Scratch::new("seal")?;
    let (file, stores) = (
        folder.path().join("secret.yaml"),
        folder.path().join("store.yaml"),
    );
    std::fs::write(&file, serde_yaml_ng::to_string(manifest)?)?;
    std::fs::write(&stores, serde_yaml_ng::to_string(store)?)?;
    let output = Command::new(binaries::lockstep()?)
        .arg("seal")
        .args(trust(store))
        .arg("--file")
        .arg(&file)
        .arg("--store")
        .arg(&stores)
        .env_clear()
        .env("HOME", folder.path())
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("run lockstep seal")?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(!said.contains(MARKER), "the command line shows a value");
    ensure!(output.status.success(), "lockstep seal: {said}");
    let sealed = std::fs::read_to_string(&file)?;
    ensure!(!sealed.contains(MARKER), "the value is still there");
    Ok(serde_yaml_ng::from_str(&sealed)?)
}

pub(crate) fn developer() -> [(&'static str, &'static str); 2] {
    [
        ("AWS_ACCESS_KEY_ID", DEVELOPER),
        ("AWS_SECRET_ACCESS_KEY", "CANARY-of-a-developer"),
    ]
}

async fn holds(test: &TestNamespace, name: &str, value: &str) -> Secret {
    test.wait_for_secret(name, "the value that was sealed", |secret| {
        text(secret, "password").as_deref() == Some(value)
    })
    .await
}

/// Asks for a sync and waits until it was made.
async fn refreshed(test: &TestNamespace, name: &str, request: &str) {
    test.refresh(name, request).await;
    test.wait_for(name, "the request is done", |object| {
        let status = object.status.as_ref();
        status.and_then(|status| status.handled_refresh.as_deref()) == Some(request)
    })
    .await;
}

#[tokio::test]
async fn sealed_value_is_decrypted_once_and_follows_changes() {
    let test = shared_cluster().await.test_namespace("sealed").await;
    let (aws, key) = kms().await;
    let store = add_aws_store(&test, &aws, &key).await;
    let sealed = seal(&unsealed(&test, "s", MARKER), &store, &developer())
        .await
        .unwrap();
    assert!(
        sealed["spec"]["data"][0]["ciphertext"]
            .as_str()
            .unwrap()
            .starts_with("lockstep:v1:")
    );
    test.apply_raw(&sealed).await.unwrap();
    holds(&test, "s", MARKER).await;
    test.wait_for_reason("s", "Synced").await;
    assert_eq!(aws.count("Decrypt"), 1);

    // refreshes by themselves and on request: nothing has changed, and the KMS is not asked
    for request in ["1", "2", "3"] {
        refreshed(&test, "s", request).await;
    }
    assert_eq!(aws.count("Decrypt"), 1, "an unchanged ciphertext costs no call");

    // an edit is repaired, for which the value is needed
    let edit = json!({ "stringData": { "password": "edited" } });
    let params = PatchParams::default();
    test.secrets()
        .patch("s", &params, &Patch::Merge(edit))
        .await
        .unwrap();
    holds(&test, "s", MARKER).await;
    assert_eq!(aws.count("Decrypt"), 2);

    let revision = test.whole("s").await;
    let again = seal(&unsealed(&test, "s", MARKER), &store, &developer())
        .await
        .unwrap();
    assert_ne!(again, sealed, "no two ciphertexts are alike");
    test.apply_raw(&again).await.unwrap();
    test.wait_for_reason("s", "Synced").await;
    eventually("the new ciphertext is decrypted", || async {
        ensure!(aws.count("Decrypt") == 3);
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(
        test.whole("s").await,
        revision,
        "the same value is no other revision and no write"
    );

    let rotated = format!("{MARKER}-rotated");
    let changed = seal(&unsealed(&test, "s", &rotated), &store, &developer())
        .await
        .unwrap();
    test.apply_raw(&changed).await.unwrap();
    holds(&test, "s", &rotated).await;
    test.apply_raw(&with_ciphertext(&test, "other", &changed))
        .await
        .unwrap();
    test.wait_for_reason("other", "DecryptFailed").await;
    test.tells_nobody(MARKER).await;
}

/// A SyncedSecret of another name with the ciphertext of that one.
fn with_ciphertext(test: &TestNamespace, name: &str, sealed: &Value) -> Value {
    let mut object = unsealed(test, name, "");
    object["spec"]["data"] = sealed["spec"]["data"].clone();
    object
}

#[tokio::test]
async fn ciphertext_or_key_error_keeps_the_secret_and_heals() {
    let test = shared_cluster().await.test_namespace("unsealable").await;
    let (aws, key) = kms().await;
    let store = add_aws_store(&test, &aws, &key).await;
    let sealed = seal(&unsealed(&test, "s", MARKER), &store, &developer())
        .await
        .unwrap();
    test.apply_raw(&sealed).await.unwrap();
    test.wait_for_reason("s", "Synced").await;
    let old = test.whole("s").await;
    let before = aws.count("Decrypt");

    // cut, and copied to where it does not belong: known without asking
    let place = "data[0] (secretKey \"password\"):";
    let ciphertext = sealed["spec"]["data"][0]["ciphertext"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut cut = sealed.clone();
    cut["spec"]["data"][0]["ciphertext"] = json!(ciphertext[..ciphertext.len() - 7]);
    test.apply_raw(&cut).await.unwrap();
    let said = format!(
        "{place} the ciphertext is not whole: something of it is missing or was changed. Restore it from an earlier commit, or seal it again"
    );
    test.fails("s", &old, "DecryptFailed", &said).await;
    test.apply_raw(&sealed).await.unwrap();
    test.heals("s").await;
    test.apply_raw(&with_ciphertext(&test, "copy", &sealed))
        .await
        .unwrap();
    let said = format!(
        "{place} the ciphertext was sealed for another place: another namespace, SyncedSecret, secretKey or ciphertextScope. Seal it again for this one"
    );
    test.fails_at_first("copy", "DecryptFailed", &said).await;
    assert_eq!(aws.count("Decrypt"), before, "the KMS was not asked");

    // of another key of the same KMS, which the operator may use
    let mut elsewhere = store.clone();
    elsewhere["spec"]["provider"]["aws"]["kms"]["keyId"] = json!(aws.add_kms_key("other"));
    let stranger = seal(&unsealed(&test, "s", "x"), &elsewhere, &developer())
        .await
        .unwrap();
    test.apply_raw(&stranger).await.unwrap();
    let said = format!(
        "{place} SecretStore/kms: KMS key \"{key}\" does not decrypt the ciphertext: it was sealed with another key or for another place, or is damaged. Seal the value again, with the key of this store"
    );
    test.fails("s", &old, "DecryptFailed", &said).await;

    let said = format!(
        "SecretStore/kms: KMS key \"{key}\" is disabled or pending deletion. Enable the key or cancel its deletion, or seal the values with another key"
    );
    let key = KeyOfRoom {
        test: &test,
        store: &store,
        environment: &developer(),
    };
    let sealed = key.sealed("rotated").await;
    aws.set_kms_key("shop", KeyState::Disabled);
    key.is_unavailable(&sealed, &old, &said).await;
    aws.set_kms_key("shop", KeyState::Enabled);
    key.is_back("rotated").await;
    test.tells_nobody(MARKER).await;
}

/// A key that is lost while a new value waits for it, and found again.
struct KeyOfRoom<'a> {
    test: &'a TestNamespace,
    store: &'a Value,
    environment: &'a [(&'static str, &'a str)],
}

impl KeyOfRoom<'_> {
    /// Somebody seals a value while the key can be used.
    async fn sealed(&self, value: &str) -> Value {
        let object = unsealed(self.test, "s", value);
        seal(&object, self.store, self.environment).await.unwrap()
    }

    /// A value that is new arrives in Git, and the key cannot be used: exactly that is said, and nothing changes.
    async fn is_unavailable(&self, sealed: &Value, old: &Whole, said: &str) {
        self.test.apply_raw(sealed).await.unwrap();
        let said = format!("data[0] (secretKey \"password\"): {said}");
        self.test.fails("s", old, "KeyUnavailable", &said).await;
        self.test
            .requests_counted("kms", "decrypt", "key_unavailable")
            .await;
    }

    /// The key can be used again, and the value arrives by itself.
    async fn is_back(&self, value: &str) -> Whole {
        self.test.heals("s").await;
        holds(self.test, "s", value).await;
        self.test.whole("s").await
    }

    /// The first value arrives.
    async fn first(&self) -> Whole {
        let sealed = self.sealed(MARKER).await;
        self.test.apply_raw(&sealed).await.unwrap();
        self.test.wait_for_reason("s", "Synced").await;
        self.is_back(MARKER).await
    }
}

#[tokio::test]
async fn disabled_or_destroyed_gcp_key_keeps_the_secret_and_heals() {
    let test = shared_cluster().await.test_namespace("gcp-key").await;
    let gcp = Gcp::start().await.unwrap();
    gcp.deny_action_to(gcp::SERVICE_ACCOUNT, "Encrypt");
    gcp.deny_action_to(gcp::NODE, "Decrypt");
    let name = gcp.add_kms_key("shop");
    test.add_credential("gcp", "key.json", &gcp.service_account_key().unwrap())
        .await
        .unwrap();
    let store = json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "SecretStore",
        "metadata": { "name": "kms", "namespace": test.namespace },
        "spec": { "provider": { "gcp": {
            "kms": { "key": name, "endpoint": gcp.address() },
            "auth": { "secretRef": { "secretAccessKeySecretRef": { "name": "gcp", "key": "key.json" } } },
        } } },
    });
    test.apply_raw(&store).await.unwrap();
    let host = gcp.host();
    let key = KeyOfRoom {
        test: &test,
        store: &store,
        environment: &[("GCE_METADATA_HOST", &host)],
    };
    let mut old = key.first().await;
    let gone = "or the key version that encrypted the value is destroyed. If destruction is only scheduled, restore the key version. Otherwise, seal the values again";
    for (state, value, said) in [
        (
            gcp::KeyState::Disabled,
            "after-disabled",
            "or the key version that encrypted the value is disabled. Enable the key version, or seal the values again",
        ),
        (gcp::KeyState::DestroyScheduled, "after-scheduled", gone),
    ] {
        let sealed = key.sealed(value).await;
        gcp.set_kms_key_state("shop", 1, state);
        let said = format!("SecretStore/kms: key \"{name}\" {said}");
        key.is_unavailable(&sealed, &old, &said).await;
        gcp.set_kms_key_state("shop", 1, gcp::KeyState::Enabled);
        old = key.is_back(value).await;
    }

    // What was destroyed does not come back: the key gets a new version, and the value is sealed again.
    let sealed = key.sealed("lost").await;
    gcp.set_kms_key_state("shop", 1, gcp::KeyState::Destroyed);
    let said = format!("SecretStore/kms: key \"{name}\" {gone}");
    key.is_unavailable(&sealed, &old, &said).await;
    gcp.add_kms_key("shop");
    test.apply_raw(&key.sealed("sealed-again").await).await.unwrap();
    key.is_back("sealed-again").await;
    test.tells_nobody(MARKER).await;
}

#[tokio::test]
async fn cluster_store_decrypts_only_its_listed_scopes() {
    let test = shared_cluster().await.test_namespace("scopes").await;
    let (aws, key) = kms().await;
    let name = format!("{}-kms", test.namespace);
    let mut store = aws_store(&test, &aws, &key);
    store["kind"] = json!("ClusterSecretStore");
    store["metadata"] = json!({ "name": name });
    store["spec"]["access"] =
        json!([{ "namespaces": { "names": [test.namespace] }, "ciphertextScopes": ["Strict"] }]);
    let mut object = unsealed(&test, "s", MARKER);
    object["spec"]["secretStoreRef"] = json!({ "name": name, "kind": "ClusterSecretStore" });
    object["spec"]["data"][0]["ciphertextScope"] = json!("Cluster");
    let sealed = seal(&object, &store, &developer()).await.unwrap();
    test.apply_raw(&store).await.unwrap();
    test.apply_raw(&sealed).await.unwrap();
    let failed = test.wait_for_reason("s", "AccessDenied").await;
    let said = format!(
        "ClusterSecretStore/{name} does not permit ciphertexts of scope Cluster in namespace \"{}\" (access[0] grants Strict)",
        test.namespace
    );
    assert!(message(&failed).starts_with(&said), "{}", message(&failed));
    assert_eq!(aws.count("Decrypt"), 0);
}

/// A transit engine of the namespace's own with the key "shop", a store that decrypts with it, and the token of who may encrypt.
async fn transit(test: &TestNamespace) -> (String, Value, String) {
    let (bao, namespace) = (&test.cluster.bao, &test.namespace);
    let mount = format!("{namespace}-transit");
    bao.post(&format!("sys/mounts/{mount}"), json!({ "type": "transit" }))
        .await
        .unwrap();
    bao.post(&format!("{mount}/keys/shop"), json!({})).await.unwrap();
    let token = |right: &'static str| {
        let (policy, mount) = (format!("{namespace}-{right}"), mount.clone());
        async move {
            let rules = format!("path \"{mount}/{right}/shop\" {{ capabilities = [\"update\"] }}");
            bao.put_policy(&policy, &rules).await.unwrap();
            bao.create_token(&[&policy, "default"]).await.unwrap()
        }
    };
    test.add_credential("decrypts", "token", &token("decrypt").await)
        .await
        .unwrap();
    let store = json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "SecretStore",
        "metadata": { "name": "kms", "namespace": namespace },
        "spec": { "provider": { "vault": {
            "server": bao.address(), "transit": { "path": mount, "key": "shop" },
            "auth": { "tokenSecretRef": { "name": "decrypts", "key": "token" } },
        } } },
    });
    test.apply_raw(&store).await.unwrap();
    let developer = token("encrypt").await;
    (mount, store, developer)
}

#[tokio::test]
async fn vault_transit_decrypts_values_sealed_with_it() {
    let test = shared_cluster().await.test_namespace("transit").await;
    let (_, store, developer) = transit(&test).await;
    let object = unsealed(&test, "s", MARKER);
    let sealed = seal(&object, &store, &[("VAULT_TOKEN", &developer)])
        .await
        .unwrap();
    test.apply_raw(&sealed).await.unwrap();
    holds(&test, "s", MARKER).await;
    test.wait_for_reason("s", "Synced").await;
}

#[tokio::test]
async fn retired_or_deleted_transit_key_keeps_the_secret_and_heals() {
    let test = shared_cluster().await.test_namespace("transit-key").await;
    let bao = &test.cluster.bao;
    let (mount, store, developer) = transit(&test).await;
    let key = KeyOfRoom {
        test: &test,
        store: &store,
        environment: &[("VAULT_TOKEN", &developer)],
    };
    let path = format!("{mount}/keys/shop");
    let config = async |config: Value| drop(bao.post(&format!("{path}/config"), config).await.unwrap());
    let deleted = format!(
        "SecretStore/kms: transit key \"shop\" does not exist at \"{mount}\", or was deleted. Check spec.provider.vault.transit, or restore the key"
    );
    let old = key.first().await;

    // A key of the engine cannot be disabled; its versions can be retired.
    let sealed = key.sealed("after-retired").await;
    bao.post(&format!("{path}/rotate"), json!({})).await.unwrap();
    config(json!({ "min_decryption_version": 2 })).await;
    let said = "SecretStore/kms: the version of transit key \"shop\" that encrypted this may no longer decrypt. Lower the key's min_decryption_version, or seal the value again";
    key.is_unavailable(&sealed, &old, said).await;
    config(json!({ "min_decryption_version": 1 })).await;
    let old = key.is_back("after-retired").await;

    let sealed = key.sealed("after-soft-deleted").await;
    bao.delete(&format!("{path}/soft-delete")).await.unwrap();
    key.is_unavailable(&sealed, &old, &deleted).await;
    bao.post(&format!("{path}/soft-delete-restore"), json!({}))
        .await
        .unwrap();
    let old = key.is_back("after-soft-deleted").await;

    // What is deleted comes back from a backup.
    let sealed = key.sealed("after-deleted").await;
    config(json!({ "exportable": true, "allow_plaintext_backup": true, "deletion_allowed": true })).await;
    let backup = bao.get(&format!("{mount}/backup/shop")).await.unwrap();
    bao.delete(&path).await.unwrap();
    key.is_unavailable(&sealed, &old, &deleted).await;
    let backup = json!({ "backup": backup["data"]["backup"] });
    bao.post(&format!("{mount}/restore/shop"), backup).await.unwrap();
    key.is_back("after-deleted").await;
    test.tells_nobody(MARKER).await;
}
