//! Bad input: credentials, rights, certificates and addresses of stores that stop working, and servers that go away. A
//! change of a store, of its credentials or of its certificates wakes who depends on it: the refresh interval here is an
//! hour, and only a watch can be so quick.

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use lockstep_api::SecretStore;
use lockstep_testkit::{OpenBao, operator};
use serde_json::{Value, json};

use crate::{
    bad_input::{Whole, one},
    faulty_vault::{FaultyVault, Mood},
    shared_cluster::{TestNamespace, eventually, message, shared_cluster},
};

const MARKER: &str = "canary-of-bad-stores-93d2";

/// A SyncedSecret that is refreshed every hour.
pub(crate) async fn sync_seldom(test: &TestNamespace, name: &str, store: &str, key: &str) -> Whole {
    let spec = json!({
        "refreshInterval": "1h", "secretStoreRef": { "name": store }, "data": [one("x", key, "x")],
    });
    test.sync(name, spec).await
}

async fn change_store(test: &TestNamespace, name: &str, provider: Value) {
    let api: Api<SecretStore> = Api::namespaced(test.client.clone(), &test.namespace);
    let patch = json!({ "spec": { "provider": { "vault": provider } } });
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
}

/// Waits until the condition `Ready` of a store has that reason; the message.
pub(crate) async fn store_says(test: &TestNamespace, name: &str, reason: &str) -> String {
    let api: Api<SecretStore> = Api::namespaced(test.client.clone(), &test.namespace);
    eventually("the store's status", || async {
        let store = api.get(name).await?;
        let ready = store
            .status
            .and_then(|status| status.conditions.into_iter().next());
        let ready = ready.filter(|ready| ready.reason == reason);
        ready
            .map(|ready| ready.message)
            .ok_or_else(|| anyhow::anyhow!("another reason"))
    })
    .await
    .unwrap()
}

pub(crate) async fn set_credential(test: &TestNamespace, name: &str, data: Value) {
    let patch = json!({ "stringData": data });
    test.secrets()
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
}

#[tokio::test]
async fn removed_vault_policy_is_named_and_its_return_heals() {
    let test = shared_cluster().await.test_namespace("denied").await;
    test.put("a", json!({ "x": MARKER })).await;
    let (namespace, key) = (test.namespace.clone(), test.key("a"));
    let old = test.sync("s", json!({ "data": [one("x", &key, "x")] })).await;
    let policy = format!("{namespace}-vault");
    let bao = &test.cluster.bao;
    let unrelated = "path \"secret/data/elsewhere\" { capabilities = [\"read\"] }";
    bao.put_policy(&policy, unrelated).await.unwrap();
    let said = format!(
        "data[0] (secretKey \"x\"): SecretStore/vault: permission denied reading \"{key}\" with the token from Secret \"vault-token\". The policy needs: path \"secret/data/{key}\" {{ capabilities = [\"read\"] }}"
    );
    test.fails("s", &old, "PermissionDenied", &said).await;
    test.requests_counted("vault", "read", "permission_denied").await;
    // no watch tells of a policy in Vault: the refresh interval of a second does
    let rules = format!("path \"secret/data/{namespace}/*\" {{ capabilities = [\"read\"] }}");
    bao.put_policy(&policy, &rules).await.unwrap();
    test.heals("s").await;
    test.tells_nobody(MARKER).await;
}

#[tokio::test]
async fn unreadable_credential_is_reported_and_heals() {
    let test = shared_cluster().await.test_namespace("credential").await;
    let namespace = &test.namespace;
    let vault = FaultyVault::start("hvs.good").await.unwrap();
    vault.put("a", json!({ "x": "1" }));
    vault.add_store(&test, "v", json!({})).await.unwrap();
    let old = sync_seldom(&test, "s", "v", "a").await;
    let elsewhere = |name: &str| json!({ "auth": { "tokenSecretRef": { "name": name, "key": "token" } } });
    change_store(&test, "v", elsewhere("later")).await;
    let said = format!(
        "data[0] (secretKey \"x\"): SecretStore/v: lockstep may not read Secret \"later\" in namespace \"{namespace}\". Grant it with: kubectl create role lockstep-later -n {namespace} --verb=get,list,watch --resource=secrets --resource-name=later && kubectl create rolebinding lockstep-later -n {namespace} --role=lockstep-later --serviceaccount=lockstep-system:lockstep"
    );
    test.fails("s", &old, "CredentialsUnavailable", &said).await;
    store_says(&test, "v", "CredentialsUnavailable").await;
    test.add_credential("later", "another", "hvs.good").await.unwrap();
    let said = format!(
        "data[0] (secretKey \"x\"): SecretStore/v: Secret \"later\" in namespace \"{namespace}\" has no key \"token\""
    );
    test.wait_for("s", "the other message", |object| {
        message(object).starts_with(&said)
    })
    .await;
    test.fails("s", &old, "CredentialsUnavailable", &said).await;
    set_credential(&test, "later", json!({ "token": "hvs.good" })).await;
    test.heals("s").await;
    // the server takes another token now, and the Secret follows
    vault.take_only("hvs.better");
    let old = test.whole("s").await;
    test.refresh("s", "1").await;
    let said = "data[0] (secretKey \"x\"): SecretStore/v: the server rejected the token from Secret \"later\", key \"token\". The token expired, was revoked, or belongs to another server or namespace. Put a valid token into the Secret";
    test.fails("s", &old, "Unauthenticated", said).await;
    set_credential(&test, "later", json!({ "token": "hvs.better" })).await;
    test.heals("s").await;
}

