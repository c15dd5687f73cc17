//! The file provider. It reads values from a folder of files, or from one YAML or JSON document,
//! below the folder set with `--file-root`. It is intended for local use and for volumes that a CSI
//! driver or a projected volume mounts.
//!
//! - A store's path and its keys never leave the root: the kernel resolves names with the folder as
//!   the root, so neither `..`, nor an absolute path, nor a link can lead out of it. A key may not
//!   leave its store's folder. Only the links of projected volumes are followed (`password ->
//!   ..data/password`), because they never leave the folder that holds them. Any other link could
//!   lead to a key that its reader is not granted.
//! - An empty or missing folder may be a volume that is not mounted. It is `Unavailable`, and never
//!   counts as a store without values.
//! - Only regular files are opened. A device, pipe or socket is rejected before it is opened.
//! - Changes are detected by polling the metadata about once per second. The module `watch`
//!   explains why.
//!
//! Writers should write to a temporary file and rename it. A reader that finds a file being
//! rewritten in place tries again while the file changes, but cannot know that a currently empty
//! file is about to be filled.

mod below;
mod beneath;
mod document;
mod error;
mod factory;
mod facts;
mod folder;
mod path;
mod provider;
mod source_location;
mod stop;
mod watch;

pub use below::{ReadBelowError, read_below};
pub use factory::FileFactory;

/// Maximum size of a file, in bytes. A Secret holds 1 MiB; base64 and unused properties need some
/// more.
pub const MOST_BYTES: u64 = 4 << 20;
