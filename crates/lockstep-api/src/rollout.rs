//! The rollout of a new revision to the pods: waves, hold and rollback.

use std::fmt;

use jiff::Timestamp;
use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    duration::Duration,
    selector::LabelSelector,
    source::SourceStatus,
    verify::{VerificationStatus, Verify},
};

/// Rollout restarts the workloads that read the Secret in waves. Each wave must
/// be ready before the next one begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "!has(self.waves) || self.waves.size() == 0 || !has(self.maxConcurrent)",
        "set only one of waves and maxConcurrent"
    )
)]
pub struct Rollout {
    /// targets is the list of workloads that read the Secret, in the order of their
    /// restart. They are in the namespace of the SyncedSecret. Minimum 1 and
    /// maximum 64 entries, which may select at most 256 workloads. The namespace
    /// must grant lockstep the ClusterRole `lockstep-rollouts`, otherwise the
    /// rollout is held (reason `RolloutForbidden`).
    #[schemars(length(min = 1, max = 64))]
    pub targets: Vec<RolloutTarget>,
    /// maxConcurrent is the number of targets in each wave. Defaults to 1. Minimum
    /// 1, maximum 1000. Not allowed with waves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_concurrent: Option<u32>,
    /// waves is the number of targets in each wave. The last number applies to all
    /// further waves: `[1, 5]` restarts one target, then five at a time. At most 32
    /// numbers, each from 1 to 1000. If empty, maxConcurrent applies. Not allowed
    /// with maxConcurrent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(range(min = 1, max = 1000)))]
    pub waves: Vec<u32>,
    /// soak is the time that a wave must stay ready before it is verified or the
    /// next wave begins, for example `2m`. Defaults to `0s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak: Option<Duration>,
    /// progressDeadline is the time that a target has to become ready after its
    /// restart. Defaults to `10m`. When it has passed, onFailure applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_deadline: Option<Duration>,
    /// minimumInterval is the minimum time between the start of two rollouts, and
    /// between two restarts of the same target. It protects pods from a source that
    /// changes all the time. Defaults to `1m`. A value that changes earlier is
    /// pending (reason `TooSoon`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_interval: Option<Duration>,
    /// verify is a check that runs after each wave, when soak has passed. If
    /// absent, ready targets are sufficient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// onFailure determines what happens if a target does not become ready, or a
    /// check fails. Defaults to `Hold`.
    ///
    /// - `Hold`: the rollout stops. It continues when the target becomes ready,
    ///   when the annotation `lockstep.dev/rotate-now` gets a new value, or with
    ///   the next value of the source. After a failed check, readiness alone does
    ///   not continue it.
    /// - `Rollback`: lockstep reads the previous versions of the remote values,
    ///   writes them, and restarts the workloads again that it had restarted. It
    ///   then writes nothing until the source has a newer version than the failed
    ///   one. Allowed only for sources that keep versions: not with find, generate
    ///   or metadataPolicy `Fetch`, and with at most 64 remote values.
    #[serde(default)]
    pub on_failure: OnFailure,
}

impl Rollout {
    /// Returns `progressDeadline` or its default.
    pub fn progress_deadline(&self) -> std::time::Duration {
        self.progress_deadline
            .unwrap_or(Duration::from_secs(600))
            .to_std()
    }

    /// Returns `minimumInterval` or its default.
    pub fn minimum_interval(&self) -> std::time::Duration {
        self.minimum_interval.unwrap_or(Duration::from_secs(60)).to_std()
    }

    /// Returns `soak` or its default.
    pub fn soak(&self) -> std::time::Duration {
        self.soak.unwrap_or(Duration::from_secs(0)).to_std()
    }
}

/// Each target is one workload by name, or all workloads of a kind with certain
/// labels. Exactly one of name and selector is required.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = ("has(self.name) != has(self.selector)", "a target requires exactly one of name, selector")
)]
pub struct RolloutTarget {
    /// kind is the kind of the workload.
    ///
    /// - `Deployment`: an `apps/v1` Deployment.
    /// - `StatefulSet`: an `apps/v1` StatefulSet.
    /// - `DaemonSet`: an `apps/v1` DaemonSet.
    /// - `Rollout`: an `argoproj.io/v1alpha1` Rollout of Argo Rollouts, which must
    ///   be installed.
    pub kind: WorkloadKind,
    /// name is the name of the workload. At most 253 characters. A workload that
    /// does not exist is skipped and reported (reason `TargetMissing`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::name::SUBDOMAIN))]
    pub name: Option<String>,
    /// selector selects workloads by their own labels, not those of their pods. It
    /// is evaluated when a rollout begins; the workloads are restarted in the order
    /// of their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// WorkloadKind is a kind of workload that lockstep can restart.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum WorkloadKind {
    /// An `apps/v1` Deployment.
    #[default]
    Deployment,
    /// An `apps/v1` StatefulSet.
    StatefulSet,
    /// An `apps/v1` DaemonSet.
    DaemonSet,
    /// An `argoproj.io/v1alpha1` Rollout of Argo Rollouts, which must be installed.
    Rollout,
}

