use std::sync::Arc;

use async_trait::async_trait;

use super::backend::{MemoryBackend, State};
use crate::{
    Capability, Ciphertext, Context, ErrorKind, FindQuery, KeyFilter, NoLeases, Operation, Part, Provider,
    ProviderError, RemoteMeta, RemoteRef, RemoteSecret, SecretValue,
};

/// A client of a [`MemoryBackend`].
#[derive(Debug)]
pub(super) struct MemoryProvider {
    pub(super) backend: MemoryBackend,
    pub(super) name: &'static str,
    pub(super) batch: usize,
    pub(super) only_current_in_batches: bool,
}

impl MemoryBackend {
    /// Creates a client of this backend, named "memory".
    pub fn provider(&self) -> Arc<dyn Provider> {
        self.provider_named("memory")
    }

    /// Creates a client of this backend under the name of another.
    pub fn provider_named(&self, name: &'static str) -> Arc<dyn Provider> {
        Arc::new(MemoryProvider {
            backend: self.clone(),
            name,
            batch: self.batch,
            only_current_in_batches: self.only_current_in_batches,
        })
    }
}

#[async_trait]
impl Provider for MemoryProvider {
    fn capability(&self) -> Capability {
        Capability {
            name: self.name,
            versions: true,
            find: true,
            find_by_tags: true,
            metadata: true,
            binary: true,
            batch: self.batch,
            notifies: false,
            leases: false,
        }
    }

    fn batches(&self, reference: &RemoteRef) -> bool {
        let is_current = reference.part == Part::Value && reference.version.is_none();
        self.batch > 1 && (is_current || !self.only_current_in_batches)
    }

    async fn fetch(&self, _: &Context, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        if refs.is_empty() {
            return Vec::new();
        }
        match self.backend.request(Operation::Read).await {
            Err(error) => refs.iter().map(|_| Err(error.clone())).collect(),
            Ok(_in_flight) => {
                let mut state = self.backend.write();
                state.faults.largest_batch = state.faults.largest_batch.max(refs.len());
                refs.iter().map(|reference| read(&mut state, reference)).collect()
            }
        }
    }

    async fn find(&self, cx: &Context, query: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError> {
        let filter = KeyFilter::new(cx, query).await?;
        let _in_flight = self.backend.request(Operation::Find).await?;
        let state = self.backend.read();
        let found = state.entries.iter().filter(|(_, entry)| {
            entry.versions.last().is_some_and(Option::is_some) && filter.matches_tags(&entry.tags)
        });
        let kept = filter.keep(found, |(key, _)| key)?;
        kept.into_iter().map(|(key, _)| crate::found(key)).collect()
    }

    async fn decrypt(&self, _: &Context, ciphertext: &Ciphertext) -> Result<SecretValue, ProviderError> {
        let _in_flight = self.backend.request(Operation::Decrypt).await?;
        let place = ciphertext.binding.to_bytes();
        let value = ciphertext.bytes.strip_prefix(place.as_slice());
        value.map(SecretValue::new).ok_or_else(|| {
            let message = "the ciphertext is of another key or place";
            ProviderError::new(ErrorKind::Undecryptable, Operation::Decrypt, message)
        })
    }

    async fn check(&self, _: &Context) -> Result<(), ProviderError> {
        self.backend.request(Operation::Check).await.map(|_| ())
    }

    crate::returns_none!(notice, changes, events);
}

impl NoLeases for MemoryProvider {}

fn read(state: &mut State, reference: &RemoteRef) -> Result<RemoteSecret, ProviderError> {
    let key = &reference.key;
    let error = |kind, message| ProviderError::new(kind, Operation::Read, message);
    *state.faults.reads.entry(key.to_string()).or_default() += 1;
    if let Some(fault) = state.faults.next_for_key(key) {
        let mut error = fault.error(Operation::Read);
        // like the messages of real providers
        error.message = format!("{}, reading \"{}\"", error.message, key.escape_debug());
        return Err(error);
    }
    let missing = || {
        error(
            ErrorKind::NotFound,
            format!("key \"{}\" does not exist", key.escape_debug()),
        )
    };
    let entry = state.entries.get(key.as_str()).ok_or_else(missing)?;
    if entry.denied {
        return Err(error(
            ErrorKind::PermissionDenied,
            format!("permission denied reading \"{key}\""),
        ));
    }
    if reference.part == Part::Metadata {
        let text = serde_json::to_string(&entry.tags).unwrap_or_default();
        return Ok(RemoteSecret {
            value: SecretValue::from(text),
            version: None,
            created: None,
            fresh_for: None,
        });
    }
    let number = match &reference.version {
        None => entry.versions.len(),
        Some(version) => version.parse().unwrap_or(0),
    };
    let version = number
        .checked_sub(1)
        .and_then(|index| entry.versions.get(index))
        .and_then(Option::as_ref);
    let version = version.ok_or_else(|| match &reference.version {
        None => missing(),
        Some(version) => error(
            ErrorKind::NotFound,
            format!("key \"{key}\" has no version \"{version}\""),
        ),
    })?;
    Ok(RemoteSecret {
        value: version.value.clone(),
        version: Some(number.to_string()),
        created: Some(version.created),
        fresh_for: None,
    })
}
