//! Runs one reconcile: gather → plan → fetch → assemble → apply → report → schedule.

mod acknowledge;
mod item;
mod lease;
mod report;
mod rollout;
mod sync;
mod versions;

use std::{
    collections::BTreeSet,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use lockstep_api::{Reason, SyncedSecret, SyncedSecretStatus};
use lockstep_core::{
    Failure,
    decide::{self, Step, Trigger},
    remote::Requeue,
    report::Outcome,
    schedule::{BatchKey, RefreshSchedule},
    spec, text,
    time::later,
};
use lockstep_provider::{Backlog, StoreKey};
use tracing::Instrument;

use self::{item::Reconcile, report::StatusWrite, sync::Synced};
use crate::{
    context::Shared,
    index::{ObjectKey, store_key},
    lanes::Priority,
    secret::Drift,
};

/// Timeout of one reconcile. Its requests have their own deadlines, so this is a last resort.
const RECONCILE_DEADLINE: Duration = Duration::from_secs(300);

/// Reconciles one object and returns when it is due again. `None` means that it waits for a change.
///
/// It never fails: errors are reported in the status and retried. Thousands of objects can wait for
/// a slot at the same time, so the waiting future is small. The larger future of the work is
/// created when the work starts.
pub async fn reconcile(object: Arc<SyncedSecret>, shared: Arc<Shared>) -> Option<Duration> {
    let mut reconcile = Reconcile::new(ObjectKey::of(&object), object, shared);
    reconcile.rest();
    match reconcile.decide().0 {
        Step::Await => return None,
        Step::Idle(wait) => return Some(wait),
        Step::Fetch(
            Trigger::First
            | Trigger::SpecChanged
            | Trigger::Requested
            | Trigger::Event
            | Trigger::Rollback
            | Trigger::Lease,
        )
        | Step::Lease(_) => {
            reconcile.priority = Priority::High;
        }
        Step::RollOut => reconcile.asks_stores = false,
        Step::Acknowledge | Step::Report | Step::Probe | Step::Fetch(_) => {}
    }
    let slots = reconcile.shared.lanes.lane(reconcile.lane());
    let _slot = slots
        .acquire_beside(reconcile.priority, reconcile.batch_key())
        .await;
    reconcile.backlog = Backlog::new(move || slots.is_full());
    let span = tracing::info_span!("reconcile", synced_secret = %reconcile.key);
    Box::pin(reconcile.run()).instrument(span).await
}

/// Why a reconcile was aborted. Each is a fault in lockstep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("the reconcile timed out")]
    Late,
    #[error("a fault in lockstep itself. See its log for the location")]
    Panicked,
}

/// Runs the work of one reconcile. A panic or an endless wait does not affect other reconciles.
async fn guard<T>(work: impl Future<Output = T>) -> Result<T, Fault> {
    match AssertUnwindSafe(tokio::time::timeout(RECONCILE_DEADLINE, work))
        .catch_unwind()
        .await
    {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(_)) => Err(Fault::Late),
        Err(_) => Err(Fault::Panicked),
    }
}

impl Reconcile {
    async fn run(self) -> Option<Duration> {
        // the due step may have been done, or may have changed, during the wait
        let (step, status) = self.decide();
        let started = Instant::now();
        let outcome = match guard(Box::pin(self.step(step, status.clone()))).await {
            Ok(outcome) => outcome,
            Err(fault) => {
                if fault == Fault::Panicked {
                    self.shared.metrics.panics.inc();
                }
                tracing::error!(%fault, "the reconcile was aborted");
                let failure = Failure::new(Reason::Internal, fault.to_string());
                self.fail(status.as_ref(), &failure.requeued(Requeue::LongBackoff))
                    .await
            }
        };
        self.shared
            .metrics
            .outcome(outcome)
            .observe(started.elapsed().as_secs_f64());
        match self.decide().0 {
            Step::Idle(wait) => Some(wait),
            Step::Await => None,
            // something changed meanwhile: run again at once, but not in a tight loop
            _ => Some(Duration::from_millis(100)),
        }
    }

    fn batch_key(&self) -> BatchKey {
        let batch_key = self.shared.index().batch_key(&self.key);
        batch_key.map_or_else(|| BatchKey::of_object(&self.uid), |(_, batch_key)| batch_key)
    }

    fn lane(&self) -> BTreeSet<StoreKey> {
        if !self.asks_stores {
            return BTreeSet::new();
        }
        spec::store_refs(&self.object.spec)
            .iter()
            .map(|store| store_key(&self.key.namespace, store))
            .collect()
    }

