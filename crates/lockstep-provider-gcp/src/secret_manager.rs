//! Secret Manager: reads versions, finds secrets.

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt as _, stream};
use google_cloud_secretmanager_v1::{
    client::SecretManagerService,
    model::{AccessSecretVersionResponse, Secret, secret_version::State},
};
use lockstep_api::gcp::GcpVersionSelection;
use lockstep_provider::{
    CONCURRENT_CALLS, CallError as _, Context, ErrorKind, FindQuery, KeyFilter, Listing, Operation, Paging,
    Part, ProviderError, RemoteMeta, RemoteRef, RemoteSecret, SecretValue,
};
use serde_json::json;

use crate::{
    auth::Caller,
    config::{Config, ProjectRef},
    crc,
    error::{Failed, Purpose, Why},
    name::{LATEST, Name, is_number, is_word},
    transport::Transport,
};

/// Number of secrets on a page of a list. Annotations and labels of one can have about 24 KiB.
pub(crate) const PAGE: i32 = 100;
/// The advice for a search that is too large.
const NARROW: &str = "Narrow it down with find.path or find.tags";
/// Maximum number of pages of versions that are searched for an enabled one.
const MOST_PAGES: usize = 10;

/// A name that no secret has.
const NOBODY: &str = "lockstep-check-of-the-store";

const ACCESS: &str =
    "secretmanager.versions.access: grant it roles/secretmanager.secretAccessor on the secret";
const LIST_VERSIONS: &str = "secretmanager.versions.list: grant it roles/secretmanager.viewer on the secret";
const GET: &str = "secretmanager.secrets.get: grant it roles/secretmanager.viewer on the secret";
const LIST: &str = "secretmanager.secrets.list: grant it roles/secretmanager.viewer on the project";

pub(crate) struct SecretManager {
    caller: Arc<Caller>,
    project_ref: ProjectRef,
    selection: GcpVersionSelection,
}

