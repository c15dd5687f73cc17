//! The provider interface, the registry of providers, the layers around every provider, the cache
//! of clients, and the two providers that need no network: memory (for tests) and file.

pub mod call;
pub mod clients;
pub mod costs;
mod endpoint;
mod events;
mod factory;
pub mod file;
mod filter;
pub mod layers;
pub mod login;
mod match_time;
pub mod memory;
pub mod metric_set;
pub mod metrics;
mod paging;
mod parts;
mod provider;
pub mod room;
#[cfg(test)]
mod testing;
mod timeout;

pub use clients::{Changes, Clients};
pub use costs::Costs;
pub use endpoint::EndpointPolicy;
pub use events::{EventKind, EventSource, LONGEST_NAME, LONGEST_RECEIPT, MOST_KEYS, Message};
pub use factory::{Credentials, ProviderFactory, Registry, StoreConfig, StoreKey};
pub use file::FileFactory;
pub use filter::{KeyFilter, found};
pub use lockstep_core::{
    ciphertext::Binding,
    remote::{
        Ciphertext, ErrorKind, FindQuery, IssuanceToken, LeaseHandle, LeaseRequest, Located, Location,
        LocationError, Locator, Minted, Operation, Part, Pattern, ProviderError, RemoteMeta, RemoteRef,
        RemoteSecret, Scope, SecretValue, Verbatim,
    },
};
pub use login::{Authenticator, CallError, Grant, Login, Session};
pub use match_time::MatchTime;
pub use memory::{MemoryBackend, MemoryFactory};
pub use metrics::FetchMetrics;
pub use paging::{Listing, MAX_TOKEN_BYTES, Paging};
pub use parts::Parts;
pub use provider::{
    Backlog, CONCURRENT_CALLS, Capability, Changed, Context, Encryptor, Leases, NoLeases, Notice, Provider,
    no_key, no_kms, undecryptable,
};
pub use timeout::DEFAULT_TIMEOUT;
