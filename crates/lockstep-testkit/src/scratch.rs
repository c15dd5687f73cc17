//! Folders for servers. They are removed when the value is dropped, and also when the test process
//! is killed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
};

use anyhow::{Context as _, Result};

use crate::{environment, process::remove_at_exit, progress};

/// A folder below the system's temporary folder. With `LOCKSTEP_TEST_KEEP` it is kept, and its path
/// is printed.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    remover: Option<Child>,
}

impl Scratch {
    /// Creates an empty folder that only this user can access.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn new(name: &str) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("lockstep-{name}-"))
            .tempdir();
        let path = folder.context("create a temporary folder")?.keep();
        let remover = if environment::get(environment::KEEP).is_some() {
            progress::line(format_args!("  kept: {}", path.display()));
            None
        } else {
            Some(remove_at_exit(&path)?)
        };
        Ok(Self { path, remover })
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file into it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(mut remover) = self.remover.take() {
            let _ = fs::remove_dir_all(&self.path);
            let _ = remover.kill();
            let _ = remover.wait();
        }
    }
}
