//! The `vault` provider: HashiCorp Vault and OpenBao, key/value engine versions 1 and 2.
//!
//! `config` validates what the user wrote, and `path` turns a key into a location on the server. `mounts` confirms the engine at the
//! location before anything is requested from it. `auth` provides a token: `login` gets it, and
//! [`lockstep_provider::Login`] keeps it.
//! `client` sends one bounded request, and `error` describes failures in our words. `provider`, `find`, `transit` and `lease`
//! implement what other crates use.
//!
//! # What of vaultrs is used, and what is not
//!
//! The requests are vaultrs' endpoints, and where it has none (or a wrong one), endpoints of ours on the same trait:
//! see `endpoint`. They are sent by `client`, because vaultrs' own client cannot be made safe here: it reads an
//! answer of any length into memory, follows redirects, takes whatever is not set from `VAULT_*` variables, panics on
//! a token that is no header value, and keeps answers in errors whose `Debug` prints them. For the same reason the
//! answers are parsed into borrowed types of ours (`answer`) instead of vaultrs' responses.

mod answer;
mod auth;
mod client;
mod config;
mod confirm;
mod credential;
mod endpoint;
mod engine;
mod error;
mod events;
mod find;
mod json;
mod known_mounts;
mod lease;
mod listing;
mod login;
mod lookup;
mod mounts;
mod path;
mod provider;
mod static_role;
mod tls;
mod transit;

pub use provider::VaultFactory;
