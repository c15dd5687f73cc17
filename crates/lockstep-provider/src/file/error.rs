//! Builds the error messages of the file provider.

use super::{MOST_BYTES, facts::Trouble, path::shown};
use crate::{ErrorKind, Operation, ProviderError};

/// The store itself cannot be read. A missing store is never `NotFound`: with a matching
/// `deletionPolicy`, a volume that is not mounted would delete Secrets.
pub(super) fn of_store(trouble: Trouble, path: &str, operation: Operation) -> ProviderError {
    let what = if path.is_empty() {
        "the operator's --file-root".to_owned()
    } else {
        format!("\"{}\" below the operator's --file-root", shown(path))
    };
    let (kind, message) = match trouble {
        Trouble::Missing => (ErrorKind::Unavailable, format!("{what} is not there")),
        Trouble::Denied => (
            ErrorKind::PermissionDenied,
            format!("the operator's user may not read {what}"),
        ),
        Trouble::Empty => (
            ErrorKind::Unavailable,
            format!("{what} is empty. A volume may not be mounted"),
        ),
        Trouble::Dangling => (
            ErrorKind::Unavailable,
            format!("{what} is a link to a file that does not exist"),
        ),
        Trouble::Link => (
            ErrorKind::ConfigInvalid,
            format!("{what} is a symbolic link, or is below one. Set path to where the link leads"),
        ),
        Trouble::LeadsOut => (ErrorKind::ConfigInvalid, format!("{what} leads out of it")),
        Trouble::Circles => (
            ErrorKind::ConfigInvalid,
            format!("{what} is a link that leads in circles"),
        ),
        Trouble::Unconfined => return unconfined(operation),
        Trouble::Busy => return busy(&what, operation),
        Trouble::Failed(errno) => (
            ErrorKind::Unavailable,
            format!("{what} cannot be read ({})", number(errno)),
        ),
    };
    ProviderError::new(kind, operation, message)
}

/// One key cannot be read.
pub(super) fn of_key(trouble: Trouble, key: &str) -> ProviderError {
    let key = shown(key);
    let (kind, message) = match trouble {
        Trouble::Missing => (ErrorKind::NotFound, format!("key \"{key}\" does not exist")),
        Trouble::Denied => (
            ErrorKind::PermissionDenied,
            format!("permission denied reading \"{key}\" as the operator's user"),
        ),
        Trouble::Empty | Trouble::Dangling => (
            ErrorKind::Unavailable,
            format!("key \"{key}\" is a link to a file that does not exist"),
        ),
        Trouble::Link => (
            ErrorKind::PermissionDenied,
            format!(
                "key \"{key}\" is a symbolic link, or is below one. Only the links of a projected volume are followed"
            ),
        ),
        Trouble::LeadsOut => (
            ErrorKind::PermissionDenied,
            format!("key \"{key}\" leads out of the store's folder"),
        ),
        Trouble::Circles => (
            ErrorKind::PermissionDenied,
            format!("key \"{key}\" is a link that leads in circles"),
        ),
        Trouble::Unconfined => return unconfined(Operation::Read),
        Trouble::Busy => return busy(&format!("key \"{key}\""), Operation::Read),
        Trouble::Failed(errno) => (
            ErrorKind::Unavailable,
            format!("key \"{key}\" cannot be read ({})", number(errno)),
        ),
    };
    ProviderError::new(kind, Operation::Read, message)
}

/// A search cannot begin in this folder. The folder is part of `find.path` or of the caller's
/// grant, so it may be named. A missing or empty folder may be a volume that is not mounted, so it
/// never counts as one without values.
pub(super) fn of_start(trouble: Trouble, folder: &str, store: &str) -> ProviderError {
    if folder.is_empty() {
        return of_store(trouble, store, Operation::Find);
    }
    let folder = shown(folder);
    let (kind, message) = match trouble {
        Trouble::Missing => (
            ErrorKind::Unavailable,
            format!("folder \"{folder}\" does not exist"),
        ),
        Trouble::Empty => (
            ErrorKind::Unavailable,
            format!("folder \"{folder}\" is empty. A volume may not be mounted"),
        ),
        Trouble::Link | Trouble::LeadsOut | Trouble::Circles => (
            ErrorKind::PermissionDenied,
            format!(
                "folder \"{folder}\" is a symbolic link, or is below one. Only the links of a projected volume are followed"
            ),
        ),
        trouble => return of_search(trouble),
    };
    ProviderError::new(kind, Operation::Find, message)
}

