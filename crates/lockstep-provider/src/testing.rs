//! What the unit tests of this crate have in common.

use crate::Location;

/// The location with that text.
pub(crate) fn at(text: impl AsRef<str>) -> Location {
    Location::new(text.as_ref()).unwrap()
}
