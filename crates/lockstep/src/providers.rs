//! The providers of this build: one cargo feature each, except for those that need no client.

use lockstep_provider::Registry;

/// Every provider that this build knows.
pub(crate) fn registry() -> Registry {
    let registry = Registry::default();
    #[cfg(feature = "vault")]
    let registry = registry.with(lockstep_provider_vault::VaultFactory);
    registry
}

/// The names of the providers, as in YAML.
pub(crate) fn names() -> Vec<&'static str> {
    registry().names().collect()
}
