//! Metrics of the controller. The metrics reference is generated from [`METRICS`].
//!
//! The series of single SyncedSecrets are written at scrape time from state that the controller
//! keeps anyway. They use no memory of their own and end with their object.

use std::fmt::Write as _;

use lockstep_provider::metrics::{MetricInfo, MetricKind};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::{
    index::ObjectKey,
    objects::{Objects, RolloutSample, Sample},
};

const RECONCILE: MetricInfo = MetricInfo {
    name: "lockstep_reconcile_duration_seconds",
    kind: MetricKind::Histogram,
    labels: &["outcome"],
    help: "Duration of reconciles that had work to do, in seconds. The outcome is the reason of the Ready condition, or unchanged.",
};
const WRITES: MetricInfo = MetricInfo {
    name: "lockstep_secret_writes_total",
    kind: MetricKind::Counter,
    labels: &["outcome"],
    help: "Secret writes. The outcome is created, updated, recreated, merged, deleted or the error kind.",
};
const STATUS: MetricInfo = MetricInfo {
    name: "lockstep_status_writes_total",
    kind: MetricKind::Counter,
    labels: &["outcome"],
    help: "Status writes of SyncedSecrets and stores. The outcome is ok, error, or superseded if another process wrote a newer status first.",
};
const PROBES: MetricInfo = MetricInfo {
    name: "lockstep_drift_probes_total",
    kind: MetricKind::Counter,
    labels: &["outcome"],
    help: "Drift probes of written Secrets. The outcome is unchanged, edited, gone, foreign (the Secret belongs to someone else) or error.",
};
const RESTARTS: MetricInfo = MetricInfo {
    name: "lockstep_workload_restarts_total",
    kind: MetricKind::Counter,
    labels: &["outcome"],
    help: "Workload restarts attempted by rollouts. The outcome is restarted, forbidden (missing permission), refused (by an admission webhook, a policy or a quota), unguarded (the admission policy for workloads failed its self-test), missing or error.",
};
const PANICS: MetricInfo = MetricInfo {
    name: "lockstep_reconcile_panics_total",
    kind: MetricKind::Counter,
    labels: &[],
    help: "Reconciles that panicked. Each is a bug in lockstep: please report it.",
};
const MALFORMED: MetricInfo = MetricInfo {
    name: "lockstep_malformed_objects",
    kind: MetricKind::Gauge,
    labels: &["kind"],
    help: "Objects that are skipped because this version of lockstep cannot parse them.",
};
const QUEUE: MetricInfo = MetricInfo {
    name: "lockstep_queue_depth",
    kind: MetricKind::Gauge,
    labels: &["queue"],
    help: "Reconciles waiting for a slot of their store (fetch) or for a write slot (write).",
};
const ADMISSION: MetricInfo = MetricInfo {
    name: "lockstep_admission_self_test",
    kind: MetricKind::Gauge,
    labels: &["policy"],
    help: "1 if the admission policy rejected the forbidden requests at its last self-test, 0 if it did not.",
};
const AUDIENCES: MetricInfo = MetricInfo {
    name: "lockstep_token_audience_usable",
    kind: MetricKind::Gauge,
    labels: &["audience"],
    help: "1 if lockstep issues tokens with this audience to stores, 0 if the audience is disabled because the API server was not shown to reject such tokens.",
};
const EVENTS: MetricInfo = MetricInfo {
    name: "lockstep_events_received_total",
    kind: MetricKind::Counter,
    labels: &["store", "outcome"],
    help: "Event messages received for a store. The outcome is woken (a SyncedSecret reads the named value), unknown (no SyncedSecret reads it), anything (events may have been missed, so every SyncedSecret of the store is woken), ignored (the change does not affect readers), repeated (already received and not yet acknowledged) or malformed.",
};
const EVENTS_LAG: MetricInfo = MetricInfo {
    name: "lockstep_event_lag_seconds",
    kind: MetricKind::Histogram,
    labels: &["store"],
    help: "Delay between a change, as timestamped in its event message, and its receipt, in seconds.",
};
const EVENTS_WAITING: MetricInfo = MetricInfo {
    name: "lockstep_events_waiting",
    kind: MetricKind::Gauge,
    labels: &[],
    help: "Messages that are not yet acknowledged because the SyncedSecrets they woke are not yet written.",
};
const EVENTS_LISTENING: MetricInfo = MetricInfo {
    name: "lockstep_events_listening",
    kind: MetricKind::Gauge,
    labels: &["store"],
    help: "1 if a store with events receives them, 0 if it does not. Without events, changes are noticed at the refresh interval.",
};
const BUILD: MetricInfo = MetricInfo {
    name: "lockstep_build_info",
    kind: MetricKind::Gauge,
    labels: &["version"],
    help: "Always 1. The version label is the version of lockstep.",
};
const OBJECT_LABELS: &[&str] = &["namespace", "name"];
const READY: MetricInfo = MetricInfo {
    name: "lockstep_synced_secret_ready",
    kind: MetricKind::Gauge,
    labels: OBJECT_LABELS,
    help: "1 if the SyncedSecret is Ready, 0 if it is not.",
};
const LAST_SUCCESS: MetricInfo = MetricInfo {
    name: "lockstep_synced_secret_last_success_timestamp_seconds",
    kind: MetricKind::Gauge,
    labels: OBJECT_LABELS,
    help: "Time when this process last read the sources and the Secret matched them or was updated (Unix time).",
};
const LAST_CHANGE: MetricInfo = MetricInfo {
    name: "lockstep_synced_secret_last_change_timestamp_seconds",
    kind: MetricKind::Gauge,
    labels: OBJECT_LABELS,
    help: "Time when the content of the Secret last changed (Unix time).",
};
const SOURCE_CREATED: MetricInfo = MetricInfo {
    name: "lockstep_synced_secret_source_created_timestamp_seconds",
    kind: MetricKind::Gauge,
    labels: OBJECT_LABELS,
    help: "Creation time of the oldest source version in the Secret (Unix time). Absent if the store does not report it.",
};
const NEXT_REFRESH: MetricInfo = MetricInfo {
    name: "lockstep_synced_secret_next_refresh_timestamp_seconds",
    kind: MetricKind::Gauge,
    labels: OBJECT_LABELS,
    help: "Time of the next scheduled read or retry of the sources (Unix time).",
};
const PENDING_SINCE: MetricInfo = MetricInfo {
    name: "lockstep_synced_secret_rotation_pending_since_timestamp_seconds",
    kind: MetricKind::Gauge,
    labels: OBJECT_LABELS,
    help: "Time since when a changed value has been waiting for its rotation window (Unix time). Absent if no value is waiting.",
};
const NEXT_WINDOW: MetricInfo = MetricInfo {
    name: "lockstep_synced_secret_rotation_next_window_timestamp_seconds",
    kind: MetricKind::Gauge,
    labels: OBJECT_LABELS,
    help: "Time when the rotation window opens that a changed value is waiting for (Unix time). Absent if no value is waiting.",
};
const OVERDUE: MetricInfo = MetricInfo {
    name: "lockstep_synced_secret_rotation_overdue",
    kind: MetricKind::Gauge,
    labels: OBJECT_LABELS,
    help: "1 if a source version is older than rotation.maxAge, 0 if none is. Absent without rotation.",
};

