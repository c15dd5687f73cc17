//! Requests for credentials pass through every layer, and no layer merges or repeats them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use lockstep_api::{GenerateMethod, Limits};

use super::{Layered, StackOptions, testing};
use crate::{
    Capability, Ciphertext, Context, ErrorKind, FindQuery, IssuanceToken, LeaseHandle, LeaseRequest, Leases,
    Minted, Operation, Provider, ProviderError, RemoteMeta, RemoteRef, RemoteSecret, SecretValue, no_kms,
};

/// An engine that counts requests and fails on demand.
#[derive(Debug, Default)]
struct Engine {
    fails: Option<ErrorKind>,
    /// The path for which it throttles tokens for ten minutes.
    throttled: Option<&'static str>,
    issuance_tokens: AtomicUsize,
    mints: AtomicUsize,
    renewals: AtomicUsize,
    revocations: AtomicUsize,
}

impl Engine {
    async fn asked(&self, counter: &AtomicUsize, operation: Operation) -> Result<usize, ProviderError> {
        let number = counter.fetch_add(1, Ordering::Relaxed) + 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
        match self.fails {
            Some(kind) => Err(ProviderError::new(kind, operation, "not now")),
            None => Ok(number),
        }
    }

    fn counts(&self) -> [usize; 4] {
        [
            &self.issuance_tokens,
            &self.mints,
            &self.renewals,
            &self.revocations,
        ]
        .map(|counter| counter.load(Ordering::Relaxed))
    }
}

#[async_trait]
impl Provider for Engine {
    fn capability(&self) -> Capability {
        Capability {
            name: "engine",
            versions: false,
            find: false,
            find_by_tags: false,
            metadata: false,
            binary: false,
            batch: 1,
            notifies: false,
            leases: true,
        }
    }

    async fn fetch(&self, _: &Context, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        super::for_each(
            refs.len(),
            &ProviderError::new(ErrorKind::NotFound, Operation::Read, "nothing"),
        )
    }

    async fn find(&self, _: &Context, _: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError> {
        Ok(Vec::new())
    }

    fn batches(&self, _: &RemoteRef) -> bool {
        false
    }

    async fn decrypt(&self, _: &Context, _: &Ciphertext) -> Result<SecretValue, ProviderError> {
        Err(no_kms(self))
    }

    async fn check(&self, _: &Context) -> Result<(), ProviderError> {
        Ok(())
    }

    crate::returns_none!(notice, changes, events);
}

#[async_trait]
impl Leases for Engine {
    async fn issue_token(&self, _: &Context, request: &LeaseRequest) -> Result<IssuanceToken, ProviderError> {
        if self.throttled == Some(request.path.as_str()) {
            self.issuance_tokens.fetch_add(1, Ordering::Relaxed);
            let error = ProviderError::new(ErrorKind::RateLimited, Operation::IssueToken, "not now");
            return Err(error.with_retry_after(Duration::from_secs(600)));
        }
        let number = self.asked(&self.issuance_tokens, Operation::IssueToken).await?;
        Ok(IssuanceToken {
            server: String::new(),
            accessor: number.to_string(),
            token: SecretValue::from("CANARY"),
            lives: Duration::from_secs(60),
        })
    }

    async fn mint(&self, _: &Context, _: &IssuanceToken, _: &LeaseRequest) -> Result<Minted, ProviderError> {
        let number = self.asked(&self.mints, Operation::Mint).await?;
        Ok(Minted {
            id: Some(number.to_string()),
            value: SecretValue::from("CANARY"),
            lives: Duration::from_secs(60),
            renewable: true,
        })
    }

    async fn renew_lease(
        &self,
        _: &Context,
        _: &LeaseHandle,
        wanted: Duration,
    ) -> Result<Duration, ProviderError> {
        self.asked(&self.renewals, Operation::RenewLease).await?;
        Ok(wanted)
    }

