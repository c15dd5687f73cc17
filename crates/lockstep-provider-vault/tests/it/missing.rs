//! Tests missing keys of stores with `path`: the server must confirm the engine before a key counts
//! as gone.

use lockstep_provider::{ErrorKind, FindQuery, Part, RemoteRef};
use lockstep_testkit::proxy::Fate;
use serde_json::json;

use crate::{
    bench::{Objects, Store, and, assert_clean, bao, engine, later, stocked, token_spec, unique},
    named::{Named, assert_config_invalid, replace},
};

#[tokio::test]
async fn missing_key_of_another_version_is_config_invalid() {
    let bao = bao().await;
    let one = engine(bao, 1).await;
    bao.put_kv1(&format!("{one}/shop/database"), json!({ "password": "CANARY" }))
        .await
        .unwrap();
    let (two, _) = stocked(bao).await;

    let words = format!(
        "spec.provider.vault.version is v2, but the engine at \"{one}\" has version 1. Set version to v1"
    );
    let reads_two = Named::new(bao, &one, "v2", bao.root_token()).await;
    assert_config_invalid(&reads_two.store.refuse("shop/database").await, &words);
    let metadata = RemoteRef {
        part: Part::Metadata,
        ..RemoteRef::current(reads_two.store.locate("shop/database"))
    };
    assert_config_invalid(&reads_two.store.fetch(metadata).await.unwrap_err(), &words);
    let found = reads_two.store.find(FindQuery::default()).await;
    assert_config_invalid(&found.unwrap_err(), &words);

    let words = format!(
        "spec.provider.vault.version is v1, but the engine at \"{two}\" has version 2. Set version to v2"
    );
    let reads_one = Named::new(bao, &two, "v1", bao.root_token()).await;
    assert_config_invalid(&reads_one.store.refuse("data/shop/missing").await, &words);
}

#[tokio::test]
async fn missing_key_of_another_engine_is_config_invalid() {
    let bao = bao().await;
    let transit = unique("transit");
    bao.post(&format!("sys/mounts/{transit}"), json!({ "type": "transit" }))
        .await
        .unwrap();
    let named = Named::new(bao, &transit, "v1", bao.root_token()).await;
    let error = named.store.refuse("keys/missing").await;
    assert_config_invalid(&error, "is not the mount path of a key/value engine. Set path");
}

#[tokio::test]
async fn missing_key_of_version_1_is_not_found() {
    let bao = bao().await;
    let mount = engine(bao, 1).await;
    let named = Named::new(bao, &mount, "v1", bao.root_token()).await;
    for _ in 0..2 {
        let error = named.store.refuse("shop/missing").await;
        assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    }
    let found = named.store.find(FindQuery::default()).await.unwrap();
    assert!(found.is_empty());
    assert_eq!(named.lookups(), 1);
}

/// A proxy in front of the server can reject everything below `sys`.
#[tokio::test]
async fn missing_key_without_confirmation_is_not_reported_as_missing() {
    let bao = bao().await;
    let (mount, _) = stocked(bao).await;
    let named = Named::new(bao, &mount, "v2", bao.root_token()).await;
    let store = &named.store;
    let denied = r#"{"errors":["permission denied"]}"#;
    let missing = r#"{"errors":[]}"#;
    for (status, body, kind) in [
        (403, denied, ErrorKind::PermissionDenied),
        (403, "<html>", ErrorKind::Malformed),
        (404, missing, ErrorKind::ConfigInvalid),
        (200, r#"{"data":{}}"#, ErrorKind::Malformed),
        (503, denied, ErrorKind::Unavailable),
    ] {
        named.proxy.all(Fate::Pass);
        store.read("shop/database").await;
        later(1).await;
        named.answer_lookups(status, body);
        store.read("shop/database").await;
        let missing = store.refuse("shop/missing").await;
        let empty = store.find(store.below("missing")).await.unwrap_err();
        // a failed lookup ends the trust in an earlier one
        let read = store.refuse("shop/database").await;
        for error in [missing, empty, read] {
            assert_clean(&error);
            assert_eq!(error.kind, kind, "{status} {body}: {error}");
            if status == 403 && body == denied {
                assert!(error.to_string().contains("spec.provider.vault.path"), "{error}");
            }
        }
    }
    named.proxy.all(Fate::Pass);
    let error = store.refuse("shop/missing").await;
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
}

/// `path` can begin with the namespace, which OpenBao and Vault resolve.
#[tokio::test]
async fn missing_key_in_a_namespace_is_not_found() {
    let bao = bao().await;
    let namespace = unique("team");
    bao.post(&format!("sys/namespaces/{namespace}"), json!({}))
        .await
        .unwrap();
    let engine = json!({ "type": "kv", "options": { "version": "1" } });
    bao.post(&format!("{namespace}/sys/mounts/values"), engine)
        .await
        .unwrap();
    let rules = json!({ "policy": "path \"values/shop/*\" { capabilities = [\"read\"] }" });
    bao.post(&format!("{namespace}/sys/policies/acl/reader"), rules)
        .await
        .unwrap();
    let answer = bao
        .post(
            &format!("{namespace}/auth/token/create"),
            json!({ "policies": ["reader"] }),
        )
        .await
        .unwrap();
    let token = answer["auth"]["client_token"].as_str().unwrap();
    let objects = Objects::default().with("vault", "token", token);

    let in_header = |version: &str| {
        let spec = and(token_spec(bao.address(), "values"), "version", version);
        and(spec, "namespace", namespace.as_str())
    };
    let in_path = |version: &str| {
        let mount = format!("{namespace}/values");
        and(token_spec(bao.address(), &mount), "version", version)
    };
    for spec in [in_header("v1"), in_path("v1")] {
        let error = Store::new(spec, &objects).await.refuse("shop/missing").await;
        assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    }
    bao.post(
        &format!("{namespace}/sys/policies/acl/reader"),
        json!({ "policy": "path \"values/*\" { capabilities = [\"read\"] }" }),
    )
    .await
    .unwrap();
    for spec in [in_header("v2"), in_path("v2")] {
        let error = Store::new(spec, &objects).await.refuse("shop/missing").await;
        assert_config_invalid(&error, "has version 1. Set version to v1");
    }
}

#[tokio::test]
async fn replaced_engine_is_noticed_before_a_key_is_missing() {
    let bao = bao().await;
    let (mount, _) = stocked(bao).await;
    let named = Named::new(bao, &mount, "v2", bao.root_token()).await;
    named.store.read("shop/database").await;
    let error = named.store.refuse("shop/missing").await;
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    replace(bao, &mount, 1).await;
    later(1).await;
    let words = "has version 1. Set version to v1";
    assert_config_invalid(&named.store.refuse("shop/database").await, words);
    let found = named.store.find(FindQuery::default()).await;
    assert_config_invalid(&found.unwrap_err(), words);
}
