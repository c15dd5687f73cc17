//! Limits how far links and `resources` can lead from a folder named on the command line. A pull
//! request can add both, so they must not reach other files of the machine.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use lockstep_provider::file::{ReadBelowError, read_below};

/// A folder, and the folders that reads must stay below.
#[derive(Debug, Clone)]
pub(super) struct Confined {
    /// The folder as shown in messages.
    pub(super) shown: PathBuf,
    /// Real path of the folder.
    real: PathBuf,
    /// Real path of `--root`. If not set, files must be below `real`.
    root: Option<PathBuf>,
    /// Real path of the folder that listed kustomizations must be below.
    bases: PathBuf,
}

impl Confined {
    /// Confines reads to a folder named on the command line, or to `--root`.
    ///
    /// # Errors
    /// Fails if a folder cannot be read or is not below `--root`.
    pub(super) fn new(folder: &Path, root: Option<&Path>) -> Result<Self, String> {
        let real = canonicalize(folder)?;
        let root = match root {
            Some(path) => {
                let root = canonicalize(path)?;
                if !real.starts_with(&root) {
                    return Err(format!(
                        "{} is not below --root {}. Set --root to a folder that contains it",
                        folder.display(),
                        path.display()
                    ));
                }
                Some(root)
            }
            None => None,
        };
        let bases = root.clone().unwrap_or_else(|| default_root(&real));
        Ok(Self {
            shown: folder.to_owned(),
            real,
            root,
            bases,
        })
    }

    /// Confines reads to a folder that this one lists; `None` if it is outside.
    pub(super) fn base(&self, shown: PathBuf, real: PathBuf) -> Option<Self> {
        real.starts_with(&self.bases).then(|| Self {
            shown,
            real,
            root: self.root.clone(),
            bases: self.bases.clone(),
        })
    }

    /// Reads a file of at most `longest` bytes, given its real path.
    ///
    /// # Errors
    /// Reports why the file was not read.
    pub(super) fn read(&self, real: &Path, longest: u64) -> Result<Vec<u8>, ReadBelowError> {
        let root = self.root.as_deref().unwrap_or(&self.real);
        let below = real.strip_prefix(root).map_err(|_| ReadBelowError::Outside)?;
        let below = below.to_str().ok_or(ReadBelowError::Failed)?;
        // a file that is replaced with a link in the meantime is rejected too
        read_below(root, below, longest)
    }

    /// Returns the advice that follows a rejection.
    pub(super) fn advice(&self) -> String {
        match &self.root {
            Some(root) => format!("Only files below --root {} are read", root.display()),
            None => "To allow a parent folder, set --root to it".to_owned(),
        }
    }
}

/// Returns the folder that bases must be below without `--root`: the repository, otherwise the
/// working directory if it contains the folder, otherwise the folder itself. A pull request cannot
/// add a `.git` of its own: Git does not check one out.
fn default_root(folder: &Path) -> PathBuf {
    let repository = folder.ancestors().find(|path| path.join(".git").exists());
    let working = || {
        let working = fs::canonicalize(env::current_dir().ok()?).ok()?;
        // the root of the file system limits nothing
        (working.parent().is_some() && folder.starts_with(&working)).then_some(working)
    };
    repository
        .map(Path::to_owned)
        .or_else(working)
        .unwrap_or_else(|| folder.to_owned())
}

fn canonicalize(path: &Path) -> Result<PathBuf, String> {
    fs::canonicalize(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}
