use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use lockstep_api::{Limits, StoreEvents, StoreKind, StoreProvider};

use crate::{
    Costs, Encryptor, EndpointPolicy, ErrorKind, Locator, Operation, Provider, ProviderError, SecretValue,
};

/// Which store: the identity that nothing is shared across.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreKey {
    /// Kind of the store.
    pub kind: StoreKind,
    /// Its namespace; `None` for a ClusterSecretStore.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl StoreKey {
    /// The label in metrics: `namespace/name`, or the bare name of a ClusterSecretStore.
    pub fn label(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        }
    }
}

/// As messages name it: `SecretStore/vault`.
impl fmt::Display for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// What a provider is made from.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Which store.
    pub key: StoreKey,
    /// Its backend.
    pub provider: StoreProvider,
    /// Its budget.
    pub limits: Limits,
    /// Where it hears of changes.
    pub events: Option<StoreEvents>,
    /// Where its clients may connect.
    pub endpoints: EndpointPolicy,
}

/// The credentials that a store's `auth` names: read from the store's namespace for a SecretStore, from the operator's
/// for a ClusterSecretStore. Implementations cannot reach any other namespace.
#[async_trait]
pub trait Credentials: Send + Sync + fmt::Debug {
    /// One key of a Secret.
    ///
    /// # Errors
    /// `CredentialsUnavailable`, naming the Secret, the key, and the grant that is missing.
    async fn secret(&self, name: &str, key: &str) -> Result<SecretValue, ProviderError>;

    /// One key of a ConfigMap.
    ///
    /// # Errors
    /// `CredentialsUnavailable`, naming the ConfigMap, the key, and the grant that is missing.
    async fn config_map(&self, name: &str, key: &str) -> Result<String, ProviderError>;

    /// A token of a ServiceAccount: one audience, ten minutes.
    ///
    /// # Errors
    /// `CredentialsUnavailable`, naming the ServiceAccount and the audience.
    async fn service_account_token(&self, name: &str, audience: &str) -> Result<SecretValue, ProviderError>;

    /// An annotation of a ServiceAccount; `None` where it has none of that name.
    ///
    /// # Errors
    /// `CredentialsUnavailable`, naming the ServiceAccount, and the grant that is missing.
    async fn service_account_annotation(
        &self,
        name: &str,
        annotation: &str,
    ) -> Result<Option<String>, ProviderError>;
}

/// Makes the providers of one backend.
#[async_trait]
pub trait ProviderFactory: Send + Sync + fmt::Debug {
    /// The name of the backend, as [`StoreProvider::name`] tells it.
    fn name(&self) -> &'static str;

    /// Makes what parses the keys of a store. It is pure: it asks nobody, and reads no credential.
    ///
    /// # Errors
    /// `ConfigInvalid` when what the spec says of keys cannot work.
    fn locator(&self, provider: &StoreProvider) -> Result<Arc<dyn Locator>, ProviderError>;

    /// Makes a client. It reads certificates and the like, but need not log in yet.
    ///
    /// # Errors
    /// `ConfigInvalid` or `CredentialsUnavailable`.
    async fn build(
        &self,
        config: &StoreConfig,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Arc<dyn Provider>, ProviderError>;

    /// Makes what encrypts with the store's KMS key, for `lockstep seal`.
    ///
    /// # Errors
    /// `Unsupported` where the configuration names no key; else as [`ProviderFactory::build`].
    async fn encryptor(
        &self,
        config: &StoreConfig,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Arc<dyn Encryptor>, ProviderError> {
        let _ = (config, credentials);
        let message = format!("a store of provider {} has no key that encrypts", self.name());
        Err(ProviderError::new(
            ErrorKind::Unsupported,
            Operation::Configure,
            message,
        ))
    }

    /// What a store of this configuration costs, for `lockstep plan`: from pages that whoever runs the service publishes,
    /// and nothing else. It asks nobody.
    fn costs(&self, provider: &StoreProvider) -> Costs {
        let _ = provider;
        Costs::uncharged(self.name())
    }
}

/// The backends that this build knows.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    factories: BTreeMap<&'static str, Arc<dyn ProviderFactory>>,
}

impl Registry {
    /// Adds a backend; a later one of the same name replaces an earlier one.
    #[must_use]
    pub fn with(mut self, factory: impl ProviderFactory + 'static) -> Self {
        self.factories.insert(factory.name(), Arc::new(factory));
        self
    }

    /// The names of the backends.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.factories.keys().copied()
    }

    /// Makes a client of the backend that the configuration names.
    ///
    /// # Errors
    /// `ConfigInvalid` when the configuration names none or several, `Unsupported` when this build does not know it,
    /// and what the backend's factory says.
    pub async fn build(
        &self,
        config: &StoreConfig,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Arc<dyn Provider>, ProviderError> {
        self.factory(&config.provider)?.build(config, credentials).await
    }

    /// Makes what encrypts with the KMS key of a store.
    ///
    /// # Errors
    /// As [`Registry::build`], and `Unsupported` where the store names no key.
    pub async fn encryptor(
        &self,
        config: &StoreConfig,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Arc<dyn Encryptor>, ProviderError> {
        self.factory(&config.provider)?
            .encryptor(config, credentials)
            .await
    }

    /// Makes what parses the keys of a store.
    ///
    /// # Errors
    /// As [`Registry::build`].
    pub fn locator(&self, provider: &StoreProvider) -> Result<Arc<dyn Locator>, ProviderError> {
        self.factory(provider)?.locator(provider)
    }

    /// What a store costs.
    ///
    /// # Errors
    /// As [`Registry::build`].
    pub fn costs(&self, config: &StoreConfig) -> Result<Costs, ProviderError> {
        Ok(self.factory(&config.provider)?.costs(&config.provider))
    }

    fn factory(&self, provider: &StoreProvider) -> Result<&Arc<dyn ProviderFactory>, ProviderError> {
        let Some(name) = provider.name() else {
            return Err(ProviderError::new(
                ErrorKind::ConfigInvalid,
                Operation::Configure,
                "spec.provider must hold exactly one backend",
            ));
        };
        self.factories.get(name).ok_or_else(|| {
            ProviderError::new(
                ErrorKind::Unsupported,
                Operation::Configure,
                format!("this build of lockstep has no provider \"{name}\""),
            )
        })
    }
}
