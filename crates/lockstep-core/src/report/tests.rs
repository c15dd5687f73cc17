use jiff::Timestamp;
use lockstep_api::{ConditionType, Reason, SourceStatus, SyncedSecretStatus, TargetStatus};

use super::{MAX_MESSAGE_BYTES, Outcome, Subject, report};
use crate::{Failure, history::MAX_SOURCES, text};

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
        let status = report(&subject(Some(&old)), Outcome::Gone { left_alone: false }, at(0));
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
    let resolved = report(&subject(Some(&failed)), synced("9c41"), at(30));
    assert_eq!(resolved.conditions.len(), 1);
    assert_eq!(resolved.conditions[0].last_transition_time, at(30));
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
