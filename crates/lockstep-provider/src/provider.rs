use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use lockstep_core::ciphertext::Binding;

use crate::{
    Ciphertext, ErrorKind, EventSource, FindQuery, LeaseHandle, LeaseRequest, Minted, Operation,
    ProviderError, RemoteMeta, RemoteRef, RemoteSecret, SecretValue, Warrant,
};

/// Most calls of one request that run at the same time.
pub const CONCURRENT_CALLS: usize = 8;

/// A client of one store with one identity. Everything that a tenant can influence was checked before.
///
/// No method has a default: a layer that forgets to forward one does not compile, and a provider states what it does not
/// support.
#[async_trait]
pub trait Provider: Leases + Send + Sync + fmt::Debug {
    /// What this provider can do.
    fn capability(&self) -> Capability;

    /// Reads values: one result per reference, in order, never fewer. Batches where the service can.
    async fn fetch(&self, cx: &Context, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>>;

    /// Whether this reference can share a request with up to [`Capability::batch`] others. An unbatchable reference is a
    /// request of its own, in the store's budget too. The answer can change: a provider may learn that a reference is
    /// unbatchable.
    fn batches(&self, reference: &RemoteRef) -> bool;

    /// Finds values by path, name and tags, sorted by key.
    ///
    /// # Errors
    /// `Unsupported` according to [`Capability::find`] and [`Capability::find_by_tags`]. `NotFound` never: the result of a
    /// search without matches is an empty list.
    async fn find(&self, cx: &Context, query: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError>;

    /// Decrypts with the KMS key of the store's configuration.
    ///
    /// # Errors
    /// `Unsupported` where the store has no key ([`no_kms`] for providers without KMS); `Undecryptable` when the ciphertext
    /// is of another key or location; `KeyUnavailable` when the key is disabled, destroyed or missing.
    async fn decrypt(&self, cx: &Context, ciphertext: &Ciphertext) -> Result<SecretValue, ProviderError>;

    /// Whether the store can be reached with its credentials, by the cheapest call there is.
    ///
    /// # Errors
    /// What the first read would fail with.
    async fn check(&self, cx: &Context) -> Result<(), ProviderError>;

    /// What the store's owner should know although everything works; `None` when there is nothing. It sends no request.
    fn notice(&self) -> Option<Notice>;

    /// One item whenever a value may have changed, until dropped; `None` according to [`Capability::notifies`]. It is a hint
    /// to read again, and contains nothing of the value.
    ///
    /// Messages about single values, which have to be acknowledged, come from [`Provider::events`].
    fn changes(&self) -> Option<BoxStream<'static, ()>>;

    /// Where the store's `events` announce changes; `None` where it has none. Layers do not limit it: a listener waits most of
    /// the time, and takes nothing from the budget of readers.
    fn events(&self) -> Option<Arc<dyn EventSource>>;
}

/// Issues, renews and revokes credentials. A provider that cannot implements [`NoLeases`].
#[async_trait]
pub trait Leases {
    /// Gets the token that issues one credential. The caller stores its accessor where it outlives this process before the
    /// token is used. Layers never repeat it: each call creates a token.
    ///
    /// # Errors
    /// `Unsupported` according to [`Capability::leases`]; `PermissionDenied` when the store's policy denies it.
    async fn warrant(&self, cx: &Context, request: &LeaseRequest) -> Result<Warrant, ProviderError>;

    /// Issues a credential with such a token. Layers never repeat it and never share the answer. When the outcome is unknown,
    /// the caller revokes the token.
    ///
    /// # Errors
    /// Errors of the engine or the store; `Unsupported` when the path returns something that never expires.
    async fn mint(
        &self,
        cx: &Context,
        warrant: &Warrant,
        request: &LeaseRequest,
    ) -> Result<Minted, ProviderError>;

    /// Renews a credential for this long from now on, and returns for how long it was renewed.
    ///
    /// # Errors
    /// `NotFound` when the lease no longer exists, or cannot be renewed; `PermissionDenied` when the store's policy denies it.
    async fn renew_lease(
        &self,
        cx: &Context,
        lease: &LeaseHandle,
        wanted: Duration,
    ) -> Result<Duration, ProviderError>;

    /// Revokes a credential, or a token and everything that was issued with it. Succeeds if it no longer exists.
    ///
    /// # Errors
    /// `PermissionDenied` when the store's policy denies it.
    async fn revoke(&self, cx: &Context, lease: &LeaseHandle) -> Result<(), ProviderError>;
}

/// Marks a provider that issues no credentials.
pub trait NoLeases {}

#[async_trait]
impl<P: Provider + NoLeases> Leases for P {
    async fn warrant(&self, _: &Context, _: &LeaseRequest) -> Result<Warrant, ProviderError> {
        Err(no_leases(self, Operation::Warrant))
    }

    async fn mint(&self, _: &Context, _: &Warrant, _: &LeaseRequest) -> Result<Minted, ProviderError> {
        Err(no_leases(self, Operation::Mint))
    }

    async fn renew_lease(
        &self,
        _: &Context,
        _: &LeaseHandle,
        _: Duration,
    ) -> Result<Duration, ProviderError> {
        Err(no_leases(self, Operation::RenewLease))
    }

    async fn revoke(&self, _: &Context, _: &LeaseHandle) -> Result<(), ProviderError> {
        Err(no_leases(self, Operation::Revoke))
    }
}

fn no_leases(provider: &dyn Provider, operation: Operation) -> ProviderError {
    let name = provider.capability().name;
    let message = format!("a store of provider {name} makes no credentials");
    ProviderError::new(ErrorKind::Unsupported, operation, message)
}

/// The error of [`Provider::decrypt`] for a provider without KMS.
pub fn no_kms(provider: &dyn Provider) -> ProviderError {
    let name = provider.capability().name;
    let message = format!("a store of provider {name} has no key that decrypts");
    ProviderError::new(ErrorKind::Unsupported, Operation::Decrypt, message)
}

/// Something that works, and could work better: it stands in the message of the store's condition, and in a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The label in metrics: one of a few words.
    pub reason: &'static str,
    /// The sentence; it starts in lower case, and obeys the rules of [`ProviderError`].
    pub message: String,
}

/// What a provider can do, in place of matching on its name. The behaviour suite holds each provider to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says one thing that a provider can or cannot do"
)]
pub struct Capability {
    /// The name of the provider, as in YAML: the label in metrics.
    pub name: &'static str,
    /// `version` in a reference is understood.
    pub versions: bool,
    /// Values by path and name can be found.
    pub find: bool,
    /// Values by tags can be found.
    pub find_by_tags: bool,
    /// What is kept beside a value can be read ([`Part::Metadata`](crate::Part)).
    pub metadata: bool,
    /// Values that are not UTF-8 can be stored.
    pub binary: bool,
    /// The largest number of references that go out as one request; 1 where the service has no batches. Which of them can
    /// says [`Provider::batches`].
    pub batch: usize,
    /// A change of a value announces itself, by [`Provider::changes`].
    pub notifies: bool,
    /// Credentials can be made, renewed and revoked.
    pub leases: bool,
}

