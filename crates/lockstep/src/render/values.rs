//! The folder that replaces every store.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use lockstep_api::StoreRef;
use lockstep_controller::fetch::Stores;
use lockstep_provider::{
    Capability, Ciphertext, Context, ErrorKind, FindQuery, KeyFilter, NoLeases, Operation, Part, Provider,
    ProviderError, RemoteMeta, RemoteRef, RemoteSecret, SecretValue, found, no_kms,
};

/// Maximum number of values in a folder.
const MAX_FILES: usize = 100_000;
/// Maximum nesting of folders. It also ends links that form a cycle.
const MAX_DEPTH: usize = 32;
/// Maximum size of a value in bytes. A Secret holds at most 1 MiB.
const MAX_BYTES: u64 = 4 << 20;

/// Suffix of the file with the metadata of a value, in place of a version.
const METADATA: &str = "metadata";

/// Files with values, by key.
#[derive(Debug)]
pub(super) struct Folder {
    files: BTreeMap<String, PathBuf>,
}

impl Folder {
    /// Lists the files of a folder.
    ///
    /// # Errors
    /// Describes what cannot be listed.
    pub(super) fn open(root: &Path) -> Result<Self, String> {
        let mut files = BTreeMap::new();
        let inside =
            fs::canonicalize(root).map_err(|error| format!("{} cannot be read: {error}", root.display()))?;
        let mut folders = vec![(root.to_owned(), String::new(), 0)];
        while let Some((folder, prefix, depth)) = folders.pop() {
            let unreadable = |error: io::Error| format!("{} cannot be listed: {error}", folder.display());
            if depth > MAX_DEPTH {
                return Err(format!(
                    "{}: folders are nested more than {MAX_DEPTH} levels deep",
                    root.display()
                ));
            }
            for entry in fs::read_dir(&folder).map_err(unreadable)? {
                let entry = entry.map_err(unreadable)?;
                let name = entry
                    .file_name()
                    .into_string()
                    .map_err(|_| format!("{}: a file name is not valid UTF-8", folder.display()))?;
                let path = entry.path();
                let real = fs::canonicalize(&path)
                    .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
                if !real.starts_with(&inside) {
                    return Err(format!(
                        "{}: the link leads out of {}",
                        path.display(),
                        root.display()
                    ));
                }
                let metadata = fs::metadata(&path)
                    .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
                let key = format!("{prefix}{name}");
                if metadata.is_dir() {
                    folders.push((path, format!("{key}/"), depth + 1));
                } else {
                    files.insert(key, path);
                }
                if files.len() > MAX_FILES {
                    return Err(format!(
                        "{}: contains more than the maximum of {MAX_FILES} files",
                        root.display()
                    ));
                }
            }
        }
        Ok(Self { files })
    }

    fn read(&self, reference: &RemoteRef) -> Result<RemoteSecret, ProviderError> {
        let fail = |kind, message: String| ProviderError::new(kind, Operation::Read, message);
        let key = reference.key.trim_matches('/');
        let path = if reference.part == Part::Metadata {
            self.files.get(&format!("{key}@{METADATA}"))
        } else {
            let version = reference.version.as_ref();
            let versioned = version.and_then(|version| self.files.get(&format!("{key}@{version}")));
            versioned.or_else(|| self.files.get(key))
        };
        let Some(path) = path else {
            let what = match reference.part {
                Part::Value => "does not exist".to_owned(),
                Part::Metadata => format!("has no metadata: file {key}@{METADATA} does not exist"),
            };
            return Err(fail(
                ErrorKind::NotFound,
                format!("key \"{}\" {what}", reference.key),
            ));
        };
        Ok(RemoteSecret {
            value: SecretValue::new(content(path, &reference.key)?),
            version: reference.version.clone(),
            created: None,
            fresh_for: None,
        })
    }

    /// Returns the value of a ciphertext from file `namespace/name/key`, if it exists.
    pub(super) fn unsealed(
        &self,
        namespace: &str,
        name: &str,
        key: &str,
    ) -> Option<Result<SecretValue, ProviderError>> {
        let key = format!("{namespace}/{name}/{key}");
        let path = self.files.get(&key)?;
        Some(content(path, &key).map(SecretValue::new))
    }

    /// Whether a file holds a specific version of another key.
    fn is_version(&self, key: &str) -> bool {
        key.rsplit_once('@')
            .is_some_and(|(base, _)| self.files.contains_key(base))
    }
}

/// Reads the content of a file.
fn content(path: &Path, key: &str) -> Result<Vec<u8>, ProviderError> {
    let fail = |kind, message: String| ProviderError::new(kind, Operation::Read, message);
    let unreadable = |error: io::Error| {
        let message = format!("key \"{key}\" cannot be read: {error}");
        fail(ErrorKind::Unavailable, message)
    };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        let most = MAX_BYTES >> 20;
        let message = format!("key \"{key}\" is larger than the maximum of {most} MiB");
        return Err(fail(ErrorKind::Malformed, message));
    }
    Ok(bytes)
}

#[async_trait]
impl Provider for Folder {
    fn capability(&self) -> Capability {
        Capability {
            name: "values",
            versions: true,
            find: true,
            find_by_tags: false,
            metadata: true,
            binary: true,
            batch: 1,
            notifies: false,
            leases: false,
        }
    }

    async fn fetch(&self, _: &Context, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        refs.iter().map(|reference| self.read(reference)).collect()
    }

    fn batches(&self, _: &RemoteRef) -> bool {
        false
    }

    async fn find(&self, cx: &Context, query: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError> {
        if !query.tags.is_empty() {
            let message = "find.tags: tags are not supported with --values";
            return Err(ProviderError::new(
                ErrorKind::Unsupported,
                Operation::Find,
                message,
            ));
        }
        let filter = KeyFilter::new(cx, query).await?;
        let mut all = Vec::new();
        for key in self.files.keys().filter(|key| !self.is_version(key)) {
            // a key may start with a slash, the path of a file does not
            for spelled in [key.clone(), format!("/{key}")] {
                if filter.matches_key(&spelled)? {
                    all.push(found(&spelled)?);
                    break;
                }
            }
        }
        Ok(all)
    }

    async fn decrypt(&self, _: &Context, _: &Ciphertext) -> Result<SecretValue, ProviderError> {
        Err(no_kms(self))
    }

    async fn check(&self, _: &Context) -> Result<(), ProviderError> {
        Ok(())
    }

    lockstep_provider::returns_none!(notice, changes, events);
}

impl NoLeases for Folder {}

/// Resolves every store to the folder.
#[derive(Debug)]
pub(super) struct Everywhere(pub(super) Arc<Folder>);

#[async_trait]
impl Stores for Everywhere {
    async fn provider(&self, _: &StoreRef) -> Result<Arc<dyn Provider>, ProviderError> {
        Ok(self.0.clone())
    }
}
