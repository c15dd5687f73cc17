//! Builds the status from the outcome of a sync. Unchanged conditions keep their message and time,
//! so an unchanged status is not written.

use jiff::Timestamp;
use lockstep_api::{
    Condition, ConditionStatus, ConditionType, Lease, LeaseStatus, Reason, RefusedRevision, RolloutPhase,
    Rotation, RotationStatus, SourceStatus, SyncedSecretStatus, TargetStatus, WaitsFor, annotation,
};

use crate::{
    Failure,
    history::{self, MAX_SOURCES},
    lease,
    rotation::{self, Written},
    text,
    time::{self, to_seconds},
};

/// Maximum length of a message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 2048;

/// The outcome of a sync, or of another step of the reconcile.
#[derive(Debug, Clone)]
pub enum Outcome<'a> {
    /// The Secret is in sync with the sources.
    Synced {
        /// The Secret. [`report`] sets its `last_change_time`.
        target: TargetStatus,
        /// The remote values that the Secret was built from.
        sources: Vec<SourceStatus>,
        /// Whether the Secret holds earlier values, because the rollout of the current ones failed.
        back: bool,
        /// A newer value that may not be written yet.
        waits: Option<Waiting>,
    },
    /// A value changed at its source and is pending. The Secret was left unchanged.
    Waits(RotationStatus),
    /// Nothing was done. Conditions may still change with time.
    Unchanged,
    /// The rollout advanced.
    Stepped(RotationStatus),
    /// A Secret is about to be written, or was written and is not yet immutable.
    Intends(TargetStatus),
    /// The earlier Secrets of a versioned target with these names were deleted.
    Cleared(Vec<String>),
    /// A lease was recorded, renewed or revoked.
    Leased(Option<LeaseStatus>),
    /// The sync failed.
    Failed(&'a Failure),
    /// Every remote value is gone and the Secret was deleted.
    Gone,
    /// Nothing was done because of `suspend` or `refreshPolicy`.
    Acknowledged {
        /// Whether `suspend` is set.
        suspended: bool,
    },
}

/// Returns the message when all remote values are gone. It stays the same until one exists again.
fn gone(subject: &Subject<'_>, old: &SyncedSecretStatus) -> String {
    let ready = old.condition(ConditionType::Ready);
    let said = ready.filter(|ready| ready.reason == Reason::SourceDeleted.as_str());
    match said {
        Some(said) if old.target.is_none() => said.message.clone(),
        _ => {
            let removed = match &old.target {
                Some(target) if target.merged => {
                    format!(
                        "removed the keys of this SyncedSecret from Secret \"{}\"",
                        target.name
                    )
                }
                Some(target) => format!("deleted Secret \"{}\"", target.name),
                None => {
                    return format!(
                        "no remote value exists. This SyncedSecret has not written Secret \"{}\", so deletionPolicy: Delete removed nothing",
                        subject.target_name
                    );
                }
            };
            format!(
                "every remote value is gone, so deletionPolicy: Delete {removed}. lockstep writes it again when the remote values exist"
            )
        }
    }
}

/// A changed value that may not be written yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The pending revision.
    pub revision: String,
    /// What the revision waits for.
    pub waits_for: WaitsFor,
    /// When the wait ends, if known.
    pub next: Option<Timestamp>,
}

/// The SyncedSecret whose status is built.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The generation of the spec.
    pub generation: i64,
    /// The value of the annotation `lockstep.dev/refresh`.
    pub refresh: Option<&'a str>,
    /// The value of the annotation `lockstep.dev/rotate-now`.
    pub rotate_now: Option<&'a str>,
    /// `spec.rotation`.
    pub rotation: Option<&'a Rotation>,
    /// The name of the Secret.
    pub target_name: &'a str,
    /// The last status.
    pub old: Option<&'a SyncedSecretStatus>,
    /// Whether the Secret was edited, deleted or taken over since lockstep wrote it.
    pub drifted: bool,
}

/// Builds the status after a sync, or after another step of the reconcile.
pub fn report(subject: &Subject<'_>, outcome: Outcome<'_>, now: Timestamp) -> SyncedSecretStatus {
    let mut draft = Draft::new(subject, now);
    match outcome {
        Outcome::Synced {
            target,
            sources,
            back,
            waits,
        } => draft.synced(target, sources, back, waits),
        Outcome::Waits(pending) => draft.pending(pending),
        Outcome::Unchanged => draft.keep_conditions(),
        Outcome::Intends(target) => draft.intended(target),
        Outcome::Cleared(names) => draft.cleared(&names),
        Outcome::Stepped(rotation) => draft.stepped(rotation),
        Outcome::Leased(leases) => draft.leased(leases),
        Outcome::Failed(failure) => draft.failed(failure),
        Outcome::Gone => draft.gone(),
        Outcome::Acknowledged { suspended: true } => draft.suspended(),
        Outcome::Acknowledged { suspended: false } => draft.created_once(),
    }
    draft.finish()
}

