//! The controller: watches, reconciles, writes, and the admin server.
//!
//! The parts, in the order in which a change travels: [`watch`] tells the [`index`] and wakes objects, [`executor`]
//! performs what [`lockstep_core::reconcile`] decides, through [`fetch`], [`kube::secrets`], [`kube::status`] and [`kube::workloads`], [`stores`] checks stores,
//! [`admin`] shows how all of it goes. [`kube::admission`] proves at the start that the cluster holds the operator to its
//! limits, [`audiences`] that the tokens that it mints for stores are worth nothing at the API server.

pub mod admin;
pub mod audiences;
pub mod context;
mod events;
pub mod executor;
pub mod fair;
pub mod fetch;
pub mod index;
pub mod key;
pub mod kube;
pub mod lanes;
pub mod manifest;
pub mod metrics;
pub mod objects;
pub mod run;
pub mod stores;
pub mod tasks;
pub mod wake;
pub mod watch;

pub use run::{Options, RunError, run};
