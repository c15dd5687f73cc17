//! Builds conditions, and those that follow from the rest of the status.

use jiff::Timestamp;
use lockstep_api::{
    Condition, ConditionStatus, ConditionType, Lease, LeaseStatus, Reason, RolloutPhase, RotationStatus,
    SourceStatus, SyncedSecretStatus, WaitsFor, annotation,
};

use super::{input::Subject, messages::bounded};
use crate::{
    lease, rotation, text,
    time::{self, to_seconds},
};

pub(super) fn condition(
    old: &[Condition],
    kind: ConditionType,
    holds: ConditionStatus,
    reason: Reason,
    message: &str,
    generation: i64,
    now: Timestamp,
) -> Condition {
    let since = old
        .iter()
        .find(|before| before.kind == kind && before.status == holds)
        .map_or_else(|| to_seconds(now), |before| before.last_transition_time);
    Condition {
        kind,
        status: holds,
        reason: reason.to_string(),
        // it contains names that tenants and backends choose, and terminals show it
        message: bounded(text::escape(message).into_owned()),
        last_transition_time: since,
        observed_generation: Some(generation),
    }
}

/// Returns the conditions that do not follow from the rest of the status. While the Secret is
/// Ready, the rollout decides about `Reconciling` and `Stalled`.
pub(super) fn lasting(old: &SyncedSecretStatus) -> Vec<Condition> {
    let ready = old
        .condition(ConditionType::Ready)
        .is_some_and(|ready| ready.status == ConditionStatus::True);
    let lasts = |condition: &&Condition| match condition.kind {
        ConditionType::Ready => true,
        ConditionType::Reconciling | ConditionType::Stalled => !ready,
        ConditionType::RotationPending
        | ConditionType::RotationOverdue
        | ConditionType::RolloutComplete
        | ConditionType::LeaseUnrevoked => false,
    };
    old.conditions.iter().filter(lasts).cloned().collect()
}

/// A condition without its times.
type Derived = (ConditionType, ConditionStatus, Reason, String);

/// Adds the conditions that follow from the rest of the status.
pub(super) fn add_derived(
    status: &mut SyncedSecretStatus,
    old: &[Condition],
    subject: &Subject<'_>,
    now: Timestamp,
) {
    let ready = status.condition(ConditionType::Ready);
    let ready = ready.is_some_and(|ready| ready.status == ConditionStatus::True);
    let rotation = status.rotation.as_ref();
    let derived = rollout(rotation, ready)
        .into_iter()
        .chain(pending(rotation))
        .chain(overdue(&status.sources, subject, now))
        .chain(unrevoked(status.lease.as_ref()));
    let derived: Vec<_> = derived
        .map(|(kind, holds, reason, message)| {
            let message = bounded(message);
            condition(old, kind, holds, reason, &message, subject.generation, now)
        })
        .collect();
    status.conditions.extend(derived);
}

/// Returns the conditions about a rollout. GitOps tools read `Reconciling` and `Stalled`: in
/// progress, or waiting for someone.
fn rollout(rotation: Option<&RotationStatus>, ready: bool) -> Vec<Derived> {
    let Some((phase, reason, message)) = rotation::progress(rotation) else {
        return Vec::new();
    };
    let holds = if phase == RolloutPhase::Complete {
        ConditionStatus::True
    } else {
        ConditionStatus::False
    };
    let kind = if phase.is_moving() {
        ConditionType::Reconciling
    } else {
        ConditionType::Stalled
    };
    let mut conditions = Vec::new();
    if ready && phase != RolloutPhase::Complete {
        conditions.push((kind, ConditionStatus::True, reason, message.clone()));
    }
    conditions.push((ConditionType::RolloutComplete, holds, reason, message));
    conditions
}

/// Returns the condition about a revision that may not be written yet.
fn pending(rotation: Option<&RotationStatus>) -> Option<Derived> {
    let pending = rotation?;
    let revision = pending.pending_revision.as_deref()?;
    let since = time::format(pending.noticed_time);
    let (reason, until) = match (pending.waits_for, pending.next_window_time) {
        (Some(WaitsFor::Rollout), _) => (
            Reason::RolloutUnderWay,
            "the rollout of an earlier revision is in progress".to_owned(),
        ),
        (Some(WaitsFor::Interval), next) => (
            Reason::TooSoon,
            format!(
                "the last rollout started less than minimumInterval ago; the next can start at {}",
                time::format(next)
            ),
        ),
        (_, None) => (Reason::WindowClosed, "no window opens again".to_owned()),
        (_, Some(next)) => (Reason::WindowClosed, format!("the next window opens at {next}")),
    };
    let message = format!(
        "Revision {revision} is pending since {since}; {until}. To write it now, set the annotation {} of the SyncedSecret to a new value",
        annotation::ROTATE_NOW
    );
    Some((
        ConditionType::RotationPending,
        ConditionStatus::True,
        reason,
        message,
    ))
}

/// Returns the condition about a source that is older than `maxAge`.
fn overdue(sources: &[SourceStatus], subject: &Subject<'_>, now: Timestamp) -> Option<Derived> {
    let (source, _) = rotation::overdue_at(subject.rotation, sources).filter(|(_, at)| *at <= now)?;
    let max_age = subject.rotation.and_then(|rotation| rotation.max_age);
    let message = format!(
        "key \"{}\" in {}: its version of {} is older than maxAge {}. Rotate it at the source",
        source.key,
        source.store,
        time::format(source.created_time),
        max_age.map(|max_age| max_age.to_string()).unwrap_or_default(),
    );
    Some((
        ConditionType::RotationOverdue,
        ConditionStatus::True,
        Reason::SourceTooOld,
        message,
    ))
}

/// Returns the condition about a lease that is left to expire.
fn unrevoked(leases: Option<&LeaseStatus>) -> Option<Derived> {
    let (lease, why) = lease::unrevoked(leases)?;
    let Lease {
        path,
        store,
        expiration_time: expires,
        ..
    } = lease;
    let (reason, message) = if lease::is_disowned(lease) {
        let message = format!(
            "status.lease: a lease of \"{path}\" in {store} is neither renewed nor revoked, and expires at {expires}: {why}. No action is needed: a credential in use is replaced before it expires"
        );
        (Reason::LeaseUnproven, message)
    } else {
        let message = format!(
            "an unused credential of \"{path}\" in {store} could not be revoked, and expires at {expires}: {why}"
        );
        (Reason::LeaseLeft, message)
    };
    Some((
        ConditionType::LeaseUnrevoked,
        ConditionStatus::True,
        reason,
        message,
    ))
}
