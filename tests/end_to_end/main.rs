//! End to end: the real binary, under the shipped rights and admission policies, on a real API server, with a real
//! OpenBao.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::use_debug,
    reason = "a test that cannot go on fails"
)]

mod admission;
mod api_proxy;
mod attack;
mod audiences;
mod bad_cluster;
mod bad_input;
mod bad_login;
mod bad_secret;
mod bad_source;
mod bad_spec;
mod bad_store;
mod bad_template;
mod batches;
mod ciphertext;
mod crash;
mod deny_guesses;
mod deploy;
mod events;
mod examples;
mod faulty_vault;
mod file_store;
mod first_sync;
mod hostile;
mod key_loss;
mod lease;
mod life;
mod policies;
mod requests;
mod rights;
mod rollout;
mod rollout_crash;
mod rotation;
mod seal;
mod shared_cluster;
mod status;
mod tenant_network;
mod verify;
mod versioned;
