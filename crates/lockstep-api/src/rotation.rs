//! Windows in which changed values are written, and the age that values may get.

use jiff::Timestamp;
use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    duration::Duration,
    rollout::{RefusedRevision, Rollout, RolloutPhase, RolloutStatus},
};

/// Rotation determines when a changed value is written, how it reaches the
/// pods, and how old it may get.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "has(self.maxAge) || has(self.windows) && self.windows.size() > 0 || has(self.rollout)",
        "rotation requires maxAge, windows or rollout"
    )
)]
pub struct Rotation {
    /// maxAge is the age at which a version at the source is overdue, for example
    /// `90d`. The condition `RotationOverdue` and a metric then report it; the
    /// Secret is left unchanged. If absent, values may get any age. Ignored for
    /// stores that do not report when a version was created. At least one of
    /// maxAge, windows and rollout is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// windows is the list of windows in which a changed value may be written. At
    /// most 16. If empty, changes are written at once. Outside of all windows a
    /// change is pending, and the condition `RotationPending` reports since when
    /// and until when. The first write, and the repair of a Secret that someone
    /// edited or deleted, do not wait.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub windows: Vec<RotationWindow>,
    /// rollout restarts the workloads that read the Secret when its content
    /// changes. If absent, lockstep restarts nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

/// Each window opens at every time of its schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotationWindow {
    /// schedule determines when the window opens: cron in five fields
    /// (`minute hour day-of-month month day-of-week`) with names, lists, ranges and
    /// steps, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. For
    /// example, `0 2 * * 1-5` opens it at 02:00 from Monday to Friday. If both days
    /// are set, either one is sufficient. At most 200 characters.
    ///
    /// A time that is skipped when daylight saving begins opens the window right
    /// after the skip.
    #[schemars(
        length(min = 1, max = 200),
        regex(pattern = r"^(@(hourly|daily|midnight|weekly|monthly|yearly|annually)|\S+(\s+\S+){4})$")
    )]
    pub schedule: String,
    /// duration is the time that the window stays open, for example `3h`. Minimum
    /// `1m`. It is elapsed time, so a change to or from daylight saving time does
    /// not change it.
    pub duration: Duration,
    /// timeZone is the time zone of schedule, as a name of the IANA database such
    /// as `Europe/Berlin`. Defaults to `UTC`. At most 64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_+/-]+$"))]
    pub time_zone: Option<String>,
}

/// RotationPhase is the progress of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RotationPhase {
    /// A value changed at its source and is not written yet.
    Pending,
    /// The rollout restarts a wave.
    Progressing,
    /// A wave is ready and must stay ready for `soak`.
    Soaking,
    /// A wave is ready and `verify` is checking it.
    Verifying,
    /// The rollout stopped at a target that is not ready, or at a check.
    Held,
    /// lockstep is restoring the previous revision.
    RollingBack,
    /// The previous revision is restored, and is kept until the source has a newer
    /// version.
    RolledBack,
    /// The Secret and all targets have the current values.
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

/// waitsFor is what the pending change waits for. Absent if no change is
/// pending.
///
/// - `Window`: the next window of `rotation.windows`.
/// - `Rollout`: the end of the current rollout.
/// - `Interval`: the end of `rotation.rollout.minimumInterval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WaitsFor {
    /// The next window of `rotation.windows`.
    Window,
    /// The end of the current rollout.
    Rollout,
    /// The end of `rotation.rollout.minimumInterval`.
    Interval,
}

/// RotationStatus is the progress of the rotation of a SyncedSecret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotationStatus {
    /// phase is the progress of the rotation.
    ///
    /// - `Pending`: a value changed at its source and is not written yet.
    /// - `Progressing`: the rollout restarts a wave.
    /// - `Soaking`: a wave is ready and must stay ready for `soak`.
    /// - `Verifying`: a wave is ready and `verify` is checking it.
    /// - `Held`: the rollout stopped at a target that is not ready, or at a check.
    /// - `RollingBack`: lockstep is restoring the previous revision.
    /// - `RolledBack`: the previous revision is restored, and is kept until the
    ///   source has a newer version.
    /// - `Complete`: the Secret and all targets have the current values.
    pub phase: RotationPhase,
    /// noticedTime is the time when lockstep noticed the first change that is not
    /// written yet (RFC 3339). Absent if no change is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noticed_time: Option<Timestamp>,
    /// pendingRevision is the revision that the Secret gets when the pending change
    /// is written. Absent if no change is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_revision: Option<String>,
    /// waitsFor is what the pending change waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitsFor>,
    /// nextWindowTime is the time when the next window opens or the interval ends
    /// (RFC 3339). Absent if no change waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_window_time: Option<Timestamp>,
    /// handledRotateNow is the value of the annotation `lockstep.dev/rotate-now`
    /// that lockstep acted on last. Only another value has an effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_rotate_now: Option<String>,
    /// rollout is the progress of the rollout of the last written revision. Absent
    /// if nothing has been rolled out yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// refused is the revision that was rolled back. lockstep does not write it
    /// again until the source has a newer version. Absent if none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedRevision>,
}