impl WorkloadKind {
    /// Returns the name of the kind as in YAML.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Rollout => "Rollout",
        }
    }

    /// Returns the API group of the kind.
    pub const fn group(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet | Self::DaemonSet => "apps",
            Self::Rollout => "argoproj.io",
        }
    }

    /// Returns the version of the API group that lockstep uses.
    pub const fn version(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet | Self::DaemonSet => "v1",
            Self::Rollout => "v1alpha1",
        }
    }
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// OnFailure determines what happens if a target does not become ready, or a
/// check fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// The rollout stops. It continues when the target becomes ready, when
    /// `lockstep.dev/rotate-now` gets a new value, or with the next value of the
    /// source. After a failed check, readiness alone does not continue it.
    #[default]
    Hold,
    /// lockstep reads the previous versions of the remote values, writes them, and
    /// restarts the workloads again that it had restarted. It then writes nothing
    /// until the source has a newer version than the failed one. Requires sources
    /// that keep versions.
    Rollback,
}

/// rollout is the progress of a rollout. Absent if the spec has no rollout.
///
/// - `Progressing`: a wave is being restarted, or is about to be.
/// - `Soaking`: a wave is ready and must stay ready for `soak`.
/// - `Verifying`: a wave is ready and `verify` is checking it.
/// - `Held`: the rollout stopped at a target that is not ready, or at a check.
/// - `RollingBack`: lockstep is restoring the previous revision.
/// - `RolledBack`: all restarted targets run the previous revision again.
/// - `Complete`: every target runs the revision.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    JsonSchema,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
pub enum RolloutPhase {
    /// A wave is being restarted, or is about to be.
    Progressing,
    /// A wave is ready and must stay ready for `soak`.
    Soaking,
    /// A wave is ready and `verify` is checking it.
    Verifying,
    /// The rollout stopped at a target that is not ready, or at a check.
    Held,
    /// lockstep is restoring the previous revision.
    RollingBack,
    /// All restarted targets run the previous revision again.
    RolledBack,
    /// Every target runs the revision.
    Complete,
}

impl RolloutPhase {
    /// Lists every phase, in the order of their declaration.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// Returns the name of the phase as in YAML.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns true if the rollout has ended and nothing is left to do.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::RolledBack | Self::Complete)
    }

    /// Returns true if the rollout continues by itself. Changes are pending during that time.
    pub const fn is_moving(self) -> bool {
        matches!(
            self,
            Self::Progressing | Self::Soaking | Self::Verifying | Self::RollingBack
        )
    }
}

/// RolloutStatus is the progress of the rollout of one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// phase is the progress of the rollout.
    ///
    /// - `Progressing`: a wave is being restarted, or is about to be.
    /// - `Soaking`: a wave is ready and must stay ready for `soak`.
    /// - `Verifying`: a wave is ready and `verify` is checking it.
    /// - `Held`: the rollout stopped at a target that is not ready, or at a check.
    /// - `RollingBack`: lockstep is restoring the previous revision.
    /// - `RolledBack`: all restarted targets run the previous revision again.
    /// - `Complete`: every target runs the revision.
    pub phase: RolloutPhase,
    /// revision is the revision that the targets get.
    pub revision: String,
    /// rollback is true if the rollout restores an earlier revision after a failed
    /// one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rollback: bool,
    /// touched lists the targets that earlier, unfinished rollouts may have
    /// restarted, as `Kind/name`, or `*` if they were not looked up. They may run
    /// other revisions than the one in previous.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub touched: Vec<String>,
    /// generation is the generation of the spec for which the targets were looked
    /// up. Absent until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// startTime is the time when the revision was written (RFC 3339).
    pub start_time: Timestamp,
    /// endTime is the time when the rollout was complete or rolled back (RFC 3339).
    /// Absent until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Timestamp>,
    /// wave is the number of the current wave, starting at 1. It is 0 until the
    /// targets have been looked up.
    pub wave: i64,
    /// soakEndTime is the time until which the wave must stay ready (RFC 3339).
    /// Absent unless the phase is `Soaking`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak_end_time: Option<Timestamp>,
    /// verification is the check of the current wave or of the one before. Absent
    /// if the spec has no verify.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<VerificationStatus>,
    /// message is why the rollout is held or rolled back. Absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// targets is the list of workloads, in the order of their restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<TargetProgress>,
    /// previous is the revision that the targets ran before. Absent if it can no
    /// longer be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<PreviousRevision>,
}

impl RolloutStatus {
    /// Whether the previous revision must be written before the rollout can go on.
    pub const fn awaits_rollback(&self) -> bool {
        matches!(self.phase, RolloutPhase::RollingBack) && !self.rollback
    }

    /// The number of waves.
    pub fn waves(&self) -> i64 {
        let waves = self.targets.iter().map(|target| target.wave);
        waves.max().unwrap_or_default()
    }
}

/// PreviousRevision is a revision that the targets ran before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreviousRevision {
    /// revision is the name of the revision, in 8 hexadecimal digits.
    pub revision: String,
    /// keyId identifies the key and the format of revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub key_id: Option<String>,
    /// revisionHash is the hash of the content under the key of keyId. Absent
    /// unless revision was computed with another key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub revision_hash: Option<String>,
    /// sources is the list of remote values, with versions, that the revision was
    /// made from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceStatus>,
}

