//! What an example declares, and what the demo changes.

use anyhow::{Context as _, Result};

use crate::workspace;

/// What the example declares, and what the demo changes.
#[derive(Debug)]
pub(crate) struct Story {
    /// Folder of the example below the repository.
    pub(crate) example: &'static str,
    /// Namespace of the SyncedSecret.
    pub(crate) namespace: &'static str,
    /// Its name.
    pub(crate) synced_secret: &'static str,
    /// The Secret that it writes.
    pub(crate) secret: &'static str,
    /// The key of the Secret that changes with the source.
    pub(crate) key: &'static str,
    /// Its first value.
    pub(crate) first: &'static str,
    /// Its second value.
    pub(crate) second: &'static str,
}

/// A file of the repository.
pub(super) fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(workspace::root().join(path)).with_context(|| format!("read {path}"))
}
