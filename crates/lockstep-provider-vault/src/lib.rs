//! The `vault` provider: HashiCorp Vault and OpenBao, key/value engine versions 1 and 2.
//!
//! `config` validates the spec, and `path` turns a key into a location on the server. `mounts`
//! confirms the engine at the location before anything is requested from it. `auth` provides a
//! token: `login` gets it, and [`lockstep_provider::Login`] keeps it. `client` sends one limited
//! request, and `error` describes failures in our words. `provider`, `find`, `transit` and `lease`
//! implement what other crates use.
//!
//! # Use of vaultrs
//!
//! Requests use the endpoints of vaultrs. Where it lacks an endpoint, or has a wrong one,
//! `endpoint` defines it on the same trait. `client` sends them, because vaultrs' own client cannot
//! be made safe here: it reads a response of any length into memory, follows redirects, takes unset
//! options from `VAULT_*` variables, panics on a token that is not a valid header value, and keeps
//! responses in errors whose `Debug` output contains them. For the same reason, responses are
//! parsed into our own borrowed types (`answer`) instead of vaultrs' responses.

mod answer;
mod auth;
mod client;
mod config;
mod confirm;
mod connections;
mod consistency;
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
