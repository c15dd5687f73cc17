//! Tests the provider against a stand-in that also passes the tests with Google's own clients.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a helper cannot do fails the test"
)]

mod answers;
mod auth;
mod behaviour;
mod bench;
mod bounds;
mod events;
mod faults;
mod find;
mod grants;
mod kms;
mod missing;
mod permissions;
mod versions;
