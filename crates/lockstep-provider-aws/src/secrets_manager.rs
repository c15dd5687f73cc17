//! Secrets Manager: reads values by name or ARN, twenty in one call if the policy allows it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_sdk_secretsmanager::{
    Client,
    config::Builder,
    types::{Filter, FilterNameStringType, SecretListEntry},
};
use aws_smithy_types::{Blob, DateTime};
use futures::{StreamExt as _, stream};
use lockstep_api::aws::AwsService;
use lockstep_provider::{
    CONCURRENT_CALLS, Context, FindQuery, KeyFilter, Listing, MAX_TOKEN_BYTES, Notice, Operation, Paging,
    Part, ProviderError, RemoteMeta, RemoteRef, RemoteSecret, SecretValue,
};
use tokio::time::Instant;

use crate::{
    auth::Caller,
    client::Http,
    config::Config,
    error::{Failed, Purpose, Why, invalid_key},
    locate::{AwsLocator, check_version},
    sdk::common,
    unbatchable::Unbatchable,
    value::{NARROW, created, is_version_id, tags_as_value},
};

/// Maximum number of ids in one call.
pub(crate) const BATCH: usize = 20;
/// Maximum length of a value in a batch, with its version, in bytes. The service stores at most 64
/// KiB.
const LONGEST_IN_BATCH: usize = 128 * 1024;
/// Maximum length of all values of a batch together, in bytes.
const MOST_IN_BATCH: usize = 4 << 20;
/// How long values are read one by one after a batch was denied.
const DENIED_FOR: Duration = Duration::from_secs(3600);
/// Maximum number of names on one page of a listing.
pub(crate) const PAGE: i32 = 100;
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
        let untold: Vec<String> = together
            .into_iter()
            .filter(|id| !values.contains_key(id))
            .collect();
        let single: Vec<_> = untold
            .iter()
            .chain(&unbatchable)
            .map(|id| async move { (id.clone(), self.read_one(id, None).await) })
            .collect();
        let single: Vec<_> = stream::iter(single).buffered(CONCURRENT_CALLS).collect().await;
        values.extend(single);
        let failed = |id: &String| values.get(id).and_then(|outcome| outcome.as_ref().err());
        if in_batches && !self.denied() {
            self.unbatchable
                .learn(untold.iter().map(|id| (id.as_str(), failed(id))));
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

    /// Reads ids with one call. The result lacks the ids that the response omits or answers twice:
    /// they are read alone.
    async fn read_batch(&self, ids: &[String]) -> HashMap<String, Result<RemoteSecret, Failed>> {
        let mut told = Told::default();
        let mut kept = 0;
        let mut after: Option<String> = None;
        // One page per id is already unusual; more pages would be an endless response.
        for _ in 0..=ids.len() {
            let answer = self
                .caller
                .call(|key| {
                    self.client
                        .batch_get_secret_value()
                        .set_secret_id_list(Some(ids.to_vec()))
                        .set_next_token(after.clone())
                        .customize()
                        .config_override(Builder::new().credentials_provider(key))
                        .send()
                })
                .await;
            let mut answer = match answer {
                Ok(answer) => answer,
                Err(failed) => {
                    if failed.why() == Some(Why::Denied) {
                        self.batch_denied();
                    } else if !failed.is_an_answer() {
                        told.rest(ids, &failed);
                    }
                    return told.outcomes();
                }
            };
            self.learned(Batches::Granted);
            for value in answer.secret_values.take().unwrap_or_default() {
                let Some(id) = asked(ids, value.name.as_deref(), value.arn.as_deref()) else {
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
                told.add(id, value.arn, outcome);
                if kept > MOST_IN_BATCH {
                    told.rest(ids, &Failed::garbage());
                    return told.outcomes();
                }
            }
            for error in answer.errors() {
                if let Some(id) = ids.iter().find(|id| Some(id.as_str()) == error.secret_id()) {
                    let failed = Failed::of_part(error.error_code(), error.message());
                    told.add(id, None, Err(failed));
                }
            }
            let next = answer.next_token.take();
            after = next.filter(|token| (1..=MAX_TOKEN_BYTES).contains(&token.len()));
            if after.is_none() {
                break;
            }
        }
        told.outcomes()
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

    /// The keys that match, sorted.
    pub(crate) async fn find(
        &self,
        cx: &Context,
        query: &FindQuery,
    ) -> Result<Vec<RemoteMeta>, ProviderError> {
        let filter = KeyFilter::new(cx, query).await?;
        let (mut found, mut paging) = (Vec::new(), Paging::new(NARROW));
        let beginnings = filter.beginnings().into_iter();
        for begin in beginnings.filter(|begin| self.locator.can_begin(begin)) {
            self.find_below(&begin, query, &filter, &mut found, &mut paging)
                .await?;
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Adds the matching keys that start with `begin`.
    async fn find_below(
        &self,
        begin: &str,
        query: &FindQuery,
        filter: &KeyFilter,
        found: &mut Vec<RemoteMeta>,
        paging: &mut Paging,
    ) -> Result<(), ProviderError> {
        let begin = format!("{}{begin}", self.locator.prefix);
        let mut filters: Vec<Filter> = query
            .tags
            .keys()
            .take(9)
            .map(|tag| filter_by(FilterNameStringType::TagKey, tag))
            .collect();
        // A leading `!` would negate the filter.
        if !begin.is_empty() && !begin.starts_with('!') {
            filters.push(filter_by(FilterNameStringType::Name, &begin));
        }
        let purpose = Purpose {
            operation: Operation::Find,
            doing: "listing secrets".to_owned(),
            identity: self.caller.identity(),
            missing: "there is nothing to list".to_owned(),
            action: "secretsmanager:ListSecrets",
        };
        let mut listing = Listing::default();
        loop {
            let answer = self
                .caller
                .call(|key| {
                    self.client
                        .list_secrets()
                        .max_results(PAGE)
                        .set_filters((!filters.is_empty()).then(|| filters.clone()))
                        .set_next_token(listing.token().map(str::to_owned))
                        .customize()
                        .config_override(Builder::new().credentials_provider(key))
                        .send()
                })
                .await;
            let mut answer = answer.map_err(|failed| failed.error(&purpose))?;
            let Some(page) = answer.secret_list.take() else {
                return Err(purpose.malformed("is not a list of secrets"));
            };
            paging.add_keys(page.len());
            let keys = page.iter().filter_map(|entry| self.matching(entry, filter));
            for key in filter.named(keys.collect(), |key| key).await? {
                found.push(lockstep_provider::found(key)?);
            }
            if !listing.turn(answer.next_token.take(), paging)? {
                return Ok(());
            }
        }
    }

    /// The key of a secret that matches, except for its name.
    fn matching<'a>(&self, entry: &'a SecretListEntry, filter: &KeyFilter) -> Option<&'a str> {
        let key = entry.name()?.strip_prefix(&self.locator.prefix)?;
        let tags: BTreeMap<String, String> = entry
            .tags()
            .iter()
            .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned())))
            .collect();
        let matches =
            entry.deleted_date().is_none() && filter.matches_tags(&tags) && filter.matches_location(key);
        matches.then_some(key)
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

fn filter_by(name: FilterNameStringType, value: &str) -> Filter {
    Filter::builder().key(name).values(value).build()
}

/// The version that a read requests.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    id: Option<&'a str>,
    stage: Option<&'a str>,
}

