//! Tests a misbehaving server or proxy: each fault has its kind, and no error shows any of the
//! response.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use lockstep_provider::{Context, EndpointPolicy, ErrorKind, FindQuery, Operation, RemoteRef};
use lockstep_provider_testkit::at;
use serde_json::json;
use tokio::net::TcpListener;

use lockstep_testkit::proxy::{Fate, Proxy};

use crate::bench::{
    CANARY, Objects, Quiet, Store, answer_as_kv, app_role, app_role_auth, assert_clean, bao, spec, stocked,
    token_spec,
};

const PAGE: &str = "<!doctype html><html><body>Sign in, CANARY</body></html>";

/// Faults that every request may meet, whatever it is for.
fn faults() -> Vec<(&'static str, Fate, ErrorKind)> {
    let raw = |text: &str| Fate::Answer(text.as_bytes().to_vec());
    let long = "HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n{\"CANARY";
    let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nCANARY\r\n";
    vec![
        ("sealed", Fate::sealed(), ErrorKind::Unavailable),
        (
            "500",
            Fate::answer(500, &[], r#"{"errors":["CANARY"]}"#),
            ErrorKind::Unavailable,
        ),
        ("500 page", Fate::answer(500, &[], PAGE), ErrorKind::Unavailable),
        ("502 page", Fate::answer(502, &[], PAGE), ErrorKind::Unavailable),
        (
            "429",
            Fate::answer(429, &[("Retry-After", "7")], PAGE),
            ErrorKind::RateLimited,
        ),
        ("page", Fate::answer(200, &[], PAGE), ErrorKind::Malformed),
        ("403 page", Fate::answer(403, &[], PAGE), ErrorKind::Malformed),
        ("404 page", Fate::answer(404, &[], PAGE), ErrorKind::Malformed),
        (
            "truncated",
            Fate::answer(200, &[], r#"{"data":{"data":{"a":"CANARY"#),
            ErrorKind::Malformed,
        ),
        ("empty", Fate::answer(200, &[], ""), ErrorKind::Malformed),
        (
            "no JSON",
            Fate::answer(200, &[], "\0\u{1}CANARY"),
            ErrorKind::Malformed,
        ),
        (
            "nested",
            Fate::answer(200, &[], &"[".repeat(1 << 20)),
            ErrorKind::Malformed,
        ),
        ("announced gibibyte", raw(long), ErrorKind::Malformed),
        ("endless", Fate::Endless, ErrorKind::Malformed),
        ("closed", raw(""), ErrorKind::Unavailable),
        (
            "half an answer",
            raw("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"CANARY"),
            ErrorKind::Unavailable,
        ),
        (
            "half a head",
            raw("HTTP/1.1 200 OK\r\nX-CANARY: CAN"),
            ErrorKind::Unavailable,
        ),
        ("no HTTP", raw("SSH-2.0-CANARY\r\n"), ErrorKind::Unavailable),
        ("bad chunk", raw(chunk), ErrorKind::Unavailable),
        (
            "bad status",
            raw("HTTP/1.1 CANARY\r\n\r\n"),
            ErrorKind::Unavailable,
        ),
    ]
}

#[tokio::test]
async fn server_faults_have_their_kind_and_recover() {
    let quiet = Quiet::listen();
    let bao = bao().await;
    let (mount, policy) = stocked(bao).await;
    let proxy = Proxy::start(bao.address()).await;
    let token = bao.create_token(&[&policy]).await.unwrap();
    quiet.never(&token);
    let store = Store::with_token(proxy.address(), &mount, &token).await;
    for (name, fate, kind) in faults() {
        proxy.all(fate);
        let read = store.refuse("shop/database").await;
        assert_eq!(
            (read.kind, read.operation),
            (kind, Operation::Read),
            "{name}: {read}"
        );
        let find = store.find(FindQuery::default()).await.unwrap_err();
        assert_eq!(
            (find.kind, find.operation),
            (kind, Operation::Find),
            "{name}: {find}"
        );
        let check = store.check().await.unwrap_err();
        assert_eq!(
            (check.kind, check.operation),
            (kind, Operation::Check),
            "{name}: {check}"
        );
        for error in [read, find, check] {
            let wanted = (kind == ErrorKind::RateLimited).then_some(Duration::from_secs(7));
            assert_eq!(error.retry_after, wanted, "{name}");
        }
        proxy.all(Fate::Pass);
        assert_eq!(
            store.read("shop/database").await,
            json!({ "password": "CANARY-value" }),
            "{name}"
        );
    }
}

#[tokio::test]
async fn faults_during_the_login_have_the_same_kind() {
    let quiet = Quiet::listen();
    let bao = bao().await;
    let (mount, policy) = stocked(bao).await;
    let (method, role_id) = app_role(bao, "CANARY-id", json!({ "token_policies": policy })).await;
    let proxy = Proxy::start(bao.address()).await;
    let objects = Objects::default().with("approle", "secret-id", "CANARY-id");
    let spec = spec(proxy.address(), &mount, app_role_auth(&method, &role_id));
    let store = Store::new(spec, &objects).await;
    let more = [
        ("no token", r#"{"auth":{"CANARY":1}}"#),
        ("no auth", r#"{"data":{"client_token":"CANARY"}}"#),
        ("bad token", r#"{"auth":{"client_token":"CANARY\nX-Evil: 1"}}"#),
    ];
    let more = more.map(|(name, body)| (name, Fate::answer(200, &[], body), ErrorKind::Malformed));
    for (name, fate, kind) in faults().into_iter().chain(more) {
        proxy.all(fate);
        let error = store.refuse("shop/database").await;
        assert_eq!(
            (error.kind, error.operation),
            (kind, Operation::Login),
            "{name}: {error}"
        );
        let told = format!("{:?}", store.0);
        assert!(
            !told.contains(CANARY) && !told.contains(&role_id),
            "{name}: {told}"
        );
    }
    proxy.all(Fate::Pass);
    store.read("shop/database").await;
    drop(quiet);
}

#[tokio::test]
async fn valid_json_with_wrong_contents_is_malformed() {
    let quiet = Quiet::listen();
    let proxy = Proxy::start("127.0.0.1:1").await;
    let objects = Objects::default().with("vault", "token", "s.token");
    let store = Store::new(token_spec(proxy.address(), "kv"), &objects).await;
    let metadata = r#""metadata":{"version":3,"created_time":"2026-01-01T00:00:00Z"}"#;
    for body in [
        r#"{"data":null}"#.to_owned(),
        r#"{"data":"CANARY"}"#.to_owned(),
        r#"{"data":{"data":{"a":"CANARY"}}}"#.to_owned(),
        format!(r#"{{"data":{{"data":"CANARY",{metadata}}}}}"#),
        format!(r#"{{"data":{{"data":["CANARY"],{metadata}}}}}"#),
        format!(r#"{{"data":{{"data":null,{metadata}}}}}"#),
        format!(r#"{{"data":{{"data":{{"a":"CANARY \ud800"}},{metadata}}}}}"#),
        r#"{"data":{"data":{"a":"CANARY"},"metadata":{"version":"CANARY"}}}"#.to_owned(),
        r#"{"data":{"data":{"a":"CANARY"},"metadata":{"version":-1}}}"#.to_owned(),
    ] {
        let answer = Fate::answer(200, &[], &body);
        answer_as_kv(&proxy, move |_| answer.clone());
        let error = store.refuse("shop/database").await;
        assert_eq!(error.kind, ErrorKind::Malformed, "{body}: {error}");
        assert!(error.message.contains("\"shop/database\""), "{error}");
    }
    // A version other than the requested one must not be returned.
    let body = format!(r#"{{"data":{{"data":{{"a":"CANARY"}},{metadata}}}}}"#);
    proxy.all(Fate::answer(200, &[], &body));
    let error = store
        .fetch(RemoteRef::version(at("shop/database"), "2"))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Malformed, "{error}");
    assert_eq!(store.read("shop/database").await, json!({ "a": "CANARY" }));
    drop(quiet);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let bao = bao().await;
    let (mount, policy) = stocked(bao).await;
    let (method, role_id) = app_role(bao, "CANARY-id", json!({ "token_policies": policy })).await;
    let proxy = Proxy::start(bao.address()).await;
    let thief = Proxy::start(bao.address()).await;
    let objects = Objects::default().with("approle", "secret-id", "CANARY-id");
    let auth = app_role_auth(&method, &role_id);
    let store = Store::new(spec(proxy.address(), &mount, auth), &objects).await;
    for logged_in in [false, true] {
        for status in [301, 302, 303, 307, 308] {
            let elsewhere = thief.address().to_owned();
            proxy.rule(move |request| {
                let location = format!("{elsewhere}{}", request.target);
                Fate::answer(status, &[("Location", &location)], "")
            });
            let error = store.refuse("shop/database").await;
            assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
            assert!(error.message.contains("does not follow"), "{error}");
            assert!(!error.to_string().contains(thief.address()), "{error}");
        }
        if !logged_in {
            proxy.all(Fate::Pass);
            store.read("shop/database").await;
        }
    }
    assert!(thief.requests().is_empty());

    // the same server may have other stores behind other paths
    proxy.rule(|request| Fate::answer(307, &[("Location", &format!("{}?moved=1", request.target))], ""));
    assert_eq!(store.refuse("shop/database").await.kind, ErrorKind::Unavailable);
    assert_eq!(proxy.count("moved"), 0);
}

#[tokio::test]
async fn trickling_response_can_be_cancelled_at_any_time() {
    let bao = bao().await;
    let (mount, _) = stocked(bao).await;
    let proxy = Proxy::start(bao.address()).await;
    let store = Store::with_token(proxy.address(), &mount, bao.root_token()).await;
    proxy.all(Fate::Trickle);
    let start = Instant::now();
    let refs = [RemoteRef::current(at("shop/database"))];
    let cx = Context::default();
    let given_up = tokio::time::timeout(Duration::from_millis(300), store.0.fetch(&cx, &refs));
    assert!(given_up.await.is_err());
    assert!(start.elapsed() < Duration::from_secs(10));
    proxy.all(Fate::Pass);
    store.read("shop/database").await;
}

#[tokio::test]
async fn invalid_address_is_rejected_when_the_store_is_built() {
    let objects = Objects::default().with("vault", "token", "s.CANARY");
    for server in [
        "",
        "vault",
        "vault:8200",
        "ftp://vault:8200",
        "http://",
        "http://user:CANARY@vault:8200",
        "http://vault:8200?token=CANARY",
        "http://vault:8200/#CANARY",
        "http://vault:820000",
        "http://va ult:8200",
        "http://[::1",
    ] {
        let error = Store::build(token_spec(server, "kv"), &objects)
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind, error.operation),
            (ErrorKind::ConfigInvalid, Operation::Configure)
        );
        assert!(
            error.message.starts_with("spec.provider.vault.server "),
            "{error}"
        );
        assert_clean(&error);
    }
}

#[tokio::test]
async fn unreachable_server_is_named_in_the_error() {
    let port = lockstep_testkit::ports::free().unwrap();
    let server = format!("http://127.0.0.1:{port}");
    let store = Store::with_token(&server, "kv", "s.CANARY").await;
    let error = store.refuse("shop/database").await;
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(error.message, format!("could not connect to {server}"));
}

#[tokio::test]
async fn tenants_cannot_probe_ports_of_the_operators_machine() {
    let (open, asked) = listener().await;
    let closed = lockstep_testkit::ports::free().unwrap();
    let objects = Objects::default().with("vault", "token", "s.CANARY");
    let refuse = async |server: &str| {
        let spec = token_spec(server, "kv");
        let store = Store::build_with(spec, None, &objects, EndpointPolicy::Tenant).await;
        store.unwrap().refuse("shop/database").await
    };
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"] {
        let [open, closed] = [open, closed].map(|port| format!("https://{host}:{port}"));
        let (open, closed) = (refuse(&open).await, refuse(&closed).await);
        assert_eq!(open.kind, ErrorKind::Unavailable, "{open}");
        assert_eq!((open.kind, &open.hint), (closed.kind, &closed.hint));
        for error in [&open, &closed] {
            assert!(
                error.message.starts_with("could not connect to https://"),
                "{error}"
            );
        }
    }
    let error = refuse(&format!("http://127.0.0.1:{open}")).await;
    assert_eq!(error.kind, ErrorKind::ConfigInvalid);
    assert!(
        error.message.ends_with(": a SecretStore cannot use plain http"),
        "{error}"
    );
    let error = refuse("https://no-such-host.invalid").await;
    assert!(error.message.ends_with("could not be resolved"), "{error}");
    assert_eq!(asked.load(Ordering::Relaxed), 0, "nobody was connected to");
}

#[tokio::test]
async fn events_of_a_tenant_cannot_reach_loopback() {
    let (port, asked) = listener().await;
    let objects = Objects::default().with("vault", "token", "s.CANARY");
    let spec = token_spec(&format!("https://localhost:{port}"), "kv");
    let events = json!({ "vault": {} });
    let store = Store::build_with(spec, Some(events), &objects, EndpointPolicy::Tenant).await;
    let source = store.unwrap().0.events().unwrap();
    let error = source.receive().await.unwrap_err();
    assert!(
        error
            .message
            .starts_with("could not connect to https://localhost"),
        "{error}"
    );
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

/// Starts a server that counts connections.
async fn listener() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    #[expect(clippy::disallowed_methods, reason = "a test ends with its runtime")]
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    (port, count)
}

#[tokio::test]
async fn success_without_data_is_not_a_missing_value() {
    let bao = bao().await;
    let (mount, policy) = stocked(bao).await;
    let (method, role_id) = app_role(bao, "CANARY-id", json!({ "token_policies": policy })).await;
    let proxy = Proxy::start(bao.address()).await;
    let objects = Objects::default().with("approle", "secret-id", "CANARY-id");
    let store = Store::new(
        spec(proxy.address(), &mount, app_role_auth(&method, &role_id)),
        &objects,
    )
    .await;
    for metadata in [
        r#"{"version":1,"created_time":"","deletion_time":"2026-01-01T00:00:00Z","destroyed":false}"#,
        r#"{"version":1,"created_time":"","deletion_time":"","destroyed":true}"#,
    ] {
        let body =
            format!(r#"{{"request_id":"1","lease_id":"","data":{{"data":null,"metadata":{metadata}}}}}"#);
        proxy.rule(move |request| {
            if request.target.contains("/data/") {
                Fate::answer(200, &[], &body)
            } else {
                Fate::Pass
            }
        });
        let error = store.refuse("shop/database").await;
        assert_eq!(error.kind, ErrorKind::Malformed, "{error}");
    }
}

#[tokio::test]
async fn only_deleted_or_destroyed_versions_are_not_found() {
    let bao = bao().await;
    let (mount, policy) = stocked(bao).await;
    let (method, role_id) = app_role(bao, "CANARY-id", json!({ "token_policies": policy })).await;
    let proxy = Proxy::start(bao.address()).await;
    let objects = Objects::default().with("approle", "secret-id", "CANARY-id");
    let store = Store::new(
        spec(proxy.address(), &mount, app_role_auth(&method, &role_id)),
        &objects,
    )
    .await;
    let deleted = json!({ "version": 1, "created_time": "", "deletion_time": "2026-01-01T00:00:00Z", "destroyed": false });
    let destroyed = json!({ "version": 1, "created_time": "", "deletion_time": "", "destroyed": true });
    let live = json!({ "version": 1, "created_time": "", "deletion_time": "", "destroyed": false });
    let no_times = json!({ "version": 1, "created_time": "", "deletion_time": null });
    let value = json!({ "password": "CANARY" });
    let gone = ErrorKind::NotFound;
    let malformed = ErrorKind::Malformed;
    for (data, complaints, kind) in [
        (json!({ "data": null, "metadata": deleted }), json!({}), gone),
        (json!({ "data": null, "metadata": destroyed }), json!({}), gone),
        (
            json!({ "data": null, "metadata": deleted }),
            json!({ "errors": [], "warnings": null }),
            gone,
        ),
        (
            json!({ "data": null, "metadata": deleted }),
            json!({ "errors": ["CANARY"] }),
            malformed,
        ),
        (
            json!({ "data": null, "metadata": destroyed }),
            json!({ "warnings": ["CANARY"] }),
            malformed,
        ),
        (
            json!({ "data": value, "metadata": deleted }),
            json!({}),
            malformed,
        ),
        (
            json!({ "data": value, "metadata": destroyed }),
            json!({}),
            malformed,
        ),
        (json!({ "data": value, "metadata": live }), json!({}), malformed),
        (json!({ "data": null, "metadata": live }), json!({}), malformed),
        (
            json!({ "data": null, "metadata": no_times }),
            json!({}),
            malformed,
        ),
        (json!({ "data": null }), json!({}), malformed),
        (json!({ "data": value }), json!({}), malformed),
    ] {
        let mut body = json!({ "request_id": "1", "lease_id": "", "data": data });
        let complaints = complaints.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(complaints);
        let body = body.to_string();
        let answer = body.clone();
        proxy.rule(move |request| {
            if request.target.contains("/data/") {
                Fate::answer(404, &[], &answer)
            } else {
                Fate::Pass
            }
        });
        let error = store.refuse("shop/database").await;
        assert_eq!(error.kind, kind, "{body}: {error}");
    }
}
