//! The actions for leases, and the retries of those that failed.

use std::time::Duration;

use jiff::Timestamp;

use crate::{remote::Requeue, schedule, time::later};

/// The next action for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Renew the lease with this accessor.
    Renew(String),
    /// Revoke the lease with this accessor, which is unused.
    Revoke(String),
    /// Remove a lease that was left to expire and has expired.
    Forget(String),
    /// Leave leases without a valid MAC to expire.
    Disown,
    /// Remove the finalizer, because nothing is left to revoke.
    Release,
}

/// The lease actions that failed, and when they are retried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retries {
    failed: Vec<Retry>,
    /// The accessors of intents whose request the store answered.
    answered: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Retry {
    action: Action,
    at: Timestamp,
    attempt: u32,
    /// Whether the store does not exist or is invalid.
    gone: bool,
}

impl Retries {
    fn of(&self, action: &Action) -> Option<&Retry> {
        self.failed.iter().find(|retry| retry.action == *action)
    }

    /// Returns when the action may be retried, on the monotonic clock.
    pub fn not_before(&self, action: &Action) -> Timestamp {
        self.of(action).map_or(Timestamp::MIN, |retry| retry.at)
    }

    pub(super) fn is_gone(&self, action: &Action) -> bool {
        self.of(action).is_some_and(|retry| retry.gone)
    }

    /// Records that the action succeeded.
    pub fn done(&mut self, action: &Action) {
        self.forget(action);
        if let Action::Revoke(accessor) = action {
            self.answered.retain(|answered| answered != accessor);
        }
    }

    fn forget(&mut self, action: &Action) {
        self.failed.retain(|retry| retry.action != *action);
    }

    /// Records that the store answered the request for a credential with this accessor, so it
    /// issues none after that.
    pub fn answered(&mut self, accessor: &str) {
        self.answered.push(accessor.to_owned());
    }

    pub(super) fn is_answered(&self, accessor: &str) -> bool {
        self.answered.iter().any(|answered| answered == accessor)
    }

    /// Records that the action failed. `gone` means that the store does not exist or is invalid.
    pub fn failed(&mut self, action: &Action, gone: bool, uid: &str, now: Timestamp) {
        let attempt = self.of(action).map_or(0, |retry| retry.attempt.saturating_add(1));
        let wait = schedule::retry(Requeue::Backoff, Duration::ZERO, None, uid, attempt);
        self.forget(action);
        self.failed.push(Retry {
            action: action.clone(),
            at: later(now, wait),
            attempt,
            gone,
        });
    }
}
