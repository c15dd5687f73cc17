//! Decides everything that lockstep does, in pure functions: no I/O, no clock, no client.
//!
//! [`reconcile`] is the state machine that ties the other modules together. A sync uses them in
//! this order:
//!
//! - [`plan`] resolves what is read and checks that it may be read.
//! - [`collect`] builds the keys of the Secret from the values that were read.
//! - [`assemble`] builds the Secret.
//! - [`report`] builds the status.
//! - [`schedule`] computes when the object is reconciled again.
//!
//! [`rotation`] decides when a changed value may be written. [`lease`] decides when a generated
//! credential is renewed, replaced and revoked. [`events`] decides which queue messages are
//! acknowledged. [`forecast`] estimates the number of calls.

pub mod access;
pub mod assemble;
pub mod ciphertext;
pub mod collect;
pub mod decode;
pub mod events;
pub mod failure;
pub mod fingerprint;
pub mod forecast;
pub mod history;
pub mod lease;
pub mod names;
pub mod owner;
pub mod plan;
pub mod property;
pub mod reconcile;
pub mod remote;
pub mod report;
pub mod revision;
pub mod rewrite;
pub mod rotation;
pub mod schedule;
pub mod search;
pub mod secret_write;
pub mod spec;
pub mod stable_hash;
pub mod template;
pub mod text;
pub mod time;
pub mod yaml;

pub use failure::Failure;
