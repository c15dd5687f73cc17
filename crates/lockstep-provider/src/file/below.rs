//! Reading one file below a folder, for the command line.

use std::{io::Read as _, path::Path};

use super::{beneath::Beneath, facts::Trouble};

/// Why a file below a folder was not read. The sentence goes on after the file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadBelowError {
    /// There is no such file.
    #[error("does not exist")]
    Missing,
    /// The user may not read it.
    #[error("cannot be read: permission denied")]
    Denied,
    /// It is not below the folder: the path, or a link on it, leads out.
    #[error("is outside of the folder, or a link on its path leads out of it")]
    Outside,
    /// It is no regular file.
    #[error("is not a regular file")]
    NotAFile,
    /// It is longer than that many bytes.
    #[error("has more than {0} bytes")]
    TooLong(u64),
    /// It cannot be read.
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

/// Reads a file of at most `longest` bytes. Nothing outside of the folder is opened, wherever links lead.
///
/// # Errors
/// Why it was not read.
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
    fn nothing_outside_of_the_folder_is_read() {
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