#[tokio::test]
async fn changed_store_wakes_its_dependents() {
    let test = shared_cluster().await.test_namespace("changed").await;
    test.put("a", json!({ "x": "1" })).await;
    let key = test.key("a");
    let old = sync_seldom(&test, "s", "vault", &key).await;
    change_store(&test, "vault", json!({ "path": "nowhere" })).await;
    let said = "data[0] (secretKey \"x\"): SecretStore/vault: permission denied looking up the engine at \"nowhere\"";
    let object = test.wait_for_reason("s", "PermissionDenied").await;
    assert!(message(&object).starts_with(said), "{}", message(&object));
    change_store(&test, "vault", json!({ "path": "secret" })).await;
    test.heals("s").await;

    change_store(&test, "vault", json!({ "version": "v1" })).await;
    let object = test.wait_for("s", "a failure", |object| {
        crate::shared_cluster::ready(object).is_some_and(|ready| ready.reason != "Synced")
    });
    let all = message(&object.await).to_owned();
    assert!(
        all.starts_with("data[0] (secretKey \"x\"): SecretStore/vault: "),
        "{all}"
    );
    change_store(&test, "vault", json!({ "version": "v2" })).await;
    test.heals("s").await;

    let good = test.cluster.bao.address();
    let nobody = format!("http://127.0.0.1:{}", lockstep_testkit::ports::free().unwrap());
    change_store(&test, "vault", json!({ "server": nobody })).await;
    let said = format!(
        "data[0] (secretKey \"x\"): SecretStore/vault: could not connect to {nobody}. Check the address and the port, and that network policies let lockstep reach them. A SecretStore cannot use loopback or link-local addresses; the operator's log has the reason"
    );
    test.fails("s", &old, "Unavailable", &said).await;
    store_says(&test, "vault", "Unavailable").await;
    change_store(&test, "vault", json!({ "server": good })).await;
    test.heals("s").await;
    assert_eq!(
        store_says(&test, "vault", "StoreReady").await,
        "connected and authenticated"
    );

    // what was to wait for ten minutes does not: whoever depends on a store is woken
    let busy = FaultyVault::start("hvs.good").await.unwrap();
    busy.put("a", json!({ "x": "1" }));
    busy.add_store(&test, "busy", json!({})).await.unwrap();
    let old = sync_seldom(&test, "b", "busy", "a").await;
    busy.set(Mood::Throttles(600));
    test.refresh("b", "1").await;
    let said = "data[0] (secretKey \"x\"): SecretStore/busy: the server asks to slow down (status 429)";
    test.fails("b", &old, "RateLimited", said).await;
    busy.set(Mood::Well);
    let began = std::time::Instant::now();
    change_store(&test, "busy", json!({ "version": "v2", "namespace": "team" })).await;
    test.heals("b").await;
    assert!(began.elapsed() < std::time::Duration::from_secs(120));
}

