//! When a value that changed at its source may reach the cluster, and how old it may get.

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

/// When a value that changed at its source may reach the cluster, and how old it may get.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "has(self.maxAge) || has(self.windows) && self.windows.size() > 0",
        "rotation needs maxAge or windows"
    )
)]
pub struct Rotation {
    /// How old the version at the source may get before the condition `RotationOverdue` and the metric say so. Only stores that
    /// tell when a version was created know its age. Default: any age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// When a value that changed at its source may be written. Outside of all windows it waits, and the condition
    /// `RotationPending` says since when and until when. What was never written, and a Secret that somebody edited or deleted,
    /// does not wait. Default: always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub windows: Vec<RotationWindow>,
}

/// One window, which opens again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotationWindow {
    /// When it opens: cron in five fields (`minute hour day-of-month month day-of-week`; names such as `MON` and `JAN`, lists,
    /// ranges and steps), or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. Where both days are given, either is enough.
    /// A time that the clock skips when daylight saving begins opens it right after the skip.
    #[schemars(
        length(min = 1, max = 200),
        regex(pattern = r"^(@(hourly|daily|midnight|weekly|monthly|yearly|annually)|\S+(\s+\S+){4})$")
    )]
    pub schedule: String,
    /// For how long it is open, in time that passes: at least `1m`.
    pub duration: Duration,
    /// The time zone of `schedule`, such as `Europe/Berlin`. Default: `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_+/-]+$"))]
    pub time_zone: Option<String>,
}

/// Where a rotation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RotationPhase {
    /// A value changed at its source, and waits for a window.
    Pending,
    /// The Secret holds what the sources hold.
    Complete,
}

/// The rotation of a SyncedSecret, where its spec has `rotation`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotationStatus {
    /// Where it stands.
    pub phase: RotationPhase,
    /// Since when a changed value waits (RFC 3339): when lockstep noticed the first change that is not written yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_since: Option<String>,
    /// The revision that the Secret will have when what waits is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_revision: Option<String>,
    /// When the next window opens (RFC 3339), while a value waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_window: Option<String>,
    /// The value of the annotation `lockstep.dev/rotate-now` that was last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_rotate_now: Option<String>,
}
