//! The layers around every provider. Each layer is a [`Service`] around a service, generic over the
//! request: it does one thing, in one function. [`Layered`] puts them around a client in the only
//! order that works:
//!
//! ```text
//!  caller ─▶ coalesce ─▶ batch ─▶ limit ─▶ retry ─▶ observe ─▶ timeout ─▶ provider
//! ```
//!
//! Only reads, searches and decryptions are coalesced, and only reads are batched.
//!
//! From the outside in:
//!
//! - [`Coalesce`] joins requests for the same value. Joined requests must cost nothing further in.
//! - [`Batch`] joins requests that arrive together. A batch is one request for everything
//!   further in.
//! - [`Limit`] applies the budget: slots, the adaptive and the configured rate, holds of paths, and
//!   the circuit breaker. A slot covers a request with its retries, so that retries cannot
//!   overtake.
//! - [`Retry`] repeats transient failures and throttled requests. It consults the budget before
//!   each further attempt.
//! - [`Observe`] counts and measures each attempt, as the store's owner sees them.
//! - [`Timeout`] ends slow attempts. The timeout applies to one attempt.
//!
//! One stack belongs to one store identity and shares nothing with another.

mod adaptive;
mod batch;
mod budget;
mod coalesce;
mod gate;
mod holds;
#[cfg(test)]
mod lease_tests;
mod limit;
mod observe;
mod pace;
mod retry;
mod timeout;

use std::{any::Any, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{
    future::{BoxFuture, Shared},
    stream::BoxStream,
};
use lockstep_api::Limits;
use tokio::time::{Instant, timeout_at};

pub use batch::{BATCH_WAIT, BATCH_WAIT_BACKLOG, BATCH_WAIT_BUSY, BATCH_WAIT_MAX, Batch};
pub use budget::Budget;
pub use coalesce::Coalesce;
pub use limit::Limit;
pub use observe::Observe;
pub use retry::Retry;
pub use timeout::Timeout;

use crate::{
    Capability, Ciphertext, Context, DEFAULT_TIMEOUT, ErrorKind, EventSource, FetchMetrics, FindQuery,
    IssuanceToken, LeaseHandle, LeaseRequest, Leases, Minted, Notice, Operation, Provider, ProviderError,
    RemoteMeta, RemoteRef, RemoteSecret, SecretValue, StoreConfig,
    call::{Answers, Check, Direct, GetIssuanceToken, Mint, RenewLease, Request, Revoke, Service},
};

/// Default of `limits.maxConcurrent`.
pub const DEFAULT_MAX_CONCURRENT: u32 = 32;

/// Upper bound for `limits.maxConcurrent` of a SecretStore: each connection can hold some 400 KB of
/// response headers, and the server may be a tenant's.
const MAX_CONCURRENT_OF_TENANT: u32 = 64;

/// Options of a stack that are not part of a store's YAML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackOptions {
    /// Retries of transient failures. Defaults to 2.
    pub retries: usize,
    /// Retries of throttled requests. Each waits for its turn under the adaptive limit. Defaults to
    /// 10.
    pub throttled_retries: usize,
    /// The wait before the first retry. It doubles with each retry, and jitter up to doubles it
    /// again. Defaults to 100 ms.
    pub retry_delay: Duration,
}

impl Default for StackOptions {
    fn default() -> Self {
        Self {
            retries: 2,
            throttled_retries: 10,
            retry_delay: Duration::from_millis(100),
        }
    }
}

/// Returns the limits of a store, bounded where it belongs to a tenant.
fn bounded(config: &StoreConfig) -> Limits {
    let most = match config.key.namespace {
        Some(_) => MAX_CONCURRENT_OF_TENANT,
        None => u32::MAX,
    };
    Limits {
        max_concurrent: config.limits.max_concurrent.map(|wanted| wanted.min(most)),
        ..config.limits
    }
}

/// The layers that every request passes.
type Calls = Limit<Retry<Observe<Timeout<Direct>>>>;

/// A client with all layers around it.
#[derive(Debug)]
pub struct Layered {
    reads: Coalesce<RemoteRef, Batch<Calls>>,
    searches: Coalesce<FindQuery, Calls>,
    decryptions: Coalesce<Ciphertext, Calls>,
    calls: Arc<Calls>,
    provider: Arc<dyn Provider>,
    /// Dropped together with the client.
    _kept: Option<Box<dyn Any + Send + Sync>>,
}

