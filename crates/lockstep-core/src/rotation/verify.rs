//! Runs the check of a wave after it is ready and before the next wave.
//!
//! ```text
//!  ready and soaked                 passed
//! ────────────────▶ ┌─────────┐ ─────────────▶ ┌────────┐ ──▶ the next wave, or complete
//!                   │ Running │                │ Passed │
//!                   └─────────┘                └────────┘
//!   no right, or     │ ▲     │ failed, or late
//!   what it names    │ │     └──────────────▶ ┌────────┐ ──▶ Held or RollingBack
//!   does not exist   ▼ │ granted, or there    │ Failed │
//!      ┌─────────────────────┐                └────────┘
//!      │ Forbidden / Blocked │ ──▶ Held            │ rotate-now, or another spec
//!      └─────────────────────┘                     ▼
//!                │  a target is not ready   ┌────────────┐
//!                └────────────────────────▶ │ Superseded │ ──▶ ready and soaked: the next attempt
//!                                           └────────────┘
//! ```
//!
//! An attempt is recorded in the status before its first request, and determines the name of its
//! Job. So an operator that stops between two steps finds its Job and does not create a second one.
//! The status also records that the Job was created: a deleted Job is not created again.

use std::time::Duration;

use jiff::Timestamp;
use lockstep_api::{
    Rollout, RolloutStatus, VerificationState, VerificationStatus, Verify, VerifyHttpGet, VerifyJob,
    annotation,
};
use serde_json::{Map, Value, json};

use super::input::{Check, RolloutInput};
use crate::{
    stable_hash::StableHash,
    text,
    time::{later, to_seconds},
};

/// The prefix of Job names, which the admission policy `lockstep-jobs` enforces.
pub const JOB_PREFIX: &str = "lockstep-verify-";
/// Maximum length of the SyncedSecret's name within a Job name, which has at most 63 characters.
const NAME_PART: usize = 30;
/// Maximum of both limits of a Job, which the admission policy `lockstep-jobs` enforces.
const MAX_JOB_SECONDS: u64 = 86_400;
/// Minimum time that a finished Job is kept, so that its result can be read.
const JOB_STAYS: Duration = Duration::from_secs(3600);

/// One attempt of a check.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The name of the SyncedSecret.
    pub synced_secret: &'a str,
    /// The uid of the SyncedSecret.
    pub uid: &'a str,
    /// The rollout that is verified.
    pub rollout: &'a RolloutStatus,
    /// The recorded state of the check.
    pub verification: &'a VerificationStatus,
}

/// How a rollout step continues after a check.
#[derive(PartialEq, Eq)]
pub(super) enum Judgement {
    Passed,
    Waits,
    Stops,
}

/// Returns the check in progress that a step has to observe, if any.
pub fn wanted<'a>(rollout: &'a RolloutStatus, spec: &Rollout) -> Option<&'a VerificationStatus> {
    spec.verify.as_ref()?;
    if rollout.rollback || rollout.phase.is_over() || rollout.awaits_rollback() {
        return None;
    }
    of_wave(rollout).filter(|check| check.state.is_under_way())
}

/// Returns the check of the current wave.
pub(super) fn of_wave(rollout: &RolloutStatus) -> Option<&VerificationStatus> {
    rollout
        .verification
        .as_ref()
        .filter(|check| check.wave == rollout.wave)
}

pub(super) fn has_failed(rollout: &RolloutStatus) -> bool {
    of_wave(rollout).is_some_and(|check| check.state == VerificationState::Failed)
}

/// Starts the next attempt for the wave.
pub(super) fn begin(rollout: &mut RolloutStatus, now: Timestamp) {
    let attempt = of_wave(rollout).map_or(0, |check| check.attempt) + 1;
    rollout.verification = Some(VerificationStatus {
        wave: rollout.wave,
        attempt,
        start_time: to_seconds(now),
        state: VerificationState::Running,
        job_created: false,
        message: None,
    });
}

/// Discards a running or failed check of the wave, so that it is repeated.
pub(super) fn supersede(rollout: &mut RolloutStatus) {
    let wave = rollout.wave;
    let check = rollout.verification.as_mut().filter(|check| check.wave == wave);
    if let Some(check) =
        check.filter(|check| check.state.is_under_way() || check.state == VerificationState::Failed)
    {
        check.state = VerificationState::Superseded;
    }
}

