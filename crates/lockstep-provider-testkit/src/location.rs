//! Locations of remote values.

/// The location with that text.
///
/// # Panics
/// When no location can have it.
pub fn at(text: impl AsRef<str>) -> lockstep_provider::Location {
    let text = text.as_ref();
    lockstep_provider::Location::new(text)
        .unwrap_or_else(|error| panic!("\"{}\" {error}", text.escape_debug()))
}