#[tokio::test]
async fn untrusted_sealed_or_restarted_server_heals() {
    let test = shared_cluster().await.test_namespace("sealed").await;
    let namespace = &test.namespace;
    let bao = OpenBao::builder().tls().start().await.unwrap();
    bao.put_kv2("a", json!({ "x": MARKER })).await.unwrap();
    let other = lockstep_testkit::certificates::CertificateAuthority::new("somebody else").unwrap();
    let authority = |pem: &str| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "ca", "namespace": namespace }, "data": { "ca.crt": pem },
        })
    };
    test.apply_raw(&authority(&other.pem())).await.unwrap();
    test.apply_raw(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": { "name": "lockstep-ca", "namespace": namespace },
        "rules": [{
            "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["ca"],
            "verbs": ["get", "list", "watch"],
        }],
    }))
    .await
    .unwrap();
    test.apply_raw(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": { "name": "lockstep-ca", "namespace": namespace },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "lockstep-ca" },
        "subjects": [{
            "kind": "ServiceAccount", "name": operator::SERVICE_ACCOUNT, "namespace": operator::NAMESPACE,
        }],
    }))
    .await
    .unwrap();
    test.add_credential("own-token", "token", bao.root_token())
        .await
        .unwrap();
    test.apply_raw(&json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "SecretStore",
        "metadata": { "name": "own", "namespace": namespace },
        "spec": { "provider": { "vault": {
            "server": bao.address(), "path": "secret",
            "caProvider": { "type": "ConfigMap", "name": "ca", "key": "ca.crt" },
            "auth": { "tokenSecretRef": { "name": "own-token", "key": "token" } },
        } } },
    }))
    .await
    .unwrap();
    let spec = json!({
        "refreshInterval": "1s", "secretStoreRef": { "name": "own" }, "data": [one("x", "a", "x")],
    });
    test.declare("s", spec).await;
    let place = "data[0] (secretKey \"x\"): SecretStore/own:";
    let server = bao.address();
    let said = format!(
        "{place} {server} cannot be trusted: its certificate comes from no known certificate authority. Set caBundle or caProvider to the authority that signed it"
    );
    test.fails_at_first("s", "Unavailable", &said).await;
    test.apply_raw(&authority(bao.ca().unwrap())).await.unwrap();
    // no sooner than its retries: the right to watch the ConfigMap may have come after the first look at it
    test.heals("s").await;
    let old = test.whole("s").await;

    bao.seal().await.unwrap();
    let object = test.wait_for_reason("s", "Unavailable").await;
    assert!(
        message(&object).starts_with(&format!("{place} the server is sealed (status 503)")),
        "{}",
        message(&object)
    );
    assert_eq!(test.whole("s").await, old);
    test.requests_counted("own", "read", "unavailable").await;
    bao.unseal().await.unwrap();
    test.heals("s").await;

    bao.stop();
    let said = format!("{place} could not connect to {server}");
    test.wait_for("s", "the news", |object| {
        let said_so = message(object).starts_with(&said);
        let broke =
            message(object).contains("the connection to") || message(object).contains("several times");
        said_so || broke
    })
    .await;
    test.gauge_of("s", 0.0).await;
    assert_eq!(test.whole("s").await, old);
    bao.start_sealed().await.unwrap();
    bao.unseal().await.unwrap();
    test.heals("s").await;
    assert_eq!(test.whole("s").await, old, "the same value needs no write");
    test.tells_nobody(MARKER).await;
}

#[tokio::test]
async fn sealed_store_is_retried_with_backoff_and_reported_once() {
    let test = shared_cluster().await.test_namespace("patient").await;
    let vault = FaultyVault::start("hvs.good").await.unwrap();
    vault.put("a", json!({ "x": "1" }));
    vault.add_store(&test, "v", json!({})).await.unwrap();
    let spec = json!({ "secretStoreRef": { "name": "v" }, "data": [one("x", "a", "x")] });
    let old = test.sync("s", spec).await;
    vault.set(Mood::Sealed);
    let said = "data[0] (secretKey \"x\"): SecretStore/v: the server is sealed (status 503)";
    test.fails("s", &old, "Unavailable", said).await;
    let told = test.synced_secrets().get("s").await.unwrap();
    let before = vault.asked("/data/a").len();
    tokio::time::sleep(std::time::Duration::from_secs(7)).await;
    let more = vault.asked("/data/a").len() - before;
    assert!(more <= 12, "{more} requests in seven seconds");
    let still = test.synced_secrets().get("s").await.unwrap();
    assert_eq!(
        told.metadata.resource_version, still.metadata.resource_version,
        "{:?}",
        still.status
    );
    vault.set(Mood::Well);
    test.heals("s").await;
}

#[tokio::test]
async fn hanging_stores_do_not_delay_the_status_of_another() {
    let test = shared_cluster().await.test_namespace("manystores").await;
    let hung = FaultyVault::start("hvs.good").await.unwrap();
    hung.set(Mood::Hangs);
    for n in 0..20 {
        let limits = json!({ "timeout": "120s" });
        hung.add_store(&test, &format!("hung-{n}"), limits).await.unwrap();
    }
    let well = FaultyVault::start("hvs.good").await.unwrap();
    let began = std::time::Instant::now();
    well.add_store(&test, "well", json!({})).await.unwrap();
    store_says(&test, "well", "StoreReady").await;
    assert!(
        began.elapsed() < std::time::Duration::from_secs(25),
        "{:?}",
        began.elapsed()
    );
    hung.set(Mood::Well);
}
