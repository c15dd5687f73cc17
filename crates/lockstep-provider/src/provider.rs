use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use lockstep_core::ciphertext::Binding;

use crate::{
    Ciphertext, ErrorKind, EventSource, FindQuery, IssuanceToken, LeaseHandle, LeaseRequest, MatchTime,
    Minted, Operation, ProviderError, RemoteMeta, RemoteRef, RemoteSecret, SecretValue,
};

/// Maximum number of concurrent calls of one request.
pub const CONCURRENT_CALLS: usize = 8;

/// One item whenever a value may have changed.
pub type Changed = BoxStream<'static, ()>;

/// A client of one store with one identity. Everything that a tenant can influence was checked
/// before.
///
/// No method has a default: a layer that forgets to forward one does not compile, and a provider
/// states what it does not support.
#[async_trait]
pub trait Provider: Leases + Send + Sync + fmt::Debug {
    /// Returns what this provider can do.
    fn capability(&self) -> Capability;

    /// Reads values. Returns one result per reference, in order, never fewer. Uses batches if the
    /// service supports them.
    async fn fetch(&self, cx: &Context, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>>;

    /// Returns whether this reference can share a request with up to [`Capability::batch`] others.
    /// An unbatchable reference is its own request, also in the store's budget. The result can
    /// change: a provider may learn that a reference is unbatchable.
    fn batches(&self, reference: &RemoteRef) -> bool;

    /// Finds values by path, name and tags, sorted by key.
    ///
    /// # Errors
    /// `Unsupported` according to [`Capability::find`] and [`Capability::find_by_tags`]. Never
    /// `NotFound`: the result of a search without matches is an empty list.
    async fn find(&self, cx: &Context, query: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError>;

    /// Decrypts with the KMS key of the store's configuration.
    ///
    /// # Errors
    /// `Unsupported` if the store has no key ([`no_kms`] for providers without KMS);
    /// `Undecryptable` when the ciphertext belongs to another key or location; `KeyUnavailable`
    /// when the key is disabled, destroyed or missing.
    async fn decrypt(&self, cx: &Context, ciphertext: &Ciphertext) -> Result<SecretValue, ProviderError>;

    /// Checks with the cheapest call that the store can be reached with its credentials.
    ///
    /// # Errors
    /// The error that the first read would return.
    async fn check(&self, cx: &Context) -> Result<(), ProviderError>;

    /// Returns what the store's owner should know although everything works, or `None`. Sends no
    /// request.
    fn notice(&self) -> Option<Notice>;

    /// Returns a stream with one item whenever a value may have changed, or `None` according to
    /// [`Capability::notifies`]. It ends when it is dropped. An item is a hint to read again, and
    /// contains nothing of the value.
    ///
    /// Messages about single values, which have to be acknowledged, come from [`Provider::events`].
    fn changes(&self) -> Option<Changed>;

    /// Returns the source of the store's `events`, or `None` if the store has none. Layers do not
    /// limit it: a consumer waits most of the time, and uses nothing of the budget for reads.
    fn events(&self) -> Option<Arc<dyn EventSource>>;
}

/// Implements those of [`Provider::notice`], [`Provider::changes`] and [`Provider::events`] from
/// which a provider returns nothing.
#[macro_export]
macro_rules! returns_none {
    ($($method:ident),+) => { $($crate::returns_none!(@ $method);)+ };
    (@ notice) => {
        fn notice(&self) -> Option<$crate::Notice> {
            None
        }
    };
    (@ changes) => {
        fn changes(&self) -> Option<$crate::Changed> {
            None
        }
    };
    (@ events) => {
        fn events(&self) -> Option<std::sync::Arc<dyn $crate::EventSource>> {
            None
        }
    };
}

/// Issues, renews and revokes credentials. A provider without this feature implements [`NoLeases`].
#[async_trait]
pub trait Leases {
    /// Gets the token that issues one credential. Before using the token, the caller stores its
    /// accessor where it outlives this process. Layers never repeat this call, because each call
    /// creates a token.
    ///
    /// # Errors
    /// `Unsupported` according to [`Capability::leases`]; `PermissionDenied` when the store's
    /// policy denies it.
    async fn issue_token(&self, cx: &Context, request: &LeaseRequest)
    -> Result<IssuanceToken, ProviderError>;

    /// Issues a credential with such a token. Layers never repeat this call and never share the
    /// result. When the outcome is unknown, the caller revokes the token.
    ///
    /// # Errors
    /// Errors of the engine or the store; `Unsupported` when the path returns something that never
    /// expires.
    async fn mint(
        &self,
        cx: &Context,
        issuance_token: &IssuanceToken,
        request: &LeaseRequest,
    ) -> Result<Minted, ProviderError>;

    /// Renews a credential for this long from now on, and returns its new remaining lifetime.
    ///
    /// # Errors
    /// `NotFound` when the lease no longer exists or cannot be renewed; `PermissionDenied` when the
    /// store's policy denies it.
    async fn renew_lease(
        &self,
        cx: &Context,
        lease: &LeaseHandle,
        wanted: Duration,
    ) -> Result<Duration, ProviderError>;

    /// Revokes a credential, or a token and everything that was issued with it. Succeeds if it no
    /// longer exists.
    ///
    /// # Errors
    /// `PermissionDenied` when the store's policy denies it.
    async fn revoke(&self, cx: &Context, lease: &LeaseHandle) -> Result<(), ProviderError>;
}

/// Marks a provider that issues no credentials.
pub trait NoLeases {}

#[async_trait]
impl<P: Provider + NoLeases> Leases for P {
    async fn issue_token(&self, _: &Context, _: &LeaseRequest) -> Result<IssuanceToken, ProviderError> {
        Err(no_leases(self, Operation::IssueToken))
    }

    async fn mint(&self, _: &Context, _: &IssuanceToken, _: &LeaseRequest) -> Result<Minted, ProviderError> {
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

/// Returns the error for a store whose configuration does not set the field of its KMS key.
pub fn no_key(operation: Operation, field: &str) -> ProviderError {
    let message = "the store names no key for ciphertexts";
    ProviderError::new(ErrorKind::Unsupported, operation, message).with_hint(format!("Set {field}"))
}

/// Returns the error for a ciphertext that a key, as messages name it, does not decrypt.
pub fn undecryptable(key: &str) -> ProviderError {
    let message = format!(
        "{key} does not decrypt the ciphertext: it was sealed with another key or for another place, or is damaged"
    );
    ProviderError::new(ErrorKind::Undecryptable, Operation::Decrypt, message)
        .with_hint("Seal the value again, with the key of this store")
}

/// Returns the error of [`Provider::decrypt`] for a provider without KMS.
pub fn no_kms(provider: &dyn Provider) -> ProviderError {
    let name = provider.capability().name;
    let message = format!("a store of provider {name} has no key that decrypts");
    ProviderError::new(ErrorKind::Unsupported, Operation::Decrypt, message)
}

/// Something that works but could be improved. It appears in the message of the store's condition
/// and in a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The metrics label, from a small fixed set.
    pub reason: &'static str,
    /// The message. It starts in lower case, and follows the rules of [`ProviderError`].
    pub message: String,
}

/// What a provider can do, so that callers do not match on its name. The behaviour suite checks
/// each provider against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says one thing that a provider can or cannot do"
)]
pub struct Capability {
    /// The name of the provider, as in YAML. Also the metrics label.
    pub name: &'static str,
    /// Supports `version` in a reference.
    pub versions: bool,
    /// Can find values by path and name.
    pub find: bool,
    /// Can find values by tags.
    pub find_by_tags: bool,
    /// Can read metadata of a value ([`Part::Metadata`](crate::Part)).
    pub metadata: bool,
    /// Can store values that are not UTF-8.
    pub binary: bool,
    /// Maximum number of references per request; 1 if the service has no batches.
    /// [`Provider::batches`] decides for each reference whether it can be batched.
    pub batch: usize,
    /// Reports changed values through [`Provider::changes`].
    pub notifies: bool,
    /// Can issue, renew and revoke credentials.
    pub leases: bool,
}

/// Encrypts with the KMS key of a store, for `lockstep seal`. The operator never creates one,
/// because it needs a permission that the operator must not have.
#[async_trait]
pub trait Encryptor: Send + Sync + fmt::Debug {
    /// Returns the name of the provider, equal to [`Capability::name`].
    fn name(&self) -> &'static str;