/// A status in the making: the last one, without its conditions.
struct Draft<'a> {
    subject: &'a Subject<'a>,
    old: SyncedSecretStatus,
    status: SyncedSecretStatus,
    now: Timestamp,
}

impl<'a> Draft<'a> {
    fn new(subject: &'a Subject<'a>, now: Timestamp) -> Self {
        let old = subject.old.cloned().unwrap_or_default();
        let status = SyncedSecretStatus {
            conditions: Vec::new(),
            ..old.clone()
        };
        Self {
            subject,
            old,
            status,
            now,
        }
    }

    fn set(&mut self, kind: ConditionType, holds: ConditionStatus, reason: Reason, message: &str) {
        let generation = self.subject.generation;
        let condition = condition(
            &self.old.conditions,
            kind,
            holds,
            reason,
            message,
            generation,
            self.now,
        );
        self.status.conditions.push(condition);
    }

    fn set_ready(&mut self, reason: Reason, message: &str) {
        self.set(ConditionType::Ready, ConditionStatus::True, reason, message);
    }

    /// Records that the spec and the request for a refresh were handled.
    fn handled(&mut self) {
        self.status.observed_generation = Some(self.subject.generation);
        self.status.handled_refresh = self.subject.refresh.map(str::to_owned);
    }

    /// The Secret is in sync with the sources.
    fn synced(
        &mut self,
        mut target: TargetStatus,
        mut sources: Vec<SourceStatus>,
        back: bool,
        waits: Option<Waiting>,
    ) {
        self.handled();
        let rotation = self.rotation_after_write(&target, &sources, back, waits);
        let refused = rotation.as_ref().and_then(|rotation| rotation.refused.as_ref());
        let message = in_sync(&target, sources.len(), refused);
        self.set_ready(Reason::Synced, &message);
        target.last_change_time = match &self.old.target {
            Some(before) if before.revision == target.revision && before.name == target.name => {
                before.last_change_time
            }
            _ => Some(to_seconds(self.now)),
        };
        target.generation = Some(self.subject.generation);
        let status = &mut self.status;
        status.versions = rotation::versions::note(&self.old, &target);
        status.lease = lease::written(self.old.lease.as_ref(), &sources, self.now);
        status.target = Some(target);
        status.source_count = i64::try_from(sources.len()).ok();
        sources.truncate(MAX_SOURCES);
        status.sources = sources;
        status.rotation = rotation;
    }

    fn rotation_after_write(
        &self,
        target: &TargetStatus,
        sources: &[SourceStatus],
        back: bool,
        waits: Option<Waiting>,
    ) -> Option<RotationStatus> {
        let subject = self.subject;
        let written = Written {
            target,
            sources,
            back,
        };
        let mut rotation = rotation::written(
            subject.old,
            &written,
            subject.rotation,
            subject.rotate_now,
            self.now,
        );
        if let (Some(said), Some(waits)) = (&mut rotation, waits) {
            let before = self.old.rotation.as_ref();
            said.noticed_time = before.and_then(|before| before.noticed_time);
            let Waiting {
                revision,
                waits_for,
                next,
            } = waits;
            *said = rotation::pending(Some(&*said), revision, waits_for, next, self.now);
        }
        rotation
    }

    /// A change is pending, and the Secret was left unchanged.
    fn pending(&mut self, pending: RotationStatus) {
        self.handled();
        let message = format!("{}. A newer value is pending", describe_secret(self.subject));
        self.set_ready(Reason::Synced, &message);
        self.status.rotation = Some(pending);
    }

    /// Nothing was synced, so the conditions about the Secret last.
    fn keep_conditions(&mut self) {
        self.status.conditions = lasting(&self.old);
    }

    /// A Secret is about to be written, or is not yet immutable.
    fn intended(&mut self, target: TargetStatus) {
        self.keep_conditions();
        let versions = &mut self.status.versions;
        versions.retain(|known| known.name != target.name);
        versions.insert(0, target);
    }