/// A folder below the store's cannot be listed. It is not named, because the user did not name it.
pub(super) fn of_search(trouble: Trouble) -> ProviderError {
    let (kind, message) = match trouble {
        Trouble::Unconfined => return unconfined(Operation::Find),
        Trouble::Busy => return busy("a folder below the store's", Operation::Find),
        Trouble::Denied => (
            ErrorKind::PermissionDenied,
            "the operator's user may not list a folder below the store's".to_owned(),
        ),
        Trouble::Dangling => (
            ErrorKind::Unavailable,
            "a link in a volume leads to a file that does not exist".to_owned(),
        ),
        Trouble::Missing | Trouble::Empty | Trouble::Link | Trouble::LeadsOut | Trouble::Circles => (
            ErrorKind::Unavailable,
            "a folder below the store's went away while it was listed".to_owned(),
        ),
        Trouble::Failed(errno) => (
            ErrorKind::Unavailable,
            format!("a folder below the store's cannot be listed ({})", number(errno)),
        ),
    };
    ProviderError::new(kind, Operation::Find, message)
}

/// The name is not a valid key.
pub(super) fn flawed(key: &str, why: &str) -> ProviderError {
    let message = format!("key \"{}\" {why}", shown(key));
    ProviderError::new(ErrorKind::ConfigInvalid, Operation::Read, message)
        .with_hint("A key is the path of a file below the store's folder.")
}

/// The file exceeds the maximum size.
pub(super) fn too_large(what: &str, operation: Operation) -> ProviderError {
    let message = format!("{what} is larger than {} MiB", MOST_BYTES >> 20);
    ProviderError::new(ErrorKind::Malformed, operation, message)
}

/// The file was written to during each attempt to read it.
fn busy(what: &str, operation: Operation) -> ProviderError {
    let message = format!("{what} was written to while it was read");
    ProviderError::new(ErrorKind::Unavailable, operation, message)
        .with_hint("Write a new file next to it and rename the new file. A reader then sees either the old or the new content.")
}

fn unconfined(operation: Operation) -> ProviderError {
    let message = "the kernel has no openat2, without which a name cannot be confined to a folder";
    ProviderError::new(ErrorKind::Unsupported, operation, message)
        .with_hint("openat2 requires Linux 5.6 or later, and a sandbox that permits the call.")
}

fn number(errno: i32) -> String {
    format!("error {errno} of the operating system")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_store_is_unavailable_and_missing_file_not_found() {
        let store = of_store(Trouble::Missing, "shop", Operation::Read);
        assert_eq!(store.kind, ErrorKind::Unavailable);
        assert_eq!(
            store.message,
            "\"shop\" below the operator's --file-root is not there"
        );
        let root = of_store(Trouble::Missing, "", Operation::Check);
        assert_eq!(root.message, "the operator's --file-root is not there");
        let key = of_key(Trouble::Missing, "shop/database");
        assert_eq!(
            (key.kind, key.message.as_str()),
            (ErrorKind::NotFound, "key \"shop/database\" does not exist")
        );
    }

    #[test]
    fn troubles_are_mapped_to_error_kinds() {
        for (trouble, of_a_store, of_a_key) in [
            (
                Trouble::Denied,
                ErrorKind::PermissionDenied,
                ErrorKind::PermissionDenied,
            ),
            (Trouble::Dangling, ErrorKind::Unavailable, ErrorKind::Unavailable),
            (
                Trouble::Link,
                ErrorKind::ConfigInvalid,
                ErrorKind::PermissionDenied,
            ),
            (
                Trouble::LeadsOut,
                ErrorKind::ConfigInvalid,
                ErrorKind::PermissionDenied,
            ),
            (
                Trouble::Circles,
                ErrorKind::ConfigInvalid,
                ErrorKind::PermissionDenied,
            ),
            (
                Trouble::Unconfined,
                ErrorKind::Unsupported,
                ErrorKind::Unsupported,
            ),
            (Trouble::Busy, ErrorKind::Unavailable, ErrorKind::Unavailable),
            (Trouble::Failed(5), ErrorKind::Unavailable, ErrorKind::Unavailable),
        ] {
            assert_eq!(of_store(trouble, "shop", Operation::Read).kind, of_a_store);
            let error = of_key(trouble, "shop/database");
            assert_eq!(error.kind, of_a_key);
            assert!(trouble == Trouble::Unconfined || error.message.contains("\"shop/database\""));
        }
    }
}
