//! The `gcp` provider: Google Secret Manager, and Google Cloud KMS for ciphertexts.
//!
//! How a request goes: `config` has checked everything that the user wrote, `login` gets a token (how long it is used is
//! [`lockstep_provider::Login`]'s to know; `credential` reads a service account's key and signs with it),
//! `secret_manager` and `kms` say what is called (`name` makes full names of keys), `client` makes the call with a login
//! that works, `transport` and `http` (on `lockstep-http`) carry it, `refusal` reads what a service says no with, `error` says what went wrong
//! in words of ours, `costs` what `lockstep plan` counts with. `provider` is what the rest of lockstep sees of it.
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
#[cfg(test)]
mod canary_tests;
mod client;
mod config;
mod costs;
mod crc;
mod credential;
mod error;
mod events;
mod http;
mod kms;
mod login;
mod name;
mod provider;
mod refusal;
mod secret_manager;
mod transport;

pub use provider::GcpFactory;