    /// Returns the maximum length of a value for [`Encryptor::encrypt`], in bytes. A longer one
    /// needs an envelope.
    fn max_plaintext_len(&self) -> usize;

    /// Encrypts a value and binds it to its location.
    ///
    /// # Errors
    /// Returns the service's error without its text.
    async fn encrypt(&self, value: &SecretValue, binding: &Binding) -> Result<Vec<u8>, ProviderError>;
}

/// The context of one request.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// When the caller gives up. Providers can ignore it: the timeout layer enforces it.
    pub deadline: Option<Instant>,
    /// When the request was queued. `None` if it was not queued before it reached the layers.
    pub queued_since: Option<Instant>,
    /// Reports whether other requests to the same store are waiting in a queue, so that it is worth
    /// waiting for a full batch.
    pub backlog: Backlog,
    /// When the change happened that caused this request. A response to a request that another
    /// caller sent earlier is then not used. `None` accepts any response.
    pub not_before: Option<Instant>,
    /// The remaining time for matching regular expressions in searches.
    pub match_time: MatchTime,
}

/// Reports whether other requests are waiting in a queue. By default, none are.
#[derive(Clone, Default)]
pub struct Backlog(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Backlog {
    /// Creates a backlog from a function that returns whether requests are waiting.
    pub fn new(waits: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(waits)))
    }

    /// Returns whether requests are waiting now.
    pub fn waits(&self) -> bool {
        self.0.as_ref().is_some_and(|waits| waits())
    }
}

impl fmt::Debug for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backlog({})", self.waits())
    }
}