const PHASE: MetricInfo = MetricInfo {
    name: "lockstep_synced_secret_rollout_phase",
    kind: MetricKind::Gauge,
    labels: &["namespace", "name", "phase"],
    help: "1 for the current phase of the rollout: Progressing, Soaking, Verifying, Held, RollingBack, RolledBack or Complete. Absent before the first rollout.",
};
const WAVE: MetricInfo = MetricInfo {
    name: "lockstep_synced_secret_rollout_wave",
    kind: MetricKind::Gauge,
    labels: OBJECT_LABELS,
    help: "Wave of the current or last rollout, starting at 1.",
};
const TARGETS: MetricInfo = MetricInfo {
    name: "lockstep_synced_secret_rollout_targets",
    kind: MetricKind::Gauge,
    labels: &["namespace", "name", "state"],
    help: "Number of rollout targets by state: Waiting, Updating, Ready, Partial, ScaledToZero, Missing, Paused, OnDelete, NotReady, Failing, Overwritten, Forbidden, NoTemplate or NoReference. Absent for states without a target.",
};
const PROPAGATION: MetricInfo = MetricInfo {
    name: "lockstep_propagation_seconds",
    kind: MetricKind::Histogram,
    labels: &["stage"],
    help: "Time from a change at the source until it was noticed, written, and ready on every target (stage), in seconds. Covers only sources that report when a version was created. First syncs and rollbacks are not counted.",
};
const LEASE_OPERATIONS: MetricInfo = MetricInfo {
    name: "lockstep_lease_operations_total",
    kind: MetricKind::Counter,
    labels: &["operation", "outcome"],
    help: "Requests to a store to issue a credential (mint), or to renew or revoke a lease. The outcome is ok or the error kind.",
};
const LEASE_EXPIRY: MetricInfo = MetricInfo {
    name: "lockstep_lease_expiry_timestamp_seconds",
    kind: MetricKind::Gauge,
    labels: OBJECT_LABELS,
    help: "Expiry time of the lease of the credential in the Secret unless renewed (Unix time). Absent without a lease.",
};

