//! The `vault` provider: HashiCorp Vault and OpenBao, key/value engine versions 1 and 2.
//!
//! How a request goes: `config` has checked everything that the user wrote, `path` turns the key into a place on the
//! server, `auth` has a token at hand (`login` gets it, [`lockstep_provider::Login`] keeps it), `client` sends one bounded
//! request, `error` says what went wrong in words of ours. `provider`, `find`, `transit` and `lease` are what the
//! rest of lockstep sees of it.
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
mod login;
mod lookup;
mod mounts;
mod path;
mod provider;
mod static_role;
mod tls;
mod transit;

pub use provider::VaultFactory;