impl Wanted<'static> {
    /// The version that the service returns if none is requested.
    const CURRENT: Self = Self {
        id: None,
        stage: Some("AWSCURRENT"),
    };
}

impl<'a> Wanted<'a> {
    /// Parses a version: a stage, or `uuid/` and an id. An event names a version that must still be
    /// the current one, as `uuid/ID@STAGE`: the service rejects an id that does not have that
    /// stage.
    fn new(version: &'a str) -> Self {
        let (id, stage) = match version.strip_prefix("uuid/") {
            None => (None, Some(version)),
            Some(id) => id
                .split_once('@')
                .map_or((Some(id), None), |(id, stage)| (Some(id), Some(stage))),
        };
        Self { id, stage }
    }

    /// Whether the returned version is the requested one.
    fn is_met(&self, id: Option<&str>, stages: &[String]) -> bool {
        self.id.is_none_or(|wanted| id == Some(wanted))
            && self
                .stage
                .is_none_or(|wanted| stages.iter().any(|stage| stage == wanted))
    }
}

/// The results of a batch for each id. An id that two secrets answer has no outcome, because either
/// could be the wrong one.
#[derive(Default)]
struct Told(HashMap<String, Vec<Outcome>>);

/// The ARN of a secret, unless it is an error, and the result of the read.
type Outcome = (Option<String>, Result<RemoteSecret, Failed>);

impl Told {
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
    fn rest(&mut self, ids: &[String], failed: &Failed) {
        for id in ids {
            let outcomes = self.0.entry(id.clone()).or_default();
            if outcomes.is_empty() {
                outcomes.push((None, Err(failed.clone())));
            }
        }
    }

    fn outcomes(self) -> HashMap<String, Result<RemoteSecret, Failed>> {
        self.0
            .into_iter()
            .filter_map(|(id, mut outcomes)| {
                let (_, outcome) = outcomes.pop()?;
                outcomes.is_empty().then_some((id, outcome))
            })
            .collect()
    }
}