/// A call that failed, and the permission that it requires.
struct Refusal(Failed, &'static str);

impl SecretManager {
    pub(crate) fn new(config: &Config, project_ref: ProjectRef, caller: Arc<Caller>) -> Self {
        Self {
            caller,
            project_ref,
            selection: config.selection,
        }
    }

    /// Reads values: one result per reference, in order.
    pub(crate) async fn fetch(&self, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        let reads: Vec<_> = refs.iter().map(|reference| self.read(reference)).collect();
        stream::iter(reads).buffered(CONCURRENT_CALLS).collect().await
    }

    async fn read(&self, reference: &RemoteRef) -> Result<RemoteSecret, ProviderError> {
        let name = Name::new(&self.project_ref, reference)?;
        let outcome = match reference.part {
            Part::Value => self.value(&name).await,
            Part::Metadata => self.metadata(&name).await,
        };
        outcome.map_err(|Refusal(failed, role)| failed.error(&self.reading(reference, &name, role)))
    }

    fn reading(&self, reference: &RemoteRef, name: &Name, role: &'static str) -> Purpose {
        let key = &reference.key;
        let version = &name.version;
        let (missing, doing) = match reference.part {
            Part::Metadata => (
                format!("key \"{key}\" does not exist"),
                format!("reading the labels of \"{key}\""),
            ),
            Part::Value if version == LATEST => (
                format!("key \"{key}\" does not exist, or has no version"),
                format!("reading \"{key}\""),
            ),
            Part::Value => (
                format!("key \"{key}\" does not exist, or has no version \"{version}\""),
                format!("reading \"{key}\" in version \"{version}\""),
            ),
        };
        Purpose {
            operation: Operation::Read,
            doing,
            identity: self.caller.identity(),
            missing,
            role,
        }
    }

    async fn value(&self, name: &Name) -> Result<RemoteSecret, Refusal> {
        let refused = |failed| Refusal(failed, ACCESS);
        let closed = match self.access(name, &name.version).await {
            Ok(secret) => return Ok(secret),
            Err(failed) => failed,
        };
        let is_closed = matches!(
            closed.why(),
            Some(Why::Disabled | Why::Destroyed | Why::Precondition)
        );
        if !is_closed || name.version != LATEST || self.selection == GcpVersionSelection::LatestOrFail {
            return Err(refused(closed));
        }
        let enabled = self.newest_enabled(name).await;
        match enabled.map_err(|failed| Refusal(failed, LIST_VERSIONS))? {
            Some(version) => self.access(name, &version).await.map_err(refused),
            None => Err(refused(closed)),
        }
    }

    async fn access(&self, name: &Name, version: &str) -> Result<RemoteSecret, Failed> {
        let answer = self
            .caller
            .call(&self.project_ref.endpoint, |transport| {
                SecretManagerService::from_stub::<Transport>(transport)
                    .access_secret_version()
                    .set_name(format!("{}/versions/{version}", name.secret))
                    .send()
            })
            .await?;
        secret(answer, &name.id, version).ok_or_else(|| Failed::garbage(200))
    }

    /// Returns the newest enabled version.
    async fn newest_enabled(&self, name: &Name) -> Result<Option<String>, Failed> {
        let mut after = String::new();
        for _ in 0..MOST_PAGES {
            let answer = self
                .caller
                .call(&self.project_ref.endpoint, |transport| {
                    SecretManagerService::from_stub::<Transport>(transport)
                        .list_secret_versions()
                        .set_parent(&name.secret)
                        .set_filter("state:ENABLED")
                        .set_page_size(PAGE)
                        .set_page_token(&after)
                        .send()
                })
                .await?;
            // Versions are sorted newest first.
            let enabled = answer
                .versions
                .iter()
                .filter(|version| version.state == State::Enabled);
            let numbers = enabled.filter_map(|version| number(&version.name, &name.id));
            if let Some(newest) = numbers.max_by_key(|number| number.parse::<u64>().unwrap_or(0)) {
                return Ok(Some(newest.to_owned()));
            }
            if answer.next_page_token.is_empty() || answer.next_page_token == after {
                break;
            }
            after = answer.next_page_token;
        }
        Ok(None)
    }

    /// Checks whether the store works. While a store is in use, its requests are the check.
    /// Otherwise it requests a secret that does not exist: the response that it is missing, or not
    /// granted, needs a valid login but no permission. This counts as an access, not against the
    /// small quota of metadata.
    pub(crate) async fn check(&self) -> Result<(), ProviderError> {
        if self.caller.works() {
            return Ok(());
        }
        let secret = format!("{}/secrets/{NOBODY}", self.project_ref.parent());
        let answer = self
            .caller
            .call(&self.project_ref.endpoint, |transport| {
                SecretManagerService::from_stub::<Transport>(transport)
                    .access_secret_version()
                    .set_name(format!("{secret}/versions/{LATEST}"))
                    .send()
            })
            .await;
        match answer {
            Err(failed) if !failed.is_an_answer() => Err(failed.error(&Purpose {
                operation: Operation::Check,
                doing: "checking the store".to_owned(),
                identity: self.caller.identity(),
                missing: String::new(),
                role: ACCESS,
            })),
            _ => Ok(()),
        }
    }

    /// Returns labels and annotations as JSON.
    async fn metadata(&self, name: &Name) -> Result<RemoteSecret, Refusal> {
        let answer = self
            .caller
            .call(&self.project_ref.endpoint, |transport| {
                SecretManagerService::from_stub::<Transport>(transport)
                    .get_secret()
                    .set_name(&name.secret)
                    .send()
            })
            .await;
        let answer = answer.map_err(|failed| Refusal(failed, GET))?;
        let is_it = answer.name.rsplit('/').next() == Some(name.id.as_str());
        if !is_it {
            return Err(Refusal(Failed::garbage(200), GET));
        }
        let sorted = |map: std::collections::HashMap<String, String>| -> BTreeMap<String, String> {
            map.into_iter().collect()
        };
        let text = json!({ "labels": sorted(answer.labels), "annotations": sorted(answer.annotations) });
        Ok(RemoteSecret {
            value: SecretValue::from(text.to_string()),
            version: None,
            created: None,
            fresh_for: None,
        })
    }

    /// The keys that match, sorted. Names have no folders: the path is what they begin with.
    pub(crate) async fn find(
        &self,
        cx: &Context,
        query: &FindQuery,
    ) -> Result<Vec<RemoteMeta>, ProviderError> {
        let begin = query.path.as_deref().unwrap_or_default();
        let anywhere = FindQuery {
            path: None,
            ..query.clone()
        };
        let filter = KeyFilter::new(cx, &anywhere).await?;
        let (mut found, mut paging) = (Vec::new(), Paging::new(NARROW));
        // An id has no other characters.
        let possible = |longer: &String| longer == begin || is_word(longer);
        for begin in query.scope.beginnings(begin).into_iter().filter(possible) {
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
        let narrowed = narrowed(begin, &query.tags);
        let purpose = Purpose {
            operation: Operation::Find,
            doing: "listing secrets".to_owned(),
            identity: self.caller.identity(),
            missing: format!("\"{}\" does not exist", self.project_ref.parent()),
            role: LIST,
        };
        let mut listing = Listing::default();
        loop {
            let answer = self
                .caller
                .call(&self.project_ref.endpoint, |transport| {
                    SecretManagerService::from_stub::<Transport>(transport)
                        .list_secrets()
                        .set_parent(self.project_ref.parent())
                        .set_filter(&narrowed)
                        .set_page_size(PAGE)
                        .set_page_token(listing.token().unwrap_or_default())
                        .send()
                })
                .await;
            // A missing project says nothing about a value.
            let answer = answer.map_err(|failed| match failed.why() {
                Some(Why::Missing) => purpose.failed(ErrorKind::ConfigInvalid, purpose.missing.clone()),
                _ => failed.error(&purpose),
            })?;
            paging.add_keys(answer.secrets.len());
            let secrets = answer.secrets.iter();
            let keys = secrets.filter_map(|secret| matching(secret, begin, filter));
            for key in filter.named(keys.collect(), |key| key).await? {
                found.push(lockstep_provider::found(key)?);
            }
            if !listing.turn(Some(answer.next_page_token), paging)? {
                return Ok(());
            }
        }
    }
}

/// Builds the filter of the service, so that it returns fewer pages. Results are checked here too,
/// because the service matches text anywhere in a name, ignoring case.
fn narrowed(begin: &str, tags: &BTreeMap<String, String>) -> String {
    let name = is_word(begin).then(|| format!("name:{begin}"));
    let labels = tags
        .iter()
        .filter(|(label, value)| is_word(label) && is_word(value))
        .map(|(label, value)| format!("labels.{label}={value}"));
    let terms: Vec<String> = name.into_iter().chain(labels).collect();
    terms.join(" AND ")
}

/// The key of a secret that matches, except for its name.
fn matching<'a>(secret: &'a Secret, begin: &str, filter: &KeyFilter) -> Option<&'a str> {
    let key = secret.name.rsplit('/').next().filter(|key| !key.is_empty())?;
    let labels: BTreeMap<String, String> = secret.labels.clone().into_iter().collect();
    (key.starts_with(begin) && filter.matches_tags(&labels) && filter.matches_location(key)).then_some(key)
}

