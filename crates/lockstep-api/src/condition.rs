//! Conditions as kstatus and GitOps tools read them.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reason::Reason;

/// ConditionType is the aspect of an object that a condition describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ConditionType {
    /// Whether the Secret is in sync with its spec, or the store works. A Secret
    /// stays ready during a rollout and while a change is pending.
    Ready,
    /// Present and true while lockstep retries or a rollout is in progress. No
    /// action is needed.
    Reconciling,
    /// Present and true until someone changes what the message names: the spec, the
    /// store, a grant or a workload.
    Stalled,
    /// Present and true while a value that changed at its source is not written
    /// yet. The message contains what it waits for, and how to write it at once.
    RotationPending,
    /// Whether every target of `rotation.rollout` runs the current revision.
    /// Present since the first rollout. While it is false, the reason and message
    /// state which target or check it waits for.
    RolloutComplete,
    /// Present and true while a version at its source is older than
    /// `rotation.maxAge`. Rotate it at its source.
    RotationOverdue,
    /// Present and true while a lease is left to expire, because lockstep could not
    /// revoke it or cannot prove that it recorded it. Revoke it in Vault, or wait
    /// until it expires.
    LeaseUnrevoked,
}

/// ConditionStatus states whether a condition applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// The condition applies.
    True,
    /// The condition does not apply.
    False,
    /// It is not known.
    Unknown,
}

/// Each condition describes one aspect of the object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// type is the aspect of the object that the condition describes.
    ///
    /// - `Ready`: whether the Secret is in sync with its spec, or the store works.
    ///   A Secret stays ready during a rollout and while a change is pending.
    /// - `Reconciling`: lockstep retries, or a rollout is in progress. No action is
    ///   needed.
    /// - `Stalled`: someone must change what the message names: the spec, the
    ///   store, a grant or a workload.
    /// - `RotationPending`: a value that changed at its source is not written yet.
    /// - `RolloutComplete`: whether every target of `rotation.rollout` runs the
    ///   current revision.
    /// - `RotationOverdue`: a version at its source is older than
    ///   `rotation.maxAge`. Rotate it at its source.
    /// - `LeaseUnrevoked`: a lease is left to expire. Revoke it in Vault, or wait
    ///   until it expires.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// status is whether the condition applies.
    ///
    /// - `True`: it applies.
    /// - `False`: it does not apply.
    /// - `Unknown`: it is not known.
    pub status: ConditionStatus,
    /// reason is why the condition has this status, in one word.
    /// `docs/reference/reasons.md` describes each reason and what to do.
    pub reason: String,
    /// message contains the details of the reason. It contains no secret value and
    /// no text of a backend.
    #[serde(default)]
    pub message: String,
    /// lastTransitionTime is the time when status last changed (RFC 3339).
    pub last_transition_time: Timestamp,
    /// observedGeneration is the generation of the spec that the condition
    /// describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

impl Condition {
    /// Returns true if the condition is of the type `kind` and its status is `True`.
    pub fn holds(&self, kind: ConditionType) -> bool {
        self.kind == kind && self.status == ConditionStatus::True
    }

    /// Returns true if the condition has this reason.
    pub fn has_reason(&self, reason: Reason) -> bool {
        self.reason == reason.as_str()
    }
}
