//! The `aws` provider: AWS Secrets Manager, AWS Systems Manager Parameter Store, and AWS KMS for ciphertexts.
//!
//! How a request goes: `config` has checked everything that the user wrote, `login` gets
//! credentials, which `lockstep_provider::Login` keeps and renews, `secrets_manager` and `parameter_store` put references into as few calls
//! as the service allows, `kms` decrypts, `events` hears of changes, `client` sends a call with credentials that work, `error` says what went wrong in words of
//! ours. `provider` is what the rest of lockstep sees of it, `costs` what AWS asks for it.
//!
//! # What of the SDK is used, and what is not
//!
//! The calls, their signatures and the parsing are the SDK's. Its own retries are off, because the layers around every
//! provider retry within the store's budget; so is its cache of identities, because a login must be ours to count, share
//! and replace. `http` bounds what an answer may hold: the SDK reads all of it into memory. Nothing is taken from the
//! environment (`AWS_*`, profiles, instance metadata, proxies), except where a ClusterSecretStore names no credentials: then
//! the SDK's default chain is asked, for credentials and for nothing else.

mod alone;
mod client;
mod config;
mod costs;
mod credential;
mod error;
mod events;
mod http;
mod kms;
mod locate;
mod login;
mod parameter_store;
mod provider;
mod sdk;
mod secrets_manager;
mod value;

pub use provider::AwsFactory;
