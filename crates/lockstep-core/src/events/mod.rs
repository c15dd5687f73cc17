//! Events of stores: whom they concern, which versions they name, and when to acknowledge them.

mod interest;
mod pending;
mod version_hint;

pub use interest::{Interest, interests};
pub use pending::{Capacity, MAX_CONFIRMED, MESSAGE_BYTES, OBJECT_BYTES, PendingMessages, settles};
pub use version_hint::VersionHint;
