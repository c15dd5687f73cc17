//! Tests stores without `path`: the server determines where a mount path ends and which engine is
//! there.

use futures::future::join_all;
use lockstep_provider::{Context, ErrorKind, FindQuery, Operation, Part, Pattern, RemoteRef, Scope};
use lockstep_testkit::{OpenBao, proxy::Proxy};
use serde_json::{Value, json};

use crate::bench::{
    LOOKUP, Objects, Store, assert_clean, bao, engine, fields, later, powerless, put, reader, stocked, unique,
};

struct Mountless {
    proxy: Proxy,
    store: Store,
}

impl Mountless {
    async fn new(bao: &OpenBao, version: &str) -> Self {
        Self::with_token(bao, version, bao.root_token()).await
    }

    async fn with_token(bao: &OpenBao, version: &str, token: &str) -> Self {
        let proxy = Proxy::start(bao.address()).await;
        let auth = json!({ "tokenSecretRef": { "name": "vault", "key": "token" } });
        let spec = json!({ "server": proxy.address(), "auth": auth, "version": version });
        let objects = Objects::default().with("vault", "token", token);
        let store = Store::new(spec, &objects).await;
        Self { proxy, store }
    }

    async fn assert_refused(&self, key: &str, words: &str) {
        let error = self.store.refuse(key).await;
        assert_clean(&error);
        assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{key}: {error}");
        assert!(error.to_string().contains(words), "{key}: {error}");
    }

    /// Returns the requests that do not look up an engine.
    fn others(&self) -> Vec<String> {
        let targets = self.proxy.requests().into_iter().map(|request| request.target);
        targets.filter(|target| !target.starts_with(LOOKUP)).collect()
    }
}

fn password() -> Value {
    json!({ "password": "CANARY-value" })
}

#[tokio::test]
async fn key_in_an_engine_of_another_version_is_rejected() {
    let bao = bao().await;
    let one = engine(bao, 1).await;
    bao.put_kv1(&format!("{one}/shop/data/a"), password())
        .await
        .unwrap();
    bao.put_kv1(&format!("{one}/data/a"), password()).await.unwrap();
    let (two, _) = stocked(bao).await;

    let reads_two = Mountless::new(bao, "v2").await;
    for key in ["shop/data/a", "data/a", "shop/a"] {
        let words = "key/value engine of version 1";
        reads_two.assert_refused(&format!("{one}/{key}"), words).await;
    }
    let reads_one = Mountless::new(bao, "v1").await;
    for key in ["data/shop/database", "metadata/shop/database", "config"] {
        let words = "key/value engine of version 2";
        reads_one.assert_refused(&format!("{two}/{key}"), words).await;
    }
    for mountless in [reads_one, reads_two] {
        let others = mountless.others();
        assert!(others.is_empty(), "{others:?} were requested");
    }
}

/// A path at which an engine issues credentials is granted under `generate`, never under `keys`.
#[tokio::test]
async fn key_in_an_engine_of_another_type_is_rejected() {
    let bao = bao().await;
    let transit = unique("transit");
    bao.post(&format!("sys/mounts/{transit}"), json!({ "type": "transit" }))
        .await
        .unwrap();
    bao.post(&format!("{transit}/keys/shop"), json!({}))
        .await
        .unwrap();
    for version in ["v1", "v2"] {
        let mountless = Mountless::new(bao, version).await;
        let words = "not in a key/value engine";
        mountless
            .assert_refused(&format!("{transit}/keys/shop"), words)
            .await;
        let find = mountless.store.find(mountless.store.below(&transit)).await;
        let error = find.unwrap_err();
        assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");
        assert_eq!(error.operation, Operation::Find);
        let others = mountless.others();
        assert!(others.is_empty(), "{others:?} were requested");
    }
}

#[tokio::test]
async fn server_determines_where_the_mount_path_ends() {
    let bao = bao().await;
    let (team, mount) = (unique("team"), unique("kv"));
    let deep = format!("{team}/kv");
    for mount in [&deep, &mount] {
        bao.enable_kv(mount, 2).await.unwrap();
        put(bao, mount, "shop/a", password()).await;
    }
    let mountless = Mountless::new(bao, "v2").await;
    let store = &mountless.store;
    for key in ["data/shop/a", "shop/a"] {
        assert_eq!(store.read(&format!("{deep}/{key}")).await, password(), "{key}");
    }
    for path in [format!("{deep}/shop"), format!("{deep}/data/shop"), deep.clone()] {
        let found = store.find(store.below(&path)).await.unwrap();
        assert_eq!(found, [format!("{deep}/shop/a")], "{path}");
    }
    // `data` marks the end of the mount path, but the server disagrees
    let words = format!("the mount path is \"{mount}\"");
    mountless
        .assert_refused(&format!("{mount}/shop/data/a"), &words)
        .await;
    mountless.assert_refused(&deep, "names no secret below").await;
    let path = format!("/v1/{mount}");
    assert_eq!(mountless.proxy.count(&path), 0, "it was requested");
}

