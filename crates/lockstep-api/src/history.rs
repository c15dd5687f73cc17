//! What was written before.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{rollout::RolloutPhase, status::SourceStatus};

/// A revision of the Secret that was written once, and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionRecord {
    /// Its short name.
    pub revision: String,
    /// When lockstep noticed that a source had changed (RFC 3339); earlier than the write where the change had to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noticed_time: Option<String>,
    /// When it was written (RFC 3339).
    pub written_time: String,
    /// Whether an earlier revision came back with it, after a rollout that failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rollback: bool,
    /// The remote values whose version differed from the revision before; at most 4 are listed. None for a revision that a change
    /// of the spec made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<SourceStatus>,
    /// How many remote values had another version than in the revision before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_count: Option<i64>,
    /// How far its rollout came, where the spec has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutPhase>,
    /// How many targets its rollout had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<i64>,
    /// When its rollout ended (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
    /// Why its rollout stood still or failed, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
