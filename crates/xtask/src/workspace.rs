//! Where the workspace is.

use std::path::Path;

/// Root folder of the workspace that this program was built from.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
