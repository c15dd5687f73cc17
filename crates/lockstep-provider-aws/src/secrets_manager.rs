//! Secrets Manager: reads values by name or ARN, twenty in one call if the policy allows it.

mod answer;
mod batch;
mod find;

use std::{sync::Arc, time::Duration};

use aws_sdk_secretsmanager::Client;
use futures::{StreamExt as _, stream};
use lockstep_api::aws::AwsService;
use lockstep_provider::{
    CONCURRENT_CALLS, CallError as _, Notice, Operation, Part, ProviderError, RemoteRef, RemoteSecret,
};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    auth::Caller,
    client::Http,
    config::Config,
    error::{Failed, Purpose, Why, invalid_key},
    locate::{AwsLocator, check_version},
    sdk::{common, send},
    unbatchable::{self, Batched as _, Unbatchable},
    value::tags_as_value,
};

use answer::{Wanted, is_answer_to, secret};
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
            && !self.id(reference).is_ok_and(|id| self.unbatchable.contains(&id))
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
        *self.batches.lock()
    }

    fn learned(&self, batches: Batches) {
        let before = std::mem::replace(&mut *self.batches.lock(), batches);
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
        // The ids whose current version is wanted.
        let current = refs
            .iter()
            .zip(&ids)
            .filter(|(reference, _)| reference.version.is_none())
            .filter_map(|(_, id)| id.as_ref().ok().cloned())
            .collect();
        let values = &unbatchable::read(self, current).await;
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
                let request = self.client.describe_secret().secret_id(&id);
                send!(aws_sdk_secretsmanager, request, key)
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
                let request = self
                    .client
                    .get_secret_value()
                    .secret_id(id)
                    .set_version_id(uuid.map(str::to_owned))
                    .set_version_stage(stage.map(str::to_owned));
                send!(aws_sdk_secretsmanager, request, key)
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
                let request = self.client.batch_get_secret_value().secret_id_list(NOBODY);
                send!(aws_sdk_secretsmanager, request, key)
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
