//! Proves that the admission policies are enforced, at the start and periodically.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use kube::Client;
use tokio_util::sync::CancellationToken;

use super::options::{Options, RunError};
use crate::{
    admin::Readiness,
    audiences::{self, Audiences, Unusable},
    context::Shared,
    kube::{
        account::Account,
        admission::{self, Verdict},
    },
    metrics::Metrics,
    tasks::Tasks,
};

/// Minimum interval between two proofs.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);
/// After this many consecutive inconclusive proofs, the policy no longer counts as proven.
const PROOF_LAPSES_AFTER: u32 = 2;
/// How long the start waits for the admission policies to take effect. The API server needs a
/// moment after an install.
const SELF_TEST_PATIENCE: Duration = Duration::from_secs(60);

/// First delay before untested audiences are tested again. It doubles each time.
const AUDIENCE_RETRY: Duration = Duration::from_secs(1);

/// Proves the audiences of tokens.
pub(super) struct AudienceProof {
    /// A client without credentials.
    pub(super) anonymous: Client,
    /// Namespace and name of the ServiceAccount whose tokens are presented.
    pub(super) account: (String, String),
    pub(super) readiness: Readiness,
}

impl AudienceProof {
    /// Tests every audience, updates the log, the metrics and `/readyz`, and returns the results
    /// that changed.
    pub(super) async fn run(
        &self,
        client: &Client,
        audiences: &Audiences,
        metrics: &Metrics,
    ) -> Vec<(String, audiences::Verdict)> {
        let account = (self.account.0.as_str(), self.account.1.as_str());
        let changed = audiences.prove(client, &self.anonymous, account).await;
        for (audience, verdict) in &changed {
            match verdict {
                Ok(()) => tracing::info!(
                    audience,
                    "the API server refuses tokens with this audience, so stores can use it"
                ),
                Err(why) => tracing::warn!(audience, %why, "no token is minted with this audience"),
            }
        }
        for (audience, verdict) in audiences.verdicts() {
            let usable = i64::from(verdict.is_ok());
            metrics
                .process
                .audiences
                .with_label_values(&[audience.as_str()])
                .set(usable);
            let state = verdict.map_err(|why| format!("disabled: {why}"));
            self.readiness.note(format!("token audience {audience}"), state);
        }
        changed
    }

    /// Tests every audience again. If the API server turned out to accept one, all stores log in
    /// again so that none keeps using it. If one became usable that a store was refused, the stores
    /// are checked again. A short outage of the API server does not cause new logins.
    async fn run_again(&self, shared: &Shared) {
        let changed = self.run(&shared.client, &shared.audiences, &shared.metrics).await;
        let verdict = |wanted| changed.iter().any(|(_, verdict)| *verdict == wanted);
        if verdict(Err(Unusable::Accepted)) {
            shared.recheck_stores(true).await;
        } else if verdict(Ok(())) && shared.audiences.take_refused() {
            shared.recheck_stores(false).await;
        }
    }
}

