//! Missing keys of stores with `path`: the server must confirm the engine before a key counts as gone.

use futures::future::join_all;
use lockstep_provider::{ErrorKind, FindQuery, Part, ProviderError, RemoteRef};
use lockstep_testkit::{
    OpenBao,
    proxy::{Fate, Proxy},
};
use serde_json::json;

use crate::bench::{Objects, Store, and, assert_clean, bao, engine, later, put, stocked, token_spec, unique};

/// The path at which the server returns the engine of a mount.
const ASKED: &str = "/v1/sys/internal/ui/mounts/";

/// A store with `path` behind a proxy.
struct Named {
    proxy: Proxy,
    store: Store,
}

impl Named {
    async fn new(bao: &OpenBao, mount: &str, version: &str, token: &str) -> Self {
        let proxy = Proxy::start(bao.address()).await;
        let spec = and(token_spec(proxy.address(), mount), "version", version);
        let objects = Objects::default().with("vault", "token", token);
        let store = Store::new(spec, &objects).await;
        Self { proxy, store }
    }

    fn lookups(&self) -> usize {
        self.proxy.count(ASKED)
    }
}

fn assert_config_invalid(error: &ProviderError, words: &str) {
    assert_clean(error);
    assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

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

/// The policy is the least-privilege policy of the documentation.
#[tokio::test]
async fn engine_is_looked_up_once_and_only_for_missing_keys() {
    let bao = bao().await;
    let mount = engine(bao, 2).await;
    put(bao, &mount, "shop/database", json!({ "password": "CANARY" })).await;
    let policy = unique("shop");
    let rules = format!(
        "path \"{mount}/data/shop/*\" {{ capabilities = [\"read\"] }}\n\
         path \"{mount}/metadata/shop/*\" {{ capabilities = [\"list\"] }}"
    );
    bao.put_policy(&policy, &rules).await.unwrap();
    let token = bao.create_token(&[&policy]).await.unwrap();

    let named = Named::new(bao, &mount, "v2", &token).await;
    named.store.read("shop/database").await;
    assert_eq!(
        named.store.find(named.store.below("shop")).await.unwrap().len(),
        1
    );
    assert_eq!(named.lookups(), 0);
    let missing = (0..8).map(|_| named.store.refuse("shop/missing"));
    for error in join_all(missing).await {
        assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    }
    let empty = named.store.find(named.store.below("shop/empty")).await;
    assert_eq!(empty.unwrap(), Vec::<String>::new());
    assert_eq!(named.lookups(), 1);
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

/// A proxy in front of the server can refuse everything below `sys`.
#[tokio::test]
async fn missing_key_without_confirmation_is_not_reported_as_missing() {
    let bao = bao().await;
    let (mount, _) = stocked(bao).await;
    let named = Named::new(bao, &mount, "v2", bao.root_token()).await;
    let denied = r#"{"errors":["permission denied"]}"#;
    let missing = r#"{"errors":[]}"#;
    for (status, body, kind) in [
        (403, denied, ErrorKind::PermissionDenied),
        (403, "<html>", ErrorKind::Malformed),
        (404, missing, ErrorKind::ConfigInvalid),
        (200, r#"{"data":{}}"#, ErrorKind::Malformed),
        (503, denied, ErrorKind::Unavailable),
    ] {
        named.proxy.rule(move |request| {
            if request.target.starts_with(ASKED) {
                Fate::answer(status, &[], body)
            } else {
                Fate::Pass
            }
        });
        let read = named.store.refuse("shop/missing").await;
        let found = named.store.find(named.store.below("missing")).await;
        for error in [read, found.unwrap_err()] {
            assert_clean(&error);
            assert_eq!(error.kind, kind, "{status} {body}: {error}");
            if status == 403 && body == denied {
                assert!(error.to_string().contains("spec.provider.vault.path"), "{error}");
            }
        }
        named.store.read("shop/database").await;
    }
    named.proxy.all(Fate::Pass);
    let error = named.store.refuse("shop/missing").await;
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

/// Replaces a key/value engine by one of another version.
async fn replace(bao: &OpenBao, mount: &str, version: u8) {
    bao.delete(&format!("sys/mounts/{mount}")).await.unwrap();
    bao.enable_kv(mount, version).await.unwrap();
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

#[tokio::test]
async fn engine_of_version_1_is_looked_up_before_a_read() {
    let bao = bao().await;
    let mount = engine(bao, 1).await;
    bao.put_kv1(&format!("{mount}/shop/database"), json!({ "password": "CANARY" }))
        .await
        .unwrap();
    let named = Named::new(bao, &mount, "v1", bao.root_token()).await;
    join_all((0..8).map(|_| named.store.read("shop/database"))).await;
    assert_eq!(named.lookups(), 1);
    later(6).await;
    named.store.read("shop/database").await;
    assert_eq!(named.lookups(), 2);
    replace(bao, &mount, 2).await;
    later(6).await;
    let before = named.proxy.requests().len();
    assert_config_invalid(&named.store.refuse("shop/database").await, "has version 2");
    assert_eq!(named.proxy.requests().len(), before + 1);
}

/// `access.keys` would otherwise grant what only `access.generate` can.
#[tokio::test]
async fn nothing_is_read_before_the_engine_is_known() {
    let bao = bao().await;
    let named = Named::new(bao, "rabbitmq", "v1", bao.root_token()).await;
    let engine = r#"{"data":{"path":"rabbitmq/","type":"rabbitmq"}}"#;
    let denied = r#"{"errors":["permission denied"]}"#;
    for (status, body, kind) in [
        (200, engine, ErrorKind::ConfigInvalid),
        (403, denied, ErrorKind::PermissionDenied),
        (503, denied, ErrorKind::Unavailable),
    ] {
        named.proxy.rule(move |request| {
            if request.target.starts_with(ASKED) {
                Fate::answer(status, &[], body)
            } else {
                Fate::Pass
            }
        });
        for key in ["creds/x", "static-creds/x"] {
            let error = named.store.refuse(key).await;
            assert_clean(&error);
            assert_eq!(error.kind, kind, "{error}");
            let names_generate = error.to_string().contains("dataFrom.generate");
            assert_eq!(names_generate, status == 200, "{error}");
        }
    }
    assert_eq!(named.proxy.count("/v1/rabbitmq"), 0);
}
