//! Limits the size of users' regular expressions, and the length of the text they search.

use regex::{Regex, RegexBuilder};

/// The size limits to compile an expression with, in bytes. The smallest one that fits determines
/// how long a text it may search.
const SIZES: [usize; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, MAX_PROGRAM];
/// Maximum size of a compiled expression, in bytes.
pub const MAX_PROGRAM: usize = 1 << 20;
/// Maximum product of text length and expression size. In the worst case, a search takes about a
/// second.
const MAX_WORK: usize = 1 << 34;
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
    let (regex, size) = SIZES
        .into_iter()
        .find_map(|size| Some((sized(pattern, size)?, size)))
        .ok_or(SearchError::Invalid)?;
    let groups = if groups { regex.captures_len() } else { 1 };
    if text_length.saturating_mul(size).saturating_mul(groups) > MAX_WORK {
        return Err(SearchError::TooMuch);
    }
    Ok(regex)
}

fn sized(pattern: &str, size: usize) -> Option<Regex> {
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
    fn capture_groups_count_as_work_only_if_used() {
        let pattern = "(a)".repeat(50);
        assert!(compile(&pattern, 1 << 20, false).is_ok());
        assert_eq!(
            compile(&pattern, 1 << 20, true).unwrap_err(),
            SearchError::TooMuch
        );
        assert!(compile(&pattern, 1 << 12, true).is_ok());
    }
}