/// Every metric of the controller.
pub const METRICS: &[MetricInfo] = &[
    RECONCILE,
    WRITES,
    STATUS,
    PROBES,
    RESTARTS,
    LEASE_OPERATIONS,
    PANICS,
    MALFORMED,
    QUEUE,
    ADMISSION,
    AUDIENCES,
    EVENTS,
    EVENTS_LAG,
    EVENTS_WAITING,
    EVENTS_LISTENING,
    BUILD,
    READY,
    LAST_SUCCESS,
    LAST_CHANGE,
    SOURCE_CREATED,
    NEXT_REFRESH,
    PENDING_SINCE,
    NEXT_WINDOW,
    OVERDUE,
    PHASE,
    WAVE,
    TARGETS,
    PROPAGATION,
    LEASE_EXPIRY,
];

/// Metrics of the controller.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Registry that `/metrics` exposes.
    pub registry: Registry,
    /// Duration of reconciles by outcome.
    pub reconcile: HistogramVec,
    /// Secret writes by outcome.
    pub writes: IntCounterVec,
    /// Status writes by outcome.
    pub status: IntCounterVec,
    /// Drift probes of written Secrets by outcome.
    pub probes: IntCounterVec,
    /// Workload restarts by outcome.
    pub restarts: IntCounterVec,
    /// Time that changes took to propagate, by stage.
    pub propagation: HistogramVec,
    /// Lease operations by operation and outcome.
    pub leases: IntCounterVec,
    /// Reconciles that panicked.
    pub panics: IntCounter,
    /// Objects that cannot be parsed, by kind.
    pub malformed: IntGaugeVec,
    queue: IntGaugeVec,
    /// Result of the last self-test of each admission policy.
    pub admission: IntGaugeVec,
    /// Whether each allowed audience is enabled.
    pub audiences: IntGaugeVec,
    /// Event messages by store and outcome.
    pub events: IntCounterVec,
    /// Delay between a change and its event message, by store.
    pub events_lag: HistogramVec,
    /// Event messages that are not yet acknowledged.
    pub events_waiting: IntGauge,
    /// Whether each store with events receives them.
    pub events_listening: IntGaugeVec,
}

