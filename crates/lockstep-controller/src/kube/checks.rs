//! Runs the checks of rollouts: a Job from a CronJob, or a request to a Service through the API
//! server.

use std::time::Duration;

use http::header;
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::ResourceAttributes;
use kube::{
    Api, Client,
    api::PostParams,
    client::Body,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use lockstep_api::{Verify, VerifyHttpGet, VerifyJob};
use lockstep_core::{
    names,
    rotation::{
        Check,
        verify::{self, Attempt},
    },
    text::shell_quote,
};
use serde_json::{Value, json};

use super::{
    access,
    account::Account,
    admission::{Proofs, Unproven},
    request::{self, ErrorKind, READ_TIMEOUT},
};

/// Timeout of a request to a Service.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The policy that restricts the Jobs that lockstep may create.
const POLICY: &str = "lockstep-jobs";
/// The ClusterRole to bind in namespaces in which lockstep may create Jobs.
const JOBS_ROLE: &str = "lockstep-verify-jobs";
/// The ClusterRole to bind in namespaces to whose Services lockstep may send requests.
const SERVICES_ROLE: &str = "lockstep-verify-services";

/// Runs the checks of rollouts.
#[derive(Debug)]
pub struct Verifier {
    proofs: Proofs<String>,
}

/// The client, account and namespace of a check.
#[derive(Clone, Copy)]
pub struct CheckScope<'a> {
    /// The client of the API server.
    pub client: &'a Client,
    /// The account of this process.
    pub account: &'a Account,
    /// The namespace of the check.
    pub namespace: &'a str,
}

impl std::fmt::Debug for CheckScope<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CheckScope({})", self.namespace)
    }
}

/// The reason why a request to the API server failed.
enum Refused {
    Missing,
    Exists,
    Forbidden,
    /// The policy for Jobs denied it, with this message.
    Denied(String),
    Invalid,
    Unguarded,
    Unknown,
}

fn refused(error: &kube::Error) -> Refused {
    if let kube::Error::Api(status) = error
        && let Some(why) = denial(&status.message)
    {
        return Refused::Denied(why.to_owned());
    }
    match ErrorKind::of(error) {
        ErrorKind::NotFound => Refused::Missing,
        ErrorKind::Conflict => Refused::Exists,
        ErrorKind::Forbidden => Refused::Forbidden,
        ErrorKind::Invalid => Refused::Invalid,
        ErrorKind::Unavailable => Refused::Unknown,
    }
}

/// Returns the message with which the policy for Jobs denied one. Its messages contain nothing of the
/// Job, unlike those of webhooks, or of expressions that fail.
fn denial(message: &str) -> Option<&str> {
    let (job, refusal) = message.strip_prefix("jobs.batch \"")?.split_once('"')?;
    let refusal = refusal.strip_prefix(" is forbidden: ValidatingAdmissionPolicy '")?;
    let (_, why) = refusal
        .strip_prefix(POLICY)?
        .strip_prefix("' with binding '")?
        .split_once("' denied request: ")?;
    (job.starts_with(verify::JOB_PREFIX) && !why.starts_with("expression ")).then(|| why.trim())
}

async fn bounded<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Refused> {
    let answer = request::bounded(READ_TIMEOUT, request).await;
    answer.map_err(|error| refused(&error))
}

impl CheckScope<'_> {
    fn batch(&self, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("batch", "v1", kind));
        Api::namespaced_with(self.client.clone(), self.namespace, &resource)
    }

    async fn get(&self, kind: &str, name: &str) -> Result<Value, Refused> {
        let object = bounded(self.batch(kind).get(name)).await?;
        serde_json::to_value(&object).map_err(|_| Refused::Unknown)
    }

    async fn create_job(&self, job: &Value, dry_run: bool) -> kube::Result<()> {
        let object: DynamicObject = serde_json::from_value(job.clone()).map_err(kube::Error::SerdeError)?;
        let parameters = PostParams {
            dry_run,
            ..PostParams::default()
        };
        self.batch("Job").create(&parameters, &object).await.map(drop)
    }

    async fn may(&self, attributes: ResourceAttributes) -> Option<bool> {
        access::may(self.client, self.namespace, attributes).await
    }

    fn grant(&self, role: &str) -> String {
        format!(
            "kubectl create rolebinding {role} -n {} --clusterrole={role} {}",
            shell_quote(self.namespace),
            self.account.kubectl_option()
        )
    }

    fn forbidden(&self, what: &str, role: &str) -> Check {
        Check::Forbidden(format!(
            "lockstep may not {what}. Ask a cluster administrator to run: {}",
            self.grant(role)
        ))
    }
}

