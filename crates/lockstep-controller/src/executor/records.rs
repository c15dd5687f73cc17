//! Counts and logs what a reconcile records.

use lockstep_core::reconcile::Record;
use lockstep_provider::ErrorKind;

use super::Executor;
use crate::objects::Tracked;

impl Executor {
    /// Counts and logs.
    pub(super) fn record(&self, record: Record) {
        let metrics = &self.shared.metrics.process;
        let remember = |change: &dyn Fn(&mut Tracked)| {
            self.shared
                .objects
                .with(&self.key, &self.uid, |tracked| change(tracked));
        };
        match record {
            Record::Sync(why) => tracing::debug!(why, "sync"),
            Record::Succeeded => {
                let now = self.shared.clock.now();
                remember(&|tracked| tracked.note_success(now));
            }
            Record::NotSynced(reason, message) => tracing::info!(%reason, %message, "not synced"),
            Record::Probe(outcome) => metrics.probes.with_label_values(&[outcome]).inc(),
            Record::SecretWrite(outcome) => metrics.writes.with_label_values(&[outcome]).inc(),
            Record::StatusPersisted {
                resource_version,
                status,
            } => remember(&|tracked| {
                tracked.note_status(&status);
                tracked.note_written(resource_version.as_deref(), status.clone());
            }),
            Record::StatusWrite(outcome) => {
                match outcome {
                    "superseded" => tracing::info!(
                        "another process wrote the status; dropping the result of this reconcile"
                    ),
                    "error" => tracing::warn!("the status could not be written"),
                    _ => {}
                }
                metrics.status.with_label_values(&[outcome]).inc();
            }
            Record::Propagation(stage, took) => {
                let propagation = metrics.propagation.with_label_values(&[stage]);
                propagation.observe(took.as_secs_f64());
            }
            Record::Lease { operation, error } => {
                let outcome = error.map_or("ok", ErrorKind::label);
                metrics.leases.with_label_values(&[operation, outcome]).inc();
            }
            Record::LeaseFailed(operation, message) => {
                tracing::warn!(operation, %message, "a lease operation failed");
            }
            Record::CredentialIssued(lease) => tracing::info!(%lease, "issued a credential"),
            Record::Restart(target, outcome) => {
                match outcome {
                    "restarted" => tracing::info!(%target, "restarted"),
                    "unguarded" => tracing::error!(
                        "the admission policy lockstep-workloads does not reject the test request; not restarting workloads"
                    ),
                    _ => {}
                }
                metrics.restarts.with_label_values(&[outcome]).inc();
            }
            Record::Pruned(secret, outcome) => {
                tracing::info!(%secret, outcome, "prunes the Secret of an earlier revision");
            }
            Record::Warning(message) => tracing::warn!("{message}"),
            Record::Debug(message) => tracing::debug!("{message}"),
        }
    }
}
