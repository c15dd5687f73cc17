//! Implements the provider interface for a store's configuration.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures::join;
use lockstep_api::{AwsProvider, StoreProvider, aws::AwsService};
use lockstep_core::time::SystemClock;
use lockstep_http::Connect;
use lockstep_provider::{
    Capability, Ciphertext, Context, Costs, Credentials, Encryptor, ErrorKind, EventSource, FindQuery,
    Locator, Login, NoLeases, Notice, Operation, Parts, Provider, ProviderError, ProviderFactory, RemoteMeta,
    RemoteRef, RemoteSecret, SecretValue, StoreConfig, no_key,
};

use crate::{
    auth::Caller,
    client::{Clients, Http},
    config::{self, Config},
    costs,
    events::Queue,
    kms::{Kms, KmsEncryptor},
    locate::AwsLocator,
    login::AwsAuthenticator,
    parameter_store::{self, ParameterStore},
    secrets_manager::SecretsManager,
};

/// The field of the key for ciphertexts.
const KMS_FIELD: &str = "spec.provider.aws.kms";

/// Creates `aws` providers. Providers with the same endpoint policy share connections.
#[derive(Debug, Clone, Default)]
pub struct AwsFactory {
    clients: Clients,
}

#[async_trait]
impl ProviderFactory for AwsFactory {
    fn name(&self) -> &'static str {
        "aws"
    }

    fn locator(&self, provider: &StoreProvider) -> Result<Arc<dyn Locator>, ProviderError> {
        let spec = spec(provider)?;
        let (region, prefix) = config::names(spec)?;
        Ok(Arc::new(AwsLocator {
            service: spec.service,
            region,
            prefix,
        }))
    }

    async fn build(
        &self,
        config: &StoreConfig,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Arc<dyn Provider>, ProviderError> {
        let events = config.events.as_ref().and_then(|events| events.sqs.clone());
        let http = self.clients.of(Connect::from(config));
        let config = configured(config)?;
        let caller = caller(&config, &http, credentials);
        let queue = events
            .map(|sqs| Queue::new(&sqs, &config, Arc::clone(&caller), &http))
            .transpose()?
            .map(Arc::new);
        let service = match config.service {
            Some(AwsService::SecretsManager) => {
                let service = SecretsManager::new(&config, Arc::clone(&caller), &http);
                Service::SecretsManager(service)
            }
            None => Service::None,
            Some(AwsService::ParameterStore) => {
                let service = ParameterStore::new(&config, Arc::clone(&caller), &http);
                Service::ParameterStore(service)
            }
        };
        let kms = config
            .kms
            .clone()
            .map(|key| Kms::new(&config, key, Arc::clone(&caller), &http));
        Ok(Arc::new(Aws {
            config,
            caller,
            service,
            kms,
            queue,
        }))
    }

    async fn encryptor(
        &self,
        config: &StoreConfig,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Arc<dyn Encryptor>, ProviderError> {
        let http = self.clients.of(Connect::from(config));
        let config = configured(config)?;
        let Some(key) = config.kms.clone() else {
            return Err(no_key(Operation::Configure, KMS_FIELD));
        };
        let caller = caller(&config, &http, credentials);
        Ok(Arc::new(KmsEncryptor(Kms::new(&config, key, caller, &http))))
    }

    fn costs(&self, provider: &StoreProvider) -> Costs {
        let aws = provider.aws.as_ref();
        aws.map_or_else(|| Costs::uncharged("AWS"), costs::costs)
    }
}

fn caller(config: &Config, http: &Http, credentials: Arc<dyn Credentials>) -> Arc<Caller> {
    let authenticator = AwsAuthenticator::new(
        config.login.clone(),
        config.region.clone(),
        http.clone(),
        Arc::new(SystemClock),
        credentials,
    );
    Caller::new(Login::new(authenticator))
}

/// Returns the validated configuration of a store.
fn configured(config: &StoreConfig) -> Result<Config, ProviderError> {
    Config::new(spec(&config.provider)?, &config.key)
}

fn spec(provider: &StoreProvider) -> Result<&AwsProvider, ProviderError> {
    provider.aws.as_ref().ok_or_else(|| {
        let message = "spec.provider.aws is not set";
        ProviderError::new(ErrorKind::ConfigInvalid, Operation::Configure, message)
    })
}

/// One service in one region, read with one identity.
struct Aws {
    config: Config,
    caller: Arc<Caller>,
    service: Service,
    kms: Option<Kms>,
    queue: Option<Arc<Queue>>,
}

enum Service {
    SecretsManager(SecretsManager),
    ParameterStore(ParameterStore),
    /// The store has only a KMS key.
    None,
}

impl fmt::Debug for Aws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Aws").field(&self.config).finish()
    }
}

