use std::time::Duration;

use tokio::time::timeout_at;

use super::{checked, deadline, for_each};
use crate::{
    Context, ErrorKind, Operation, Provider, ProviderError,
    call::{Answers, Request, Service},
};

/// Ends a request that exceeds the store's timeout or its caller's deadline.
#[derive(Debug)]
pub struct Timeout<S> {
    inner: S,
    limit: Duration,
}

impl<S> Timeout<S> {
    /// Creates a layer that limits requests to `inner` to `limit`.
    pub fn new(inner: S, limit: Duration) -> Self {
        Self { inner, limit }
    }
}

impl<R: Request, S: Service<R>> Service<R> for Timeout<S> {
    fn provider(&self) -> &dyn Provider {
        self.inner.provider()
    }

    async fn call(&self, cx: &Context, requests: &[R]) -> Answers<R> {
        let call = self.inner.call(cx, requests);
        if let Ok(answers) = timeout_at(deadline(cx, self.limit), call).await {
            return checked(requests, answers);
        }
        let limit = lockstep_api::Duration::from(self.limit);
        let message = format!("{} took longer than {limit}", verb(R::OPERATION));
        let error = ProviderError::new(ErrorKind::Timeout, R::OPERATION, message)
            .with_hint("If the store is usually slow, increase spec.limits.timeout.");
        for_each(requests.len(), &error)
    }
}

/// Returns the operation as the subject of a sentence.
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
        Operation::IssueToken => "getting the token to make a credential with",
        Operation::Mint => "making a credential",
        Operation::RenewLease => "renewing a lease",
        Operation::Revoke => "revoking a credential",
        Operation::Listen => "listening for changes",
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::testing::at;
    use crate::{FindQuery, MemoryBackend, RemoteRef, call::Direct, layers::testing::Requests as _};

    fn hung(limit: Duration) -> Timeout<Direct> {
        let backend = MemoryBackend::new();
        backend.set_hung(true);
        Timeout::new(Direct(backend.provider()), limit)
    }

    #[tokio::test(start_paused = true)]
    async fn timeout_error_names_the_operation_and_duration() {
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
    async fn request_ends_at_its_callers_deadline() {
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
