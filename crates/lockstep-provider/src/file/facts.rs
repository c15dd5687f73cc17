//! Metadata that the file system provides without reading a file.

use std::{fs::Metadata, hash::Hash};

use jiff::Timestamp;

/// The reason why something below a folder cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Trouble {
    /// There is no entry with this name.
    Missing,
    /// The operator's user has no permission.
    Denied,
    /// The folder has no entries, like a mount point without its volume.
    Empty,
    /// A link of a volume has no target: it is being swapped, or its target was removed.
    Dangling,
    /// The link is not followed, because it does not belong to a volume.
    Link,
    /// A path or link leads out of the folder.
    LeadsOut,
    /// Links form a circle, or one is a magic link of the kernel (`/proc/…/fd/3`).
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "elsewhere such a link is some other failure")
    )]
    Circles,
    /// The kernel cannot confine names to a folder.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "only Linux has openat2, or lacks it")
    )]
    Unconfined,
    /// The file is being written to all the time.
    Busy,
    /// Any other failure, with the error number of the operating system, or 0 if there is none.
    Failed(i32),
}

/// The type of an entry after following links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    File,
    Folder,
    /// A device, pipe or socket.
    Special,
}

/// Metadata of a file that is available without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Facts {
    pub(super) kind: Kind,
    /// The length, in bytes.
    pub(super) length: u64,
    /// The device and inode.
    pub(super) id: (u64, u64),
    /// Seconds and nanoseconds since 1970.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Facts {
    #[cfg(unix)]
    pub(super) fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            kind: Kind::of(metadata),
            length: metadata.len(),
            id: (metadata.dev(), metadata.ino()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    #[cfg(not(unix))]
    pub(super) fn of(metadata: &Metadata) -> Self {
        let modified = metadata
            .modified()
            .ok()
            .and_then(|time| Timestamp::try_from(time).ok());
        let modified = modified.map_or((0, 0), |time| {
            (time.as_second(), i64::from(time.subsec_nanosecond()))
        });
        Self {
            kind: Kind::of(metadata),
            length: metadata.len(),
            id: (0, 0),
            modified,
            changed: modified,
        }
    }

    /// Returns when the content was last written.
    pub(super) fn modified(&self) -> Option<Timestamp> {
        Timestamp::new(self.modified.0, i32::try_from(self.modified.1).ok()?).ok()
    }

    /// Returns the version of the content: the time of the last write and the inode, so that both
    /// rewriting and replacing a file change it. It reveals nothing about the content: it has no
    /// length, and no hash to verify a guess against.
    pub(super) fn version(&self) -> String {
        format!("{}.{:09}-{:x}", self.modified.0, self.modified.1, self.id.1)
    }
}

impl Kind {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let kind = metadata.file_type();
        if kind.is_file() {
            Self::File
        } else if kind.is_dir() {
            Self::Folder
        } else {
            Self::Special
        }
    }
}