impl Verifier {
    /// Creates a verifier. With `unguarded`, it creates Jobs even if no admission policy restricts
    /// them to those of CronJobs.
    pub fn new(unguarded: bool) -> Self {
        Self {
            proofs: Proofs::new(POLICY, unguarded),
        }
    }

    /// Starts a check, or observes the one that was started.
    pub async fn check(
        &self,
        scope: &CheckScope<'_>,
        spec: &Verify,
        attempt: &Attempt<'_>,
        now: Timestamp,
    ) -> Check {
        match (&spec.job, &spec.http_get) {
            (Some(job), _) => self.job(scope, spec, job, attempt, now).await,
            (None, Some(get)) => http_get(scope, get).await,
            // admission rejects this
            (None, None) => Check::Blocked("verify requires exactly one of job, httpGet".to_owned()),
        }
    }

    async fn job(
        &self,
        scope: &CheckScope<'_>,
        spec: &Verify,
        job: &VerifyJob,
        attempt: &Attempt<'_>,
        now: Timestamp,
    ) -> Check {
        let name = verify::job_name(attempt);
        match scope.get("Job", &name).await {
            Ok(found) => return verify::read_job(attempt, &found),
            Err(Refused::Missing) if attempt.verification.job_created => {
                return verify::deleted_job_result(attempt);
            }
            Err(Refused::Missing) => {}
            Err(Refused::Forbidden) => return scope.forbidden("read Jobs", JOBS_ROLE),
            Err(_) => return Check::Unknown,
        }
        if !names::is_cron_job(&job.cron_job) {
            return Check::Blocked(
                "rotation.rollout.verify.job.cronJob: must be the name of a CronJob".to_owned(),
            );
        }
        let cron_job = match scope.get("CronJob", &job.cron_job).await {
            Ok(found) => found,
            Err(Refused::Missing) => {
                return Check::Blocked(format!(
                    "{} does not exist. The rollout continues when it does",
                    verify::cron_job(job)
                ));
            }
            Err(Refused::Forbidden) => return scope.forbidden("read CronJobs", JOBS_ROLE),
            Err(_) => return Check::Unknown,
        };
        let made = match verify::job(attempt, spec, &cron_job) {
            Ok(made) => made,
            Err(message) => return Check::Blocked(message),
        };
        let result = match self.prove(scope, now).await {
            Ok(()) => bounded(scope.create_job(&made, false)).await,
            Err(refused) => Err(refused),
        };
        let from = verify::cron_job(job);
        match result {
            Ok(()) => {
                tracing::info!(job = %name, cron_job = %job.cron_job, "created the Job that verifies the wave");
                Check::NotYet(format!("Job/{name} has not finished"))
            }
            // an earlier request created it, and its response was lost
            Err(Refused::Exists) => match scope.get("Job", &name).await {
                Ok(found) => verify::read_job(attempt, &found),
                Err(_) => Check::Unknown,
            },
            Err(Refused::Missing) => Check::Blocked(format!(
                "the namespace does not accept the Job of {from}. The rollout continues when it does"
            )),
            Err(Refused::Unguarded) => {
                tracing::error!(
                    namespace = scope.namespace,
                    "the admission policy lockstep-jobs does not reject the test request; not creating a Job"
                );
                Check::Forbidden(
                    "the admission policy lockstep-jobs is not enforced, so lockstep creates no Jobs. Ask a cluster administrator to run: kubectl apply --server-side -k deploy/kustomize/base".to_owned(),
                )
            }
            Err(Refused::Denied(why)) => Check::Blocked(format!(
                "the admission policy {POLICY} rejects the Job of {from}: {why}. Change its jobTemplate. The rollout continues when the Job is accepted"
            )),
            Err(Refused::Forbidden) => {
                let create = ResourceAttributes {
                    group: Some("batch".to_owned()),
                    resource: Some("jobs".to_owned()),
                    verb: Some("create".to_owned()),
                    ..ResourceAttributes::default()
                };
                match scope.may(create).await {
                    Some(true) => Check::Blocked(format!(
                        "an admission policy, a webhook or a quota rejects the Job of {from}. The rollout continues when the Job is accepted"
                    )),
                    Some(false) => scope.forbidden("create Jobs", JOBS_ROLE),
                    None => Check::Unknown,
                }
            }
            Err(Refused::Invalid) => Check::Blocked(format!(
                "the API server rejects the Job from the jobTemplate of {from}. To see why, run: kubectl create job test --from={} -n {} --dry-run=server",
                shell_quote(&format!("cronjob/{}", job.cron_job)),
                shell_quote(scope.namespace)
            )),
            Err(Refused::Unknown) => Check::Unknown,
        }
    }

