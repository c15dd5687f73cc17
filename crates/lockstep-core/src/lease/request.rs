//! The credential that a spec requests.

use lockstep_api::{Generate, Lease, StoreRef, SyncedSecretSpec};
use sha2::{Digest as _, Sha256};

use crate::{remote::LeaseRequest, spec};

/// Returns the `generate` entry of a spec, if any.
pub fn wanted(spec: &SyncedSecretSpec) -> Option<&Generate> {
    spec::generated(spec).map(|(_, generate)| generate)
}

/// The credential that a plan requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The entry in messages, such as `dataFrom[0].generate`.
    pub entry: String,
    /// The store that issues the credential.
    pub store: StoreRef,
    /// The request to the store.
    pub request: LeaseRequest,
}

/// Number of hexadecimal digits of request names in the earlier format, a keyed hash that another
/// key cannot reproduce.
const KEYED_REQUEST_DIGITS: usize = 8;

/// Returns a short hash that names the request. It uses no key, so a lost key does not make every
/// request look new. The hashed fields are in plain text in the spec of the same object.
pub fn request_name(generation: &Generation) -> String {
    let request = &generation.request;
    let mut hash = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    field(generation.store.to_string().as_bytes());
    field(request.path.as_bytes());
    field(format!("{:?}", request.method).as_bytes());
    for (name, value) in &request.parameters {
        field(name.as_bytes());
        field(value.as_bytes());
    }
    let hash = hash.finalize();
    let first = hash.iter().take(8);
    let number = first.fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("{number:016x}")
}

/// Whether a lease belongs to the request. A name in the earlier format matches any request.
pub(super) fn is_of(lease: &Lease, request: &str) -> bool {
    lease.request == request || lease.request.len() == KEYED_REQUEST_DIGITS
}
