//! What every test of bad input looks at: the old Secret stays whole, the status says why, the metrics count it, and it
//! heals.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::api::events::v1::Event;
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use lockstep_api::{ConditionStatus, ConditionType, SecretStore, SyncedSecret};
use serde_json::{Value, json};

use crate::shared_cluster::{TestNamespace, eventually, message, ready};

/// A Secret as it was before something went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Whole {
    uid: Option<String>,
    version: Option<String>,
    data: BTreeMap<String, Vec<u8>>,
    revision: String,
}

/// One key from one property.
pub(crate) fn one(secret_key: &str, key: &str, property: &str) -> Value {
    json!({ "secretKey": secret_key, "remoteRef": { "key": key, "property": property } })
}

impl TestNamespace {
    /// Declares a SyncedSecret that is refreshed every second, and waits until it is synced.
    pub(crate) async fn sync(&self, name: &str, spec: Value) -> Whole {
        let mut spec = spec;
        if spec.get("refreshInterval").is_none() {
            spec["refreshInterval"] = json!("1s");
        }
        self.declare(name, spec).await;
        self.wait_for_reason(name, "Synced").await;
        self.whole(name).await
    }

    /// The Secret of a SyncedSecret that is synced.
    pub(crate) async fn whole(&self, name: &str) -> Whole {
        let secret = self.secrets().get(name).await.expect("the Secret");
        let object = self.synced_secrets().get(name).await.expect("the SyncedSecret");
        let target = object.status.and_then(|status| status.target);
        Whole {
            uid: secret.uid(),
            version: secret.resource_version(),
            data: secret
                .data
                .unwrap_or_default()
                .into_iter()
                .map(|(key, value)| (key, value.0))
                .collect(),
            revision: target.expect("a target").revision,
        }
    }

    /// Changes the spec: a merge patch.
    pub(crate) async fn change(&self, name: &str, spec: Value) {
        self.synced_secrets()
            .patch(
                name,
                &PatchParams::default(),
                &Patch::Merge(json!({ "spec": spec })),
            )
            .await
            .expect("the API server takes the new spec");
    }

    /// Waits for the failure of a SyncedSecret that never was synced: exactly this reason and message, no Secret, and a
    /// metric that counts it.
    pub(crate) async fn fails_at_first(&self, name: &str, reason: &str, said: &str) {
        let object = self.wait_for_reason(name, reason).await;
        let expected = format!("{said}. Secret \"{name}\" has not been written yet");
        assert_eq!(message(&object), expected);
        let secret = self.secrets().get_opt(name).await.expect("an answer");
        assert!(secret.is_none(), "there is half a Secret");
        self.failure_is_told(&object, reason).await;
    }

    /// Waits for the failure of a SyncedSecret that was synced before: exactly this reason and message, the old Secret
    /// untouched, and a metric that counts it.
    pub(crate) async fn fails(&self, name: &str, old: &Whole, reason: &str, said: &str) {
        let object = self.wait_for_reason(name, reason).await;
        let expected = format!(
            "{said}. Secret \"{name}\" was left unchanged (revision {})",
            old.revision
        );
        assert_eq!(message(&object), expected);
        self.failure_is_told(&object, reason).await;
        assert_eq!(self.whole(name).await, *old, "the old Secret stays whole");
    }

