//! The input of a rollout step.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lockstep_api::Rollout;

use super::workload::{Observation, Target};

/// The result of observing a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// The API server did not respond, so the result is unknown.
    Unknown,
    /// The check passed.
    Passed,
    /// The check has not passed yet, with the reason.
    NotYet(String),
    /// The check failed, with the reason.
    Failed(String),
    /// The check cannot run, with the reason. The new value is not the cause.
    Blocked(String),
    /// lockstep may not run the check, with the command that grants it.
    Forbidden(String),
}

/// The input of [`super::rollout::step`].
#[derive(Debug, Clone, Copy)]
pub struct RolloutInput<'a> {
    /// `rotation.rollout` of the spec.
    pub spec: &'a Rollout,
    /// The observations of the targets from [`super::rollout::targets_to_observe`]. A missing one
    /// counts as unknown.
    pub seen: &'a BTreeMap<Target, Observation>,
    /// The last restart of each target, including those by rollouts of other Secrets.
    pub restarted: &'a BTreeMap<Target, Timestamp>,
    /// The observation of the check from [`super::verify::wanted`]; `Unknown` if there is none.
    pub check: &'a Check,
    /// The command that lets lockstep restart workloads in the namespace.
    pub grant: &'a str,
    /// The current time.
    pub now: Timestamp,
}
