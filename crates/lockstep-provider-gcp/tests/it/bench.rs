//! Shared helpers: create stores from YAML as a user writes it, each with its own stand-in.

use std::sync::Arc;

use lockstep_api::{Limits, StoreKind, StoreProvider};
use lockstep_provider::{
    Context, EndpointPolicy, FindQuery, Locator, Provider, ProviderError, ProviderFactory as _, RemoteRef,
    RemoteSecret, StoreConfig, StoreKey,
};
use lockstep_provider_gcp::GcpFactory;
use lockstep_provider_testkit::at;
pub(crate) use lockstep_provider_testkit::{CANARY, Objects, Quiet};
use lockstep_testkit::{
    gcp::{Gcp, PROJECT, SUBSCRIPTION},
    proxy::{Fate, Proxy},
};
use serde_json::{Value, json};

/// A client of a store as the registry creates it, without layers.
#[derive(Debug)]
pub(crate) struct Store(pub(crate) Arc<dyn Provider>, pub(crate) Arc<dyn Locator>);

/// Returns the Secret "gcp" with the service account key that a stand-in accepts.
pub(crate) fn objects(gcp: &Gcp) -> Objects {
    Objects::default().with("gcp", "key.json", gcp.service_account_key().unwrap())
}

/// Returns `auth` with that key.
pub(crate) fn key_auth() -> Value {
    json!({ "secretRef": { "secretAccessKeySecretRef": { "name": "gcp", "key": "key.json" } } })
}

/// Returns `spec.provider.gcp` of a store at that address.
pub(crate) fn spec(address: &str) -> Value {
    json!({
        "projectID": PROJECT,
        "endpoint": address,
        "stsEndpoint": address,
        "iamEndpoint": address,
        "auth": key_auth(),
    })
}

/// Returns the spec with one more field.
pub(crate) fn and(mut spec: Value, field: &str, value: impl Into<Value>) -> Value {
    spec[field] = value.into();
    spec
}

/// Returns the key of the tests' stores.
pub(crate) fn key(kind: StoreKind) -> StoreKey {
    StoreKey {
        kind,
        namespace: (kind == StoreKind::SecretStore).then(|| "shop".to_owned()),
        name: "gcp".to_owned(),
    }
}

impl Store {
    /// Builds a store from `spec.provider.gcp`.
    pub(crate) async fn build(gcp: Value, objects: &Objects, kind: StoreKind) -> Result<Self, ProviderError> {
        Self::build_hearing(gcp, None, objects, kind).await
    }

    /// Builds a store with `spec.events`.
    pub(crate) async fn build_hearing(
        gcp: Value,
        events: Option<Value>,
        objects: &Objects,
        kind: StoreKind,
    ) -> Result<Self, ProviderError> {
        Self::build_with(gcp, events, objects, kind, EndpointPolicy::TenantOrLoopback).await
    }

    /// Builds a store with an endpoint policy.
    pub(crate) async fn build_with(
        gcp: Value,
        events: Option<Value>,
        objects: &Objects,
        kind: StoreKind,
        endpoints: EndpointPolicy,
    ) -> Result<Self, ProviderError> {
        lockstep_testkit::init();
        let config = StoreConfig {
            key: key(kind),
            provider: serde_json::from_value::<StoreProvider>(json!({ "gcp": gcp })).unwrap(),
            limits: Limits::default(),
            events: events.map(|events| serde_json::from_value(events).unwrap()),
            endpoints,
        };
        let provider = GcpFactory::default()
            .build(&config, Arc::new(objects.clone()))
            .await;
        let locator = GcpFactory::default().locator(&config.provider);
        let store = provider.and_then(|provider| Ok(Self(provider, locator?)));
        store.inspect_err(assert_clean)
    }

    /// Creates a SecretStore that must be valid.
    pub(crate) async fn new(gcp: Value, objects: &Objects) -> Self {
        Self::build(gcp, objects, StoreKind::SecretStore).await.unwrap()
    }

