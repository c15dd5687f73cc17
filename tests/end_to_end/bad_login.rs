//! Bad input: logins that are revoked, end or are refused.

use serde_json::{Value, json};

use crate::{
    bad_store::{set_credential, store_says, sync_seldom},
    stage::{Room, stage, text},
    witness::one,
};

/// An AppRole of a room's own, with a store `approle` that logs in with it.
struct AppRole {
    mount: String,
    role: String,
    secret_id: String,
}

impl AppRole {
    async fn add(room: &Room, token_settings: Value) -> Self {
        let bao = &room.stage.bao;
        let mount = format!("approle-{}", room.namespace);
        bao.post(&format!("sys/auth/{mount}"), json!({ "type": "approle" }))
            .await
            .unwrap();
        let role = format!("auth/{mount}/role/shop");
        let mut settings = token_settings;
        settings["token_policies"] = json!([format!("{}-vault", room.namespace), "default"]);
        bao.post(&role, settings).await.unwrap();
        let answer = bao.get(&format!("{role}/role-id")).await.unwrap();
        let role_id = answer["data"]["role_id"].as_str().unwrap().to_owned();
        let secret_id = Self::new_secret_id(room, &role).await;
        room.add_credential("approle", "secret-id", &secret_id)
            .await
            .unwrap();
        let auth = json!({ "appRole": {
            "path": mount, "roleId": role_id, "secretRef": { "name": "approle", "key": "secret-id" },
        } });
        room.add_store("approle", &auth).await.unwrap();
        Self {
            mount,
            role,
            secret_id,
        }
    }

    async fn new_secret_id(room: &Room, role: &str) -> String {
        let path = format!("{role}/secret-id");
        let answer = room.stage.bao.post(&path, json!({})).await.unwrap();
        answer["data"]["secret_id"].as_str().unwrap().to_owned()
    }

    async fn revoke_every_login(&self, room: &Room) {
        let path = format!("sys/leases/revoke-prefix/auth/{}", self.mount);
        room.stage.bao.post(&path, json!({})).await.unwrap();
    }
}

/// Requests of the store `approle` that came to anything but an answer.
async fn failed_requests(room: &Room) -> f64 {
    let label = format!("store=\"{}/approle\"", room.namespace);
    let all = room
        .stage
        .operator
        .metric("lockstep_provider_requests_total", &[&label])
        .await
        .unwrap();
    let good = room
        .stage
        .operator
        .metric("lockstep_provider_requests_total", &[&label, "outcome=\"ok\""])
        .await
        .unwrap();
    all - good
}

#[tokio::test]
async fn a_token_that_is_revoked_is_told_and_a_new_one_in_its_place_heals_at_once() {
    let room = stage().await.room("revoked").await;
    room.put("a", json!({ "x": "1" })).await;
    let old = sync_seldom(&room, "s", "vault", &room.key("a")).await;
    let bao = &room.stage.bao;
    let token = text(&room.secrets().get("vault-token").await.unwrap(), "token").unwrap();
    bao.post("auth/token/revoke", json!({ "token": token }))
        .await
        .unwrap();
    room.refresh("s", "1").await;
    let said = "data[0] (secretKey \"x\"): SecretStore/vault: the server does not take the token from Secret \"vault-token\", key \"token\". It has ended, was revoked, or is of another server or namespace: put a valid one there";
    room.fails("s", &old, "Unauthenticated", said).await;
    room.requests_counted("vault", "read", "unauthenticated").await;

    set_credential(&room, "vault-token", json!({ "token": "a b\nc" })).await;
    let said = "data[0] (secretKey \"x\"): SecretStore/vault: Secret \"vault-token\", key \"token\" holds characters that no token has. A token is one line of printable ASCII without spaces; only white space at its ends is cut off";
    room.fails("s", &old, "CredentialsUnavailable", said).await;

    let policy = format!("{}-vault", room.namespace);
    let fresh = bao.create_token(&[&policy, "default"]).await.unwrap();
    // with the newline that a file leaves behind
    set_credential(&room, "vault-token", json!({ "token": format!("{fresh}\n") })).await;
    room.heals("s").await;
    store_says(&room, "vault", "StoreReady").await;
    room.tells_nobody(&token).await;
    room.tells_nobody(&fresh).await;
}

#[tokio::test]
async fn a_login_that_is_revoked_midway_is_made_anew_without_anybody_noticing() {
    let room = stage().await.room("approle").await;
    room.put("a", json!({ "x": "1" })).await;
    let login = AppRole::add(&room, json!({ "token_ttl": "1h" })).await;
    let AppRole {
        mount,
        role,
        secret_id,
    } = &login;
    sync_seldom(&room, "s", "approle", &room.key("a")).await;
    login.revoke_every_login(&room).await;
    room.put("a", json!({ "x": "2" })).await;
    room.refresh("s", "1").await;
    room.wait_for_secret("s", "the value after the revocation", |secret| {
        text(secret, "x").as_deref() == Some("2")
    })
    .await;
    assert!(
        failed_requests(&room).await.abs() < f64::EPSILON,
        "nobody noticed"
    );

    // the secret id is revoked as well: no new login
    let old = room.whole("s").await;
    let destroy = json!({ "secret_id": secret_id });
    room.stage
        .bao
        .post(&format!("{role}/secret-id/destroy"), destroy)
        .await
        .unwrap();
    login.revoke_every_login(&room).await;
    room.refresh("s", "2").await;
    let said = format!(
        "data[0] (secretKey \"x\"): SecretStore/approle: the server refused the login as AppRole (auth/{mount}) (status 400). Check the role id, and that the secret id in Secret \"approle\", key \"secret-id\" is still valid"
    );
    room.fails("s", &old, "Unauthenticated", &said).await;
    let fresh = AppRole::new_secret_id(&room, role).await;
    set_credential(&room, "approle", json!({ "secret-id": fresh })).await;
    room.heals("s").await;
    room.tells_nobody(secret_id).await;
    room.tells_nobody(&fresh).await;
}

#[tokio::test]
async fn a_login_that_ends_every_few_seconds_is_renewed_and_made_anew_in_time() {
    let room = stage().await.room("brief").await;
    room.put("a", json!({ "x": "0" })).await;
    let brief = json!({ "token_ttl": "3s", "token_max_ttl": "4s" });
    AppRole::add(&room, brief).await;
    let spec = json!({ "secretStoreRef": { "name": "approle" }, "data": [one("x", &room.key("a"), "x")] });
    room.sync("s", spec).await;
    for round in 1..=9 {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        room.put("a", json!({ "x": round.to_string() })).await;
    }
    room.wait_for_secret("s", "the last value", |secret| {
        text(secret, "x").as_deref() == Some("9")
    })
    .await;
    assert!(
        failed_requests(&room).await.abs() < f64::EPSILON,
        "no read failed"
    );
}
