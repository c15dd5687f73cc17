//! Tests engines, namespaces, keys and versions of a real server.

use std::time::Duration;

use lockstep_provider::{Context, ErrorKind, Operation, RemoteRef};
use lockstep_provider_testkit::at;
use serde_json::json;

use lockstep_testkit::proxy::Proxy;

use crate::bench::{
    LOOKUP, Objects, Store, and, app_role, app_role_auth, auth_method, bao, engine, fields, powerless, put,
    reader, spec, stocked, token_spec, unique,
};

#[tokio::test]
async fn key_is_read_with_and_without_mount_path_and_data() {
    let bao = bao().await;
    let (mount, _) = stocked(bao).await;
    let with_path = Store::with_token(bao.address(), &mount, bao.root_token()).await;
    let keys = [
        "shop/database".to_owned(),
        format!("{mount}/shop/database"),
        format!("{mount}/data/shop/database"),
    ];
    for key in &keys {
        assert_eq!(
            with_path.read(key).await,
            json!({ "password": "CANARY-value" }),
            "{key}"
        );
    }
    let token = json!({ "tokenSecretRef": { "name": "vault", "key": "token" } });
    let objects = Objects::default().with("vault", "token", bao.root_token());
    let without = Store::new(json!({ "server": bao.address(), "auth": token }), &objects).await;
    for key in &keys[1..] {
        assert_eq!(
            without.read(key).await,
            json!({ "password": "CANARY-value" }),
            "{key}"
        );
    }
    let error = without.1.locate("database", None).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("names no secret below a mount path"),
        "{error}"
    );
}

#[tokio::test]
async fn server_may_be_below_a_path_of_a_proxy() {
    let bao = bao().await;
    let (mount, _) = stocked(bao).await;
    let proxy = Proxy::start(bao.address()).await;
    let server = format!("{}/", proxy.address());
    let store = Store::with_token(&server, &mount, bao.root_token()).await;
    store.read("shop/database").await;
    let server = format!("{}/vault", proxy.address());
    let store = Store::with_token(&server, &mount, bao.root_token()).await;
    store.refuse("shop/database").await;
    let targets: Vec<_> = proxy
        .requests()
        .into_iter()
        .map(|request| request.target)
        .collect();
    assert_eq!(targets[0], format!("{LOOKUP}{mount}"));
    assert_eq!(targets[1], format!("/v1/{mount}/data/shop/database"));
    assert_eq!(targets[2], format!("/vault{LOOKUP}{mount}"));
}

#[tokio::test]
async fn engine_of_version_1_is_read_and_has_no_versions() {
    let bao = bao().await;
    let mount = engine(bao, 1).await;
    bao.put_kv1(
        &format!("{mount}/data/smtp"),
        json!({ "password": "CANARY", "port": 25 }),
    )
    .await
    .unwrap();
    let objects = Objects::default().with("vault", "token", bao.root_token());
    let spec = and(token_spec(bao.address(), &mount), "version", "v1");
    let store = Store::new(spec, &objects).await;
    let secret = store.fetch(RemoteRef::current(at("data/smtp"))).await.unwrap();
    assert_eq!(fields(&secret), json!({ "password": "CANARY", "port": 25 }));
    assert_eq!((secret.version, secret.created), (None, None));
    let error = store
        .fetch(RemoteRef::version(at("data/smtp"), "1"))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert!(error.hint.is_some_and(|hint| hint.contains("version to v2")));
}

#[tokio::test]
async fn wrong_engine_version_or_mount_path_is_config_invalid() {
    let bao = bao().await;
    let (two, _) = stocked(bao).await;
    let objects = Objects::default().with("vault", "token", bao.root_token());
    let missing = unique("nowhere");
    for (mount, version, kind, words, hint) in [
        (
            &two,
            "v1",
            ErrorKind::ConfigInvalid,
            "has version 2",
            "version to v2",
        ),
        // the server denies a lookup if it has no engine there
        (
            &missing,
            "v2",
            ErrorKind::PermissionDenied,
            "looking up the engine at",
            "spec.provider.vault.path",
        ),
        (
            &missing,
            "v1",
            ErrorKind::PermissionDenied,
            "looking up the engine at",
            "spec.provider.vault.path",
        ),
    ] {
        let spec = and(token_spec(bao.address(), mount), "version", version);
        let error = Store::new(spec, &objects).await.refuse("shop/database").await;
        assert_eq!(error.kind, kind, "{error}");
        assert!(
            error.message.contains(words) && error.message.contains(mount),
            "{error}"
        );
        assert!(error.hint.is_some_and(|text| text.contains(hint)));
    }
}

