//! Reads the leases in a status.

use jiff::Timestamp;
use lockstep_api::{Lease, LeaseEnd, LeaseIntent, LeaseStatus, StoreRef};

/// Returns every lease that may be in use.
pub(crate) fn held(status: &LeaseStatus) -> impl Iterator<Item = &Lease> {
    status.current.iter().chain(&status.minted).chain(&status.old)
}

/// Returns the lease with the accessor, preferring one that is not left to expire.
pub fn find<'a>(status: &'a LeaseStatus, accessor: &str) -> Option<&'a Lease> {
    let all = held(status).filter(|lease| lease.accessor == accessor);
    all.min_by_key(|lease| lease.revocation_message.is_some())
}

/// Returns the lease to revoke for an accessor. An intent is converted to a lease.
pub fn lease_to_revoke(status: &LeaseStatus, accessor: &str) -> Option<Lease> {
    let intent = status.intent.as_ref();
    find(status, accessor).cloned().or_else(|| {
        let intent = intent.filter(|intent| intent.accessor == accessor);
        intent.cloned().map(intent_as_lease)
    })
}

/// Whether the status contains no lease.
pub fn is_empty(status: Option<&LeaseStatus>) -> bool {
    status.is_none_or(|status| *status == LeaseStatus::default())
}

/// Returns the stores of all leases in a status.
pub fn stores(status: Option<&LeaseStatus>) -> impl Iterator<Item = &StoreRef> {
    status.into_iter().flat_map(|status| {
        let intent = status.intent.iter().map(|intent| &intent.store);
        held(status).map(|lease| &lease.store).chain(intent)
    })
}

/// Returns the lease whose credential belongs in the Secret while no new one is due.
pub fn in_use(status: Option<&LeaseStatus>) -> Option<&Lease> {
    let status = status?;
    status.minted.as_ref().or(status.current.as_ref())
}

/// Returns the paths of the leases that were not revoked, and when the last of them ends.
pub fn unrevoked_paths(status: Option<&LeaseStatus>) -> Option<(Vec<&str>, Timestamp)> {
    let status = status?;
    let mut paths: Vec<&str> = held(status).map(|lease| &*lease.path).collect();
    paths.extend(status.intent.iter().map(|intent| &*intent.path));
    paths.sort_unstable();
    paths.dedup();
    let ends = held(status).map(|lease| lease.expiration_time);
    let last = ends
        .chain(status.intent.iter().map(|intent| intent.expiration_time))
        .max()?;
    Some((paths, last))
}

/// Returns when the credential in the Secret ends unless it is renewed.
pub fn expiry(status: Option<&LeaseStatus>) -> Option<Timestamp> {
    Some(status?.current.as_ref()?.expiration_time)
}

/// Returns a lease that is left to expire and the reason, if any.
pub fn unrevoked(status: Option<&LeaseStatus>) -> Option<(&Lease, &str)> {
    held(status?).find_map(|lease| Some((lease, lease.revocation_message.as_deref()?)))
}

/// Converts an intent to a lease that has to be revoked.
pub(super) fn intent_as_lease(intent: LeaseIntent) -> Lease {
    Lease {
        id: intent.accessor.clone(),
        accessor: intent.accessor,
        store: intent.store,
        server: intent.server,
        path: intent.path,
        mac: intent.mac,
        issued_time: intent.recorded_time,
        expiration_time: intent.expiration_time,
        end_reason: Some(LeaseEnd::NotRenewable),
        unwritten: true,
        ..Lease::default()
    }
}
