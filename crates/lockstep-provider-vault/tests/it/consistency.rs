//! Tests that answers of standby servers are not older than what the client has seen.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use lockstep_api::GenerateMethod;
use lockstep_provider::{Context, ErrorKind, LeaseHandle, LeaseRequest};
use lockstep_provider_testkit::at;
use lockstep_testkit::proxy::{Fate, Proxy, Request};
use serde_json::json;

use crate::bench::{
    LOOKUP, Objects, Store, answer_as_kv, app_role, app_role_auth, bao, put, spec, stocked, token_spec,
};

/// Returns an index as OpenBao with raft storage sends it.
fn index(value: u32) -> String {
    STANDARD.encode(format!(r#"{{"cluster":"one","value":"{value}"}}"#))
}

fn value(number: u32) -> String {
    format!(
        r#"{{"data":{{"data":{{"a":"{number}"}},"metadata":{{"version":{number},"created_time":"2026-01-01T00:00:00Z"}}}}}}"#
    )
}

/// Returns the value of a header of a request.
fn header(request: &Request, name: &str) -> Option<String> {
    let mut headers = request.head.lines().filter_map(|line| line.split_once(": "));
    headers
        .find(|(header, _)| header.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.to_owned())
}

async fn scripted() -> (Proxy, Store) {
    let proxy = Proxy::start("127.0.0.1:1").await;
    let objects = Objects::default().with("vault", "token", "s.token");
    let store = Store::new(token_spec(proxy.address(), "kv"), &objects).await;
    (proxy, store)
}

/// The second answer comes from a standby that lags. It forwards a request that requires a newer
/// state.
#[tokio::test]
async fn lagging_standby_does_not_roll_a_value_back() {
    let (proxy, store) = scripted().await;
    answer_as_kv(&proxy, |_| {
        Fate::answer(200, &[("X-Vault-Index", &index(20))], &value(2))
    });
    assert_eq!(store.read("shop/database").await, json!({ "a": "2" }));
    answer_as_kv(&proxy, |request| {
        let forwards = header(request, "x-vault-index") == Some(index(20))
            && header(request, "x-vault-inconsistent").as_deref() == Some("forward-active-node");
        let (at, number) = if forwards { (21, 2) } else { (10, 1) };
        Fate::answer(200, &[("X-Vault-Index", &index(at))], &value(number))
    });
    assert_eq!(store.read("shop/database").await, json!({ "a": "2" }));
}

#[tokio::test]
async fn older_index_does_not_replace_a_newer_one() {
    let (proxy, store) = scripted().await;
    let sent = Arc::new(Mutex::new(None));
    for (at, required) in [(20, None), (19, Some(20)), (21, Some(20)), (21, Some(21))] {
        let seen = Arc::clone(&sent);
        answer_as_kv(&proxy, move |request| {
            *seen.lock().unwrap() = header(request, "x-vault-index");
            Fate::answer(200, &[("X-Vault-Index", &index(at))], &value(1))
        });
        store.read("shop/database").await;
        assert_eq!(*sent.lock().unwrap(), required.map(index));
    }
}

/// Vault rejects `X-Vault-Inconsistent` unless its configuration allows it.
#[tokio::test]
async fn vault_gets_only_its_index() {
    let (proxy, store) = scripted().await;
    let index = STANDARD.encode("v1:cluster:12:0:00ff");
    for required in [None, Some(index.clone())] {
        let index = index.clone();
        answer_as_kv(&proxy, move |request| {
            assert_eq!(header(request, "x-vault-inconsistent"), None);
            assert_eq!(header(request, "x-vault-index"), required);
            Fate::answer(200, &[("X-Vault-Index", &index)], &value(1))
        });
        store.read("shop/database").await;
    }
    answer_as_kv(&proxy, |_| {
        Fate::answer(412, &[], r#"{"errors":["required index state not present"]}"#)
    });
    assert_eq!(store.refuse("shop/database").await.kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn rejected_index_is_not_sent_again() {
    let (proxy, store) = scripted().await;
    answer_as_kv(&proxy, |request| {
        if header(request, "x-vault-index").is_some() {
            return Fate::answer(400, &[], r#"{"errors":["failed to decode \"X-Vault-Index\""]}"#);
        }
        Fate::answer(200, &[("X-Vault-Index", &index(20))], &value(1))
    });
    store.read("shop/database").await;
    assert_eq!(store.refuse("shop/database").await.kind, ErrorKind::Unavailable);
    store.read("shop/database").await;
}

#[tokio::test]
async fn real_server_takes_its_own_index() {
    let bao = bao().await;
    let (mount, policy) = stocked(bao).await;
    let (method, role_id) = app_role(bao, "CANARY-id", json!({ "token_policies": policy })).await;
    let proxy = Proxy::start(bao.address()).await;
    let objects = Objects::default().with("approle", "secret-id", "CANARY-id");
    let spec = spec(proxy.address(), &mount, app_role_auth(&method, &role_id));
    let store = Store::new(spec, &objects).await;
    store.read("shop/database").await;
    put(bao, &mount, "shop/database", json!({ "a": "new" })).await;
    assert_eq!(store.read("shop/database").await, json!({ "a": "new" }));
    let requests = proxy.requests();
    assert!(header(&requests[0], "x-vault-index").is_none(), "the login");
    for request in &requests[1..] {
        assert!(header(request, "x-vault-index").is_some(), "{}", request.target);
        assert!(header(request, "x-vault-inconsistent").is_some());
    }
}

/// Returns a handle of a credential of the store.
fn handle(proxy: &Proxy) -> LeaseHandle {
    LeaseHandle {
        server: format!("{}/v1", proxy.address()),
        accessor: "accessor".to_owned(),
        id: None,
    }
}

/// A standby that lags does not know the token yet and does not forward the request.
#[tokio::test]
async fn unknown_token_counts_as_revoked_only_if_no_standby_can_lag() {
    let unknown = r#"{"data":null,"warnings":["No token found with this accessor"]}"#;
    let issued = r#"{"auth":{"client_token":"s.issued","accessor":"issued","lease_duration":60}}"#;
    let engine = r#"{"data":{"path":"database/","type":"database"}}"#;
    let cx = Context::default();
    let (proxy, store) = scripted().await;
    proxy.all(Fate::answer(200, &[], unknown));
    store.0.revoke(&cx, &handle(&proxy)).await.unwrap();

    // the index of a read may be that of the standby
    proxy.all(Fate::answer(200, &[("X-Vault-Index", &index(1))], unknown));
    for _ in 0..2 {
        let error = store.0.revoke(&cx, &handle(&proxy)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    }

    // only the active server creates a token
    proxy.rule(move |request| {
        let body = if request.target.contains("create-orphan") {
            issued
        } else if request.target.starts_with(LOOKUP) {
            engine
        } else {
            unknown
        };
        Fate::answer(200, &[("X-Vault-Index", &index(2))], body)
    });
    let request = LeaseRequest {
        path: at("database/creds/shop"),
        method: GenerateMethod::Get,
        parameters: BTreeMap::new(),
    };
    store.0.issue_token(&cx, &request).await.unwrap();
    store.0.revoke(&cx, &handle(&proxy)).await.unwrap();
}
