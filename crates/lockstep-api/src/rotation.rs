//! When a value that changed at its source may reach the cluster, and how old it may get.

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    duration::Duration,
    rollout::{RefusedRevision, Rollout, RolloutPhase, RolloutStatus},
};

/// When a value that changed at its source may reach the cluster, and how old it may get.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "has(self.maxAge) || has(self.windows) && self.windows.size() > 0 || has(self.rollout)",
        "rotation needs maxAge, windows or rollout"
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
    /// How a new revision of the Secret reaches the pods that read it. Default: lockstep restarts nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
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
    /// A value changed at its source, and waits.
    Pending,
    /// The rollout of a revision restarts a wave.
    Progressing,
    /// A wave is ready, and has to stay so for `soak`.
    Soaking,
    /// A wave is ready, and is checked as `verify` says.
    Verifying,
    /// The rollout stopped at a target that is not ready, or at a check.
    Held,
    /// The previous revision is brought back.
    RollingBack,
    /// The previous revision is back, and stays until the source has something newer.
    RolledBack,
    /// The Secret holds what the sources hold, and so do the targets.
    Complete,
}

impl From<RolloutPhase> for RotationPhase {
    fn from(phase: RolloutPhase) -> Self {
        match phase {
            RolloutPhase::Progressing => Self::Progressing,
            RolloutPhase::Soaking => Self::Soaking,
            RolloutPhase::Verifying => Self::Verifying,
            RolloutPhase::Held => Self::Held,
            RolloutPhase::RollingBack => Self::RollingBack,
            RolloutPhase::RolledBack => Self::RolledBack,
            RolloutPhase::Complete => Self::Complete,
        }
    }
}

/// What a changed value waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WaitsFor {
    /// A window of `rotation.windows`.
    Window,
    /// The end of the rollout that is under way.
    Rollout,
    /// `rotation.rollout.minimumInterval` since the last rollout.
    Interval,
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
    /// What it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitsFor>,
    /// When the next window opens, or the interval ends (RFC 3339), while a value waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_window: Option<String>,
    /// The value of the annotation `lockstep.dev/rotate-now` that was last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_rotate_now: Option<String>,
    /// The rollout of the revision that was written last, where the spec has `rollout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// The revision that was rolled back, until the source has something newer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedRevision>,
}
