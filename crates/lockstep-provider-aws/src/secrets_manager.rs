//! Secrets Manager: reads values by name or ARN, twenty in one call if the policy allows it.

mod answer;
mod batch;
mod find;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_sdk_secretsmanager::{Client, config::Builder};
use futures::{StreamExt as _, stream};
use lockstep_api::aws::AwsService;
use lockstep_provider::{CONCURRENT_CALLS, Notice, Operation, Part, ProviderError, RemoteRef, RemoteSecret};
use tokio::time::Instant;

use crate::{
    auth::Caller,
    client::Http,
    config::Config,
    error::{Failed, Purpose, Why, invalid_key},
    locate::{AwsLocator, check_version},
    sdk::common,
    unbatchable::Unbatchable,
    value::tags_as_value,
};

use answer::{Wanted, is_answer_to, is_arn, secret};
pub(crate) use find::PAGE;

/// Maximum number of ids in one call.
pub(crate) const BATCH: usize = 20;
/// How long values are read one by one after a batch was denied.
const DENIED_FOR: Duration = Duration::from_secs(3600);
/// A name that no secret has. A batch with it shows only whether batches are granted.
const NOBODY: &str = "lockstep-check";

/// The action for batches, as messages show it.
const BATCH_ACTION: &str = "secretsmanager:BatchGetSecretValue";
const DESCRIBE_ACTION: &str = "secretsmanager:DescribeSecret on this secret";
const READ_ACTION: &str =
    "secretsmanager:GetSecretValue on this secret, and kms:Decrypt where it has a key of its own";

/// Whether the identity may read several values in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Batches {
    /// No batch was tried yet.
    Unknown,
    /// Batches are granted.
    Granted,
    /// Batches were denied and are not tried again before this time.
    Denied(Instant),
}

/// Reads from Secrets Manager.
pub(crate) struct SecretsManager {
    client: Client,
    caller: Arc<Caller>,
    locator: AwsLocator,
    batches: Mutex<Batches>,
    /// Ids that are unbatchable.
    unbatchable: Unbatchable,
}

impl SecretsManager {
    pub(crate) fn new(config: &Config, caller: Arc<Caller>, http: &Http) -> Self {
        let settings = common!(
            aws_sdk_secretsmanager,
            &config.region,
            config.endpoint.as_deref(),
            http
        );
        Self {
            client: Client::from_conf(settings.build()),
            caller,
            locator: AwsLocator::new(config),
            batches: Mutex::new(Batches::Unknown),
            unbatchable: Unbatchable::default(),
        }
    }

    /// Returns the maximum number of references in one call.
    pub(crate) fn batch(&self) -> usize {
        if self.denied() { 1 } else { BATCH }
    }

    /// Whether a reference can be in a batch: only current values can.
    pub(crate) fn batches(&self, reference: &RemoteRef) -> bool {
        reference.part == Part::Value
            && reference.version.is_none()
            && !self.denied()
            && !self.id(reference).is_ok_and(|id| self.is_single(&id))
    }

    /// Whether an id is read alone because a batch with it was rejected.
    fn is_single(&self, id: &str) -> bool {
        self.unbatchable.contains(id)
    }

    /// Returns a notice if batches are denied. It stays until one succeeds, even when the next try
    /// is due.
    pub(crate) fn notice(&self) -> Option<Notice> {
        matches!(self.known(), Batches::Denied(_)).then(|| Notice {
            reason: "batch_denied",
            message: format!(
                "values are read one by one, because {BATCH_ACTION} is not granted {}: up to {BATCH} times the calls",
                self.caller.identity()
            ),
        })
    }

