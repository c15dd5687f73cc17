//! The `aws` provider: AWS Secrets Manager, AWS Systems Manager Parameter Store, and AWS KMS for ciphertexts.
//!
//! `config` validates what the user wrote. `login` gets credentials, which [`lockstep_provider::Login`] keeps and renews.
//! `secrets_manager` and `parameter_store` put references into as few calls as the service allows, `kms` decrypts, and
//! `events` listens for changes. `auth` sends a call with credentials that work, through the bounded `client`. `error`
//! describes failures in our words. `provider` implements what other crates use, and `costs` has the prices.
//!
//! # What of the SDK is used, and what is not
//!
//! The calls, their signatures and the parsing are the SDK's. Its own retries are off, because the layers around every
//! provider retry within the store's budget; so is its cache of identities, because a login must be ours to count, share
//! and replace. `client` bounds what an answer may hold: the SDK reads all of it into memory. Nothing is taken from the
//! environment (`AWS_*`, profiles, instance metadata, proxies), except where a ClusterSecretStore names no credentials: then
//! the SDK's default chain is asked, for credentials and for nothing else.

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
