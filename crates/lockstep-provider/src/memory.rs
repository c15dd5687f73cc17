//! The memory provider for tests: values in memory, with versions, tags and faults on demand.
//! Registered under another backend's name, it stands in for that backend.

mod backend;
mod faults;
mod provider;

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use parking_lot::RwLock;

pub use backend::MemoryBackend;

use lockstep_api::StoreProvider;

use crate::{
    Credentials, ErrorKind, Locator, Operation, Provider, ProviderError, ProviderFactory, StoreConfig,
    StoreKey, Verbatim,
};

/// Builds memory providers under the name of another backend, with one [`MemoryBackend`] for each
/// store. Clones share their backends, so that a test can add stores after the factory is
/// registered.
#[derive(Debug, Clone)]
pub struct MemoryFactory {
    name: &'static str,
    backends: Arc<RwLock<HashMap<StoreKey, MemoryBackend>>>,
    builds: Arc<std::sync::atomic::AtomicU64>,
}

impl MemoryFactory {
    /// Creates a factory that is registered as `name` ("vault", "file"), without stores.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            backends: Arc::default(),
            builds: Arc::default(),
        }
    }

    /// Adds a store; see [`MemoryFactory::insert`].
    #[must_use]
    pub fn with(self, key: StoreKey, backend: &MemoryBackend) -> Self {
        self.insert(key, backend);
        self
    }

    /// Sets the backend of a store, replacing an earlier one.
    pub fn insert(&self, key: StoreKey, backend: &MemoryBackend) {
        self.backends.write().insert(key, backend.clone());
    }

    /// Returns how many clients were requested.
    pub fn builds(&self) -> u64 {
        self.builds.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[async_trait]
impl ProviderFactory for MemoryFactory {
    fn name(&self) -> &'static str {
        self.name
    }

    fn locator(&self, _: &StoreProvider) -> Result<Arc<dyn Locator>, ProviderError> {
        Ok(Arc::new(Verbatim))
    }

    async fn build(
        &self,
        config: &StoreConfig,
        _: Arc<dyn Credentials>,
    ) -> Result<Arc<dyn Provider>, ProviderError> {
        self.builds.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let backend = self.backends.read().get(&config.key).cloned();
        let Some(backend) = backend else {
            let message = "there is no backend in memory for this store";
            return Err(ProviderError::new(
                ErrorKind::ConfigInvalid,
                Operation::Configure,
                message,
            ));
        };
        backend.configure().await?;
        Ok(backend.provider_named(self.name))
    }
}