    fn known(&self) -> Batches {
        *self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether batches are denied and the next try is not yet due.
    fn denied(&self) -> bool {
        matches!(self.known(), Batches::Denied(until) if Instant::now() < until)
    }

    fn learned(&self, batches: Batches) {
        let before = std::mem::replace(
            &mut *self.batches.lock().unwrap_or_else(PoisonError::into_inner),
            batches,
        );
        if matches!(batches, Batches::Denied(_)) && !matches!(before, Batches::Denied(_)) {
            tracing::warn!(
                "{BATCH_ACTION} is not granted {}: values are read one by one",
                self.caller.identity()
            );
        }
    }

    fn batch_denied(&self) {
        self.learned(Batches::Denied(Instant::now() + DENIED_FOR));
    }

    /// Reads values: one result per reference, in order.
    pub(crate) async fn fetch(&self, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        let ids: Vec<Result<String, ProviderError>> =
            refs.iter().map(|reference| self.id(reference)).collect();
        // The ids whose current version is wanted, each once.
        let mut current: Vec<String> = refs
            .iter()
            .zip(&ids)
            .filter(|(reference, _)| reference.version.is_none())
            .filter_map(|(_, id)| id.as_ref().ok().cloned())
            .collect();
        current.sort_unstable();
        current.dedup();
        let values = &self.read(current).await;
        let reads: Vec<_> = refs
            .iter()
            .zip(ids)
            .map(|(reference, id)| async move {
                let id = id?;
                let outcome = match &reference.version {
                    None => values.get(&id).cloned().unwrap_or_else(|| Err(Failed::garbage())),
                    Some(version) => self.read_one(&id, Some(version)).await,
                };
                outcome.map_err(|failed| {
                    failed.error(&Purpose::reading(reference, self.caller.identity(), READ_ACTION))
                })
            })
            .collect();
        stream::iter(reads).buffered(CONCURRENT_CALLS).collect().await
    }

    /// Reads current values of ids, each once.
    async fn read(&self, ids: Vec<String>) -> HashMap<String, Result<RemoteSecret, Failed>> {
        let (unbatchable, together): (Vec<String>, Vec<String>) =
            ids.into_iter().partition(|id| self.is_single(id));
        let mut values = HashMap::new();
        let in_batches = together.len() > 1 && !self.denied();
        if in_batches {
            // Another account's secret is read by its ARN and can have the name of an own one, so no
            // call asks for names and ARNs.
            let (arns, names): (Vec<String>, Vec<String>) =
                together.iter().cloned().partition(|id| is_arn(id));
            let pages = names.chunks(BATCH).chain(arns.chunks(BATCH));
            let pages: Vec<_> = pages.map(|page| self.read_batch(page)).collect();
            let pages: Vec<_> = stream::iter(pages).buffered(CONCURRENT_CALLS).collect().await;
            values.extend(pages.into_iter().flatten());
        }
        // Ids that the batch did not answer are read alone.
        let missing: Vec<String> = together
            .into_iter()
            .filter(|id| !values.contains_key(id))
            .collect();
        let single: Vec<_> = missing
            .iter()
            .chain(&unbatchable)
            .map(|id| async move { (id.clone(), self.read_one(id, None).await) })
            .collect();
        let single: Vec<_> = stream::iter(single).buffered(CONCURRENT_CALLS).collect().await;
        values.extend(single);
        let failed = |id: &String| values.get(id).and_then(|outcome| outcome.as_ref().err());
        if in_batches && !self.denied() {
            self.unbatchable
                .learn(missing.iter().map(|id| (id.as_str(), failed(id))));
        }
        self.unbatchable
            .renew(unbatchable.iter().map(|id| (id.as_str(), failed(id))));
        values
    }

    /// Reads tags: one result per reference, in order.
    pub(crate) async fn tags(&self, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        let reads: Vec<_> = refs.iter().map(|reference| self.tags_of(reference)).collect();
        stream::iter(reads).buffered(CONCURRENT_CALLS).collect().await
    }

    async fn tags_of(&self, reference: &RemoteRef) -> Result<RemoteSecret, ProviderError> {
        let id = self.id(reference)?;
        let answer = self
            .caller
            .call(|key| {
                self.client
                    .describe_secret()
                    .secret_id(&id)
                    .customize()
                    .config_override(Builder::new().credentials_provider(key))
                    .send()
            })
            .await;
        // A secret that is marked for deletion can be described, but its value cannot be read.
        let answer = answer.and_then(|answer| match answer.deleted_date {
            _ if !is_answer_to(&id, answer.name(), answer.arn()) => Err(Failed::Mismatch),
            Some(_) => Err(Failed::deleted()),
            None => Ok(answer),
        });
        let answer = answer.map_err(|failed| {
            failed.error(&Purpose::reading(
                reference,
                self.caller.identity(),
                DESCRIBE_ACTION,
            ))
        })?;
        let tags = answer
            .tags()
            .iter()
            .filter_map(|tag| Some((tag.key()?, tag.value()?)));
        Ok(tags_as_value(&tags.collect()))
    }

    async fn read_one(&self, id: &str, version: Option<&str>) -> Result<RemoteSecret, Failed> {
        let wanted = version.map_or(Wanted::CURRENT, Wanted::new);
        let (uuid, stage) = match version {
            Some(_) => (wanted.id, wanted.stage),
            None => (None, None),
        };
        let answer = self
            .caller
            .call(|key| {
                self.client
                    .get_secret_value()
                    .secret_id(id)
                    .set_version_id(uuid.map(str::to_owned))
                    .set_version_stage(stage.map(str::to_owned))
                    .customize()
                    .config_override(Builder::new().credentials_provider(key))
                    .send()
            })
            .await?;
        let is_asked = is_answer_to(id, answer.name.as_deref(), answer.arn.as_deref());
        if !is_asked || !wanted.is_met(answer.version_id.as_deref(), answer.version_stages()) {
            return Err(Failed::Mismatch);
        }
        let (text, binary) = (answer.secret_string, answer.secret_binary);
        secret(text, binary, answer.version_id, answer.created_date.as_ref()).ok_or_else(Failed::garbage)
    }

    /// Checks whether the store works. The first check finds out whether batches are granted. While
    /// a store is in use, its requests are the check.
    pub(crate) async fn check(&self) -> Result<(), ProviderError> {
        if self.denied() {
            return if self.caller.works() {
                Ok(())
            } else {
                self.caller.check().await
            };
        }
        if self.known() == Batches::Granted && self.caller.works() {
            return Ok(());
        }
        let answer = self
            .caller
            .call(|key| {
                self.client
                    .batch_get_secret_value()
                    .secret_id_list(NOBODY)
                    .customize()
                    .config_override(Builder::new().credentials_provider(key))
                    .send()
            })
            .await;
        match answer {
            Ok(_) => {
                self.learned(Batches::Granted);
                Ok(())
            }
            Err(failed) if failed.why() == Some(Why::Denied) => {
                self.batch_denied();
                Ok(())
            }
            Err(failed) if failed.is_an_answer() => Ok(()),
            Err(failed) => Err(failed.error(&Purpose {
                operation: Operation::Check,
                doing: "checking the store".to_owned(),
                identity: self.caller.identity(),
                missing: String::new(),
                action: BATCH_ACTION,
            })),
        }
    }

    /// Returns the name or ARN of a location.
    fn id(&self, reference: &RemoteRef) -> Result<String, ProviderError> {
        let version = reference.version.as_deref().map_or(Ok(()), |version| {
            check_version(AwsService::SecretsManager, version)
        });
        let id = version.and_then(|()| self.locator.id(&reference.key));
        id.map_err(|error| invalid_key(&reference.key, error))
    }
}
