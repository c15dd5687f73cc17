//! The text that must never be seen.

/// In every value that the suite stores, and in every field that the user does not name: it must never be seen.
pub const CANARY: &str = "CANARY";
