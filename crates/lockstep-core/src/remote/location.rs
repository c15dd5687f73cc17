use std::{fmt, ops::Deref};

use unicode_general_category::{GeneralCategory, get_general_category};

/// Maximum length of a location in bytes. ARNs of AWS are the longest names of any backend.
const LONGEST: usize = 2048;

/// The location of a remote value, in the canonical form of its provider.
///
/// A [`Locator`] builds it from the user's text. Grants are matched against this form, requests are
/// built from it, and messages show it, so it is never rewritten. `docs/reference/permissions.md`
/// lists the canonical form for each provider.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    text: String,
    /// The offset of the path within a container, such as the mount path of a Vault engine. 0 if
    /// the text contains no container.
    path: usize,
    /// Number of bytes at the beginning that a glob must spell out.
    anchor: usize,
}

impl Location {
    /// Creates a location below what the store itself names.
    ///
    /// # Errors
    /// When the text contains whitespace, invisible characters, backslashes, or the segments `.` or
    /// `..`, or when it is empty or too long.
    pub fn new(text: impl Into<String>) -> Result<Self, LocationError> {
        let text = text.into();
        check(&text)?;
        Ok(Self {
            text,
            path: 0,
            anchor: 0,
        })
    }

    /// Creates a location in a container that the store does not name, such as a Vault mount. An
    /// empty path refers to the container itself.
    ///
    /// # Errors
    /// See [`Location::new`].
    pub fn within(container: &str, path: &str) -> Result<Self, LocationError> {
        let text = if path.is_empty() {
            container.to_owned()
        } else {
            format!("{container}/{path}")
        };
        let location = Self::new(text)?;
        Ok(Self {
            path: (container.len() + 1).min(location.text.len()),
            ..location
        })
    }

    /// Creates a location outside of what the store names, such as an ARN. A glob covers it only if
    /// the glob spells out the first `anchor` bytes.
    ///
    /// # Errors
    /// See [`Location::new`].
    pub fn anchored(text: impl Into<String>, anchor: usize) -> Result<Self, LocationError> {
        let location = Self::new(text)?;
        Ok(Self { anchor, ..location })
    }

    /// Returns the canonical form.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the container that the store does not name and the path within it, if any.
    pub fn in_container(&self) -> Option<(&str, &str)> {
        let path = self.text.get(self.path..)?;
        let container = self.text.get(..self.path)?;
        (!container.is_empty()).then(|| (container.trim_end_matches('/'), path))
    }

    /// Returns the beginning that a glob must spell out to cover the location. Empty for a location
    /// below what the store names.
    pub fn anchor(&self) -> &str {
        self.text.get(..self.anchor).unwrap_or(&self.text)
    }
}

impl Deref for Location {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// The error of an invalid location. The message continues a sentence that starts with the field
/// and the quoted text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// The text is empty.
    #[error("is empty")]
    Empty,
    /// The text contains whitespace, a control character or another invisible character.
    #[error("has whitespace or an invisible character in it (U+{:04X}). Remove it; it is never trimmed", u32::from(*.0))]
    Invisible(char),
    /// The text has more bytes than a location may have.
    #[error("is longer than {LONGEST} bytes")]
    TooLong,
    /// The text has a segment `.` or `..`, which a server may resolve to another location.
    #[error("has a segment \".\" or \"..\"")]
    Dots,
    /// The text has a backslash, which some servers treat as a slash.
    #[error("has a backslash")]
    Backslash,
    /// The provider rejects the text for a reason of its own.
    #[error("{0}")]
    Refused(String),
}

impl LocationError {
    /// Creates an error of a provider: what is wrong, and what to do.
    pub fn refused(what: impl fmt::Display, hint: impl fmt::Display) -> Self {
        Self::Refused(format!("{what}. {hint}"))
    }
}

/// Checks the rules for the keys and paths of every provider.
///
/// # Errors
/// See [`LocationError`].
pub fn check(text: &str) -> Result<(), LocationError> {
    if text.is_empty() {
        return Err(LocationError::Empty);
    }
    if text.len() > LONGEST {
        return Err(LocationError::TooLong);
    }
    check_visible(text)?;
    if text.contains('\\') {
        return Err(LocationError::Backslash);
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(LocationError::Dots);
    }
    Ok(())
}

/// Checks that a text has no whitespace and no invisible characters.
///
/// # Errors
/// [`LocationError::Invisible`] with the first such character.
pub fn check_visible(text: &str) -> Result<(), LocationError> {
    match text.chars().find(|c| is_invisible(*c)) {
        Some(c) => Err(LocationError::Invisible(c)),
        None => Ok(()),
    }
}

