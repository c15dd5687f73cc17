use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat},
    io::Errno,
};

use super::{
    super::facts::{Facts, Kind, Trouble},
    volume::{self, MOST_LINKS},
};

/// Number of attempts to resolve a name when the kernel reports a concurrent rename.
const ATTEMPTS: usize = 8;

/// A folder that names cannot leave: openat2(2) rejects every path that leads out of it, in one
/// system call, so that a link cannot be swapped between a check and its use.
#[derive(Debug)]
pub(in crate::file) struct Beneath(OwnedFd);

impl Beneath {
    /// Opens the root folder of the operator. Its own path is trusted.
    pub(in crate::file) fn root(path: &Path) -> Result<Self, Trouble> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(openat(CWD, path, flags, Mode::empty())?))
    }

    /// Opens a folder below this one, without following any link.
    pub(in crate::file) fn folder(&self, path: &str) -> Result<Self, Trouble> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let opened = attempt(|| unlinked(&self.0, path, flags));
        Ok(Self(opened.map_err(|errno| match errno {
            Errno::LOOP => Trouble::Link,
            errno => errno.into(),
        })?))
    }

    /// Returns the metadata of a name. Follows only the links of a volume.
    pub(in crate::file) fn facts(&self, path: &str) -> Result<Facts, Trouble> {
        let file = File::from(self.open(path, OFlags::PATH)?);
        Ok(Facts::of(&file.metadata()?))
    }

    /// Opens a file for reading. Anything but a regular file is not opened; only its metadata is
    /// returned. Follows only the links of a volume.
    pub(in crate::file) fn file(&self, path: &str) -> Result<(Option<File>, Facts), Trouble> {
        regular(|flags| self.open(path, flags))
    }

    /// Like [`Self::file`], but follows every link that stays inside this folder.
    pub(in crate::file) fn linked_file(&self, path: &str) -> Result<(Option<File>, Facts), Trouble> {
        regular(|flags| Ok(attempt(|| confined(&self.0, path, flags, ResolveFlags::empty()))?))
    }

    /// Returns the names in a folder that are valid UTF-8, in no particular order.
    pub(in crate::file) fn names(&self, path: &str) -> Result<(Vec<String>, Facts), Trouble> {
        let folder = File::from(self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?);
        let facts = Facts::of(&folder.metadata()?);
        let mut names = Vec::new();
        for entry in Dir::read_from(folder.as_fd())? {
            if let Ok(name) = entry?.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok((names, facts))
    }

    fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Trouble> {
        let mut missing = 0;
        loop {
            match self.try_open(path, flags) {
                // a volume swaps its link and then removes the old target, so a reader that
                // followed the old link tries again
                Err(Trouble::Dangling | Trouble::Missing) if missing < 2 => missing += 1,
                opened => return opened,
            }
        }
    }

    fn try_open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Trouble> {
        match attempt(|| unlinked(&self.0, path, flags)) {
            Err(Errno::LOOP) => {}
            opened => return Ok(opened?),
        }
        // There is a link on the path. Each segment is opened relative to the previous one, which
        // stays open, so that a link cannot be swapped between the check of its target and its use.
        let mut segments: VecDeque<(String, bool)> = path
            .split('/')
            .map(|segment| (segment.to_owned(), false))
            .collect();
        let mut folder = attempt(|| unlinked(&self.0, "", OFlags::PATH | OFlags::DIRECTORY))?;
        let mut links = 0;
        let met = |errno: Errno, is_target| match errno {
            Errno::NOENT if is_target => Trouble::Dangling,
            Errno::LOOP => Trouble::Busy,
            errno => errno.into(),
        };
        while let Some((segment, is_target)) = segments.pop_front() {
            let entry = attempt(|| unlinked(&folder, &segment, OFlags::PATH | OFlags::NOFOLLOW))
                .map_err(|errno| met(errno, is_target))?;
            if FileType::from_raw_mode(fstat(&entry)?.st_mode) == FileType::Symlink {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Trouble::Circles);
                }
                let target = readlinkat(&entry, "", Vec::new())?;
                let target = target.to_str().ok().and_then(volume::segments);
                for segment in target.ok_or(Trouble::Link)?.into_iter().rev() {
                    segments.push_front((segment, true));
                }
            } else if segments.is_empty() {
                return attempt(|| unlinked(&folder, &segment, flags)).map_err(|errno| met(errno, is_target));
            } else {
                folder = entry;
            }
        }
        Err(Trouble::Missing)
    }
}

