//! The `aws` provider: AWS Secrets Manager, AWS Systems Manager Parameter Store, and AWS KMS for
//! ciphertexts.
//!
//! `config` validates the store's spec. `login` gets credentials, which
//! [`lockstep_provider::Login`] keeps and renews. `secrets_manager` and `parameter_store` put
//! references into as few calls as the service allows, `kms` decrypts, and `events` listens for
//! changes. `auth` sends a call with valid credentials through the bounded `client`. `error`
//! describes failures in our words. `provider` implements the interface for other crates, and
//! `costs` has the prices.
//!
//! # Use of the SDK
//!
//! The SDK provides the calls, their signatures and the parsing. Two of its features are disabled:
//! - its retries, because the layers around every provider retry within the store's budget
//! - its cache of identities, because lockstep must count, share and replace logins
//!
//! `client` limits the size of responses, because the SDK reads them completely into memory.
//! Nothing is read from the environment (`AWS_*`, profiles, instance metadata, proxies). The only
//! exception is a ClusterSecretStore without credentials: it gets them from the SDK's default
//! chain.

mod auth;
mod client;
mod config;
mod costs;
mod credential;
mod error;
mod events;
mod kms;
mod locate;
mod login;
mod parameter_store;
mod provider;
mod sdk;
mod secrets_manager;
mod unbatchable;
mod value;

pub use provider::AwsFactory;
