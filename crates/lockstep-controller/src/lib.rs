//! The controller: watches, reconciles, writes, and the admin server.
//!
//! A change travels through the modules in this order:
//! - [`watch`] updates the [`index`] and wakes objects.
//! - [`executor`] performs what [`lockstep_core::reconcile`] decides, through [`fetch`],
//!   [`kube::secrets`], [`kube::status`] and [`kube::workloads`].
//! - [`stores`] checks stores.
//! - [`admin`] exposes health and metrics.
//!
//! At the start, [`kube::admission`] proves that admission policies restrict the operator, and
//! [`audiences`] that the API server rejects the tokens that it mints for stores.

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
