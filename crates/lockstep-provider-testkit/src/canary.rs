//! The text that must never appear in messages or logs.

/// Part of every value that the suite stores, and of every field that the user does not name. It
/// must never appear in messages or logs.
pub const CANARY: &str = "CANARY";
