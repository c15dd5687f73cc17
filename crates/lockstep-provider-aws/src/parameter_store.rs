//! Parameter Store: reads values by name or ARN, ten in one call.

use std::sync::Arc;

use aws_sdk_ssm::{
    Client,
    types::{Parameter, ParameterMetadata, ParameterStringFilter, ResourceTypeForTagging},
};
use futures::{StreamExt as _, stream};
use lockstep_api::aws::AwsService;
use lockstep_provider::{
    CONCURRENT_CALLS, CallError as _, Context, FindQuery, KeyFilter, Listing, Operation, Paging, Part,
    ProviderError, RemoteMeta, RemoteRef, RemoteSecret, SecretValue,
};

use crate::{
    auth::Caller,
    client::Http,
    config::Config,
    error::{Failed, Purpose, invalid_key},
    locate::{AwsLocator, check_version, is_arn},
    sdk::{common, send},
    unbatchable::{self, Batched, Outcomes, Unbatchable},
    value::{NARROW, created, tags_as_value},
};

/// Maximum number of names in one call.
pub(crate) const BATCH: usize = 10;
/// The actions for reads, as messages show them.
const READ_ACTION: &str =
    "ssm:GetParameters on this parameter, and kms:Decrypt where it has a key of its own";
const TAGS_ACTION: &str = "ssm:ListTagsForResource on this parameter";
/// Maximum number of names on one page, by path and by tags.
pub(crate) const PAGE_BY_PATH: i32 = 10;
const PAGE_BY_TAGS: i32 = 50;
/// Maximum length of a name in a response, in bytes.
const LONGEST_NAME: usize = 2048;

/// Reads from Parameter Store.
pub(crate) struct ParameterStore {
    client: Client,
    caller: Arc<Caller>,
    locator: AwsLocator,
    /// Names that are unbatchable: a denial of one denies the whole call.
    unbatchable: Unbatchable,
}

impl ParameterStore {
    pub(crate) fn new(config: &Config, caller: Arc<Caller>, http: &Http) -> Self {
        let settings = common!(aws_sdk_ssm, &config.region, config.endpoint.as_deref(), http);
        Self {
            client: Client::from_conf(settings.build()),
            caller,
            locator: AwsLocator::new(config),
            unbatchable: Unbatchable::default(),
        }
    }

    /// Whether a reference can be in a batch: values can, in any version.
    pub(crate) fn batches(&self, reference: &RemoteRef) -> bool {
        reference.part == Part::Value
            && !self
                .name(reference)
                .is_ok_and(|name| self.unbatchable.contains(&name))
    }

    /// Reads values: one result per reference, in order.
    pub(crate) async fn fetch(&self, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        let names: Vec<Result<String, ProviderError>> =
            refs.iter().map(|reference| self.name(reference)).collect();
        let wanted = names
            .iter()
            .filter_map(|name| name.as_ref().ok().cloned())
            .collect();
        let told = unbatchable::read(self, wanted).await;
        refs.iter()
            .zip(names)
            .map(|(reference, name)| {
                let outcome = told.get(&name?).cloned();
                outcome
                    .unwrap_or_else(|| Err(Failed::garbage()))
                    .map_err(|failed| {
                        failed.error(&Purpose::reading(reference, self.caller.identity(), READ_ACTION))
                    })
            })
            .collect()
    }

    /// Reads tags: one result per reference, in order.
    pub(crate) async fn tags(&self, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        let reads: Vec<_> = refs.iter().map(|reference| self.tags_of(reference)).collect();
        stream::iter(reads).buffered(CONCURRENT_CALLS).collect().await
    }

