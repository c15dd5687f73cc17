//! The answer to a request.

use std::time::Duration;

/// The longest body that is read. A page of a hundred secrets, each with its labels, annotations and topics, is well below.
pub(crate) const LONGEST_BODY: usize = 2 << 20;

/// What a server said, whatever the status.
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// When it wants to be asked again.
    pub(crate) retry_after: Option<Duration>,
    /// What it said.
    pub(crate) body: lockstep_http::Body,
}
