//! Caches the clients of stores with their layers, one for each store identity.

mod changes;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use moka::future::Cache;
use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::time::Instant;

pub use self::changes::Changes;
use self::changes::Watched;
use crate::{
    Capability, Credentials, FetchMetrics, Provider, ProviderError, Registry, StoreConfig, StoreKey,
    layers::{Layered, StackOptions},
};

/// A client that is not used for this long is dropped together with its login.
const IDLE: Duration = Duration::from_secs(3600);
/// How long a failure to build a client is cached, so that a store with a thousand dependents is
/// not tried a thousand times.
const FAILURE_STANDS: Duration = Duration::from_secs(1);

/// Caches the clients of stores.
///
/// A store's identity is its key and the revision of its client's inputs (configuration,
/// credentials, CA). The caller computes the revision so that it changes with any of them. Each
/// identity has its own client, and two identities share nothing. A new revision drops the client
/// of the old one.
#[derive(Clone)]
pub struct Clients {
    registry: Registry,
    metrics: FetchMetrics,
    cache: Cache<Identity, Arc<dyn Provider>>,
    state: Arc<Mutex<State>>,
    watched: Watched,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients")
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

/// A store with one configuration and one set of credentials.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Identity {
    key: StoreKey,
    revision: String,
}

#[derive(Default)]
struct State {
    /// The current identity of each store.
    current: HashMap<StoreKey, String>,
    /// Identities whose client could not be built, and when each failure occurred.
    failures: HashMap<Identity, (Instant, ProviderError)>,
}

impl Clients {
    /// Creates an empty cache of at most `capacity` clients.
    pub fn new(registry: Registry, metrics: FetchMetrics, capacity: u64) -> Self {
        let cache = Cache::builder().max_capacity(capacity).time_to_idle(IDLE).build();
        Self {
            registry,
            metrics,
            cache,
            state: Arc::default(),
            watched: Watched::default(),
        }
    }

    /// Returns the client of a store identity, and builds it if there is none. Concurrent callers
    /// share one build.
    ///
    /// # Errors
    /// The error of building the client. It is cached for a second; the next caller after that
    /// tries again.
    pub async fn get(
        &self,
        key: &StoreKey,
        revision: &str,
        config: &StoreConfig,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Arc<dyn Provider>, ProviderError> {
        let identity = Identity {
            key: key.clone(),
            revision: revision.to_owned(),
        };
        if let Some(client) = self.cache.get(&identity).await {
            return Ok(client);
        }
        let make = async {
            self.standing_failure(&identity)?;
            match self.registry.build(config, credentials).await {
                Ok(provider) => {
                    let watch = self.watched.add(key, provider.as_ref());
                    let counted = Counted::new(self.metrics.clients().clone());
                    let client = Layered::new(provider, config, &self.metrics, StackOptions::default());
                    Ok(Arc::new(client.keeping((counted, watch))) as Arc<dyn Provider>)
                }
                Err(error) => {
                    self.remember_failure(identity.clone(), error.clone());
                    Err(error)
                }
            }
        };
        let client = self.cache.try_get_with_by_ref(&identity, make).await;
        let client = client.map_err(|error: Arc<ProviderError>| ProviderError::clone(&error))?;
        self.drop_older(identity).await;
        Ok(client)
    }

    /// Returns what the store's client can do, or `None` if it has no client at the moment.
    pub async fn capability(&self, key: &StoreKey) -> Option<Capability> {
        let revision = self.state.lock().current.get(key).cloned()?;
        let identity = Identity {
            key: key.clone(),
            revision,
        };
        let client = self.cache.get(&identity).await?;
        Some(client.capability())
    }

    /// Returns a stream of the stores with a client whose values may have changed. Only one task
    /// may consume it.
    pub fn changes(&self) -> Changes {
        Changes::new(self.watched.clone())
    }

    /// Drops a store's client of any revision. The next caller builds a new one.
    pub async fn drop_client(&self, key: &StoreKey) {
        let revision = {
            let mut state = self.state.lock();
            state.failures.retain(|identity, _| identity.key != *key);
            state.current.remove(key)
        };
        if let Some(revision) = revision {
            self.remove(&Identity {
                key: key.clone(),
                revision,
            })
            .await;
        }
    }

    /// Drops the client of a deleted store and removes its series from the metrics.
    pub async fn forget(&self, key: &StoreKey) {
        self.drop_client(key).await;
        self.watched.remove(key);
        self.metrics.remove_store(key);
    }

    /// Makes this identity the store's current one, and drops the previous one.
    async fn drop_older(&self, identity: Identity) {
        let older = {
            let mut state = self.state.lock();
            state.failures.remove(&identity);
            state
                .current
                .insert(identity.key.clone(), identity.revision.clone())
        };
        if let Some(revision) = older.filter(|older| *older != identity.revision) {
            self.remove(&Identity {
                key: identity.key,
                revision,
            })
            .await;
        }
    }

    async fn remove(&self, identity: &Identity) {
        self.cache.invalidate(identity).await;
        // Otherwise the cache keeps an evicted client for a while, and with it a login.
        self.cache.run_pending_tasks().await;
    }

    fn standing_failure(&self, identity: &Identity) -> Result<(), ProviderError> {
        match self.state.lock().failures.get(identity) {
            Some((since, error)) if since.elapsed() < FAILURE_STANDS => Err(error.clone()),
            _ => Ok(()),
        }
    }

    fn remember_failure(&self, identity: Identity, error: ProviderError) {
        let mut state = self.state.lock();
        state
            .failures
            .retain(|_, (since, _)| since.elapsed() < FAILURE_STANDS);
        state.failures.insert(identity, (Instant::now(), error));
    }
}

/// Counts a client until it is dropped: a reconcile may use it after the cache has dropped it.
struct Counted(IntGauge);

impl Counted {
    fn new(count: IntGauge) -> Self {
        count.inc();
        Self(count)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
