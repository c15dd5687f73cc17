//! The `gcp` provider: Google Secret Manager, and Google Cloud KMS for ciphertexts.
//!
//! `config` validates the store's spec. `login` gets a token, which [`lockstep_provider::Login`]
//! keeps and renews, and `credential` reads a service account's key and signs with it.
//! `secret_manager` and `kms` call the service, `name` parses keys and builds full names, and
//! `events` listens for changes. `auth` sends a call with a valid login, and `transport` and
//! `client` (on `lockstep-http`) carry it. `refusal` interprets the service's errors, and `error`
//! describes failures in our words. `provider` implements the interface for other crates, and
//! `costs` has the prices.
//!
//! # Use of Google's libraries
//!
//! The clients, their messages and their parsing are Google's. `transport` replaces their HTTP
//! client through the interface for that (`from_stub`), because theirs cannot be bounded. It reads
//! a response of any length into memory, follows redirects, uses proxies from the environment and
//! has no timeout for connecting, while a tenant can choose the address. Their retries and their
//! login are not used either: the layers around every provider retry within the store's budget, and
//! lockstep must count, share, renew and replace logins.
//!
//! Nothing is read from the environment. The only exception is a ClusterSecretStore without
//! credentials: then Google's library finds the operator's own token (Application Default
//! Credentials: `GOOGLE_APPLICATION_CREDENTIALS`, the file of `gcloud`, the metadata server). These
//! requests can be bounded only in time. Their addresses are chosen by the administrator who runs
//! the operator.

mod answer;
mod auth;
#[cfg(test)]
mod canary_tests;
mod client;
mod config;
mod costs;
mod crc;
mod credential;
mod error;
mod events;
mod kms;
mod login;
mod name;
mod provider;
mod refusal;
mod secret_manager;
mod transport;

pub use provider::GcpFactory;
