//! What the tests share: one real server, stores made from the YAML that a user writes, and captured logs.

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use lockstep_api::{Limits, StoreKind, StoreProvider};
use lockstep_provider::{
    Context, Credentials, ErrorKind, FindQuery, Operation, Provider, ProviderError, ProviderFactory as _,
    RemoteRef, RemoteSecret, SecretValue, StoreConfig, StoreKey,
};
use lockstep_provider_vault::VaultFactory;
use lockstep_testkit::OpenBao;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// In every value and in every credential of these tests: it must never be seen.
pub(crate) const CANARY: &str = lockstep_provider_testkit::CANARY;

static PLAIN: OnceCell<OpenBao> = OnceCell::const_new();
static SECURE: OnceCell<OpenBao> = OnceCell::const_new();

/// The server on plain HTTP that all tests share; each works in mounts of its own.
pub(crate) async fn bao() -> &'static OpenBao {
    PLAIN
        .get_or_init(|| async { OpenBao::start().await.unwrap() })
        .await
}

/// The server on HTTPS that all tests share.
pub(crate) async fn secure_bao() -> &'static OpenBao {
    SECURE
        .get_or_init(|| async { OpenBao::builder().tls().start().await.unwrap() })
        .await
}

/// A name that no other test has.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A new key/value engine; its mount path.
pub(crate) async fn engine(bao: &OpenBao, version: u8) -> String {
    let mount = unique("kv");
    bao.enable_kv(&mount, version).await.unwrap();
    mount
}

/// A new policy that grants reading and listing everything in an engine; its name.
pub(crate) async fn reader(bao: &OpenBao, mount: &str) -> String {
    let policy = unique("reader");
    let rules = format!("path \"{mount}/*\" {{ capabilities = [\"read\", \"list\"] }}");
    bao.put_policy(&policy, &rules).await.unwrap();
    policy
}

/// A new mount of an auth method; its path.
pub(crate) async fn auth_method(bao: &OpenBao, kind: &str) -> String {
    let mount = unique(kind);
    let settings = json!({ "type": kind });
    bao.post(&format!("sys/auth/{mount}"), settings).await.unwrap();
    mount
}

/// An AppRole "shop" whose tokens have these settings; the mount path and the role id.
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

/// `auth` of a store that logs in with the secret id in Secret "approle", key "secret-id".
pub(crate) fn app_role_auth(mount: &str, role_id: &str) -> Value {
    let secret = json!({ "name": "approle", "key": "secret-id" });
    json!({ "appRole": { "path": mount, "roleId": role_id, "secretRef": secret } })
}

/// An engine of version 2 with the value `shop/database` in it, and a policy that reads it.
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

/// Writes a new version of a key; the version.
pub(crate) async fn put(bao: &OpenBao, mount: &str, key: &str, data: Value) -> u64 {
    let path = format!("{mount}/data/{}", encode(key));
    let answer = bao.post(&path, json!({ "data": data })).await.unwrap();
    answer["data"]["version"].as_u64().unwrap()
}

/// A key as a path of a URL.
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

/// A name and a key in its data.
type Place = (String, String);

/// Credentials as a store's namespace holds them; clones share them.
#[derive(Clone, Default)]
pub(crate) struct Objects {
    values: Arc<Mutex<BTreeMap<Place, Vec<u8>>>>,
    reads: Arc<AtomicUsize>,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Objects")
    }
}

impl Objects {
    /// One key of a Secret or ConfigMap, or the token of a ServiceAccount and audience, in place of what was there.
    pub(crate) fn set(&self, name: &str, key: &str, value: impl Into<Vec<u8>>) {
        let place = (name.to_owned(), key.to_owned());
        self.values.lock().unwrap().insert(place, value.into());
    }

    /// With one key more.
    pub(crate) fn with(self, name: &str, key: &str, value: impl Into<Vec<u8>>) -> Self {
        self.set(name, key, value);
        self
    }

    /// What was set, as text.
    pub(crate) fn text(&self, name: &str, key: &str) -> String {
        let place = (name.to_owned(), key.to_owned());
        String::from_utf8(self.values.lock().unwrap()[&place].clone()).unwrap()
    }

    /// How often anything was read.
    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    fn get(&self, name: &str, key: &str) -> Result<Vec<u8>, ProviderError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let place = (name.to_owned(), key.to_owned());
        self.values.lock().unwrap().get(&place).cloned().ok_or_else(|| {
            let message = format!("\"{name}\" has no key \"{key}\"");
            ProviderError::new(ErrorKind::CredentialsUnavailable, Operation::Login, message)
        })
    }
}

#[async_trait]
impl Credentials for Objects {
    async fn secret(&self, name: &str, key: &str) -> Result<SecretValue, ProviderError> {
        self.get(name, key).map(SecretValue::new)
    }

    async fn config_map(&self, name: &str, key: &str) -> Result<String, ProviderError> {
        Ok(String::from_utf8(self.get(name, key)?).unwrap())
    }

    async fn service_account_token(&self, name: &str, audience: &str) -> Result<SecretValue, ProviderError> {
        self.get(name, audience).map(SecretValue::new)
    }