impl Layered {
    /// Puts all layers around a client.
    pub fn new(
        provider: Arc<dyn Provider>,
        config: &StoreConfig,
        metrics: &FetchMetrics,
        options: StackOptions,
    ) -> Self {
        let store = metrics.store(provider.capability().name, &config.key);
        let timeout = config
            .limits
            .timeout
            .map_or(DEFAULT_TIMEOUT, lockstep_api::Duration::to_std);
        let budget = Arc::new(Budget::new(&bounded(config), store.clone()));
        let timed = Timeout::new(Direct(Arc::clone(&provider)), timeout);
        let observed = Observe::new(timed, store.clone());
        let retried = Retry::new(observed, Arc::clone(&budget), options);
        let calls = Arc::new(Limit::new(retried, budget));
        // A joined request may outlast the caller that started it, so it has its own deadline:
        // waiting for a slot, then every attempt and the waits between them.
        let attempts = u32::try_from(options.retries)
            .unwrap_or(u32::MAX)
            .saturating_add(2);
        let longest = timeout
            .saturating_add(options.retry_delay * 8)
            .saturating_mul(attempts);
        let batches = Arc::new(Batch::new(Arc::clone(&calls), store.clone(), longest));
        let joined = longest + BATCH_WAIT_BACKLOG;
        Self {
            reads: Coalesce::new(batches, store.clone(), joined),
            searches: Coalesce::new(Arc::clone(&calls), store.clone(), joined),
            decryptions: Coalesce::new(Arc::clone(&calls), store, joined),
            calls,
            provider,
            _kept: None,
        }
    }

    /// Keeps a value until the client is dropped.
    #[must_use]
    pub fn keeping(self, kept: impl Any + Send + Sync) -> Self {
        Self {
            _kept: Some(Box::new(kept)),
            ..self
        }
    }
}

#[async_trait]
impl Provider for Layered {
    fn capability(&self) -> Capability {
        self.provider.capability()
    }

    async fn fetch(&self, cx: &Context, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        self.reads.call(cx, refs).await
    }

    fn batches(&self, reference: &RemoteRef) -> bool {
        self.provider.batches(reference)
    }

    async fn find(&self, cx: &Context, query: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError> {
        one(&self.searches, cx, query.clone()).await
    }

    async fn decrypt(&self, cx: &Context, ciphertext: &Ciphertext) -> Result<SecretValue, ProviderError> {
        // a changed value does not affect what a ciphertext contains
        let cx = Context {
            not_before: None,
            ..cx.clone()
        };
        one(&self.decryptions, &cx, ciphertext.clone()).await
    }

    async fn check(&self, cx: &Context) -> Result<(), ProviderError> {
        one(self.calls.as_ref(), cx, Check).await
    }

    fn notice(&self) -> Option<Notice> {
        self.provider.notice()
    }

    fn changes(&self) -> Option<BoxStream<'static, ()>> {
        self.provider.changes()
    }

    fn events(&self) -> Option<Arc<dyn EventSource>> {
        self.provider.events()
    }
}

#[async_trait]
impl Leases for Layered {
    async fn issue_token(
        &self,
        cx: &Context,
        request: &LeaseRequest,
    ) -> Result<IssuanceToken, ProviderError> {
        one(self.calls.as_ref(), cx, GetIssuanceToken(request.clone())).await
    }

    async fn mint(
        &self,
        cx: &Context,
        issuance_token: &IssuanceToken,
        request: &LeaseRequest,
    ) -> Result<Minted, ProviderError> {
        one(
            self.calls.as_ref(),
            cx,
            Mint(issuance_token.clone(), request.clone()),
        )
        .await
    }

    async fn renew_lease(
        &self,
        cx: &Context,
        lease: &LeaseHandle,
        wanted: Duration,
    ) -> Result<Duration, ProviderError> {
        one(self.calls.as_ref(), cx, RenewLease(lease.clone(), wanted)).await
    }

    async fn revoke(&self, cx: &Context, lease: &LeaseHandle) -> Result<(), ProviderError> {
        one(self.calls.as_ref(), cx, Revoke(lease.clone())).await
    }
}

/// Sends one request.
async fn one<R: Request>(
    service: &impl Service<R>,
    cx: &Context,
    request: R,
) -> Result<R::Answer, ProviderError> {
    let answer = service.call(cx, &[request]).await.pop();
    answer.unwrap_or_else(|| Err(panicked(R::OPERATION)))
}

/// Returns the earlier of the caller's deadline and `limit` from now.
fn deadline(cx: &Context, limit: Duration) -> Instant {
    // About thirty years stand for "never", because adding to the runtime's clock can overflow.
    const FAR: Duration = Duration::from_secs(1 << 30);
    let own = Instant::now() + limit.min(FAR);
    cx.deadline
        .map_or(own, |deadline| own.min(Instant::from_std(deadline)))
}

/// Returns the same error for each of `count` requests.
fn for_each<T>(count: usize, error: &ProviderError) -> Vec<Result<T, ProviderError>> {
    (0..count).map(|_| Err(error.clone())).collect()
}

