//! Searches for secrets by name and tags.

use std::collections::BTreeMap;

use aws_sdk_secretsmanager::types::{Filter, FilterNameStringType, SecretListEntry};
use lockstep_provider::{
    Context, FindQuery, KeyFilter, Listing, Operation, Paging, ProviderError, RemoteMeta,
};

use super::SecretsManager;
use crate::{error::Purpose, sdk::send, value::NARROW};

/// Maximum number of names on one page of a listing.
pub(crate) const PAGE: i32 = 100;

impl SecretsManager {
    /// Returns the keys that match, sorted.
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
                    let request = self
                        .client
                        .list_secrets()
                        .max_results(PAGE)
                        .set_filters((!filters.is_empty()).then(|| filters.clone()))
                        .set_next_token(listing.token().map(str::to_owned));
                    send!(aws_sdk_secretsmanager, request, key)
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

    /// Returns the key of a secret that matches, apart from its name.
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
}

fn filter_by(name: FilterNameStringType, value: &str) -> Filter {
    Filter::builder().key(name).values(value).build()
}
