//! Tests credentials of a real database engine with a real PostgreSQL, and of the pki engine.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use lockstep_api::GenerateMethod;
use lockstep_provider::{
    Context, ErrorKind, IssuanceToken, LeaseHandle, LeaseRequest, Minted, ProviderError, RemoteRef,
};
use lockstep_provider_testkit::at;
use lockstep_testkit::{
    OpenBao, PostgreSql,
    proxy::{Fate, Proxy},
};
use serde_json::{Value, json};
use tokio::{sync::OnceCell, time::sleep};

use crate::bench::{
    LOOKUP, Objects, Quiet, Store, and, app_role, app_role_auth, assert_clean, bao, engine, fields, spec,
    token_spec, unique,
};

static DATABASE: OnceCell<PostgreSql> = OnceCell::const_new();

async fn database() -> &'static PostgreSql {
    DATABASE
        .get_or_init(|| async { PostgreSql::start().await.unwrap() })
        .await
}

/// The policy lines that the documentation requires.
const TOKENS: [&str; 3] = [
    "path \"auth/token/create-orphan\" { capabilities = [\"update\"] }",
    "path \"auth/token/renew-accessor\" { capabilities = [\"update\"] }",
    "path \"auth/token/revoke-accessor\" { capabilities = [\"update\"] }",
];

/// A database engine with a role `shop`, and a store that logs in as an AppRole through a proxy.
struct Bench {
    bao: &'static OpenBao,
    database: &'static PostgreSql,
    proxy: Proxy,
    mount: String,
    store: Store,
}

fn request(path: impl AsRef<str>) -> LeaseRequest {
    LeaseRequest {
        path: at(path),
        method: GenerateMethod::Get,
        parameters: BTreeMap::new(),
    }
}

impl Bench {
    async fn new(ttl: &str, max_ttl: &str) -> Self {
        Self::with(ttl, max_ttl, &TOKENS, json!({})).await
    }

    /// Creates the engine and the store. The policy has these rules in addition to reading in the
    /// engine.
    async fn with(ttl: &str, max_ttl: &str, rules: &[&str], mut settings: Value) -> Self {
        let (bao, database) = (bao().await, database().await);
        let mount = unique("database");
        database.enable_engine(bao, &mount).await.unwrap();
        database
            .add_role(bao, &mount, "shop", ttl, max_ttl)
            .await
            .unwrap();
        let policy = unique("leases");
        let read = format!("path \"{mount}/*\" {{ capabilities = [\"read\"] }}\n");
        bao.put_policy(&policy, &(read + &rules.join("\n")))
            .await
            .unwrap();
        settings["token_policies"] = json!([policy]);
        let (method, role_id) = app_role(bao, "CANARY-id", settings).await;
        let proxy = Proxy::start(bao.address()).await;
        let objects = Objects::default().with("approle", "secret-id", "CANARY-id");
        let spec = spec(proxy.address(), &mount, app_role_auth(&method, &role_id));
        let store = Store::new(and(spec, "version", "v1"), &objects).await;
        Self {
            bao,
            database,
            proxy,
            mount,
            store,
        }
    }

    fn request(&self) -> LeaseRequest {
        request(format!("{}/creds/shop", self.mount))
    }

    async fn issue_token(&self) -> Result<IssuanceToken, ProviderError> {
        let issuance_token = self
            .store
            .0
            .issue_token(&Context::default(), &self.request())
            .await;
        issuance_token.inspect_err(assert_clean)
    }

    async fn mint_at(
        &self,
        issuance_token: &IssuanceToken,
        request: &LeaseRequest,
    ) -> Result<Minted, ProviderError> {
        let minted = self
            .store
            .0
            .mint(&Context::default(), issuance_token, request)
            .await;
        minted.inspect_err(assert_clean)
    }

    async fn mint(&self) -> Credential {
        let issuance_token = self.issue_token().await.unwrap();
        let minted = self.mint_at(&issuance_token, &self.request()).await.unwrap();
        Credential::new(&issuance_token, minted)
    }

