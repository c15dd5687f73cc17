//! Conditions, as `kstatus` and GitOps tools read them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reason::Reason;

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ConditionType {
    /// Whether the object is as its spec says.
    Ready,
    /// Present and true while lockstep tries again by itself.
    Reconciling,
    /// Present and true while lockstep waits for somebody to change something.
    Stalled,
    /// Present and true while a value that changed at its source waits.
    RotationPending,
    /// Whether every target of `rotation.rollout` runs on the revision that the Secret has. Present since the first rollout.
    RolloutComplete,
    /// Present and true while a version at its source is older than `rotation.maxAge`.
    RotationOverdue,
    /// Present and true while a lease is left to expire: it is no longer used and could not be revoked, or nothing proves that lockstep
    /// noted it.
    LeaseUnrevoked,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It is not known.
    Unknown,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence. It carries no value and no text of a backend.
    #[serde(default)]
    pub message: String,
    /// When `status` last changed (RFC 3339).
    pub last_transition_time: String,
    /// The generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

impl Condition {
    /// Whether this condition is about `kind` and holds.
    pub fn holds(&self, kind: ConditionType) -> bool {
        self.kind == kind && self.status == ConditionStatus::True
    }

    /// Whether the condition stands for this reason.
    pub fn has_reason(&self, reason: Reason) -> bool {
        self.reason == reason.as_str()
    }
}
