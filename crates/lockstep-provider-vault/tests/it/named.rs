//! Tests stores with `path`: the server must confirm the engine before anything is requested from
//! it.

use futures::future::join_all;
use lockstep_provider::{ErrorKind, FindQuery, Operation, Part, ProviderError, RemoteRef};
use lockstep_testkit::{
    OpenBao,
    proxy::{Fate, Proxy},
};
use serde_json::json;

use crate::bench::{
    LOOKUP, Objects, Store, and, app_role_auth, assert_clean, bao, engine, later, powerless, put, spec,
    stocked, token_spec, unique,
};

/// A store with `path` behind a proxy.
pub(crate) struct Named {
    pub(crate) proxy: Proxy,
    pub(crate) store: Store,
}

impl Named {
    pub(crate) async fn new(bao: &OpenBao, mount: &str, version: &str, token: &str) -> Self {
        let proxy = Proxy::start(bao.address()).await;
        let spec = and(token_spec(proxy.address(), mount), "version", version);
        let objects = Objects::default().with("vault", "token", token);
        let store = Store::new(spec, &objects).await;
        Self { proxy, store }
    }

    /// Makes the proxy answer lookups of an engine, and the server everything else.
    pub(crate) fn answer_lookups(&self, status: u16, body: &str) {
        let body = body.to_owned();
        self.proxy.rule(move |request| {
            if request.target.starts_with(LOOKUP) {
                Fate::answer(status, &[], &body)
            } else {
                Fate::Pass
            }
        });
    }

    pub(crate) fn lookups(&self) -> usize {
        self.proxy.count(LOOKUP)
    }
}