    async fn renew(&self, handle: &LeaseHandle, seconds: u64) -> Result<Duration, ProviderError> {
        let wanted = Duration::from_secs(seconds);
        let given = self
            .store
            .0
            .renew_lease(&Context::default(), handle, wanted)
            .await;
        given.inspect_err(assert_clean)
    }

    async fn revoke(&self, handle: &LeaseHandle) -> Result<(), ProviderError> {
        let done = self.store.0.revoke(&Context::default(), handle).await;
        done.inspect_err(assert_clean)
    }

    async fn takes(&self, credential: &Credential) -> bool {
        self.database.takes(&credential.user, &credential.password).await
    }

    /// Waits until the database rejects the credential, because the server revokes in the
    /// background.
    async fn is_refused(&self, credential: &Credential) {
        let mut looks = 0;
        while self.takes(credential).await {
            looks += 1;
            assert!(looks < 100, "the credential still works");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

struct Credential {
    handle: LeaseHandle,
    minted: Minted,
    user: String,
    password: String,
}

impl Credential {
    fn new(issuance_token: &IssuanceToken, minted: Minted) -> Self {
        let value: Value = serde_json::from_slice(minted.value.expose()).unwrap();
        let text = |field: &str| value[field].as_str().unwrap().to_owned();
        Self {
            handle: LeaseHandle {
                server: issuance_token.server.clone(),
                accessor: issuance_token.accessor.clone(),
                id: minted.id.clone(),
            },
            user: text("username"),
            password: text("password"),
            minted,
        }
    }
}

#[tokio::test]
async fn credential_lifecycle_needs_only_the_documented_policy() {
    let quiet = Quiet::listen();
    let bench = Bench::new("1h", "24h").await;
    let credential = bench.mint().await;
    quiet.never(&credential.password);
    assert!(!format!("{:?}", credential.minted).contains(&credential.password));
    assert!(credential.minted.renewable);
    assert_eq!(credential.minted.lives, Duration::from_secs(3600));
    let id = credential.minted.id.as_deref().unwrap();
    assert!(id.starts_with(&format!("{}/creds/shop/", bench.mount)), "{id}");
    assert!(bench.takes(&credential).await);
    let given = bench.renew(&credential.handle, 3600).await.unwrap();
    assert!((3598..=3600).contains(&given.as_secs()), "{given:?}");
    bench.revoke(&credential.handle).await.unwrap();
    bench.is_refused(&credential).await;
    bench.revoke(&credential.handle).await.unwrap();
    let gone = bench.renew(&credential.handle, 3600).await.unwrap_err();
    assert_eq!(gone.kind, ErrorKind::NotFound, "{gone}");
}

/// The database does not work, so the engine cannot remove the account. The server accepts the
/// revocation anyway.
#[tokio::test]
async fn queued_revocation_fails_until_the_lease_is_gone() {
    let bench = Bench::new("1h", "24h").await;
    let credential = bench.mint().await;
    // the statement of the role fails, so the account stays
    let role = format!("{}/roles/shop", bench.mount);
    let broken = json!({
        "db_name": "postgresql",
        "creation_statements": ["create role \"{{name}}\" login password '{{password}}'"],
        "revocation_statements": ["drop role nobody_has_this_name"],
    });
    bench.bao.post(&role, broken).await.unwrap();
    for _ in 0..2 {
        let error = bench.revoke(&credential.handle).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
        assert!(
            error.message.contains("the revocation is queued at the server"),
            "{error}"
        );
        assert!(bench.takes(&credential).await);
    }
    let id = credential.handle.id.clone().unwrap();
    bench
        .bao
        .post(&format!("sys/leases/revoke-force/{id}"), json!({}))
        .await
        .unwrap();
    bench.revoke(&credential.handle).await.unwrap();
}

/// A policy without `default` cannot look up a lease.
#[tokio::test]
async fn denied_lookup_of_a_revoked_lease_counts_as_revoked() {
    let settings = json!({ "token_no_default_policy": true });
    let bench = Bench::with("1h", "24h", &TOKENS, settings).await;
    let credential = bench.mint().await;
    bench.revoke(&credential.handle).await.unwrap();
    bench.is_refused(&credential).await;
    assert_eq!(bench.proxy.count("sys/leases/lookup"), 1);
}

#[tokio::test]
async fn lookup_that_proves_nothing_keeps_the_lease() {
    let bench = Bench::new("1h", "24h").await;
    let credential = bench.mint().await;
    for (status, body, kind) in [
        (200, "CANARY", ErrorKind::Malformed),
        (403, "<html>CANARY</html>", ErrorKind::Malformed),
        (400, r#"{"errors":["CANARY"]}"#, ErrorKind::ConfigInvalid),
        (404, r#"{"errors":["CANARY"]}"#, ErrorKind::ConfigInvalid),
        (503, "CANARY", ErrorKind::Unavailable),
    ] {
        bench.proxy.rule(move |request| {
            if request.target.ends_with("sys/leases/lookup") {
                Fate::answer(status, &[], body)
            } else {
                Fate::Pass
            }
        });
        let error = bench.revoke(&credential.handle).await.unwrap_err();
        assert_eq!(error.kind, kind, "{status} {body}: {error}");
    }
    bench.proxy.all(Fate::Pass);
    bench.revoke(&credential.handle).await.unwrap();
}

#[tokio::test]
async fn credentials_of_one_store_are_independent() {
    let bench = Bench::new("1h", "24h").await;
    let (one, two) = (bench.mint().await, bench.mint().await);
    assert_ne!(one.user, two.user);
    bench.revoke(&one.handle).await.unwrap();
    bench.is_refused(&one).await;
    assert!(bench.takes(&two).await);
    bench.revoke(&two.handle).await.unwrap();
}

#[tokio::test]
async fn credential_outlives_the_login_that_issued_it() {
    let settings = json!({ "token_ttl": "2s", "token_max_ttl": "2s" });
    let bench = Bench::with("1h", "24h", &TOKENS, settings).await;
    let credential = bench.mint().await;
    sleep(Duration::from_secs(4)).await;
    assert!(bench.takes(&credential).await, "the login has ended by now");
    bench.renew(&credential.handle, 3600).await.unwrap();
    assert_eq!(bench.proxy.count("/login"), 2);
    bench.revoke(&credential.handle).await.unwrap();
}

#[tokio::test]
async fn lost_credential_is_revoked_by_its_accessor() {
    let bench = Bench::new("1h", "24h").await;
    let credential = bench.mint().await;
    let lost = LeaseHandle {
        server: credential.handle.server.clone(),
        accessor: credential.handle.accessor.clone(),
        id: None,
    };
    bench.revoke(&lost).await.unwrap();
    bench.is_refused(&credential).await;
}

/// The store used another server before, which chose the accessor and the lease id.
#[tokio::test]
async fn leases_of_another_server_are_neither_renewed_nor_revoked() {
    let bench = Bench::new("1h", "24h").await;
    let credential = bench.mint().await;
    for server in ["https://evil.example.org", ""] {
        let handle = LeaseHandle {
            server: server.to_owned(),
            ..credential.handle.clone()
        };
        let before = bench.proxy.requests().len();
        let renewed = bench.renew(&handle, 3600).await.unwrap_err();
        let revoked = bench.revoke(&handle).await.unwrap_err();
        for error in [renewed, revoked] {
            assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
        }
        assert_eq!(bench.proxy.requests().len(), before, "nothing was sent");
    }
    assert!(bench.takes(&credential).await);
    bench.revoke(&credential.handle).await.unwrap();
}

#[tokio::test]
async fn renewal_is_capped_by_the_maximum_lifetime() {
    let bench = Bench::new("20s", "25s").await;
    let credential = bench.mint().await;
    sleep(Duration::from_secs(10)).await;
    let given = bench.renew(&credential.handle, 20).await.unwrap();
    assert!((10..=16).contains(&given.as_secs()), "{given:?}");
    bench.revoke(&credential.handle).await.unwrap();
}

#[tokio::test]
async fn credential_request_is_sent_only_once() {
    let bench = Bench::new("1h", "24h").await;
    for status in [403, 429, 500, 503] {
        let issuance_token = bench.issue_token().await.unwrap();
        let path = format!("/v1/{}/creds/shop", bench.mount);
        let before = bench.proxy.count(&path);
        let asked = path.clone();
        bench.proxy.rule(move |request| {
            if request.target.starts_with(&asked) {
                Fate::answer(status, &[], r#"{"errors":["CANARY"]}"#)
            } else {
                Fate::Pass
            }
        });
        bench
            .mint_at(&issuance_token, &bench.request())
            .await
            .unwrap_err();
        assert_eq!(bench.proxy.count(&path), before + 1, "{status}");
        bench.proxy.all(Fate::Pass);
    }
}

#[tokio::test]
async fn missing_permission_is_reported_with_its_policy_line() {
    let bench = Bench::with("1h", "24h", &[], json!({})).await;
    let error = bench.issue_token().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
    assert!(error.to_string().contains(TOKENS[0]), "{error}");

    let bench = Bench::with("1h", "24h", &TOKENS[..1], json!({})).await;
    let credential = bench.mint().await;
    let error = bench.renew(&credential.handle, 3600).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
    assert!(error.to_string().contains(TOKENS[1]), "{error}");
    let error = bench.revoke(&credential.handle).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
    assert!(error.to_string().contains(TOKENS[2]), "{error}");

    let lease = "path \"sys/leases/revoke\" { capabilities = [\"update\"] }";
    let bench = Bench::with("1h", "24h", &[TOKENS[0], lease], json!({})).await;
    let credential = bench.mint().await;
    bench.revoke(&credential.handle).await.unwrap();
    bench.is_refused(&credential).await;
}

#[tokio::test]
async fn batch_tokens_cannot_issue_credentials() {
    let bench = Bench::with("1h", "24h", &TOKENS, json!({ "token_type": "batch" })).await;
    let error = bench.issue_token().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");
    assert!(error.to_string().contains("type service"), "{error}");
}

#[tokio::test]
async fn paths_that_issue_no_credential_fail_with_a_hint() {
    let bench = Bench::new("1h", "24h").await;
    let refused = async |path: &str| {
        let issuance_token = bench.issue_token().await.unwrap();
        bench.mint_at(&issuance_token, &request(path)).await.unwrap_err()
    };
    let error = refused(&format!("{}/creds/nobody", bench.mount)).await;
    assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");
    assert!(error.to_string().contains("no engine or no role"), "{error}");
    let error = refused(&format!("{}/roles/shop", bench.mount)).await;
    assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");
    assert!(error.to_string().contains("these are: creds/<name>"), "{error}");
    let error = refused("nowhere/creds/shop").await;
    assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
    assert!(
        error
            .to_string()
            .contains("looking up the engine at \"nowhere/creds/shop\""),
        "{error}"
    );
    for path in [
        "auth/token/create",
        "sys/leases",
        "identity/entity",
        "cubbyhole/x",
    ] {
        let cx = Context::default();
        let error = bench.store.0.issue_token(&cx, &request(path)).await.unwrap_err();
        let refused = matches!(error.kind, ErrorKind::ConfigInvalid | ErrorKind::PermissionDenied);
        assert!(refused, "{error}");
    }
}

#[tokio::test]
async fn credential_request_never_writes_to_a_key_value_engine() {
    let bao = bao().await;
    let proxy = Proxy::start(bao.address()).await;
    let objects = Objects::default().with("vault", "token", bao.root_token());
    for version in [1, 2] {
        let mount = engine(bao, version).await;
        let store = Store::new(token_spec(proxy.address(), &mount), &objects).await;
        let wanted = LeaseRequest {
            path: at(format!("{mount}/data/creds/shop")),
            method: GenerateMethod::Post,
            parameters: BTreeMap::from([("password".to_owned(), "overwritten".to_owned())]),
        };
        let cx = Context::default();
        let error = store.0.issue_token(&cx, &wanted).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");
        assert!(
            error
                .to_string()
                .contains("not below an engine that issues credentials"),
            "{error}"
        );
        let issuance_token = IssuanceToken {
            server: String::new(),
            accessor: "accessor".to_owned(),
            token: bao.root_token().into(),
            lives: Duration::from_secs(60),
        };
        let error = store.0.mint(&cx, &issuance_token, &wanted).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");
        assert_eq!(
            proxy.count(&format!("/v1/{mount}")),
            0,
            "nothing reaches the engine"
        );
    }
}

#[tokio::test]
async fn unconfirmed_engine_issues_nothing() {
    let proxy = Proxy::start("127.0.0.1:1").await;
    let objects = Objects::default().with("vault", "token", "s.token");
    let store = Store::new(token_spec(proxy.address(), "kv"), &objects).await;
    for (status, body) in [
        (200, r#"{"data":{"path":"database/"}}"#),
        (200, r#"{"data":{"type":"database"}}"#),
        (200, r#"{"data":{"path":"other/","type":"database"}}"#),
        (200, "CANARY"),
        (403, r#"{"errors":["preflight capability check returned 403"]}"#),
        (404, r#"{"errors":[]}"#),
    ] {
        proxy.all(Fate::answer(status, &[], body));
        let before = proxy.count("/v1/database");
        let wanted = request("database/creds/shop");
        let error = store
            .0
            .issue_token(&Context::default(), &wanted)
            .await
            .unwrap_err();
        assert_clean(&error);
        assert_eq!(proxy.count("/v1/database"), before, "{status} {body}: {error}");
        assert_eq!(proxy.count("create-orphan"), 0, "{status} {body}: {error}");
    }
}

/// The status shows accessors and lease ids.
#[tokio::test]
async fn accessor_or_lease_id_with_a_token_is_malformed() {
    let proxy = Proxy::start("127.0.0.1:1").await;
    let objects = Objects::default().with("vault", "token", "s.token");
    let store = Store::new(token_spec(proxy.address(), "kv"), &objects).await;
    let wanted = request("database/creds/shop");
    let cx = Context::default();
    let answers = |issued: String, lease: String| {
        proxy.rule(move |request| {
            let body = if request.target.contains("create-orphan") {
                &issued
            } else if request.target.starts_with(LOOKUP) {
                r#"{"data":{"path":"database/","type":"database"}}"#
            } else {
                &lease
            };
            Fate::answer(200, &[], body)
        });
    };
    let token = "s.CANARYCANARYCANARY";
    let issued = |accessor: &str| {
        format!(r#"{{"auth":{{"client_token":"{token}","accessor":"{accessor}","lease_duration":60}}}}"#)
    };
    let lease = |id: &str| format!(r#"{{"lease_id":"{id}","lease_duration":60,"data":{{"a":"b"}}}}"#);
    let long = "a".repeat(129);
    for accessor in [token, "CANARYCANARYCANARY", "CANARY word", "CANARY/word", &long] {
        answers(issued(accessor), lease("database/creds/shop/id"));
        let error = store.0.issue_token(&cx, &wanted).await.unwrap_err();
        assert_clean(&error);
        assert_eq!(error.kind, ErrorKind::Malformed, "{error}");
    }
    for name in [token, "CANARYCANARYCANARY"] {
        answers(issued("accessor"), lease(&format!("database/creds/shop/{name}")));
        let token = store.0.issue_token(&cx, &wanted).await.unwrap();
        let error = store.0.mint(&cx, &token, &wanted).await.unwrap_err();
        assert_clean(&error);
        assert_eq!(error.kind, ErrorKind::Malformed, "{error}");
    }
    answers(issued("accessor"), lease("database/creds/shop/id"));
    let token = store.0.issue_token(&cx, &wanted).await.unwrap();
    store.0.mint(&cx, &token, &wanted).await.unwrap();
}

#[tokio::test]
async fn certificate_without_a_lease_has_its_own_expiry() {
    let bao = bao().await;
    let mount = unique("pki");
    bao.post(&format!("sys/mounts/{mount}"), json!({ "type": "pki" }))
        .await
        .unwrap();
    let root = json!({ "common_name": "CA", "ttl": "24h" });
    bao.post(&format!("{mount}/root/generate/internal"), root)
        .await
        .unwrap();
    let role = json!({ "allowed_domains": "shop.example", "allow_bare_domains": true, "max_ttl": "1h" });
    bao.post(&format!("{mount}/roles/shop"), role).await.unwrap();
    let policy = unique("pki");
    let rules = format!("path \"{mount}/issue/shop\" {{ capabilities = [\"update\"] }}\n") + TOKENS[0];
    bao.put_policy(&policy, &rules).await.unwrap();
    let token = bao.create_token(&[&policy, "default"]).await.unwrap();
    let objects = Objects::default().with("vault", "token", token.as_str());
    let store = Store::new(token_spec(bao.address(), "secret"), &objects).await;
    let wanted = LeaseRequest {
        path: at(format!("{mount}/issue/shop")),
        method: GenerateMethod::Put,
        parameters: BTreeMap::from([
            ("common_name".to_owned(), "shop.example".to_owned()),
            ("ttl".to_owned(), "10m".to_owned()),
        ]),
    };
    let cx = Context::default();
    let issuance_token = store.0.issue_token(&cx, &wanted).await.unwrap();
    let minted = store.0.mint(&cx, &issuance_token, &wanted).await.unwrap();
    assert!(minted.id.is_none() && !minted.renewable);
    assert!(
        (570..=605).contains(&minted.lives.as_secs()),
        "{:?}",
        minted.lives
    );
    let value: Value = serde_json::from_slice(minted.value.expose()).unwrap();
    assert!(value["private_key"].as_str().unwrap().contains("PRIVATE KEY"));
}

#[tokio::test]
async fn static_role_is_read_with_its_next_rotation() {
    let bench = Bench::new("1h", "24h").await;
    let user = unique("static").replace('-', "_");
    bench
        .database
        .administer(&format!("create role {user} login password 'first'"))
        .await
        .unwrap();
    let role = json!({ "db_name": "postgresql", "username": user, "rotation_period": "1h" });
    bench
        .bao
        .post(&format!("{}/static-roles/web", bench.mount), role)
        .await
        .unwrap();
    let read = async || {
        let secret = bench
            .store
            .fetch(RemoteRef::current(at("static-creds/web")))
            .await
            .unwrap();
        (fields(&secret), secret)
    };
    let (value, secret) = read().await;
    assert_eq!(value["username"], json!(user));
    assert!(value.get("ttl").is_none());
    let fresh_for = secret.fresh_for.unwrap().as_secs();
    assert!((3590..=3602).contains(&fresh_for), "{fresh_for}");
    #[expect(clippy::disallowed_methods, reason = "the server looks at the real time")]
    let age = Timestamp::now().duration_since(secret.created.unwrap());
    assert!(age.as_secs() < 60, "{age}");
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(read().await.0, value, "the countdown is no change");
    bench
        .bao
        .post(&format!("{}/rotate-role/web", bench.mount), json!({}))
        .await
        .unwrap();
    let (rotated, _) = read().await;
    assert_ne!(rotated["password"], value["password"]);
    let password = rotated["password"].as_str().unwrap();
    assert!(bench.database.takes(&user, password).await);
}

/// `access.keys` grants reads of values. Only `access.generate` grants credentials.
#[tokio::test]
async fn path_that_issues_a_credential_is_not_read_as_a_key() {
    let bench = Bench::new("1h", "24h").await;
    for key in ["creds/shop", "config/postgresql", "roles/shop"] {
        let error = bench.store.refuse(key).await;
        assert_clean(&error);
        assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");
        for words in ["spec.provider.vault.path", "dataFrom.generate"] {
            assert!(error.to_string().contains(words), "{error}");
        }
        assert_eq!(bench.proxy.count(key), 0, "{key} was requested");
    }
}
