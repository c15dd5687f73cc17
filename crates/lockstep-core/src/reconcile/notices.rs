//! The events that a change of the status is worth.

use lockstep_api::{
    Condition, ConditionStatus, ConditionType, Lease, LeaseEnd, LeaseStatus, Reason, RolloutPhase,
    SyncedSecretStatus,
};

use super::effect::{Notice, Severity};
use crate::{lease, text};

/// Maximum length of the text of an event, in characters.
const MAX_NOTE: usize = 1000;

impl Notice {
    /// Creates an event. Its text can contain names that tenants and backends choose.
    pub(super) fn new(
        severity: Severity,
        reason: impl Into<String>,
        action: &'static str,
        note: &str,
    ) -> Self {
        Self {
            severity,
            reason: reason.into(),
            action,
            note: text::escape(note).chars().take(MAX_NOTE).collect(),
        }
    }

    fn of(severity: Severity, action: &'static str, condition: &Condition) -> Self {
        Self::new(severity, condition.reason.clone(), action, &condition.message)
    }
}

/// Returns the events for a new status.
pub(super) fn of(old: Option<&SyncedSecretStatus>, new: &SyncedSecretStatus) -> Vec<Notice> {
    let mut notices = Vec::new();
    notices.extend(of_ready(old, new));
    for (kind, severity) in [
        (ConditionType::RotationPending, Severity::Normal),
        (ConditionType::RotationOverdue, Severity::Warning),
    ] {
        let before = old.and_then(|old| old.condition(kind));
        if let Some(begun) = new.condition(kind).filter(|_| before.is_none()) {
            notices.push(Notice::of(severity, "Rotate", begun));
        }
    }
    notices.extend(of_rollout(old, new));
    let leases = old.and_then(|old| old.lease.as_ref());
    for (severity, reason, note) in lease_changes(leases, new.lease.as_ref()) {
        notices.push(Notice::new(severity, reason.as_str(), "Lease", &note));
    }
    notices
}

/// Returns an event for each phase of a rollout, wave by wave.
fn of_rollout(old: Option<&SyncedSecretStatus>, new: &SyncedSecretStatus) -> Option<Notice> {
    let rollout = |status: &SyncedSecretStatus| {
        let rollout = status.rotation.as_ref()?.rollout.as_ref()?;
        Some((
            rollout.phase,
            rollout.revision.clone(),
            rollout.wave,
            rollout.rollback,
        ))
    };
    let now = rollout(new)?;
    if old.and_then(rollout).as_ref() == Some(&now) {
        return None;
    }
    let condition = new.condition(ConditionType::RolloutComplete)?;
    let severity = match now.0 {
        RolloutPhase::Held | RolloutPhase::RollingBack | RolloutPhase::RolledBack => Severity::Warning,
        RolloutPhase::Progressing
        | RolloutPhase::Soaking
        | RolloutPhase::Verifying
        | RolloutPhase::Complete => Severity::Normal,
    };
    Some(Notice::of(severity, "RollOut", condition))
}

fn of_ready(old: Option<&SyncedSecretStatus>, new: &SyncedSecretStatus) -> Option<Notice> {
    let ready = new.condition(ConditionType::Ready)?;
    let before = old.and_then(|old| old.condition(ConditionType::Ready));
    let revision = |status: &SyncedSecretStatus| status.target.as_ref().map(|target| target.revision.clone());
    let turned = before.is_none_or(|before| before.status != ready.status || before.reason != ready.reason);
    let rewritten = old.is_some_and(|old| revision(old) != revision(new));
    // a first success is in the status; an event would be a third write
    if !(turned || rewritten) || (before.is_none() && ready.status == ConditionStatus::True) {
        return None;
    }
    let severity = if ready.status == ConditionStatus::True {
        Severity::Normal
    } else {
        Severity::Warning
    };
    Some(Notice::of(severity, "Sync", ready))
}

fn all_leases(status: Option<&LeaseStatus>) -> impl Iterator<Item = &Lease> {
    status.into_iter().flat_map(lease::held)
}

