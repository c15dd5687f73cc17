//! What the controller measures. [`METRICS`] is the source of the metrics' documentation.
//!
//! The series of single SyncedSecrets are written at scrape time from what is remembered about them anyway: they cost
//! no memory of their own, and go with their object.

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
    help: "How long a reconcile that had something to do took, in seconds, by outcome: the reason of the Ready condition, or unchanged.",
};
const WRITES: MetricInfo = MetricInfo {
    name: "lockstep_secret_writes_total",
    kind: MetricKind::Counter,
    labels: &["outcome"],
    help: "Writes of Secrets: created, updated, recreated, merged, deleted, or the kind of the error.",
};
const STATUS: MetricInfo = MetricInfo {
    name: "lockstep_status_writes_total",
    kind: MetricKind::Counter,
    labels: &["outcome"],
    help: "Writes of the status of SyncedSecrets and stores: ok, error, or superseded: another process wrote a newer one meanwhile.",
};
const PROBES: MetricInfo = MetricInfo {
    name: "lockstep_drift_probes_total",
    kind: MetricKind::Counter,
    labels: &["outcome"],
    help: "Looks at written Secrets: unchanged, edited, gone, foreign or error.",
};
const RESTARTS: MetricInfo = MetricInfo {
    name: "lockstep_workload_restarts_total",
    kind: MetricKind::Counter,
    labels: &["outcome"],
    help: "Workloads that a rollout restarted, or tried to: restarted, forbidden (no right), refused (by an admission webhook, a policy or a quota), unguarded, missing or error.",
};
const PANICS: MetricInfo = MetricInfo {
    name: "lockstep_reconcile_panics_total",
    kind: MetricKind::Counter,
    labels: &[],
    help: "Reconciles that panicked. Each is a fault in lockstep: please report it.",
};
const MALFORMED: MetricInfo = MetricInfo {
    name: "lockstep_malformed_objects",
    kind: MetricKind::Gauge,
    labels: &["kind"],
    help: "Objects that this version of lockstep cannot read, and skips.",
};
const QUEUE: MetricInfo = MetricInfo {
    name: "lockstep_queue_depth",
    kind: MetricKind::Gauge,
    labels: &["queue"],
    help: "Reconciles that wait: for a slot of their store (fetch), or for a slot to write (write).",
};
const ADMISSION: MetricInfo = MetricInfo {
    name: "lockstep_admission_self_test",
    kind: MetricKind::Gauge,
    labels: &["policy"],
    help: "1 when the admission policy refused what it must refuse at the last self-test, 0 when it did not.",
};
const AUDIENCES: MetricInfo = MetricInfo {
    name: "lockstep_token_audience_usable",
    kind: MetricKind::Gauge,
    labels: &["audience"],
    help: "1 while lockstep mints tokens with the audience for stores, 0 while it does not, because the API server did not prove that it refuses such tokens.",
};
const EVENTS: MetricInfo = MetricInfo {
    name: "lockstep_events_received_total",
    kind: MetricKind::Counter,
    labels: &["store", "outcome"],
    help: "Messages that a store's events brought: woken (a SyncedSecret reads what they name), unknown (none does), anything (something may have been missed), ignored (nothing that a reader would see), repeated (they came before, and are not dealt with yet) or malformed.",
};
const EVENTS_LAG: MetricInfo = MetricInfo {
    name: "lockstep_event_lag_seconds",
    kind: MetricKind::Histogram,
    labels: &["store"],
    help: "How long after a change, by the time that its message tells, it was noticed, in seconds.",
};
const EVENTS_WAITING: MetricInfo = MetricInfo {
    name: "lockstep_events_waiting",
    kind: MetricKind::Gauge,
    labels: &[],
    help: "Messages that are not acknowledged yet, because what they woke is not written.",
};
const EVENTS_LISTENING: MetricInfo = MetricInfo {
    name: "lockstep_events_listening",
    kind: MetricKind::Gauge,
    labels: &["store"],
    help: "1 while a store that has events hears them, 0 while it does not; changes are then noticed at the refresh interval.",
};
const BUILD: MetricInfo = MetricInfo {
    name: "lockstep_build_info",
    kind: MetricKind::Gauge,
    labels: &["version"],
    help: "Always 1; the label is the version.",
};
const OBJECT_LABELS: &[&str] = &["namespace", "name"];
const READY: MetricInfo = MetricInfo {
    name: "lockstep_synced_secret_ready",
    kind: MetricKind::Gauge,
    labels: OBJECT_LABELS,
    help: "1 when the SyncedSecret is Ready, 0 when it is not.",
};
const LAST_SUCCESS: MetricInfo = MetricInfo {
    name: "lockstep_synced_secret_last_success_timestamp_seconds",
    kind: MetricKind::Gauge,
    labels: OBJECT_LABELS,
    help: "When the sources were last read and the Secret was found or made as they say, by this process (Unix time).",
};
const LAST_CHANGE: MetricInfo = MetricInfo {
    name: "lockstep_synced_secret_last_change_timestamp_seconds",
    kind: MetricKind::Gauge,
    labels: OBJECT_LABELS,
    help: "When the content of the Secret last changed (Unix time).",
};
const SOURCE_CREATED: MetricInfo = MetricInfo {
    name: "lockstep_synced_secret_source_created_timestamp_seconds",
    kind: MetricKind::Gauge,
    labels: OBJECT_LABELS,
    help: "When the oldest of the source versions in the Secret was created, where the store tells (Unix time).",
};
const NEXT_REFRESH: MetricInfo = MetricInfo {
    name: "lockstep_synced_secret_next_refresh_timestamp_seconds",
    kind: MetricKind::Gauge,
    labels: OBJECT_LABELS,
    help: "When the sources are read next, by the clock or as a retry (Unix time).",
};
const PENDING_SINCE: MetricInfo = MetricInfo {
    name: "lockstep_synced_secret_rotation_pending_since_timestamp_seconds",
    kind: MetricKind::Gauge,
    labels: OBJECT_LABELS,
    help: "Since when a value that changed at its source waits for a window; absent while none does (Unix time).",
};
const NEXT_WINDOW: MetricInfo = MetricInfo {
    name: "lockstep_synced_secret_rotation_next_window_timestamp_seconds",
    kind: MetricKind::Gauge,
    labels: OBJECT_LABELS,
    help: "When the window opens that a changed value waits for; absent while none waits (Unix time).",
};
const OVERDUE: MetricInfo = MetricInfo {
    name: "lockstep_synced_secret_rotation_overdue",
    kind: MetricKind::Gauge,
    labels: OBJECT_LABELS,
    help: "1 when a source version is older than rotation.maxAge, 0 when none is; absent without rotation.",
};

