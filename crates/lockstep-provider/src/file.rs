//! The provider of files: values in a folder of files, or in one YAML or JSON document, below the folder that the
//! operator was started with (`--file-root`). For local use, and for what a CSI driver or a projected volume mounts.
//!
//! - A store's path and its keys never lead out: names are resolved by the kernel with the folder as the end of the
//!   world, so that neither `..`, nor an absolute path, nor a link can leave it. A key may not leave its store's folder.
//!   Only the links of projected volumes are followed (`password -> ..data/password`): they never leave the folder that
//!   holds them. Any other link could lead to a key that its reader is not granted.
//! - An empty or missing folder may be a volume that is not mounted. It is `Unavailable`, and never without values.
//! - Only regular files are opened; a device, pipe or socket is refused before it is.
//! - A changed file announces itself by a look at the metadata every second or so; see the module `watch` for why.
//!
//! What is written should be written beside and then renamed: a reader that meets a file that is being rewritten in
//! place tries again while the file changes, but cannot know that a file that is empty at this moment will be filled.

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

/// The largest file that is read, in bytes: a Secret holds 1 MiB; base64, and properties that nobody asks for, need some
/// more.
pub const MOST_BYTES: u64 = 4 << 20;
