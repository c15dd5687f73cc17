//! Searches by name, which lists folder after folder, and by tags, which reads the custom metadata
//! of each key.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use lockstep_api::vault::KvVersion;
use lockstep_provider::{
    CONCURRENT_CALLS, Context, ErrorKind, FindQuery, KeyFilter, Location, Operation, ProviderError,
    RemoteMeta,
};
use vaultrs::api::kv2::requests::ReadSecretMetadataRequest;

use crate::{
    answer::KeyMetadata,
    error::Purpose,
    path::{self, KvPath},
    provider::Vault,
};

impl Vault {
    /// Returns the matching keys, sorted.
    ///
    /// A search that cannot see everything fails. A result that lacks what a policy hides would look as if the rest
    /// had been deleted.
    pub(crate) async fn search(
        &self,
        cx: &Context,
        query: &FindQuery,
    ) -> Result<Vec<RemoteMeta>, ProviderError> {
        if !query.tags.is_empty() && self.locator.version == KvVersion::V1 {
            let message = "find.tags: a key/value engine of version 1 keeps no custom metadata";
            return Err(ProviderError::new(
                ErrorKind::Unsupported,
                Operation::Find,
                message,
            ));
        }
        let filter = KeyFilter::new(cx, query).await?;
        let roots = self.roots(query, &filter).await?;
        let mut found = Vec::new();
        for path in self.list_all(roots, &filter).await? {
            found.push((self.located(&path)?, path));
        }
        if !query.tags.is_empty() {
            found = stream::iter(found)
                .map(|(key, path)| async {
                    let matches = self.has_matching_tags(&key, &path, &filter).await?;
                    Ok::<_, ProviderError>(matches.then_some((key, path)))
                })
                .buffered(CONCURRENT_CALLS)
                .try_filter_map(|found| async { Ok(found) })
                .try_collect()
                .await?;
        }
        let mut metas: Vec<RemoteMeta> = found.into_iter().map(|(key, _)| RemoteMeta { key }).collect();
        metas.sort();
        Ok(metas)
    }

    /// Returns the location of a path that the server returned.
    pub(crate) fn located(&self, path: &KvPath) -> Result<Location, ProviderError> {
        let location = self.locator.location_of(path);
        location.map_err(|_| {
            let message = "the search leads to a name that no key can have";
            ProviderError::new(ErrorKind::Malformed, Operation::Find, message)
        })
    }

    /// Returns the folders where the search begins: only those that may contain granted keys.
    async fn roots(&self, query: &FindQuery, filter: &KeyFilter) -> Result<Vec<KvPath>, ProviderError> {
        if self.locator.mount.is_none() && query.path.is_none() {
            let message = "find.path must begin with a mount path, because the store has none";
            return Err(ProviderError::new(
                ErrorKind::ConfigInvalid,
                Operation::Find,
                message,
            ));
        }
        // a folder that no key can begin with contains no keys
        let possible = |folder: &String| folder.is_empty() || path::check(folder).is_ok();
        let folders: Vec<String> = filter.folders().into_iter().filter(possible).collect();
        let mount = match &query.path {
            _ if folders.is_empty() => return Ok(Vec::new()),
            Some(path) => self.mount_of(Operation::Find, path).await?,
            None => self.locator.mount.clone().unwrap_or_default(),
        };
        let path_of = |folder: String| {
            let path = match self.locator.mount {
                Some(_) => folder.as_str(),
                None => path::below(&folder, &mount)?,
            };
            Some(KvPath {
                mount: mount.clone(),
                path: path.to_owned(),
            })
        };
        Ok(folders.into_iter().filter_map(path_of).collect())
    }

    /// Returns the metadata of a key in an engine of version 2.
    pub(crate) async fn metadata(
        &self,
        operation: Operation,
        key: &str,
        location: &KvPath,
        missing: String,
    ) -> Result<KeyMetadata, ProviderError> {
        let purpose = Purpose {
            operation,
            doing: format!("reading the metadata of \"{key}\""),
            identity: self.server.identity(),
            missing,
            mount: location.mount.clone(),
            policy: Some((location.metadata_policy(self.locator.version), "read")),
        };
        let endpoint = ReadSecretMetadataRequest {
            mount: location.mount.clone(),
            path: location.path.clone(),
        };
        let (answer, _) = self.send_to_engine(&purpose, &location.path, &endpoint).await?;
        if !answer.is_success() {
            return Err(self.read_error(&purpose, &location.path, &answer).await);
        }
        answer
            .envelope()
            .and_then(|envelope| envelope.parse::<KeyMetadata>())
            .ok_or_else(|| purpose.malformed(&answer, "is not metadata of a key/value engine of version 2"))
    }

    /// Returns whether a key has the requested tags. A key whose current version was deleted has
    /// none.
    async fn has_matching_tags(
        &self,
        key: &str,
        location: &KvPath,
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