    /// Sends a dry run of a Job that no CronJob owns, which the policy must deny. Without the
    /// policy, the right to create Jobs would let the operator run anything in the namespace.
    async fn prove(&self, scope: &CheckScope<'_>, now: Timestamp) -> Result<(), Refused> {
        let job = json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": { "name": "lockstep-self-test" },
            "spec": { "template": { "spec": {
                "containers": [{ "name": "refuse-this", "image": "refuse.invalid/this" }],
                "restartPolicy": "Never",
            } } },
        });
        let attempt = scope.create_job(&job, true);
        let proven = self.proofs.prove(scope.namespace.to_owned(), now, attempt).await;
        proven.map_err(|unproven| match unproven {
            Unproven::Open => Refused::Unguarded,
            Unproven::Failed(error) => refused(&error),
            Unproven::TimedOut => Refused::Unknown,
        })
    }
}

/// Sends a request to a Service through the API server, which removes lockstep's credentials from
/// it. Only the status of the response is used.
async fn http_get(scope: &CheckScope<'_>, get: &VerifyHttpGet) -> Check {
    let path = match verify::request_path(scope.namespace, get) {
        Ok(path) => path,
        Err(message) => return Check::Blocked(message),
    };
    let request = http::Request::get(path)
        .header(header::ACCEPT, "*/*")
        .body(Body::empty());
    let Ok(request) = request else {
        return Check::Unknown;
    };
    let service = format!("Service/{}", get.service);
    let status = match tokio::time::timeout(ANSWER_TIMEOUT, scope.client.send(request)).await {
        Ok(Ok(response)) => response.status(),
        Ok(Err(_)) => return Check::Unknown,
        Err(_) => {
            return Check::NotYet(format!(
                "{service} did not respond within {}s",
                ANSWER_TIMEOUT.as_secs()
            ));
        }
    };
    match status.as_u16() {
        200..300 => Check::Passed,
        // from the API server, or from the Service, which may have a wrong password
        code @ (401 | 403) => {
            let proxy = ResourceAttributes {
                resource: Some("services".to_owned()),
                subresource: Some("proxy".to_owned()),
                verb: Some("get".to_owned()),
                name: Some(verify::proxied(get)),
                ..ResourceAttributes::default()
            };
            match scope.may(proxy).await {
                Some(true) => Check::NotYet(format!("{service} returned status {code}")),
                Some(false) => {
                    scope.forbidden("send requests to Services through the API server", SERVICES_ROLE)
                }
                None => Check::Unknown,
            }
        }
        404 => Check::NotYet(format!("{service} returned status 404, or does not exist")),
        503 => Check::NotYet(format!("{service} returned status 503, or has no ready pod")),
        code => Check::NotYet(format!("{service} returned status {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_message_of_the_own_policy_is_reported() {
        let denied = |policy: &str, why: &str| {
            format!(
                "jobs.batch \"lockstep-verify-a-1\" is forbidden: ValidatingAdmissionPolicy '{policy}' with binding 'b' denied request: {why}"
            )
        };
        assert_eq!(
            denial(&denied(POLICY, "the pods set no host")),
            Some("the pods set no host")
        );
        for other in [
            denied("theirs", "canary"),
            denied(POLICY, "expression 'x' resulted in error: canary"),
            format!(
                "admission webhook \"x\" denied the request: {}",
                denied(POLICY, "canary")
            ),
            "jobs.batch \"lockstep-verify-a-1\" is forbidden: exceeded quota: canary".to_owned(),
        ] {
            assert_eq!(denial(&other), None, "{other}");
        }
    }
}
