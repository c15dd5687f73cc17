//! The response to a request.

use std::time::Duration;

use lockstep_http::JsonLimits;

/// Maximum length of a response body. A page of a hundred secrets, each with its labels,
/// annotations and topics, is well below it.
pub(crate) const LONGEST_BODY: usize = 2 << 20;

/// Limits for the structure of a response. The largest real one is a page of a hundred secrets. A
/// secret has up to about 100 objects and arrays if 40 regions have replicas with their own keys,
/// and about 650 commas if it has every label, alias and topic and 400 annotations.
pub(crate) const JSON_LIMITS: JsonLimits = JsonLimits {
    containers: 16_384,
    commas: 65_536,
    depth: 64,
};

/// The response of a server, with any status.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The delay after which the server accepts the next request, if it returned one.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: lockstep_http::Body,
}