#[tokio::test]
async fn search_lists_only_granted_folders_of_the_mount() {
    let bao = bao().await;
    let deep = format!("{}/kv", unique("team"));
    bao.enable_kv(&deep, 2).await.unwrap();
    for key in ["shop/a", "blog/b", "c"] {
        put(bao, &deep, key, password()).await;
    }
    let mountless = Mountless::new(bao, "v2").await;
    let granted = |glob: String| FindQuery {
        scope: Scope::patterns(Pattern::new(&glob)),
        ..mountless.store.below(&deep)
    };
    let found = mountless.store.find(granted(format!("{deep}/shop/*"))).await;
    assert_eq!(found.unwrap(), [format!("{deep}/shop/a")]);
    let others = mountless.others();
    let folder = format!("/v1/{deep}/metadata/shop/");
    assert!(
        matches!(&others[..], [target] if target.starts_with(&folder)),
        "{others:?}"
    );
    let found = mountless.store.find(granted("other/**".to_owned())).await;
    assert!(found.unwrap().is_empty());
    assert_eq!(mountless.others().len(), 1);
}

#[tokio::test]
async fn each_mount_is_looked_up_once() {
    let bao = bao().await;
    let (mount, _) = stocked(bao).await;
    let mountless = Mountless::new(bao, "v2").await;
    let key = mountless.store.locate(&format!("{mount}/shop/database"));
    let reads = (0..8).map(|_| mountless.store.fetch(RemoteRef::current(key.clone())));
    assert!(join_all(reads).await.iter().all(Result::is_ok));
    mountless.store.find(mountless.store.below(&mount)).await.unwrap();
    assert_eq!(mountless.proxy.count(LOOKUP), 1);
}

#[tokio::test]
async fn mount_without_permission_fails_closed_and_recovers() {
    let bao = bao().await;
    let (mount, _) = stocked(bao).await;
    let policy = powerless(bao).await;
    let token = bao.create_token(&[&policy]).await.unwrap();
    let mountless = Mountless::with_token(bao, "v2", &token).await;
    for key in [format!("{mount}/shop/database"), unique("nowhere") + "/a"] {
        let error = mountless.store.refuse(&key).await;
        assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
        let hint = error.hint.unwrap_or_default();
        assert!(hint.contains("mount path"), "{hint}");
    }
    assert_eq!(mountless.proxy.count(&format!("/v1/{mount}")), 0);
    let rules = format!("path \"{mount}/data/*\" {{ capabilities = [\"read\"] }}");
    bao.put_policy(&policy, &rules).await.unwrap();
    let key = format!("{mount}/shop/database");
    assert_eq!(mountless.store.read(&key).await, password());
}

#[tokio::test]
async fn metadata_is_read_from_the_servers_mount() {
    let bao = bao().await;
    let (mount, _) = stocked(bao).await;
    let policy = reader(bao, &mount).await;
    let token = bao.create_token(&[&policy]).await.unwrap();
    let tags = json!({ "custom_metadata": { "team": "shop" } });
    bao.post(&format!("{mount}/metadata/shop/database"), tags)
        .await
        .unwrap();
    let mountless = Mountless::with_token(bao, "v2", &token).await;
    let key = mountless.store.locate(&format!("{mount}/shop/database"));
    let reference = RemoteRef {
        part: Part::Metadata,
        ..RemoteRef::current(key)
    };
    let mut results = mountless.store.0.fetch(&Context::default(), &[reference]).await;
    let secret = results.remove(0).unwrap();
    assert_eq!(fields(&secret), json!({ "team": "shop" }));
}

/// A mount path that the server returned once therefore holds every key below it.
#[tokio::test]
async fn server_has_no_mount_or_namespace_below_a_mount() {
    let bao = bao().await;
    let mount = engine(bao, 2).await;
    for below in ["data", "data/shop", "shop"] {
        let nested = bao.enable_kv(&format!("{mount}/{below}"), 1).await;
        assert!(nested.is_err(), "{below}");
    }
    let namespace = bao.post(&format!("sys/namespaces/{mount}"), json!({})).await;
    assert!(namespace.is_err());
    let team = unique("team");
    bao.enable_kv(&format!("{team}/data"), 1).await.unwrap();
    assert!(bao.enable_kv(&team, 2).await.is_err());
}

#[tokio::test]
async fn replaced_engine_is_noticed() {
    let bao = bao().await;
    for is_missing in [true, false] {
        let (mount, _) = stocked(bao).await;
        let mountless = Mountless::new(bao, "v2").await;
        let key = format!("{mount}/shop/database");
        mountless.store.read(&key).await;
        bao.delete(&format!("sys/mounts/{mount}")).await.unwrap();
        bao.enable_kv(&mount, 1).await.unwrap();
        if !is_missing {
            let data = json!({ "data": password(), "metadata": { "version": 1 } });
            bao.put_kv1(&format!("{mount}/data/shop/database"), data)
                .await
                .unwrap();
        }
        later(if is_missing { 1 } else { 6 }).await;
        mountless
            .assert_refused(&key, "key/value engine of version 1")
            .await;
        let find = mountless.store.find(mountless.store.below(&mount)).await;
        assert_eq!(find.unwrap_err().kind, ErrorKind::ConfigInvalid);
    }
}
