//! Looking for values: names by listing folder after folder, tags by reading the custom metadata of each.

use std::{
    collections::{BTreeSet, HashSet},
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicUsize, Ordering},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use lockstep_api::vault::KvVersion;
use lockstep_provider::{
    CONCURRENT_CALLS, ErrorKind, FindQuery, KeyFilter, Location, Operation, ProviderError, RemoteMeta,
};
use vaultrs::api::kv2::requests::ReadSecretMetadataRequest;

use crate::{
    answer::KeyMetadata,
    endpoint::ListPage,
    error::Purpose,
    path::{self, KvPath},
    provider::Vault,
};

/// The most keys that are looked at in one search.
const MOST_KEYS: usize = 10_000;
/// The most folders that are listed in one search.
const MOST_FOLDERS: usize = 10_000;
/// The deepest folder that is listed, counted from where the search begins.
const DEEPEST: usize = 32;
/// The names of one page.
const PAGE: usize = 1000;
/// The longest name and the longest path, in bytes: no key is longer.
const LONGEST: usize = 2048;
/// The most bytes of names that are kept in one search.
const MOST_BYTES: usize = 4 << 20;

fn too_much(what: &str) -> ProviderError {
    let message = format!("there are more than {what} to search");
    ProviderError::new(ErrorKind::Unsupported, Operation::Find, message)
        .with_hint("Narrow it down with find.path")
}

/// A folder that is listed, and the one from which the search came to it.
#[derive(Debug, Clone)]
struct Folder {
    path: KvPath,
    root: KvPath,
}

impl Folder {
    fn root(path: KvPath) -> Self {
        Self {
            root: path.clone(),
            path,
        }
    }

    fn below(&self, path: KvPath) -> Self {
        Self {
            path,
            root: self.root.clone(),
        }
    }
}

/// How much one search keeps, in all folders: several are listed at the same time.
#[derive(Debug, Default)]
struct Kept {
    keys: AtomicUsize,
    bytes: AtomicUsize,
}

impl Kept {
    /// Counts a key.
    fn key(&self, path: &KvPath) -> Result<(), ProviderError> {
        if self.keys.fetch_add(1, Ordering::Relaxed) >= MOST_KEYS {
            return Err(too_much(&format!("{MOST_KEYS} keys")));
        }
        self.paths([path])
    }

    /// Counts a folder.
    fn folder(&self, folder: &Folder) -> Result<(), ProviderError> {
        self.paths([&folder.path, &folder.root])
    }

    fn paths<'a>(&self, paths: impl IntoIterator<Item = &'a KvPath>) -> Result<(), ProviderError> {
        let bytes: usize = paths
            .into_iter()
            .map(|path| path.mount.len() + path.path.len())
            .sum();
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > MOST_BYTES {
            return Err(too_much(&format!("{} MiB of names", MOST_BYTES >> 20)));
        }
        Ok(())
    }
}