/// A metric of single objects and the function that returns its value.
type Column<'a> = (&'a MetricInfo, fn(&Sample) -> Option<i64>);
/// A metric of single objects with one more label, and the function that returns its values.
type Columns<'a> = (&'a MetricInfo, fn(&Sample) -> Vec<(&'static str, i64)>);

fn opts(info: &MetricInfo) -> Opts {
    Opts::new(info.name, info.help)
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// Fails if a metric with the same name is already registered.
    pub fn new(registry: Registry) -> prometheus::Result<Self> {
        let buckets = vec![
            0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
        ];
        let histogram = HistogramOpts::new(RECONCILE.name, RECONCILE.help).buckets(buckets);
        // up to a day, because a change can wait for its window
        let spans = vec![
            0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0,
        ];
        let propagation = HistogramOpts::new(PROPAGATION.name, PROPAGATION.help).buckets(spans);
        let lag = vec![
            0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0,
        ];
        let lag = HistogramOpts::new(EVENTS_LAG.name, EVENTS_LAG.help).buckets(lag);
        let metrics = Self {
            events: IntCounterVec::new(opts(&EVENTS), EVENTS.labels)?,
            events_lag: HistogramVec::new(lag, EVENTS_LAG.labels)?,
            events_waiting: IntGauge::with_opts(opts(&EVENTS_WAITING))?,
            events_listening: IntGaugeVec::new(opts(&EVENTS_LISTENING), EVENTS_LISTENING.labels)?,
            propagation: HistogramVec::new(propagation, PROPAGATION.labels)?,
            reconcile: HistogramVec::new(histogram, RECONCILE.labels)?,
            writes: IntCounterVec::new(opts(&WRITES), WRITES.labels)?,
            status: IntCounterVec::new(opts(&STATUS), STATUS.labels)?,
            probes: IntCounterVec::new(opts(&PROBES), PROBES.labels)?,
            restarts: IntCounterVec::new(opts(&RESTARTS), RESTARTS.labels)?,
            leases: IntCounterVec::new(opts(&LEASE_OPERATIONS), LEASE_OPERATIONS.labels)?,
            panics: IntCounter::with_opts(opts(&PANICS))?,
            malformed: IntGaugeVec::new(opts(&MALFORMED), MALFORMED.labels)?,
            queue: IntGaugeVec::new(opts(&QUEUE), QUEUE.labels)?,
            admission: IntGaugeVec::new(opts(&ADMISSION), ADMISSION.labels)?,
            audiences: IntGaugeVec::new(opts(&AUDIENCES), AUDIENCES.labels)?,
            registry,
        };
        let build = IntGaugeVec::new(opts(&BUILD), BUILD.labels)?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        metrics.registry.register(Box::new(metrics.reconcile.clone()))?;
        metrics.registry.register(Box::new(metrics.writes.clone()))?;
        metrics.registry.register(Box::new(metrics.status.clone()))?;
        metrics.registry.register(Box::new(metrics.probes.clone()))?;
        metrics.registry.register(Box::new(metrics.restarts.clone()))?;
        metrics.registry.register(Box::new(metrics.propagation.clone()))?;
        metrics.registry.register(Box::new(metrics.leases.clone()))?;
        metrics.registry.register(Box::new(metrics.panics.clone()))?;
        metrics.registry.register(Box::new(metrics.malformed.clone()))?;
        metrics.registry.register(Box::new(metrics.queue.clone()))?;
        metrics.registry.register(Box::new(metrics.admission.clone()))?;
        metrics.registry.register(Box::new(metrics.audiences.clone()))?;
        metrics.registry.register(Box::new(metrics.events.clone()))?;
        metrics.registry.register(Box::new(metrics.events_lag.clone()))?;
        metrics
            .registry
            .register(Box::new(metrics.events_waiting.clone()))?;
        metrics
            .registry
            .register(Box::new(metrics.events_listening.clone()))?;
        metrics.registry.register(Box::new(build))?;
        for policy in ["secrets", "token_requests"] {
            metrics.admission.with_label_values(&[policy]).set(0);
        }
        for kind in ["SyncedSecret", "SecretStore", "ClusterSecretStore"] {
            metrics.malformed.with_label_values(&[kind]).set(0);
        }
        Ok(metrics)
    }

    /// Returns the reconcile histogram of one outcome.
    pub fn outcome(&self, outcome: &str) -> Histogram {
        self.reconcile.with_label_values(&[outcome])
    }

    fn queue(&self, name: &str) -> IntGauge {
        self.queue.with_label_values(&[name])
    }

    /// Returns all metrics in the Prometheus text format.
    pub fn encode(&self, objects: &Objects, waiting_to_fetch: usize, waiting_to_write: usize) -> String {
        self.queue("fetch")
            .set(i64::try_from(waiting_to_fetch).unwrap_or(i64::MAX));
        self.queue("write")
            .set(i64::try_from(waiting_to_write).unwrap_or(i64::MAX));
        let mut text = String::new();
        if TextEncoder::new()
            .encode_utf8(&self.registry.gather(), &mut text)
            .is_err()
        {
            tracing::error!("failed to encode the metrics");
        }
        let samples = objects.samples();
        let columns: [Column<'_>; 10] = [
            (&READY, |sample| Some(i64::from(sample.ready))),
            (&LAST_SUCCESS, |sample| sample.last_success),
            (&LAST_CHANGE, |sample| sample.last_change),
            (&SOURCE_CREATED, |sample| sample.source_created),
            (&NEXT_REFRESH, |sample| sample.next_refresh),
            (&PENDING_SINCE, |sample| sample.pending_since),
            (&NEXT_WINDOW, |sample| sample.next_window),
            (&OVERDUE, |sample| sample.overdue.map(i64::from)),
            (&WAVE, |sample| sample.rollout.map(|rollout| rollout.wave)),
            (&LEASE_EXPIRY, |sample| sample.lease_expiry),
        ];
        for (info, value) in columns {
            let series = samples
                .iter()
                .filter_map(|(key, sample)| Some((key, String::new(), value(sample)?)));
            write_series(&mut text, info, series);
        }
        let more: [Columns<'_>; 2] = [
            (&PHASE, |sample| {
                sample
                    .rollout
                    .map(|rollout| (rollout.phase.as_str(), 1))
                    .into_iter()
                    .collect()
            }),
            (&TARGETS, |sample| {
                let states = sample.rollout.into_iter().flat_map(RolloutSample::states);
                states.map(|(state, count)| (state.as_str(), count)).collect()
            }),
        ];
        for (info, values) in more {
            let label = info.labels.last().copied().unwrap_or_default();
            let series = samples.iter().flat_map(|(key, sample)| {
                let of = values(sample).into_iter();
                of.map(move |(word, value)| (key, format!(",{label}=\"{word}\""), value))
            });
            write_series(&mut text, info, series);
        }
        text
    }
}

/// Writes the series of one metric, preceded by HELP and TYPE if there are any. Nothing is escaped:
/// names of Kubernetes objects and the values of the other labels contain no special characters.
fn write_series<'a>(
    text: &mut String,
    info: &MetricInfo,
    series: impl Iterator<Item = (&'a ObjectKey, String, i64)>,
) {
    let mut head = false;
    for (key, more, value) in series {
        if !head {
            head = true;
            let _ = writeln!(
                text,
                "# HELP {} {}\n# TYPE {} gauge",
                info.name, info.help, info.name
            );
        }
        let _ = writeln!(
            text,
            "{}{{namespace=\"{}\",name=\"{}\"{more}}} {value}",
            info.name, key.namespace, key.name
        );
    }
}
