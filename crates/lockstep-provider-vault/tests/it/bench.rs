//! Shared helpers: one real server, stores built from the YAML that a user writes, and captured
//! logs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lockstep_api::{Limits, StoreKind, StoreProvider};
use lockstep_provider::{
    Context, EndpointPolicy, FindQuery, Location, Locator, Provider, ProviderError, ProviderFactory as _,
    RemoteRef, RemoteSecret, StoreConfig, StoreKey,
};
pub(crate) use lockstep_provider_testkit::{Objects, Quiet};
use lockstep_provider_vault::VaultFactory;
use lockstep_testkit::{
    OpenBao,
    proxy::{Fate, Proxy, Request},
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// Part of every value and every credential of these tests. It must never appear in messages or
/// logs.
pub(crate) const CANARY: &str = lockstep_provider_testkit::CANARY;

/// The path that returns the engine of a path.
pub(crate) const LOOKUP: &str = "/v1/sys/internal/ui/mounts/";

static PLAIN: OnceCell<OpenBao> = OnceCell::const_new();
static SECURE: OnceCell<OpenBao> = OnceCell::const_new();

/// Returns the shared server on plain HTTP. Each test uses its own mounts.
pub(crate) async fn bao() -> &'static OpenBao {
    PLAIN
        .get_or_init(|| async { OpenBao::start().await.unwrap() })
        .await
}

/// Returns the shared server on HTTPS.
pub(crate) async fn secure_bao() -> &'static OpenBao {
    SECURE
        .get_or_init(|| async { OpenBao::builder().tls().start().await.unwrap() })
        .await
}

/// Returns a name that no other test uses.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Enables a new key/value engine and returns its mount path.
pub(crate) async fn engine(bao: &OpenBao, version: u8) -> String {
    let mount = unique("kv");
    bao.enable_kv(&mount, version).await.unwrap();
    mount
}

/// Creates a policy that allows reading and listing everything in an engine, and returns its name.
pub(crate) async fn reader(bao: &OpenBao, mount: &str) -> String {
    let policy = unique("reader");
    let rules = format!("path \"{mount}/*\" {{ capabilities = [\"read\", \"list\"] }}");
    bao.put_policy(&policy, &rules).await.unwrap();
    policy
}

/// Creates a policy that grants no value, and returns its name.
pub(crate) async fn powerless(bao: &OpenBao) -> String {
    let policy = unique("nothing");
    let rules = "path \"nowhere\" { capabilities = [\"read\"] }";
    bao.put_policy(&policy, rules).await.unwrap();
    policy
}

/// Enables an auth method at a new mount and returns its path.
pub(crate) async fn auth_method(bao: &OpenBao, kind: &str) -> String {
    let mount = unique(kind);
    let settings = json!({ "type": kind });
    bao.post(&format!("sys/auth/{mount}"), settings).await.unwrap();
    mount
}

/// Creates an AppRole "shop" whose tokens have these settings. Returns the mount path and the role
/// id.
pub(crate) async fn app_role(bao: &OpenBao, secret_id: &str, settings: Value) -> (String, String) {
    let mount = auth_method(bao, "approle").await;
    let role = format!("auth/{mount}/role/shop");
    bao.post(&role, settings).await.unwrap();
    let secret = json!({ "secret_id": secret_id });
    bao.post(&format!("{role}/custom-secret-id"), secret)
        .await
        .unwrap();
    let answer = bao.get(&format!("{role}/role-id")).await.unwrap();
    (mount, answer["data"]["role_id"].as_str().unwrap().to_owned())
}

/// Returns `auth` of a store that logs in with the secret id in Secret "approle", key "secret-id".
pub(crate) fn app_role_auth(mount: &str, role_id: &str) -> Value {
    let secret = json!({ "name": "approle", "key": "secret-id" });
    json!({ "appRole": { "path": mount, "roleId": role_id, "secretRef": secret } })
}

