//! Reads one file below a folder, for the command line.

use std::{io::Read as _, path::Path};

use super::{beneath::Beneath, facts::Trouble};

/// The reason why a file below a folder was not read. The message continues after the file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadBelowError {
    /// The file does not exist.
    #[error("does not exist")]
    Missing,
    /// The user has no permission to read the file.
    #[error("cannot be read: permission denied")]
    Denied,
    /// The file is not below the folder: the path, or a link on it, leads out.
    #[error("is outside of the folder, or a link on its path leads out of it")]
    Outside,
    /// The path is not a regular file.
    #[error("is not a regular file")]
    NotAFile,
    /// The file is longer than this number of bytes.
    #[error("has more than {0} bytes")]
    TooLong(u64),
    /// The file cannot be read for any other reason.
    #[error("cannot be read")]
    Failed,
}

impl From<Trouble> for ReadBelowError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Missing => Self::Missing,
            Trouble::Denied => Self::Denied,
            Trouble::LeadsOut | Trouble::Link | Trouble::Circles => Self::Outside,
            Trouble::Unconfined | Trouble::Empty | Trouble::Dangling | Trouble::Busy | Trouble::Failed(_) => {
                Self::Failed
            }
        }
    }
}

/// Reads a file of at most `longest` bytes. Never opens anything outside the folder, wherever links
/// lead.
///
/// # Errors
/// The reason why the file was not read.
pub fn read_below(folder: &Path, path: &str, longest: u64) -> Result<Vec<u8>, ReadBelowError> {
    let (file, _) = Beneath::root(folder)?.linked_file(path)?;
    let file = file.ok_or(ReadBelowError::NotAFile)?;
    let mut bytes = Vec::new();
    let read = file.take(longest.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|_| ReadBelowError::Failed)?;
    if bytes.len() as u64 > longest {
        return Err(ReadBelowError::TooLong(longest));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_outside_the_folder_are_not_read() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("repository");
        fs::create_dir_all(folder.join("keys")).unwrap();
        fs::write(outer.path().join("id_rsa"), "CANARY").unwrap();
        fs::write(folder.join("keys/tls.key"), "ours").unwrap();
        let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, folder.join(name)).unwrap();
        link("../id_rsa", "file");
        link("..", "folder");
        link(outer.path().join("id_rsa").to_str().unwrap(), "absolute");
        link("keys/tls.key", "inside");
        let read = |path: &str| read_below(&folder, path, 16);
        for path in ["keys/tls.key", "./keys/../keys/tls.key", "inside"] {
            assert_eq!(read(path), Ok(b"ours".to_vec()), "{path}");
        }
        let absolute = outer.path().join("id_rsa");
        for path in [
            "../id_rsa",
            "keys/../../id_rsa",
            "file",
            "folder/id_rsa",
            "absolute",
            absolute.to_str().unwrap(),
        ] {
            assert_eq!(read(path), Err(ReadBelowError::Outside), "{path}");
        }
        assert_eq!(read("nowhere"), Err(ReadBelowError::Missing));
        assert_eq!(read("keys"), Err(ReadBelowError::NotAFile));
        assert_eq!(read_below(&folder, "inside", 3), Err(ReadBelowError::TooLong(3)));
    }
}
