//! Shared helpers: create stores from YAML as a user writes it, each with its own stand-in.

use std::{sync::Arc, time::Duration};

use lockstep_api::{Limits, StoreKind, StoreProvider};
use lockstep_provider::{
    Context, EndpointPolicy, FetchMetrics, FindQuery, Provider, ProviderError, ProviderFactory as _,
    RemoteRef, RemoteSecret, StoreConfig, StoreKey,
    layers::{Layered, StackOptions},
};
use lockstep_provider_aws::AwsFactory;
use lockstep_provider_testkit::at;
pub(crate) use lockstep_provider_testkit::{CANARY, Objects, Quiet};
use lockstep_testkit::{
    aws::{ACCESS_KEY_ID, Aws, REGION, SECRET_ACCESS_KEY},
    proxy::{Fate, Proxy},
};
use serde_json::{Value, json};

/// The log levels at which the SDK logs what it sends and receives. The binary limits the modules
/// of other crates to `info`.
pub(crate) const DIRECTIVES: &str = "trace,aws=info,hyper=info,hyper_util=info";

/// Without retries.
pub(crate) const ONCE: StackOptions = StackOptions {
    retries: 0,
    throttled_retries: 0,
    retry_delay: Duration::from_millis(1),
};

/// The role of the tests.
pub(crate) const ROLE: &str = "arn:aws:iam::123456789012:role/shop";

/// A client of a store as the registry creates it, without layers.
#[derive(Debug)]
pub(crate) struct Store(pub(crate) Arc<dyn Provider>);

/// Returns the Secret "aws" with the access key that a stand-in accepts.
pub(crate) fn objects() -> Objects {
    Objects::default().with("aws", "id", ACCESS_KEY_ID).with(
        "aws",
        "secret",
        format!("{SECRET_ACCESS_KEY}\n"),
    )
}

/// Returns `auth` with that access key.
pub(crate) fn key_auth() -> Value {
    let key = |key: &str| json!({ "name": "aws", "key": key });
    json!({ "secretRef": { "accessKeyIDSecretRef": key("id"), "secretAccessKeySecretRef": key("secret") } })
}

/// Returns `spec.provider.aws` of a store at that address.
pub(crate) fn spec(service: &str, address: &str) -> Value {
    json!({
        "service": service,
        "region": REGION,
        "endpoint": address,
        "stsEndpoint": address,
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
        name: "aws".to_owned(),
    }
}

impl Store {
    /// Builds a store from `spec.provider.aws`.
    pub(crate) async fn build(aws: Value, objects: &Objects, kind: StoreKind) -> Result<Self, ProviderError> {
        Self::build_hearing(aws, None, objects, kind).await
    }

    /// Builds a store with `spec.events`.
    pub(crate) async fn build_hearing(
        aws: Value,
        events: Option<Value>,
        objects: &Objects,
        kind: StoreKind,
    ) -> Result<Self, ProviderError> {
        Self::build_with(aws, events, objects, kind, EndpointPolicy::TenantOrLoopback).await
    }

    /// Builds a store with an endpoint policy.
    pub(crate) async fn build_with(
        aws: Value,
        events: Option<Value>,
        objects: &Objects,
        kind: StoreKind,
        endpoints: EndpointPolicy,
    ) -> Result<Self, ProviderError> {
        lockstep_testkit::init();
        let config = StoreConfig {
            key: key(kind),
            provider: serde_json::from_value::<StoreProvider>(json!({ "aws": aws })).unwrap(),
            limits: Limits::default(),
            events: events.map(|events| serde_json::from_value(events).unwrap()),
            endpoints,
        };
        let provider = AwsFactory::default()
            .build(&config, Arc::new(objects.clone()))
            .await;
        provider.map(Self).inspect_err(assert_clean)
    }

    /// Creates a SecretStore that must be valid.
    pub(crate) async fn new(aws: Value, objects: &Objects) -> Self {
        Self::build(aws, objects, StoreKind::SecretStore).await.unwrap()
    }

    /// Creates a store for a service of a stand-in, with its access key.
    pub(crate) async fn of(service: &str, aws: &Aws) -> Self {
        Self::new(spec(service, &aws.address()), &objects()).await
    }

    /// Wraps the store in all layers, as the operator does, and returns its metrics too.
    pub(crate) fn within(self, limits: Limits, options: StackOptions) -> (Self, prometheus::Registry) {
        let registry = prometheus::Registry::new();
        let config = StoreConfig {
            key: key(StoreKind::SecretStore),
            provider: StoreProvider::default(),
            limits,
            events: None,
            endpoints: EndpointPolicy::TenantOrLoopback,
        };
        let metrics = FetchMetrics::new(&registry).unwrap();
        (
            Self(Arc::new(Layered::new(self.0, &config, &metrics, options))),
            registry,
        )
    }

    /// Reads keys: one result per key, none of which shows a value.
    pub(crate) async fn fetch_all(&self, keys: &[&str]) -> Vec<Result<RemoteSecret, ProviderError>> {
        let refs: Vec<RemoteRef> = keys.iter().map(|key| RemoteRef::current(at(*key))).collect();
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

    /// Returns the text of a key that must be readable.
    pub(crate) async fn read(&self, key: &str) -> String {
        text(&self.fetch_all(&[key]).await[0])
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

/// A server that returns the same response to every request.
pub(crate) struct Scripted(Proxy);

impl Scripted {
    pub(crate) async fn start() -> Self {
        Self(Proxy::start("127.0.0.1:1").await)
    }

    pub(crate) fn address(&self) -> &str {
        self.0.address()
    }

    pub(crate) fn answer(&self, status: u16, body: &str) {
        let json = [("Content-Type", "application/x-amz-json-1.1")];
        self.0.all(Fate::answer(status, &json, body));
    }

    pub(crate) async fn store(&self, service: &str) -> Store {
        Store::new(spec(service, self.0.address()), &objects()).await
    }
}

/// Returns the text of a value that must exist.
pub(crate) fn text(result: &Result<RemoteSecret, ProviderError>) -> String {
    let secret = result.as_ref().unwrap();
    secret.value.expose_str().unwrap().to_owned()
}

/// Asserts that an error is one line without a value.
pub(crate) fn assert_clean(error: &ProviderError) {
    let told = format!("{error} {error:?}");
    assert!(
        !told.contains(CANARY),
        "an error shows a value, a credential or the service's own text"
    );
    assert!(!error.to_string().contains('\n'), "{error}");
    assert!(!error.to_string().contains(".."), "{error}");
}
