//! What a step of a rollout decides from.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lockstep_api::Rollout;

use super::workload::{Observation, Target};

/// What a look at a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// The API server did not answer: nothing is known.
    Unknown,
    /// It passed.
    Passed,
    /// It has not passed yet, and why.
    NotYet(String),
    /// It failed, and how.
    Failed(String),
    /// It cannot be made, and why: nobody's value is to blame.
    Blocked(String),
    /// lockstep may not make it, and who can grant it how.
    Forbidden(String),
}

/// What a step of a rollout depends on.
#[derive(Debug, Clone, Copy)]
pub struct RolloutInput<'a> {
    /// What the spec says.
    pub spec: &'a Rollout,
    /// What was seen of the targets that [`super::rollout::looks`] names. One that is not in it is as good as unknown.
    pub seen: &'a BTreeMap<Target, Observation>,
    /// When which target was last restarted, also by rollouts of other Secrets.
    pub restarted: &'a BTreeMap<Target, Timestamp>,
    /// What was seen of the check that [`super::verify::wanted`] names; `Unknown` where there is none.
    pub check: &'a Check,
    /// The command that grants the right to restart workloads of the namespace.
    pub grant: &'a str,
    /// Now.
    pub now: Timestamp,
}
