use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use lockstep_api::StoreProvider;
use lockstep_provider::{
    Binding, Credentials, Encryptor, ErrorKind, Locator, MemoryBackend, Operation, Provider, ProviderError,
    ProviderFactory, SecretValue, StoreConfig, Verbatim,
};

/// A configuration, and the token that came with it.
type Made = (StoreConfig, Option<SecretValue>);

/// An in-memory KMS. Clones share the recorded requests.
#[derive(Debug, Clone)]
pub(super) struct Kms {
    name: &'static str,
    pub(super) limit: usize,
    pub(super) calls: Arc<AtomicUsize>,
    in_flight: Arc<AtomicUsize>,
    pub(super) most_in_flight: Arc<AtomicUsize>,
    /// The configurations that encryptors were made from, and the tokens that they got.
    pub(super) configs: Arc<Mutex<Vec<Made>>>,
    /// Which calls fail, by their number, and with what.
    pub(super) fail: fn(usize) -> Option<ErrorKind>,
}

impl Kms {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            limit: 64,
            calls: Arc::default(),
            in_flight: Arc::default(),
            most_in_flight: Arc::default(),
            configs: Arc::default(),
            fail: |_| None,
        }
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl ProviderFactory for Kms {
    fn name(&self) -> &'static str {
        self.name
    }

    fn locator(&self, _: &StoreProvider) -> Result<Arc<dyn Locator>, ProviderError> {
        Ok(Arc::new(Verbatim))
    }

    async fn build(
        &self,
        _: &StoreConfig,
        _: Arc<dyn Credentials>,
    ) -> Result<Arc<dyn Provider>, ProviderError> {
        Ok(MemoryBackend::new().provider_named(self.name))
    }

    async fn encryptor(
        &self,
        config: &StoreConfig,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Arc<dyn Encryptor>, ProviderError> {
        let token = match config
            .provider
            .vault
            .as_ref()
            .and_then(|vault| vault.auth.token_secret_ref.clone())
        {
            Some(at) => Some(credentials.secret(&at.name, &at.key).await?),
            None => None,
        };
        self.configs.lock().unwrap().push((config.clone(), token));
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
impl Encryptor for Kms {
    fn name(&self) -> &'static str {
        self.name
    }

    fn max_plaintext_len(&self) -> usize {
        self.limit
    }

    async fn encrypt(&self, value: &SecretValue, binding: &Binding) -> Result<Vec<u8>, ProviderError> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_flight.fetch_max(now, Ordering::SeqCst);
        // yield, so that concurrent requests overlap
        tokio::task::yield_now().await;
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        assert!(
            !value.is_empty() && value.len() <= self.limit,
            "no KMS takes that"
        );
        match (self.fail)(number) {
            Some(kind) => Err(ProviderError::new(kind, Operation::Encrypt, "the key says no")),
            None => Ok(MemoryBackend::encrypt(value, binding).bytes),
        }
    }
}
