//! Waits for the Secret to appear and change, and checks that status and metrics agree.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use lockstep_api::{ConditionStatus, ConditionType, SyncedSecret};
use lockstep_testkit::progress::human;

use super::{cluster::Cluster, operator::Operator, show::wait_for, story::Story};

/// Timeout of each wait.
const PATIENCE: Duration = Duration::from_secs(30);
/// Counters that increase with each write of a Secret.
const WRITES: [&str; 2] = [
    "lockstep_secret_writes_total{outcome=\"created\"}",
    "lockstep_secret_writes_total{outcome=\"updated\"}",
];

/// The SyncedSecret and its Secret, as the administrator sees them.
#[derive(Debug)]
pub(crate) struct Follower {
    story: &'static Story,
    synced_secrets: Api<SyncedSecret>,
    secrets: Api<Secret>,
}

impl Follower {
    pub(crate) fn new(cluster: &Cluster, story: &'static Story) -> Self {
        Self {
            story,
            synced_secrets: Api::namespaced(cluster.client.clone(), story.namespace),
            secrets: Api::namespaced(cluster.client.clone(), story.namespace),
        }
    }

    /// Waits for the Secret with the first value, and returns the time since its SyncedSecret was
    /// created.
    ///
    /// # Errors
    /// Fails if it does not appear.
    pub(crate) async fn appears(&self) -> Result<Duration> {
        wait_for(PATIENCE, async || {
            self.synced_secrets
                .get(self.story.synced_secret)
                .await
                .map_err(Into::into)
        })
        .await
        .context("the SyncedSecret does not exist")?;
        let declared = Instant::now();
        self.has_value(self.story.first).await?;
        Ok(declared.elapsed())
    }

    /// Waits until the Secret contains the value.
    ///
    /// # Errors
    /// Fails after half a minute, with the status.
    pub(crate) async fn has_value(&self, value: &str) -> Result<()> {
        wait_for(PATIENCE, async || {
            let secret = self.secrets.get_opt(self.story.secret).await?;
            let Some(secret) = secret else {
                bail!("no Secret; {}", self.said().await);
            };
            let found = secret
                .data
                .as_ref()
                .and_then(|data| data.get(self.story.key))
                .map(|bytes| bytes.0.as_slice());
            ensure!(
                found == Some(value.as_bytes()),
                "the Secret has a different \"{}\"; {}",
                self.story.key,
                self.said().await
            );
            Ok(())
        })
        .await
    }

    /// Waits until the status is Ready for this generation with a revision other than `old`, and
    /// returns the revision.
    ///
    /// # Errors
    /// Fails after half a minute, with the status.
    pub(crate) async fn is_ready(&self, old: Option<&str>) -> Result<String> {
        wait_for(PATIENCE, async || {
            let object = self.synced_secrets.get(self.story.synced_secret).await?;
            let status = object.status.clone().unwrap_or_default();
            let ready = status
                .condition(ConditionType::Ready)
                .is_some_and(|condition| condition.status == ConditionStatus::True);
            let revision = status.target.map(|target| target.revision).unwrap_or_default();
            ensure!(
                ready
                    && status.observed_generation == object.metadata.generation
                    && !revision.is_empty()
                    && Some(revision.as_str()) != old,
                "{}",
                said(&object)
            );
            Ok(revision)
        })
        .await
    }

    /// Describes the status.
    async fn said(&self) -> String {
        match self.synced_secrets.get(self.story.synced_secret).await {
            Ok(object) => said(&object),
            Err(error) => format!("the SyncedSecret cannot be read: {error}"),
        }
    }

    /// Waits until the metrics show that the SyncedSecret is ready and more than `before` Secrets
    /// were written. Returns the lines and the number of writes.
    ///
    /// # Errors
    /// Fails after half a minute, with the metrics.
    pub(crate) async fn is_measured(&self, operator: &Operator, before: f64) -> Result<(Vec<String>, f64)> {
        let ready = format!(
            "lockstep_synced_secret_ready{{namespace=\"{}\",name=\"{}\"}}",
            self.story.namespace, self.story.synced_secret
        );
        wait_for(PATIENCE, async || {
            let mut lines = operator.metrics(&ready).await?;
            ensure!(
                lines.first().is_some_and(|line| value(line) >= 1.0),
                "{ready} is {}",
                lines.join(" ")
            );
            let mut writes = Vec::new();
            for counter in WRITES {
                writes.extend(operator.metrics(counter).await?);
            }
            let count: f64 = writes.iter().map(|line| value(line)).sum();
            ensure!(count > before, "lockstep still has written {count} Secrets");
            lines.extend(writes);
            Ok((lines, count))
        })
        .await
    }
}

fn value(line: &str) -> f64 {
    line.rsplit(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}

fn said(object: &SyncedSecret) -> String {
    let ready = object
        .status
        .as_ref()
        .and_then(|status| status.condition(ConditionType::Ready));
    match ready {
        Some(condition) => format!(
            "{} ({}): {}",
            if condition.status == ConditionStatus::True {
                "it is Ready"
            } else {
                "it is not Ready"
            },
            condition.reason,
            condition.message
        ),
        None => "the SyncedSecret has no status".to_owned(),
    }
}

/// Formats a delay, such as `140 ms after`. Delays below the polling interval are not shown as a
/// number.
pub(crate) fn after(duration: Duration) -> String {
    if duration < Duration::from_millis(10) {
        "immediately after".to_owned()
    } else {
        format!("{} after", human(duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_value_is_the_last_word_of_the_line() {
        assert!((value("a{b=\"c d\"} 14") - 14.0).abs() < f64::EPSILON);
        assert!(value("a").abs() < f64::EPSILON);
    }

    #[test]
    fn synced_secret_without_status_is_reported() {
        let object: SyncedSecret = serde_json::from_value(serde_json::json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "SyncedSecret",
            "metadata": { "name": "database" },
            "spec": { "data": [] },
        }))
        .unwrap();
        assert_eq!(said(&object), "the SyncedSecret has no status");
    }
}