    async fn service_account_annotation(&self, _: &str, _: &str) -> Result<Option<String>, ProviderError> {
        Ok(None)
    }
}

/// A client of a store, as the registry makes it, without layers.
#[derive(Debug)]
pub(crate) struct Store(pub(crate) Arc<dyn Provider>);

impl Store {
    /// Made from `spec.provider.vault`.
    pub(crate) async fn build(vault: Value, objects: &Objects) -> Result<Self, ProviderError> {
        lockstep_testkit::init();
        let config = StoreConfig {
            key: StoreKey {
                kind: StoreKind::SecretStore,
                namespace: Some("shop".to_owned()),
                name: "vault".to_owned(),
            },
            provider: serde_json::from_value::<StoreProvider>(json!({ "vault": vault })).unwrap(),
            limits: Limits::default(),
        };
        let provider = VaultFactory.build(&config, Arc::new(objects.clone())).await;
        provider.map(Self).inspect_err(assert_clean)
    }

    /// A store that must be made.
    pub(crate) async fn new(vault: Value, objects: &Objects) -> Self {
        Self::build(vault, objects).await.unwrap()
    }

    /// A store that reads one engine of version 2 with a token.
    pub(crate) async fn with_token(server: &str, mount: &str, token: &str) -> Self {
        let objects = Objects::default().with("vault", "token", token);
        Self::new(token_spec(server, mount), &objects).await
    }

    /// One result, which shows no value.
    pub(crate) async fn fetch(&self, reference: RemoteRef) -> Result<RemoteSecret, ProviderError> {
        let mut results = self.0.fetch(&Context::default(), &[reference]).await;
        assert_eq!(results.len(), 1);
        let result = results.remove(0);
        assert!(!format!("{result:?}").contains(CANARY));
        result.inspect_err(assert_clean)
    }

    /// The fields of a key that must be readable.
    pub(crate) async fn read(&self, key: &str) -> Value {
        fields(&self.fetch(RemoteRef::current(key)).await.unwrap())
    }

    /// The error of a key that must not be readable.
    pub(crate) async fn refuse(&self, key: &str) -> ProviderError {
        self.fetch(RemoteRef::current(key)).await.unwrap_err()
    }

    /// The keys that are found.
    pub(crate) async fn find(&self, query: FindQuery) -> Result<Vec<String>, ProviderError> {
        let found = self.0.find(&Context::default(), &query).await;
        let found = found.inspect_err(assert_clean)?;
        Ok(found.into_iter().map(|meta| meta.key).collect())
    }

    /// Whether the store works.
    pub(crate) async fn check(&self) -> Result<(), ProviderError> {
        self.0.check(&Context::default()).await.inspect_err(assert_clean)
    }
}

/// `spec.provider.vault` of a store that reads one engine with the token in Secret "vault", key "token".
pub(crate) fn token_spec(server: &str, mount: &str) -> Value {
    spec(
        server,
        mount,
        json!({ "tokenSecretRef": { "name": "vault", "key": "token" } }),
    )
}

/// `spec.provider.vault` of a store that reads one engine.
pub(crate) fn spec(server: &str, mount: &str, auth: Value) -> Value {
    and(json!({ "server": server, "path": mount }), "auth", auth)
}

/// The same with one field more.
pub(crate) fn and(mut spec: Value, field: &str, value: impl Into<Value>) -> Value {
    spec[field] = value.into();
    spec
}

/// The fields of a value.
pub(crate) fn fields(secret: &RemoteSecret) -> Value {
    serde_json::from_slice(secret.value.expose()).unwrap()
}

/// An error is one line without a value.
pub(crate) fn assert_clean(error: &ProviderError) {
    let told = format!("{error} {error:?}");
    assert!(!told.contains(CANARY), "an error shows a value or a credential");
    assert!(!error.to_string().contains('\n'), "{error}");
    assert!(!error.to_string().contains(".."), "{error}");
}

/// Everything that is logged on this thread while this lives. When it ends, none of it may hold a canary, nor a
/// credential that it was told of.
pub(crate) struct Quiet {
    lines: Buffer,
    secrets: Mutex<Vec<String>>,
    _guard: DefaultGuard,
}

impl Quiet {
    pub(crate) fn listen() -> Self {
        let lines = Buffer::default();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("trace"))
            .with_writer(lines.clone())
            .with_ansi(false)
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        tracing::trace!("listening");
        Self {
            lines,
            secrets: Mutex::new(vec![CANARY.to_owned()]),
            _guard: guard,
        }
    }
}

impl Quiet {
    /// This must not be logged either.
    pub(crate) fn never(&self, secret: &str) {
        self.secrets.lock().unwrap().push(secret.to_owned());
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.lines.0.lock().unwrap()).into_owned();
        let secrets = self.secrets.lock().unwrap();
        let shows = |line: &&str| secrets.iter().any(|secret| line.contains(secret));
        let leaks = text.lines().filter(shows).count();
        if !std::thread::panicking() {
            assert_eq!(leaks, 0, "lines with a value or a credential were logged");
            assert!(text.contains("listening"), "what listens must hear something");
        }
    }
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Buffer {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