/// Returns the number of a version, from the full name in a response, which contains the project
/// number.
fn number<'a>(name: &'a str, id: &str) -> Option<&'a str> {
    let (secret, number) = name.rsplit_once("/versions/")?;
    let is_it = secret
        .rsplit_once("/secrets/")
        .is_some_and(|(_, told)| told == id);
    (is_it && is_number(number)).then_some(number)
}

/// Returns a value if the response is about this secret and version, and its checksum is correct.
/// An alias cannot be compared: the response contains the number of the version.
fn secret(answer: AccessSecretVersionResponse, id: &str, asked: &str) -> Option<RemoteSecret> {
    let version = number(&answer.name, id)?.to_owned();
    if is_number(asked) && asked != version {
        return None;
    }
    let payload = answer.payload?;
    crc::matches(&payload.data, payload.data_crc32c).then(|| RemoteSecret {
        value: SecretValue::new(payload.data),
        version: Some(version),
        created: None,
        fresh_for: None,
    })
}

#[cfg(test)]
mod tests {
    use google_cloud_secretmanager_v1::model::SecretPayload;

    use super::*;

    const NAME: &str = "projects/123456789012/secrets/database/versions/3";

    fn answer(name: &str, data: &'static [u8], crc: Option<i64>) -> AccessSecretVersionResponse {
        let payload = SecretPayload::new().set_data(data).set_or_clear_data_crc32c(crc);
        AccessSecretVersionResponse::new()
            .set_name(name)
            .set_payload(payload)
    }

    #[test]
    fn value_needs_its_version_and_the_correct_checksum() {
        let right = Some(i64::from(crc::crc32c(b"CANARY")));
        let good = secret(answer(NAME, b"CANARY", right), "database", LATEST).unwrap();
        assert_eq!(good.value.expose(), b"CANARY");
        assert_eq!(good.version.as_deref(), Some("3"));
        assert!(secret(answer(NAME, b"", Some(0)), "database", LATEST).is_some());
        let regional = "projects/123456789012/locations/europe-west3/secrets/database/versions/3";
        assert!(secret(answer(regional, b"CANARY", right), "database", LATEST).is_some());
        assert!(secret(answer(NAME, b"CANARY", right), "database", "3").is_some());
        assert!(secret(answer(NAME, b"CANARY", right), "database", "stable").is_some());
        assert!(secret(answer(NAME, b"CANARY", right), "database", "4").is_none());
        for bad in [
            answer(NAME, b"CANARY", None),
            answer(NAME, b"CANARY", right.map(|crc| crc ^ 1)),
            answer(NAME, b"CANARX", right),
            answer("projects/1/secrets/other/versions/3", b"CANARY", right),
            answer("projects/1/secrets/database/versions/latest", b"CANARY", right),
            answer("", b"CANARY", right),
            AccessSecretVersionResponse::new().set_name(NAME),
        ] {
            assert!(secret(bad, "database", LATEST).is_none());
        }
    }

    #[test]
    fn filter_contains_what_the_service_supports() {
        let tags = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        assert_eq!(narrowed("", &tags(&[])), "");
        assert_eq!(
            narrowed("shop-", &tags(&[("team", "shop"), ("stage", "live")])),
            "name:shop- AND labels.stage=live AND labels.team=shop"
        );
        assert_eq!(
            narrowed("a b", &tags(&[("team", "x OR labels.a=b"), ("größe", "x")])),
            ""
        );
    }
}
