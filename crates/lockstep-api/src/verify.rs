//! What is checked after a wave of a rollout, before the next begins.

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

/// What is checked after each wave, once it is ready and has stayed so for `soak`: before the next wave begins, and before the
/// rollout is complete. A check that fails, or does not pass in time, stops the rollout as `onFailure` says. The way back is not
/// checked. The installation has to grant lockstep the right to it, namespace by namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = ("has(self.job) != has(self.httpGet)", "verify needs exactly one of job, httpGet")
)]
pub struct Verify {
    /// A Job that has to complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<VerifyJob>,
    /// A request that has to be answered with a status from 200 to 299.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get: Option<VerifyHttpGet>,
    /// How long the check of one wave may take. A request is made again and again until then. Default: `2m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

impl Verify {
    /// `timeout`, or its default.
    pub fn timeout(&self) -> std::time::Duration {
        self.timeout.unwrap_or(Duration::from_secs(120)).to_std()
    }
}

/// A Job that is made from a CronJob, as `kubectl create job --from=cronjob/NAME` does. The CronJob can be suspended: then it is
/// there for lockstep only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerifyJob {
    /// cronJob is the name of a CronJob of the same namespace, at most 52 characters.
    #[schemars(length(min = 1, max = 52), regex(pattern = crate::name::SUBDOMAIN))]
    pub cron_job: String,
}

/// A GET request to a Service of the same namespace, through the API server's own proxy: lockstep needs no way to the pods. No
/// redirect is followed, no credentials go along, and of the answer nothing but its status is looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "!has(self.path) || self.path.matches('^(/[A-Za-z0-9._~-]+)*/?$') && !(self.path + '/').contains('/./') && !(self.path + '/').contains('/../')",
        "path has to begin with / and to be of letters, digits and -._~/, without the parts . and .."
    )
)]
pub struct VerifyHttpGet {
    /// The name of a Service of the same namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub service: String,
    /// A port of the Service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// The path: letters, digits and `-._~/`; there is no query, so that nothing secret can stand in it. Default: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub path: Option<String>,
    /// How the pods are spoken to; with `https` the API server takes any certificate. Default: `http`.
    #[serde(default, skip_serializing_if = "HttpScheme::is_http")]
    pub scheme: HttpScheme,
}

/// How the pods of a Service are spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HttpScheme {
    /// In the clear.
    #[default]
    Http,
    /// With TLS. Whose certificate it is, is not looked at.
    Https,
}

impl HttpScheme {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_http(&self) -> bool {
        *self == Self::Http
    }

    /// Its name, as in YAML.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The check of one wave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerificationStatus {
    /// The wave that it is about, from 1.
    pub wave: i64,
    /// Which check of this wave it is, from 1.
    pub attempt: i64,
    /// When it began (RFC 3339).
    pub start_time: String,
    /// Where it stands.
    pub state: VerificationState,
    /// Whether its Job was made. It is made once: one that is deleted before its end was seen is not made again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub made: bool,
    /// What was found last, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Where the check of a wave stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum VerificationState {
    /// It has not passed yet.
    Running,
    /// It passed.
    Passed,
    /// It failed, or did not pass in time.
    Failed,
    /// It cannot be made: what it names does not exist, or the API server refuses it.
    Blocked,
    /// lockstep has no right to make it.
    Forbidden,
    /// It counts no longer: a target was no longer ready, the spec changed, or somebody asked for another.
    Superseded,
}

impl VerificationState {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Running,
        Self::Passed,
        Self::Failed,
        Self::Blocked,
        Self::Forbidden,
        Self::Superseded,
    ];

    /// Whether it has an outcome still to come.
    pub const fn is_under_way(self) -> bool {
        matches!(self, Self::Running | Self::Blocked | Self::Forbidden)
    }
}
