//! The proof that the admission policies hold, at the start and from time to time.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use kube::Client;
use tokio_util::sync::CancellationToken;

use super::{Options, RunError};
use crate::{
    admin::Readiness,
    admission::{self, Verdict},
    context::Shared,
    identity::Account,
    metrics::Metrics,
    tasks::Tasks,
};

/// The shortest time between two proofs.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);
/// How long the start waits for the admission policies to take effect: the API server needs a moment after an install.
const SELF_TEST_PATIENCE: Duration = Duration::from_secs(60);

/// Proves the policy for Secrets, with patience: after an install it takes the API server a moment to enforce it.
pub(super) async fn prove(client: &Client, options: &Options, metrics: &Metrics) -> Result<(), String> {
    let until = tokio::time::Instant::now() + SELF_TEST_PATIENCE;
    loop {
        let verdict = admission::secrets(client, &options.operator_namespace).await;
        metrics
            .admission
            .with_label_values(&["secrets"])
            .set(i64::from(verdict == Verdict::Enforced));
        let why = match verdict {
            Verdict::Enforced => return Ok(()),
            Verdict::Open => "a Secret without owner would have been written",
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

/// Proves both policies again from time to time. While the one for Secrets does not hold, no Secret is written.
pub(super) fn keep_proving(
    tasks: &Tasks,
    shared: &Arc<Shared>,
    options: &Options,
    readiness: &Readiness,
    mut proven: bool,
) {
    let (shared, options, readiness) = (shared.clone(), options.clone(), readiness.clone());
    tasks.spawn("admission self-test", CancellationToken::new(), async move {
        loop {
            // the second policy guards tokens; the operator works without it, and says so
            let tokens = match shared.account.as_ref() {
                Account::ServiceAccount { namespace, name } => {
                    admission::token_requests(&shared.client, namespace, name).await
                }
                Account::User(_) => Verdict::Unknown("the operator runs as a user, whom no policy is about"),
            };
            shared
                .metrics
                .admission
                .with_label_values(&["token_requests"])
                .set(i64::from(tokens == Verdict::Enforced));
            if tokens == Verdict::Open {
                tracing::warn!(
                    "the admission policy lockstep-token-requests does not refuse what it must refuse"
                );
            }
            tokio::time::sleep(options.admission_check_interval.max(LEAST_INTERVAL)).await;
            let verdict = admission::secrets(&shared.client, &options.operator_namespace).await;
            match verdict {
                Verdict::Enforced => {
                    proven = true;
                    shared.metrics.admission.with_label_values(&["secrets"]).set(1);
                    shared.policy_proven.store(true, Ordering::Release);
                    shared.may_write.store(true, Ordering::Release);
                    readiness.there("admission policy");
                }
                Verdict::Open => {
                    shared.metrics.admission.with_label_values(&["secrets"]).set(0);
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
                // an API server that is away proves nothing either way
                Verdict::Unknown(why) => {
                    tracing::warn!(why, "the admission policy could not be proven again");
                }
            }
        }
    });
}