/// Updates the check in progress from its observation.
pub(super) fn judge(rollout: &mut RolloutStatus, verify: &Verify, cx: &RolloutInput<'_>) -> Judgement {
    let Some(check) = &mut rollout.verification else {
        return Judgement::Waits;
    };
    let nothing_learnt = unknown_result(verify);
    let (state, message) = match cx.check {
        Check::Unknown if check.state != VerificationState::Running => return Judgement::Stops,
        Check::Unknown if !is_late(check, verify, cx) => return Judgement::Waits,
        // the new value is not the cause; the rollout continues when the result is known
        Check::Unknown => (VerificationState::Blocked, &nothing_learnt),
        Check::Passed => {
            check.job_created = verify.job.is_some();
            check.state = VerificationState::Passed;
            check.message = None;
            return Judgement::Passed;
        }
        Check::NotYet(message) => (VerificationState::Running, message),
        Check::Failed(message) => (VerificationState::Failed, message),
        Check::Blocked(message) => (VerificationState::Blocked, message),
        Check::Forbidden(message) => (VerificationState::Forbidden, message),
    };
    if state == VerificationState::Running && check.state != VerificationState::Running {
        // its timeout starts when it can run
        check.start_time = to_seconds(cx.now);
    }
    check.state = state;
    check.message = Some(message.clone());
    // these two states prove that the Job exists
    let has_answered = matches!(state, VerificationState::Running | VerificationState::Failed);
    check.job_created |= has_answered && verify.job.is_some();
    if state == VerificationState::Running && !is_late(check, verify, cx) {
        return Judgement::Waits;
    }
    if state == VerificationState::Running {
        let timeout = lockstep_api::Duration::from(verify.timeout());
        check.state = VerificationState::Failed;
        check.message = Some(format!("not passed within timeout {timeout}: {message}"));
    }
    Judgement::Stops
}

/// Whether the timeout of the check has passed.
fn is_late(check: &VerificationStatus, verify: &Verify, cx: &RolloutInput<'_>) -> bool {
    cx.now >= later(check.start_time, verify.timeout())
}

fn unknown_result(verify: &Verify) -> String {
    let timeout = lockstep_api::Duration::from(verify.timeout());
    format!(
        "the result is still unknown after timeout {timeout}: the API server does not respond. The rollout continues when it does"
    )
}

/// Returns the result of an attempt whose Job was deleted early. The Job is not created again,
/// because its effects are unknown.
pub fn deleted_job_result(attempt: &Attempt<'_>) -> Check {
    Check::Blocked(format!(
        "Job/{} was deleted before its result was known. To retry, set the annotation {} to a new value, or change the value at the source",
        job_name(attempt),
        annotation::ROTATE_NOW
    ))
}

/// Returns the API server path of the request for an `httpGet`.
///
/// # Errors
/// When admission would reject the spec. The message names the field.
pub fn request_path(namespace: &str, get: &VerifyHttpGet) -> Result<String, String> {
    let path = get.path.as_deref().unwrap_or("/");
    let plain = |text: &str, more: &[u8]| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
    };
    let climbs = path.split('/').any(|part| part == "." || part == "..");
    if !path.starts_with('/') || climbs || !plain(path, b"-._~/") {
        return Err(
            "rotation.rollout.verify.httpGet.path: must begin with / and contain only letters, digits and -._~/"
                .to_owned(),
        );
    }
    if !text::is_label(&get.service) {
        return Err("rotation.rollout.verify.httpGet.service: must be the name of a Service".to_owned());
    }
    Ok(format!(
        "/api/v1/namespaces/{}/services/{}/proxy{path}",
        text::path_segment(namespace),
        // the colons between scheme, name and port are its own
        proxied(get)
    ))
}

/// Returns the name of the Service for the proxy of the API server.
pub fn proxied(get: &VerifyHttpGet) -> String {
    format!("{}:{}:{}", get.scheme.as_str(), get.service, get.port)
}

