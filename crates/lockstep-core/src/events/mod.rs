//! Events of stores: whom they concern, which versions they name, and when to acknowledge them.

mod capacity;
mod interest;
mod pending;
mod settle;
mod version_hint;

pub use capacity::{Capacity, MESSAGE_BYTES, OBJECT_BYTES};
pub use interest::{Interest, interests};
pub use pending::{MAX_CONFIRMED, PendingMessages};
pub use settle::settles;
pub use version_hint::VersionHint;