    /// Creates a store for a stand-in, with its service account key.
    pub(crate) async fn of(gcp: &Gcp) -> Self {
        Self::new(spec(&gcp.address()), &objects(gcp)).await
    }

    /// Returns the reference of a key. A key that the store rejects is left for the provider to
    /// reject.
    fn reference(&self, key: &str) -> RemoteRef {
        match self.1.locate(key, None) {
            Ok(located) => RemoteRef {
                version: located.version,
                ..RemoteRef::current(located.location)
            },
            Err(_) => RemoteRef::current(at(key)),
        }
    }

    /// Reads keys: one result per key, none of which shows a value.
    pub(crate) async fn fetch_all(&self, keys: &[&str]) -> Vec<Result<RemoteSecret, ProviderError>> {
        let refs: Vec<RemoteRef> = keys.iter().map(|key| self.reference(key)).collect();
        self.fetch(&refs).await
    }

    /// Reads references: one result per reference, none of which shows a value.
    pub(crate) async fn fetch(&self, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        let results = self.0.fetch(&Context::default(), refs).await;
        assert_eq!(results.len(), refs.len());
        assert!(!format!("{results:?}").contains(CANARY));
        results
            .iter()
            .filter_map(|result| result.as_ref().err())
            .for_each(assert_clean);
        results
    }

    /// Returns the secret of a reference that must be readable.
    pub(crate) async fn get(&self, reference: RemoteRef) -> RemoteSecret {
        self.fetch(&[reference]).await.remove(0).unwrap()
    }

    /// Returns the text of a key that must be readable.
    pub(crate) async fn read(&self, key: &str) -> String {
        text(&self.get(self.reference(key)).await)
    }

    /// Returns the error of a key that must not be readable.
    pub(crate) async fn refuse(&self, key: &str) -> ProviderError {
        self.fetch_all(&[key]).await.remove(0).unwrap_err()
    }

    /// Returns the keys that a search finds.
    pub(crate) async fn find(&self, query: FindQuery) -> Result<Vec<String>, ProviderError> {
        let found = self.0.find(&Context::default(), &query).await;
        let found = found.inspect_err(assert_clean)?;
        Ok(found.into_iter().map(|meta| meta.key.to_string()).collect())
    }

    /// Checks whether the store works.
    pub(crate) async fn check(&self) -> Result<(), ProviderError> {
        self.0.check(&Context::default()).await.inspect_err(assert_clean)
    }
}

/// A server that returns the same response to every request after the login.
pub(crate) struct Scripted {
    pub(crate) store: Store,
    proxy: Proxy,
    _gcp: Gcp,
}

impl Scripted {
    pub(crate) async fn start() -> Self {
        let gcp = Gcp::start().await.unwrap();
        let proxy = Proxy::start(&gcp.address()).await;
        let events = json!({ "pubsub": { "subscription": SUBSCRIPTION, "endpoint": proxy.address() } });
        let spec = spec(proxy.address());
        let store = Store::build_hearing(spec, Some(events), &objects(&gcp), StoreKind::SecretStore).await;
        let store = store.unwrap();
        store.check().await.unwrap();
        Self {
            store,
            proxy,
            _gcp: gcp,
        }
    }

    pub(crate) fn answer(&self, status: u16, body: &str) {
        let json = [("Content-Type", "application/json")];
        self.proxy.all(Fate::answer(status, &json, body));
    }
}

/// Returns the text of a value.
pub(crate) fn text(secret: &RemoteSecret) -> String {
    secret.value.expose_str().unwrap().to_owned()
}

/// Asserts that an error is one line without a value, a credential, or any text of Google.
pub(crate) fn assert_clean(error: &ProviderError) {
    let told = format!("{error} {error:?}");
    for secret in [CANARY, "ya29.", "eyJ", "BEGIN"] {
        assert!(
            !told.contains(secret),
            "an error shows a value, a credential or the service's own text"
        );
    }
    assert!(!error.to_string().contains('\n'), "{error}");
    assert!(!error.to_string().contains(".."), "{error}");
}
