//! Looking for values: names by listing folder after folder, tags by reading the custom metadata of each.

use std::collections::{BTreeSet, HashSet};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use lockstep_api::vault::KvVersion;
use lockstep_provider::{ErrorKind, FindQuery, KeyFilter, Operation, ProviderError, RemoteMeta};
use vaultrs::api::kv2::requests::ReadSecretMetadataRequest;

use crate::{
    answer::KeyMetadata,
    endpoint::ListPage,
    error::Purpose,
    path::{self, Location, key_of, locate},
    provider::{CONCURRENCY, Vault},
};

/// The most keys that are looked at in one search.
const MOST_KEYS: usize = 10_000;
/// The most folders that are listed in one search.
const MOST_FOLDERS: usize = 10_000;
/// The deepest folder that is listed, counted from where the search begins.
const DEEPEST: usize = 32;
/// The names of one page.
const PAGE: usize = 1000;

impl Vault {
    /// The keys that match, sorted.
    ///
    /// A search that cannot see everything fails. A result that lacks what a policy hides would look as if the rest
    /// had been deleted.
    pub(crate) async fn search(&self, query: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError> {
        if !query.tags.is_empty() && self.version == KvVersion::V1 {
            let message = "find.tags: a key/value engine of version 1 keeps no custom metadata";
            return Err(ProviderError::new(
                ErrorKind::Unsupported,
                Operation::Find,
                message,
            ));
        }
        // The listing begins at the path; names and tags are left to decide.
        let filter = KeyFilter::new(&FindQuery {
            path: None,
            ..query.clone()
        })?;
        let root = self.root(query.path.as_deref())?;
        let keys = self.list_all(root).await?;
        let listed = keys.into_iter().map(|location| {
            let key = key_of(self.mount.as_deref(), self.version, &location);
            (RemoteMeta { key }, location)
        });
        let mut found: Vec<(RemoteMeta, Location)> = filter.keep(listed, |(meta, _)| &meta.key)?;
        if !query.tags.is_empty() {
            found = stream::iter(found)
                .map(|(meta, location)| async {
                    let tagged = self.tagged(&meta.key, &location, &filter).await?;
                    Ok::<_, ProviderError>(tagged.then_some((meta, location)))
                })
                .buffered(CONCURRENCY)
                .try_filter_map(|found| async { Ok(found) })
                .try_collect()
                .await?;
        }
        let mut metas: Vec<RemoteMeta> = found.into_iter().map(|(meta, _)| meta).collect();
        metas.sort();
        Ok(metas)
    }

    /// The folder where the search begins.
    fn root(&self, path: Option<&str>) -> Result<Location, ProviderError> {
        let invalid = |message| ProviderError::new(ErrorKind::ConfigInvalid, Operation::Find, message);
        let path = path.unwrap_or("").trim_matches('/');
        if path.is_empty() {
            let Some(mount) = &self.mount else {
                return Err(invalid(
                    "find.path must begin with a mount path, because the store has none".to_owned(),
                ));
            };
            return Ok(Location {
                mount: mount.clone(),
                path: String::new(),
            });
        }
        path::check(path)
            .map_err(|error| invalid(format!("find.path \"{}\" {error}", path.escape_debug())))?;
        // The mount alone, with or without `data`, is its root.
        let bare = match self.version {
            KvVersion::V2 => path.strip_suffix("/data").unwrap_or(path),
            KvVersion::V1 => path,
        };
        match &self.mount {
            None if !bare.contains('/') => Ok(Location {
                mount: bare.to_owned(),
                path: String::new(),
            }),
            Some(mount) if bare == mount => Ok(Location {
                mount: mount.clone(),
                path: String::new(),
            }),
            mount => locate(mount.as_deref(), self.version, path)
                .map_err(|error| invalid(format!("find.path \"{path}\" {error}"))),
        }
    }

    /// Every key below a folder.
    async fn list_all(&self, root: Location) -> Result<BTreeSet<Location>, ProviderError> {
        let too_much = |what: String| {
            ProviderError::new(
                ErrorKind::Unsupported,
                Operation::Find,
                format!("there are more than {what} to search"),
            )
            .with_hint("Narrow it down with find.path")
        };
        let mut keys = BTreeSet::new();
        let mut listed = 0;
        let mut level = vec![root];
        for _ in 0..=DEEPEST {
            if level.is_empty() {
                return Ok(keys);
            }
            listed += level.len();
            if listed > MOST_FOLDERS {
                return Err(too_much(format!("{MOST_FOLDERS} folders")));
            }
            let mut pages = stream::iter(level)
                .map(|folder| self.list(folder))
                .buffer_unordered(CONCURRENCY);
            let mut next = Vec::new();
            while let Some((found, folders)) = pages.try_next().await? {
                keys.extend(found);
                next.extend(folders);
                if keys.len() > MOST_KEYS {
                    return Err(too_much(format!("{MOST_KEYS} keys")));
                }
                if listed + next.len() > MOST_FOLDERS {
                    return Err(too_much(format!("{MOST_FOLDERS} folders")));
                }
            }
            level = next;
        }
        if level.is_empty() {
            Ok(keys)
        } else {
            Err(too_much(format!("{DEEPEST} levels of folders")))
        }
    }

    /// The keys and the folders of one folder, page after page where the server has pages.
    async fn list(&self, folder: Location) -> Result<(Vec<Location>, Vec<Location>), ProviderError> {
        let policy = folder.metadata_policy(self.version);
        let policy = policy.trim_end_matches('/');
        let purpose = Purpose {
            operation: Operation::Find,
            doing: format!(
                "listing \"{}\"",
                key_of(self.mount.as_deref(), self.version, &folder)
            ),
            identity: self.server.identity(),
            missing: String::new(),
            mount: folder.mount.clone(),
            policy: Some((format!("{policy}/"), "list")),
        };
        let mut seen = HashSet::new();
        let mut after = None;
        loop {
            let page = ListPage {
                folder: policy.to_owned(),
                list: true,
                after: after.take(),
                limit: PAGE,
            };
            let answer = self.server.send(Operation::Find, &page).await?;
            if !answer.is_success() {
                let error = purpose.failed(&answer);
                if error.kind == ErrorKind::NotFound {
                    break;
                }
                return Err(error);
            }
            let Some(names) = answer.names() else {
                return Err(purpose.malformed(&answer, "is not a list of names"));
            };
            // A server without pages answers everything at once, and the same again to a second request.
            let last = (names.len() == PAGE).then(|| names.last().cloned()).flatten();
            let before = seen.len();
            seen.extend(names);
            if seen.len() > MOST_KEYS || last.is_none() || seen.len() == before {
                break;
            }
            after = last;
        }
        let (mut keys, mut folders) = (Vec::new(), Vec::new());
        for name in seen {
            let (segment, is_folder) = match name.strip_suffix('/') {
                Some(folder) => (folder, true),
                None => (name.as_str(), false),
            };
            if segment.contains('/') || path::check(segment).is_err() {
                let message = format!("{} gives a name that no key can have", purpose.doing);
                return Err(ProviderError::new(ErrorKind::Malformed, Operation::Find, message));
            }
            let location = folder.join(segment);
            if is_folder {
                folders.push(location);
            } else {
                keys.push(location);
            }
        }
        Ok((keys, folders))
    }

    /// What an engine of version 2 tells of a key.
    pub(crate) async fn metadata(
        &self,
        operation: Operation,
        key: &str,
        location: &Location,
        missing: String,
    ) -> Result<KeyMetadata, ProviderError> {
        let purpose = Purpose {
            operation,
            doing: format!("reading the metadata of \"{key}\""),
            identity: self.server.identity(),
            missing,
            mount: location.mount.clone(),
            policy: Some((location.metadata_policy(self.version), "read")),
        };
        let endpoint = ReadSecretMetadataRequest {
            mount: location.mount.clone(),
            path: location.path.clone(),
        };
        let answer = self.server.send(operation, &endpoint).await?;
        if !answer.is_success() {
            return Err(purpose.failed(&answer));
        }
        answer
            .envelope()
            .and_then(|envelope| envelope.parse::<KeyMetadata>())
            .ok_or_else(|| purpose.malformed(&answer, "is not metadata of a key/value engine of version 2"))
    }

    /// Whether a key carries the tags that are looked for. A key whose current version was deleted carries none.
    async fn tagged(
        &self,
        key: &str,
        location: &Location,
        filter: &KeyFilter,
    ) -> Result<bool, ProviderError> {
        let metadata = match self.metadata(Operation::Find, key, location, String::new()).await {
            Ok(metadata) => metadata,
            // Deleted since it was listed.
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        Ok(metadata.is_readable(self.clock.now())
            && filter.matches_tags(&metadata.custom_metadata.unwrap_or_default()))
    }
}