    /// Waits until no place that people or machines can read holds the text, nor its base64: the operator's log, the
    /// namespace's status and events, the metrics.
    pub(crate) async fn tells_nobody(&self, marker: &str) {
        let coded = BASE64_STANDARD.encode(marker);
        // base64 of a text in the middle of another one differs at its ends, and by where it begins
        let shifted: Vec<_> = (0..3)
            .map(|shift| {
                let padded = BASE64_STANDARD.encode(format!("{}{marker}", "#".repeat(shift)));
                padded[4..padded.len() - 4].to_owned()
            })
            .collect();
        let objects = self
            .synced_secrets()
            .list(&ListParams::default())
            .await
            .expect("the SyncedSecrets");
        let stores: Api<SecretStore> = Api::namespaced(self.client.clone(), &self.namespace);
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let events = eventually("an event: failures make some", || async {
            let events = events.list(&ListParams::default()).await?;
            anyhow::ensure!(!events.items.is_empty(), "there is none");
            Ok(events)
        })
        .await
        .expect("the events");
        let (_, metrics) = self.cluster.operator.get("metrics").await.expect("the metrics");
        let log = self.cluster.operator.log();
        assert!(log.contains(&self.namespace), "the log tells of this room");
        let places = [
            ("the log", log),
            ("a SyncedSecret", json!(objects.items).to_string()),
            (
                "a store",
                json!(
                    stores
                        .list(&ListParams::default())
                        .await
                        .expect("the stores")
                        .items
                )
                .to_string(),
            ),
            ("an event", json!(events.items).to_string()),
            ("the metrics", metrics),
        ];
        for (place, said) in &places {
            for secret in std::iter::once(marker)
                .chain([coded.as_str()])
                .chain(shifted.iter().map(String::as_str))
            {
                let leak = said.lines().find(|line| line.contains(secret));
                assert_eq!(leak, None, "{place} tells a secret");
            }
        }
    }

    async fn failure_is_told(&self, object: &SyncedSecret, reason: &str) {
        let condition = ready(object).expect("Ready");
        assert_eq!(condition.status, ConditionStatus::False);
        let status = object.status.as_ref().expect("a status");
        let others: Vec<_> = [ConditionType::Stalled, ConditionType::Reconciling]
            .into_iter()
            .filter_map(|kind| status.condition(kind))
            .map(|other| (other.status, other.reason.as_str()))
            .collect();
        assert_eq!(
            others,
            [(ConditionStatus::True, reason)],
            "exactly one of the two"
        );
        let outcome = format!("outcome=\"{reason}\"");
        self.metric_becomes(
            "lockstep_reconcile_duration_seconds_count",
            &[&outcome],
            |count| count >= 1.0,
        )
        .await;
        self.gauge_of(&object.name_any(), 0.0).await;
    }

    /// Waits until the SyncedSecret is synced again, its Secret has what it must have, and the gauge says so.
    pub(crate) async fn heals(&self, name: &str) {
        self.wait_for_reason(name, "Synced").await;
        self.gauge_of(name, 1.0).await;
    }

    /// Waits until the gauge `ready` of a SyncedSecret has this value.
    pub(crate) async fn gauge_of(&self, name: &str, value: f64) {
        let labels = [
            format!("namespace=\"{}\"", self.namespace),
            format!("name=\"{name}\""),
        ];
        let labels = [labels[0].as_str(), labels[1].as_str()];
        self.metric_becomes("lockstep_synced_secret_ready", &labels, |ready| {
            (ready - value).abs() < f64::EPSILON
        })
        .await;
    }

    /// Waits until requests of one of this namespace's stores with this outcome have been counted.
    pub(crate) async fn requests_counted(&self, store: &str, operation: &str, outcome: &str) {
        let labels = [
            format!("store=\"{}\"", self.store_label(store)),
            format!("operation=\"{operation}\""),
            format!("outcome=\"{outcome}\""),
        ];
        let labels: Vec<_> = labels.iter().map(String::as_str).collect();
        self.metric_becomes("lockstep_provider_requests_total", &labels, |count| count >= 1.0)
            .await;
    }

    /// How often a store of this namespace was asked to read something.
    pub(crate) async fn reads(&self, store: &str) -> f64 {
        let label = format!("store=\"{}\"", self.store_label(store));
        let labels = [label.as_str(), "operation=\"read\""];
        let operator = &self.cluster.operator;
        operator
            .metric("lockstep_provider_requests_total", &labels)
            .await
            .expect("the metrics")
    }

    fn store_label(&self, store: &str) -> String {
        format!("{}/{store}", self.namespace)
    }

    /// Waits until the sum of a metric's series is so.
    pub(crate) async fn metric_becomes(&self, name: &str, labels: &[&str], is_so: impl Fn(f64) -> bool) {
        let what = format!("the metric {name} {labels:?}");
        eventually(&what, || async {
            let value = self.cluster.operator.metric(name, labels).await?;
            anyhow::ensure!(is_so(value), "it is {value}");
            Ok(())
        })
        .await
        .expect("the metric");
    }
}