#[async_trait]
impl Provider for Aws {
    fn capability(&self) -> Capability {
        let (binary, batch) = match &self.service {
            Service::SecretsManager(service) => (true, service.batch()),
            Service::ParameterStore(_) => (false, parameter_store::BATCH),
            Service::None => (false, 1),
        };
        Capability {
            name: "aws",
            versions: true,
            find: true,
            find_by_tags: true,
            metadata: true,
            binary,
            batch,
            notifies: false,
            leases: false,
        }
    }

    fn batches(&self, reference: &RemoteRef) -> bool {
        match &self.service {
            Service::SecretsManager(service) => service.batches(reference),
            Service::ParameterStore(service) => service.batches(reference),
            Service::None => false,
        }
    }

    async fn fetch(&self, _cx: &Context, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        let parts = Parts::of(refs);
        let (values, metadata) = (parts.values.clone(), parts.metadata.clone());
        match &self.service {
            Service::SecretsManager(service) => {
                let (values, metadata) = join!(service.fetch(&values), service.tags(&metadata));
                parts.join(values, metadata)
            }
            Service::ParameterStore(service) => {
                let (values, metadata) = join!(service.fetch(&values), service.tags(&metadata));
                parts.join(values, metadata)
            }
            Service::None => refs.iter().map(|_| Err(no_service(Operation::Read))).collect(),
        }
    }

    async fn find(&self, cx: &Context, query: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError> {
        match &self.service {
            Service::SecretsManager(service) => service.find(cx, query).await,
            Service::ParameterStore(service) => service.find(cx, query).await,
            Service::None => Err(no_service(Operation::Find)),
        }
    }

    async fn decrypt(&self, _cx: &Context, ciphertext: &Ciphertext) -> Result<SecretValue, ProviderError> {
        match &self.kms {
            Some(kms) => kms.decrypt(ciphertext).await,
            None => Err(no_key(Operation::Decrypt, KMS_FIELD)),
        }
    }

    async fn check(&self, _cx: &Context) -> Result<(), ProviderError> {
        match &self.service {
            Service::SecretsManager(service) => service.check().await,
            Service::ParameterStore(_) | Service::None if self.caller.works() => Ok(()),
            Service::ParameterStore(_) | Service::None => self.caller.check().await,
        }
    }

    fn notice(&self) -> Option<Notice> {
        match &self.service {
            Service::SecretsManager(service) => service.notice(),
            Service::ParameterStore(_) | Service::None => None,
        }
    }

    lockstep_provider::returns_none!(changes);

    fn events(&self) -> Option<Arc<dyn EventSource>> {
        let queue = self.queue.clone()?;
        Some(queue)
    }
}

impl NoLeases for Aws {}

fn no_service(operation: Operation) -> ProviderError {
    let message = "the store has a KMS key alone: spec.provider.aws.service is not set";
    ProviderError::new(ErrorKind::ConfigInvalid, operation, message)
        .with_hint("Set it to SecretsManager or ParameterStore, or use ciphertext in place of remoteRef")
}
