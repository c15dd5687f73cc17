//! Decides when another credential is issued, and why.

use std::time::Duration;

use jiff::Timestamp;
use lockstep_api::{Lease, LeaseEnd, LeaseStatus};

use super::{
    request::is_of,
    times::{earlier, renew_at},
};
use crate::time::later;

/// A credential that cannot be renewed is replaced in the last tenth of its life, even if windows
/// are closed.
const URGENT_FRACTION: i64 = 10;
/// Minimum time between a credential and the one that replaces it because its lease ends. A store
/// whose leases end at once would otherwise be asked for one credential after another.
pub const MIN_BETWEEN: Duration = Duration::from_secs(30);

/// The cause for a new credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// There is no credential yet.
    First,
    /// The request in the spec changed.
    Requested,
    /// The lease ends and cannot be renewed.
    Ends(LeaseEnd),
    /// An earlier process may have written a credential.
    Unknown,
}

/// Whether it is unknown if the Secret contains a credential that an earlier process issued. Then
/// the Secret may differ from the status, and another credential is issued.
pub fn has_uncertain_credential(status: Option<&LeaseStatus>) -> bool {
    status.is_some_and(|status| status.minted.is_some()) || may_have_written(status)
}

/// Whether an earlier process may have written a credential that has to be replaced.
pub(crate) fn may_have_written(status: Option<&LeaseStatus>) -> bool {
    let written = |old: &Lease| old.replaced_time.is_none() && !old.unwritten;
    status.is_some_and(|status| status.old.iter().any(written))
}

/// Returns when a new credential is due and why, on the monotonic clock. `None` while the current
/// one lives on. `waits` means that a change waits for a window or a rollout: then the new
/// credential is due with that change, or shortly before the current one ends.
pub fn mint_at(status: Option<&LeaseStatus>, waits: bool) -> Option<(Timestamp, Cause)> {
    if has_uncertain_credential(status) {
        return (!waits).then_some((Timestamp::MIN, Cause::Unknown));
    }
    let Some(current) = status.and_then(|status| status.current.as_ref()) else {
        return (!waits).then_some((Timestamp::MIN, Cause::First));
    };
    let ends = current.end_reason?;
    let at = match ends {
        _ if waits => urgent_at(current),
        LeaseEnd::NotRenewable => renew_at(current),
        LeaseEnd::RenewalRefused | LeaseEnd::MaximumReached => Timestamp::MIN,
    };
    Some((at.max(replaceable_at(current)), Cause::Ends(ends)))
}

/// Returns why another credential has to be issued; `None` if the existing one is sufficient.
/// `remembered` is the id of the lease whose fields this process holds.
pub fn cause(
    status: Option<&LeaseStatus>,
    request: &str,
    remembered: Option<&str>,
    now: Timestamp,
) -> Option<Cause> {
    let minted = status.and_then(|status| status.minted.as_ref());
    if let Some(minted) = minted.filter(|minted| remembered == Some(&*minted.id)) {
        if !is_of(minted, request) {
            return Some(Cause::Requested);
        }
        return ending(minted, now);
    }
    if has_uncertain_credential(status) {
        return Some(Cause::Unknown);
    }
    let Some(current) = status.and_then(|status| status.current.as_ref()) else {
        return Some(Cause::First);
    };
    if !is_of(current, request) {
        return Some(Cause::Requested);
    }
    let (at, cause) = mint_at(status, false)?;
    (now >= at).then_some(cause)
}

/// Returns why a minted credential is too close to its end to be written.
fn ending(minted: &Lease, now: Timestamp) -> Option<Cause> {
    let expires = minted.expiration_time;
    let (at, end) = match minted.end_reason {
        Some(LeaseEnd::NotRenewable) => (renew_at(minted).min(expires), LeaseEnd::NotRenewable),
        Some(end) => (Timestamp::MIN, end),
        None => (expires, LeaseEnd::RenewalRefused),
    };
    (now >= at).then_some(Cause::Ends(end))
}

/// Returns when a lease that ends may be replaced, by the status, so that a restart keeps it.
fn replaceable_at(lease: &Lease) -> Timestamp {
    later(lease.issued_time, MIN_BETWEEN)
}

/// Returns why a credential that ends is not replaced before it expires, if that is so.
pub fn explain_gap(lease: &Lease) -> Option<String> {
    let at = replaceable_at(lease);
    let expires_first = lease.end_reason.is_some() && lease.expiration_time < at;
    expires_first.then(|| {
        format!(
            "lockstep waits until {at} to issue another, at least {} seconds after the last one. Issue leases that live longer",
            MIN_BETWEEN.as_secs()
        )
    })
}

/// Returns when a credential that ends is replaced even if windows are closed.
fn urgent_at(lease: &Lease) -> Timestamp {
    let part = Duration::from_secs(u64::try_from(lease.duration_seconds / URGENT_FRACTION).unwrap_or(0));
    earlier(lease.expiration_time, part)
}

/// Whether a new credential cannot wait for a window or a rollout, because the current one is about
/// to end.
pub fn is_replacement_urgent(status: Option<&LeaseStatus>, now: Timestamp) -> bool {
    let current = status.and_then(|status| status.current.as_ref());
    current.is_some_and(|current| current.end_reason.is_some() && now >= urgent_at(current))
}