#[tokio::test]
async fn versions_are_read_with_their_creation_time() {
    let bao = bao().await;
    let mount = engine(bao, 2).await;
    for password in ["CANARY-1", "CANARY-2", "CANARY-3"] {
        put(bao, &mount, "shop/database", json!({ "password": password })).await;
    }
    let store = Store::with_token(bao.address(), &mount, bao.root_token()).await;
    let current = store
        .fetch(RemoteRef::current(at("shop/database")))
        .await
        .unwrap();
    assert_eq!(current.version.as_deref(), Some("3"));
    let second = store
        .fetch(RemoteRef::version(at("shop/database"), "2"))
        .await
        .unwrap();
    assert_eq!(fields(&second), json!({ "password": "CANARY-2" }));
    assert_eq!(second.version.as_deref(), Some("2"));
    assert!(second.created < current.created);
    for version in ["0", "-1", "+2", "latest", "", "2.0", "99999999999999999999", "v2"] {
        let error = store
            .fetch(RemoteRef::version(at("shop/database"), version))
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
        assert!(error.message.contains("\"shop/database\""), "{error}");
    }
}

#[tokio::test]
async fn deleted_and_destroyed_versions_are_reported() {
    let bao = bao().await;
    let mount = engine(bao, 2).await;
    for password in ["CANARY-1", "CANARY-2", "CANARY-3"] {
        put(bao, &mount, "shop/database", json!({ "password": password })).await;
    }
    let versions = |versions: &[u64]| json!({ "versions": versions });
    bao.post(&format!("{mount}/destroy/shop/database"), versions(&[1]))
        .await
        .unwrap();
    bao.post(&format!("{mount}/delete/shop/database"), versions(&[2, 3]))
        .await
        .unwrap();
    let store = Store::with_token(bao.address(), &mount, bao.root_token()).await;
    for (reference, words) in [
        (
            RemoteRef::version(at("shop/database"), "1"),
            "version 1 of key \"shop/database\" was destroyed",
        ),
        (
            RemoteRef::version(at("shop/database"), "2"),
            "version 2 of key \"shop/database\" was deleted",
        ),
        (
            RemoteRef::current(at("shop/database")),
            "version 3 of key \"shop/database\" was deleted",
        ),
        (
            RemoteRef::version(at("shop/database"), "4"),
            "key \"shop/database\" has no version 4",
        ),
        (
            RemoteRef::current(at("shop/databse")),
            "key \"shop/databse\" does not exist",
        ),
    ] {
        let error = store.fetch(reference).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
        assert_eq!(error.operation, Operation::Read);
        assert_eq!(error.message, words);
    }
    bao.post(&format!("{mount}/undelete/shop/database"), versions(&[3]))
        .await
        .unwrap();
    assert_eq!(
        store.read("shop/database").await,
        json!({ "password": "CANARY-3" })
    );
}

#[tokio::test]
async fn denied_key_error_names_the_identity_and_policy_line() {
    let bao = bao().await;
    let (mount, _) = stocked(bao).await;
    let policy = powerless(bao).await;
    let (method, role_id) = app_role(bao, "CANARY-id", json!({ "token_policies": policy })).await;
    let objects = Objects::default().with("approle", "secret-id", "CANARY-id");
    let spec = spec(bao.address(), &mount, app_role_auth(&method, &role_id));
    let store = Store::new(spec.clone(), &objects).await;
    let error = store.refuse("shop/database").await;
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
    assert_eq!(
        error.to_string(),
        format!(
            "permission denied looking up the engine at \"{mount}\" as AppRole (auth/{method}). \
             Check spec.provider.vault.path and namespace. The policy needs: path \"{mount}/data/shop/database\" {{ capabilities = [\"read\"] }}"
        )
    );
    // The policy line in the message is sufficient.
    let line = error.hint.unwrap();
    let (_, line) = line.split_once("The policy needs: ").unwrap();
    bao.put_policy(&policy, line).await.unwrap();
    store.read("shop/database").await;
    assert_eq!(
        store.refuse("shop/smtp").await.to_string(),
        format!(
            "permission denied reading \"shop/smtp\" as AppRole (auth/{method}). \
             The policy needs: path \"{mount}/data/shop/smtp\" {{ capabilities = [\"read\"] }}"
        )
    );

    let mount = engine(bao, 1).await;
    let rules = format!("path \"{mount}/blog/*\" {{ capabilities = [\"read\"] }}");
    bao.put_policy(&policy, &rules).await.unwrap();
    let mut one = and(spec, "version", "v1");
    one["path"] = json!(mount);
    let error = Store::new(one, &objects).await.refuse("shop/smtp").await;
    assert!(
        error
            .to_string()
            .contains(&format!("path \"{mount}/shop/smtp\" {{")),
        "{error}"
    );
}

