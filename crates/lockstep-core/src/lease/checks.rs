//! Checks what a store returned, and that the status has room for another credential.

use lockstep_api::{LeaseStatus, Reason};

use super::proof::is_disowned;
use crate::{Failure, remote::Requeue, text};

/// Number of credentials left to expire at which no other is issued.
const MAX_LEFT: usize = 8;
/// Number of credentials waiting to be revoked at which no other is issued. A sync can add more;
/// the status holds 32.
const MAX_OLD: usize = 24;

/// Checks that the unrevoked credentials leave room for another one.
///
/// # Errors
/// When there are too many. Otherwise the number of credentials in the store would be unlimited.
pub fn check_room(status: Option<&LeaseStatus>) -> Result<(), Failure> {
    let old = status.map_or(&[][..], |status| &status.old);
    let left = old
        .iter()
        .filter(|lease| lease.revocation_message.is_some() && !is_disowned(lease));
    let message = if left.clone().count() >= MAX_LEFT {
        let first = left.map(|lease| lease.expiration_time).min().unwrap_or_default();
        format!(
            "Not issuing another credential: {MAX_LEFT} unused credentials could not be revoked. The first expires at {first}. Give the store's login the right to auth/token/revoke-accessor. The condition LeaseUnrevoked contains the cause"
        )
    } else if old.iter().filter(|lease| !is_disowned(lease)).count() >= MAX_OLD {
        format!(
            "Not issuing another credential: {MAX_OLD} credentials are waiting to be revoked. Check that the store is available and that the rollout is not held"
        )
    } else {
        return Ok(());
    };
    Err(Failure::new(Reason::LeaseLeft, message).requeued(Requeue::LongBackoff))
}

/// Maximum length of an accessor.
const MAX_ACCESSOR: usize = 256;
/// The longest name of a lease below its path.
const MAX_ID_NAME: usize = 64;

/// Checks an accessor that a store returned before it is written to the status. The message does
/// not contain it.
///
/// # Errors
/// When it is too long, or not printable ASCII without spaces.
pub fn check_accessor(accessor: &str) -> Result<(), Failure> {
    check_backend_name("accessor", accessor, MAX_ACCESSOR)
}

/// Checks the id of the lease of a credential that was issued at `path`. Ids are shown, so a server
/// could publish a credential as one.
///
/// # Errors
/// When the id is not the path, a slash, and 1 to 64 letters, digits, dots and dashes.
pub fn check_id(id: &str, path: &str) -> Result<(), Failure> {
    let name = id.strip_prefix(path).and_then(|rest| rest.strip_prefix('/'));
    let is_name = |name: &str| {
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
    };
    if name.is_some_and(|name| (1..=MAX_ID_NAME).contains(&name.len()) && is_name(name)) {
        return Ok(());
    }
    let message = format!(
        "the store returned an invalid lease id. lockstep accepts \"{path}/\" with 1 to {MAX_ID_NAME} letters, digits, dots and dashes. Check which server runs at the store's address"
    );
    Err(Failure::new(Reason::Malformed, message).requeued(Requeue::LongBackoff))
}

fn check_backend_name(what: &str, name: &str, longest: usize) -> Result<(), Failure> {
    if text::is_backend_name(name, longest) {
        return Ok(());
    }
    let message = format!(
        "the store returned an invalid {what} ({} bytes). lockstep accepts 1 to {longest} printable ASCII characters without spaces. Check which server runs at the store's address",
        name.len()
    );
    Err(Failure::new(Reason::Malformed, message).requeued(Requeue::LongBackoff))
}
