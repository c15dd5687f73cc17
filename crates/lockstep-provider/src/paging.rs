//! Limits a search whose results arrive in pages.
//!
//! A malicious backend can list forever: it can send keys, pages and page tokens without end, or
//! pages in a circle.

use crate::{ErrorKind, Operation, ProviderError};

/// Maximum number of keys that one search examines.
const MAX_KEYS: usize = 10_000;
/// Maximum number of pages that one search requests.
const MAX_PAGES: usize = 1000;
/// Maximum length of a page token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 32 * 1024;

/// What one search has used of its limits, over all its listings.
#[derive(Debug)]
pub struct Paging {
    keys: usize,
    pages: usize,
    hint: &'static str,
}

impl Paging {
    /// Starts a new search. `hint` tells the user how to narrow it.
    pub const fn new(hint: &'static str) -> Self {
        Self {
            keys: 0,
            pages: 0,
            hint,
        }
    }

    /// Counts the keys of a page, whether they match or not.
    pub const fn add_keys(&mut self, keys: usize) {
        self.keys = self.keys.saturating_add(keys);
    }

    fn check(&self) -> Result<(), ProviderError> {
        let what = if self.keys > MAX_KEYS {
            format!("{MAX_KEYS} keys")
        } else if self.pages > MAX_PAGES {
            format!("{MAX_PAGES} pages")
        } else {
            return Ok(());
        };
        let message = format!("there are more than {what} to search");
        Err(ProviderError::new(ErrorKind::Unsupported, Operation::Find, message).with_hint(self.hint))
    }
}

/// The position in one listing.
#[derive(Debug, Default)]
pub struct Listing {
    token: Option<String>,
    previous: Option<String>,
}

impl Listing {
    /// Returns the token of the page to request, or `None` for the first page.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Moves to the next page. Returns `false` after the last page, which names no next page.
    ///
    /// # Errors
    /// `Unsupported` when the search exceeds its limits. `Malformed` when the pages form a circle,
    /// also of one page, or the token is too long: keys that are not listed would look deleted.
    pub fn turn(&mut self, next: Option<String>, paging: &mut Paging) -> Result<bool, ProviderError> {
        paging.check()?;
        let next = next.filter(|token| !token.is_empty());
        if next.is_none() {
            return Ok(false);
        }
        if next == self.token
            || next == self.previous
            || next.as_ref().is_some_and(|token| token.len() > MAX_TOKEN_BYTES)
        {
            let message = "the pages of the service's answer do not follow each other";
            return Err(ProviderError::new(ErrorKind::Malformed, Operation::Find, message));
        }
        paging.pages += 1;
        paging.check()?;
        self.previous = std::mem::replace(&mut self.token, next);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn listing_ends_without_a_next_page() {
        let (mut listing, mut paging) = (Listing::default(), Paging::new("narrow it"));
        assert!(listing.turn(token("a"), &mut paging).unwrap());
        assert_eq!(listing.token(), Some("a"));
        assert!(listing.turn(token("b"), &mut paging).unwrap());
        for last in [None, token("")] {
            assert!(!listing.turn(last, &mut paging).unwrap());
        }
    }

    #[test]
    fn circular_pages_and_long_tokens_are_malformed() {
        let (mut listing, mut paging) = (Listing::default(), Paging::new("narrow it"));
        listing.turn(token("a"), &mut paging).unwrap();
        listing.turn(token("b"), &mut paging).unwrap();
        let long = "x".repeat(MAX_TOKEN_BYTES + 1);
        for bad in ["a", "b", long.as_str()] {
            let error = listing.turn(token(bad), &mut paging).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Malformed, "{error}");
        }
    }

    #[test]
    fn pages_are_counted_over_all_listings() {
        let mut paging = Paging::new("narrow it");
        let mut listing = Listing::default();
        for number in 0..MAX_PAGES {
            if number % 100 == 0 {
                listing = Listing::default();
            }
            assert!(listing.turn(token(&number.to_string()), &mut paging).unwrap());
        }
        let error = listing.turn(token("more"), &mut paging).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
        assert_eq!(error.hint.as_deref(), Some("narrow it"));
    }

    #[test]
    fn number_of_keys_is_limited() {
        let mut paging = Paging::new("narrow it");
        paging.add_keys(MAX_KEYS);
        assert!(!Listing::default().turn(None, &mut paging).unwrap());
        paging.add_keys(1);
        let error = Listing::default().turn(None, &mut paging).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
    }
}
