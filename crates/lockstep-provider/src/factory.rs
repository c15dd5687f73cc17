use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use lockstep_api::{Limits, StoreEvents, StoreKind, StoreProvider};

use crate::{
    Costs, Encryptor, EndpointPolicy, ErrorKind, Locator, Operation, Provider, ProviderError, SecretValue,
};

/// Identifies a store. Two stores share nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreKey {
    /// The kind of the store.
    pub kind: StoreKind,
    /// The namespace of the store; `None` for a ClusterSecretStore.
    pub namespace: Option<String>,
    /// The name of the store.
    pub name: String,
}

impl StoreKey {
    /// Returns the metrics label: `namespace/name`, or only the name for a ClusterSecretStore.
    pub fn label(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        }
    }
}

/// Formats the key as messages show it: `SecretStore/vault`.
impl fmt::Display for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// The configuration that a provider is built from.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The store that the configuration belongs to.
    pub key: StoreKey,
    /// The backend.
    pub provider: StoreProvider,
    /// The request limits.
    pub limits: Limits,
    /// The source of change events.
    pub events: Option<StoreEvents>,
    /// Where the store's clients may connect.
    pub endpoints: EndpointPolicy,
}

/// Reads the credentials that a store's `auth` refers to: from the store's namespace for a
/// SecretStore, from the operator's namespace for a ClusterSecretStore. Implementations cannot read
/// any other namespace.
#[async_trait]
pub trait Credentials: Send + Sync + fmt::Debug {
    /// Returns one key of a Secret.
    ///
    /// # Errors
    /// `CredentialsUnavailable`, naming the Secret, the key, and the missing grant.
    async fn secret(&self, name: &str, key: &str) -> Result<SecretValue, ProviderError>;

    /// Returns one key of a ConfigMap.
    ///
    /// # Errors
    /// `CredentialsUnavailable`, naming the ConfigMap, the key, and the missing grant.
    async fn config_map(&self, name: &str, key: &str) -> Result<String, ProviderError>;

    /// Returns a token of a ServiceAccount for one audience, valid for ten minutes.
    ///
    /// # Errors
    /// `CredentialsUnavailable`, naming the ServiceAccount and the audience.
    async fn service_account_token(&self, name: &str, audience: &str) -> Result<SecretValue, ProviderError>;

    /// Returns an annotation of a ServiceAccount, or `None` if it does not exist.
    ///
    /// # Errors
    /// `CredentialsUnavailable`, naming the ServiceAccount and the missing grant.
    async fn service_account_annotation(
        &self,
        name: &str,
        annotation: &str,
    ) -> Result<Option<String>, ProviderError>;
}

/// Builds the providers of one backend.
#[async_trait]
pub trait ProviderFactory: Send + Sync + fmt::Debug {
    /// Returns the name of the backend, equal to [`StoreProvider::name`].
    fn name(&self) -> &'static str;

    /// Builds the parser for the keys of a store. It is pure: it sends no request and reads no
    /// credential.
    ///
    /// # Errors
    /// `ConfigInvalid` when the spec's settings for keys cannot work.
    fn locator(&self, provider: &StoreProvider) -> Result<Arc<dyn Locator>, ProviderError>;

    /// Builds a client. It reads certificates and similar inputs, but does not have to log in yet.
    ///
    /// # Errors
    /// `ConfigInvalid` or `CredentialsUnavailable`.
    async fn build(
        &self,
        config: &StoreConfig,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Arc<dyn Provider>, ProviderError>;

    /// Builds an encryptor for the store's KMS key, for `lockstep seal`.
    ///
    /// # Errors
    /// `Unsupported` if the configuration names no key, otherwise the errors of
    /// [`ProviderFactory::build`].
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

    /// Returns the costs of a store with this configuration, for `lockstep plan`. The figures come
    /// only from pages that the operator of the service publishes. Sends no request.
    fn costs(&self, provider: &StoreProvider) -> Costs {
        let _ = provider;
        Costs::uncharged(self.name())
    }
}

/// The backends that this build supports.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    factories: BTreeMap<&'static str, Arc<dyn ProviderFactory>>,
}

impl Registry {
    /// Adds a backend. It replaces an earlier one of the same name.
    #[must_use]
    pub fn with(mut self, factory: impl ProviderFactory + 'static) -> Self {
        self.factories.insert(factory.name(), Arc::new(factory));
        self
    }

    /// Returns the names of the backends.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.factories.keys().copied()
    }

    /// Builds a client of the backend that the configuration names.
    ///
    /// # Errors
    /// `ConfigInvalid` when the configuration names no backend or several, `Unsupported` when this
    /// build does not support it, and the errors of the backend's factory.
    pub async fn build(
        &self,
        config: &StoreConfig,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Arc<dyn Provider>, ProviderError> {
        self.factory(&config.provider)?.build(config, credentials).await
    }

    /// Builds an encryptor for the KMS key of a store.
    ///
    /// # Errors
    /// The errors of [`Registry::build`], and `Unsupported` if the store names no key.
    pub async fn encryptor(
        &self,
        config: &StoreConfig,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Arc<dyn Encryptor>, ProviderError> {
        self.factory(&config.provider)?
            .encryptor(config, credentials)
            .await
    }

    /// Builds the parser for the keys of a store.
    ///
    /// # Errors
    /// The errors of [`Registry::build`].
    pub fn locator(&self, provider: &StoreProvider) -> Result<Arc<dyn Locator>, ProviderError> {
        self.factory(provider)?.locator(provider)
    }

    /// Returns the costs of a store.
    ///
    /// # Errors
    /// The errors of [`Registry::build`].
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
