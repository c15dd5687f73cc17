//! The answer to a request.

use std::time::Duration;

use lockstep_http::JsonLimits;

/// The longest body that is read. A page of a hundred secrets, each with its labels, annotations and topics, is well below.
pub(crate) const LONGEST_BODY: usize = 2 << 20;

/// Bounds for the structure of an answer. The largest real one is a page of a hundred secrets. A secret has up to some 100
/// objects and arrays where 40 regions have replicas with keys of their own, and some 650 commas where it has every label,
/// alias and topic and 400 annotations.
pub(crate) const JSON_LIMITS: JsonLimits = JsonLimits {
    containers: 16_384,
    commas: 65_536,
    depth: 64,
};

/// What a server said, whatever the status.
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// When it wants to be asked again.
    pub(crate) retry_after: Option<Duration>,
    /// What it said.
    pub(crate) body: lockstep_http::Body,
}