const PHASE: MetricInfo = MetricInfo {
    name: "lockstep_synced_secret_rollout_phase",
    kind: MetricKind::Gauge,
    labels: &["namespace", "name", "phase"],
    help: "1 for the phase in which the rollout of the Secret's revision is: Progressing, Soaking, Verifying, Held, RollingBack, RolledBack or Complete; absent where nothing was ever rolled out.",
};
const WAVE: MetricInfo = MetricInfo {
    name: "lockstep_synced_secret_rollout_wave",
    kind: MetricKind::Gauge,
    labels: OBJECT_LABELS,
    help: "The wave of the rollout that is under way, or was the last, from 1.",
};
const TARGETS: MetricInfo = MetricInfo {
    name: "lockstep_synced_secret_rollout_targets",
    kind: MetricKind::Gauge,
    labels: &["namespace", "name", "state"],
    help: "The targets of the rollout by state: Waiting, Updating, Ready, Partial, ScaledToZero, Missing, Paused, OnDelete, NotReady, Failing, Overwritten, Forbidden, NoTemplate or NoReference; absent where none is in that state.",
};
const PROPAGATION: MetricInfo = MetricInfo {
    name: "lockstep_propagation_seconds",
    kind: MetricKind::Histogram,
    labels: &["stage"],
    help: "How long after a value changed at its source the change was noticed, written, and ready on every target (stage), in seconds. Only of sources that tell when a version was created; first syncs and rollbacks do not count.",
};
const LEASE_OPERATIONS: MetricInfo = MetricInfo {
    name: "lockstep_lease_operations_total",
    kind: MetricKind::Counter,
    labels: &["operation", "outcome"],
    help: "Credentials that a store was asked to make, and leases that it was asked to renew or to revoke (mint, renew, revoke): ok, or the kind of the error.",
};
const LEASE_EXPIRY: MetricInfo = MetricInfo {
    name: "lockstep_lease_expiry_timestamp_seconds",
    kind: MetricKind::Gauge,
    labels: OBJECT_LABELS,
    help: "When the lease of the credential in the Secret ends unless it is renewed; absent without a lease (Unix time).",
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

/// The metrics of the controller.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// The registry that `/metrics` shows.
    pub registry: Registry,
    /// Reconciles by outcome.
    pub reconcile: HistogramVec,
    /// Writes of Secrets by outcome.
    pub writes: IntCounterVec,
    /// Writes of status by outcome.
    pub status: IntCounterVec,
    /// Looks at written Secrets by outcome.
    pub probes: IntCounterVec,
    /// Restarts of workloads by outcome.
    pub restarts: IntCounterVec,
    /// How long changes took, by stage.
    pub propagation: HistogramVec,
    /// What was asked of stores about leases, by outcome.
    pub leases: IntCounterVec,
    /// Reconciles that panicked.
    pub panics: IntCounter,
    /// Objects that cannot be read.
    pub malformed: IntGaugeVec,
    queue: IntGaugeVec,
    /// The last self-test of each admission policy.
    pub admission: IntGaugeVec,
    /// Whether each allowed audience is usable.
    pub audiences: IntGaugeVec,
    /// Messages by store and outcome.
    pub events: IntCounterVec,
    /// How long after a change its message came, by store.
    pub events_lag: HistogramVec,
    /// Messages that are not acknowledged yet.
    pub events_waiting: IntGauge,
    /// Whether each store that has events hears them.
    pub events_listening: IntGaugeVec,
}

/// A metric of single objects, and how its value is found.
type Column<'a> = (&'a MetricInfo, fn(&Sample) -> Option<i64>);
/// A metric of single objects that has one more label, and how its values are found.
type Columns<'a> = (&'a MetricInfo, fn(&Sample) -> Vec<(&'static str, i64)>);

fn opts(info: &MetricInfo) -> Opts {
    Opts::new(info.name, info.help)
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// When a metric of that name is registered already.
    pub fn new(registry: Registry) -> prometheus::Result<Self> {
        let buckets = vec![
            0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
        ];
        let histogram = HistogramOpts::new(RECONCILE.name, RECONCILE.help).buckets(buckets);
        // from a second to a day: a change can wait for its window
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

    /// The histogram of one outcome.
    pub fn outcome(&self, outcome: &str) -> Histogram {
        self.reconcile.with_label_values(&[outcome])
    }

    fn queue(&self, name: &str) -> IntGauge {
        self.queue.with_label_values(&[name])
    }

    /// Everything, in the text format of Prometheus.
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
            tracing::error!("the metrics could not be encoded");
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

/// Writes the series of one metric, with its head where there are any. Names of Kubernetes objects hold nothing that would need
/// escaping, nor do the words of further labels.
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
