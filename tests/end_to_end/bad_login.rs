//! Bad input: logins that are revoked, end or are refused.

use serde_json::{Value, json};

use crate::{
    bad_input::one,
    bad_store::{set_credential, store_says, sync_seldom},
    shared_cluster::{TestNamespace, shared_cluster, text},
};

/// An AppRole of a namespace's own, with a store `approle` that logs in with it.
struct AppRole {
    mount: String,
    role: String,
    secret_id: String,
}

impl AppRole {
    async fn add(test: &TestNamespace, token_settings: Value) -> Self {
        let bao = &test.cluster.bao;
        let mount = format!("approle-{}", test.namespace);
        bao.post(&format!("sys/auth/{mount}"), json!({ "type": "approle" }))
            .await
            .unwrap();
        let role = format!("auth/{mount}/role/shop");
        let mut settings = token_settings;
        settings["token_policies"] = json!([format!("{}-vault", test.namespace), "default"]);
        bao.post(&role, settings).await.unwrap();
        let answer = bao.get(&format!("{role}/role-id")).await.unwrap();
        let role_id = answer["data"]["role_id"].as_str().unwrap().to_owned();
        let secret_id = Self::new_secret_id(test, &role).await;
        test.add_credential("approle", "secret-id", &secret_id)
            .await
            .unwrap();
        let auth = json!({ "appRole": {
            "path": mount, "roleId": role_id, "secretRef": { "name": "approle", "key": "secret-id" },
        } });
        test.add_store("approle", &auth).await.unwrap();
        Self {
            mount,
            role,
            secret_id,
        }
    }

    async fn new_secret_id(test: &TestNamespace, role: &str) -> String {
        let path = format!("{role}/secret-id");
        let answer = test.cluster.bao.post(&path, json!({})).await.unwrap();
        answer["data"]["secret_id"].as_str().unwrap().to_owned()
    }

    async fn revoke_every_login(&self, test: &TestNamespace) {
        let path = format!("sys/leases/revoke-prefix/auth/{}", self.mount);
        test.cluster.bao.post(&path, json!({})).await.unwrap();
    }
}

/// Requests of the store `approle` that came to anything but an answer.
async fn failed_requests(test: &TestNamespace) -> f64 {
    let label = format!("store=\"{}/approle\"", test.namespace);
    let all = test
        .cluster
        .operator
        .metric("lockstep_provider_requests_total", &[&label])
        .await
        .unwrap();
    let good = test
        .cluster
        .operator
        .metric("lockstep_provider_requests_total", &[&label, "outcome=\"ok\""])
        .await
        .unwrap();
    all - good
}

#[tokio::test]
async fn revoked_token_is_reported_and_a_new_one_works_at_once() {
    let test = shared_cluster().await.test_namespace("revoked").await;
    test.put("a", json!({ "x": "1" })).await;
    let old = sync_seldom(&test, "s", "vault", &test.key("a")).await;
    let bao = &test.cluster.bao;
    let token = text(&test.secrets().get("vault-token").await.unwrap(), "token").unwrap();
    bao.post("auth/token/revoke", json!({ "token": token }))
        .await
        .unwrap();
    test.refresh("s", "1").await;
    let said = "data[0] (secretKey \"x\"): SecretStore/vault: the server rejected the token from Secret \"vault-token\", key \"token\". The token expired, was revoked, or belongs to another server or namespace. Put a valid token into the Secret";
    test.fails("s", &old, "Unauthenticated", said).await;
    test.requests_counted("vault", "read", "unauthenticated").await;

    set_credential(&test, "vault-token", json!({ "token": "a b\nc" })).await;
    let said = "data[0] (secretKey \"x\"): SecretStore/vault: Secret \"vault-token\", key \"token\" contains characters that are not allowed in a token. A token must be one line of printable ASCII without spaces. Leading and trailing whitespace is ignored";
    test.fails("s", &old, "CredentialsUnavailable", said).await;

    let policy = format!("{}-vault", test.namespace);
    let fresh = bao.create_token(&[&policy, "default"]).await.unwrap();
    // with the newline that a file leaves behind
    set_credential(&test, "vault-token", json!({ "token": format!("{fresh}\n") })).await;
    test.heals("s").await;
    store_says(&test, "vault", "StoreReady").await;
    test.tells_nobody(&token).await;
    test.tells_nobody(&fresh).await;
}

#[tokio::test]
async fn revoked_login_is_replaced_without_a_failure() {
    let test = shared_cluster().await.test_namespace("approle").await;
    test.put("a", json!({ "x": "1" })).await;
    let login = AppRole::add(&test, json!({ "token_ttl": "1h" })).await;
    let AppRole {
        mount,
        role,
        secret_id,
    } = &login;
    sync_seldom(&test, "s", "approle", &test.key("a")).await;
    login.revoke_every_login(&test).await;
    test.put("a", json!({ "x": "2" })).await;
    test.refresh("s", "1").await;
    test.wait_for_secret("s", "the value after the revocation", |secret| {
        text(secret, "x").as_deref() == Some("2")
    })
    .await;
    assert!(
        failed_requests(&test).await.abs() < f64::EPSILON,
        "nobody noticed"
    );

    // the secret id is revoked as well: no new login
    let old = test.whole("s").await;
    let destroy = json!({ "secret_id": secret_id });
    test.cluster
        .bao
        .post(&format!("{role}/secret-id/destroy"), destroy)
        .await
        .unwrap();
    login.revoke_every_login(&test).await;
    test.refresh("s", "2").await;
    let said = format!(
        "data[0] (secretKey \"x\"): SecretStore/approle: the server refused the login as AppRole (auth/{mount}) (status 400). Check the role ID, and that the secret ID in Secret \"approle\", key \"secret-id\" is still valid"
    );
    test.fails("s", &old, "Unauthenticated", &said).await;
    let fresh = AppRole::new_secret_id(&test, role).await;
    set_credential(&test, "approle", json!({ "secret-id": fresh })).await;
    test.heals("s").await;
    test.tells_nobody(secret_id).await;
    test.tells_nobody(&fresh).await;
}

#[tokio::test]
async fn short_login_is_renewed_and_replaced_in_time() {
    let test = shared_cluster().await.test_namespace("brief").await;
    test.put("a", json!({ "x": "0" })).await;
    let brief = json!({ "token_ttl": "3s", "token_max_ttl": "4s" });
    AppRole::add(&test, brief).await;
    let spec = json!({ "secretStoreRef": { "name": "approle" }, "data": [one("x", &test.key("a"), "x")] });
    test.sync("s", spec).await;
    for round in 1..=9 {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        test.put("a", json!({ "x": round.to_string() })).await;
    }
    test.wait_for_secret("s", "the last value", |secret| {
        text(secret, "x").as_deref() == Some("9")
    })
    .await;
    assert!(
        failed_requests(&test).await.abs() < f64::EPSILON,
        "no read failed"
    );
}
