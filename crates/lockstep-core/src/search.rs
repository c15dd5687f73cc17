//! Limits the size of users' regular expressions, and the length of the text they search.

use regex::{Regex, RegexBuilder, bytes};

/// The size limits to compile an expression with, in bytes. The smallest one that fits determines
/// how long a text it may search.
const SIZES: [usize; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, MAX_PROGRAM];
/// Maximum size of a compiled expression, in bytes.
pub const MAX_PROGRAM: usize = 1 << 20;
/// Maximum product of text length and expression size. In the worst case, a search takes about a
/// second.
const MAX_WORK: usize = 1 << 34;
/// Maximum work of one match with a name: about 4 ms in the worst case.
const MAX_NAME_WORK: usize = 1 << 24;
/// The work that takes 1 ns.
pub const WORK_PER_NANO: usize = 4;
/// Maximum nesting depth of an expression.
const MAX_NESTING: u32 = 64;

/// The error of [`compile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// The expression is not valid, or compiles to more than [`MAX_PROGRAM`].
    #[error("the regular expression is not valid, or too large")]
    Invalid,
    /// The text is too long for an expression of this size.
    #[error("the text is too long for a regular expression of this size")]
    TooMuch,
}

/// Compiles an expression for texts of at most `text_length` bytes. With `groups`, each group
/// counts as work.
///
/// # Errors
/// See [`SearchError`].
pub fn compile(pattern: &str, text_length: usize, groups: bool) -> Result<Regex, SearchError> {
    let (regex, size) = smallest(pattern, MAX_PROGRAM)?;
    let groups = if groups { regex.captures_len() } else { 1 };
    if text_length.saturating_mul(size).saturating_mul(groups) > MAX_WORK {
        return Err(SearchError::TooMuch);
    }
    Ok(regex)
}

/// An expression for names, compiled once and matched many times.
#[derive(Debug)]
pub struct NameExpression {
    regex: Regex,
    /// The work for each byte of a name.
    work: usize,
}

impl NameExpression {
    /// Compiles an expression to at most `size` bytes.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn new(pattern: &str, size: usize) -> Result<Self, SearchError> {
        let (regex, size) = smallest(pattern, size)?;
        // A match follows all parts of the expression at the same time. A class such as \w is large,
        // but it is one part: without Unicode, the size shows the number of parts.
        let fits = |limit: &usize| {
            let mut builder = bytes::RegexBuilder::new(pattern);
            let builder = builder.unicode(false).nest_limit(MAX_NESTING);
            builder.size_limit(*limit).build().is_ok()
        };
        let parts = SIZES.into_iter().find(fits).unwrap_or(size);
        let work = parts.max(size / 16);
        Ok(Self { regex, work })
    }

    /// The work of a match in the worst case. See [`WORK_PER_NANO`].
    pub const fn work(&self, name: &str) -> usize {
        name.len().saturating_mul(self.work)
    }

    /// Whether the expression matches in a name.
    ///
    /// # Errors
    /// `TooMuch` when the name is too long for an expression of this size.
    pub fn is_match(&self, name: &str) -> Result<bool, SearchError> {
        if self.work(name) > MAX_NAME_WORK {
            return Err(SearchError::TooMuch);
        }
        Ok(self.regex.is_match(name))
    }
}

/// Returns the expression with the smallest size limit that fits.
fn smallest(pattern: &str, largest: usize) -> Result<(Regex, usize), SearchError> {
    let sizes = SIZES.into_iter().filter(|size| *size <= largest);
    let fits = |size| Some((compile_sized(pattern, size)?, size));
    sizes.into_iter().find_map(fits).ok_or(SearchError::Invalid)
}

fn compile_sized(pattern: &str, size: usize) -> Option<Regex> {
    RegexBuilder::new(pattern)
        .size_limit(size)
        .dfa_size_limit(MAX_PROGRAM)
        .nest_limit(MAX_NESTING)
        .build()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_expression_searches_only_short_text() {
        for (pattern, longest) in [("a*x|a", 1 << 20), (r"[a-z]+=\d", 1 << 18), (r"\w{20}", 1 << 14)] {
            assert!(compile(pattern, longest, false).is_ok(), "{pattern}");
        }
        assert_eq!(
            compile(r"\w{20}", 1 << 20, false).unwrap_err(),
            SearchError::TooMuch
        );
        assert_eq!(compile(r"\w{1000}", 1, false).unwrap_err(), SearchError::Invalid);
        assert_eq!(compile("(", 1, false).unwrap_err(), SearchError::Invalid);
    }

    #[test]
    fn name_that_is_too_long_for_an_expression_is_not_matched() {
        let hostile = NameExpression::new("^(?:[ab/]?){3900}[^ab/]{2}|q1", MAX_PROGRAM).unwrap();
        assert_eq!(hostile.is_match(&"ab".repeat(960)), Err(SearchError::TooMuch));
        assert_eq!(hostile.is_match("shop/q1"), Ok(true));
        for (pattern, longest) in [
            ("^prod/(db|api)-[a-z0-9-]+$", 4096),
            ("(?i)^shop/.*db$", 4096),
            (r"^\w+/[^/]+-\d{2,4}$", 1024),
            (r"^\p{Lu}+$", 256),
            (r"\w{20}", 256),
        ] {
            let realistic = NameExpression::new(pattern, MAX_PROGRAM).unwrap();
            assert!(realistic.is_match(&"a".repeat(longest)).is_ok(), "{pattern}");
        }
    }

    #[test]
    fn groups_are_work_where_they_are_needed() {
        let pattern = "(a)".repeat(50);
        assert!(compile(&pattern, 1 << 20, false).is_ok());
        assert_eq!(
            compile(&pattern, 1 << 20, true).unwrap_err(),
            SearchError::TooMuch
        );
        assert!(compile(&pattern, 1 << 12, true).is_ok());
    }
}
