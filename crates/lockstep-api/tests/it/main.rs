//! Tests of the API types as the API server sees them, without a cluster.

mod crds;
