//! Implements the provider interface for a store's configuration.

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use lockstep_api::{GcpProvider, StoreProvider};
use lockstep_core::time::SystemClock;
use lockstep_http::Connect;
use lockstep_provider::{
    Capability, Ciphertext, Context, Costs, Credentials, Encryptor, ErrorKind, EventSource, FindQuery,
    Locator, Login, NoLeases, Operation, Provider, ProviderError, ProviderFactory, RemoteMeta, RemoteRef,
    RemoteSecret, SecretValue, StoreConfig, no_key,
};
use parking_lot::Mutex;

use crate::{
    auth::Caller,
    client::Http,
    config::{self, Config, subscription},
    costs,
    events::Pulled,
    kms::{Kms, KmsEncryptor},
    login::GcpAuthenticator,
    name::GcpLocator,
    secret_manager::SecretManager,
};

/// The field of the key for ciphertexts.
const KMS_FIELD: &str = "spec.provider.gcp.kms";

/// Creates `gcp` providers. Providers with the same endpoint policy share connections, so that a
/// store never reuses a connection that its policy forbids.
#[derive(Debug, Clone, Default)]
pub struct GcpFactory {
    clients: Arc<Mutex<BTreeMap<Connect, Http>>>,
}

#[async_trait]
impl ProviderFactory for GcpFactory {
    fn name(&self) -> &'static str {
        "gcp"
    }

    fn locator(&self, provider: &StoreProvider) -> Result<Arc<dyn Locator>, ProviderError> {
        let project_ref = config::project_ref(spec(provider)?)?;
        Ok(Arc::new(GcpLocator { project_ref }))
    }

    async fn build(
        &self,
        config: &StoreConfig,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Arc<dyn Provider>, ProviderError> {
        let events = config.events.as_ref().and_then(|events| events.pubsub.clone());
        let connect = Connect::from(config);
        let config = configured(config)?;
        let caller = self.caller(&config, connect, credentials)?;
        let changes = match (events, &config.project_ref) {
            (None, _) => None,
            (Some(spec), Some(project_ref)) => {
                let subscription = subscription(&spec, &project_ref.project)?;
                let pulled = Pulled::new(subscription, project_ref.clone(), Arc::clone(&caller));
                Some(Arc::new(pulled))
            }
            (Some(_), None) => return Err(no_project(Operation::Configure)),
        };
        let secrets = config
            .project_ref
            .clone()
            .map(|project_ref| SecretManager::new(&config, project_ref, Arc::clone(&caller)));
        let kms = config.kms.clone().map(|key| Kms::new(key, Arc::clone(&caller)));
        Ok(Arc::new(Gcp {
            config,
            caller,
            secrets,
            kms,
            changes,
        }))
    }

    async fn encryptor(
        &self,
        config: &StoreConfig,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Arc<dyn Encryptor>, ProviderError> {
        let connect = Connect::from(config);
        let config = configured(config)?;
        let Some(key) = config.kms.clone() else {
            return Err(no_key(Operation::Configure, KMS_FIELD));
        };
        let caller = self.caller(&config, connect, credentials)?;
        Ok(Arc::new(KmsEncryptor(Kms::new(key, caller))))
    }

    fn costs(&self, provider: &StoreProvider) -> Costs {
        let gcp = provider.gcp.as_ref();
        gcp.map_or_else(|| Costs::uncharged("Google Secret Manager"), costs::costs)
    }
}

impl GcpFactory {
    fn caller(
        &self,
        config: &Config,
        connect: Connect,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Arc<Caller>, ProviderError> {
        let http = self.http(connect)?;
        let authenticator = GcpAuthenticator::new(config.login.clone(), http.clone(), credentials);
        Ok(Caller::new(http, Login::new(authenticator)))
    }

    fn http(&self, connect: Connect) -> Result<Http, ProviderError> {
        let mut clients = self.clients.lock();
        if let Some(http) = clients.get(&connect) {
            return Ok(http.clone());
        }
        let http = Http::new(connect, Arc::new(SystemClock)).ok_or_else(|| {
            let message = "TLS cannot be used here";
            ProviderError::new(ErrorKind::Internal, Operation::Configure, message)
        })?;
        clients.insert(connect, http.clone());
        Ok(http)
    }
}

/// Returns the validated configuration of a store.
fn configured(config: &StoreConfig) -> Result<Config, ProviderError> {
    Config::new(spec(&config.provider)?, &config.key)
}

fn spec(provider: &StoreProvider) -> Result<&GcpProvider, ProviderError> {
    provider.gcp.as_ref().ok_or_else(|| {
        let message = "spec.provider.gcp is not set";
        ProviderError::new(ErrorKind::ConfigInvalid, Operation::Configure, message)
    })
}

/// One project, read with one identity.
struct Gcp {
    config: Config,
    caller: Arc<Caller>,
    /// `None` if the store has only a KMS key.
    secrets: Option<SecretManager>,
    kms: Option<Kms>,
    changes: Option<Arc<Pulled>>,
}

impl fmt::Debug for Gcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gcp").field(&self.config).finish()
    }
}

#[async_trait]
impl Provider for Gcp {
    fn capability(&self) -> Capability {
        Capability {
            name: "gcp",
            versions: true,
            find: true,
            find_by_tags: true,
            metadata: true,
            binary: true,
            batch: 1,
            notifies: false,
            leases: false,
        }
    }

    async fn fetch(&self, _cx: &Context, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        match &self.secrets {
            Some(secrets) => secrets.fetch(refs).await,
            None => refs.iter().map(|_| Err(no_project(Operation::Read))).collect(),
        }
    }

    fn batches(&self, _: &RemoteRef) -> bool {
        false
    }

    async fn find(&self, cx: &Context, query: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError> {
        match &self.secrets {
            Some(secrets) => secrets.find(cx, query).await,
            None => Err(no_project(Operation::Find)),
        }
    }

    async fn decrypt(&self, _cx: &Context, ciphertext: &Ciphertext) -> Result<SecretValue, ProviderError> {
        match &self.kms {
            Some(kms) => kms.decrypt(ciphertext).await,
            None => Err(no_key(Operation::Decrypt, KMS_FIELD)),
        }
    }

    async fn check(&self, _cx: &Context) -> Result<(), ProviderError> {
        match &self.secrets {
            Some(secrets) => secrets.check().await,
            // A KMS call would need a permission and would only show that the login works.
            None => self.caller.check().await,
        }
    }

    lockstep_provider::returns_none!(notice, changes);

    fn events(&self) -> Option<Arc<dyn EventSource>> {
        let changes = self.changes.clone()?;
        Some(changes)
    }
}

impl NoLeases for Gcp {}

fn no_project(operation: Operation) -> ProviderError {
    let message = "the store has a KMS key alone: spec.provider.gcp.projectID is not set";
    ProviderError::new(ErrorKind::ConfigInvalid, operation, message)
        .with_hint("Set it, or use ciphertext in place of remoteRef")
}
