//! What surrounds every provider. Each layer is a [`Provider`] around a provider and does one thing; [`stack`] puts
//! them around a client in the one order that works:
//!
//! ```text
//!  caller ─▶ coalesce ─▶ batch ─▶ limit ─▶ retry ─▶ metrics ─▶ timeout ─▶ provider
//! ```
//!
//! | layer | does | stands here because |
//! |---|---|---|
//! | [`Coalesce`] | joins requests for the same value | what is joined must cost nothing further in |
//! | [`Batch`] | joins requests that arrive together | what is joined is one request to everything further in |
//! | [`Limit`] | the store's budget: slots, pace of its own and of `limits`, holds of paths, circuit breaker | a slot covers a request with its retries, so that retries cannot overtake |
//! | [`Retry`] | tries again what may succeed within seconds, and what was too fast | asks the budget before each further attempt |
//! | [`Observe`] | counts and measures | sees each attempt, as the store's owner does |
//! | [`Timeout`] | ends what takes too long | applies to one attempt |
//!
//! One stack belongs to one store identity: nothing in it is shared with another.

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

use std::{sync::Arc, time::Duration};

use futures::future::{BoxFuture, Shared};
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
    Context, DEFAULT_TIMEOUT, ErrorKind, FetchMetrics, Operation, Provider, ProviderError, RemoteRef,
    StoreConfig,
};

/// `limits.maxConcurrent` when the store sets none.
pub const DEFAULT_MAX_CONCURRENT: u32 = 32;

/// Upper bound for `limits.maxConcurrent` of a SecretStore: each connection can hold some 400 KB of
/// response headers, and the server may be a tenant's.
const MAX_CONCURRENT_OF_TENANT: u32 = 64;

/// What a store's YAML does not say about its stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackOptions {
    /// Attempts after the first for what may succeed within seconds. Default: 2.
    pub retries: usize,
    /// Attempts after the first for what the store said was too fast; each waits for its turn at the store's pace.
    /// Default: 10.
    pub throttled_retries: usize,
    /// The wait before the first further attempt; it doubles, and jitter adds up to as much again. Default: 100 ms.
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

/// Puts all layers around a client.
pub fn stack(
    provider: Arc<dyn Provider>,
    config: &StoreConfig,
    metrics: &FetchMetrics,
    options: StackOptions,
) -> Arc<dyn Provider> {
    let store = metrics.store(provider.capability().name, &config.key);
    let timeout = config
        .limits
        .timeout
        .map_or(DEFAULT_TIMEOUT, lockstep_api::Duration::to_std);
    let budget = Arc::new(Budget::new(&bounded(config), store.clone()));
    let provider: Arc<dyn Provider> = Arc::new(Timeout::new(provider, timeout));
    let provider: Arc<dyn Provider> = Arc::new(Observe::new(provider, store.clone()));
    let provider: Arc<dyn Provider> = Arc::new(Retry::new(provider, Arc::clone(&budget), options));
    let provider: Arc<dyn Provider> = Arc::new(Limit::new(provider, budget));
    // A joined request may outlast the one who began it, so it has an end of its own: waiting for a slot, then every
    // attempt and the waits between them.
    let attempts = u32::try_from(options.retries)
        .unwrap_or(u32::MAX)
        .saturating_add(2);
    let longest = timeout
        .saturating_add(options.retry_delay * 8)
        .saturating_mul(attempts);
    let provider: Arc<dyn Provider> = Arc::new(Batch::new(provider, store.clone(), longest));
    Arc::new(Coalesce::new(provider, store, longest + BATCH_WAIT_BACKLOG))
}

/// The earlier of the caller's deadline and `limit` from now.
fn deadline(cx: &Context, limit: Duration) -> Instant {
    // Some thirty years stand for "never": the clock of the runtime cannot add without bound.
    const FAR: Duration = Duration::from_secs(1 << 30);
    let own = Instant::now() + limit.min(FAR);
    cx.deadline
        .map_or(own, |deadline| own.min(Instant::from_std(deadline)))
}

/// The same error for each of so many references.
fn for_each<T>(count: usize, error: &ProviderError) -> Vec<Result<T, ProviderError>> {
    (0..count).map(|_| Err(error.clone())).collect()
}

/// Cuts references into requests, by their places: what can share a request goes in as many as the provider takes at once,
/// and everything else alone.
fn requests<'a>(provider: &dyn Provider, refs: impl IntoIterator<Item = &'a RemoteRef>) -> Vec<Vec<usize>> {
    let size = provider.capability().batch;
    let (mut requests, mut open) = (Vec::new(), Vec::new());
    for (place, reference) in refs.into_iter().enumerate() {
        if size > 1 && provider.batches(reference) {
            open.push(place);
            if open.len() == size {
                requests.push(std::mem::take(&mut open));
            }
        } else {
            requests.push(vec![place]);
        }
    }
    if !open.is_empty() {
        requests.push(open);
    }
    requests
}

/// The outcome of a request for several references: of the first that failed.
fn outcome<T>(results: &[Result<T, ProviderError>]) -> Option<&ProviderError> {
    results.iter().find_map(|result| result.as_ref().err())
}

/// A provider that answers fewer or more than it was asked would pair values with the wrong keys.
fn checked<T>(
    asked: usize,
    operation: Operation,
    results: Vec<Result<T, ProviderError>>,
) -> Vec<Result<T, ProviderError>> {
    if results.len() == asked {
        return results;
    }
    let message = format!("the provider answered {} of {asked} references", results.len());
    for_each(
        asked,
        &ProviderError::new(ErrorKind::Internal, operation, message),
    )
}

/// A request in flight, carried on by any of those who hold it.
type Flight<A> = Shared<BoxFuture<'static, Arc<A>>>;

/// Waits for a request no longer than `end`.
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

    use crate::{FetchMetrics, StoreConfig, StoreKey, metrics::StoreMetrics};

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
        /// The lines of `/metrics` that begin so.
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
