//! Bounds of a template.

use std::time::Duration;

/// Largest output of a template in bytes, which is the largest size of a Secret.
pub const MAX_OUTPUT: usize = 1024 * 1024;

/// Longest time that a template may take. The engine checks it before each function call, and functions that loop check it
/// inside.
pub(super) const DEADLINE: Duration = Duration::from_secs(1);
