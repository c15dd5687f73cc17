//! The provider against a real OpenBao server, and against servers that misbehave.

mod auth;
mod behaviour;
mod bench;
mod engine;
mod faults;
mod find;
mod jwt;
mod outage;
mod proxy;
mod session;
mod tls;
