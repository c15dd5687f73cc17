//! Metrics of the fetch layer. The metrics reference is generated from [`METRICS`].
//! [`FetchMetrics::new`] builds every metric from its entry there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry,
};
use strum::VariantArray;

use crate::{ErrorKind, Notice, Operation, StoreKey};

/// Type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// A value that only increases.
    Counter,
    /// A value that can increase and decrease.
    Gauge,
    /// Observations counted in buckets.
    Histogram,
}

/// Name, type, labels and help text of one metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricInfo {
    /// Full name of the metric.
    pub name: &'static str,
    /// Type of the metric.
    pub kind: MetricKind,
    /// Names of the labels.
    pub labels: &'static [&'static str],
    /// Help text: what the metric measures, and its unit.
    pub help: &'static str,
}

const REQUESTS: MetricInfo = MetricInfo {
    name: "lockstep_provider_requests_total",
    kind: MetricKind::Counter,
    labels: &["provider", "store", "operation", "outcome"],
    help: "Requests sent to a store. Each attempt counts. The outcome is ok or the error kind. For a partly failed batch it is the first error.",
};
const DURATION: MetricInfo = MetricInfo {
    name: "lockstep_provider_request_duration_seconds",
    kind: MetricKind::Histogram,
    labels: &["provider", "store", "operation"],
    help: "Duration of requests to a store, in seconds.",
};
const SAVED: MetricInfo = MetricInfo {
    name: "lockstep_provider_requests_saved_total",
    kind: MetricKind::Counter,
    labels: &["provider", "store", "reason"],
    help: "Reads and searches that needed no request of their own. The reason is coalesced (joined a request in flight) or batched (sent in the same request as another read).",
};
const BATCH: MetricInfo = MetricInfo {
    name: "lockstep_provider_batch_size",
    kind: MetricKind::Histogram,
    labels: &["provider", "store"],
    help: "Number of values per request, for stores that support batches.",
};
const THROTTLED: MetricInfo = MetricInfo {
    name: "lockstep_store_throttled_seconds_total",
    kind: MetricKind::Counter,
    labels: &["provider", "store"],
    help: "Seconds for which requests to a store were held back because it throttled requests or did not respond.",
};
const QUEUE: MetricInfo = MetricInfo {
    name: "lockstep_store_queue_duration_seconds",
    kind: MetricKind::Histogram,
    labels: &["provider", "store"],
    help: "Time that a request to a store waited before it was sent, in seconds. Includes waiting for other requests of its batch, for a free request slot and for the rate limit.",
};
const PACE: MetricInfo = MetricInfo {
    name: "lockstep_store_pace_requests_per_second",
    kind: MetricKind::Gauge,
    labels: &["provider", "store"],
    help: "Current adaptive rate limit in requests per second, set after the store throttled requests. 0 if there is none and only the configured limits apply.",
};
const IN_FLIGHT: MetricInfo = MetricInfo {
    name: "lockstep_provider_in_flight",
    kind: MetricKind::Gauge,
    labels: &["provider", "store"],
    help: "Requests to a store that are currently in flight.",
};
const NOTICE: MetricInfo = MetricInfo {
    name: "lockstep_provider_notice",
    kind: MetricKind::Gauge,
    labels: &["provider", "store", "reason"],
    help: "1 if a store works but its setup could be improved. The reason batch_denied means that its identity is not allowed to read values in batches. The message of the store's condition explains what to do.",
};
const CLIENTS: MetricInfo = MetricInfo {
    name: "lockstep_provider_clients",
    kind: MetricKind::Gauge,
    labels: &[],
    help: "Store clients currently cached, one for each store identity.",
};

/// Every metric of the fetch layer.
pub const METRICS: &[MetricInfo] = &[
    REQUESTS, DURATION, SAVED, BATCH, QUEUE, PACE, THROTTLED, IN_FLIGHT, NOTICE, CLIENTS,
];

/// Buckets of request durations in seconds, from a nearby cache to the longest sensible timeout.
const BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Buckets of queue times in seconds, up to the longest possible wait.
const QUEUE_BUCKETS: &[f64] = &[0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];

/// Buckets of batch sizes. Services accept at most 10 or 20 values.
const BATCH_BUCKETS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 15.0, 20.0];

/// `reason` of [`SAVED`] for a read that joined a request in flight.
const COALESCED: &str = "coalesced";
/// `reason` of [`SAVED`] for a read sent in the same request as another.
const BATCHED: &str = "batched";
/// Every `reason` of [`NOTICE`].
const NOTICES: [&str; 1] = ["batch_denied"];
/// `outcome` of a request that succeeded.
const OK: &str = "ok";