impl Vault {
    /// The keys that match, sorted.
    ///
    /// A search that cannot see everything fails. A result that lacks what a policy hides would look as if the rest
    /// had been deleted.
    pub(crate) async fn search(&self, query: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError> {
        if !query.tags.is_empty() && self.locator.version == KvVersion::V1 {
            let message = "find.tags: a key/value engine of version 1 keeps no custom metadata";
            return Err(ProviderError::new(
                ErrorKind::Unsupported,
                Operation::Find,
                message,
            ));
        }
        let filter = KeyFilter::new(query)?;
        let roots = self.roots(query, &filter).await?;
        let mut found = Vec::new();
        for path in self.list_all(roots, &filter).await? {
            found.push((self.located(&path)?, path));
        }
        if !query.tags.is_empty() {
            found = stream::iter(found)
                .map(|(key, path)| async {
                    let tagged = self.tagged(&key, &path, &filter).await?;
                    Ok::<_, ProviderError>(tagged.then_some((key, path)))
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

    /// The location of a path that the server named.
    fn located(&self, path: &KvPath) -> Result<Location, ProviderError> {
        let location = self.locator.location_of(path);
        location.map_err(|_| {
            let message = "the search leads to a name that no key can have";
            ProviderError::new(ErrorKind::Malformed, Operation::Find, message)
        })
    }

    /// The folders where the search begins: none but what may hold keys that are granted.
    async fn roots(&self, query: &FindQuery, filter: &KeyFilter) -> Result<Vec<KvPath>, ProviderError> {
        if self.locator.mount.is_none() && query.path.is_none() {
            let message = "find.path must begin with a mount path, because the store has none";
            return Err(ProviderError::new(
                ErrorKind::ConfigInvalid,
                Operation::Find,
                message,
            ));
        }
        // what no key can begin with holds no keys
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

    /// Every key below these folders that may be granted.
    async fn list_all(
        &self,
        roots: Vec<KvPath>,
        filter: &KeyFilter,
    ) -> Result<BTreeSet<KvPath>, ProviderError> {
        let mut keys = BTreeSet::new();
        let kept = Kept::default();
        let mut listed = 0;
        let mut level: Vec<Folder> = roots.into_iter().map(Folder::root).collect();
        for _ in 0..=DEEPEST {
            if level.is_empty() {
                return Ok(keys);
            }
            listed += level.len();
            if listed > MOST_FOLDERS {
                return Err(too_much(&format!("{MOST_FOLDERS} folders")));
            }
            let mut pages = stream::iter(level)
                .map(|folder| self.list(folder, filter, &kept))
                .buffer_unordered(CONCURRENT_CALLS);
            let mut next = Vec::new();
            while let Some((found, folders)) = pages.try_next().await? {
                keys.extend(found);
                next.extend(folders);
                if keys.len() > MOST_KEYS {
                    return Err(too_much(&format!("{MOST_KEYS} keys")));
                }
                if listed + next.len() > MOST_FOLDERS {
                    return Err(too_much(&format!("{MOST_FOLDERS} folders")));
                }
            }
            level = next;
        }
        if level.is_empty() {
            Ok(keys)
        } else {
            Err(too_much(&format!("{DEEPEST} levels of folders")))
        }
    }

    /// What is being done, for a message. It names nothing that the caller was not granted.
    fn listing(&self, folder: &Folder, filter: &KeyFilter) -> Result<Purpose, ProviderError> {
        let nameable =
            |path: &KvPath| path.path.is_empty() || self.located(path).is_ok_and(|at| filter.covers(&at));
        let named = folder.path == folder.root || nameable(&folder.path);
        let shown = |path: &KvPath| match path.path.as_str() {
            "" => Ok(format!("\"{}\"", path.mount)),
            _ => Ok::<_, ProviderError>(format!("\"{}\"", self.located(path)?)),
        };
        let doing = if named {
            format!("listing {}", shown(&folder.path)?)
        } else {
            format!("listing a folder below {}", shown(&folder.root)?)
        };
        let policy = folder.path.metadata_policy(self.locator.version);
        Ok(Purpose {
            operation: Operation::Find,
            doing,
            identity: self.server.identity(),
            missing: String::new(),
            mount: folder.path.mount.clone(),
            policy: named.then(|| (format!("{}/", policy.trim_end_matches('/')), "list")),
        })
    }

    /// The keys and the folders of one folder that may be granted, page after page where the server has pages. Of other names a
    /// hash is kept alone: a server that lies would fill the memory with them.
    async fn list(
        &self,
        folder: Folder,
        filter: &KeyFilter,
        kept: &Kept,
    ) -> Result<(Vec<KvPath>, Vec<Folder>), ProviderError> {
        let policy = folder.path.metadata_policy(self.locator.version);
        let policy = policy.trim_end_matches('/');
        let purpose = self.listing(&folder, filter)?;
        let (hasher, mut seen) = (RandomState::new(), HashSet::new());
        let (mut keys, mut folders) = (Vec::new(), Vec::new());
        let mut after = None;
        loop {
            let page = ListPage {
                folder: policy.to_owned(),
                list: true,
                after: after.take(),
                limit: PAGE,
            };
            let answer = self.send_to_engine(&purpose, &folder.path.path, &page).await?;
            if !answer.is_success() {
                let error = purpose.failed(&answer);
                // after a full page, it means that there are no more
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
            if last.as_ref().is_some_and(|last| last.len() > LONGEST) {
                let what = format!("ends with a name of more than {LONGEST} bytes");
                return Err(purpose.malformed(&answer, &what));
            }
            let before = seen.len();
            for name in names {
                if !seen.insert(hasher.hash_one(&name)) {
                    continue;
                }
                if seen.len() > MOST_KEYS {
                    return Err(too_much(&format!("{MOST_KEYS} keys")));
                }
                let (segment, is_folder) = match name.strip_suffix('/') {
                    Some(folder) => (folder, true),
                    None => (name.as_str(), false),
                };
                let below = folder.path.join(segment);
                // what is not granted cannot keep the search from what is
                if !self.concerns(&below, is_folder, filter)? {
                    continue;
                }
                let is_long = below.path.len() > LONGEST;
                if is_long || segment.contains('/') || path::check(segment).is_err() {
                    let message = format!("{} gives a name that no key can have", purpose.doing);
                    return Err(ProviderError::new(ErrorKind::Malformed, Operation::Find, message)
                        .with_hint("Names have no whitespace and no invisible characters. Rename it"));
                }
                if is_folder {
                    let below = folder.below(below);
                    kept.folder(&below)?;
                    folders.push(below);
                } else {
                    kept.key(&below)?;
                    keys.push(below);
                }
            }
            if last.is_none() || seen.len() == before {
                break;
            }
            after = last;
        }
        if seen.is_empty() {
            // every folder of an engine of another version is empty
            self.confirm_engine(&purpose, &folder.path.path).await?;
        }
        Ok((keys, folders))
    }

    /// Whether a key, or a key in a folder, may be granted.
    fn concerns(&self, path: &KvPath, is_folder: bool, filter: &KeyFilter) -> Result<bool, ProviderError> {
        let text = match self.locator.mount {
            Some(_) => path.path.clone(),
            None => format!("{}/{}", path.mount, path.path),
        };
        if is_folder {
            Ok(filter.reaches(&format!("{text}/")))
        } else {
            filter.matches_key(&text)
        }
    }

    /// What an engine of version 2 tells of a key.
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
        let answer = self.send_to_engine(&purpose, &location.path, &endpoint).await?;
        if !answer.is_success() {
            return Err(self.read_error(&purpose, &location.path, &answer).await);
        }
        answer
            .envelope()
            .and_then(|envelope| envelope.parse::<KeyMetadata>())
            .ok_or_else(|| purpose.malformed(&answer, "is not metadata of a key/value engine of version 2"))
    }

    /// Whether a key carries the tags that are looked for. A key whose current version was deleted carries none.
    async fn tagged(&self, key: &str, location: &KvPath, filter: &KeyFilter) -> Result<bool, ProviderError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn path(length: usize) -> KvPath {
        KvPath {
            mount: "kv".to_owned(),
            path: "x".repeat(length - 2),
        }
    }

    #[test]
    fn a_search_keeps_so_many_keys_and_no_more() {
        let kept = Kept::default();
        for _ in 0..MOST_KEYS {
            kept.key(&path(8)).unwrap();
        }
        let error = kept.key(&path(8)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
        assert!(error.message.contains("10000 keys"), "{error}");
    }

    #[test]
    fn keys_and_folders_share_the_bytes_of_a_search() {
        let kept = Kept::default();
        let folder = Folder::root(path(1024));
        for _ in 0..MOST_BYTES / 4096 {
            // a folder holds its path and that of its root
            kept.folder(&folder).unwrap();
            kept.key(&path(2048)).unwrap();
        }
        for error in [
            kept.folder(&folder).unwrap_err(),
            kept.key(&path(2048)).unwrap_err(),
        ] {
            assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
            assert!(error.message.contains("4 MiB of names"), "{error}");
        }
    }
}