/// Returns the id of a batch that a secret answers. An ARN identifies one secret; a name also
/// exists in other accounts. So a secret whose ARN was requested does not answer an equal name.
fn asked<'a>(ids: &'a [String], name: Option<&str>, arn: Option<&str>) -> Option<&'a String> {
    let find = |wanted: Option<&str>, of_arns: bool| {
        let mut ids = ids.iter();
        ids.find(|id| is_arn(id) == of_arns && Some(id.as_str()) == wanted)
    };
    find(arn, true).or_else(|| find(name, false))
}

/// Whether an id names this secret, by its name or by its ARN.
fn is_answer_to(id: &str, name: Option<&str>, arn: Option<&str>) -> bool {
    let answered = if is_arn(id) { arn } else { name };
    answered == Some(id)
}

/// Whether it is an ARN: no name contains a colon.
fn is_arn(id: &str) -> bool {
    id.starts_with("arn:")
}

/// Converts a value of the service, text or bytes. A version id that is not in the form of one is
/// left out.
fn secret(
    text: Option<String>,
    binary: Option<Blob>,
    version: Option<String>,
    created_date: Option<&DateTime>,
) -> Option<RemoteSecret> {
    let value = match (text, binary) {
        (Some(text), _) => SecretValue::from(text),
        (None, Some(binary)) => SecretValue::new(binary.into_inner()),
        (None, None) => return None,
    };
    Some(RemoteSecret {
        value,
        version: version
            .filter(|id| is_version_id(id))
            .map(|id| format!("uuid/{id}")),
        created: created(created_date),
        fresh_for: None,
    })
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

    const ARN: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:";

    /// Names and ARNs of secrets that are easily confused.
    fn secrets() -> Vec<(&'static str, String)> {
        let other = ARN.replace("123456789012", "210987654321");
        vec![
            ("prod/db", format!("{ARN}prod/db-xwMINM")),
            ("prod/db-xwMINM", format!("{ARN}prod/db-xwMINM-ubSvUU")),
            (
                "prod/db-xwMINM-ubSvUU",
                format!("{ARN}prod/db-xwMINM-ubSvUU-a1B2c3"),
            ),
            ("prod/db-backup", format!("{ARN}prod/db-backup-AbCdEf")),
            ("prod", format!("{ARN}prod-AbCdEf")),
            ("prod/db", format!("{other}prod/db-xwMINM")),
        ]
    }

    #[test]
    fn single_read_accepts_only_the_secret_that_was_asked_for() {
        for (id, answers) in [
            ("prod/db".to_owned(), &[0, 5][..]),
            ("prod/db-xwMINM".to_owned(), &[1]),
            ("prod/db-xwMINM-ubSvUU".to_owned(), &[2]),
            (format!("{ARN}prod/db"), &[]),
            (format!("{ARN}prod/db-xwMINM"), &[0]),
            (format!("{ARN}prod/db-xwMINM-ubSvUU"), &[1]),
            (format!("{ARN}prod/db-backup"), &[]),
            (format!("{ARN}prod/db-"), &[]),
            (format!("{ARN}prod"), &[]),
            (format!("{ARN}pro"), &[]),
            (ARN.to_owned(), &[]),
            ("arn:".to_owned(), &[]),
            (String::new(), &[]),
        ] {
            for (index, (name, arn)) in secrets().iter().enumerate() {
                assert_eq!(
                    is_answer_to(&id, Some(name), Some(arn)),
                    answers.contains(&index),
                    "{id} {arn}"
                );
            }
        }
    }

    #[test]
    fn secret_of_a_batch_answers_only_its_exact_arn_or_name() {
        let secrets = secrets();
        let names = secrets.iter().map(|(name, _)| (*name).to_owned());
        let arns = secrets.iter().map(|(_, arn)| arn.clone());
        let ids: Vec<String> = names.chain(arns).collect();
        // Every set of ids.
        for chosen in 1..1_u32 << ids.len() {
            let batch: Vec<String> = (0..ids.len())
                .filter(|index| chosen & (1 << index) != 0)
                .map(|index| ids[index].clone())
                .collect();
            for (name, arn) in &secrets {
                let expected = [arn.as_str(), name]
                    .into_iter()
                    .find(|id| batch.iter().any(|asked| asked == id));
                assert_eq!(asked(&batch, Some(name), Some(arn)).map(String::as_str), expected);
            }
        }
    }

    #[test]
    fn id_that_two_secrets_answer_has_no_outcome() {
        let mut told = Told::default();
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
            told.add(id, arn.map(str::to_owned), Err(Failed::garbage()));
        }
        let all = ["once", "again", "two", "error", "none"].map(str::to_owned);
        told.rest(&all, &Failed::Timeout);
        let mut ids: Vec<_> = told.outcomes().into_keys().collect();
        ids.sort_unstable();
        assert_eq!(ids, ["again", "none", "once"]);
    }
}
