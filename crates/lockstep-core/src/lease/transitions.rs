//! Computes the next status for each event of a lease.

use std::time::Duration;

use jiff::Timestamp;
use lockstep_api::{Lease, LeaseEnd, LeaseIntent, LeaseStatus, SourceStatus};

use super::{
    leases::intent_as_lease,
    proof::{Issuer, trim_disowned},
    request::Generation,
};
use crate::{
    remote::{ErrorKind, IssuanceToken, Minted},
    time::{later, to_seconds},
};

/// Tolerance in seconds when a renewal is compared with the requested time, for rounding.
const ROUNDING: i64 = 2;

/// Returns the status to write before a credential is requested.
pub fn intend(
    status: Option<&LeaseStatus>,
    generation: &Generation,
    issuance_token: &IssuanceToken,
    issuer: &Issuer<'_>,
    now: Timestamp,
) -> LeaseStatus {
    let mut next = status.cloned().unwrap_or_default();
    // a credential that an earlier process may have written is in use until another one is
    next.old.extend(next.minted.take());
    next.old.extend(next.intent.take().map(intent_as_lease));
    trim_disowned(&mut next);
    let mut intent = LeaseIntent {
        store: generation.store.clone(),
        server: issuance_token.server.clone(),
        path: generation.request.path.to_string(),
        accessor: issuance_token.accessor.clone(),
        recorded_time: to_seconds(now),
        expiration_time: to_seconds(later(now, issuance_token.lives)),
        mac: None,
    };
    let mut lease = intent_as_lease(intent.clone());
    issuer.sign(&mut lease);
    intent.mac = lease.mac;
    next.intent = Some(intent);
    next
}

/// Returns the status after a credential was issued, before it is written. `asked` is when the
/// request was sent; the lease starts no earlier.
pub fn minted(
    status: &LeaseStatus,
    request: String,
    minted: &Minted,
    issuer: &Issuer<'_>,
    asked: Timestamp,
) -> LeaseStatus {
    let mut next = status.clone();
    let Some(intent) = next.intent.take() else {
        return next;
    };
    let expires = later(asked, minted.lives).min(intent.expiration_time);
    let mut lease = Lease {
        id: minted.id.clone().unwrap_or_else(|| intent.accessor.clone()),
        request,
        issued_time: to_seconds(asked),
        expiration_time: to_seconds(expires),
        duration_seconds: expires.as_second().saturating_sub(asked.as_second()),
        renewable: minted.renewable,
        end_reason: (!minted.renewable).then_some(LeaseEnd::NotRenewable),
        unwritten: false,
        mac: None,
        ..intent_as_lease(intent)
    };
    issuer.sign(&mut lease);
    next.minted = Some(lease);
    next
}

/// Returns the leases after the Secret was written from `sources`.
pub fn written(
    status: Option<&LeaseStatus>,
    sources: &[SourceStatus],
    now: Timestamp,
) -> Option<LeaseStatus> {
    let mut next = status?.clone();
    let holds = |lease: &Option<Lease>| {
        lease.as_ref().is_some_and(|lease| {
            sources
                .iter()
                .any(|source| source.version.as_ref() == Some(&lease.id))
        })
    };
    if holds(&next.minted) {
        next.old.extend(next.current.take());
        next.current = next.minted.take();
    } else if !holds(&next.current) {
        next.old.extend(next.minted.take());
        next.old.extend(next.current.take());
    }
    // while a minted credential exists, it is unknown whether the old ones were replaced
    if next.minted.is_none() {
        for old in next.old.iter_mut().filter(|old| old.replaced_time.is_none()) {
            old.replaced_time = Some(to_seconds(now));
        }
    }
    settled(next)
}

fn settled(status: LeaseStatus) -> Option<LeaseStatus> {
    (status != LeaseStatus::default()).then_some(status)
}

fn change(status: &LeaseStatus, accessor: &str, change: impl FnOnce(&mut Lease)) -> LeaseStatus {
    let mut next = status.clone();
    let mut all = next
        .current
        .iter_mut()
        .chain(&mut next.minted)
        .chain(&mut next.old);
    if let Some(lease) = all.find(|lease| lease.accessor == accessor) {
        change(lease);
    }
    next
}

/// Returns the leases after one was renewed.
pub fn renewed(status: &LeaseStatus, accessor: &str, given: Duration, asked: Timestamp) -> LeaseStatus {
    let expires = to_seconds(later(asked, given));
    change(status, accessor, |lease| {
        let given = i64::try_from(given.as_secs()).unwrap_or(i64::MAX);
        let truncated = given.saturating_add(ROUNDING) < lease.duration_seconds;
        lease.expiration_time = expires;
        lease.renewed_time = Some(to_seconds(asked));
        if truncated {
            lease.end_reason = Some(LeaseEnd::MaximumReached);
        }
    })
}

/// Returns the leases after the store refused to renew one; `None` if the request failed and is
/// retried.
pub fn renewal_failed(
    status: &LeaseStatus,
    accessor: &str,
    kind: ErrorKind,
    message: &str,
) -> Option<LeaseStatus> {
    let refused = matches!(
        kind,
        ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::Unsupported
    );
    refused.then(|| {
        change(status, accessor, |lease| {
            lease.end_reason = Some(LeaseEnd::RenewalRefused);
            lease.refusal_message = Some(message.to_owned());
        })
    })
}

/// Returns the leases after one was revoked or expired.
pub fn revoked(status: &LeaseStatus, accessor: &str) -> Option<LeaseStatus> {
    let mut next = status.clone();
    next.intent.take_if(|intent| intent.accessor == accessor);
    next.current.take_if(|lease| lease.accessor == accessor);
    next.minted.take_if(|lease| lease.accessor == accessor);
    next.old.retain(|lease| lease.accessor != accessor);
    settled(next)
}

/// Returns the leases after the store refused to revoke one, which is left to expire; `None` if the
/// request failed and is retried.
pub fn revocation_failed(
    status: &LeaseStatus,
    accessor: &str,
    kind: ErrorKind,
    message: &str,
    now: Timestamp,
) -> Option<LeaseStatus> {
    if !matches!(kind, ErrorKind::PermissionDenied | ErrorKind::Unsupported) {
        return None;
    }
    let mut next = status.clone();
    let found = next.intent.take_if(|intent| intent.accessor == accessor);
    next.old.extend(found.map(|intent| Lease {
        replaced_time: Some(to_seconds(now)),
        ..intent_as_lease(intent)
    }));
    Some(change(&next, accessor, |lease| {
        lease.revocation_message = Some(message.to_owned());
    }))
}
