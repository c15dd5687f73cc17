//! A reconcile as a value: it decides, and an executor performs the effects that it requests.
//!
//! ```text
//!             Facts                       EffectResult
//!               │                              │
//!               ▼                              ▼
//!         Reconcile::start ──▶ Effect    Reconcile::resume ──▶ Effect … Effect::Done
//! ```
//!
//! The machine is written as straight-line code that waits for the result of each effect. It uses
//! no I/O, no clock and no async runtime: [`Reconcile::resume`] continues the code until it
//! requests the next effect. The operator and the tests use the same machine.

mod due;
mod effect;
mod facts;
mod gone;
mod leases;
mod memory;
mod messages;
mod notices;
mod observed;
mod probe;
mod rollout;
mod run;
mod secret;
mod sources;
mod stale;
mod status;
mod steps;
mod sync;
mod versions;

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

pub use due::{Step, Trigger, decide};
pub use effect::{
    CurrentStatus, Done, Effect, EffectResult, LeasePolicy, LeaseSupport, MergeSecret, MessageStep, Moment,
    Notice, ReadSources, Record, Restart, Restarts, RunCheck, SecretRequest, Severity, SourcesRead,
    StatusAnswer, StatusPatch, VersionMessage, Work,
};
pub use facts::{ClusterView, Facts};
pub use memory::{Marks, Memory, SecretState};
pub use observed::{Attempt, Observed, Settings, interval};

use self::{effect::Effects, run::Run};
use crate::Failure;

/// Why a reconcile was aborted. Each is a fault in lockstep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It took too long.
    #[error("the reconcile timed out")]
    Late,
    /// It panicked.
    #[error("a fault in lockstep itself. See its log for the location")]
    Panicked,
    /// The executor returned the result of another effect.
    #[error("a fault in lockstep itself: an effect has the result of another one")]
    Mismatched,
}

/// One reconcile of one object.
pub struct Reconcile {
    effects: Effects,
    run: Pin<Box<dyn Future<Output = Done> + Send>>,
}

impl std::fmt::Debug for Reconcile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reconcile")
    }
}

impl Reconcile {
    /// Starts a reconcile and returns its first effect.
    pub fn start(facts: Facts, moment: Moment) -> (Self, Effect) {
        let effects = Effects::new(moment);
        let run = Run::new(facts, effects.clone());
        Self::begin(effects, Box::pin(run.reconcile()))
    }

    /// Starts to report that a reconcile was aborted.
    pub fn abort(facts: Facts, fault: Fault, moment: Moment) -> (Self, Effect) {
        let effects = Effects::new(moment);
        let run = Run::new(facts, effects.clone());
        Self::begin(effects, Box::pin(run.report_fault(fault)))
    }

    fn begin(effects: Effects, run: Pin<Box<dyn Future<Output = Done> + Send>>) -> (Self, Effect) {
        let mut reconcile = Self { effects, run };
        let first = reconcile.next();
        (reconcile, first)
    }

    /// Takes the result of the last effect and returns the next one.
    pub fn resume(&mut self, result: EffectResult, moment: Moment) -> Effect {
        self.effects.give(result, moment);
        self.next()
    }

    fn next(&mut self) -> Effect {
        match self.run.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Effect::Done(Box::new(done)),
            Poll::Pending => self.effects.take().unwrap_or_else(|| {
                let memory = Memory::default();
                Effect::Done(Box::new(Done {
                    outcome: Fault::Mismatched.outcome(),
                    memory,
                }))
            }),
        }
    }
}

impl Fault {
    /// Returns the failure that users see.
    fn failure(self) -> Failure {
        let reason = lockstep_api::Reason::Internal;
        Failure::new(reason, self.to_string()).requeued(crate::remote::Requeue::LongBackoff)
    }

    fn outcome(self) -> &'static str {
        self.failure().reason.as_str()
    }
}
