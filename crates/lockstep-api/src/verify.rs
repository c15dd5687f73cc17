//! Checks that run after each wave of a rollout.

use jiff::Timestamp;
use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

/// Verify is a check that runs after each wave, when the wave is ready and
/// `soak` has passed. The next wave, or the end of the rollout, waits for it.
/// Rollbacks are not verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = ("has(self.job) != has(self.httpGet)", "verify requires exactly one of job, httpGet")
)]
pub struct Verify {
    /// job passes if a Job completes. The namespace must grant lockstep the
    /// ClusterRole `lockstep-verify-jobs`. Exactly one of job and httpGet is
    /// required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<VerifyJob>,
    /// httpGet passes if a GET request to a Service returns a status from 200 to
    /// 299. Other responses, including redirects, are retried until timeout. The
    /// namespace must grant lockstep the ClusterRole `lockstep-verify-services`.
    /// Exactly one of job and httpGet is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get: Option<VerifyHttpGet>,
    /// timeout is the time that the check of one wave may take. Defaults to `2m`.
    /// If it has not passed by then, `onFailure` applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

impl Verify {
    /// Returns `timeout` or its default.
    pub fn timeout(&self) -> std::time::Duration {
        self.timeout.unwrap_or(Duration::from_secs(120)).to_std()
    }
}

/// VerifyJob creates a Job from a CronJob, as
/// `kubectl create job --from=cronjob/NAME` does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerifyJob {
    /// cronJob is the name of a CronJob in the same namespace. lockstep creates one
    /// Job from it for each check. The CronJob may be suspended. At most 52
    /// characters.
    #[schemars(length(min = 1, max = 52), regex(pattern = crate::name::SUBDOMAIN))]
    pub cron_job: String,
}

/// VerifyHttpGet sends a GET request to a Service of the same namespace through
/// the proxy of the API server, without credentials. Only the status of the
/// response is evaluated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "!has(self.path) || self.path.matches('^(/[A-Za-z0-9._~-]+)*/?$') && !(self.path + '/').contains('/./') && !(self.path + '/').contains('/../')",
        "path must begin with / and contain only letters, digits and -._~/, without the segments . and .."
    )
)]
pub struct VerifyHttpGet {
    /// service is the name of a Service in the same namespace. At most 63
    /// characters.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub service: String,
    /// port is a port of the Service. Minimum 1, maximum 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// path is the path of the request, for example `/health/database`. It begins
    /// with `/` and contains letters, digits and `-._~/`. A query is not allowed,
    /// so that no secret is in the URL. Defaults to `/`. At most 512 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub path: Option<String>,
    /// scheme is the protocol between the API server and the pods. Defaults to
    /// `http`.
    ///
    /// - `http`: plain text.
    /// - `https`: TLS. The API server accepts any certificate.
    #[serde(default, skip_serializing_if = "HttpScheme::is_http")]
    pub scheme: HttpScheme,
}

/// HttpScheme is the protocol between the API server and the pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HttpScheme {
    /// Plain text.
    #[default]
    Http,
    /// TLS; the API server accepts any certificate.
    Https,
}

impl HttpScheme {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_http(&self) -> bool {
        *self == Self::Http
    }

    /// Returns the name of the scheme as in YAML.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// VerificationStatus is the state of the check of one wave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerificationStatus {
    /// wave is the number of the wave that is checked, starting at 1.
    pub wave: i64,
    /// attempt is the number of the check of this wave, starting at 1.
    pub attempt: i64,
    /// startTime is the time when the check began (RFC 3339).
    pub start_time: Timestamp,
    /// state is the result of the check so far.
    ///
    /// - `Running`: not passed yet.
    /// - `Passed`: passed.
    /// - `Failed`: failed, or did not pass within timeout.
    /// - `Blocked`: cannot run or be observed: what it refers to does not exist,
    ///   the API server rejects it, or its Job was deleted.
    /// - `Forbidden`: lockstep may not run it.
    /// - `Superseded`: no longer counts, because a target was no longer ready, the
    ///   spec changed, or `lockstep.dev/rotate-now` requested another check.
    pub state: VerificationState,
    /// jobCreated is true if the Job was created. lockstep does not create it again if
    /// someone deletes it before its end was observed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub job_created: bool,
    /// message is what the check last found. Absent if it passed or has not run
    /// yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// VerificationState is the result of the check of a wave so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum VerificationState {
    /// Not passed yet.
    Running,
    /// Passed.
    Passed,
    /// Failed, or did not pass within `timeout`.
    Failed,
    /// Cannot run or be observed: what it refers to does not exist, the API server
    /// rejects it, or its Job was deleted.
    Blocked,
    /// lockstep may not run it.
    Forbidden,
    /// No longer counts: a target was no longer ready, the spec changed, or another
    /// check was requested.
    Superseded,
}

impl VerificationState {
    /// Returns true if the check can still pass or fail.
    pub const fn is_under_way(self) -> bool {
        matches!(self, Self::Running | Self::Blocked | Self::Forbidden)
    }
}