/// Proves the policy for Secrets. It retries, because the API server enforces a policy only a
/// moment after its install.
pub(super) async fn prove(client: &Client, options: &Options, metrics: &Metrics) -> Result<(), String> {
    let until = tokio::time::Instant::now() + SELF_TEST_PATIENCE;
    loop {
        let verdict = admission::secrets(client, &options.operator_namespace).await;
        metrics.admission("secrets", verdict == Verdict::Enforced);
        let why = match verdict {
            Verdict::Enforced => return Ok(()),
            Verdict::Open => "the API server accepted a Secret without an owner in a dry run",
            Verdict::Unknown(why) => why,
        };
        let hopeless = options.unsafe_without_admission_policy && verdict == Verdict::Open;
        if hopeless || tokio::time::Instant::now() >= until {
            return Err(why.to_owned());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

pub(super) fn accept(
    verdict: Result<(), String>,
    options: &Options,
    readiness: &Readiness,
) -> Result<(), RunError> {
    match verdict {
        Ok(()) => {
            tracing::info!("admission policy proven: a Secret without owner is refused");
            readiness.there("admission policy");
            Ok(())
        }
        Err(why) if options.unsafe_without_admission_policy => {
            tracing::warn!(
                why,
                "running without a proven admission policy, as --unsafe-without-admission-policy says"
            );
            readiness.there("admission policy");
            Ok(())
        }
        Err(why) => Err(RunError::Admission(why)),
    }
}

/// Proves both policies again periodically. While the one for Secrets is not enforced, no Secret is
/// written.
pub(super) fn prove_periodically(
    tasks: &Tasks,
    shared: &Arc<Shared>,
    options: &Options,
    readiness: &Readiness,
    audiences: AudienceProof,
    mut proven: bool,
) {
    let (shared, options, readiness) = (shared.clone(), options.clone(), readiness.clone());
    tasks.spawn("admission self-test", CancellationToken::new(), async move {
        let mut unknown: u32 = 0;
        loop {
            // The second policy restricts token requests. The operator works without it and reports
            // that it is missing.
            let tokens = match shared.account.as_ref() {
                Account::ServiceAccount { namespace, name } => {
                    admission::token_requests(&shared.client, namespace, name).await
                }
                Account::User(_) => Verdict::Unknown("the operator runs as a user, whom no policy is about"),
            };
            shared
                .metrics
                .admission("token_requests", tokens == Verdict::Enforced);
            if tokens == Verdict::Open {
                tracing::warn!(
                    "the admission policy lockstep-token-requests does not reject the test request"
                );
            }
            let interval = options.admission_check_interval.max(LEAST_INTERVAL);
            sleep_and_retry_audiences(&shared, &audiences, interval).await;
            audiences.run_again(&shared).await;
            let verdict = admission::secrets(&shared.client, &options.operator_namespace).await;
            unknown = match verdict {
                Verdict::Unknown(_) => unknown.saturating_add(1),
                Verdict::Enforced | Verdict::Open => 0,
            };
            match verdict {
                Verdict::Enforced => {
                    proven = true;
                    shared.metrics.admission("secrets", true);
                    shared.policy_proven.store(true, Ordering::Release);
                    shared.may_write.store(true, Ordering::Release);
                    readiness.there("admission policy");
                }
                Verdict::Open => {
                    shared.metrics.admission("secrets", false);
                    shared.policy_proven.store(false, Ordering::Release);
                    if proven && !options.unsafe_without_admission_policy {
                        tracing::error!(
                            "the admission policy lockstep-secrets no longer holds; no Secret is written"
                        );
                        shared.may_write.store(false, Ordering::Release);
                        readiness.missing(
                            "admission policy",
                            "lockstep-secrets no longer refuses what it must refuse",
                        );
                    }
                }
                // If the API server is unreachable, nothing is proven either way.
                Verdict::Unknown(why) => {
                    tracing::warn!(why, "the admission policy could not be proven again");
                    if unknown >= PROOF_LAPSES_AFTER {
                        shared.metrics.admission("secrets", false);
                        shared.policy_proven.store(false, Ordering::Release);
                    }
                }
            }
        }
    });
}

/// Sleeps for this duration. Meanwhile, untested audiences are tested again, because a changed
/// policy takes a moment to take effect.
async fn sleep_and_retry_audiences(shared: &Shared, audiences: &AudienceProof, interval: Duration) {
    let until = tokio::time::Instant::now() + interval;
    let mut pause = AUDIENCE_RETRY;
    loop {
        let retry = tokio::time::Instant::now() + pause;
        if shared.audiences.are_decided() || retry >= until {
            return tokio::time::sleep_until(until).await;
        }
        tokio::time::sleep_until(retry).await;
        pause *= 2;
        audiences.run_again(shared).await;
    }
}