/// Opens a name without following any link. Fails with `LOOP` if there is one.
fn unlinked(folder: impl AsFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    confined(folder, path, flags, ResolveFlags::NO_SYMLINKS)
}

fn confined(folder: impl AsFd, path: &str, flags: OFlags, more: ResolveFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { "." } else { path };
    let confined = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | more;
    openat2(folder, path, flags | OFlags::CLOEXEC, Mode::empty(), confined)
}

fn attempt(open: impl Fn() -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    let mut missing = 0;
    for _ in 0..ATTEMPTS {
        match open() {
            // the kernel cannot tell a concurrent rename from an escape
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOENT) if missing < 2 => missing += 1,
            opened => return opened,
        }
    }
    Err(Errno::AGAIN)
}

fn regular(open: impl Fn(OFlags) -> Result<OwnedFd, Trouble>) -> Result<(Option<File>, Facts), Trouble> {
    let facts = Facts::of(&File::from(open(OFlags::PATH)?).metadata()?);
    if facts.kind != Kind::File {
        return Ok((None, facts));
    }
    // if the file was replaced by a pipe, opening it must not wait for a writer
    let file = File::from(open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?);
    let facts = Facts::of(&file.metadata()?);
    Ok(((facts.kind == Kind::File).then_some(file), facts))
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::INVAL => Self::Missing,
            Errno::ACCESS | Errno::PERM => Self::Denied,
            Errno::XDEV => Self::LeadsOut,
            Errno::LOOP => Self::Circles,
            Errno::NOSYS => Self::Unconfined,
            Errno::AGAIN => Self::Busy,
            other => Self::Failed(other.raw_os_error()),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Errno::from_io_error(&error).map_or(Self::Failed(0), Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_errors_are_mapped() {
        for (errno, expected) in [
            (Errno::NOENT, Trouble::Missing),
            (Errno::NOTDIR, Trouble::Missing),
            (Errno::NAMETOOLONG, Trouble::Missing),
            (Errno::ACCESS, Trouble::Denied),
            (Errno::PERM, Trouble::Denied),
            (Errno::XDEV, Trouble::LeadsOut),
            (Errno::LOOP, Trouble::Circles),
            (Errno::NOSYS, Trouble::Unconfined),
            (Errno::STALE, Trouble::Failed(Errno::STALE.raw_os_error())),
            (Errno::NOTCONN, Trouble::Failed(Errno::NOTCONN.raw_os_error())),
            (Errno::MFILE, Trouble::Failed(Errno::MFILE.raw_os_error())),
        ] {
            assert_eq!(Trouble::from(errno), expected);
        }
    }

    #[test]
    fn files_outside_are_not_opened_by_any_name() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "CANARY").unwrap();
        let root = outside.path().join("root");
        std::fs::create_dir(&root).unwrap();
        for (link, target) in [
            ("up", ".."),
            ("file", "../secret"),
            ("absolute", outside.path().join("secret").to_str().unwrap()),
            ("inside", root.join("real").to_str().unwrap()),
        ] {
            std::os::unix::fs::symlink(target, root.join(link)).unwrap();
        }
        std::fs::write(root.join("real"), "fine").unwrap();
        let beneath = Beneath::root(&root).unwrap();
        for path in [
            "..",
            "../secret",
            "up/secret",
            "file",
            "absolute",
            "inside",
            "/etc/hostname",
        ] {
            assert_eq!(
                beneath.linked_file(path).unwrap_err(),
                Trouble::LeadsOut,
                "{path}"
            );
            let trouble = beneath.facts(path).unwrap_err();
            assert!(matches!(trouble, Trouble::LeadsOut | Trouble::Link), "{path}");
            assert_eq!(beneath.file(path).unwrap_err(), trouble, "{path}");
        }
        assert!(beneath.file("real").unwrap().0.is_some());
    }

    #[test]
    fn magic_links_are_not_followed() {
        let beneath = Beneath::root(Path::new("/proc/self")).unwrap();
        let file = tempfile::tempfile().unwrap();
        let link = format!("fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        assert_eq!(beneath.linked_file(&link).unwrap_err(), Trouble::Circles);
        assert_eq!(beneath.facts(&link).unwrap_err(), Trouble::Link);
    }
}