/// Metrics of the fetch layer. Clones share them.
#[derive(Clone)]
pub struct FetchMetrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    saved: IntCounterVec,
    batch: HistogramVec,
    queue: HistogramVec,
    pace: GaugeVec,
    throttled: CounterVec,
    in_flight: IntGaugeVec,
    notice: IntGaugeVec,
    clients: IntGauge,
    /// Providers that each store has had, by the store's label. Their series are removed with the
    /// store.
    stores: Arc<Mutex<BTreeMap<String, BTreeSet<&'static str>>>>,
}

impl fmt::Debug for FetchMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchMetrics").finish_non_exhaustive()
    }
}

impl FetchMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// Fails if one of them is already registered.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = |info: MetricInfo| Opts::new(info.name, info.help);
        let metrics = Self {
            requests: IntCounterVec::new(opts(REQUESTS), REQUESTS.labels)?,
            duration: HistogramVec::new(
                HistogramOpts::new(DURATION.name, DURATION.help).buckets(BUCKETS.to_vec()),
                DURATION.labels,
            )?,
            saved: IntCounterVec::new(opts(SAVED), SAVED.labels)?,
            batch: HistogramVec::new(
                HistogramOpts::new(BATCH.name, BATCH.help).buckets(BATCH_BUCKETS.to_vec()),
                BATCH.labels,
            )?,
            queue: HistogramVec::new(
                HistogramOpts::new(QUEUE.name, QUEUE.help).buckets(QUEUE_BUCKETS.to_vec()),
                QUEUE.labels,
            )?,
            pace: GaugeVec::new(opts(PACE), PACE.labels)?,
            throttled: CounterVec::new(opts(THROTTLED), THROTTLED.labels)?,
            in_flight: IntGaugeVec::new(opts(IN_FLIGHT), IN_FLIGHT.labels)?,
            notice: IntGaugeVec::new(opts(NOTICE), NOTICE.labels)?,
            clients: IntGauge::with_opts(opts(CLIENTS))?,
            stores: Arc::default(),
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        registry.register(Box::new(metrics.saved.clone()))?;
        registry.register(Box::new(metrics.batch.clone()))?;
        registry.register(Box::new(metrics.queue.clone()))?;
        registry.register(Box::new(metrics.pace.clone()))?;
        registry.register(Box::new(metrics.throttled.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        registry.register(Box::new(metrics.notice.clone()))?;
        registry.register(Box::new(metrics.clients.clone()))?;
        Ok(metrics)
    }

    /// Returns the metrics of one store.
    pub fn store(&self, provider: &'static str, key: &StoreKey) -> StoreMetrics {
        let store = key.label();
        self.stores().entry(store.clone()).or_default().insert(provider);
        let labels = [provider, store.as_str()];
        StoreMetrics {
            saved: self.saved.with_label_values(&[provider, &store, COALESCED]),
            queue: self.queue.with_label_values(&labels),
            pace: self.pace.with_label_values(&labels),
            throttled: self.throttled.with_label_values(&labels),
            in_flight: self.in_flight.with_label_values(&labels),
            metrics: self.clone(),
            provider,
            store,
        }
    }

    /// Removes every series of a deleted store.
    pub fn remove_store(&self, key: &StoreKey) {
        let store = key.label();
        let Some(providers) = self.stores().remove(&store) else {
            return;
        };
        for provider in providers {
            // An error means that the series does not exist, which is fine.
            for operation in Operation::VARIANTS.iter().map(|operation| operation.label()) {
                for outcome in ErrorKind::VARIANTS.iter().map(|kind| kind.label()).chain([OK]) {
                    let _ = self
                        .requests
                        .remove_label_values(&[provider, &store, operation, outcome]);
                }
                let _ = self.duration.remove_label_values(&[provider, &store, operation]);
            }
            for reason in [COALESCED, BATCHED] {
                let _ = self.saved.remove_label_values(&[provider, &store, reason]);
            }
            let _ = self.batch.remove_label_values(&[provider, &store]);
            let _ = self.queue.remove_label_values(&[provider, &store]);
            let _ = self.pace.remove_label_values(&[provider, &store]);
            let _ = self.throttled.remove_label_values(&[provider, &store]);
            let _ = self.in_flight.remove_label_values(&[provider, &store]);
            for reason in NOTICES {
                let _ = self.notice.remove_label_values(&[provider, &store, reason]);
            }
        }
    }

    pub(crate) fn clients(&self) -> &IntGauge {
        &self.clients
    }

    fn stores(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<&'static str>>> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Metrics of one store.
#[derive(Clone)]
pub struct StoreMetrics {
    metrics: FetchMetrics,
    provider: &'static str,
    store: String,
    saved: IntCounter,
    queue: Histogram,
    pace: Gauge,
    throttled: Counter,
    in_flight: IntGauge,
}

impl fmt::Debug for StoreMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreMetrics")
            .field("provider", &self.provider)
            .field("store", &self.store)
            .finish_non_exhaustive()
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
        self.saved.inc_by(count as u64);
    }

    /// Counts a request for `size` values.
    pub(crate) fn batch(&self, size: usize) {
        if self.is_removed() || size == 0 {
            return;
        }
        let labels = [self.provider, self.store.as_str()];
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.metrics
            .batch
            .with_label_values(&labels)
            .observe(f64::from(size));
        self.metrics
            .saved
            .with_label_values(&[self.provider, &self.store, BATCHED])
            .inc_by(u64::from(size) - 1);
    }

    /// Sets or clears the current notice for the owner of the store.
    pub(crate) fn notice(&self, notice: Option<&Notice>) {
        if self.is_removed() {
            return;
        }
        for reason in NOTICES {
            let labels = [self.provider, self.store.as_str(), reason];
            if notice.is_some_and(|notice| notice.reason == reason) {
                self.metrics.notice.with_label_values(&labels).set(1);
            } else {
                // An error means that the series does not exist, which is fine.
                let _ = self.metrics.notice.remove_label_values(&labels);
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

    /// Whether the store was deleted while this client was still in use. Its series must not
    /// reappear.
    fn is_removed(&self) -> bool {
        !self.metrics.stores().contains_key(&self.store)
    }

    fn request(&self, operation: Operation, outcome: &str) -> Option<(IntCounter, Histogram)> {
        if self.is_removed() {
            return None;
        }
        let labels = [self.provider, self.store.as_str(), operation.label()];
        Some((
            self.metrics
                .requests
                .with_label_values(&[labels[0], labels[1], labels[2], outcome]),
            self.metrics.duration.with_label_values(&labels),
        ))
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
        if let Some((requests, duration)) = self
            .store
            .request(self.operation, outcome.map_or(OK, ErrorKind::label))
        {
            requests.inc();
            duration.observe(self.started.elapsed().as_secs_f64());
        }
    }
}

impl Drop for RequestTimer<'_> {
    fn drop(&mut self) {
        self.store.in_flight.dec();
    }
}

#[cfg(test)]
mod tests {
    use lockstep_api::StoreKind;

    use super::*;

    fn key(name: &str) -> StoreKey {
        StoreKey {
            kind: StoreKind::SecretStore,
            namespace: Some("shop".into()),
            name: name.into(),
        }
    }

    fn exercise(metrics: &FetchMetrics, name: &str) -> StoreMetrics {
        let store = metrics.store("vault", &key(name));
        for operation in Operation::VARIANTS {
            store.begin(*operation).end(None);
            store.begin(*operation).end(Some(ErrorKind::Timeout));
        }
        store.saved(3);
        store.batch(2);
        store.throttled(Duration::from_secs(5));
        store.notice(Some(&Notice {
            reason: "batch_denied",
            message: String::new(),
        }));
        store
    }

    #[test]
    fn registered_metrics_match_their_documentation() {
        let registry = Registry::new();
        exercise(&FetchMetrics::new(&registry).unwrap(), "vault");
        let mut families = registry.gather();
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut documented = METRICS.to_vec();
        documented.sort_by_key(|info| info.name);
        assert_eq!(families.len(), documented.len());
        for (family, info) in families.iter().zip(documented) {
            assert_eq!((family.name(), family.help()), (info.name, info.help));
            assert_eq!(
                format!("{:?}", family.get_field_type()).to_uppercase(),
                format!("{:?}", info.kind).to_uppercase()
            );
            let mut labels: Vec<_> = family.get_metric()[0]
                .get_label()
                .iter()
                .map(prometheus::proto::LabelPair::name)
                .collect();
            let mut expected = info.labels.to_vec();
            labels.sort_unstable();
            expected.sort_unstable();
            assert_eq!(labels, expected, "{}", info.name);
        }
    }

    #[test]
    fn series_of_a_deleted_store_do_not_reappear() {
        let registry = Registry::new();
        let metrics = FetchMetrics::new(&registry).unwrap();
        exercise(&metrics, "other");
        let before = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        let in_use = exercise(&metrics, "vault");
        metrics.remove_store(&key("vault"));
        in_use.begin(Operation::Read).end(None);
        let after = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        let names = |text: &str| -> Vec<String> {
            text.lines()
                .filter_map(|line| line.rsplit_once(' ').map(|(series, _)| series.to_owned()))
                .collect()
        };
        assert_eq!(names(&before), names(&after));
        assert!(after.contains("store=\"shop/other\""));
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
