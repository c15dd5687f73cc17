//! The providers of this build. Each provider with a client of its own has a cargo feature.

use std::path::Path;

use lockstep_provider::{FileFactory, Registry};

/// Returns all providers of this build. The `file` provider reads only below `file_root`.
pub(crate) fn registry(file_root: Option<&Path>) -> Registry {
    let registry =
        Registry::default().with(file_root.map_or_else(FileFactory::without_root, FileFactory::new));
    #[cfg(feature = "aws")]
    let registry = registry.with(lockstep_provider_aws::AwsFactory::default());
    #[cfg(feature = "gcp")]
    let registry = registry.with(lockstep_provider_gcp::GcpFactory::default());
    #[cfg(feature = "vault")]
    let registry = registry.with(lockstep_provider_vault::VaultFactory);
    registry
}

/// Returns the names of the providers, as in YAML.
pub(crate) fn names() -> Vec<&'static str> {
    registry(None).names().collect()
}
