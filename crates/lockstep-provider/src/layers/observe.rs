use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::outcome;
use crate::{
    Capability, Ciphertext, Context, FindQuery, LeaseHandle, LeaseRequest, Minted, Notice, Operation,
    Provider, ProviderError, RemoteMeta, RemoteRef, RemoteSecret, SecretValue, Warrant,
    metrics::StoreMetrics,
};

/// Counts and measures every request.
#[derive(Debug)]
pub struct Observe {
    provider: Arc<dyn Provider>,
    metrics: StoreMetrics,
}

impl Observe {
    /// Counts the requests of `provider` as those of one store.
    pub fn new(provider: Arc<dyn Provider>, metrics: StoreMetrics) -> Self {
        Self { provider, metrics }
    }
}

#[async_trait]
impl Provider for Observe {
    fn capability(&self) -> Capability {
        self.provider.capability()
    }

    fn batches(&self, reference: &RemoteRef) -> bool {
        self.provider.batches(reference)
    }

    async fn fetch(&self, cx: &Context, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        let timer = self.metrics.begin(Operation::Read);
        let results = self.provider.fetch(cx, refs).await;
        timer.end(outcome(&results).map(|error| error.kind));
        self.metrics.notice(self.provider.notice().as_ref());
        results
    }

    async fn find(&self, cx: &Context, query: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError> {
        let timer = self.metrics.begin(Operation::Find);
        let result = self.provider.find(cx, query).await;
        timer.end(result.as_ref().err().map(|error| error.kind));
        result
    }

    async fn decrypt(&self, cx: &Context, ciphertext: &Ciphertext) -> Result<SecretValue, ProviderError> {
        let timer = self.metrics.begin(Operation::Decrypt);
        let result = self.provider.decrypt(cx, ciphertext).await;
        timer.end(result.as_ref().err().map(|error| error.kind));
        result
    }

    async fn warrant(&self, cx: &Context, request: &LeaseRequest) -> Result<Warrant, ProviderError> {
        let timer = self.metrics.begin(Operation::Warrant);
        let result = self.provider.warrant(cx, request).await;
        timer.end(result.as_ref().err().map(|error| error.kind));
        result
    }

    async fn mint(
        &self,
        cx: &Context,
        warrant: &Warrant,
        request: &LeaseRequest,
    ) -> Result<Minted, ProviderError> {
        let timer = self.metrics.begin(Operation::Mint);
        let result = self.provider.mint(cx, warrant, request).await;
        timer.end(result.as_ref().err().map(|error| error.kind));
        result
    }

    async fn renew_lease(
        &self,
        cx: &Context,
        lease: &LeaseHandle,
        wanted: Duration,
    ) -> Result<Duration, ProviderError> {
        let timer = self.metrics.begin(Operation::RenewLease);
        let result = self.provider.renew_lease(cx, lease, wanted).await;
        timer.end(result.as_ref().err().map(|error| error.kind));
        result
    }

    async fn revoke(&self, cx: &Context, lease: &LeaseHandle) -> Result<(), ProviderError> {
        let timer = self.metrics.begin(Operation::Revoke);
        let result = self.provider.revoke(cx, lease).await;
        timer.end(result.as_ref().err().map(|error| error.kind));
        result
    }

    async fn check(&self, cx: &Context) -> Result<(), ProviderError> {
        let timer = self.metrics.begin(Operation::Check);
        let result = self.provider.check(cx).await;
        timer.end(result.as_ref().err().map(|error| error.kind));
        self.metrics.notice(self.provider.notice().as_ref());
        result
    }

    fn notice(&self) -> Option<Notice> {
        self.provider.notice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;
    use crate::{ErrorKind, MemoryBackend, layers::testing::measured};

    #[tokio::test]
    async fn each_request_is_counted_with_its_outcome_and_duration() {
        let (backend, measured) = (MemoryBackend::new(), measured());
        backend.put("a", "canary");
        let provider = Observe::new(backend.provider(), measured.store.clone());
        let cx = Context::default();
        let _ = provider.fetch(&cx, &[RemoteRef::current(at("a"))]).await;
        let _ = provider.fetch(&cx, &[RemoteRef::current(at("missing"))]).await;
        backend.fail_next(1, ErrorKind::Unavailable, None);
        let _ = provider.find(&cx, &FindQuery::default()).await;
        let _ = provider.check(&cx).await;
        let lines = measured.lines("lockstep_provider_requests_total");
        let line = |operation: &str, outcome: &str| {
            format!(
                "lockstep_provider_requests_total{{operation=\"{operation}\",outcome=\"{outcome}\",provider=\"memory\",store=\"shop/vault\"}} 1"
            )
        };
        for expected in [
            line("read", "ok"),
            line("read", "not_found"),
            line("find", "unavailable"),
            line("check", "ok"),
        ] {
            assert!(lines.contains(&expected), "{expected}");
        }
        assert_eq!(lines.len(), 4);
        let counts = measured.lines("lockstep_provider_request_duration_seconds_count");
        assert!(
            counts
                .iter()
                .any(|line| line.contains("\"read\"") && line.ends_with(" 2"))
        );
        assert!(measured.lines("lockstep_provider_in_flight")[0].ends_with(" 0"));
    }
}
