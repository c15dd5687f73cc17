//! The providers of this build.

use std::path::PathBuf;

use lockstep_provider::Registry;

/// Every provider that this build knows.
pub(crate) fn registry(file_root: Option<PathBuf>) -> Registry {
    let registry = Registry::default();
    let _ = file_root;
    #[cfg(feature = "vault")]
    let registry = registry.with(lockstep_provider_vault::VaultFactory::default());
    registry
}
