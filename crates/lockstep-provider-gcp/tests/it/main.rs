//! The provider against a stand-in that Google's own clients pass against.

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
