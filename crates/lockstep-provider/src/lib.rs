//! The provider interface, the registry of providers, the layers around every provider, and the two providers that
//! need no network: memory (for tests) and file.

mod factory;
mod provider;

pub use factory::{Credentials, ProviderFactory, Registry, StoreConfig, StoreKey};
pub use lockstep_core::remote::{
    ErrorKind, FindQuery, Operation, ProviderError, RemoteMeta, RemoteRef, RemoteSecret, SecretValue,
};
pub use provider::{Capability, Context, Provider};
