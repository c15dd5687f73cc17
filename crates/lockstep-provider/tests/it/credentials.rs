use async_trait::async_trait;
use lockstep_provider::{Credentials, ErrorKind, Operation, ProviderError, SecretValue};

/// Credentials for stores that need none. Every read fails.
#[derive(Debug)]
pub(crate) struct NoCredentials;

#[async_trait]
impl Credentials for NoCredentials {
    async fn secret(&self, _: &str, _: &str) -> Result<SecretValue, ProviderError> {
        Err(unasked())
    }

    async fn config_map(&self, _: &str, _: &str) -> Result<String, ProviderError> {
        Err(unasked())
    }

    async fn service_account_token(&self, _: &str, _: &str) -> Result<SecretValue, ProviderError> {
        Err(unasked())
    }

    async fn service_account_annotation(&self, _: &str, _: &str) -> Result<Option<String>, ProviderError> {
        Err(unasked())
    }
}

fn unasked() -> ProviderError {
    ProviderError::new(
        ErrorKind::Internal,
        Operation::Configure,
        "this store needs no credentials",
    )
}