pub(crate) fn assert_config_invalid(error: &ProviderError, words: &str) {
    assert_clean(error);
    assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

/// Replaces a key/value engine by one of another version.
pub(crate) async fn replace(bao: &OpenBao, mount: &str, version: u8) {
    bao.delete(&format!("sys/mounts/{mount}")).await.unwrap();
    bao.enable_kv(mount, version).await.unwrap();
}

/// Uses the least-privilege policy of the documentation.
#[tokio::test]
async fn reads_searches_and_missing_keys_share_one_lookup() {
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
    let missing = (0..8).map(|_| named.store.refuse("shop/missing"));
    for error in join_all(missing).await {
        assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    }
    let empty = named.store.find(named.store.below("shop/empty")).await;
    assert_eq!(empty.unwrap(), Vec::<String>::new());
    assert_eq!(named.lookups(), 1);
}

#[tokio::test]
async fn engine_is_looked_up_before_a_read_and_after_five_minutes() {
    let bao = bao().await;
    for (version, name, words) in [(1, "v1", "has version 2"), (2, "v2", "has version 1")] {
        let mount = engine(bao, version).await;
        let password = json!({ "password": "CANARY" });
        if version == 1 {
            let key = format!("{mount}/shop/database");
            bao.put_kv1(&key, password).await.unwrap();
        } else {
            put(bao, &mount, "shop/database", password).await;
        }
        let named = Named::new(bao, &mount, name, bao.root_token()).await;
        join_all((0..8).map(|_| named.store.read("shop/database"))).await;
        assert_eq!(named.lookups(), 1, "{name}");
        assert!(named.proxy.requests()[0].target.starts_with(LOOKUP), "{name}");
        later(4).await;
        named.store.read("shop/database").await;
        assert_eq!(named.lookups(), 1, "{name}");
        later(2).await;
        named.store.read("shop/database").await;
        assert_eq!(named.lookups(), 2, "{name}");
        replace(bao, &mount, 3 - version).await;
        later(6).await;
        let before = named.proxy.requests().len();
        assert_config_invalid(&named.store.refuse("shop/database").await, words);
        assert_eq!(named.proxy.requests().len(), before + 1, "{name}");
    }
}

/// Otherwise `access.keys` would grant what only `access.generate` can: key `token` of the store
/// with `gcp/roleset` is a path at which the engine issues a token.
#[tokio::test]
async fn nothing_is_requested_before_the_engine_is_known() {
    let bao = bao().await;
    let denied = r#"{"errors":["permission denied"]}"#;
    for (version, path, kind, key) in [
        ("v1", "rabbitmq", "rabbitmq", "creds/x"),
        ("v1", "rabbitmq", "rabbitmq", "static-creds/x"),
        ("v2", "gcp/roleset", "gcp", "token"),
        ("v2", "database", "database", "static-creds/x"),
    ] {
        let mount = path.split('/').next().unwrap();
        let engine = json!({ "data": { "path": format!("{mount}/"), "type": kind } }).to_string();
        let named = Named::new(bao, path, version, bao.root_token()).await;
        for (status, body, kind) in [
            (200, engine.as_str(), ErrorKind::ConfigInvalid),
            (403, denied, ErrorKind::PermissionDenied),
            (503, denied, ErrorKind::Unavailable),
        ] {
            named.answer_lookups(status, body);
            let key = named.store.locate(key);
            let metadata = RemoteRef {
                part: Part::Metadata,
                ..RemoteRef::current(key.clone())
            };
            let mut errors = vec![
                named.store.fetch(RemoteRef::current(key)).await.unwrap_err(),
                named.store.find(FindQuery::default()).await.unwrap_err(),
            ];
            if version == "v2" {
                errors.push(named.store.fetch(metadata).await.unwrap_err());
            }
            for error in errors {
                assert_clean(&error);
                assert_eq!(error.kind, kind, "{error}");
                let names_generate = error.to_string().contains("dataFrom.generate");
                assert_eq!(names_generate, status == 200, "{error}");
            }
        }
        let requested = named.proxy.count(&format!("/v1/{mount}"));
        assert_eq!(requested, 0, "{path} was requested");
    }
}

#[tokio::test]
async fn engine_with_static_roles_is_not_searched() {
    let bao = bao().await;
    let named = Named::new(bao, "database", "v1", bao.root_token()).await;
    named.answer_lookups(200, r#"{"data":{"path":"database/","type":"database"}}"#);
    for folder in ["", "static-creds", "static-creds/shop", "roles"] {
        let found = named.store.find(named.store.below(folder)).await;
        assert_config_invalid(&found.unwrap_err(), "type database, which cannot be searched");
    }
    assert_eq!(named.proxy.count("/v1/database"), 0, "it was requested");
}

/// Requests that wait for one lookup share its failure, but each error names its own key.
#[tokio::test]
async fn denied_lookup_names_a_sufficient_policy_line() {
    let bao = bao().await;
    let (mount, _) = stocked(bao).await;
    let policy = powerless(bao).await;
    let token = bao.create_token(&[&policy]).await.unwrap();
    let named = Named::new(bao, &mount, "v2", &token).await;
    let store = &named.store;
    let metadata = RemoteRef {
        part: Part::Metadata,
        ..RemoteRef::current(store.locate("shop/database"))
    };
    let (one, two, metadata, found) = tokio::join!(
        store.refuse("shop/database"),
        store.refuse("blog/database"),
        store.fetch(metadata),
        store.find(store.below("shop")),
    );
    assert_eq!(named.lookups(), 1);
    assert_eq!(named.proxy.count(&format!("/v1/{mount}")), 0);
    let data = |key: &str| format!("path \"{mount}/data/{key}\" {{ capabilities = [\"read\"] }}");
    for (error, line) in [
        (one, data("shop/database")),
        (two, data("blog/database")),
        (
            metadata.unwrap_err(),
            format!("path \"{mount}/metadata/shop/database\" {{ capabilities = [\"read\"] }}"),
        ),
        (
            found.unwrap_err(),
            format!("path \"{mount}/metadata/shop/\" {{ capabilities = [\"list\"] }}"),
        ),
    ] {
        assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
        let told = error.to_string();
        let start = format!("permission denied looking up the engine at \"{mount}\" with the token");
        assert!(told.starts_with(&start), "{told}");
        assert!(told.ends_with(&format!("The policy needs: {line}")), "{told}");
    }
    bao.put_policy(&policy, &data("shop/database")).await.unwrap();
    store.read("shop/database").await;
}

/// A throttled login delays everything that needs it, not only one key.
#[tokio::test]
async fn login_failure_before_a_lookup_stays_a_login_error() {
    let proxy = Proxy::start("127.0.0.1:1").await;
    proxy.all(Fate::answer(429, &[("Retry-After", "7")], ""));
    let objects = Objects::default().with("approle", "secret-id", "CANARY-id");
    for version in ["v1", "v2"] {
        let spec = spec(proxy.address(), "kv", app_role_auth("approle", "shop"));
        let store = Store::new(and(spec, "version", version), &objects).await;
        let read = store.refuse("shop/database").await;
        let found = store.find(FindQuery::default()).await.unwrap_err();
        for error in [read, found] {
            assert_eq!(error.kind, ErrorKind::RateLimited, "{error}");
            assert_eq!(error.operation, Operation::Login, "{version}");
        }
    }
}

/// The lookup needs no permission on `sys/internal/ui/mounts`.
#[tokio::test]
async fn any_permission_below_the_mount_allows_the_lookup() {
    let bao = bao().await;
    let (mount, _) = stocked(bao).await;
    for rules in [
        format!("path \"{mount}/data/shop/database\" {{ capabilities = [\"read\"] }}"),
        format!("path \"{mount}/data/shop/*\" {{ capabilities = [\"read\"] }}"),
        format!("path \"{mount}/data/+/database\" {{ capabilities = [\"read\"] }}"),
        "path \"+/data/shop/*\" { capabilities = [\"read\"] }".to_owned(),
        format!(
            "path \"{mount}/*\" {{ capabilities = [\"deny\"] }}\n\
             path \"{mount}/data/shop/database\" {{ capabilities = [\"read\"] }}"
        ),
    ] {
        let policy = unique("line");
        bao.put_policy(&policy, &rules).await.unwrap();
        let token = bao.create_token(&[&policy]).await.unwrap();
        let named = Named::new(bao, &mount, "v2", &token).await;
        named.store.read("shop/database").await;
    }
}
