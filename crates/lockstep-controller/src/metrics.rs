//! Metrics of the controller. The metrics reference is generated from [`metrics`].
//!
//! The series of single SyncedSecrets are written at scrape time from state that the controller
//! keeps anyway. They use no memory of their own and end with their object.

use std::fmt::Write as _;

use lockstep_provider::metric_set::{MetricInfo, MetricKind, MetricSet as _, PerStore};
use prometheus::{Registry, TextEncoder};

use crate::{
    index::ObjectKey,
    objects::{Objects, RolloutSample, Sample},
};

lockstep_provider::metric_set! {
    /// Metrics of the process.
    pub struct ProcessMetrics [] {
        /// Duration of reconciles that had work to do, in seconds. The outcome is the reason of the
        /// Ready condition, or unchanged.
        pub reconcile: HistogramVec["outcome"] = "lockstep_reconcile_duration_seconds", RECONCILE_BUCKETS;
        /// Secret writes. The outcome is created, updated, recreated, merged, deleted or the error
        /// kind.
        pub writes: IntCounterVec["outcome"] = "lockstep_secret_writes_total";
        /// Status writes of SyncedSecrets and stores. The outcome is ok, error, or superseded if
        /// another process wrote a newer status first.
        pub status: IntCounterVec["outcome"] = "lockstep_status_writes_total";
        /// Drift probes of written Secrets. The outcome is unchanged, edited, gone, foreign (the
        /// Secret belongs to someone else) or error.
        pub probes: IntCounterVec["outcome"] = "lockstep_drift_probes_total";
        /// Workload restarts attempted by rollouts. The outcome is restarted, forbidden (missing
        /// permission), refused (by an admission webhook, a policy or a quota), unguarded (the
        /// admission policy for workloads failed its self-test), missing or error.
        pub restarts: IntCounterVec["outcome"] = "lockstep_workload_restarts_total";
        /// Requests to a store to issue a credential (mint), or to renew or revoke a lease. The
        /// outcome is ok or the error kind.
        pub leases: IntCounterVec["operation", "outcome"] = "lockstep_lease_operations_total";
        /// Time from a change at the source until it was noticed, written, and ready on every
        /// target (stage), in seconds. Covers only sources that report when a version was created.
        /// First syncs and rollbacks are not counted.
        pub propagation: HistogramVec["stage"] = "lockstep_propagation_seconds", PROPAGATION_BUCKETS;
        /// Reconciles that panicked. Each is a bug in lockstep: please report it.
        pub panics: IntCounter[] = "lockstep_reconcile_panics_total";
        /// Objects that are skipped because this version of lockstep cannot parse them.
        pub malformed: IntGaugeVec["kind"] = "lockstep_malformed_objects";
        /// Reconciles waiting for a slot of their store (fetch) or for a write slot (write).
        queue: IntGaugeVec["queue"] = "lockstep_queue_depth";
        /// 1 if the admission policy rejected the forbidden requests at its last self-test, 0 if it
        /// did not.
        admission: IntGaugeVec["policy"] = "lockstep_admission_self_test";
        /// 1 if lockstep issues tokens with this audience to stores, 0 if the audience is disabled
        /// because the API server was not shown to reject such tokens.
        pub audiences: IntGaugeVec["audience"] = "lockstep_token_audience_usable";
        /// Messages that are not yet acknowledged because the SyncedSecrets they woke are not yet
        /// written.
        pub events_waiting: IntGauge[] = "lockstep_events_waiting";
        /// Always 1. The version label is the version of lockstep.
        build: IntGaugeVec["version"] = "lockstep_build_info";
    }
}

