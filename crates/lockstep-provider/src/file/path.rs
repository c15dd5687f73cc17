//! Validates names that users write: the path of a store, and keys.

use crate::{ErrorKind, Located, Location, LocationError, Locator, Operation, ProviderError, Verbatim};

/// Maximum number of characters of a name that a message shows.
const SHOWN: usize = 200;

/// Formats a name for a message: on one line and with limited length.
pub(super) fn shown(name: &str) -> String {
    let mut shown: String = name.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if name.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Normalizes the path of a store below `--file-root`: segments joined by `/`, empty for the root
/// itself.
///
/// # Errors
/// `ConfigInvalid` for an absolute path, for `..`, and for characters that file names should not
/// contain.
pub(super) fn store_path(path: &str) -> Result<String, ProviderError> {
    let invalid = |why| {
        let message = format!("spec.provider.file.path \"{}\" {why}", shown(path));
        ProviderError::new(ErrorKind::ConfigInvalid, Operation::Configure, message)
            .with_hint("The path must be relative to the operator's --file-root.")
    };
    if path.starts_with('/') {
        return Err(invalid("is absolute"));
    }
    if path.contains(is_forbidden) {
        return Err(invalid("has whitespace, an invisible character or a backslash"));
    }
    let segments: Vec<_> = path
        .split('/')
        .filter(|segment| !matches!(*segment, "" | "."))
        .collect();
    if segments.contains(&"..") {
        return Err(invalid("holds \"..\""));
    }
    Ok(segments.join("/"))
}

/// Returns why a name is not a valid key in a folder of files, or `None` if it is valid.
///
/// A path has exactly one spelling as a key: a grant for `shop/*` must not reach `other` by another
/// spelling. Names that begin with `..` belong to the volume and not to its user: `..data`,
/// `..2026_11_24_03_00_00.123`.
pub(super) fn flaw(key: &str) -> Option<&'static str> {
    if key.starts_with('/') {
        return Some("is absolute");
    }
    if key.contains(is_forbidden) {
        return Some("has whitespace, an invisible character or a backslash");
    }
    key.split('/').find_map(|segment| match segment {
        "" => Some("has an empty segment"),
        "." => Some("holds the segment \".\""),
        _ if segment.starts_with("..") => Some("holds a segment that begins with \"..\""),
        _ => None,
    })
}

/// Returns whether a path belongs to the volume and not to its user, or cannot be a key.
pub(super) fn is_hidden(path: &str) -> bool {
    path.split('/')
        .any(|segment| segment.is_empty() || segment == "." || segment.starts_with(".."))
}

/// Backslashes separate folders on some systems, so a key that contains one would be ambiguous.
fn is_forbidden(character: char) -> bool {
    lockstep_core::remote::is_invisible(character) || character == '\\'
}

/// Parses keys: the path of a file below the store's folder, or the name of a field of its
/// document.
#[derive(Debug)]
pub(super) struct FileLocator;

impl Locator for FileLocator {
    fn locate(&self, key: &str, version: Option<&str>) -> Result<Located, LocationError> {
        Verbatim.locate(key, version)
    }

    fn folder(&self, path: &str) -> Result<Option<Location>, LocationError> {
        let folder = Verbatim.folder(path)?;
        match folder.as_deref().and_then(flaw) {
            Some(why) => Err(LocationError::Refused(why.to_owned())),
            None => Ok(folder),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_paths_are_relative_and_descend_only() {
        for (path, expected) in [
            ("", ""),
            (".", ""),
            ("./", ""),
            ("shop", "shop"),
            ("./shop//eu/", "shop/eu"),
            ("größe/鍵", "größe/鍵"),
            ("..data", "..data"),
        ] {
            assert_eq!(store_path(path).unwrap(), expected);
        }
        for path in [
            "/",
            "/etc",
            "..",
            "a/..",
            "a/../b",
            "a\0b",
            "a\nb",
            "a b",
            "a\u{a0}",
            "a\u{200b}",
            "a\\..\\b",
        ] {
            let error = store_path(path).unwrap_err();
            assert_eq!(error.kind, ErrorKind::ConfigInvalid);
            assert!(error.message.starts_with("spec.provider.file.path \""), "{error}");
            assert!(!error.message.contains('\n'));
        }
    }

    #[test]
    fn keys_have_one_spelling() {
        for key in [
            "a",
            "shop/database.json",
            ".env",
            "größe/鍵",
            "a..b",
            "100%25&more",
        ] {
            assert_eq!(flaw(key), None, "{key}");
        }
        for key in [
            "", "/", "/a", "a/", "a//b", ".", "./a", "a/.", "..", "../a", "a/../b", "..data/a", "a\0",
            "a\nb", "a\\b", "a b", " a", "a\u{a0}",
        ] {
            assert!(flaw(key).is_some(), "{}", key.escape_debug());
        }
    }

    #[test]
    fn names_in_messages_are_one_short_line() {
        assert_eq!(shown("a\nb"), "a\\nb");
        assert_eq!(shown(&"x".repeat(5000)).chars().count(), SHOWN + 1);
    }
}
