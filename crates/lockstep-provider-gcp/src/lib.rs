//! The `gcp` provider: Google Secret Manager, and Google Cloud KMS for ciphertexts.
//!
//! `config` validates what the user wrote. `login` gets a token, which [`lockstep_provider::Login`] keeps and renews, and
//! `credential` reads a service account's key and signs with it. `secret_manager` and `kms` call the service, `name` makes
//! full names of keys, and `events` listens for changes. `auth` sends a call with a login that works, and `transport` and
//! `client` (on `lockstep-http`) carry it. `refusal` reads the service's refusals, and `error` describes failures in our
//! words. `provider` implements what other crates use, and `costs` has the prices.
//!
//! # What of Google's libraries is used, and what is not
//!
//! The clients, their messages and their parsing are Google's. What carries them is `transport`, put in by the libraries'
//! own seam for it (`from_stub`), because theirs cannot be bounded: it reads an answer of any length into memory, follows
//! redirects, takes proxies from the environment and has no time limit for connecting, while the address that it speaks to
//! may be one that a tenant wrote. Their retries and their login are not used either: the layers around every provider
//! retry within the store's budget, and a login must be ours to count, share, renew and replace.
//!
//! Nothing is taken from the environment, except where a ClusterSecretStore names no credentials: then Google's library
//! looks for the operator's own (Application Default Credentials: `GOOGLE_APPLICATION_CREDENTIALS`, the file of `gcloud`, the
//! metadata server), for a token and for nothing else. What it sends and reads for that cannot be bounded from here but for
//! its time; it goes to addresses that whoever runs the operator chose.

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
