//! What a service in trouble, or something in its place, is told as.

use std::time::Duration;

use lockstep_provider::ErrorKind;
use lockstep_testkit::{
    gcp::{Gcp, Trouble},
    proxy::{Fate, Proxy},
};
use serde_json::json;

use crate::bench::{Quiet, Store, objects, spec};

async fn stocked() -> (Gcp, Store) {
    let gcp = Gcp::start().await.unwrap();
    gcp.put_secret("a", "CANARY-a");
    let store = Store::of(&gcp).await;
    (gcp, store)
}

#[tokio::test]
async fn throttling_is_rate_limited_with_the_time_to_come_back() {
    let _quiet = Quiet::listen();
    let (gcp, store) = stocked().await;
    gcp.trouble(Some(Trouble::Throttled {
        left: 1,
        retry_after: Some(7),
    }));
    let error = store.refuse("a").await;
    assert_eq!(error.kind, ErrorKind::RateLimited);
    assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
    gcp.trouble(Some(Trouble::Html { status: 429 }));
    assert_eq!(store.refuse("a").await.kind, ErrorKind::RateLimited);
    gcp.trouble(None);
    assert_eq!(store.read("a").await, "CANARY-a");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_malformed_and_nothing_of_it_is_used() {
    let _quiet = Quiet::listen();
    let (gcp, store) = stocked().await;
    gcp.trouble(Some(Trouble::Cut));
    assert_eq!(store.refuse("a").await.kind, ErrorKind::Malformed);
    gcp.trouble(None);
    assert_eq!(store.read("a").await, "CANARY-a");
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_of_an_answer_is_unavailable() {
    let _quiet = Quiet::listen();
    let (gcp, _) = stocked().await;
    let proxy = Proxy::start(&gcp.address()).await;
    let store = Store::new(spec(proxy.address()), &objects(&gcp)).await;
    assert_eq!(store.read("a").await, "CANARY-a");
    proxy.all(Fate::CutOff);
    assert_eq!(store.refuse("a").await.kind, ErrorKind::Unavailable);
    proxy.all(Fate::Pass);
    assert_eq!(store.read("a").await, "CANARY-a");
}

#[tokio::test]
async fn a_page_in_place_of_an_answer_is_malformed_unless_its_status_speaks_for_itself() {
    let _quiet = Quiet::listen();
    let (gcp, store) = stocked().await;
    for (status, kind) in [
        (200, ErrorKind::Malformed),
        (401, ErrorKind::Malformed),
        (403, ErrorKind::Malformed),
        (404, ErrorKind::Malformed),
        (500, ErrorKind::Unavailable),
        (502, ErrorKind::Unavailable),
        (503, ErrorKind::Unavailable),
    ] {
        gcp.trouble(Some(Trouble::Html { status }));
        assert_eq!(store.refuse("a").await.kind, kind, "{status}");
    }
}

#[tokio::test]
async fn an_api_that_is_not_enabled_has_its_own_hint() {
    let gcp = Gcp::start().await.unwrap();
    let proxy = Proxy::start(&gcp.address()).await;
    let store = Store::new(spec(proxy.address()), &objects(&gcp)).await;
    store.check().await.unwrap();
    let details = json!([{
        "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SERVICE_DISABLED",
        "domain": "googleapis.com", "metadata": { "consumer": "projects/CANARY" },
    }]);
    let body = json!({ "error": {
        "code": 403, "message": "CANARY", "status": "PERMISSION_DENIED", "details": details,
    } });
    proxy.all(Fate::answer(403, &[], &body.to_string()));
    let error = store.refuse("a").await;
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("gcloud services enable"), "{error}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (gcp, elsewhere) = (Gcp::start().await.unwrap(), Gcp::start().await.unwrap());
    elsewhere.put_secret("a", "CANARY");
    let proxy = Proxy::start(&gcp.address()).await;
    let store = Store::new(spec(proxy.address()), &objects(&gcp)).await;
    store.check().await.unwrap();
    let address = elsewhere.address();
    proxy.all(Fate::answer(307, &[("Location", address.as_str())], ""));
    assert_eq!(store.refuse("a").await.kind, ErrorKind::Unavailable);
    assert!(elsewhere.calls().is_empty(), "nothing was sent there");
}

#[tokio::test]
async fn a_denied_secret_names_role_identity_and_key_and_harms_no_other() {
    let _quiet = Quiet::listen();
    let (gcp, store) = stocked().await;
    gcp.put_secret("b", "CANARY-b");
    gcp.deny_name("b");
    let error = store.refuse("b").await;
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
    let text = error.to_string();
    for part in ["\"b\"", "Secret \"gcp\"", "roles/secretmanager.secretAccessor"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(store.read("a").await, "CANARY-a");
}

#[tokio::test]
async fn nobody_at_the_address_is_unavailable() {
    let gcp = Gcp::start().await.unwrap();
    let objects = objects(&gcp);
    let port = lockstep_testkit::ports::free().unwrap();
    let spec = crate::bench::and(
        spec(&gcp.address()),
        "endpoint",
        format!("http://127.0.0.1:{port}"),
    );
    let error = Store::new(spec, &objects).await.refuse("a").await;
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
}
