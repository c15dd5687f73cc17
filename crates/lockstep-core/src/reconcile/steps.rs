//! The step that is due: a sync, a probe, a rollout step, a lease action, or nothing.

use std::time::Duration;

use lockstep_api::Reason;

use super::{
    Fault,
    due::{Step, Trigger},
    effect::{Done, MessageStep, Record},
    memory::SecretState,
    observed::interval,
    run::Run,
    status::StatusWrite,
    sync::Synced,
};
use crate::{Failure, events, report::Outcome, text, time::later};

impl Run {
    /// Runs the reconcile.
    pub(super) async fn reconcile(mut self) -> Done {
        let step = self.decide();
        let outcome = self.step(step).await;
        Done {
            outcome,
            memory: self.memory,
        }
    }

    /// Reports that an earlier attempt of the reconcile was aborted.
    pub(super) async fn report_fault(mut self, fault: Fault) -> Done {
        // a write may have been under way
        self.memory.secret_state = match self.memory.secret_state {
            SecretState::InSync => SecretState::Unknown,
            secret_state => secret_state,
        };
        let outcome = self.fail(&fault.failure()).await;
        Done {
            outcome,
            memory: self.memory,
        }
    }

    async fn step(&mut self, step: Step) -> &'static str {
        match step {
            Step::Await | Step::Idle(_) => UNCHANGED,
            Step::Acknowledge => {
                let suspended = self.facts.object.spec.suspend;
                self.report(Outcome::Acknowledged { suspended }).await;
                if suspended {
                    Reason::Suspended.as_str()
                } else {
                    Reason::Synced.as_str()
                }
            }
            Step::Report => {
                self.report(Outcome::Unchanged).await;
                UNCHANGED
            }
            Step::RollOut => self.roll_out().await,
            Step::Lease(_) | Step::Probe | Step::Fetch(_) if !self.facts.uses_stores => UNCHANGED,
            Step::Lease(action) => self.run_lease_action(action).await,
            Step::Probe => self.probe().await,
            Step::Fetch(why) => self.fetch(why).await,
        }
    }

    /// Probes the Secret, and syncs if it drifted.
    async fn probe(&mut self) -> &'static str {
        let Some(known) = self.known_target() else {
            return self.fetch(Trigger::Drift).await;
        };
        match self.has_drifted(&known).await {
            Ok(false) => UNCHANGED,
            Ok(true) => self.fetch(Trigger::Drift).await,
            Err(failure) => self.fail(&failure).await,
        }
    }

    async fn fetch(&mut self, why: Trigger) -> &'static str {
        self.record(Record::Sync(why.label())).await;
        let moment = self.moment();
        self.memory.begin(&self.facts.observed(None, moment));
        self.effects.messages(MessageStep::Begin).await;
        match self.sync(why).await {
            Ok(Synced::InSync {
                mut target,
                sources,
                back,
                waits,
            }) => {
                self.succeeded().await;
                target.source_hash = self.source_hash();
                let outcome = Outcome::Synced {
                    target: *target,
                    sources,
                    back,
                    waits: waits.map(|waits| *waits),
                };
                let written = self.report(outcome).await;
                self.acknowledge().await;
                if written == StatusWrite::Persisted {
                    self.prune_versions().await;
                }
                Reason::Synced.as_str()
            }
            Ok(Synced::Waits(pending)) => {
                self.succeeded().await;
                if self.report(Outcome::Waits(*pending)).await == StatusWrite::Lost {
                    // the status has another pending revision, or none
                    self.memory.waiting = None;
                }
                self.acknowledge().await;
                Reason::WindowClosed.as_str()
            }
            Ok(Synced::Gone { left_alone }) => {
                self.succeeded().await;
                self.report(Outcome::Gone { left_alone }).await;
                self.acknowledge().await;
                // a source that exists again is detected at the refresh interval
                let wait = interval(&self.facts.object.spec);
                self.memory.retry_at = Some(later(self.moment().wall, wait));
                Reason::SourceDeleted.as_str()
            }
            Err(failure) => self.fail(&failure).await,
        }
    }

    async fn succeeded(&mut self) {
        let refresh_schedule = self.effects.plan_refresh(()).await;
        let moment = self.moment();
        let observed = self.facts.observed(None, moment);
        let memory = &mut self.memory;
        memory.succeeded(&observed, self.facts.settings, refresh_schedule, moment.wall);
        if let Some(wait) = memory.fresh_for {
            memory.refresh_within(wait, moment.wall);
        }
        self.record(Record::Succeeded).await;
    }

    async fn fail(&mut self, failure: &Failure) -> &'static str {
        self.note_failure(failure);
        let message = text::escape(&failure.message).into_owned();
        self.record(Record::NotSynced(failure.reason, message)).await;
        let written = self.report(Outcome::Failed(failure)).await;
        // messages wait for the next attempt, unless the failure lasts until something changes
        let durable = events::settles(failure) && written == StatusWrite::Persisted;
        self.effects.messages(MessageStep::End { durable }).await;
        failure.reason.as_str()
    }

    /// Releases messages after a sync, unless its status could not be written or a message could not
    /// be confirmed.
    async fn acknowledge(&mut self) {
        let durable = self.memory.retry_at.is_none() && !self.has_unconfirmed;
        if self.has_unconfirmed {
            self.memory.refresh_within(CONFIRM_AGAIN, self.moment().wall);
        }
        self.effects.messages(MessageStep::End { durable }).await;
    }
}

/// Delay before a message is confirmed again whose version could not be read.
const CONFIRM_AGAIN: Duration = Duration::from_secs(5);

/// The outcome of a reconcile that changed nothing.
const UNCHANGED: &str = "unchanged";