    /// Earlier Secrets of a versioned target were deleted.
    fn cleared(&mut self, names: &[String]) {
        self.keep_conditions();
        self.status
            .versions
            .retain(|version| !names.contains(&version.name));
    }

    /// The rollout advanced.
    fn stepped(&mut self, rotation: RotationStatus) {
        self.keep_conditions();
        self.status.rotation = Some(rotation);
    }

    /// A lease was recorded, renewed or revoked.
    fn leased(&mut self, leases: Option<LeaseStatus>) {
        self.keep_conditions();
        self.status.lease = leases;
    }

    /// The sync failed.
    fn failed(&mut self, failure: &Failure) {
        self.handled();
        let said = failure.message.trim_end_matches('.');
        let message = bounded(format!("{said}. {}", describe_secret(self.subject)));
        self.set(
            ConditionType::Ready,
            ConditionStatus::False,
            failure.reason,
            &message,
        );
        let kind = if failure.is_stalled() {
            ConditionType::Stalled
        } else {
            ConditionType::Reconciling
        };
        self.set(kind, ConditionStatus::True, failure.reason, &message);
    }

    /// Every remote value is gone, and the Secret was deleted.
    fn gone(&mut self) {
        self.handled();
        let message = gone(self.subject, &self.old);
        self.set(
            ConditionType::Ready,
            ConditionStatus::False,
            Reason::SourceDeleted,
            &message,
        );
        let status = &mut self.status;
        status.target = None;
        status.versions = Vec::new();
        status.sources = Vec::new();
        status.source_count = Some(0);
        status.rotation = rotation::complete(self.subject.rotation, self.subject.rotate_now, None);
    }

    /// Nothing was done, because of `suspend`.
    fn suspended(&mut self) {
        self.handled();
        let ready = if self.old.target.is_some() {
            ConditionStatus::True
        } else {
            ConditionStatus::False
        };
        let message = format!("suspend is set. {}", describe_secret(self.subject));
        self.set(ConditionType::Ready, ready, Reason::Suspended, &message);
        handled_rotate_now(&mut self.status, self.subject);
    }

    /// Nothing was done, because of `refreshPolicy: CreatedOnce`.
    fn created_once(&mut self) {
        self.handled();
        let message = format!("refreshPolicy: CreatedOnce. {}", describe_secret(self.subject));
        self.set_ready(Reason::Synced, &message);
        handled_rotate_now(&mut self.status, self.subject);
    }

    /// Adds the conditions that follow from the rest of the status, and the history.
    fn finish(mut self) -> SyncedSecretStatus {
        add_rotation(&mut self.status, &self.old.conditions, self.subject, self.now);
        self.status.history = history::note(&self.old, &self.status, self.now);
        self.status
    }
}

/// Returns the message of a Secret that is in sync.
fn in_sync(target: &TargetStatus, sources: usize, refused: Option<&RefusedRevision>) -> String {
    let values = if sources == 1 {
        "1 remote value".to_owned()
    } else {
        format!("{sources} remote values")
    };
    let mut message = format!("Secret \"{}\" is in sync with {values}", target.name);
    // without a cluster there is no key to make a revision with
    if !target.revision.is_empty() {
        message.push_str(", at revision ");
        message.push_str(&target.revision);
    }
    if let Some(refused) = refused {
        message.push_str("; revision ");
        message.push_str(&refused.revision);
        message.push_str(" was rolled back. lockstep waits for a newer value at the source");
    }
    message
}

/// Records `rotate-now` as handled although nothing was written. A later request needs a new value.
fn handled_rotate_now(status: &mut SyncedSecretStatus, subject: &Subject<'_>) {
    let Some(asked) = subject.rotate_now else { return };
    let complete = || rotation::complete(subject.rotation, subject.rotate_now, None);
    match &mut status.rotation {
        Some(rotation) => rotation.handled_rotate_now = Some(asked.to_owned()),
        none => *none = complete(),
    }
}

