//! Tests of the API types as the API server sees them, without a cluster.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends with a panic that names the case"
)]

mod crds;
mod manifests;
mod rules;
