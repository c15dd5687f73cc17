//! Metrics of the fetch layer. The metrics reference is generated from [`metrics`].

use std::time::Duration;

use prometheus::{IntGauge, Registry};

use crate::{
    ErrorKind, Notice, Operation, StoreKey,
    metric_set::{MetricInfo, MetricSet, PerStore},
};

crate::metric_set! {
    /// Metrics of the process.
    struct ProcessMetrics [] {
        /// Store clients currently cached, one for each store identity.
        clients: IntGauge[] = "lockstep_provider_clients";
    }
}

crate::metric_set! {
    /// Metrics of one store. Clones share them.
    pub struct StoreMetrics ["provider", "store"] {
        /// Requests sent to a store. Each attempt counts. The outcome is ok or the error kind. For
        /// a partly failed batch it is the first error.
        requests: IntCounterVec["operation", "outcome"] = "lockstep_provider_requests_total";
        /// Duration of requests to a store, in seconds.
        duration: HistogramVec["operation"] = "lockstep_provider_request_duration_seconds", BUCKETS;
        /// Reads and searches that needed no request of their own. The reason is coalesced (joined
        /// a request in flight) or batched (sent in the same request as another read).
        saved: IntCounterVec["reason"] = "lockstep_provider_requests_saved_total";
        /// Number of values per request, for stores that support batches.
        batch: HistogramVec[] = "lockstep_provider_batch_size", BATCH_BUCKETS;
        /// Time that a request to a store waited before it was sent, in seconds. Includes waiting
        /// for other requests of its batch, for a free request slot and for the rate limit.
        queue: Histogram[] = "lockstep_store_queue_duration_seconds", QUEUE_BUCKETS;
        /// Current adaptive rate limit in requests per second, set after the store throttled
        /// requests. 0 if there is none and only the configured limits apply.
        pace: Gauge[] = "lockstep_store_pace_requests_per_second";
        /// Seconds for which requests to a store were held back because it throttled requests or
        /// did not respond.
        throttled: Counter[] = "lockstep_store_throttled_seconds_total";
        /// Requests to a store that are currently in flight.
        in_flight: IntGauge[] = "lockstep_provider_in_flight";
        /// 1 if a store works but its setup could be improved. The reason batch_denied means that
        /// its identity is not allowed to read values in batches. The message of the store's
        /// condition explains what to do.
        notice: IntGaugeVec["reason"] = "lockstep_provider_notice";
    }
}

/// Returns every metric of the fetch layer.
pub fn metrics() -> Vec<MetricInfo> {
    [ProcessMetrics::METRICS, StoreMetrics::METRICS].concat()
}

/// Buckets of request durations in seconds, from a nearby cache to the longest sensible timeout.
const BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Buckets of queue times in seconds, up to the longest possible wait.
const QUEUE_BUCKETS: &[f64] = &[0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];

/// Buckets of batch sizes. Services accept at most 10 or 20 values.
const BATCH_BUCKETS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 15.0, 20.0];

/// `reason` of a saved request for a read that joined a request in flight.
const COALESCED: &str = "coalesced";
/// `reason` of a saved request for a read sent in the same request as another.
const BATCHED: &str = "batched";
/// Every `reason` of a notice.
const NOTICES: [&str; 1] = ["batch_denied"];
/// `outcome` of a request that succeeded.
const OK: &str = "ok";

/// Metrics of the fetch layer. Clones share them.
#[derive(Debug, Clone)]
pub struct FetchMetrics {
    process: ProcessMetrics,
    stores: PerStore<StoreMetrics>,
}

impl FetchMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// Fails if one of them is already registered.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            process: ProcessMetrics::register(registry)?,
            stores: PerStore::register(registry)?,
        })
    }

    /// Returns the metrics of one store.
    pub fn store(&self, provider: &'static str, key: &StoreKey) -> StoreMetrics {
        let store = self.stores.get(&[provider, &key.label()]);
        store.saved(0);
        store
    }

    /// Removes every series of a deleted store.
    pub fn remove_store(&self, key: &StoreKey) {
        self.stores.remove(&key.label());
    }

    pub(crate) fn clients(&self) -> &IntGauge {
        &self.process.clients
    }
}

impl StoreMetrics {
    /// Counts a request in flight. The returned timer measures it and counts its outcome.
    pub(crate) fn begin(&self, operation: Operation) -> RequestTimer<'_> {
        self.in_flight.inc();
        RequestTimer {
            store: self,
            operation,
            started: tokio::time::Instant::now(),
        }
    }

    /// Counts reads and searches that joined another request.
    pub(crate) fn saved(&self, count: usize) {
        self.saved.with_label_values(&[COALESCED]).inc_by(count as u64);
    }

    /// Counts a request for `size` values.
    pub(crate) fn batch(&self, size: usize) {
        let Some(others) = size.checked_sub(1) else { return };
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.batch.with_label_values::<&str>(&[]).observe(f64::from(size));
        self.saved.with_label_values(&[BATCHED]).inc_by(others as u64);
    }

    /// Sets or clears the current notice for the owner of the store.
    pub(crate) fn notice(&self, notice: Option<&Notice>) {
        for reason in NOTICES {
            if notice.is_some_and(|notice| notice.reason == reason) {
                self.notice.with_label_values(&[reason]).set(1);
            } else {
                // An error means that the series does not exist, which is fine.
                let _ = self.notice.remove_label_values(&[reason]);
            }
        }
    }

    /// Records how long a request waited before it was sent.
    pub(crate) fn queued(&self, time: Duration) {
        self.queue.observe(time.as_secs_f64());
    }

    /// Records the adaptive rate limit in requests per second, `None` if there is none.
    pub(crate) fn paced(&self, rate: Option<f64>) {
        self.pace.set(rate.unwrap_or_default());
    }

    /// Counts time for which requests are held back.
    pub(crate) fn throttled(&self, time: Duration) {
        self.throttled.inc_by(time.as_secs_f64());
    }
}

