//! Tests the provider against a stand-in that enforces the limits of the services, and against
//! moto.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "what a helper cannot do fails the test"
)]

mod answers;
mod auth;
mod batch;
mod behaviour;
mod bench;
mod bounds;
mod budget;
mod events;
mod faults;
mod find;
mod grants;
mod kms;
mod missing;
mod notice;
mod permissions;
