//! Paths of the workspace.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Returns the root folder of the workspace that this program was built from.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Returns the folder that this program was built in: `target/debug` or `target/release`.
pub(crate) fn build_folder() -> Result<PathBuf> {
    let program = std::env::current_exe().context("find this program")?;
    program
        .parent()
        .map(Path::to_owned)
        .context("find the folder of this program")
}
