//! Tests the provider against a real OpenBao server, and against misbehaving servers.

#![expect(clippy::unwrap_used, reason = "what a helper cannot do fails the test")]

mod auth;
mod behaviour;
mod bench;
mod cluster;
mod consistency;
mod engine;
mod events;
mod faults;
mod find;
mod grants;
mod jwt;
mod lease;
mod login;
mod missing;
mod mountless;
mod named;
mod outage;
mod session;
mod tls;
mod transit;
