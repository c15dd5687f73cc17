//! The check of a wave, between the moment it is ready and the next wave.
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
//! An attempt stands in the status before anything is done for it, and the name of its Job follows from that alone. So an operator
//! that ends between any two steps makes no second Job, and finds the first one. That the Job was made stands in the status too: one
//! that somebody deleted is not made again.

use std::time::Duration;

use jiff::Timestamp;
use lockstep_api::{
    Rollout, RolloutStatus, VerificationState, VerificationStatus, Verify, VerifyHttpGet, VerifyJob,
    annotation,
};
use serde_json::{Map, Value, json};

use super::input::{Check, RolloutInput};
use crate::{
    schedule, text,
    time::{later, to_seconds},
};

/// What the names of Jobs begin with; the admission policy `lockstep-jobs` holds lockstep to it.
pub const JOB_PREFIX: &str = "lockstep-verify-";
/// How much of the name of a SyncedSecret the name of a Job holds: such a name has 63 characters at most.
const NAME_PART: usize = 30;
/// How long a Job that has finished stays at least: somebody has to look at it before it goes.
const JOB_STAYS: Duration = Duration::from_secs(3600);

/// What an attempt belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The name of the SyncedSecret.
    pub synced_secret: &'a str,
    /// Its uid.
    pub uid: &'a str,
    /// The rollout.
    pub rollout: &'a RolloutStatus,
    /// The check.
    pub verification: &'a VerificationStatus,
}

/// What a step says of the check.
#[derive(PartialEq, Eq)]
pub(super) enum Judgement {
    Passed,
    Waits,
    Stops,
}

/// The check that a step has to see, if any: one that is under way.
pub fn wanted<'a>(rollout: &'a RolloutStatus, spec: &Rollout) -> Option<&'a VerificationStatus> {
    spec.verify.as_ref()?;
    if rollout.rollback || rollout.phase.is_over() || rollout.awaits_rollback() {
        return None;
    }
    of_wave(rollout).filter(|check| check.state.is_under_way())
}

/// The check of the wave that is under way.
pub(super) fn of_wave(rollout: &RolloutStatus) -> Option<&VerificationStatus> {
    rollout
        .verification
        .as_ref()
        .filter(|check| check.wave == rollout.wave)
}

pub(super) fn has_failed(rollout: &RolloutStatus) -> bool {
    of_wave(rollout).is_some_and(|check| check.state == VerificationState::Failed)
}

/// The next attempt at the wave.
pub(super) fn begin(rollout: &mut RolloutStatus, now: Timestamp) {
    let attempt = of_wave(rollout).map_or(0, |check| check.attempt) + 1;
    rollout.verification = Some(VerificationStatus {
        wave: rollout.wave,
        attempt,
        start_time: to_seconds(now),
        state: VerificationState::Running,
        made: false,
        message: None,
    });
}

/// Has the wave checked once more, where it was or is being checked.
pub(super) fn supersede(rollout: &mut RolloutStatus) {
    let wave = rollout.wave;
    let check = rollout.verification.as_mut().filter(|check| check.wave == wave);
    if let Some(check) =
        check.filter(|check| check.state.is_under_way() || check.state == VerificationState::Failed)
    {
        check.state = VerificationState::Superseded;
    }
}

