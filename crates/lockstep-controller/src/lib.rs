//! The controller: watches, reconciles, writes, and the admin server.
//!
//! The parts, in the order in which a change travels: [`watch`] tells the [`index`] and wakes objects, [`executor`]
//! performs what [`lockstep_core::reconcile`] decides, through [`fetch`], [`secret`], [`status`] and [`workloads`], [`stores`] checks stores,
//! [`admin`] shows how all of it goes. [`admission`] proves at the start that the cluster holds the operator to its
//! limits, [`audiences`] that the tokens that it mints for stores are worth nothing at the API server.

mod access;
pub mod admin;
pub mod admission;
pub mod audiences;
pub mod context;
pub mod credentials;
mod events;
pub mod executor;
pub mod fair;
pub mod fetch;
pub mod identity;
pub mod index;
pub mod key;
pub mod lanes;
pub mod manifest;
pub mod metrics;
pub mod objects;
pub mod run;
pub mod secret;
pub mod status;
pub mod stores;
pub mod tasks;
mod tokens;
pub mod verifier;
pub mod wake;
pub mod watch;
pub mod workloads;

pub use run::{Options, RunError, run};
