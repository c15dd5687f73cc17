//! The one way to the API server: who the operator is there, what it may do, and its requests.

pub mod access;
pub mod account;
pub mod admission;
pub mod checks;
pub mod credentials;
pub mod request;
pub mod secrets;
pub mod status;
pub(crate) mod tokens;
pub mod workloads;
