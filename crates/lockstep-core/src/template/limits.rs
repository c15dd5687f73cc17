//! The limits of a template.

use std::time::Duration;

/// Maximum output of a template in bytes, equal to the maximum size of a Secret.
pub const MAX_OUTPUT: usize = 1024 * 1024;

/// Maximum time of a template. The engine checks it before each function call, and functions with
/// loops check it inside.
pub(super) const DEADLINE: Duration = Duration::from_secs(1);