    async fn step(&self, step: Step, status: Option<SyncedSecretStatus>) -> &'static str {
        let status = status.as_ref();
        match step {
            Step::Await | Step::Idle(_) => "unchanged",
            Step::Acknowledge => {
                let suspended = self.object.spec.suspend;
                self.report(status, Outcome::Acknowledged { suspended }).await;
                if suspended {
                    Reason::Suspended.as_str()
                } else {
                    Reason::Synced.as_str()
                }
            }
            Step::Report => {
                self.report(status, Outcome::Unchanged).await;
                "unchanged"
            }
            Step::RollOut => self.roll_out(status).await,
            Step::Lease(_) | Step::Probe | Step::Fetch(_) if !self.asks_stores => "unchanged",
            Step::Lease(action) => Box::pin(self.run_lease_action(status, action)).await,
            Step::Probe => self.probe(status).await,
            Step::Fetch(why) => self.fetch(status, why).await,
        }
    }

    async fn probe(&self, status: Option<&SyncedSecretStatus>) -> &'static str {
        let now = self.shared.clock.now();
        let Some(known) = status.and_then(|status| status.target.as_ref()) else {
            return self.fetch(status, Trigger::Drift).await;
        };
        if self.check_may_write().is_err() {
            // a detected edit could not be repaired
            self.remember(|tracked, _, _| tracked.memory.probe_failed(now));
            return "unchanged";
        }
        let owner = self.owner_of(Some(known));
        let found = {
            let _slot = self.shared.writes.acquire(self.priority).await;
            self.shared.writer.probe(&owner, known).await
        };
        let drifted = match found {
            Ok(drift) => {
                let once = self.object.spec.refresh_policy == lockstep_api::RefreshPolicy::CreatedOnce;
                let (label, drifted) = match drift {
                    Drift::None => ("unchanged", false),
                    Drift::Edited => ("edited", !once),
                    Drift::Gone => ("gone", true),
                };
                self.count_probe(label);
                drifted
            }
            Err(error) => {
                self.count_probe(if error.label() == "foreign" {
                    "foreign"
                } else {
                    "error"
                });
                if error.is_transient() {
                    // no drift is known, and there was nothing to write
                    self.remember(|tracked, _, _| tracked.memory.probe_failed(now));
                    return "unchanged";
                }
                if error.is_foreign() {
                    self.remember(|tracked, _, _| tracked.memory.drifted());
                }
                let failure = error.failure(&owner);
                return self.fail(status, &failure).await;
            }
        };
        if drifted {
            self.remember(|tracked, _, _| tracked.memory.drifted());
            return self.fetch(status, Trigger::Drift).await;
        }
        self.remember(|tracked, observed, settings| tracked.memory.probed(&observed, settings, now));
        "unchanged"
    }

    fn count_probe(&self, outcome: &str) {
        self.shared.metrics.probes.with_label_values(&[outcome]).inc();
    }

    async fn fetch(&self, status: Option<&SyncedSecretStatus>, why: Trigger) -> &'static str {
        tracing::debug!(why = why.label(), "sync");
        self.remember(|tracked, observed, _| tracked.memory.begin(&observed));
        self.shared.events.begin(&self.key);
        match Box::pin(self.sync(status, why)).await {
            Ok(Synced::InSync {
                target,
                sources,
                back,
                waits,
            }) => {
                self.succeeded().await;
                let outcome = Outcome::Synced {
                    target,
                    sources,
                    back,
                    waits: waits.map(|waits| *waits),
                };
                let said = self.report_durably(status, outcome).await;
                self.acknowledge();
                if said == StatusWrite::Persisted {
                    Box::pin(self.clear_versions(status)).await;
                }
                Reason::Synced.as_str()
            }
            Ok(Synced::Waits(pending)) => {
                self.succeeded().await;
                self.report(status, Outcome::Waits(*pending)).await;
                self.acknowledge();
                Reason::WindowClosed.as_str()
            }
            Ok(Synced::Gone) => {
                self.succeeded().await;
                self.report(status, Outcome::Gone).await;
                self.acknowledge();
                // a source that exists again is detected at the refresh interval
                let now = self.shared.clock.now();
                let wait = decide::interval(&self.object.spec);
                self.remember(|tracked, _, _| tracked.memory.retry_at = Some(later(now, wait)));
                Reason::SourceDeleted.as_str()
            }
            Err(failure) => self.fail(status, &failure).await,
        }
    }

    /// Returns the refresh schedule that the object shares with others.
    async fn refresh_schedule(&self) -> RefreshSchedule {
        let Some((store, batch_key)) = self.shared.index().batch_key(&self.key) else {
            return RefreshSchedule::Free;
        };
        let Some(capability) = self.shared.clients.capability(&store).await else {
            return RefreshSchedule::Free;
        };
        let members = self.shared.index().count_members(&store);
        RefreshSchedule::new(&store.label(), members, capability.batch, batch_key)
    }

    async fn succeeded(&self) {
        let refresh_schedule = self.refresh_schedule().await;
        let now = self.shared.clock.now();
        self.remember(|tracked, observed, settings| {
            tracked
                .memory
                .succeeded(&observed, settings, refresh_schedule, now);
            if let Some(wait) = tracked.fresh_for {
                tracked.memory.refresh_within(wait, now);
            }
            tracked.note_success(now);
        });
    }

    async fn fail(&self, status: Option<&SyncedSecretStatus>, failure: &Failure) -> &'static str {
        let now = self.shared.clock.now();
        self.remember(|tracked, observed, _| tracked.memory.failed(&observed, failure, now));
        tracing::info!(reason = %failure.reason, message = %text::escape(&failure.message), "not synced");
        self.report(status, Outcome::Failed(failure)).await;
        self.release_messages(failure);
        failure.reason.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_panics_or_never_ends_becomes_a_fault_that_says_nothing_of_it() {
        assert_eq!(guard(async { 1 }).await, Ok(1));
        let panicked = guard(async { panic!("canary") }).await.map(|(): ()| ());
        assert_eq!(panicked, Err(Fault::Panicked));
        let began = tokio::time::Instant::now();
        assert_eq!(guard(std::future::pending::<()>()).await, Err(Fault::Late));
        assert_eq!(began.elapsed(), RECONCILE_DEADLINE);
        for fault in [Fault::Panicked, Fault::Late] {
            assert!(!fault.to_string().contains("canary"));
        }
    }
}