/// Whether two texts that differ only in this character look the same.
pub fn is_invisible(c: char) -> bool {
    use GeneralCategory as Is;
    c.is_whitespace()
        || matches!(
            get_general_category(c),
            Is::Control
                | Is::Format
                | Is::SpaceSeparator
                | Is::LineSeparator
                | Is::ParagraphSeparator
                | Is::PrivateUse
                | Is::Unassigned
        )
        // letters and marks without a glyph: grapheme joiner, fillers, the empty Braille pattern,
        // variation selectors
        || matches!(
            c,
            '\u{34f}'
                | '\u{115f}'
                | '\u{1160}'
                | '\u{17b4}'
                | '\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{2800}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{ffa0}'
                | '\u{e0100}'..='\u{e01ef}'
        )
}

/// A key that its provider parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The location of the value.
    pub location: Location,
    /// The version, which a key can contain (Google Cloud); `None` for the current one.
    pub version: Option<String>,
}

/// Parses the keys and paths that users write for one store. It uses only the spec of the store and
/// sends no request.
///
/// Two spellings of the same value have the same location.
pub trait Locator: fmt::Debug + Send + Sync {
    /// Returns the location of the value of a key.
    ///
    /// # Errors
    /// When the key or the version is invalid.
    fn locate(&self, key: &str, version: Option<&str>) -> Result<Located, LocationError>;

    /// Returns the location where a search starts; `None` for the top of the store.
    ///
    /// # Errors
    /// When the path is invalid.
    fn folder(&self, path: &str) -> Result<Option<Location>, LocationError>;

    /// Returns the location at which a credential is issued.
    ///
    /// # Errors
    /// When the path is invalid.
    fn issuer(&self, path: &str) -> Result<Location, LocationError> {
        Location::new(path)
    }
}

/// The locator of a store whose keys have one spelling, so the key is the location.
#[derive(Debug, Clone, Copy, Default)]
pub struct Verbatim;

impl Locator for Verbatim {
    fn locate(&self, key: &str, version: Option<&str>) -> Result<Located, LocationError> {
        Ok(Located {
            location: Location::new(key)?,
            version: version.map(str::to_owned),
        })
    }

    fn folder(&self, path: &str) -> Result<Option<Location>, LocationError> {
        check_visible(path)?;
        let path = path.trim_matches('/');
        (!path.is_empty()).then(|| Location::new(path)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whitespace_and_invisible_characters_are_errors() {
        for c in [
            ' ',
            '\t',
            '\n',
            '\0',
            '\u{7f}',
            '\u{85}',
            '\u{a0}',
            '\u{ad}',
            '\u{200b}',
            '\u{200e}',
            '\u{202e}',
            '\u{2028}',
            '\u{2060}',
            '\u{2066}',
            '\u{2800}',
            '\u{3000}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            for text in [
                format!("{c}shop/db"),
                format!("shop/{c}db"),
                format!("shop/db{c}"),
            ] {
                assert_eq!(
                    Location::new(text.as_str()),
                    Err(LocationError::Invisible(c)),
                    "{text:?}"
                );
                assert_eq!(
                    Verbatim.folder(&text),
                    Err(LocationError::Invisible(c)),
                    "{text:?}"
                );
            }
        }
        let message = Location::new("shop/db\u{a0}").unwrap_err().to_string();
        assert_eq!(
            message,
            "has whitespace or an invisible character in it (U+00A0). Remove it; it is never trimmed"
        );
    }

    #[test]
    fn visible_text_of_any_script_is_valid() {
        for text in [
            "shop/größe",
            "店/鍵",
            "a%2e%2e/b",
            "a..b",
            "...",
            "/shop/db",
            "arn:aws:x",
            "e\u{301}",
        ] {
            assert_eq!(
                Location::new(text).map(|found| found.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn text_that_resolves_elsewhere_is_rejected() {
        for (text, error) in [
            ("", LocationError::Empty),
            (".", LocationError::Dots),
            ("a/../b", LocationError::Dots),
            ("a/.", LocationError::Dots),
            ("a\\b", LocationError::Backslash),
            (&*"x".repeat(LONGEST + 1), LocationError::TooLong),
        ] {
            assert_eq!(Location::new(text), Err(error));
        }
    }

    #[test]
    fn container_and_path_are_separated() {
        let location = Location::within("team/kv", "shop/db").unwrap();
        assert_eq!(location.as_str(), "team/kv/shop/db");
        assert_eq!(location.in_container(), Some(("team/kv", "shop/db")));
        assert_eq!(
            Location::within("kv", "").unwrap().in_container(),
            Some(("kv", ""))
        );
        assert_eq!(Location::new("kv/shop").unwrap().in_container(), None);
    }
}
