//! Builds locations of remote values.

/// Returns the location with that text.
///
/// # Panics
/// Panics when the text is not a valid location.
pub fn at(text: impl AsRef<str>) -> lockstep_provider::Location {
    let text = text.as_ref();
    lockstep_provider::Location::new(text)
        .unwrap_or_else(|error| panic!("\"{}\" {error}", text.escape_debug()))
}