/// Returns the conditions that do not follow from the rest of the status. While the Secret is
/// Ready, the rollout decides about `Reconciling` and `Stalled`.
fn lasting(old: &SyncedSecretStatus) -> Vec<Condition> {
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

/// Adds the conditions that follow from the rest of the status.
fn add_rotation(status: &mut SyncedSecretStatus, old: &[Condition], subject: &Subject<'_>, now: Timestamp) {
    let ready = status.condition(ConditionType::Ready);
    let ready = ready.is_some_and(|ready| ready.status == ConditionStatus::True);
    let rotation = status.rotation.clone();
    let sources = status.sources.clone();
    let leases = status.lease.clone();
    let mut add = |kind, holds, reason, message| {
        let message = bounded(message);
        let one = condition(old, kind, holds, reason, &message, subject.generation, now);
        status.conditions.push(one);
    };
    if let Some((phase, reason, message)) = rotation::progress(rotation.as_ref()) {
        let holds = if phase == RolloutPhase::Complete {
            ConditionStatus::True
        } else {
            ConditionStatus::False
        };
        // GitOps tools read these: in progress, waiting for someone, or done
        let kind = if phase.is_moving() {
            ConditionType::Reconciling
        } else {
            ConditionType::Stalled
        };
        if ready && phase != RolloutPhase::Complete {
            add(kind, ConditionStatus::True, reason, message.clone());
        }
        add(ConditionType::RolloutComplete, holds, reason, message);
    }
    let mut add = |kind, reason, message| add(kind, ConditionStatus::True, reason, message);
    let pending = rotation
        .as_ref()
        .filter(|rotation| rotation.pending_revision.is_some());
    if let Some(pending) = pending {
        let since = time::format(pending.noticed_time);
        let revision = pending.pending_revision.as_deref().unwrap_or_default();
        let (reason, until) = match (pending.waits_for, pending.next_window_time) {
            (Some(WaitsFor::Rollout), _) => (
                Reason::RolloutUnderWay,
                "the rollout of an earlier revision is in progress".to_owned(),
            ),
            (Some(WaitsFor::Interval), next) => (
                Reason::TooSoon,
                format!(
                    "the last rollout started less than minimumInterval ago, and the next can start at {}",
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
        add(ConditionType::RotationPending, reason, message);
    }
    let overdue = rotation::overdue_at(subject.rotation, &sources).filter(|(_, at)| *at <= now);
    if let Some((source, _)) = overdue {
        let max_age = subject.rotation.and_then(|rotation| rotation.max_age);
        let message = format!(
            "key \"{}\" in {}: its version of {} is older than maxAge {}. Rotate it at the source",
            source.key,
            source.store,
            time::format(source.created_time),
            max_age.map(|max_age| max_age.to_string()).unwrap_or_default(),
        );
        add(ConditionType::RotationOverdue, Reason::SourceTooOld, message);
    }
    if let Some((lease, why)) = lease::unrevoked(leases.as_ref()) {
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
        add(ConditionType::LeaseUnrevoked, reason, message);
    }
}

/// Returns the conditions of a store. A store that works can add a notice for its owner.
pub fn store_conditions(
    old: &[Condition],
    result: Result<Option<&str>, &Failure>,
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    let one =
        |kind, holds, reason, message: String| condition(old, kind, holds, reason, &message, generation, now);
    match result {
        Ok(notice) => {
            let mut message = "connected and authenticated".to_owned();
            if let Some(notice) = notice {
                message = bounded(format!("{message}; {notice}"));
            }
            vec![one(
                ConditionType::Ready,
                ConditionStatus::True,
                Reason::StoreReady,
                message,
            )]
        }
        Err(failure) => {
            let message = bounded(failure.message.clone());
            let kind = if failure.is_stalled() {
                ConditionType::Stalled
            } else {
                ConditionType::Reconciling
            };
            vec![
                one(
                    ConditionType::Ready,
                    ConditionStatus::False,
                    failure.reason,
                    message.clone(),
                ),
                one(kind, ConditionStatus::True, failure.reason, message),
            ]
        }
    }
}

fn condition(
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

fn describe_secret(subject: &Subject<'_>) -> String {
    match subject.old.and_then(|old| old.target.as_ref()) {
        Some(target) if subject.drifted => {
            format!("Secret \"{}\" differs from what lockstep wrote", target.name)
        }
        Some(target) if !target.revision.is_empty() => {
            format!(
                "Secret \"{}\" was left unchanged (revision {})",
                target.name, target.revision
            )
        }
        _ => format!("Secret \"{}\" has not been written yet", subject.target_name),
    }
}

/// Shortens a message to [`MAX_MESSAGE_BYTES`].
pub fn bounded(mut message: String) -> String {
    if message.len() > MAX_MESSAGE_BYTES {
        let end = (0..=MAX_MESSAGE_BYTES - 3)
            .rev()
            .find(|at| message.is_char_boundary(*at))
            .unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn target(revision: &str) -> TargetStatus {
        TargetStatus {
            name: "database".into(),
            revision: revision.into(),
            ..TargetStatus::default()
        }
    }

    fn synced(revision: &str) -> Outcome<'static> {
        Outcome::Synced {
            target: target(revision),
            sources: vec![SourceStatus::default()],
            back: false,
            waits: None,
        }
    }

    fn subject(old: Option<&SyncedSecretStatus>) -> Subject<'_> {
        Subject {
            generation: 1,
            refresh: None,
            rotate_now: None,
            rotation: None,
            target_name: "database",
            old,
            drifted: false,
        }
    }

    #[test]
    fn message_names_the_secret_that_was_removed() {
        let removed = |merged| {
            let old = SyncedSecretStatus {
                target: Some(TargetStatus {
                    name: "earlier".into(),
                    merged,
                    ..TargetStatus::default()
                }),
                ..SyncedSecretStatus::default()
            };
            let status = report(&subject(Some(&old)), Outcome::Gone, at(0));
            status.conditions[0].message.clone()
        };
        assert!(removed(false).contains("Delete deleted Secret \"earlier\"."));
        assert!(removed(true).contains("removed the keys of this SyncedSecret from Secret \"earlier\"."));
    }

    #[test]
    fn repeated_report_is_equal_at_any_time() {
        let first = report(&subject(None), synced("9c41"), at(10));
        let second = report(&subject(Some(&first)), synced("9c41"), at(99));
        assert_eq!(first, second);
        assert_eq!(first.target.unwrap().last_change_time, Some(at(10)));
    }

    #[test]
    fn new_revision_keeps_the_transition_time_of_ready() {
        let first = report(&subject(None), synced("7f3a"), at(10));
        let second = report(&subject(Some(&first)), synced("9c41"), at(99));
        assert_eq!(second.target.as_ref().unwrap().last_change_time, Some(at(99)));
        assert_eq!(second.conditions[0].last_transition_time, at(10));
    }

    #[test]
    fn failure_message_describes_the_kept_secret() {
        let first = report(&subject(None), synced("7f3a"), at(10));
        let failure = Failure::new(Reason::InvalidSpec, "data[0] is wrong");
        let failed = report(&subject(Some(&first)), Outcome::Failed(&failure), at(20));
        let ready = failed.condition(ConditionType::Ready).unwrap();
        assert_eq!(
            ready.message,
            "data[0] is wrong. Secret \"database\" was left unchanged (revision 7f3a)"
        );
        let whole_sentence = Failure::new(Reason::InvalidSpec, "data[0] is wrong.");
        assert_eq!(
            report(&subject(Some(&first)), Outcome::Failed(&whole_sentence), at(20)),
            failed
        );
        assert!(
            failed
                .condition(ConditionType::Stalled)
                .unwrap()
                .holds(ConditionType::Stalled)
        );
        assert_eq!(failed.target, first.target);
        let never = report(&subject(None), Outcome::Failed(&failure), at(20));
        assert!(
            never.conditions[0]
                .message
                .ends_with(". Secret \"database\" has not been written yet")
        );
    }

    #[test]
    fn resolved_failure_leaves_no_trace() {
        let failure = Failure::new(Reason::InvalidSpec, "x");
        let failed = report(&subject(None), Outcome::Failed(&failure), at(20));
        let healed = report(&subject(Some(&failed)), synced("9c41"), at(30));
        assert_eq!(healed.conditions.len(), 1);
        assert_eq!(healed.conditions[0].last_transition_time, at(30));
    }

    #[test]
    fn message_contains_no_terminal_control_characters() {
        let failure = Failure::new(
            Reason::SourceNotFound,
            "key \"a\u{1b}[2J\u{202e}\n\" does not exist",
        );
        let status = report(&subject(None), Outcome::Failed(&failure), at(0));
        for condition in &status.conditions {
            assert!(
                !condition.message.chars().any(text::is_hidden),
                "{}",
                condition.message
            );
            assert!(
                condition.message.contains("a\\u{1b}[2J\\u{202e}\\n"),
                "{}",
                condition.message
            );
        }
    }

    #[test]
    fn long_lists_and_messages_are_truncated() {
        let many = Outcome::Synced {
            target: target("a"),
            sources: vec![SourceStatus::default(); 1000],
            back: false,
            waits: None,
        };
        let status = report(&subject(None), many, at(0));
        assert_eq!(
            (status.sources.len(), status.source_count),
            (MAX_SOURCES, Some(1000))
        );
        let failure = Failure::new(Reason::Internal, "ü".repeat(4000));
        let status = report(&subject(None), Outcome::Failed(&failure), at(0));
        assert!(status.conditions[0].message.len() <= MAX_MESSAGE_BYTES);
    }
}
