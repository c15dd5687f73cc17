//! Tests a real server that is sealed, stopped and started again.

use lockstep_provider::{ErrorKind, FindQuery};
use lockstep_testkit::OpenBao;
use serde_json::json;

use crate::bench::{Objects, Quiet, Store, app_role, app_role_auth, spec, stocked};

#[tokio::test]
async fn store_recovers_after_its_server_was_sealed_or_restarted() {
    let quiet = Quiet::listen();
    let bao = OpenBao::start().await.unwrap();
    let (mount, policy) = stocked(&bao).await;
    let (method, role_id) = app_role(&bao, "CANARY-id", json!({ "token_policies": policy })).await;
    let objects = Objects::default().with("approle", "secret-id", "CANARY-id");
    let spec = spec(bao.address(), &mount, app_role_auth(&method, &role_id));
    let store = Store::new(spec.clone(), &objects).await;
    store.read("shop/database").await;

    bao.seal().await.unwrap();
    let fresh = Store::new(spec, &objects).await;
    for error in [
        store.refuse("shop/database").await,
        store.find(FindQuery::default()).await.unwrap_err(),
        store.check().await.unwrap_err(),
        fresh.refuse("shop/database").await,
    ] {
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
        assert_eq!(error.message, "the server is sealed (status 503)");
    }
    bao.unseal().await.unwrap();
    store.read("shop/database").await;
    fresh.read("shop/database").await;

    bao.stop();
    let error = store.refuse("shop/database").await;
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    bao.start_sealed().await.unwrap();
    let error = store.refuse("shop/database").await;
    assert_eq!(error.message, "the server is sealed (status 503)");
    bao.unseal().await.unwrap();
    store.read("shop/database").await;
    assert_eq!(
        objects.reads(),
        3,
        "the token outlives a restart; no login but the failed one is repeated"
    );
    drop(quiet);
}