/// RefusedRevision is a revision that was rolled back and is not written again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefusedRevision {
    /// revision is the name of the revision, in 8 hexadecimal digits.
    pub revision: String,
    /// fingerprint is a keyed hash (HMAC-SHA-256) of everything that the revision
    /// was made from.
    pub fingerprint: String,
    /// keyId identifies the key and the format of fingerprint and revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub key_id: Option<String>,
    /// revisionHash is the hash of the content under the key of keyId. Absent
    /// unless revision was computed with another key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub revision_hash: Option<String>,
    /// sources is the list of remote values with the versions that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceStatus>,
    /// pinned is the revision that lockstep writes instead.
    pub pinned: PreviousRevision,
    /// rolledBackTime is the time when the revision was rolled back (RFC 3339).
    pub rolled_back_time: Timestamp,
    /// message is why the revision was rolled back.
    pub message: String,
}

/// Each entry is the progress of one workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetProgress {
    /// kind is the kind of the workload.
    ///
    /// - `Deployment`: an `apps/v1` Deployment.
    /// - `StatefulSet`: an `apps/v1` StatefulSet.
    /// - `DaemonSet`: an `apps/v1` DaemonSet.
    /// - `Rollout`: an `argoproj.io/v1alpha1` Rollout.
    pub kind: WorkloadKind,
    /// name is the name of the workload.
    pub name: String,
    /// wave is the number of the wave that restarts the workload, starting at 1.
    pub wave: i64,
    /// state is the progress of the workload. lockstep continues with `Ready`,
    /// `Partial`, `ScaledToZero` and `Missing`. `NotReady` is the only state that
    /// onFailure `Rollback` rolls back.
    ///
    /// - `Waiting`: not restarted yet.
    /// - `Updating`: has the revision, and its pods are being replaced.
    /// - `Ready`: all of its pods run the revision and are available.
    /// - `Partial`: a StatefulSet with `partition`; the pods that it replaces run
    ///   the revision, the others keep the old one.
    /// - `ScaledToZero`: has the revision and no pods.
    /// - `Missing`: does not exist.
    /// - `Paused`: has the revision, but replaces no pods until it is resumed.
    /// - `OnDelete`: has the revision, but its strategy `OnDelete` replaces no pod
    ///   until someone deletes it.
    /// - `NotReady`: did not become ready after its restart.
    /// - `Failing`: was not ready before its restart, and still is not.
    /// - `Overwritten`: someone removed the revision from its pod template.
    /// - `Forbidden`: lockstep is not allowed to restart it.
    /// - `NoTemplate`: has no pod template, like an Argo Rollout with
    ///   `workloadRef`. Use the workload that has the template as the target.
    /// - `NoReference`: its pod template refers to no Secret of the versioned
    ///   target, or its annotation `lockstep.dev/versioned` does not list the
    ///   target.
    pub state: TargetState,
    /// updatedTime is the time when the pod template got the revision (RFC 3339).
    /// Absent until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_time: Option<Timestamp>,
    /// wasFailing is true if the workload was not ready before its restart. Its
    /// failure is then not attributed to the new value.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_failing: bool,
}

impl fmt::Display for TargetProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// TargetState is the progress of one workload.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
pub enum TargetState {
    /// Not restarted yet.
    Waiting,
    /// Has the revision, and its pods are being replaced.
    Updating,
    /// All of its pods run the revision and are available.
    Ready,
    /// A StatefulSet with `partition`: the pods that it replaces run the revision,
    /// the others keep the old one.
    Partial,
    /// Has the revision and no pods.
    ScaledToZero,
    /// Does not exist.
    Missing,
    /// Has the revision, but replaces no pods until it is resumed.
    Paused,
    /// Has the revision, but its strategy `OnDelete` replaces no pod until someone
    /// deletes it.
    OnDelete,
    /// Did not become ready after its restart.
    NotReady,
    /// Was not ready before its restart, and still is not.
    Failing,
    /// Someone removed the revision from its pod template.
    Overwritten,
    /// lockstep is not allowed to restart it.
    Forbidden,
    /// Has no pod template, like an Argo Rollout with `workloadRef`. The workload
    /// that has the template must be the target.
    NoTemplate,
    /// Its pod template refers to no Secret of the versioned target, or its
    /// annotation `lockstep.dev/versioned` does not list the target.
    NoReference,
}

impl TargetState {
    /// Lists every state, in the order of their declaration.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// Returns the name of the state as in YAML.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns true if nothing is left to do for the target.
    pub const fn is_done(self) -> bool {
        matches!(
            self,
            Self::Ready | Self::Partial | Self::ScaledToZero | Self::Missing
        )
    }

    /// Returns true if the rollout stops at the target.
    pub const fn stops(self) -> bool {
        matches!(
            self,
            Self::Paused
                | Self::OnDelete
                | Self::NotReady
                | Self::Failing
                | Self::Overwritten
                | Self::Forbidden
                | Self::NoTemplate
                | Self::NoReference
        )
    }
}