#[tokio::test]
async fn denied_key_error_names_the_user() {
    let bao = bao().await;
    let (mount, _) = stocked(bao).await;
    let method = auth_method(bao, "userpass").await;
    bao.post(
        &format!("auth/{method}/users/shop"),
        json!({ "password": "CANARY" }),
    )
    .await
    .unwrap();
    let secret = json!({ "name": "login", "key": "password" });
    let auth = json!({ "userPass": { "path": method, "username": "shop", "secretRef": secret } });
    let objects = Objects::default().with("login", "password", "CANARY");
    let store = Store::new(spec(bao.address(), &mount, auth), &objects).await;
    let error = store.refuse("shop/database").await;
    assert_eq!(
        error.message,
        format!("permission denied looking up the engine at \"{mount}\" as user \"shop\" (auth/{method})")
    );
}

#[tokio::test]
async fn namespace_has_its_own_engines_policies_and_tokens() {
    let bao = bao().await;
    let namespace = unique("team");
    bao.post(&format!("sys/namespaces/{namespace}"), json!({}))
        .await
        .unwrap();
    let engine = json!({ "type": "kv", "options": { "version": "2" } });
    bao.post(&format!("{namespace}/sys/mounts/values"), engine)
        .await
        .unwrap();
    let data = json!({ "data": { "password": "CANARY-there" } });
    let path = format!("{namespace}/values/data/shop/database");
    // A new engine of version 2 rejects requests for a moment.
    for _ in 0..100 {
        if bao.post(&path, data.clone()).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let rules = json!({ "policy": "path \"values/data/*\" { capabilities = [\"read\"] }" });
    bao.post(&format!("{namespace}/sys/policies/acl/reader"), rules)
        .await
        .unwrap();
    let wanted = json!({ "policies": ["reader"] });
    let answer = bao
        .post(&format!("{namespace}/auth/token/create"), wanted)
        .await
        .unwrap();
    let token = answer["auth"]["client_token"].as_str().unwrap();

    let objects = Objects::default().with("vault", "token", token);
    let spec = token_spec(bao.address(), "values");
    for name in [namespace.clone(), format!("{namespace}/")] {
        let store = Store::new(and(spec.clone(), "namespace", name), &objects).await;
        assert_eq!(
            store.read("shop/database").await,
            json!({ "password": "CANARY-there" })
        );
        store.check().await.unwrap();
    }
    // The token is valid in that namespace only.
    let error = Store::new(spec.clone(), &objects)
        .await
        .refuse("shop/database")
        .await;
    assert!(
        matches!(
            error.kind,
            ErrorKind::PermissionDenied | ErrorKind::Unauthenticated
        ),
        "{error}"
    );
    let error = Store::new(and(spec, "namespace", unique("nowhere")), &objects)
        .await
        .refuse("shop/database")
        .await;
    assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");
    assert!(error.hint.is_some_and(|hint| hint.contains("namespace")));
}

#[tokio::test]
async fn failing_key_does_not_affect_others() {
    let bao = bao().await;
    let (mount, _) = stocked(bao).await;
    let policy = reader(bao, &mount).await;
    let token = bao.create_token(&[&policy]).await.unwrap();
    let rules = format!(
        "path \"{mount}/*\" {{ capabilities = [\"read\"] }}\npath \"{mount}/data/denied\" {{ capabilities = [\"deny\"] }}"
    );
    bao.put_policy(&policy, &rules).await.unwrap();
    let store = Store::with_token(bao.address(), &mount, &token).await;
    let refs = ["denied", "shop/database", "missing", "a//b", "shop/database"]
        .map(|key| RemoteRef::current(at(key)));
    let kinds: Vec<_> = store
        .0
        .fetch(&Context::default(), &refs)
        .await
        .into_iter()
        .map(|result| result.err().map(|error| error.kind))
        .collect();
    assert_eq!(
        kinds,
        [
            Some(ErrorKind::PermissionDenied),
            None,
            Some(ErrorKind::NotFound),
            Some(ErrorKind::ConfigInvalid),
            None
        ]
    );
}