/// Takes in what was found of the check under way.
pub(super) fn judge(rollout: &mut RolloutStatus, verify: &Verify, cx: &RolloutInput<'_>) -> Judgement {
    let Some(check) = &mut rollout.verification else {
        return Judgement::Waits;
    };
    let nothing_learnt = unknown(verify);
    let (state, message) = match cx.check {
        Check::Unknown if check.state != VerificationState::Running => return Judgement::Stops,
        Check::Unknown if !is_late(check, verify, cx) => return Judgement::Waits,
        // nobody's value is to blame. It goes on when something can be learnt
        Check::Unknown => (VerificationState::Blocked, &nothing_learnt),
        Check::Passed => {
            check.made = verify.job.is_some();
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
        // its time begins when it can be made
        check.start_time = to_seconds(cx.now);
    }
    check.state = state;
    check.message = Some(message.clone());
    // only a Job that is there has an outcome, or none yet
    let has_answered = matches!(state, VerificationState::Running | VerificationState::Failed);
    check.made |= has_answered && verify.job.is_some();
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

/// Whether the check has had its time.
fn is_late(check: &VerificationStatus, verify: &Verify, cx: &RolloutInput<'_>) -> bool {
    let began = check.start_time.parse().ok();
    began.is_some_and(|began| cx.now >= later(began, verify.timeout()))
}

fn unknown(verify: &Verify) -> String {
    let timeout = lockstep_api::Duration::from(verify.timeout());
    format!(
        "nothing could be learnt within timeout {timeout}: the API server does not answer lockstep's requests. The rollout goes on when it does"
    )
}

/// What is said of an attempt whose Job was made, and is no longer there: it is not made again, since nobody knows what it did.
pub fn cleared(attempt: &Attempt<'_>) -> Check {
    Check::Blocked(format!(
        "Job/{} was made, and was deleted before its end was seen. The rollout goes on when {} asks for another try, or with the next value of the source",
        job_name(attempt),
        annotation::ROTATE_NOW
    ))
}

/// The path of the request that an `httpGet` is, at the API server.
///
/// # Errors
/// When admission would not have let the spec in: a sentence that names the field.
pub fn request_path(namespace: &str, get: &VerifyHttpGet) -> Result<String, String> {
    let path = get.path.as_deref().unwrap_or("/");
    let plain = |text: &str, more: &[u8]| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
    };
    let climbs = path.split('/').any(|part| part == "." || part == "..");
    if !path.starts_with('/') || climbs || !plain(path, b"-._~/") {
        return Err(
            "rotation.rollout.verify.httpGet.path has to begin with /, and to be of letters, digits and -._~/"
                .to_owned(),
        );
    }
    if !text::is_label(&get.service) {
        return Err("rotation.rollout.verify.httpGet.service has to be the name of a Service".to_owned());
    }
    Ok(format!(
        "/api/v1/namespaces/{}/services/{}/proxy{path}",
        text::path_segment(namespace),
        // the colons between scheme, name and port are its own
        proxied(get)
    ))
}

/// The Service as its proxy names it.
pub fn proxied(get: &VerifyHttpGet) -> String {
    format!("{}:{}:{}", get.scheme.as_str(), get.service, get.port)
}

/// The name of an attempt's Job. It is another one for each attempt at each wave of each rollout.
pub fn job_name(attempt: &Attempt<'_>) -> String {
    let check = attempt.verification;
    let seeds = (
        attempt.uid,
        attempt.rollout.revision.as_str(),
        attempt.rollout.start_time.as_str(),
        check.wave,
        check.attempt,
    );
    // names of SyncedSecrets are ASCII
    let name = attempt.synced_secret;
    let name = name.get(..name.len().min(NAME_PART)).unwrap_or_default();
    let name = name.replace('.', "-");
    format!(
        "{JOB_PREFIX}{}-{:08x}",
        name.trim_end_matches('-'),
        schedule::hash(seeds) >> 32
    )
}

/// What an attempt's Job says of itself, in the annotation [`annotation::VERIFIES`].
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

/// The Job of an attempt, made from a CronJob.
///
/// It belongs to the CronJob, and goes with it; but not as one of those that the CronJob's own controller counts and clears away,
/// perhaps before anybody has looked at it.
///
/// # Errors
/// When the CronJob has no template: a sentence that says so.
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
    let timeout = verify.timeout().as_secs().max(1);
    let deadline = spec.get("activeDeadlineSeconds").and_then(Value::as_u64);
    spec.insert(
        "activeDeadlineSeconds".to_owned(),
        json!(deadline.map_or(timeout, |deadline| deadline.min(timeout))),
    );
    let stays = spec.get("ttlSecondsAfterFinished").and_then(Value::as_u64);
    spec.insert(
        "ttlSecondsAfterFinished".to_owned(),
        json!(stays.unwrap_or_default().max(JOB_STAYS.as_secs())),
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

/// Reads the Job of an attempt.
pub fn read_job(attempt: &Attempt<'_>, job: &Value) -> Check {
    let name = job_name(attempt);
    let said = job
        .pointer("/metadata/annotations")
        .and_then(|annotations| annotations.get(annotation::VERIFIES))
        .and_then(Value::as_str);
    if said != Some(subject(attempt).as_str()) {
        return Check::Blocked(format!(
            "Job/{name} exists, and is not lockstep's. The rollout goes on when it is deleted"
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

/// What is named in messages: the CronJob.
pub fn cron_job(job: &VerifyJob) -> String {
    format!("CronJob/{}", job.cron_job)
}