/// Returns the events for the changes of the leases.
fn lease_changes(old: Option<&LeaseStatus>, new: Option<&LeaseStatus>) -> Vec<(Severity, Reason, String)> {
    let mut events = Vec::new();
    let current = |status: Option<&LeaseStatus>| status.and_then(|status| status.current.clone());
    let before = |accessor: &str| all_leases(old).find(|lease| lease.accessor == accessor);
    if let Some(lease) = current(new)
        && current(old).is_none_or(|old| old.accessor != lease.accessor)
    {
        let note = format!(
            "the Secret contains a new credential of \"{}\" in {}. Its lease {} expires at {}",
            lease.path, lease.store, lease.id, lease.expiration_time
        );
        events.push((Severity::Normal, Reason::LeaseIssued, note));
    }
    for lease in all_leases(new) {
        let Some(earlier) = before(&lease.accessor) else {
            continue;
        };
        if let (None, Some(end)) = (earlier.end_reason, lease.end_reason) {
            let (type_, why) = match end {
                LeaseEnd::MaximumReached => (Severity::Normal, "is near its maximum"),
                LeaseEnd::RenewalRefused => (Severity::Warning, "was not renewed by the store"),
                LeaseEnd::NotRenewable => (Severity::Normal, "cannot be renewed"),
            };
            let mut note = format!(
                "the lease {} {why} and expires at {}",
                lease.id, lease.expiration_time
            );
            if let Some(refusal) = &lease.refusal_message {
                note.push_str(": ");
                note.push_str(refusal);
            }
            if let Some(gap) = lease::explain_gap(lease) {
                note.push_str("; ");
                note.push_str(&gap);
            }
            events.push((type_, Reason::LeaseEnds, note));
        }
        if let (None, Some(why)) = (&earlier.revocation_message, &lease.revocation_message) {
            let (reason, what) = if lease::is_disowned(lease) {
                (Reason::LeaseUnproven, "is neither renewed nor revoked")
            } else {
                (Reason::LeaseLeft, "is no longer used but could not be revoked")
            };
            let note = format!(
                "the lease {} {what}. It expires at {}: {why}",
                lease.id, lease.expiration_time
            );
            events.push((Severity::Warning, reason, note));
        }
    }
    let gone = |lease: &&Lease| all_leases(new).all(|other| other.accessor != lease.accessor);
    for lease in all_leases(old)
        .filter(gone)
        .filter(|lease| lease.revocation_message.is_none())
    {
        let note = format!("the lease {} of \"{}\" was revoked", lease.id, lease.path);
        events.push((Severity::Normal, Reason::LeaseRevoked, note));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(accessor: &str) -> Lease {
        serde_json::from_value(serde_json::json!({
            "id": format!("database/creds/shop/{accessor}"),
            "accessor": accessor,
            "store": { "name": "vault" },
            "path": "database/creds/shop",
            "request": "",
            "issuedTime": "2026-05-01T09:00:00Z",
            "expirationTime": "2026-05-01T10:00:00Z",
            "durationSeconds": 3600,
            "mac": "right",
        }))
        .unwrap()
    }

    fn reasons(old: Option<&LeaseStatus>, new: Option<&LeaseStatus>) -> Vec<Reason> {
        lease_changes(old, new)
            .into_iter()
            .map(|(_, reason, _)| reason)
            .collect()
    }

    #[test]
    fn each_change_of_a_lease_has_one_event() {
        let first = LeaseStatus {
            current: Some(lease("a")),
            ..LeaseStatus::default()
        };
        assert_eq!(reasons(None, Some(&first)), [Reason::LeaseIssued]);
        assert_eq!(reasons(Some(&first), Some(&first)), []);
        let mut renewed = first.clone();
        renewed.current.as_mut().unwrap().expiration_time = "2026-05-01T11:00:00Z".parse().unwrap();
        assert_eq!(reasons(Some(&first), Some(&renewed)), [], "a renewal is no news");
        let mut ends = renewed.clone();
        ends.current.as_mut().unwrap().end_reason = Some(LeaseEnd::MaximumReached);
        assert_eq!(reasons(Some(&renewed), Some(&ends)), [Reason::LeaseEnds]);
        let second = LeaseStatus {
            current: Some(lease("b")),
            old: vec![ends.current.clone().unwrap()],
            ..LeaseStatus::default()
        };
        assert_eq!(reasons(Some(&ends), Some(&second)), [Reason::LeaseIssued]);
        let mut left = second.clone();
        left.old[0].revocation_message = Some("permission denied".to_owned());
        assert_eq!(reasons(Some(&second), Some(&left)), [Reason::LeaseLeft]);
        let mut unproven = left.clone();
        unproven.old[0].mac = None;
        assert_eq!(reasons(Some(&second), Some(&unproven)), [Reason::LeaseUnproven]);
        let done = LeaseStatus {
            old: Vec::new(),
            ..second.clone()
        };
        assert_eq!(reasons(Some(&second), Some(&done)), [Reason::LeaseRevoked]);
        assert_eq!(reasons(Some(&left), Some(&done)), [], "it expired");
    }
}
