//! How a new revision of a Secret reaches the pods: wave by wave, watched, held or rolled back.

use std::fmt;

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    duration::Duration,
    status::SourceStatus,
    store::LabelSelector,
    verify::{VerificationStatus, Verify},
};

/// How a new revision of the Secret reaches the pods that read it: workloads are restarted in waves, and each wave has to be
/// ready before the next begins. The installation has to grant lockstep the right to it, namespace by namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "!has(self.waves) || self.waves.size() == 0 || !has(self.maxConcurrent)",
        "rollout takes waves or maxConcurrent, not both"
    )
)]
pub struct Rollout {
    /// The workloads that read the Secret, in the order in which they are restarted; of the same namespace.
    #[schemars(length(min = 1, max = 64))]
    pub targets: Vec<RolloutTarget>,
    /// How many targets are restarted at the same time: every wave is so large. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_concurrent: Option<u32>,
    /// How many targets each wave takes; the last number holds for all waves that follow. `[1, 5]` is one target, then five,
    /// then five, until all are done. In place of `maxConcurrent`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(range(min = 1, max = 1000)))]
    pub waves: Vec<u32>,
    /// How long a wave has to stay ready before the next begins. Default: `0s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak: Option<Duration>,
    /// How long a target may take to become ready after its restart. Default: `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_deadline: Option<Duration>,
    /// The shortest time between two restarts of the same target, so that a source that flaps cannot keep pods from running. What
    /// changes sooner waits. Default: `1m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_interval: Option<Duration>,
    /// What is checked after each wave, before the next begins. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// What happens when a target does not become ready, or a check fails. Default: `Hold`.
    #[serde(default)]
    pub on_failure: OnFailure,
}

impl Rollout {
    /// `progressDeadline`, or its default.
    pub fn progress_deadline(&self) -> std::time::Duration {
        self.progress_deadline
            .unwrap_or(Duration::from_secs(600))
            .to_std()
    }

    /// `minimumInterval`, or its default.
    pub fn minimum_interval(&self) -> std::time::Duration {
        self.minimum_interval.unwrap_or(Duration::from_secs(60)).to_std()
    }

    /// `soak`, or its default.
    pub fn soak(&self) -> std::time::Duration {
        self.soak.unwrap_or(Duration::from_secs(0)).to_std()
    }
}

/// Workloads that read the Secret: one by name, or all of a kind that carry certain labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = ("has(self.name) != has(self.selector)", "a target needs exactly one of name, selector")
)]
pub struct RolloutTarget {
    /// What it is.
    pub kind: WorkloadKind,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::name::SUBDOMAIN))]
    pub name: Option<String>,
    /// Labels of the workloads (not of their pods). They are looked up when a rollout begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// A kind of workload that can be restarted.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum WorkloadKind {
    /// `apps/v1` Deployment.
    #[default]
    Deployment,
    /// `apps/v1` StatefulSet.
    StatefulSet,
    /// `apps/v1` DaemonSet.
    DaemonSet,
    /// `argoproj.io/v1alpha1` Rollout of Argo Rollouts, where it is installed.
    Rollout,
}

impl WorkloadKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [
        Self::Deployment,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::Rollout,
    ];

    /// The kind's name, as in YAML.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Rollout => "Rollout",
        }
    }

    /// Its API group.
    pub const fn group(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet | Self::DaemonSet => "apps",
            Self::Rollout => "argoproj.io",
        }
    }

    /// The version of the group that lockstep speaks.
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

/// What happens when a target does not become ready, or a check fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// The rollout stops, and goes on when the target becomes ready after all, or with the next value of the source. After a check
    /// that failed it goes on when `lockstep.dev/rotate-now` asks for another, or with the next value.
    #[default]
    Hold,
    /// The previous versions of the remote values are read by their ids and written, the workloads that were restarted are
    /// restarted again, and nothing newer is written until the source has something newer than what failed. Only for sources that
    /// keep versions.
    Rollback,
}

/// Where a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutPhase {
    /// A wave is restarted, or waits for its restart.
    Progressing,
    /// A wave is ready, and has to stay so for `soak`.
    Soaking,
    /// A wave is ready, and is checked as `verify` says.
    Verifying,
    /// It stopped at a target that is not ready, or at a check.
    Held,
    /// The previous revision is written, and the workloads that were restarted are restarted again.
    RollingBack,
    /// They run on the previous revision.
    RolledBack,
    /// Every target runs on the revision.
    Complete,
}

impl RolloutPhase {
    /// Every phase.
    pub const ALL: [Self; 7] = [
        Self::Progressing,
        Self::Soaking,
        Self::Verifying,
        Self::Held,
        Self::RollingBack,
        Self::RolledBack,
        Self::Complete,
    ];

    /// Its name, as in YAML.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Progressing => "Progressing",
            Self::Soaking => "Soaking",
            Self::Verifying => "Verifying",
            Self::Held => "Held",
            Self::RollingBack => "RollingBack",
            Self::RolledBack => "RolledBack",
            Self::Complete => "Complete",
        }
    }

    /// Whether nothing more is to be done.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::RolledBack | Self::Complete)
    }

    /// Whether it moves by itself: what changes meanwhile waits.
    pub const fn is_moving(self) -> bool {
        matches!(
            self,
            Self::Progressing | Self::Soaking | Self::Verifying | Self::RollingBack
        )
    }
}

