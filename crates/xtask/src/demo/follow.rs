//! Watches the Secret appear and change, and checks that status and metrics say the same.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use lockstep_api::{ConditionStatus, ConditionType, SyncedSecret};
use lockstep_testkit::progress::human;

use super::{cluster::Cluster, operator::Operator, show::wait_for, story::Story};

/// How long what must come may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The counters that grow with each write of a Secret.
const WRITES: [&str; 2] = [
    "lockstep_secret_writes_total{outcome=\"created\"}",
    "lockstep_secret_writes_total{outcome=\"updated\"}",
];

/// What one looks at: the SyncedSecret and its Secret, as the administrator.
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

    /// Waits for the Secret with the first value, and answers how long after its SyncedSecret it was there.
    ///
    /// # Errors
    /// When it does not come.
    pub(crate) async fn appears(&self) -> Result<Duration> {
        wait_for(PATIENCE, async || {
            self.synced_secrets
                .get(self.story.synced_secret)
                .await
                .map_err(Into::into)
        })
        .await
        .context("the SyncedSecret is not there")?;
        let declared = Instant::now();
        self.has_value(self.story.first).await?;
        Ok(declared.elapsed())
    }

    /// Waits until the Secret holds that value.
    ///
    /// # Errors
    /// When it does not within half a minute; the message says what stands in the status.
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
                "the Secret has another \"{}\"; {}",
                self.story.key,
                self.said().await
            );
            Ok(())
        })
        .await
    }

    /// Waits until the status says Ready for this generation and another revision than `old`; answers the revision.
    ///
    /// # Errors
    /// When it does not within half a minute; the message says what stands in the status.
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

    /// What the status says, in words.
    async fn said(&self) -> String {
        match self.synced_secrets.get(self.story.synced_secret).await {
            Ok(object) => said(&object),
            Err(error) => format!("the SyncedSecret cannot be read: {error}"),
        }
    }

    /// Waits until the metrics say that the SyncedSecret is ready and that more than `before` Secrets were written; answers
    /// the two lines and the number of writes.
    ///
    /// # Errors
    /// When they do not within half a minute; the message says what they say.
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
            ensure!(count > before, "lockstep has written {count} Secrets, as before");
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

/// `140 ms after`, or what is more honest when it was faster than it is looked at.
pub(crate) fn after(duration: Duration) -> String {
    if duration < Duration::from_millis(10) {
        "at once after".to_owned()
    } else {
        format!("{} after", human(duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_a_metrics_line_is_its_last_word() {
        assert!((value("a{b=\"c d\"} 14") - 14.0).abs() < f64::EPSILON);
        assert!(value("a").abs() < f64::EPSILON);
    }

    #[test]
    fn a_synced_secret_that_nobody_looked_at_is_told_as_such() {
        let object: SyncedSecret = serde_json::from_value(serde_json::json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "SyncedSecret",
            "metadata": { "name": "database" },
            "spec": { "data": [] },
        }))
        .unwrap();
        assert_eq!(said(&object), "the SyncedSecret has no status");
    }
}
