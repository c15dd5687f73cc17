//! Decides which lease action is due, for an object that exists and for one that is being deleted.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lockstep_api::{Generate, Lease, LeaseStatus, SyncedSecretSpec, SyncedSecretStatus};

use super::{
    action::{Action, Retries},
    leases::{held, intent_as_lease},
    proof::Issuer,
    request::wanted,
    times::{issuing_ends, renew_at, to_wall_clock},
};
use crate::{
    rotation::coverage::{self, Coverage},
    spec,
    time::later,
};

/// How long a deleted SyncedSecret waits for an unavailable store before its leases are left to
/// expire.
pub const RELEASE_PATIENCE: Duration = Duration::from_secs(600);
/// How long it waits for a store that is missing or invalid, which may return while manifests are
/// applied again.
pub const RELEASE_PATIENCE_GONE: Duration = Duration::from_secs(60);

/// Decides when a replaced credential is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long the credential is kept if no rollout proves that it is unused.
    pub revoke_after: Duration,
    /// How long after a request for a credential the server may still issue it, if there was no
    /// answer.
    pub issue_timeout: Duration,
    /// Whether the spec has targets. Then only a rollout shows that the credential is unused.
    pub has_targets: bool,
}

impl Retention {
    /// Reads the retention from a spec.
    pub fn of(spec: &SyncedSecretSpec, issue_timeout: Duration) -> Self {
        let revoke_after = wanted(spec).map_or_else(
            || lockstep_api::lease::DEFAULT_REVOKE_AFTER.to_std(),
            Generate::revoke_after,
        );
        Self {
            revoke_after,
            issue_timeout,
            has_targets: spec::rollout(spec).is_some(),
        }
    }

    /// Returns the time since which a lease is unused, if known.
    fn unused_at(self, old: &Lease, reach: Option<Coverage>) -> Option<Timestamp> {
        let replaced = old.replaced_time?;
        match reach {
            Some(Coverage::Complete) => Some(Timestamp::MIN),
            Some(Coverage::InProgress) => None,
            Some(Coverage::Ended(at)) => Some(later(at.max(replaced), self.revoke_after)),
            None if self.has_targets => None,
            None => Some(later(replaced, self.revoke_after)),
        }
    }
}

/// Returns when a lease can be revoked for good: an intent that was lost may still be answered.
fn settled_at(lease: &Lease, issue_timeout: Duration, retries: &Retries) -> Timestamp {
    if lease.unwritten && lease.id == lease.accessor {
        issuing_ends(&lease.accessor, lease.issued_time, issue_timeout, retries)
    } else {
        Timestamp::MIN
    }
}

/// Returns the next action and its time on the wall clock, including retries. `ahead` is how far
/// the wall clock is ahead of the monotonic one. A new credential is part of a sync: see
/// [`mint_at`](super::mint_at).
pub fn next(
    status: &SyncedSecretStatus,
    retention: Retention,
    retries: &Retries,
    ahead: SignedDuration,
) -> Option<(Timestamp, Action)> {
    let lease = status.lease.as_ref()?;
    let intent = lease.intent.iter().map(|intent| {
        let at = issuing_ends(
            &intent.accessor,
            intent.recorded_time,
            retention.issue_timeout,
            retries,
        );
        (to_wall_clock(at, ahead), Action::Revoke(intent.accessor.clone()))
    });
    let reach = coverage::of(status);
    let unused_at = |lease: &Lease| {
        if lease.unwritten {
            return Some(to_wall_clock(
                settled_at(lease, retention.issue_timeout, retries),
                ahead,
            ));
        }
        retention.unused_at(lease, reach)
    };
    let revocations = lease.old.iter().filter_map(|old| {
        let accessor = old.accessor.clone();
        if old.revocation_message.is_some() {
            return Some((
                to_wall_clock(old.expiration_time, ahead),
                Action::Forget(accessor),
            ));
        }
        Some((unused_at(old)?, Action::Revoke(accessor)))
    });
    // a lease that is revoked before it ends needs no renewal
    let revoked_in_time =
        |lease: &Lease| unused_at(lease).is_some_and(|at| at <= to_wall_clock(lease.expiration_time, ahead));
    let renewals = held(lease)
        .filter(|lease| {
            lease.end_reason.is_none() && lease.revocation_message.is_none() && !revoked_in_time(lease)
        })
        .map(|lease| {
            let at = to_wall_clock(renew_at(lease), ahead);
            (at, Action::Renew(lease.accessor.clone()))
        });
    // if several actions are due at the same time, a revocation is first
    intent
        .chain(revocations)
        .chain(renewals)
        .map(|(at, action)| (at.max(to_wall_clock(retries.not_before(&action), ahead)), action))
        .min_by_key(|(at, _)| *at)
}

/// Returns the next action for a SyncedSecret that is being deleted, and its time on the wall
/// clock. Leases without a valid MAC do not delay the deletion.
pub fn release(
    status: Option<&LeaseStatus>,
    issuer: &Issuer<'_>,
    deleted: Timestamp,
    issue_timeout: Duration,
    retries: &Retries,
    ahead: SignedDuration,
    now: Timestamp,
) -> (Timestamp, Action) {
    let intents = status
        .into_iter()
        .filter_map(|status| status.intent.clone())
        .map(intent_as_lease)
        .filter(|intent| issuer.is_own(intent));
    let leases = status
        .into_iter()
        .flat_map(held)
        .filter(|lease| lease.revocation_message.is_none() && issuer.is_own(lease))
        .cloned();
    let next = intents
        .chain(leases)
        .map(|lease| {
            let settled = settled_at(&lease, issue_timeout, retries);
            let action = Action::Revoke(lease.accessor);
            (settled.max(retries.not_before(&action)), action)
        })
        .min_by_key(|(at, _)| *at);
    let release = || {
        let at = retries.not_before(&Action::Release);
        (to_wall_clock(at, ahead), Action::Release)
    };
    let Some((at, action)) = next else {
        return release();
    };
    let patience = if retries.is_gone(&action) {
        RELEASE_PATIENCE_GONE
    } else {
        RELEASE_PATIENCE
    };
    let end = later(deleted, patience);
    if now >= end {
        return release();
    }
    (to_wall_clock(at, ahead).min(end), action)
}
