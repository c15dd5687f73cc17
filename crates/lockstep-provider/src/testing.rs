//! Helpers for the unit tests of this crate.

use crate::Location;

/// Returns the location with that text.
pub(crate) fn at(text: impl AsRef<str>) -> Location {
    Location::new(text.as_ref()).unwrap()
}