    async fn revoke(&self, _: &Context, _: &LeaseHandle) -> Result<(), ProviderError> {
        self.asked(&self.revocations, Operation::Revoke).await.map(drop)
    }
}

fn request() -> LeaseRequest {
    LeaseRequest {
        path: crate::testing::at("database/creds/shop"),
        method: GenerateMethod::Get,
        parameters: std::collections::BTreeMap::new(),
    }
}

fn handle() -> LeaseHandle {
    LeaseHandle {
        server: String::new(),
        accessor: "1".to_owned(),
        id: Some("1".to_owned()),
    }
}

fn layered(engine: &Arc<Engine>) -> (Layered, testing::Measured) {
    let measured = testing::measured();
    let config = testing::config(Limits::default());
    let provider: Arc<dyn Provider> = engine.clone();
    let stack = Layered::new(provider, &config, &measured.metrics, StackOptions::default());
    (stack, measured)
}

#[tokio::test(start_paused = true)]
async fn concurrent_callers_get_separate_credentials() {
    let engine = Arc::new(Engine::default());
    let (stack, measured) = layered(&engine);
    let (cx, request) = (Context::default(), request());
    let one = async {
        let issuance_token = stack.issue_token(&cx, &request).await.unwrap();
        let minted = stack.mint(&cx, &issuance_token, &request).await.unwrap();
        (issuance_token.accessor, minted.id.unwrap())
    };
    let two = async {
        let issuance_token = stack.issue_token(&cx, &request).await.unwrap();
        let minted = stack.mint(&cx, &issuance_token, &request).await.unwrap();
        (issuance_token.accessor, minted.id.unwrap())
    };
    let (one, two) = tokio::join!(one, two);
    assert!(one.0 != two.0 && one.1 != two.1);
    assert_eq!(
        stack.renew_lease(&cx, &handle(), Duration::from_secs(7)).await,
        Ok(Duration::from_secs(7))
    );
    assert_eq!(stack.revoke(&cx, &handle()).await, Ok(()));
    assert_eq!(engine.counts(), [2, 2, 1, 1]);
    let counted = measured.lines("lockstep_provider_requests_total");
    for operation in ["issue_token", "mint", "renew_lease", "revoke"] {
        let label = format!("operation=\"{operation}\"");
        assert!(counted.iter().any(|line| line.contains(&label)), "{operation}");
    }
}

#[tokio::test(start_paused = true)]
async fn issuing_is_never_retried_but_renewing_and_revoking_are() {
    for kind in [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::RateLimited] {
        let engine = Arc::new(Engine {
            fails: Some(kind),
            ..Engine::default()
        });
        let cx = Context::default();
        // each request uses its own store, which has no holds yet
        let (stack, _) = layered(&engine);
        assert_eq!(stack.issue_token(&cx, &request()).await.unwrap_err().kind, kind);
        let (stack, _) = layered(&engine);
        let issuance_token = IssuanceToken {
            server: String::new(),
            accessor: "1".to_owned(),
            token: SecretValue::from("CANARY"),
            lives: Duration::from_secs(60),
        };
        assert_eq!(
            stack
                .mint(&cx, &issuance_token, &request())
                .await
                .unwrap_err()
                .kind,
            kind
        );
        assert_eq!(engine.counts()[..2], [1, 1], "{kind:?}");
        let (stack, _) = layered(&engine);
        stack
            .renew_lease(&cx, &handle(), Duration::from_secs(7))
            .await
            .unwrap_err();
        let (stack, _) = layered(&engine);
        stack.revoke(&cx, &handle()).await.unwrap_err();
        let [_, _, renewals, revocations] = engine.counts();
        assert!(
            renewals > 1 && revocations > 1,
            "{kind:?}: {renewals}, {revocations}"
        );
    }
}

/// A quota or a proxy can throttle one path, and each tenant of a shared store names its own paths.
#[tokio::test(start_paused = true)]
async fn throttled_path_delays_only_its_own_credentials() {
    let engine = Arc::new(Engine {
        throttled: Some("database/creds/blog"),
        ..Engine::default()
    });
    let (stack, _) = layered(&engine);
    let cx = Context::default();
    let throttled = LeaseRequest {
        path: crate::testing::at("database/creds/blog"),
        ..request()
    };
    for _ in 0..2 {
        let error = stack.issue_token(&cx, &throttled).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::RateLimited);
    }
    let issuance_token = stack.issue_token(&cx, &request()).await.unwrap();
    // the path is held for both kinds of requests
    let error = stack.mint(&cx, &issuance_token, &throttled).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::RateLimited);
    assert!(stack.mint(&cx, &issuance_token, &request()).await.is_ok());
    assert_eq!(engine.counts()[..2], [2, 1]);
}

#[tokio::test]
async fn provider_without_leases_is_unsupported() {
    let backend = crate::MemoryBackend::new();
    let provider = backend.provider();
    assert!(!provider.capability().leases);
    let error = provider
        .issue_token(&Context::default(), &request())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert_eq!(error.message, "a store of provider memory makes no credentials");
}