/// Timer of one request in flight. If the request is dropped before it ends, the in-flight gauge is
/// decremented and no outcome is counted.
pub(crate) struct RequestTimer<'a> {
    store: &'a StoreMetrics,
    operation: Operation,
    started: tokio::time::Instant,
}

impl RequestTimer<'_> {
    /// Counts the outcome of a finished request; `None` is success.
    pub(crate) fn end(self, outcome: Option<ErrorKind>) {
        let (store, operation) = (self.store, self.operation.label());
        let outcome = outcome.map_or(OK, ErrorKind::label);
        store.requests.with_label_values(&[operation, outcome]).inc();
        store
            .duration
            .with_label_values(&[operation])
            .observe(self.started.elapsed().as_secs_f64());
    }
}

impl Drop for RequestTimer<'_> {
    fn drop(&mut self) {
        self.store.in_flight.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use lockstep_api::StoreKind;
    use strum::VariantArray;

    use super::*;

    fn key(name: &str) -> StoreKey {
        StoreKey {
            kind: StoreKind::SecretStore,
            namespace: Some("shop".into()),
            name: name.into(),
        }
    }

    fn emit_all(store: &StoreMetrics) {
        for operation in Operation::VARIANTS {
            store.begin(*operation).end(None);
            for kind in ErrorKind::VARIANTS {
                store.begin(*operation).end(Some(*kind));
            }
        }
        store.saved(3);
        store.batch(2);
        store.throttled(Duration::from_secs(5));
        for reason in NOTICES {
            let message = String::new();
            store.notice(Some(&Notice { reason, message }));
        }
    }

    /// The names of the metrics that have a series, with the labels of their first series.
    fn exposed(registry: &Registry) -> BTreeSet<(String, String, BTreeSet<String>)> {
        let labels = |family: &prometheus::proto::MetricFamily| {
            let labels = family.get_metric()[0].get_label().iter();
            labels.map(|label| label.name().to_owned()).collect()
        };
        let families = registry.gather();
        families
            .iter()
            .map(|family| (family.name().to_owned(), family.help().to_owned(), labels(family)))
            .collect()
    }

    fn declared(metrics: &[MetricInfo]) -> BTreeSet<(String, String, BTreeSet<String>)> {
        let labels = |info: &MetricInfo| {
            let labels = [info.owner, info.labels].concat();
            labels.into_iter().map(str::to_owned).collect()
        };
        metrics
            .iter()
            .map(|info| (info.name.to_owned(), info.help.to_owned(), labels(info)))
            .collect()
    }

    #[test]
    fn every_series_of_a_store_ends_with_it() {
        let registry = Registry::new();
        let fetch = FetchMetrics::new(&registry).unwrap();
        for provider in ["vault", "aws"] {
            emit_all(&fetch.store(provider, &key("vault")));
        }
        assert_eq!(exposed(&registry), declared(&metrics()));
        fetch.remove_store(&key("vault"));
        let left: Vec<_> = metrics()
            .into_iter()
            .filter(|info| info.owner.is_empty())
            .collect();
        assert_eq!(exposed(&registry), declared(&left));
    }

    #[test]
    fn client_in_use_does_not_revive_a_deleted_store() {
        let registry = Registry::new();
        let fetch = FetchMetrics::new(&registry).unwrap();
        let text = || {
            prometheus::TextEncoder::new()
                .encode_to_string(&registry.gather())
                .unwrap()
        };
        fetch.store("vault", &key("other"));
        let before = text();
        let in_use = fetch.store("vault", &key("vault"));
        assert_ne!(text(), before);
        fetch.remove_store(&key("vault"));
        emit_all(&in_use);
        assert_eq!(text(), before);
        let recreated = fetch.store("vault", &key("vault"));
        recreated.begin(Operation::Read).end(None);
        emit_all(&in_use);
        assert_eq!(recreated.requests.with_label_values(&["read", OK]).get(), 1);
    }

    #[test]
    fn clients_of_one_store_share_its_series() {
        let fetch = FetchMetrics::new(&Registry::new()).unwrap();
        fetch.store("vault", &key("vault")).saved(1);
        let again = fetch.store("vault", &key("vault"));
        assert_eq!(again.saved.with_label_values(&[COALESCED]).get(), 1);
    }

    #[test]
    fn dropped_request_decrements_the_in_flight_gauge() {
        let metrics = FetchMetrics::new(&Registry::new()).unwrap();
        let store = metrics.store("vault", &key("vault"));
        let timer = store.begin(Operation::Read);
        assert_eq!(store.in_flight.get(), 1);
        drop(timer);
        assert_eq!(store.in_flight.get(), 0);
    }
}
