use std::{
    collections::VecDeque,
    fs::{self, File},
    path::{Path, PathBuf},
};

use super::{
    super::facts::{Facts, Kind, Trouble},
    volume::{self, MOST_LINKS},
};

/// A folder that names cannot leave, for systems without openat2(2): for development, not for
/// production. Each segment of a name is checked before it is opened. A writer of the folder could
/// swap a link between the check and the use; on Linux the kernel prevents that.
#[derive(Debug)]
pub(in crate::file) struct Beneath(PathBuf);

impl Beneath {
    /// Opens the root folder of the operator.
    pub(in crate::file) fn root(path: &Path) -> Result<Self, Trouble> {
        let path = fs::canonicalize(path)?;
        if path.is_dir() {
            Ok(Self(path))
        } else {
            Err(Trouble::Missing)
        }
    }

    /// Opens a folder below this one, without following any link.
    pub(in crate::file) fn folder(&self, path: &str) -> Result<Self, Trouble> {
        Self::root(&self.resolve(path, 0)?)
    }

    /// Returns the metadata of a name. Follows only the links of a volume.
    pub(in crate::file) fn facts(&self, path: &str) -> Result<Facts, Trouble> {
        Ok(Facts::of(&fs::symlink_metadata(self.resolve(path, MOST_LINKS)?)?))
    }

    /// Opens a file for reading. Anything but a regular file is not opened; only its metadata is
    /// returned. Follows only the links of a volume.
    pub(in crate::file) fn file(&self, path: &str) -> Result<(Option<File>, Facts), Trouble> {
        regular(&self.resolve(path, MOST_LINKS)?)
    }

    /// Like [`Self::file`], but follows every link that stays inside this folder.
    pub(in crate::file) fn linked_file(&self, path: &str) -> Result<(Option<File>, Facts), Trouble> {
        let resolved = fs::canonicalize(self.0.join(path))?;
        if !resolved.starts_with(&self.0) {
            return Err(Trouble::LeadsOut);
        }
        regular(&resolved)
    }

    /// Returns the names in a folder that are valid UTF-8, in no particular order.
    pub(in crate::file) fn names(&self, path: &str) -> Result<(Vec<String>, Facts), Trouble> {
        let path = self.resolve(path, MOST_LINKS)?;
        let facts = Facts::of(&fs::symlink_metadata(&path)?);
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok((names, facts))
    }

    /// Resolves a name through at most `most` links, which must all be links of a volume.
    fn resolve(&self, path: &str, most: usize) -> Result<PathBuf, Trouble> {
        let mut segments: VecDeque<(String, bool)> = path
            .split('/')
            .map(|segment| (segment.to_owned(), false))
            .collect();
        let mut resolved = self.0.clone();
        let mut links = 0;
        while let Some((segment, is_target)) = segments.pop_front() {
            if segment == ".." || Path::new(&segment).is_absolute() {
                return Err(Trouble::LeadsOut);
            }
            let entry = resolved.join(&segment);
            let metadata = fs::symlink_metadata(&entry).map_err(|error| match Trouble::from(error) {
                Trouble::Missing if is_target => Trouble::Dangling,
                trouble => trouble,
            })?;
            if !metadata.is_symlink() {
                resolved = entry;
                continue;
            }
            links += 1;
            if links > most {
                return Err(Trouble::Link);
            }
            let target = fs::read_link(entry)?;
            let target = target.to_str().and_then(volume::segments);
            for segment in target.ok_or(Trouble::Link)?.into_iter().rev() {
                segments.push_front((segment, true));
            }
        }
        Ok(resolved)
    }
}

fn regular(path: &Path) -> Result<(Option<File>, Facts), Trouble> {
    let facts = Facts::of(&fs::symlink_metadata(path)?);
    if facts.kind != Kind::File {
        return Ok((None, facts));
    }
    let file = File::open(path)?;
    let facts = Facts::of(&file.metadata()?);
    Ok(((facts.kind == Kind::File).then_some(file), facts))
}

#[cfg(not(target_os = "linux"))]
impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        use std::io;
        match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::InvalidFilename
            | io::ErrorKind::InvalidInput => Self::Missing,
            io::ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Failed(error.raw_os_error().unwrap_or_default()),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_volume_links_are_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "CANARY").unwrap();
        let root = outside.path().join("root");
        fs::create_dir_all(root.join("folder/..2026")).unwrap();
        fs::write(root.join("folder/..2026/password"), "CANARY").unwrap();
        symlink("..2026", root.join("folder/..data")).unwrap();
        symlink("..data/password", root.join("folder/password")).unwrap();
        symlink("../../secret", root.join("folder/out")).unwrap();
        let beneath = Beneath::root(&root).unwrap().folder("folder").unwrap();
        assert!(beneath.file("password").unwrap().0.is_some());
        assert_eq!(beneath.facts("password").unwrap().kind, Kind::File);
        assert_eq!(beneath.file("out").unwrap_err(), Trouble::Link);
        assert_eq!(beneath.folder("..data").unwrap_err(), Trouble::Link);
        assert_eq!(beneath.linked_file("out").unwrap_err(), Trouble::LeadsOut);
        assert!(beneath.linked_file("password").unwrap().0.is_some());
        assert_eq!(beneath.facts("..").unwrap_err(), Trouble::LeadsOut);
        assert_eq!(beneath.facts("missing").unwrap_err(), Trouble::Missing);
        let (mut names, facts) = beneath.names("").unwrap();
        names.sort();
        assert_eq!(names, ["..2026", "..data", "out", "password"]);
        assert_eq!(facts.kind, Kind::Folder);
        assert_eq!(beneath.file("..data").unwrap().1.kind, Kind::Folder);
    }
}