/// Returns the name of an attempt's Job, which is unique per rollout, wave and attempt.
pub fn job_name(attempt: &Attempt<'_>) -> String {
    let check = attempt.verification;
    let hash = StableHash::default()
        .text(attempt.uid)
        .text(&attempt.rollout.revision)
        .text(&attempt.rollout.start_time.to_string())
        .number(check.wave)
        .number(check.attempt);
    // names of SyncedSecrets are ASCII
    let name = attempt.synced_secret;
    let name = name.get(..name.len().min(NAME_PART)).unwrap_or_default();
    let name = name.replace('.', "-");
    format!("{JOB_PREFIX}{}-{}", name.trim_end_matches('-'), hash.finish())
}

/// Returns the value of the annotation [`annotation::VERIFIES`] on an attempt's Job.
fn subject(attempt: &Attempt<'_>) -> String {
    format!(
        "{} revision {} wave {} attempt {} of the rollout of {}",
        attempt.synced_secret,
        attempt.rollout.revision,
        attempt.verification.wave,
        attempt.verification.attempt,
        attempt.rollout.start_time
    )
}

/// Returns the Job of an attempt, made from a CronJob.
///
/// The CronJob owns the Job, so deleting the CronJob deletes it. The CronJob is not its controller:
/// otherwise it would count the Job towards its history limits and could delete it too early.
///
/// # Errors
/// When the CronJob has no template.
pub fn job(attempt: &Attempt<'_>, verify: &Verify, cron_job: &Value) -> Result<Value, String> {
    let text = |path: &str| cron_job.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let name = text("/metadata/name");
    let template = cron_job.pointer("/spec/jobTemplate");
    let spec = template
        .and_then(|template| template.get("spec"))
        .and_then(Value::as_object);
    let Some(mut spec) = spec.cloned() else {
        return Err(format!("CronJob/{name} has no jobTemplate"));
    };
    let timeout = verify.timeout().as_secs().clamp(1, MAX_JOB_SECONDS);
    let deadline = spec.get("activeDeadlineSeconds").and_then(Value::as_u64);
    spec.insert(
        "activeDeadlineSeconds".to_owned(),
        json!(deadline.map_or(timeout, |deadline| deadline.min(timeout))),
    );
    let stays = spec.get("ttlSecondsAfterFinished").and_then(Value::as_u64);
    spec.insert(
        "ttlSecondsAfterFinished".to_owned(),
        json!(
            stays
                .unwrap_or_default()
                .clamp(JOB_STAYS.as_secs(), MAX_JOB_SECONDS)
        ),
    );
    let copied = |field: &str| -> Map<String, Value> {
        let fields = template.and_then(|template| template.get("metadata")?.get(field)?.as_object());
        fields.cloned().unwrap_or_default()
    };
    let (mut labels, mut annotations) = (copied("labels"), copied("annotations"));
    labels.insert(
        annotation::MANAGED_BY_LABEL.to_owned(),
        json!(annotation::MANAGER),
    );
    annotations.insert("cronjob.kubernetes.io/instantiate".to_owned(), json!("manual"));
    annotations.insert(annotation::VERIFIES.to_owned(), json!(subject(attempt)));
    Ok(json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(attempt),
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": "batch/v1",
                "kind": "CronJob",
                "name": name,
                "uid": text("/metadata/uid"),
            }],
        },
        "spec": spec,
    }))
}

/// Reads the result of an attempt from its Job.
pub fn read_job(attempt: &Attempt<'_>, job: &Value) -> Check {
    let name = job_name(attempt);
    let recorded = job
        .pointer("/metadata/annotations")
        .and_then(|annotations| annotations.get(annotation::VERIFIES))
        .and_then(Value::as_str);
    if recorded != Some(subject(attempt).as_str()) {
        return Check::Blocked(format!(
            "Job/{name} exists, but lockstep did not create it. The rollout continues when it is deleted"
        ));
    }
    let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
    let holds = |kind: &str| {
        conditions
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == *kind && condition["status"] == "True")
    };
    if holds("Complete").is_some() {
        return Check::Passed;
    }
    match holds("Failed") {
        Some(failed) => {
            let reason = failed["reason"].as_str().filter(|reason| {
                reason.len() <= 64 && reason.bytes().all(|byte| byte.is_ascii_alphanumeric())
            });
            Check::Failed(format!("Job/{name} failed ({})", reason.unwrap_or("no reason")))
        }
        None => Check::NotYet(format!("Job/{name} has not finished")),
    }
}

/// Returns the name of the CronJob for messages.
pub fn cron_job(job: &VerifyJob) -> String {
    format!("CronJob/{}", job.cron_job)
}