lockstep_provider::metric_set! {
    /// Metrics of one store with events.
    pub struct EventMetrics ["store"] {
        /// Event messages received for a store. The outcome is woken (a SyncedSecret reads the
        /// named value), unknown (no SyncedSecret reads it), anything (events may have been missed,
        /// so every SyncedSecret of the store is woken), ignored (the change does not affect
        /// readers), repeated (already received and not yet acknowledged) or malformed.
        pub received: IntCounterVec["outcome"] = "lockstep_events_received_total";
        /// Delay between a change, as timestamped in its event message, and its receipt, in
        /// seconds.
        pub lag: Histogram[] = "lockstep_event_lag_seconds", LAG_BUCKETS;
        /// 1 if a store with events receives them, 0 if it does not. Without events, changes are
        /// noticed at the refresh interval.
        pub listening: IntGauge[] = "lockstep_events_listening";
    }
}

const RECONCILE_BUCKETS: &[f64] = &[
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// Up to a day, because a change can wait for its window.
const PROPAGATION_BUCKETS: &[f64] = &[
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0,
];
const LAG_BUCKETS: &[f64] = &[
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0,
];

/// Metrics of single SyncedSecrets.
const OBJECT_METRICS: &[ObjectMetric] = &[
    one(
        "lockstep_synced_secret_ready",
        |sample| Some(sample.ready.into()),
        "1 if the SyncedSecret is Ready, 0 if it is not.",
    ),
    one(
        "lockstep_synced_secret_last_success_timestamp_seconds",
        |sample| sample.last_success,
        "Time when this process last read the sources and the Secret matched them or was updated \
         (Unix time).",
    ),
    one(
        "lockstep_synced_secret_last_change_timestamp_seconds",
        |sample| sample.last_change,
        "Time when the content of the Secret last changed (Unix time).",
    ),
    one(
        "lockstep_synced_secret_source_created_timestamp_seconds",
        |sample| sample.source_created,
        "Creation time of the oldest source version in the Secret (Unix time). Absent if the \
         store does not report it.",
    ),
    one(
        "lockstep_synced_secret_next_refresh_timestamp_seconds",
        |sample| sample.next_refresh,
        "Time of the next scheduled read or retry of the sources (Unix time).",
    ),
    one(
        "lockstep_synced_secret_rotation_pending_since_timestamp_seconds",
        |sample| sample.pending_since,
        "Time since when a changed value has been waiting for its rotation window (Unix time). \
         Absent if no value is waiting.",
    ),
    one(
        "lockstep_synced_secret_rotation_next_window_timestamp_seconds",
        |sample| sample.next_window,
        "Time when the rotation window opens that a changed value is waiting for (Unix time). \
         Absent if no value is waiting.",
    ),
    one(
        "lockstep_synced_secret_rotation_overdue",
        |sample| sample.overdue.map(i64::from),
        "1 if a source version is older than rotation.maxAge, 0 if none is. Absent without \
         rotation.",
    ),
    one(
        "lockstep_synced_secret_rollout_wave",
        |sample| Some(sample.rollout?.wave),
        "Wave of the current or last rollout, starting at 1.",
    ),
    one(
        "lockstep_lease_expiry_timestamp_seconds",
        |sample| sample.lease_expiry,
        "Expiry time of the lease of the credential in the Secret unless renewed (Unix time). \
         Absent without a lease.",
    ),
    each(
        "lockstep_synced_secret_rollout_phase",
        &["phase"],
        |sample| {
            let rollout = sample.rollout.into_iter();
            rollout.map(|rollout| (rollout.phase.as_str(), 1)).collect()
        },
        "1 for the current phase of the rollout: Progressing, Soaking, Verifying, Held, \
         RollingBack, RolledBack or Complete. Absent before the first rollout.",
    ),
    each(
        "lockstep_synced_secret_rollout_targets",
        &["state"],
        |sample| {
            let states = sample.rollout.into_iter().flat_map(RolloutSample::states);
            states.map(|(state, count)| (state.as_str(), count)).collect()
        },
        "Number of rollout targets by state: Waiting, Updating, Ready, Partial, ScaledToZero, \
         Missing, Paused, OnDelete, NotReady, Failing, Overwritten, Forbidden, NoTemplate or \
         NoReference. Absent for states without a target.",
    ),
];

struct ObjectMetric {
    info: MetricInfo,
    values: Values,
}

/// Returns the values of a metric for one SyncedSecret.
enum Values {
    One(fn(&Sample) -> Option<i64>),
    /// The values for each value of the metric's own label.
    Each(fn(&Sample) -> Vec<(&'static str, i64)>),
}

const fn one(name: &'static str, value: fn(&Sample) -> Option<i64>, help: &'static str) -> ObjectMetric {
    ObjectMetric {
        info: object_info(name, &[], help),
        values: Values::One(value),
    }
}

const fn each(
    name: &'static str,
    label: &'static [&'static str; 1],
    values: fn(&Sample) -> Vec<(&'static str, i64)>,
    help: &'static str,
) -> ObjectMetric {
    ObjectMetric {
        info: object_info(name, label, help),
        values: Values::Each(values),
    }
}

const fn object_info(name: &'static str, labels: &'static [&'static str], help: &'static str) -> MetricInfo {
    MetricInfo {
        name,
        kind: MetricKind::Gauge,
        owner: &["namespace", "name"],
        labels,
        help,
    }
}

impl ObjectMetric {
    /// Writes the series, preceded by HELP and TYPE if there are any. Nothing is escaped: names of
    /// Kubernetes objects and the values of the other labels contain no special characters.
    fn write(&self, text: &mut String, samples: &[(ObjectKey, Sample)]) {
        let (name, help) = (self.info.name, self.info.help);
        let start = text.len();
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        let head = text.len();
        for (key, sample) in samples {
            let (namespace, object) = (&key.namespace, &key.name);
            let mut line = |more: &str, value: i64| {
                let _ = writeln!(
                    text,
                    "{name}{{namespace=\"{namespace}\",name=\"{object}\"{more}}} {value}"
                );
            };
            match self.values {
                Values::One(value) => value(sample).into_iter().for_each(|value| line("", value)),
                Values::Each(values) => {
                    let label = self.info.labels.first().copied().unwrap_or_default();
                    for (word, value) in values(sample) {
                        line(&format!(",{label}=\"{word}\""), value);
                    }
                }
            }
        }
        if text.len() == head {
            text.truncate(start);
        }
    }
}

/// Returns every metric of the controller.
pub fn metrics() -> Vec<MetricInfo> {
    let objects: Vec<_> = OBJECT_METRICS.iter().map(|metric| metric.info).collect();
    [ProcessMetrics::METRICS, EventMetrics::METRICS, &objects].concat()
}

/// Metrics of the controller.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// Metrics of the process.
    pub process: ProcessMetrics,
    /// Metrics of each store with events.
    pub events: PerStore<EventMetrics>,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// Fails if a metric with the same name is already registered.
    pub fn new(registry: Registry) -> prometheus::Result<Self> {
        let process = ProcessMetrics::register(&registry)?;
        process
            .build
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        for kind in ["SyncedSecret", "SecretStore", "ClusterSecretStore"] {
            process.malformed.with_label_values(&[kind]).set(0);
        }
        let metrics = Self {
            process,
            events: PerStore::register(&registry)?,
            registry,
        };
        for policy in ["secrets", "token_requests"] {
            metrics.admission(policy, false);
        }
        Ok(metrics)
    }

    /// Records the result of the last self-test of an admission policy.
    pub fn admission(&self, policy: &str, enforced: bool) {
        let admission = self.process.admission.with_label_values(&[policy]);
        admission.set(enforced.into());
    }

    /// Returns all metrics in the Prometheus text format.
    pub fn encode(&self, objects: &Objects, waiting_to_fetch: usize, waiting_to_write: usize) -> String {
        for (queue, depth) in [("fetch", waiting_to_fetch), ("write", waiting_to_write)] {
            let depth = i64::try_from(depth).unwrap_or(i64::MAX);
            self.process.queue.with_label_values(&[queue]).set(depth);
        }
        let mut text = String::new();
        if TextEncoder::new()
            .encode_utf8(&self.registry.gather(), &mut text)
            .is_err()
        {
            tracing::error!("failed to encode the metrics");
        }
        let samples = objects.samples();
        for metric in OBJECT_METRICS {
            metric.write(&mut text, &samples);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use lockstep_api::SyncedSecretStatus;
    use serde_json::json;

    use super::*;

    const TIME: &str = "2026-03-01T00:00:00Z";

    fn status() -> SyncedSecretStatus {
        serde_json::from_value(json!({
            "target": {
                "name": "db", "uid": "1", "resourceVersion": "1", "revision": "1", "fingerprint": "1",
                "lastChangeTime": TIME,
            },
            "sources": [{ "store": { "name": "vault" }, "key": "db", "createdTime": TIME }],
            "rotation": {
                "phase": "Pending", "noticedTime": TIME, "nextWindowTime": TIME,
                "rollout": {
                    "phase": "Soaking", "revision": "1", "startTime": TIME, "wave": 1,
                    "targets": [{ "kind": "Deployment", "name": "api", "wave": 1, "state": "Ready" }],
                },
            },
            "lease": { "current": {
                "id": "1", "accessor": "1", "store": { "name": "vault" }, "path": "db", "request": "1",
                "issuedTime": TIME, "expirationTime": TIME, "durationSeconds": 60,
            } },
        }))
        .unwrap()
    }

    fn emit_all(metrics: &Metrics, objects: &Objects, key: &ObjectKey) {
        let process = &metrics.process;
        process.reconcile.with_label_values(&["unchanged"]).observe(1.0);
        process.writes.with_label_values(&["created"]).inc();
        process.status.with_label_values(&["ok"]).inc();
        process.probes.with_label_values(&["unchanged"]).inc();
        process.restarts.with_label_values(&["restarted"]).inc();
        process.leases.with_label_values(&["mint", "ok"]).inc();
        process.propagation.with_label_values(&["written"]).observe(1.0);
        process.audiences.with_label_values(&["vault"]).set(1);
        let store = metrics.events.get(&["shop/vault"]);
        store.received.with_label_values(&["woken"]).inc();
        objects.with(key, "1", |tracked| {
            let now = TIME.parse().unwrap();
            tracked.note_success(now);
            tracked.note_status(&status());
            tracked.memory.next_refresh = Some(now);
        });
    }

    /// The HELP and TYPE lines of the declared metrics for which `filter` returns true.
    fn declared(filter: impl Fn(&MetricInfo) -> bool) -> BTreeSet<String> {
        let metrics = metrics().into_iter().filter(filter);
        metrics
            .flat_map(|MetricInfo { name, kind, help, .. }| {
                let kind = format!("{kind:?}").to_lowercase();
                [format!("# HELP {name} {help}"), format!("# TYPE {name} {kind}")]
            })
            .collect()
    }

    fn exposed(text: &str) -> BTreeSet<String> {
        let lines = text.lines().filter(|line| line.starts_with('#'));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn every_series_ends_with_its_object_or_store() {
        let metrics = Metrics::new(Registry::new()).unwrap();
        let (objects, key) = (Objects::default(), ObjectKey::new("shop", "db"));
        emit_all(&metrics, &objects, &key);
        let text = metrics.encode(&objects, 0, 0);
        assert_eq!(exposed(&text), declared(|_| true));
        for info in super::metrics() {
            let prefix = format!("{}{{", info.name);
            for line in text.lines().filter(|line| line.starts_with(&prefix)) {
                for label in [info.owner, info.labels].concat() {
                    assert!(line.contains(&format!("{label}=\"")), "{line}");
                }
            }
        }
        objects.remove(&key);
        let text = metrics.encode(&objects, 0, 0);
        assert_eq!(exposed(&text), declared(|info| !info.owner.contains(&"name")));
        metrics.events.remove("shop/vault");
        let text = metrics.encode(&objects, 0, 0);
        assert_eq!(exposed(&text), declared(|info| info.owner.is_empty()));
    }
}
