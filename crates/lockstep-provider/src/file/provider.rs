use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::{
    document::{Field, Fields},
    error,
    facts::Facts,
    folder, path,
    source_location::{Content, SourceLocation},
    stop::Stop,
    watch::{self, Fingerprint, Pace},
};
use crate::{
    Capability, Ciphertext, Context, ErrorKind, FindQuery, KeyFilter, NoLeases, Operation, Parts, Provider,
    ProviderError, RemoteMeta, RemoteRef, RemoteSecret, SecretValue, found, no_kms,
};

/// Maximum number of threads of one store that wait for a disk: a file system that hangs must not
/// occupy all threads.
const THREADS: usize = 4;
/// Maximum number of references per batch. A document is parsed once for all of them.
const BATCH: usize = 64;

/// A client of one file store.
#[derive(Debug)]
pub(super) struct FileProvider {
    location: Arc<SourceLocation>,
    /// The fingerprint when the client was built.
    seen: Option<Fingerprint>,
    threads: Arc<Semaphore>,
}

impl FileProvider {
    pub(super) fn new(location: Arc<SourceLocation>, seen: Option<Fingerprint>) -> Self {
        Self {
            location,
            seen,
            threads: Arc::new(Semaphore::new(THREADS)),
        }
    }

    /// Runs work that waits for the disk on a blocking thread. Dropping the future stops the work.
    async fn blocking<T: Send + 'static>(
        &self,
        cx: &Context,
        operation: Operation,
        work: impl FnOnce(&SourceLocation, &Stop) -> Result<T, ProviderError> + Send + 'static,
    ) -> Result<T, ProviderError> {
        let fault = || {
            let message = "a fault in lockstep's file provider ended the request";
            ProviderError::new(ErrorKind::Internal, operation, message)
        };
        let permit = Arc::clone(&self.threads)
            .acquire_owned()
            .await
            .map_err(|_| fault())?;
        let (stop, _waiting) = Stop::new(cx);
        let location = Arc::clone(&self.location);
        let worked = spawn_blocking(move || {
            let _permit = permit;
            stop.check(operation)?;
            work(&location, &stop)
        });
        worked.await.map_err(|_| fault())?
    }
}

#[async_trait]
impl Provider for FileProvider {
    fn capability(&self) -> Capability {
        Capability {
            name: "file",
            versions: false,
            find: true,
            find_by_tags: false,
            metadata: false,
            binary: true,
            batch: BATCH,
            notifies: true,
            leases: false,
        }
    }

    async fn fetch(&self, cx: &Context, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        if refs.is_empty() {
            return Vec::new();
        }
        let parts = Parts::of(refs);
        let wanted = parts.values.clone();
        let work = move |location: &SourceLocation, stop: &Stop| {
            Ok(match location.open(Operation::Read)? {
                Content::Folder(folder) => {
                    unversioned(&wanted, |keys| folder::read(&folder, &location.path, keys, stop))
                }
                Content::Document(fields, facts) => unversioned(&wanted, |keys| {
                    keys.iter().map(|key| field(&fields, &facts, key)).collect()
                }),
            })
        };
        let values = self
            .blocking(cx, Operation::Read, work)
            .await
            .unwrap_or_else(|error: ProviderError| parts.values.iter().map(|_| Err(error.clone())).collect());
        parts.join_values(values, "a folder")
    }

    fn batches(&self, _: &RemoteRef) -> bool {
        true
    }

    async fn find(&self, cx: &Context, query: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError> {
        if !query.tags.is_empty() {
            let message = "find.tags: files carry no tags";
            return Err(ProviderError::new(
                ErrorKind::Unsupported,
                Operation::Find,
                message,
            ));
        }
        let filter = KeyFilter::new(cx, query).await?;
        let work = move |location: &SourceLocation, stop: &Stop| match location.open(Operation::Find)? {
            Content::Folder(folder) => folder::find(&folder, &location.path, &filter, stop),
            Content::Document(fields, _) => {
                let kept = filter.keep(fields.into_keys(), |key| key)?;
                kept.iter().map(|key| found(key)).collect()
            }
        };
        self.blocking(cx, Operation::Find, work).await
    }

    async fn decrypt(&self, _: &Context, _: &Ciphertext) -> Result<SecretValue, ProviderError> {
        Err(no_kms(self))
    }

    async fn check(&self, cx: &Context) -> Result<(), ProviderError> {
        let work = |location: &SourceLocation, _: &Stop| match location.open(Operation::Check)? {
            Content::Folder(folder) => match folder::absence(&folder) {
                None => Ok(()),
                Some(trouble) => Err(error::of_store(trouble, &location.path, Operation::Check)),
            },
            Content::Document(..) => Ok(()),
        };
        self.blocking(cx, Operation::Check, work).await
    }

    crate::returns_none!(notice);

    fn changes(&self) -> Option<BoxStream<'static, ()>> {
        Some(watch::changes(
            Arc::clone(&self.location),
            self.seen,
            Pace {
                look: Duration::from_secs(1),
                settle: Duration::from_millis(200),
            },
        ))
    }

    crate::returns_none!(events);
}

impl NoLeases for FileProvider {}

/// Reads the references that have no version. Files have no versions that could be requested.
fn unversioned(
    refs: &[RemoteRef],
    read: impl FnOnce(&[&str]) -> Vec<Result<RemoteSecret, ProviderError>>,
) -> Vec<Result<RemoteSecret, ProviderError>> {
    let keys: Vec<&str> = refs
        .iter()
        .filter(|reference| reference.version.is_none())
        .map(|reference| reference.key.as_str())
        .collect();
    let mut answers = read(&keys).into_iter();
    refs.iter()
        .map(|reference| {
            let answer = match reference.version {
                None => answers.next(),
                Some(_) => None,
            };
            answer.unwrap_or_else(|| {
                let key = path::shown(&reference.key);
                let message = format!("key \"{key}\": files have no versions that could be asked for");
                Err(ProviderError::new(
                    ErrorKind::Unsupported,
                    Operation::Read,
                    message,
                ))
            })
        })
        .collect()
}

fn field(fields: &Fields, facts: &Facts, key: &str) -> Result<RemoteSecret, ProviderError> {
    let failed = |kind, message| Err(ProviderError::new(kind, Operation::Read, message));
    match fields.get(key) {
        Some(Field::Value(value)) => Ok(RemoteSecret {
            value: value.clone(),
            version: Some(facts.version()),
            created: facts.modified(),
            fresh_for: None,
        }),
        Some(Field::Inexact) => {
            let message = format!(
                "key \"{}\" holds a number with a fraction, which would be written differently; put it in quotes",
                path::shown(key)
            );
            failed(ErrorKind::Malformed, message)
        }
        None => failed(
            ErrorKind::NotFound,
            format!("key \"{}\" does not exist", path::shown(key)),
        ),
    }
}
