//! Describes an example and what the demo changes in it.

use anyhow::{Context as _, Result};

use crate::workspace;

/// Names and values of an example.
#[derive(Debug)]
pub(crate) struct Story {
    /// Folder of the example, relative to the repository.
    pub(crate) example: &'static str,
    /// Namespace of the SyncedSecret.
    pub(crate) namespace: &'static str,
    /// Name of the SyncedSecret.
    pub(crate) synced_secret: &'static str,
    /// Name of the Secret that it writes.
    pub(crate) secret: &'static str,
    /// Key of the Secret whose value changes at the source.
    pub(crate) key: &'static str,
    /// First value.
    pub(crate) first: &'static str,
    /// Second value.
    pub(crate) second: &'static str,
}

/// Reads a file of the repository.
pub(super) fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(workspace::root().join(path)).with_context(|| format!("read {path}"))
}
