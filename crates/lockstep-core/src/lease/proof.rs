//! Proves that a lease in the status was recorded by lockstep, and disowns the others.

use jiff::Timestamp;
use lockstep_api::{Lease, LeaseEnd, LeaseIntent, LeaseStatus};

use super::leases::{held, intent_as_lease};
use crate::{
    fingerprint::{FingerprintKey, Hasher},
    time::to_seconds,
};

/// Computes the MACs of the leases of one SyncedSecret.
#[derive(Debug, Clone, Copy)]
pub struct Issuer<'a> {
    /// The fingerprint key.
    pub key: &'a FingerprintKey,
    /// The uid of the SyncedSecret.
    pub uid: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl Issuer<'_> {
    fn hash(&self, lease: &Lease) -> Hasher {
        let mut hash = self.key.hash("lease mac");
        for field in [
            self.uid,
            self.namespace,
            self.name,
            &lease.store.to_string(),
            &lease.server,
            &lease.path,
            &lease.accessor,
            &lease.id,
        ] {
            hash.field(field.as_bytes());
        }
        hash
    }

    /// Sets the MAC of a lease.
    pub fn sign(&self, lease: &mut Lease) {
        lease.mac = Some(self.hash(lease).finish(64));
    }

    /// Whether the MAC proves that lockstep recorded the lease for this SyncedSecret.
    pub fn is_own(&self, lease: &Lease) -> bool {
        let mac = lease.mac.as_deref();
        mac.is_some_and(|mac| self.hash(lease).verify(mac))
    }

    pub(super) fn is_own_intent(&self, intent: &LeaseIntent) -> bool {
        self.is_own(&intent_as_lease(intent.clone()))
    }
}

/// Why a lease without a valid MAC is left to expire.
const UNPROVEN: &str = "its MAC is not valid: the status was changed, or the fingerprint key was replaced";

/// Whether a lease was left to expire because its MAC was not valid.
pub fn is_disowned(lease: &Lease) -> bool {
    lease.revocation_message.is_some() && lease.mac.is_none()
}

/// Whether the status contains a lease without a valid MAC that is not yet marked as such.
pub fn has_unproven(status: &LeaseStatus, issuer: &Issuer<'_>) -> bool {
    let mut leases = held(status);
    leases.any(|lease| lease.revocation_message.is_none() && !issuer.is_own(lease))
        || status
            .intent
            .as_ref()
            .is_some_and(|intent| !issuer.is_own_intent(intent))
}

/// Marks leases without a valid MAC as left to expire. A credential in use is replaced before it
/// ends.
pub fn disowned(status: &LeaseStatus, issuer: &Issuer<'_>, now: Timestamp) -> LeaseStatus {
    let mut next = status.clone();
    let intent = next.intent.take_if(|intent| !issuer.is_own_intent(intent));
    next.old.extend(intent.map(|intent| Lease {
        replaced_time: Some(to_seconds(now)),
        ..intent_as_lease(intent)
    }));
    let all = next
        .current
        .iter_mut()
        .chain(&mut next.minted)
        .chain(&mut next.old);
    for lease in all.filter(|lease| lease.revocation_message.is_none() && !issuer.is_own(lease)) {
        lease.end_reason.get_or_insert(LeaseEnd::NotRenewable);
        lease.revocation_message = Some(UNPROVEN.to_owned());
        lease.mac = None;
    }
    trim_disowned(&mut next);
    next
}

/// Maximum number of leases without a valid MAC in the status. No action follows from them, and
/// they must leave room for others.
const MAX_DISOWNED: usize = 4;

pub(super) fn trim_disowned(status: &mut LeaseStatus) {
    let mut listed = 0;
    status.old.retain(|lease| {
        listed += usize::from(is_disowned(lease));
        !is_disowned(lease) || listed <= MAX_DISOWNED
    });
}
