//! The history of written revisions.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{rollout::RolloutPhase, source::SourceStatus};

/// Each entry is one revision that was written, and the result of its rollout.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionRecord {
    /// revision is the name of the revision, in 8 hexadecimal digits.
    pub revision: String,
    /// noticedTime is the time when lockstep noticed the change (RFC 3339). Absent
    /// if it was written at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noticed_time: Option<Timestamp>,
    /// writtenTime is the time when the revision was written (RFC 3339).
    pub written_time: Timestamp,
    /// rollback is true if the revision restored an earlier one after a failed
    /// rollout.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rollback: bool,
    /// changed lists remote values whose version differs from that in the previous
    /// revision. At most 4. Empty for the first revision, and if only the spec
    /// changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<SourceStatus>,
    /// changedCount is the number of remote values whose version differs from that
    /// in the previous revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_count: Option<i64>,
    /// rollout is the progress of the rollout of the revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutPhase>,
    /// targetCount is the number of targets of the rollout. Absent if the spec has no
    /// rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_count: Option<i64>,
    /// endTime is the time when the rollout ended (RFC 3339). Absent until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Timestamp>,
    /// message is why the rollout was last held or rolled back. It is kept if the
    /// rollout continued. Absent if it never stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
