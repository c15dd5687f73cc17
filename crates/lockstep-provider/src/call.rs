//! The requests that a store accepts, and the trait that all layers implement for them.
//!
//! A [`Service`] is a `tower` service without `poll_ready`: a layer that has to wait does so in the
//! call. It takes a slice, because references that share one request to the backend have a result
//! each.

use std::{fmt, sync::Arc, time::Duration};

use futures::future::join_all;

use crate::{
    Ciphertext, Context, FindQuery, IssuanceToken, LeaseHandle, LeaseRequest, Location, Minted, Operation,
    Provider, ProviderError, RemoteMeta, RemoteRef, RemoteSecret, SecretValue,
};

/// One result for each request, in order.
pub type Answers<R> = Vec<Result<<R as Request>::Answer, ProviderError>>;

/// One request to a store.
pub trait Request: Clone + fmt::Debug + Send + Sync + 'static {
    /// What the store returns.
    type Answer: Clone + Send + Sync + 'static;

    /// The operation that metrics and errors name.
    const OPERATION: Operation;

    /// Whether a failed attempt may be repeated.
    const REPEATABLE: bool;

    /// Returns what a failure of this request is about.
    fn scope(&self) -> Scope;

    /// Returns whether this request can share a request to the backend with others. Only reads can.
    fn shares(&self, provider: &dyn Provider) -> bool {
        let _ = provider;
        false
    }

    /// Sends the requests to the provider.
    fn send(
        provider: &dyn Provider,
        cx: &Context,
        requests: &[Self],
    ) -> impl Future<Output = Answers<Self>> + Send;
}

/// A provider, or a layer around another service.
pub trait Service<R: Request>: Send + Sync {
    /// Returns the provider inside all layers.
    fn provider(&self) -> &dyn Provider;

    /// Returns one result for each request.
    fn call(&self, cx: &Context, requests: &[R]) -> impl Future<Output = Answers<R>> + Send;
}

/// A provider without layers.
#[derive(Debug, Clone)]
pub struct Direct(pub Arc<dyn Provider>);

impl<R: Request> Service<R> for Direct {
    fn provider(&self) -> &dyn Provider {
        self.0.as_ref()
    }

    async fn call(&self, cx: &Context, requests: &[R]) -> Answers<R> {
        R::send(self.0.as_ref(), cx, requests).await
    }
}

/// What a failure is about: other requests of the same scope would fail in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Reads of this key.
    Key(Location),
    /// This search, with the grant of its caller. An error may name a folder that only this caller
    /// is granted.
    Search(Box<FindQuery>),
    /// Credentials of this path, and the tokens that issue them.
    Lease(Location),
    /// This operation, which has no path of its own.
    Operation(Operation),
}

/// Requests the token that issues one credential: [`issue_token`](crate::Leases::issue_token).
#[derive(Debug, Clone)]
pub(crate) struct GetIssuanceToken(pub(crate) LeaseRequest);

/// Issues a credential: [`mint`](crate::Leases::mint).
#[derive(Debug, Clone)]
pub(crate) struct Mint(pub(crate) IssuanceToken, pub(crate) LeaseRequest);

/// Renews a credential: [`renew_lease`](crate::Leases::renew_lease).
#[derive(Debug, Clone)]
pub(crate) struct RenewLease(pub(crate) LeaseHandle, pub(crate) Duration);

/// Revokes a credential: [`revoke`](crate::Leases::revoke).
#[derive(Debug, Clone)]
pub(crate) struct Revoke(pub(crate) LeaseHandle);

/// Checks that the store can be reached: [`check`](Provider::check).
#[derive(Debug, Clone)]
pub struct Check;

impl Request for RemoteRef {
    type Answer = RemoteSecret;
    const OPERATION: Operation = Operation::Read;
    const REPEATABLE: bool = true;

    fn scope(&self) -> Scope {
        Scope::Key(self.key.clone())
    }

    fn shares(&self, provider: &dyn Provider) -> bool {
        provider.batches(self)
    }

    async fn send(provider: &dyn Provider, cx: &Context, requests: &[Self]) -> Answers<Self> {
        provider.fetch(cx, requests).await
    }
}

impl Request for FindQuery {
    type Answer = Vec<RemoteMeta>;
    const OPERATION: Operation = Operation::Find;
    const REPEATABLE: bool = true;

    fn scope(&self) -> Scope {
        Scope::Search(Box::new(self.clone()))
    }

    async fn send(provider: &dyn Provider, cx: &Context, requests: &[Self]) -> Answers<Self> {
        join_all(requests.iter().map(|query| provider.find(cx, query))).await
    }
}

impl Request for Ciphertext {
    type Answer = SecretValue;
    const OPERATION: Operation = Operation::Decrypt;
    const REPEATABLE: bool = true;

    fn scope(&self) -> Scope {
        Scope::Operation(Self::OPERATION)
    }

    async fn send(provider: &dyn Provider, cx: &Context, requests: &[Self]) -> Answers<Self> {
        join_all(requests.iter().map(|ciphertext| provider.decrypt(cx, ciphertext))).await
    }
}

impl Request for GetIssuanceToken {
    type Answer = IssuanceToken;
    const OPERATION: Operation = Operation::IssueToken;
    /// If the response is lost, a token is left behind.
    const REPEATABLE: bool = false;

    fn scope(&self) -> Scope {
        Scope::Lease(self.0.path.clone())
    }

    async fn send(provider: &dyn Provider, cx: &Context, requests: &[Self]) -> Answers<Self> {
        join_all(
            requests
                .iter()
                .map(|Self(request)| provider.issue_token(cx, request)),
        )
        .await
    }
}

impl Request for Mint {
    type Answer = Minted;
    const OPERATION: Operation = Operation::Mint;
    /// A failed attempt may have issued a credential.
    const REPEATABLE: bool = false;

    fn scope(&self) -> Scope {
        Scope::Lease(self.1.path.clone())
    }

    async fn send(provider: &dyn Provider, cx: &Context, requests: &[Self]) -> Answers<Self> {
        let mints = requests
            .iter()
            .map(|Self(issuance_token, request)| provider.mint(cx, issuance_token, request));
        join_all(mints).await
    }
}

impl Request for RenewLease {
    type Answer = Duration;
    const OPERATION: Operation = Operation::RenewLease;
    const REPEATABLE: bool = true;

    fn scope(&self) -> Scope {
        Scope::Operation(Self::OPERATION)
    }

    async fn send(provider: &dyn Provider, cx: &Context, requests: &[Self]) -> Answers<Self> {
        let renewals = requests
            .iter()
            .map(|Self(lease, wanted)| provider.renew_lease(cx, lease, *wanted));
        join_all(renewals).await
    }
}

impl Request for Revoke {
    type Answer = ();
    const OPERATION: Operation = Operation::Revoke;
    const REPEATABLE: bool = true;

    fn scope(&self) -> Scope {
        Scope::Operation(Self::OPERATION)
    }

    async fn send(provider: &dyn Provider, cx: &Context, requests: &[Self]) -> Answers<Self> {
        join_all(requests.iter().map(|Self(lease)| provider.revoke(cx, lease))).await
    }
}

impl Request for Check {
    type Answer = ();
    const OPERATION: Operation = Operation::Check;
    const REPEATABLE: bool = true;

    fn scope(&self) -> Scope {
        Scope::Operation(Self::OPERATION)
    }

    async fn send(provider: &dyn Provider, cx: &Context, requests: &[Self]) -> Answers<Self> {
        join_all(requests.iter().map(|Self| provider.check(cx))).await
    }
}
