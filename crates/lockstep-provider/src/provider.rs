use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use lockstep_core::ciphertext::Binding;

use crate::{
    Ciphertext, ErrorKind, EventSource, FindQuery, LeaseHandle, LeaseRequest, MatchTime, Minted, Operation,
    ProviderError, RemoteMeta, RemoteRef, RemoteSecret, SecretValue, Warrant,
};

/// Most calls of one request that run at the same time.
pub const CONCURRENT_CALLS: usize = 8;

/// A client of one store with one identity. Everything that a tenant could influence was checked before.
#[async_trait]
pub trait Provider: Send + Sync + fmt::Debug {
    /// What this provider can do.
    fn capability(&self) -> Capability;

    /// Reads values: one result per reference, in order, never fewer. Batches where the service can.
    async fn fetch(&self, cx: &Context, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>>;

    /// Whether this reference can share a request with others, as many as [`Capability::batch`] says. One that cannot is a
    /// request of its own, in the store's budget too. It is asked at each read: a provider may learn that one must go alone.
    fn batches(&self, reference: &RemoteRef) -> bool {
        let _ = reference;
        self.capability().batch > 1
    }

    /// Finds values by path, name and tags, sorted by key.
    ///
    /// # Errors
    /// `Unsupported` where [`Capability::find`] or [`Capability::find_by_tags`] says so; `NotFound` never: nothing
    /// found is an empty list.
    async fn find(&self, cx: &Context, query: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError>;

    /// Decrypts what the KMS key of the store's configuration encrypted.
    ///
    /// # Errors
    /// `Unsupported` where the store names no key; `Undecryptable` when the ciphertext is of another key or place;
    /// `KeyUnavailable` when the key is disabled, destroyed or missing.
    async fn decrypt(&self, cx: &Context, ciphertext: &Ciphertext) -> Result<SecretValue, ProviderError> {
        let _ = (cx, ciphertext);
        let message = format!(
            "a store of provider {} has no key that decrypts",
            self.capability().name
        );
        Err(ProviderError::new(
            ErrorKind::Unsupported,
            Operation::Decrypt,
            message,
        ))
    }

    /// Gets the right to make one credential. Its accessor has to be noted where it outlives this process before it is used. No layer
    /// asks twice by itself: each warrant is a token of its own.
    ///
    /// # Errors
    /// `Unsupported` where [`Capability::leases`] says so; `PermissionDenied` when the store's policy gives no such right.
    async fn warrant(&self, cx: &Context, request: &LeaseRequest) -> Result<Warrant, ProviderError> {
        let _ = (cx, request);
        Err(no_leases(self.capability().name, Operation::Warrant))
    }

    /// Makes a credential with a warrant. No layer asks twice or shares the answer: whoever does not know whether it was made revokes
    /// the warrant.
    ///
    /// # Errors
    /// What the engine or the store says; `Unsupported` when the path answers with something that has no end.
    async fn mint(
        &self,
        cx: &Context,
        warrant: &Warrant,
        request: &LeaseRequest,
    ) -> Result<Minted, ProviderError> {
        let _ = (cx, warrant, request);
        Err(no_leases(self.capability().name, Operation::Mint))
    }

    /// Renews a credential for so long from now on, and answers for how long it was.
    ///
    /// # Errors
    /// `NotFound` when there is no such lease any more, or it is not renewed; `PermissionDenied` when the store's policy does not
    /// let it be.
    async fn renew_lease(
        &self,
        cx: &Context,
        lease: &LeaseHandle,
        wanted: Duration,
    ) -> Result<Duration, ProviderError> {
        let _ = (cx, lease, wanted);
        Err(no_leases(self.capability().name, Operation::RenewLease))
    }

    /// Revokes a credential, or a warrant and whatever was made with it. What is gone already is revoked.
    ///
    /// # Errors
    /// `PermissionDenied` when the store's policy does not let it be.
    async fn revoke(&self, cx: &Context, lease: &LeaseHandle) -> Result<(), ProviderError> {
        let _ = (cx, lease);
        Err(no_leases(self.capability().name, Operation::Revoke))
    }

    /// Whether the store can be reached with its credentials, by the cheapest call there is.
    ///
    /// # Errors
    /// What the first read would fail with.
    async fn check(&self, cx: &Context) -> Result<(), ProviderError>;

    /// What the store's owner should know although everything works; `None` when there is nothing. It costs no request.
    fn notice(&self) -> Option<Notice> {
        None
    }

    /// One item whenever a value may have changed, until dropped; `None` where [`Capability::notifies`] says so. It is a
    /// hint that it is time to read, and holds nothing of what there is to read. [`Clients`](crate::Clients) asks the
    /// provider itself for it: layers do not pass it on.
    ///
    /// What tells of single values, by messages that have to be acknowledged, is [`Provider::events`].
    fn changes(&self) -> Option<BoxStream<'static, ()>> {
        None
    }

    /// Where the store's `events` tell of changes; `None` where it has none. [`Clients`](crate::Clients) hands it on past the
    /// layers: who listens waits most of the time, and takes nothing from the budget of those who read.
    fn events(&self) -> Option<Arc<dyn EventSource>> {
        None
    }
}

fn no_leases(provider: &str, operation: Operation) -> ProviderError {
    let message = format!("a store of provider {provider} makes no credentials");
    ProviderError::new(ErrorKind::Unsupported, operation, message)
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
    /// The time that searches have left for regular expressions.
    pub match_time: MatchTime,
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
