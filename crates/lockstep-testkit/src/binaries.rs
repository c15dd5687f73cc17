//! Finds the binaries of this workspace, for tests that run them.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::environment;

/// Returns the `lockstep` binary: `LOCKSTEP_BIN`, or the one that cargo built next to this test
/// (`target/debug/lockstep`).
///
/// # Errors
/// When it has not been built; the message explains how to build it.
pub fn lockstep() -> Result<PathBuf> {
    if let Some(path) = environment::get(environment::BINARY) {
        return Ok(PathBuf::from(path));
    }
    let this = std::env::current_exe().context("find this test's own binary")?;
    // target/debug/deps/test-1234 or, for an xtask, target/debug/xtask
    let found = this
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("lockstep"))
        .find(|path| path.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!(
            "the lockstep binary is not built: run `cargo build --package lockstep` (`cargo xtask test` does so), or set {}",
            environment::BINARY
        ),
    }
}