/// Makes the proxy answer lookups like a server with an engine of version 2 at `kv`, and other
/// requests by the rule.
pub(crate) fn answer_as_kv(proxy: &Proxy, mut rule: impl FnMut(&Request) -> Fate + Send + 'static) {
    let engine = r#"{"data":{"path":"kv/","type":"kv","options":{"version":"2"}}}"#;
    proxy.rule(move |request| {
        if request.target.starts_with(LOOKUP) {
            Fate::answer(200, &[], engine)
        } else {
            rule(request)
        }
    });
}

/// Creates an engine of version 2 with the value `shop/database`, and a policy that reads it.
pub(crate) async fn stocked(bao: &OpenBao) -> (String, String) {
    let mount = engine(bao, 2).await;
    put(
        bao,
        &mount,
        "shop/database",
        json!({ "password": "CANARY-value" }),
    )
    .await;
    let policy = reader(bao, &mount).await;
    (mount, policy)
}

/// Writes a new version of a key and returns the version.
pub(crate) async fn put(bao: &OpenBao, mount: &str, key: &str, data: Value) -> u64 {
    let path = format!("{mount}/data/{}", encode(key));
    let answer = bao.post(&path, json!({ "data": data })).await.unwrap();
    answer["data"]["version"].as_u64().unwrap()
}

/// Encodes a key as the path of a URL.
pub(crate) fn encode(key: &str) -> String {
    let mut path = String::new();
    for byte in key.bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => path.push(byte.into()),
            _ => path.extend(['%', hex(byte >> 4), hex(byte & 15)]),
        }
    }
    path
}

fn hex(digit: u8) -> char {
    char::from_digit(digit.into(), 16).unwrap()
}

/// A client of a store and the parser of its keys, as the registry builds them, without layers.
#[derive(Debug)]
pub(crate) struct Store(pub(crate) Arc<dyn Provider>, pub(crate) Arc<dyn Locator>);

impl Store {
    /// Builds a store from `spec.provider.vault`.
    pub(crate) async fn build(vault: Value, objects: &Objects) -> Result<Self, ProviderError> {
        Self::build_hearing(vault, None, objects).await
    }

    /// Like [`Self::build`], with `spec.events`.
    pub(crate) async fn build_hearing(
        vault: Value,
        events: Option<Value>,
        objects: &Objects,
    ) -> Result<Self, ProviderError> {
        Self::build_with(vault, events, objects, EndpointPolicy::TenantOrLoopback).await
    }

    /// Like [`Self::build_hearing`], with that endpoint policy.
    pub(crate) async fn build_with(
        vault: Value,
        events: Option<Value>,
        objects: &Objects,
        endpoints: EndpointPolicy,
    ) -> Result<Self, ProviderError> {
        Self::build_from(&config("shop", &vault, events, endpoints), objects).await
    }

    /// Builds a store of this namespace with events, which must succeed.
    pub(crate) async fn build_in(namespace: &str, vault: Value, objects: &Objects) -> Self {
        let events = Some(json!({ "vault": {} }));
        let config = config(namespace, &vault, events, EndpointPolicy::TenantOrLoopback);
        Self::build_from(&config, objects).await.unwrap()
    }

    async fn build_from(config: &StoreConfig, objects: &Objects) -> Result<Self, ProviderError> {
        lockstep_testkit::init();
        let provider = VaultFactory.build(config, Arc::new(objects.clone())).await;
        let locator = VaultFactory.locator(&config.provider);
        let store = provider.and_then(|provider| Ok(Self(provider, locator?)));
        store.inspect_err(assert_clean)
    }

    /// Builds a store, which must succeed.
    pub(crate) async fn new(vault: Value, objects: &Objects) -> Self {
        Self::build(vault, objects).await.unwrap()
    }