/// The rollout of one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// Where it stands.
    pub phase: RolloutPhase,
    /// The revision that the targets get.
    pub revision: String,
    /// Whether it brings an earlier revision back, after a rollout that failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rollback: bool,
    /// The targets that rollouts before it may have restarted without coming to an end, as `Kind/name`, or `*` where
    /// they were not looked up yet: they can run on other revisions than the one that `previous` names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub touched: Vec<String>,
    /// The generation of the spec that the targets were looked up for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// When the revision was written (RFC 3339).
    pub start_time: String,
    /// When the rollout came to its end (RFC 3339): complete, or rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
    /// The wave that is under way, from 1; 0 until the targets have been looked up.
    pub wave: i64,
    /// Until when the wave has to stay ready (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak_until: Option<String>,
    /// The check of the wave, or of the one before, where the spec has `verify`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<VerificationStatus>,
    /// Why it stands still, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The workloads, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<TargetProgress>,
    /// What the targets ran on before, while it can be needed.
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

/// A revision that the targets ran on before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreviousRevision {
    /// Its short name.
    pub revision: String,
    /// keyId identifies the key and the format of revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub key_id: Option<String>,
    /// revisionHash is the hash of the content under the key of keyId, where revision was named under another key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub revision_hash: Option<String>,
    /// The remote values that it was made from, with their versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceStatus>,
}

/// What was rolled back, and is not written again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefusedRevision {
    /// Its short name.
    pub revision: String,
    /// Keyed hash of everything that it was made from.
    pub fingerprint: String,
    /// keyId identifies the key and the format of fingerprint and revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub key_id: Option<String>,
    /// revisionHash is the hash of the content under the key of keyId, where revision was named under another key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub revision_hash: Option<String>,
    /// The remote values that it was made from, with the versions that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceStatus>,
    /// What is written in its place.
    pub pinned: PreviousRevision,
    /// When it was given up (RFC 3339).
    pub time: String,
    /// Why, in a sentence.
    pub message: String,
}

/// One workload of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetProgress {
    /// What it is.
    pub kind: WorkloadKind,
    /// Its name.
    pub name: String,
    /// The wave that it belongs to, from 1.
    pub wave: i64,
    /// Where it stands.
    pub state: TargetState,
    /// When its pod template got the revision (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_time: Option<String>,
    /// Whether it was not ready before it was restarted: what fails then is not the new value's fault.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_failing: bool,
}

impl fmt::Display for TargetProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// Where one workload stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TargetState {
    /// Its turn has not come.
    Waiting,
    /// It has the revision, and its pods are being replaced.
    Updating,
    /// All of its pods run on the revision and are available.
    Ready,
    /// Those of its pods that its own strategy replaces do; the others keep what they run on: a StatefulSet with `partition`.
    Partial,
    /// It has the revision, and no pods.
    ScaledToZero,
    /// It does not exist.
    Missing,
    /// It is paused: it has the revision, and replaces no pod until it is resumed.
    Paused,
    /// Its strategy is `OnDelete`: it has the revision, and replaces no pod until somebody deletes it.
    OnDelete,
    /// It did not become ready in time.
    NotReady,
    /// It was not ready before its restart, and still is not.
    Failing,
    /// Somebody removed the revision from its pod template.
    Overwritten,
    /// lockstep has no right to restart it.
    Forbidden,
    /// It has no pod template of its own, as an Argo Rollout with `workloadRef`: the workload that has it is to be named.
    NoTemplate,
    /// Its pod template refers to no Secret of the versioned target, or its annotation `lockstep.dev/versioned` does not name the
    /// target, so that no reference may be moved.
    NoReference,
}

impl TargetState {
    /// Every state.
    pub const ALL: [Self; 14] = [
        Self::Waiting,
        Self::Updating,
        Self::Ready,
        Self::Partial,
        Self::ScaledToZero,
        Self::Missing,
        Self::Paused,
        Self::OnDelete,
        Self::NotReady,
        Self::Failing,
        Self::Overwritten,
        Self::Forbidden,
        Self::NoTemplate,
        Self::NoReference,
    ];

    /// Its name, as in YAML.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "Waiting",
            Self::Updating => "Updating",
            Self::Ready => "Ready",
            Self::Partial => "Partial",
            Self::ScaledToZero => "ScaledToZero",
            Self::Missing => "Missing",
            Self::Paused => "Paused",
            Self::OnDelete => "OnDelete",
            Self::NotReady => "NotReady",
            Self::Failing => "Failing",
            Self::Overwritten => "Overwritten",
            Self::Forbidden => "Forbidden",
            Self::NoTemplate => "NoTemplate",
            Self::NoReference => "NoReference",
        }
    }

    /// Whether nothing more is to be done for it.
    pub const fn is_done(self) -> bool {
        matches!(
            self,
            Self::Ready | Self::Partial | Self::ScaledToZero | Self::Missing
        )
    }

    /// Whether the rollout stops at it.
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
