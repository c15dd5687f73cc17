//! Credentials of a store's namespace, without a cluster.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use lockstep_provider::{Credentials, ErrorKind, Operation, ProviderError, SecretValue};
use parking_lot::Mutex;

/// The name of an object and a key in its data.
type Place = (String, String);

/// Holds Secrets, ConfigMaps, and tokens and annotations of ServiceAccounts. Clones share the same
/// content.
#[derive(Clone, Default)]
pub struct Objects {
    values: Arc<Mutex<BTreeMap<Place, Vec<u8>>>>,
    reads: Arc<AtomicUsize>,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Objects")
    }
}

impl Objects {
    /// Sets one key of a Secret or ConfigMap, the token of a ServiceAccount and audience, or an
    /// annotation of a ServiceAccount. Replaces an existing value.
    pub fn set(&self, name: &str, key: &str, value: impl Into<Vec<u8>>) {
        self.values
            .lock()
            .insert((name.to_owned(), key.to_owned()), value.into());
    }

    /// Sets one key and returns `self`, for chaining.
    #[must_use]
    pub fn with(self, name: &str, key: &str, value: impl Into<Vec<u8>>) -> Self {
        self.set(name, key, value);
        self
    }

    /// Returns a value that was set, as text.
    ///
    /// # Panics
    /// Panics when no such value was set.
    pub fn text(&self, name: &str, key: &str) -> String {
        match self.find(name, key) {
            Some(value) => String::from_utf8_lossy(&value).into_owned(),
            None => panic!("\"{name}\" has no key \"{key}\""),
        }
    }

    /// Returns the total number of reads.
    pub fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    fn find(&self, name: &str, key: &str) -> Option<Vec<u8>> {
        self.values
            .lock()
            .get(&(name.to_owned(), key.to_owned()))
            .cloned()
    }

    fn get(&self, name: &str, key: &str) -> Result<Vec<u8>, ProviderError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.find(name, key).ok_or_else(|| {
            let message = format!("\"{name}\" has no key \"{key}\"");
            ProviderError::new(ErrorKind::CredentialsUnavailable, Operation::Login, message)
        })
    }
}

#[async_trait]
impl Credentials for Objects {
    async fn secret(&self, name: &str, key: &str) -> Result<SecretValue, ProviderError> {
        self.get(name, key).map(SecretValue::new)
    }

    async fn config_map(&self, name: &str, key: &str) -> Result<String, ProviderError> {
        let value = self.get(name, key)?;
        Ok(String::from_utf8_lossy(&value).into_owned())
    }

    async fn service_account_token(&self, name: &str, audience: &str) -> Result<SecretValue, ProviderError> {
        self.get(name, audience).map(SecretValue::new)
    }

    async fn service_account_annotation(
        &self,
        name: &str,
        annotation: &str,
    ) -> Result<Option<String>, ProviderError> {
        let value = self.find(name, annotation);
        Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
    }
}
