//! Access to the API server: the operator's account, its permissions and its requests.

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
