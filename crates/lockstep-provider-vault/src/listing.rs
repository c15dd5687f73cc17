//! Lists the folders of an engine, within limits.

use std::{
    collections::{BTreeSet, HashSet},
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicUsize, Ordering},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use lockstep_provider::{CONCURRENT_CALLS, ErrorKind, KeyFilter, Operation, ProviderError};

use crate::{
    answer::MOST_KEYS,
    endpoint::ListFolder,
    error::Purpose,
    path::{self, KvPath},
    provider::Vault,
};

/// Maximum number of folders that one search lists.
const MOST_FOLDERS: usize = 10_000;
/// Maximum depth of folders, counted from the start of the search.
const DEEPEST: usize = 32;
/// Maximum length of a name and of a path, in bytes. No key is longer.
const LONGEST: usize = 2048;
/// Maximum total length of the names that one search keeps, in bytes.
const MOST_BYTES: usize = 4 << 20;

fn too_much(what: &str) -> ProviderError {
    let message = format!("there are more than {what} to search");
    ProviderError::new(ErrorKind::Unsupported, Operation::Find, message)
        .with_hint("Narrow it down with find.path")
}

/// A folder to list, and the root from which the search reached it.
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

/// A name of a folder, of a key or folder that may be granted.
struct Below {
    path: KvPath,
    /// The key, or what every key in the folder begins with.
    text: String,
    is_folder: bool,
    /// Whether a key can have this name.
    is_possible: bool,
}

/// What one search keeps in all folders. Several folders are listed at the same time.
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
    /// Lists every key below these folders that may be granted.
    pub(crate) async fn list_all(
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

    /// Describes the listing for a message. It names nothing that the caller was not granted.
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

    /// Lists the keys and subfolders of one folder that may be granted. Only a hash is kept of other
    /// names, because a malicious server could fill the memory with them.
    ///
    /// One request lists the whole folder. OpenBao cuts pages before a policy filters names
    /// (`list_scan_response_keys_filter_path`), so the last page cannot be told from a filtered one,
    /// and names after it would look deleted.
    async fn list(
        &self,
        folder: Folder,
        filter: &KeyFilter,
        kept: &Kept,
    ) -> Result<(Vec<KvPath>, Vec<Folder>), ProviderError> {
        let purpose = self.listing(&folder, filter)?;
        let names = self.names(&purpose, &folder.path).await?;
        if names.len() > MOST_KEYS {
            return Err(too_much(&format!("{MOST_KEYS} keys")));
        }
        let (hasher, mut seen) = (RandomState::new(), HashSet::new());
        let (mut keys, mut folders) = (Vec::new(), Vec::new());
        // what is not granted cannot keep the search from what is
        let new = names
            .iter()
            .filter(|name| seen.insert(hasher.hash_one(name)))
            .filter_map(|name| self.below(&folder, name, filter));
        let (below, named): (Vec<_>, Vec<_>) = new.partition(|below| below.is_folder);
        for name in below
            .into_iter()
            .chain(filter.named(named, |key| &key.text).await?)
        {
            if !name.is_possible {
                let message = format!("{} returned an invalid key name", purpose.doing);
                return Err(ProviderError::new(ErrorKind::Malformed, Operation::Find, message)
                    .with_hint("Names have no whitespace and no invisible characters. Rename it"));
            }
            if name.is_folder {
                let below = folder.below(name.path);
                kept.folder(&below)?;
                folders.push(below);
            } else {
                kept.key(&name.path)?;
                keys.push(name.path);
            }
        }
        if names.is_empty() {
            // every folder looks empty in an engine of another version
            self.confirm_engine(&purpose, &folder.path.path).await?;
        }
        Ok((keys, folders))
    }

    /// Returns the names in a folder. A folder that does not exist has none.
    async fn names(&self, purpose: &Purpose, folder: &KvPath) -> Result<Vec<String>, ProviderError> {
        let policy = folder.metadata_policy(self.locator.version);
        let request = ListFolder {
            folder: policy.trim_end_matches('/').to_owned(),
            list: true,
            limit: ListFolder::EVERYTHING,
        };
        let (answer, _) = self.send_to_engine(purpose, &folder.path, &request).await?;
        if !answer.is_success() {
            let error = purpose.failed(&answer);
            return match error.kind {
                ErrorKind::NotFound => Ok(Vec::new()),
                _ => Err(error),
            };
        }
        answer
            .names()
            .ok_or_else(|| purpose.malformed(&answer, "is not a list of names"))
    }

    /// The key or folder that a name stands for, or `None` when it cannot be granted.
    fn below(&self, folder: &Folder, name: &str, filter: &KeyFilter) -> Option<Below> {
        let (segment, is_folder) = match name.strip_suffix('/') {
            Some(folder) => (folder, true),
            None => (name, false),
        };
        let path = folder.path.join(segment);
        let mut text = match self.locator.mount {
            Some(_) => path.path.clone(),
            None => format!("{}/{}", path.mount, path.path),
        };
        let concerns = if is_folder {
            text.push('/');
            filter.reaches(&text)
        } else {
            filter.matches_location(&text)
        };
        let is_long = path.path.len() > LONGEST;
        concerns.then(|| Below {
            is_possible: !is_long && !segment.contains('/') && path::check(segment).is_ok(),
            path,
            text,
            is_folder,
        })
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
    fn number_of_keys_of_a_search_is_limited() {
        let kept = Kept::default();
        for _ in 0..MOST_KEYS {
            kept.key(&path(8)).unwrap();
        }
        let error = kept.key(&path(8)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
        assert!(error.message.contains("10000 keys"), "{error}");
    }

    #[test]
    fn keys_and_folders_share_the_byte_limit() {
        let kept = Kept::default();
        let folder = Folder::root(path(1024));
        for _ in 0..MOST_BYTES / 4096 {
            // a folder contains its path and that of its root
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
