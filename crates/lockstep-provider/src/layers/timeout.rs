use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::timeout_at;

use super::{checked, deadline, for_each};
use crate::{
    Capability, Ciphertext, Context, ErrorKind, FindQuery, LeaseHandle, LeaseRequest, Minted, Notice,
    Operation, Provider, ProviderError, RemoteMeta, RemoteRef, RemoteSecret, SecretValue, Warrant,
};

/// Ends a request that takes longer than the store's time-out, or than its caller waits.
#[derive(Debug)]
pub struct Timeout {
    provider: Arc<dyn Provider>,
    limit: Duration,
}

impl Timeout {
    /// Requests of `provider` take at most `limit`.
    pub fn new(provider: Arc<dyn Provider>, limit: Duration) -> Self {
        Self { provider, limit }
    }

    async fn within<T>(
        &self,
        cx: &Context,
        operation: Operation,
        request: impl Future<Output = T> + Send,
    ) -> Result<T, ProviderError> {
        timeout_at(deadline(cx, self.limit), request).await.map_err(|_| {
            let limit = lockstep_api::Duration::from(self.limit);
            let message = format!("{} took longer than {limit}", verb(operation));
            ProviderError::new(ErrorKind::Timeout, operation, message)
                .with_hint("A store that is slow by nature needs a longer spec.limits.timeout.")
        })
    }
}

/// The operation as the subject of a sentence.
fn verb(operation: Operation) -> &'static str {
    match operation {
        Operation::Configure => "making a client",
        Operation::Login => "the login",
        Operation::Renew => "renewing the login",
        Operation::Read => "reading",
        Operation::Find => "searching",
        Operation::Decrypt => "decrypting",
        Operation::Encrypt => "encrypting",
        Operation::Check => "checking the store",
        Operation::Warrant => "getting the token to make a credential with",
        Operation::Mint => "making a credential",
        Operation::RenewLease => "renewing a lease",
        Operation::Revoke => "revoking a credential",
        Operation::Listen => "listening for changes",
    }
}

#[async_trait]
impl Provider for Timeout {
    fn capability(&self) -> Capability {
        self.provider.capability()
    }

    fn batches(&self, reference: &RemoteRef) -> bool {
        self.provider.batches(reference)
    }

    async fn fetch(&self, cx: &Context, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        match self
            .within(cx, Operation::Read, self.provider.fetch(cx, refs))
            .await
        {
            Ok(results) => checked(refs.len(), Operation::Read, results),
            Err(error) => for_each(refs.len(), &error),
        }
    }

    async fn find(&self, cx: &Context, query: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError> {
        self.within(cx, Operation::Find, self.provider.find(cx, query))
            .await?
    }

    async fn decrypt(&self, cx: &Context, ciphertext: &Ciphertext) -> Result<SecretValue, ProviderError> {
        self.within(cx, Operation::Decrypt, self.provider.decrypt(cx, ciphertext))
            .await?
    }

    async fn warrant(&self, cx: &Context, request: &LeaseRequest) -> Result<Warrant, ProviderError> {
        self.within(cx, Operation::Warrant, self.provider.warrant(cx, request))
            .await?
    }

    async fn mint(
        &self,
        cx: &Context,
        warrant: &Warrant,
        request: &LeaseRequest,
    ) -> Result<Minted, ProviderError> {
        self.within(cx, Operation::Mint, self.provider.mint(cx, warrant, request))
            .await?
    }

    async fn renew_lease(
        &self,
        cx: &Context,
        lease: &LeaseHandle,
        wanted: Duration,
    ) -> Result<Duration, ProviderError> {
        self.within(
            cx,
            Operation::RenewLease,
            self.provider.renew_lease(cx, lease, wanted),
        )
        .await?
    }

    async fn revoke(&self, cx: &Context, lease: &LeaseHandle) -> Result<(), ProviderError> {
        self.within(cx, Operation::Revoke, self.provider.revoke(cx, lease))
            .await?
    }

    async fn check(&self, cx: &Context) -> Result<(), ProviderError> {
        self.within(cx, Operation::Check, self.provider.check(cx)).await?
    }

    fn notice(&self) -> Option<Notice> {
        self.provider.notice()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::MemoryBackend;
    use crate::testing::at;

    fn hung(limit: Duration) -> Timeout {
        let backend = MemoryBackend::new();
        backend.set_hung(true);
        Timeout::new(backend.provider(), limit)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_ends_with_the_time_out_and_says_what_took_how_long() {
        let provider = hung(Duration::from_secs(10));
        let start = Instant::now();
        let refs = [RemoteRef::current(at("a")), RemoteRef::current(at("b"))];
        let results = provider.fetch(&Context::default(), &refs).await;
        assert_eq!(start.elapsed().as_secs(), 10);
        assert_eq!(results.len(), 2);
        for result in results {
            let error = result.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Timeout);
            assert_eq!(error.message, "reading took longer than 10s");
        }
        let error = provider
            .find(&Context::default(), &FindQuery::default())
            .await
            .unwrap_err();
        assert_eq!(error.message, "searching took longer than 10s");
        let error = provider.check(&Context::default()).await.unwrap_err();
        assert_eq!(error.message, "checking the store took longer than 10s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_ends_when_its_caller_gives_up() {
        let provider = hung(Duration::from_secs(10));
        let start = Instant::now();
        let cx = Context {
            deadline: Some((start + Duration::from_secs(3)).into_std()),
            ..Context::default()
        };
        assert_eq!(provider.check(&cx).await.unwrap_err().kind, ErrorKind::Timeout);
        assert_eq!(start.elapsed().as_secs(), 3);
    }
}