/// Encrypts with the KMS key of a store, for `lockstep seal`. The operator never makes one: it needs a right that the
/// operator must not have.
#[async_trait]
pub trait Encryptor: Send + Sync + fmt::Debug {
    /// The name of the provider, as [`Capability::name`].
    fn name(&self) -> &'static str;

    /// The longest value that [`Encryptor::encrypt`] takes, in bytes; a longer one needs an envelope.
    fn limit(&self) -> usize;

    /// Encrypts a value and binds it to its place.
    ///
    /// # Errors
    /// What the service says, in words of ours.
    async fn encrypt(&self, value: &SecretValue, binding: &Binding) -> Result<Vec<u8>, ProviderError>;
}

/// The circumstances of one request.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// When whoever asked gives up. A provider need not watch it: the timeout layer does.
    pub deadline: Option<Instant>,
    /// Since when the request waits to be sent, where it began to wait before it came here.
    pub queued_since: Option<Instant>,
    /// Whether others stand in a queue to ask the same store as soon as they may, so that it is worth waiting for a full batch.
    pub backlog: Backlog,
    /// Since when something is known to have changed, where that is why the request is made: an answer to a request of
    /// somebody else's that began earlier is no answer to it. `None`: any will do.
    pub not_before: Option<Instant>,
}

/// Tells at any moment whether others stand in a queue; by default, nobody does.
#[derive(Clone, Default)]
pub struct Backlog(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Backlog {
    /// A queue that can be asked whether somebody stands in it.
    pub fn new(waits: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(waits)))
    }

    /// Whether somebody stands in the queue now.
    pub fn waits(&self) -> bool {
        self.0.as_ref().is_some_and(|waits| waits())
    }
}

impl fmt::Debug for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backlog({})", self.waits())
    }
}