    /// Builds a store that reads one engine of version 2 with a token.
    pub(crate) async fn with_token(server: &str, mount: &str, token: &str) -> Self {
        let objects = Objects::default().with("vault", "token", token);
        Self::new(token_spec(server, mount), &objects).await
    }

    /// Fetches one reference. An error must not contain a value.
    pub(crate) async fn fetch(&self, reference: RemoteRef) -> Result<RemoteSecret, ProviderError> {
        let mut results = self.0.fetch(&Context::default(), &[reference]).await;
        assert_eq!(results.len(), 1);
        let result = results.remove(0);
        assert!(!format!("{result:?}").contains(CANARY));
        result.inspect_err(assert_clean)
    }

    /// Returns the location of a key.
    pub(crate) fn locate(&self, key: &str) -> Location {
        self.1.locate(key, None).unwrap().location
    }

    /// Returns the fields of a key, which must be readable.
    pub(crate) async fn read(&self, key: &str) -> Value {
        fields(&self.fetch(RemoteRef::current(self.locate(key))).await.unwrap())
    }

    /// Returns the error of a key, which must not be readable.
    pub(crate) async fn refuse(&self, key: &str) -> ProviderError {
        self.fetch(RemoteRef::current(self.locate(key)))
            .await
            .unwrap_err()
    }

    /// Returns a query for everything below a path.
    pub(crate) fn below(&self, path: &str) -> FindQuery {
        FindQuery {
            path: self.1.folder(path).unwrap(),
            ..FindQuery::default()
        }
    }

    /// Returns the keys that a query finds.
    pub(crate) async fn find(&self, query: FindQuery) -> Result<Vec<String>, ProviderError> {
        let found = self.0.find(&Context::default(), &query).await;
        let found = found.inspect_err(assert_clean)?;
        Ok(found.into_iter().map(|meta| meta.key.to_string()).collect())
    }

    /// Checks the store.
    pub(crate) async fn check(&self) -> Result<(), ProviderError> {
        self.0.check(&Context::default()).await.inspect_err(assert_clean)
    }
}

fn config(namespace: &str, vault: &Value, events: Option<Value>, endpoints: EndpointPolicy) -> StoreConfig {
    StoreConfig {
        key: StoreKey {
            kind: StoreKind::SecretStore,
            namespace: Some(namespace.to_owned()),
            name: "vault".to_owned(),
        },
        provider: serde_json::from_value::<StoreProvider>(json!({ "vault": vault })).unwrap(),
        limits: Limits::default(),
        events: events.map(|events| serde_json::from_value(events).unwrap()),
        endpoints,
    }
}

/// Returns `spec.provider.vault` of a store that reads one engine with the token in Secret "vault",
/// key "token".
pub(crate) fn token_spec(server: &str, mount: &str) -> Value {
    spec(
        server,
        mount,
        json!({ "tokenSecretRef": { "name": "vault", "key": "token" } }),
    )
}

/// Returns `spec.provider.vault` of a store that reads one engine.
pub(crate) fn spec(server: &str, mount: &str, auth: Value) -> Value {
    and(json!({ "server": server, "path": mount }), "auth", auth)
}

/// Adds a field to a spec.
pub(crate) fn and(mut spec: Value, field: &str, value: impl Into<Value>) -> Value {
    spec[field] = value.into();
    spec
}

/// Returns the fields of a value.
pub(crate) fn fields(secret: &RemoteSecret) -> Value {
    serde_json::from_slice(secret.value.expose()).unwrap()
}

/// Asserts that an error is one line and contains no value.
pub(crate) fn assert_clean(error: &ProviderError) {
    let told = format!("{error} {error:?}");
    assert!(!told.contains(CANARY), "an error shows a value or a credential");
    assert!(!error.to_string().contains('\n'), "{error}");
    assert!(!error.to_string().contains(".."), "{error}");
}

/// Advances the client's clock. The server's clock is not affected.
pub(crate) async fn later(minutes: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(minutes * 60)).await;
    tokio::time::resume();
}
