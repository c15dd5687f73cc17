//! Patterns of Kubernetes names, which the schemas enforce on every stored object.

/// A DNS-1123 subdomain of at most 253 characters, which is the name of most objects.
pub const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A DNS-1123 label of at most 63 characters, which is the name of a namespace.
pub const LABEL: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// A key in the data of a Secret or ConfigMap, of at most 253 characters.
pub const DATA_KEY: &str = r"^[-._a-zA-Z0-9]+$";
