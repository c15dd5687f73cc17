//! The decisions of lockstep, as pure functions: no I/O, no clock, no client.
//!
//! [`reconcile`] ties them together. A reconcile goes through them in this order: it decides what is due, [`plan`] what is to be read and whether
//! it may be, [`collect`] makes the keys of the Secret from what was read, [`assemble`] makes the Secret, [`report`]
//! makes the status, [`schedule`] says when to look again, [`events`] which messages of a queue to acknowledge. [`rotation`]
//! says whether a changed value may be written now, [`lease`] when a generated credential is renewed, replaced and revoked.
//! [`forecast`] says how many calls all that will be.

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