    async fn tags_of(&self, reference: &RemoteRef) -> Result<RemoteSecret, ProviderError> {
        let name = self.name(reference)?;
        let answer = self
            .caller
            .call(|key| {
                let request = self
                    .client
                    .list_tags_for_resource()
                    .resource_type(ResourceTypeForTagging::Parameter)
                    .resource_id(&name);
                send!(aws_sdk_ssm, request, key)
            })
            .await;
        let answer = answer.map_err(|failed| {
            failed.error(&Purpose::reading(reference, self.caller.identity(), TAGS_ACTION))
        })?;
        let tags = answer.tag_list().iter().map(|tag| (tag.key(), tag.value()));
        Ok(tags_as_value(&tags.collect()))
    }

    /// The keys that match, sorted.
    pub(crate) async fn find(
        &self,
        cx: &Context,
        query: &FindQuery,
    ) -> Result<Vec<RemoteMeta>, ProviderError> {
        let untagged = FindQuery {
            tags: std::collections::BTreeMap::new(),
            ..query.clone()
        };
        let filter = KeyFilter::new(cx, &untagged).await?;
        let (mut found, mut paging) = (Vec::new(), Paging::new(NARROW));
        for folder in self.folders(&filter) {
            if query.tags.is_empty() {
                self.find_by_path(&folder, &filter, &mut found, &mut paging)
                    .await?;
            } else {
                self.find_by_tags(&folder, query, &filter, &mut found, &mut paging)
                    .await?;
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Adds the matching keys below a folder.
    async fn find_by_path(
        &self,
        folder: &str,
        filter: &KeyFilter,
        found: &mut Vec<RemoteMeta>,
        paging: &mut Paging,
    ) -> Result<(), ProviderError> {
        let purpose = self.finding(folder, "ssm:GetParametersByPath");
        let mut listing = Listing::default();
        loop {
            let answer = self
                .caller
                .call(|key| {
                    let request = self
                        .client
                        .get_parameters_by_path()
                        .path(folder)
                        .recursive(true)
                        .with_decryption(false)
                        .max_results(PAGE_BY_PATH)
                        .set_next_token(listing.token().map(str::to_owned));
                    send!(aws_sdk_ssm, request, key)
                })
                .await;
            let mut answer = answer.map_err(|failed| failed.error(&purpose))?;
            let Some(page) = answer.parameters.take() else {
                return Err(purpose.malformed("is not a list of parameters"));
            };
            paging.add_keys(page.len());
            let names = page.iter().filter_map(Parameter::name);
            self.keep(names, filter, &purpose, found).await?;
            if !listing.turn(answer.next_token.take(), paging)? {
                return Ok(());
            }
        }
    }

    /// Adds the matching keys below a folder that have the tags.
    async fn find_by_tags(
        &self,
        folder: &str,
        query: &FindQuery,
        filter: &KeyFilter,
        found: &mut Vec<RemoteMeta>,
        paging: &mut Paging,
    ) -> Result<(), ProviderError> {
        let purpose = self.finding(folder, "ssm:DescribeParameters");
        let by = |key: String, option: &str, value: &str| {
            ParameterStringFilter::builder()
                .key(key)
                .option(option)
                .values(value)
                .build()
                .map_err(|_| purpose.malformed("cannot be asked for"))
        };
        let mut filters = Vec::new();
        for (tag, value) in &query.tags {
            filters.push(by(format!("tag:{tag}"), "Equals", value)?);
        }
        if folder != "/" {
            filters.push(by("Path".to_owned(), "Recursive", folder)?);
        }
        let mut listing = Listing::default();
        loop {
            let answer = self
                .caller
                .call(|key| {
                    let request = self
                        .client
                        .describe_parameters()
                        .set_parameter_filters(Some(filters.clone()))
                        .max_results(PAGE_BY_TAGS)
                        .set_next_token(listing.token().map(str::to_owned));
                    send!(aws_sdk_ssm, request, key)
                })
                .await;
            let mut answer = answer.map_err(|failed| failed.error(&purpose))?;
            let Some(page) = answer.parameters.take() else {
                return Err(purpose.malformed("is not a list of parameters"));
            };
            paging.add_keys(page.len());
            let names = page.iter().filter_map(ParameterMetadata::name);
            self.keep(names, filter, &purpose, found).await?;
            if !listing.turn(answer.next_token.take(), paging)? {
                return Ok(());
            }
        }
    }

    /// Adds the keys of one page that match. Nothing else of the page is kept: a service that lies would fill the memory.
    async fn keep<'a>(
        &self,
        names: impl Iterator<Item = &'a str>,
        filter: &KeyFilter,
        purpose: &Purpose,
        found: &mut Vec<RemoteMeta>,
    ) -> Result<(), ProviderError> {
        let mut keys = Vec::new();
        for name in names {
            if name.len() > LONGEST_NAME {
                let what = format!("holds a name of more than {LONGEST_NAME} bytes");
                return Err(purpose.malformed(&what));
            }
            let key = name.strip_prefix(self.locator.prefix.as_str());
            keys.extend(key.filter(|key| filter.matches_location(key)));
        }
        for key in filter.named(keys, unrooted).await? {
            found.push(lockstep_provider::found(key)?);
        }
        Ok(())
    }

    fn finding(&self, folder: &str, action: &'static str) -> Purpose {
        Purpose {
            operation: Operation::Find,
            doing: format!("listing parameters below \"{folder}\""),
            identity: self.caller.identity(),
            missing: String::new(),
            action,
        }
    }

    /// Returns the name or ARN of a location, with its version.
    fn name(&self, reference: &RemoteRef) -> Result<String, ProviderError> {
        let version = reference.version.as_deref().map_or(Ok(()), |version| {
            check_version(AwsService::ParameterStore, version)
        });
        let name = version.and_then(|()| self.locator.id(&reference.key));
        let name = name.map_err(|error| invalid_key(&reference.key, error))?;
        Ok(match &reference.version {
            Some(version) => format!("{name}:{version}"),
            None => name,
        })
    }

    /// Returns the folders to list. Names without a slash are in no folder, and a listing by path
    /// needs one.
    fn folders(&self, filter: &KeyFilter) -> Vec<String> {
        let beginnings = filter.beginnings().into_iter();
        let possible = beginnings.filter(|begin| self.locator.can_begin(begin));
        let names = possible.map(|begin| format!("{}{begin}", self.locator.prefix));
        let rooted = |folder: String| match folder.as_str() {
            "" => "/".to_owned(),
            folder if folder.starts_with('/') => folder.to_owned(),
            folder => format!("/{folder}"),
        };
        lockstep_core::remote::folders(names)
            .into_iter()
            .map(rooted)
            .collect()
    }
}

impl Batched for ParameterStore {
    const BATCH: usize = BATCH;

    fn unbatchable(&self) -> &Unbatchable {
        &self.unbatchable
    }

    fn denied(&self) -> bool {
        false
    }

    /// The result is empty if a call for several names was rejected.
    async fn read_batch(&self, names: &[String]) -> Outcomes {
        let answer = self
            .caller
            .call(|key| {
                let request = self
                    .client
                    .get_parameters()
                    .set_names(Some(names.to_vec()))
                    .with_decryption(true);
                send!(aws_sdk_ssm, request, key)
            })
            .await;
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(failed) if names.len() > 1 && failed.is_an_answer() => return Outcomes::new(),
            Err(failed) => {
                let failed = |name: &String| (name.clone(), Err(failed.clone()));
                return names.iter().map(failed).collect();
            }
        };
        let mut parameters = answer.parameters.take().unwrap_or_default();
        // If the response contains a specific version and the current one without selectors, the
        // current one is the last.
        parameters.sort_by_key(|parameter| parameter.version);
        let mut told = Outcomes::new();
        for parameter in parameters {
            let asked: Vec<String> = names
                .iter()
                .filter(|name| is_named(name, &parameter, names.len() == 1))
                .cloned()
                .collect();
            if let Some(value) = parameter.value {
                let secret = RemoteSecret {
                    value: SecretValue::from(value),
                    version: Some(parameter.version.to_string()),
                    created: created(parameter.last_modified_date.as_ref()),
                    fresh_for: None,
                };
                told.extend(asked.into_iter().map(|name| (name, Ok(secret.clone()))));
            }
        }
        for name in answer.invalid_parameters() {
            if names.contains(name) {
                // A response that also contains the value proves nothing.
                let failed = if told.contains_key(name) {
                    Failed::garbage()
                } else {
                    Failed::missing()
                };
                told.insert(name.clone(), Err(failed));
            }
        }
        // A single name that the response omits needs no further call.
        if let [name] = names {
            told.entry(name.clone()).or_insert_with(|| Err(Failed::garbage()));
        }
        told
    }

    async fn read_alone(&self, name: &str) -> Result<RemoteSecret, Failed> {
        let outcome = self.read_batch(&[name.to_owned()]).await.remove(name);
        outcome.unwrap_or_else(|| Err(Failed::garbage()))
    }
}

/// The name of a key that is matched. It does not begin with a slash, even if the key does.
fn unrooted<'a>(key: &'a &str) -> &'a str {
    key.strip_prefix('/').unwrap_or(key)
}

