//! Tests the errors for a failing service, or for something else in its place.

use std::time::{Duration, Instant};

use lockstep_api::{CiphertextScope, StoreKind};
use lockstep_provider::{
    Binding, Ciphertext, Context, EndpointPolicy, ErrorKind, RemoteRef,
    call::{Direct, Service as _},
    layers::Timeout,
};
use lockstep_provider_testkit::at;
use lockstep_testkit::{
    gcp::{self, Gcp, Trouble},
    proxy::{Fate, Proxy},
};
use serde_json::{Value, json};

use crate::bench::{Objects, Quiet, Store, assert_clean, objects, spec};

async fn stocked() -> (Gcp, Store) {
    let gcp = Gcp::start().await.unwrap();
    gcp.put_secret("a", "CANARY-a");
    let store = Store::of(&gcp).await;
    (gcp, store)
}

#[tokio::test]
async fn throttling_is_rate_limited_with_a_retry_delay() {
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
async fn truncated_response_is_malformed_and_not_used() {
    let _quiet = Quiet::listen();
    let (gcp, store) = stocked().await;
    gcp.trouble(Some(Trouble::Cut));
    assert_eq!(store.refuse("a").await.kind, ErrorKind::Malformed);
    gcp.trouble(None);
    assert_eq!(store.read("a").await, "CANARY-a");
}

#[tokio::test]
async fn connection_that_breaks_during_a_response_is_unavailable() {
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
async fn page_of_a_proxy_is_malformed_unless_its_status_is_clear() {
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
async fn disabled_api_has_its_own_hint() {
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
async fn redirect_is_not_followed() {
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
async fn denied_secret_is_explained_and_affects_no_other() {
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
async fn closed_port_is_unavailable() {
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

/// Creates a store with this `limits.timeout`.
async fn patient(spec: Value, gcp: &Gcp, timeout: Duration) -> Timeout<Direct> {
    Timeout::new(Direct(Store::new(spec, &objects(gcp)).await.0), timeout)
}

#[tokio::test]
async fn late_response_is_used_until_the_timeout_of_the_store() {
    let _quiet = Quiet::listen();
    let limit = Duration::from_millis(1500);
    let gcp = Gcp::start().await.unwrap();
    gcp.put_secret("a", "CANARY-a");
    let key_name = gcp.add_kms_key("shop");
    let kms = crate::kms::spec(&gcp.address(), &key_name);
    let encryptor = crate::kms::encryptor(&gcp, kms.clone(), gcp::SERVICE_ACCOUNT).await;
    let place = Binding::new(CiphertextScope::Strict, "shop", "database", "password");
    let bytes = encryptor.encrypt(&"CANARY-a".into(), &place).await.unwrap();
    let ciphertext = Ciphertext {
        bytes,
        binding: place,
    };
    let (reads, decrypts) = (
        patient(spec(&gcp.address()), &gcp, limit).await,
        patient(kms, &gcp, limit).await,
    );
    let context = Context::default();
    let reference = [RemoteRef::current(at("a"))];
    let read = async || reads.call(&context, &reference).await.remove(0);
    let ciphertext = [ciphertext];
    let decrypt = async || decrypts.call(&context, &ciphertext).await.remove(0);
    // Log in first, so that logins are not part of the measured time.
    read().await.unwrap();
    decrypt().await.unwrap();

    gcp.latency(limit / 2);
    let begin = Instant::now();
    assert_eq!(read().await.unwrap().value.expose(), b"CANARY-a");
    let value = decrypt().await.unwrap();
    assert_eq!(value.expose(), b"CANARY-a");
    assert!(begin.elapsed() >= limit, "both were late");

    gcp.latency(limit * 2);
    for error in [read().await.unwrap_err(), decrypt().await.unwrap_err()] {
        assert_clean(&error);
        assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
        assert!(error.to_string().contains("spec.limits.timeout"), "{error}");
    }

    gcp.latency(Duration::ZERO);
    assert_eq!(read().await.unwrap().value.expose(), b"CANARY-a");
    assert!(decrypt().await.is_ok());
}

#[tokio::test]
async fn long_timeout_allows_a_response_after_a_long_silence() {
    let _quiet = Quiet::listen();
    let gcp = Gcp::start().await.unwrap();
    gcp.put_secret("a", "CANARY-a");
    let store = patient(spec(&gcp.address()), &gcp, Duration::from_secs(50)).await;
    let reference = [RemoteRef::current(at("a"))];
    let read = async || store.call(&Context::default(), &reference).await.remove(0);
    read().await.unwrap();
    gcp.latency(Duration::from_secs(40));
    // From here on the clock jumps to the next event.
    tokio::time::pause();
    assert_eq!(read().await.unwrap().value.expose(), b"CANARY-a");
    gcp.latency(Duration::from_secs(55));
    assert_eq!(read().await.unwrap_err().kind, ErrorKind::Timeout);
}

#[tokio::test]
async fn tenant_cannot_reach_loopback_addresses() {
    let gcp = Gcp::start().await.unwrap();
    let plain = gcp.address();
    let port = plain.rsplit(':').next().unwrap().to_owned();
    let closed = lockstep_testkit::ports::free().unwrap().to_string();
    // The login comes first: its address is in the key, which a tenant writes too.
    let refuse = async |address: &str| {
        let key = gcp.service_account_key().unwrap().replace(&plain, address);
        let objects = Objects::default().with("gcp", "key.json", key);
        let kind = StoreKind::SecretStore;
        let store = Store::build_with(spec(address), None, &objects, kind, EndpointPolicy::Tenant).await;
        store.unwrap().fetch_all(&["a"]).await.remove(0).unwrap_err()
    };
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        for port in [&port, &closed] {
            let error = refuse(&format!("https://{host}:{port}")).await;
            assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
            assert_eq!(error.message, "could not connect to the service", "{host}");
        }
    }
    let error = refuse(&plain).await;
    assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");
    assert_eq!(error.message, "a SecretStore cannot use plain http");
    let error = refuse("https://no-such-host.invalid").await;
    assert_eq!(
        error.message,
        "the host name of the service could not be resolved"
    );
}
