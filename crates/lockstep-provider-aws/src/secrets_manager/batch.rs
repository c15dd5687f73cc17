//! Reads several values with one call.

use std::collections::HashMap;

use lockstep_provider::{CallError as _, MAX_TOKEN_BYTES, RemoteSecret};
use tokio::time::Instant;

use super::{
    BATCH, Batches, SecretsManager,
    answer::{Wanted, answered_id, secret},
};
use crate::{
    error::{Failed, Why},
    sdk::send,
    unbatchable::{Batched, Outcomes, Unbatchable},
};

/// Maximum length of a value in a batch, with its version, in bytes. The service stores at most 64
/// KiB.
const LONGEST_IN_BATCH: usize = 128 * 1024;
/// Maximum length of all values of a batch together, in bytes.
const MOST_IN_BATCH: usize = 4 << 20;

impl Batched for SecretsManager {
    const BATCH: usize = BATCH;

    fn unbatchable(&self) -> &Unbatchable {
        &self.unbatchable
    }

    /// Whether batches are denied and the next try is not yet due.
    fn denied(&self) -> bool {
        matches!(self.known(), Batches::Denied(until) if Instant::now() < until)
    }

    /// The result lacks the ids that the response omits or answers twice.
    async fn read_batch(&self, ids: &[String]) -> Outcomes {
        let mut outcomes = BatchOutcomes::default();
        let mut kept = 0;
        let mut after: Option<String> = None;
        // One page per id is already unusual; more pages would be an endless response.
        for _ in 0..=ids.len() {
            let answer = self
                .caller
                .call(|key| {
                    let request = self
                        .client
                        .batch_get_secret_value()
                        .set_secret_id_list(Some(ids.to_vec()))
                        .set_next_token(after.clone());
                    send!(aws_sdk_secretsmanager, request, key)
                })
                .await;
            let mut answer = match answer {
                Ok(answer) => answer,
                Err(failed) => {
                    if failed.why() == Some(Why::Denied) {
                        self.batch_denied();
                    } else if !failed.is_an_answer() {
                        outcomes.fail_rest(ids, &failed);
                    }
                    return outcomes.into_results();
                }
            };
            self.learned(Batches::Granted);
            for value in answer.secret_values.take().unwrap_or_default() {
                let Some(id) = answered_id(ids, value.name.as_deref(), value.arn.as_deref()) else {
                    continue;
                };
                let is_current = Wanted::CURRENT.is_met(
                    value.version_id.as_deref(),
                    value.version_stages.as_deref().unwrap_or_default(),
                );
                let secret = secret(
                    value.secret_string,
                    value.secret_binary,
                    value.version_id,
                    value.created_date.as_ref(),
                );
                let outcome = match secret {
                    Some(secret) if is_current => fits(secret),
                    Some(_) => Err(Failed::Mismatch),
                    None => continue,
                };
                kept += outcome.as_ref().map_or(0, length);
                outcomes.add(id, value.arn, outcome);
                if kept > MOST_IN_BATCH {
                    outcomes.fail_rest(ids, &Failed::garbage());
                    return outcomes.into_results();
                }
            }
            for error in answer.errors() {
                if let Some(id) = ids.iter().find(|id| Some(id.as_str()) == error.secret_id()) {
                    let failed = Failed::of_part(error.error_code(), error.message());
                    outcomes.add(id, None, Err(failed));
                }
            }
            let next = answer.next_token.take();
            after = next.filter(|token| (1..=MAX_TOKEN_BYTES).contains(&token.len()));
            if after.is_none() {
                break;
            }
        }
        outcomes.into_results()
    }

    async fn read_alone(&self, id: &str) -> Result<RemoteSecret, Failed> {
        self.read_one(id, None).await
    }
}

/// The results of a batch for each id. An id that two secrets answer has no outcome, because either
/// could be the wrong one.
#[derive(Default)]
struct BatchOutcomes(HashMap<String, Vec<Outcome>>);

/// The ARN of a secret, unless it is an error, and the result of the read.
type Outcome = (Option<String>, Result<RemoteSecret, Failed>);

impl BatchOutcomes {
    fn add(&mut self, id: &str, arn: Option<String>, outcome: Result<RemoteSecret, Failed>) {
        let outcomes = self.0.entry(id.to_owned()).or_default();
        // The same secret, once for its name and once for its ARN.
        let is_known = arn.is_some() && outcomes.iter().any(|(known, _)| *known == arn);
        // Two are enough to know that they differ.
        if !is_known && outcomes.len() < 2 {
            outcomes.push((arn, outcome));
        }
    }

    /// Fails the ids that have no outcome.
    fn fail_rest(&mut self, ids: &[String], failed: &Failed) {
        for id in ids {
            let outcomes = self.0.entry(id.clone()).or_default();
            if outcomes.is_empty() {
                outcomes.push((None, Err(failed.clone())));
            }
        }
    }

    fn into_results(self) -> Outcomes {
        self.0
            .into_iter()
            .filter_map(|(id, mut outcomes)| {
                let (_, outcome) = outcomes.pop()?;
                outcomes.is_empty().then_some((id, outcome))
            })
            .collect()
    }
}

/// Returns the length of a value and its version in bytes.
fn length(secret: &RemoteSecret) -> usize {
    secret.value.len() + secret.version.as_ref().map_or(0, String::len)
}

/// Returns a value of a batch, unless it is longer than the service stores.
fn fits(secret: RemoteSecret) -> Result<RemoteSecret, Failed> {
    if length(&secret) > LONGEST_IN_BATCH {
        return Err(Failed::garbage());
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oversized_value_in_a_batch_is_rejected() {
        let of = |value: usize| {
            let (value, version) = ("x".repeat(value), "v".repeat(36));
            secret(Some(value), None, Some(version), None).map(fits)
        };
        assert!(of(65_536).unwrap().is_ok());
        let failed = of(LONGEST_IN_BATCH).unwrap().unwrap_err();
        assert_eq!(failed.why(), Some(Why::Garbage));
    }

    #[test]
    fn text_that_is_no_version_id_is_left_out() {
        let version = |id: &str| {
            let secret = secret(Some("x".to_owned()), None, Some(id.to_owned()), None);
            secret.unwrap().version
        };
        let id = "11111111-1111-1111-1111-111111111111";
        assert_eq!(version(id), Some(format!("uuid/{id}")));
        let long = "v".repeat(LONGEST_IN_BATCH);
        let spaced = id.replace('-', " ");
        for id in [
            "",
            "hunter2-the-password",
            &spaced,
            &format!("{id}@AWSCURRENT"),
            &long,
        ] {
            assert_eq!(version(id), None, "{id}");
        }
    }

    #[test]
    fn id_that_two_secrets_answer_has_no_outcome() {
        let mut outcomes = BatchOutcomes::default();
        for (id, arn) in [
            ("once", Some("x")),
            ("again", Some("x")),
            ("again", Some("x")),
            ("two", Some("x")),
            ("two", Some("y")),
            ("two", Some("x")),
            ("error", Some("x")),
            ("error", None),
        ] {
            outcomes.add(id, arn.map(str::to_owned), Err(Failed::garbage()));
        }
        let all = ["once", "again", "two", "error", "none"].map(str::to_owned);
        outcomes.fail_rest(&all, &Failed::NotSent);
        let mut ids: Vec<_> = outcomes.into_results().into_keys().collect();
        ids.sort_unstable();
        assert_eq!(ids, ["again", "none", "once"]);
    }
}