/// Whether a parameter is the requested one, by name or ARN, and by version or label.
fn is_named(asked: &str, parameter: &Parameter, is_only_request: bool) -> bool {
    let base = if is_arn(asked) {
        parameter.arn.as_deref()
    } else {
        parameter.name.as_deref()
    };
    base.filter(|base| !base.is_empty())
        .and_then(|base| asked.strip_prefix(base))
        .is_some_and(|wanted| is_selected(wanted, parameter, is_only_request))
}

/// Returns whether a parameter has the requested version or label. `wanted` is `:3`, `:stable`, or
/// empty for the current version. AWS returns `wanted` as the selector; emulators may omit the
/// selector. Without a selector, a number is compared with the version, and a label is accepted only
/// if the parameter was the only one requested.
fn is_selected(wanted: &str, parameter: &Parameter, is_only_request: bool) -> bool {
    let selector = parameter.selector.as_deref().unwrap_or_default();
    let Some(version_or_label) = wanted.strip_prefix(':') else {
        return wanted.is_empty() && selector.is_empty();
    };
    let has_selector = selector == wanted;
    match version_or_label.parse::<i64>() {
        // Labels do not start with a digit.
        Ok(number) => number == parameter.version && (has_selector || selector.is_empty()),
        Err(_) => has_selector || (is_only_request && selector.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(version: i64, selector: Option<&str>) -> Parameter {
        Parameter::builder()
            .name("/shop/database")
            .arn("arn:aws:ssm:eu-central-1:123456789012:parameter/shop/database")
            .version(version)
            .set_selector(selector.map(str::to_owned))
            .build()
    }

    #[test]
    fn versions_are_matched_by_selector_or_number() {
        let arn = "arn:aws:ssm:eu-central-1:123456789012:parameter/shop/database";
        let is = |asked: &str, version, selector| is_named(asked, &parameter(version, selector), false);
        assert!(is("/shop/database", 3, None) && is(arn, 3, None));
        assert!(is("/shop/database:2", 2, Some(":2")) && is("/shop/database:stable", 2, Some(":stable")));
        assert!(is("/shop/database:2", 2, None));
        assert!(
            !is("/shop/database", 2, Some(":2")),
            "a version is not the current one"
        );
        assert!(!is("/shop/database:2", 3, None) && !is("/shop/database:2", 2, Some(":3")));
        assert!(!is("/shop/database:2", 3, Some(":2")), "the number decides");
        assert!(!is_named("/shop/database:2", &parameter(3, None), true));
        assert!(
            !is("/shop/database:stable", 2, None),
            "nobody knows which version has the label"
        );
        assert!(is_named("/shop/database:stable", &parameter(2, None), true));
        assert!(!is("/shop/database-2", 2, None) && !is("/shop", 2, None));
        let shared = "arn:aws:ssm:eu-central-1:999999999999:parameter/shop/database";
        assert!(!is(shared, 3, None), "an ARN is not answered by its name");
    }
}
