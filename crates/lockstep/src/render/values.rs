//! The folder that stands in for every store.

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
    Capability, Context, ErrorKind, FindQuery, KeyFilter, Operation, Part, Provider, ProviderError,
    RemoteMeta, RemoteRef, RemoteSecret, SecretValue, found,
};

/// How many values a folder may have.
const MAX_FILES: usize = 100_000;
/// How deep folders may lie in each other; it also ends links that go round in a circle.
const MAX_DEPTH: usize = 32;
/// How large a value may be, in bytes; a Secret takes 1 MiB.
const MAX_BYTES: u64 = 4 << 20;

/// In the place of a version: what is kept beside the value.
const METADATA: &str = "metadata";

/// Values by key.
#[derive(Debug)]
pub(super) struct Folder {
    files: BTreeMap<String, PathBuf>,
}

impl Folder {
    /// Lists a folder.
    ///
    /// # Errors
    /// A sentence that says what cannot be listed.
    pub(super) fn open(root: &Path) -> Result<Self, String> {
        let mut files = BTreeMap::new();
        let mut folders = vec![(root.to_owned(), String::new(), 0)];
        while let Some((folder, prefix, depth)) = folders.pop() {
            let unreadable = |error: io::Error| format!("{} cannot be listed: {error}", folder.display());
            if depth > MAX_DEPTH {
                return Err(format!("{}: more than {MAX_DEPTH} folders deep", root.display()));
            }
            for entry in fs::read_dir(&folder).map_err(unreadable)? {
                let entry = entry.map_err(unreadable)?;
                let name = entry
                    .file_name()
                    .into_string()
                    .map_err(|_| format!("{}: the name of a file is not UTF-8", folder.display()))?;
                let path = entry.path();
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
                        "{}: more than {MAX_FILES} files, which is the limit",
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
                Part::Metadata => format!("has no metadata: there is no file {key}@{METADATA}"),
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

    /// The value of a ciphertext: the file `namespace/name/key`, if there is one.
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

    /// Whether a file is a certain version of another one.
    fn is_version(&self, key: &str) -> bool {
        key.rsplit_once('@')
            .is_some_and(|(base, _)| self.files.contains_key(base))
    }
}

/// What is in a file.
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
        let message = format!("key \"{key}\" has more than {most} MiB, which is the limit");
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

    async fn find(&self, _: &Context, query: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError> {
        if !query.tags.is_empty() {
            let message = "find.tags: a folder with values has no tags";
            return Err(ProviderError::new(
                ErrorKind::Unsupported,
                Operation::Find,
                message,
            ));
        }
        let filter = KeyFilter::new(query)?;
        let mut all = Vec::new();
        for key in self.files.keys().filter(|key| !self.is_version(key)) {
            // a key may begin with a slash, and the path of a file does not
            for spelled in [key.clone(), format!("/{key}")] {
                if filter.matches_key(&spelled)? {
                    all.push(found(&spelled)?);
                    break;
                }
            }
        }
        Ok(all)
    }

    async fn check(&self, _: &Context) -> Result<(), ProviderError> {
        Ok(())
    }
}

/// Every store is the folder.
#[derive(Debug)]
pub(super) struct Everywhere(pub(super) Arc<Folder>);

#[async_trait]
impl Stores for Everywhere {
    async fn provider(&self, _: &StoreRef) -> Result<Arc<dyn Provider>, ProviderError> {
        Ok(self.0.clone())
    }
}
