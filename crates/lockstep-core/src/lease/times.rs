//! Computes with the times of a lease.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lockstep_api::Lease;

use super::action::Retries;
use crate::{schedule, time::later};

fn third(lease: &Lease) -> Duration {
    Duration::from_secs(u64::try_from(lease.duration_seconds).unwrap_or(0)) / 3
}

/// Minimum time between two renewals of a lease. A lease that is renewed for a shorter time ends.
const MIN_BETWEEN_RENEWALS: Duration = Duration::from_secs(5);

/// Returns when to renew a lease, or to replace it if it cannot be renewed: spread over its last
/// third.
pub(super) fn renew_at(lease: &Lease) -> Timestamp {
    let third = third(lease);
    let fraction = schedule::fraction((&*lease.accessor, lease.expiration_time.as_second()));
    let left = third.saturating_sub((third / 3).mul_f64(fraction));
    let last = lease.renewed_time.unwrap_or(lease.issued_time);
    earlier(lease.expiration_time, left).max(later(last, MIN_BETWEEN_RENEWALS))
}

/// Returns when the server can issue no credential any more for an intent. The token of the intent
/// is not revoked earlier: a credential that is issued after that would stay.
pub(super) fn issuing_ends(
    accessor: &str,
    recorded: Timestamp,
    issue_timeout: Duration,
    retries: &Retries,
) -> Timestamp {
    if retries.is_answered(accessor) {
        Timestamp::MIN
    } else {
        later(recorded, issue_timeout)
    }
}

/// Converts a time of the monotonic clock to the wall clock.
pub fn to_wall_clock(at: Timestamp, ahead: SignedDuration) -> Timestamp {
    let end = if ahead.is_negative() {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    };
    if at == Timestamp::MIN {
        at
    } else {
        at.checked_add(ahead).unwrap_or(end)
    }
}

pub(super) fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by)
        .ok()
        .and_then(|by| at.checked_sub(by).ok())
        .unwrap_or(Timestamp::MIN)
}
