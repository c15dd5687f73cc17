//! What the file system says about a file without reading it.

use std::{fs::Metadata, hash::Hash};

use jiff::Timestamp;

/// Why something below a folder cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Trouble {
    /// Nothing of that name is there.
    Missing,
    /// The operator's user may not.
    Denied,
    /// A folder without any entry, as a mount point is without its volume.
    Empty,
    /// A link of a volume leads to nothing: it is being swapped, or what it led to was removed.
    Dangling,
    /// A link that is not followed, because it is none of a volume.
    Link,
    /// A path or link leads out of the folder.
    LeadsOut,
    /// Links lead in circles, or one is of the kernel's own making (`/proc/…/fd/3`).
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
    /// Somebody writes to it all the time.
    Busy,
    /// The operating system's number for what else went wrong; 0 where it told none.
    Failed(i32),
}

/// What a name stands for, links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    File,
    Folder,
    /// A device, a pipe, a socket.
    Special,
}

/// What the file system tells about a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Facts {
    pub(super) kind: Kind,
    /// In bytes.
    pub(super) length: u64,
    /// Device and inode.
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

    /// When the content was last written.
    pub(super) fn modified(&self) -> Option<Timestamp> {
        Timestamp::new(self.modified.0, i32::try_from(self.modified.1).ok()?).ok()
    }

    /// The version of the content: time of the last write and inode, so that both a rewritten and a replaced file have
    /// another one. It tells nothing of the content: no length, and no hash that a guess could be tried against.
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
