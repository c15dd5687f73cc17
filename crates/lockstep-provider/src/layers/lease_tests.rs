//! Credentials that are made go through every layer, and no layer makes two of one or one of two.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use lockstep_api::{GenerateMethod, Limits};

use super::{Layered, StackOptions, testing};
use crate::{
    Capability, Ciphertext, Context, ErrorKind, EventSource, FindQuery, LeaseHandle, LeaseRequest, Leases,
    Minted, Notice, Operation, Provider, ProviderError, RemoteMeta, RemoteRef, RemoteSecret, SecretValue,
    Warrant, no_kms,
};

/// Counts what it is asked for, and fails as it is told.
#[derive(Debug, Default)]
struct Engine {
    fails: Option<ErrorKind>,
    /// The path for which it issues no token for ten minutes.
    throttled: Option<&'static str>,
    warrants: AtomicUsize,
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
        [&self.warrants, &self.mints, &self.renewals, &self.revocations]
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

    fn notice(&self) -> Option<Notice> {
        None
    }

    fn changes(&self) -> Option<BoxStream<'static, ()>> {
        None
    }

    fn events(&self) -> Option<Arc<dyn EventSource>> {
        None
    }
}

#[async_trait]
impl Leases for Engine {
    async fn warrant(&self, _: &Context, request: &LeaseRequest) -> Result<Warrant, ProviderError> {
        if self.throttled == Some(request.path.as_str()) {
            self.warrants.fetch_add(1, Ordering::Relaxed);
            let error = ProviderError::new(ErrorKind::RateLimited, Operation::Warrant, "not now");
            return Err(error.with_retry_after(Duration::from_secs(600)));
        }
        let number = self.asked(&self.warrants, Operation::Warrant).await?;
        Ok(Warrant {
            server: String::new(),
            accessor: number.to_string(),
            token: SecretValue::from("CANARY"),
            lives: Duration::from_secs(60),
        })
    }

    async fn mint(&self, _: &Context, _: &Warrant, _: &LeaseRequest) -> Result<Minted, ProviderError> {
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
async fn whoever_asks_at_the_same_time_gets_a_credential_of_its_own() {
    let engine = Arc::new(Engine::default());
    let (stack, measured) = layered(&engine);
    let (cx, request) = (Context::default(), request());
    let one = async {
        let warrant = stack.warrant(&cx, &request).await.unwrap();
        let minted = stack.mint(&cx, &warrant, &request).await.unwrap();
        (warrant.accessor, minted.id.unwrap())
    };
    let two = async {
        let warrant = stack.warrant(&cx, &request).await.unwrap();
        let minted = stack.mint(&cx, &warrant, &request).await.unwrap();
        (warrant.accessor, minted.id.unwrap())
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
    for operation in ["warrant", "mint", "renew_lease", "revoke"] {
        let label = format!("operation=\"{operation}\"");
        assert!(counted.iter().any(|line| line.contains(&label)), "{operation}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_made_twice_because_an_answer_was_lost_and_the_rest_is_tried_again() {
    for kind in [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::RateLimited] {
        let engine = Arc::new(Engine {
            fails: Some(kind),
            ..Engine::default()
        });
        let cx = Context::default();
        // each on a store of its own, which is not held because of another
        let (stack, _) = layered(&engine);
        assert_eq!(stack.warrant(&cx, &request()).await.unwrap_err().kind, kind);
        let (stack, _) = layered(&engine);
        let warrant = Warrant {
            server: String::new(),
            accessor: "1".to_owned(),
            token: SecretValue::from("CANARY"),
            lives: Duration::from_secs(60),
        };
        assert_eq!(
            stack.mint(&cx, &warrant, &request()).await.unwrap_err().kind,
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

/// A quota or a proxy can throttle one path, and each tenant of a shared store names its own.
#[tokio::test(start_paused = true)]
async fn throttled_path_delays_the_credentials_of_that_path_only() {
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
        let error = stack.warrant(&cx, &throttled).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::RateLimited);
    }
    let warrant = stack.warrant(&cx, &request()).await.unwrap();
    // the path is left alone for both requests
    let error = stack.mint(&cx, &warrant, &throttled).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::RateLimited);
    assert!(stack.mint(&cx, &warrant, &request()).await.is_ok());
    assert_eq!(engine.counts()[..2], [2, 1]);
}

#[tokio::test]
async fn a_store_that_makes_no_credentials_says_so() {
    let backend = crate::MemoryBackend::new();
    let provider = backend.provider();
    assert!(!provider.capability().leases);
    let error = provider
        .warrant(&Context::default(), &request())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert_eq!(error.message, "a store of provider memory makes no credentials");
}
