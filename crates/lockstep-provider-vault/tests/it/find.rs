//! Tests searches on a real server, and their limits.

use lockstep_provider::{ErrorKind, FindQuery, Operation, Pattern, Scope};
use serde_json::json;

use lockstep_testkit::proxy::{Fate, Proxy};

use crate::bench::{LOOKUP, Objects, Store, answer_as_kv, bao, engine, put, stocked, token_spec, unique};

fn granted(globs: &[&str]) -> FindQuery {
    FindQuery {
        scope: Scope::patterns(globs.iter().filter_map(|glob| Pattern::new(glob))),
        ..FindQuery::default()
    }
}

fn tagged(name: &str, value: &str) -> FindQuery {
    FindQuery {
        tags: [(name.to_owned(), value.to_owned())].into(),
        ..FindQuery::default()
    }
}

#[tokio::test]
async fn found_keys_include_the_mount_path_if_the_store_has_none() {
    let bao = bao().await;
    let (mount, _) = stocked(bao).await;
    let objects = Objects::default().with("vault", "token", bao.root_token());
    let auth = json!({ "tokenSecretRef": { "name": "vault", "key": "token" } });
    let store = Store::new(json!({ "server": bao.address(), "auth": auth }), &objects).await;
    for path in [
        mount.clone(),
        format!("{mount}/shop"),
        format!("{mount}/data/shop"),
    ] {
        let found = store.find(store.below(&path)).await.unwrap();
        assert_eq!(found, [format!("{mount}/shop/database")], "{path}");
        store.read(&found[0]).await;
    }
    let error = store.find(FindQuery::default()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");
    assert!(error.message.contains("find.path"), "{error}");
}

#[tokio::test]
async fn key_without_a_current_version_has_no_tags() {
    let bao = bao().await;
    let mount = engine(bao, 2).await;
    for key in ["kept", "deleted", "destroyed"] {
        put(bao, &mount, key, json!({ "password": "CANARY" })).await;
        let tags = json!({ "custom_metadata": { "team": "shop" } });
        bao.post(&format!("{mount}/metadata/{key}"), tags).await.unwrap();
    }
    bao.delete(&format!("{mount}/data/deleted")).await.unwrap();
    bao.post(&format!("{mount}/destroy/destroyed"), json!({ "versions": [1] }))
        .await
        .unwrap();
    let store = Store::with_token(bao.address(), &mount, bao.root_token()).await;
    assert_eq!(store.find(tagged("team", "shop")).await.unwrap(), ["kept"]);
    assert!(store.find(tagged("team", "blog")).await.unwrap().is_empty());
}

#[tokio::test]
async fn incomplete_search_fails_with_the_missing_policy_line() {
    let bao = bao().await;
    let (mount, _) = stocked(bao).await;
    put(bao, &mount, "shop/eu/smtp", json!({ "password": "CANARY" })).await;
    let policy = unique("partial");
    let allowed = format!("path \"{mount}/metadata/\" {{ capabilities = [\"list\"] }}\n");
    bao.put_policy(&policy, &allowed).await.unwrap();
    let store = Store::with_token(
        bao.address(),
        &mount,
        &bao.create_token(&[&policy]).await.unwrap(),
    )
    .await;
    let error = store.find(FindQuery::default()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
    assert_eq!(error.operation, Operation::Find);
    assert_eq!(
        error.to_string(),
        format!(
            "permission denied listing \"shop\" with the token from Secret \"vault\". \
             The policy needs: path \"{mount}/metadata/shop/\" {{ capabilities = [\"list\"] }}"
        )
    );
    // Each policy line in a message is sufficient for the next step.
    let mut rules = allowed;
    for _ in 0..5 {
        let Err(error) = store.find(tagged("team", "shop")).await else {
            return;
        };
        assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
        let line = error.hint.unwrap();
        rules.push_str(line.strip_prefix("The policy needs: ").unwrap());
        rules.push('\n');
        bao.put_policy(&policy, &rules).await.unwrap();
    }
    panic!("the lines of the messages do not suffice:\n{rules}");
}

#[tokio::test]
async fn search_fails_when_the_policy_limits_the_length_of_lists() {
    let bao = bao().await;
    let (mount, _) = stocked(bao).await;
    for name in ["a", "b", "c"] {
        put(bao, &mount, name, json!({ "password": "CANARY" })).await;
    }
    let policy = unique("limited");
    let rules = format!("path \"{mount}/metadata/*\" {{ capabilities = [\"list\"] pagination_limit = 2 }}");
    bao.put_policy(&policy, &rules).await.unwrap();
    let token = bao.create_token(&[&policy]).await.unwrap();
    let store = Store::with_token(bao.address(), &mount, &token).await;
    let error = store.find(FindQuery::default()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
    // without it, the same policy lists all
    let rules = rules.replace("pagination_limit = 2", "");
    bao.put_policy(&policy, &rules).await.unwrap();
    assert_eq!(store.find(FindQuery::default()).await.unwrap().len(), 4);
}

#[tokio::test]
async fn search_has_limits() {
    let proxy = Proxy::start("127.0.0.1:1").await;
    let objects = Objects::default().with("vault", "token", "s.token");
    let store = Store::new(token_spec(proxy.address(), "kv"), &objects).await;
    let list = |names: &[String]| Fate::answer(200, &[], &json!({ "data": { "keys": names } }).to_string());

    // Endlessly nested folders.
    let deeper = list(&["again/".to_owned()]);
    answer_as_kv(&proxy, move |_| deeper.clone());
    let error = store.find(FindQuery::default()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
    assert!(proxy.requests().len() < 100);

    // More keys than the limit.
    let many: Vec<_> = (0..10_001).map(|index| format!("key-{index}")).collect();
    let many = list(&many);
    answer_as_kv(&proxy, move |_| many.clone());
    let error = store.find(FindQuery::default()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
    assert!(error.hint.is_some_and(|hint| hint.contains("find.path")));

    // One request lists a folder. A page that a policy filters looks like the last one.
    let names: Vec<_> = (0..1000).map(|index| format!("key-{index}")).collect();
    let names = list(&names);
    answer_as_kv(&proxy, move |_| names.clone());
    let before = proxy.requests().len();
    assert_eq!(store.find(FindQuery::default()).await.unwrap().len(), 1000);
    let requests = proxy.requests();
    assert_eq!(requests.len() - before, 1);
    let target = &requests.last().unwrap().target;
    assert!(target.ends_with("?list=true&limit=1000000000"), "{target}");
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_malformed() {
    let proxy = Proxy::start("127.0.0.1:1").await;
    let objects = Objects::default().with("vault", "token", "s.token");
    let store = Store::new(token_spec(proxy.address(), "kv"), &objects).await;
    for name in ["..", "../", "./", "/", "", "a/b", "CANARY\nb"] {
        let list = json!({ "data": { "keys": [name] } }).to_string();
        answer_as_kv(&proxy, move |_| Fate::answer(200, &[], &list));
        let error = store.find(FindQuery::default()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Malformed, "{error}");
    }
    assert!(
        proxy
            .requests()
            .iter()
            .all(|request| !request.target.contains(".."))
    );
}

#[tokio::test]
async fn search_lists_only_folders_with_granted_keys() {
    let proxy = Proxy::start("127.0.0.1:1").await;
    let objects = Objects::default().with("vault", "token", "s.token");
    let store = Store::new(token_spec(proxy.address(), "kv"), &objects).await;
    let listed = |folder: &'static str, names: &'static [&'static str]| (folder, names);
    let folders = [
        listed("shop", &["db", "my key", "eu/", "us/"]),
        listed("shop/eu", &["db", "smtp"]),
        listed("blog", &["x-1", "y-1"]),
    ];
    answer_as_kv(&proxy, move |request| {
        let path = request.target.split('?').next().unwrap_or_default();
        let folder = path.trim_start_matches("/v1/kv/metadata/").trim_end_matches('/');
        match folders.iter().find(|(name, _)| *name == folder) {
            Some((_, names)) => Fate::answer(200, &[], &json!({ "data": { "keys": names } }).to_string()),
            None => Fate::answer(403, &[], r#"{"errors":["permission denied"]}"#),
        }
    });
    let found = store
        .find(granted(&[
            "shop/d*",
            "shop/eu/*",
            "blog/x-*",
            "blog/x-1",
            "../sys/*",
            "my folder/*",
            "a//b*",
        ]))
        .await;
    assert_eq!(
        found.unwrap(),
        ["blog/x-1", "shop/db", "shop/eu/db", "shop/eu/smtp"]
    );
    let mut targets: Vec<_> = proxy
        .requests()
        .iter()
        .map(|request| request.target.clone())
        .filter(|target| !target.starts_with(LOOKUP))
        .collect();
    targets.sort();
    targets.dedup();
    assert_eq!(
        targets.len(),
        3,
        "the root and shop/us are not listed: {targets:?}"
    );
    let nothing = FindQuery {
        path: store.below("billing").path,
        ..granted(&["shop/*"])
    };
    let before = proxy.requests().len();
    assert!(store.find(nothing).await.unwrap().is_empty());
    assert_eq!(
        proxy.requests().len(),
        before,
        "what is not granted is not asked for"
    );
}

#[tokio::test]
async fn search_error_names_nothing_outside_the_grant() {
    let proxy = Proxy::start("127.0.0.1:1").await;
    let objects = Objects::default().with("vault", "token", "s.token");
    let store = Store::new(token_spec(proxy.address(), "kv"), &objects).await;
    answer_as_kv(&proxy, |request| {
        if request.target.starts_with("/v1/kv/metadata/?") {
            Fate::answer(200, &[], r#"{"data":{"keys":["admin/"]}}"#)
        } else if request.target.ends_with("lookup-self") {
            Fate::answer(200, &[], r#"{"data":{}}"#)
        } else {
            Fate::answer(403, &[], r#"{"errors":["permission denied"]}"#)
        }
    });
    let error = store.find(granted(&["**/public"])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
    assert!(!format!("{error} {error:?}").contains("admin"), "{error}");
    assert!(error.message.contains("a folder below \"kv\""), "{error}");
    let error = store.find(granted(&["**"])).await.unwrap_err();
    assert!(error.message.contains("\"admin\""), "{error}");
    let error = store.find(granted(&["shop/db-*"])).await.unwrap_err();
    assert!(error.message.contains("\"shop\""), "{error}");
}