/// Splits requests into those that are sent, by position: batches of the provider's maximum size,
/// and unbatchable requests alone.
fn requests<'a, R: Request>(
    provider: &dyn Provider,
    all: impl IntoIterator<Item = &'a R>,
) -> Vec<Vec<usize>> {
    let size = provider.capability().batch;
    let (mut requests, mut open) = (Vec::new(), Vec::new());
    for (position, request) in all.into_iter().enumerate() {
        if size > 1 && request.shares(provider) {
            open.push(position);
            if open.len() == size {
                requests.push(std::mem::take(&mut open));
            }
        } else {
            requests.push(vec![position]);
        }
    }
    if !open.is_empty() {
        requests.push(open);
    }
    requests
}

/// Returns the first error of several results.
fn outcome<T>(results: &[Result<T, ProviderError>]) -> Option<&ProviderError> {
    results.iter().find_map(|result| result.as_ref().err())
}

/// Checks the number of results: a provider that returns fewer or more would pair values with the
/// wrong keys.
fn checked<R: Request>(requests: &[R], answers: Answers<R>) -> Answers<R> {
    let asked = requests.len();
    if answers.len() == asked {
        return answers;
    }
    let message = format!("the provider answered {} of {asked} references", answers.len());
    let error = ProviderError::new(ErrorKind::Internal, R::OPERATION, message);
    for_each(asked, &error)
}

/// A request in flight, driven by any of its holders.
type Flight<A> = Shared<BoxFuture<'static, Arc<A>>>;

/// Waits for a request until `end`.
async fn wait<A>(flight: Flight<A>, end: Option<Instant>) -> Option<Arc<A>> {
    match end {
        None => Some(flight.await),
        Some(end) => timeout_at(end, flight).await.ok(),
    }
}

fn panicked(operation: Operation) -> ProviderError {
    ProviderError::new(
        ErrorKind::Internal,
        operation,
        "a fault in lockstep's provider ended the request",
    )
}

fn gave_up(operation: Operation) -> ProviderError {
    ProviderError::new(
        ErrorKind::Timeout,
        operation,
        "the store did not answer before the deadline of this sync",
    )
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Arc;

    use lockstep_api::{Limits, StoreKind, StoreProvider};

    use crate::{
        Context, FetchMetrics, FindQuery, ProviderError, RemoteMeta, RemoteRef, StoreConfig, StoreKey,
        call::{Answers, Check, Service},
        metrics::StoreMetrics,
    };

    /// Sends requests of tests to single layers.
    pub(crate) trait Requests {
        async fn fetch(&self, cx: &Context, refs: &[RemoteRef]) -> Answers<RemoteRef>
        where
            Self: Service<RemoteRef>,
        {
            self.call(cx, refs).await
        }

        async fn find(&self, cx: &Context, query: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError>
        where
            Self: Service<FindQuery> + Sized,
        {
            super::one(self, cx, query.clone()).await
        }

        async fn check(&self, cx: &Context) -> Result<(), ProviderError>
        where
            Self: Service<Check> + Sized,
        {
            super::one(self, cx, Check).await
        }
    }

    impl<S> Requests for super::Timeout<S> {}
    impl<S> Requests for super::Observe<S> {}
    impl<S> Requests for super::Retry<S> {}
    impl<S> Requests for super::Limit<S> {}
    impl<S> Requests for super::Batch<S> {}

    pub(crate) fn key() -> StoreKey {
        StoreKey {
            kind: StoreKind::SecretStore,
            namespace: Some("shop".into()),
            name: "vault".into(),
        }
    }

    pub(crate) fn config(limits: Limits) -> StoreConfig {
        StoreConfig {
            key: key(),
            provider: StoreProvider::default(),
            limits,
            events: None,
            endpoints: crate::EndpointPolicy::default(),
        }
    }

    pub(crate) struct Measured {
        pub(crate) registry: prometheus::Registry,
        pub(crate) metrics: FetchMetrics,
        pub(crate) store: StoreMetrics,
    }

    pub(crate) fn measured() -> Measured {
        let registry = prometheus::Registry::new();
        let metrics = FetchMetrics::new(&registry).unwrap();
        let store = metrics.store("memory", &key());
        Measured {
            registry,
            metrics,
            store,
        }
    }

    impl Measured {
        /// Returns the lines of `/metrics` with this prefix.
        pub(crate) fn lines(&self, prefix: &str) -> Vec<String> {
            let text = prometheus::TextEncoder::new()
                .encode_to_string(&self.registry.gather())
                .unwrap();
            text.lines()
                .filter(|line| line.starts_with(prefix))
                .map(str::to_owned)
                .collect()
        }
    }

    pub(crate) fn budget(limits: Limits) -> Arc<super::Budget> {
        Arc::new(super::Budget::new(&limits, measured().store))
    }
}
