//! Windows against a second implementation that walks every minute, and what a status says of a rotation.

use std::time::Duration;

use jiff::{Timestamp, ToSpan, civil, tz::TimeZone};
use lockstep_api::{
    ConditionType, Reason, Rotation, RotationPhase, RotationWindow, SourceStatus, StoreKind, StoreRef,
    SyncedSecretStatus, TargetStatus, WaitsFor,
};
use lockstep_core::{
    report::{Outcome, Subject, report},
    rotation::{self, Change, Entry, Opening, Windows},
    time::later,
};
use proptest::prelude::*;

fn window(schedule: &str, minutes: u64, zone: &str) -> RotationWindow {
    RotationWindow {
        schedule: schedule.to_owned(),
        duration: lockstep_api::Duration::from_secs(minutes * 60),
        time_zone: Some(zone.to_owned()),
    }
}

fn windows(schedule: &str, minutes: u64, zone: &str) -> Windows {
    Windows::new(&[window(schedule, minutes, zone)]).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn closed(next: &str) -> Opening {
    Opening::Closed { next: Some(at(next)) }
}

#[test]
fn window_is_open_from_its_first_to_its_last_second() {
    let nightly = windows("0 2 * * 1-5", 180, "Europe/Berlin");
    for (now, expected) in [
        // Monday, in winter an hour ahead of UTC
        ("2026-01-05T00:59:59Z", closed("2026-01-05T01:00:00Z")),
        ("2026-01-05T01:00:00Z", Opening::Open),
        ("2026-01-05T03:59:59Z", Opening::Open),
        ("2026-01-05T04:00:00Z", closed("2026-01-06T01:00:00Z")),
        // Saturday
        ("2026-01-10T02:00:00Z", closed("2026-01-12T01:00:00Z")),
    ] {
        assert_eq!(nightly.at(at(now)), expected, "{now}");
    }
}

#[test]
fn daylight_saving_moves_windows_and_never_skips_one() {
    let nightly = windows("30 2 * * *", 60, "Europe/Berlin");
    for (now, expected) in [
        // on 2026-03-29 the clock goes from 02:00 to 03:00, which is 01:00 UTC: there is no 02:30
        ("2026-03-29T00:59:59Z", closed("2026-03-29T01:00:00Z")),
        ("2026-03-29T01:00:00Z", Opening::Open),
        ("2026-03-29T02:00:00Z", closed("2026-03-30T00:30:00Z")),
        // on 2026-10-25 it goes from 03:00 to 02:00: there are two 02:30, and the window opens at the first
        ("2026-10-25T00:30:00Z", Opening::Open),
        ("2026-10-25T01:30:00Z", closed("2026-10-26T01:30:00Z")),
    ] {
        assert_eq!(nightly.at(at(now)), expected, "{now}");
    }
}

#[test]
fn window_across_a_clock_change_keeps_its_elapsed_duration() {
    let night = windows("0 1 * * *", 180, "Europe/Berlin");
    // from 01:00 winter time to 05:00 summer time: three hours
    assert_eq!(night.at(at("2026-03-29T02:59:59Z")), Opening::Open);
    assert_ne!(night.at(at("2026-03-29T03:00:00Z")), Opening::Open);
}

#[test]
fn named_schedules_work_and_no_windows_means_open() {
    assert_eq!(Windows::default().at(at("2026-01-01T00:00:00Z")), Opening::Open);
    for (name, next) in [
        ("@hourly", "2026-01-02T05:00:00Z"),
        ("@daily", "2026-01-03T00:00:00Z"),
        ("@weekly", "2026-01-04T00:00:00Z"),
        ("@monthly", "2026-02-01T00:00:00Z"),
        ("@yearly", "2027-01-01T00:00:00Z"),
        ("0 0 1 JAN *", "2027-01-01T00:00:00Z"),
    ] {
        assert_eq!(
            windows(name, 1, "UTC").at(at("2026-01-02T04:30:00Z")),
            closed(next),
            "{name}"
        );
    }
}

#[test]
fn invalid_window_is_named_with_the_reason() {
    for (window, says) in [
        (
            window("0 2 * *", 60, "UTC"),
            "rotation.windows[0].schedule: \"0 2 * *\" is not a valid schedule",
        ),
        (
            window("0 25 * * *", 60, "UTC"),
            "is not a valid schedule. Use five cron fields",
        ),
        (
            window("0 0 2 * * *", 60, "UTC"),
            "is not a valid schedule. Use five cron fields",
        ),
        (
            window("@noon", 60, "UTC"),
            "is not a valid schedule. Use five cron fields",
        ),
        (
            window("0 2 * * ü", 60, "UTC"),
            "is not a valid schedule. Use five cron fields",
        ),
        (window("0 2 30 2 *", 60, "UTC"), "never matches a date"),
        (
            window("0 2 * * *", 60, "Europe/Berlim"),
            "\"Europe/Berlim\" is not a time zone",
        ),
        (
            window("0 2 * * *", 0, "UTC"),
            "rotation.windows[0].duration: must be at least 1m",
        ),
    ] {
        let rotation = Rotation {
            windows: vec![window],
            ..Rotation::default()
        };
        let failure = rotation::windows(Some(&rotation)).unwrap_err();
        assert_eq!(failure.reason, Reason::InvalidSpec);
        assert!(failure.message.contains(says), "{}", failure.message);
    }
}

/// A field of a schedule: a number, or any.
type Field = Option<i8>;

/// The second implementation: every minute of some days is compared with the schedule.
fn occurrences(
    minute: Field,
    hour: Field,
    weekday: Field,
    zone: &TimeZone,
    from: Timestamp,
    to: Timestamp,
) -> Vec<Timestamp> {
    let is = |field: Field, value: i8| field.is_none_or(|field| field == value);
    let on = |date: civil::Date| is(weekday, date.weekday().to_sunday_zero_offset());
    let matches =
        |time: civil::DateTime| is(minute, time.minute()) && is(hour, time.hour()) && on(time.date());
    let fixed = minute.is_some() && hour.is_some();
    let mut all = Vec::new();
    let mut now = from;
    while now < to {
        let here = zone.to_datetime(now);
        let first = zone.to_ambiguous_zoned(here).compatible().unwrap().timestamp() == now;
        if here.second() == 0 && matches(here) && (first || !fixed) {
            all.push(now);
        }
        // the minutes that the clock skips right before this one
        let before = zone.to_datetime(now - 1.minute());
        let skipped = before.until(here).unwrap().total(jiff::Unit::Minute).unwrap();
        if fixed && skipped > 1.0 && on(here.date()) {
            let mut gone = before + 1.minute();
            while gone < here {
                if matches(gone) {
                    all.push(now);
                }
                gone += 1.minute();
            }
        }
        now += 1.minute();
    }
    all.dedup();
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn windows_match_a_minute_by_minute_reference(
        minute in prop::option::of(prop::sample::select(vec![0_i8, 15, 30, 59])),
        hour in prop::option::of(0_i8..24),
        weekday in prop::option::of(0_i8..7),
        length in prop::sample::select(vec![1_u64, 7, 60, 90, 240, 1500]),
        zone in prop::sample::select(vec![
            ("Europe/Berlin", "2026-03-29T01:00:00Z"), ("Europe/Berlin", "2026-10-25T01:00:00Z"),
            ("America/New_York", "2026-03-08T07:00:00Z"), ("America/New_York", "2026-11-01T06:00:00Z"),
            ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"), ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
            ("Asia/Kathmandu", "2026-05-05T00:00:00Z"), ("UTC", "2028-02-29T00:00:00Z"),
        ]),
        looks in prop::collection::vec(-3000_i64..3000, 12),
    ) {
        let (name, change) = zone;
        let zone = TimeZone::get(name).unwrap();
        let field = |field: Field| field.map_or_else(|| "*".to_owned(), |number| number.to_string());
        let schedule = format!("{} {} * * {}", field(minute), field(hour), field(weekday));
        let windows = windows(&schedule, length, name);
        let (from, to) = (at(change) - 240.hours(), at(change) + 240.hours());
        let all = occurrences(minute, hour, weekday, &zone, from, to);
        for look in looks {
            let now = at(change) + look.minutes() + 17.seconds();
            let open = all.iter().any(|begins| *begins <= now && now < later(*begins, Duration::from_secs(length * 60)));
            let next = all.iter().find(|begins| **begins > now).copied();
            match windows.at(now) {
                Opening::Open => prop_assert!(open, "{schedule} in {name} at {now}: open, and should not be"),
                Opening::Closed { next: found } => {
                    prop_assert!(!open, "{schedule} in {name} at {now}: closed, and should not be");
                    prop_assert_eq!(found, next, "{} in {} at {}", schedule, name, now);
                }
            }
        }
    }
}

fn written(revision: &str) -> TargetStatus {
    TargetStatus {
        name: "database".to_owned(),
        revision: revision.to_owned(),
        ..TargetStatus::default()
    }
}

#[test]
fn only_changed_values_wait() {
    let nightly = windows("0 2 * * *", 60, "UTC");
    let noon = at("2026-01-01T12:00:00Z");
    let target = written("7f3a");
    let change = Change {
        written: Some(&target),
        target_name: "database",
        revision: "9c41",
        drifted: false,
        requested: false,
        rollout: None,
        last_rollout: None,
    };
    let entry = |change| rotation::entry(&nightly, &change, noon);
    assert_eq!(
        entry(change),
        Entry::Wait(WaitsFor::Window, Some(at("2026-01-02T02:00:00Z")))
    );
    assert_eq!(
        rotation::entry(&nightly, &change, at("2026-01-02T02:00:00Z")),
        Entry::Now
    );
    assert_eq!(rotation::entry(&Windows::default(), &change, noon), Entry::Now);
    for free in [
        Change {
            written: None,
            ..change
        },
        Change {
            target_name: "renamed",
            ..change
        },
        Change {
            revision: "7f3a",
            ..change
        },
        Change {
            drifted: true,
            ..change
        },
        Change {
            requested: true,
            ..change
        },
    ] {
        assert_eq!(entry(free), Entry::Now, "{free:?}");
    }
}

fn subject<'a>(
    rotation: &'a Rotation,
    old: Option<&'a SyncedSecretStatus>,
    rotate_now: Option<&'a str>,
) -> Subject<'a> {
    Subject {
        generation: 1,
        refresh: None,
        rotate_now,
        rotation: Some(rotation),
        target_name: "database",
        old,
        drifted: false,
    }
}

fn source(created: &str) -> SourceStatus {
    SourceStatus {
        store: StoreRef::new(StoreKind::SecretStore, "vault"),
        key: "shop/database".to_owned(),
        version: Some("12".to_owned()),
        created_time: Some(created.parse().unwrap()),
    }
}

fn synced(revision: &str, created: &str) -> Outcome<'static> {
    Outcome::Synced {
        target: written(revision),
        sources: vec![source(created)],
        back: false,
        waits: None,
    }
}

#[test]
fn two_pending_changes_are_one_since_the_first() {
    let rotation = Rotation {
        windows: vec![window("0 2 * * *", 60, "UTC")],
        ..Rotation::default()
    };
    let first = report(
        &subject(&rotation, None, None),
        synced("7f3a", "2026-01-01T00:00:00Z"),
        at("2026-01-01T02:00:00Z"),
    );
    assert_eq!(first.rotation.as_ref().unwrap().phase, RotationPhase::Complete);
    let (noon, three) = (at("2026-01-01T12:00:00Z"), at("2026-01-01T15:00:00Z"));
    let opens = at("2026-01-02T02:00:00Z");
    let waits = |old: &SyncedSecretStatus, revision: &str, now| {
        let pending = rotation::pending(
            old.rotation.as_ref(),
            revision.to_owned(),
            WaitsFor::Window,
            Some(opens),
            now,
        );
        report(&subject(&rotation, Some(old), None), Outcome::Waits(pending), now)
    };
    let one = waits(&first, "9c41", noon);
    let condition = one.condition(ConditionType::RotationPending).unwrap();
    assert_eq!(condition.reason, "WindowClosed");
    assert_eq!(
        condition.message,
        "Revision 9c41 is pending since 2026-01-01T12:00:00Z; the next window opens at 2026-01-02T02:00:00Z. To write it now, set the annotation lockstep.dev/rotate-now of the SyncedSecret to a new value"
    );
    assert_eq!(
        one.condition(ConditionType::Ready).unwrap().message,
        "Secret \"database\" was left unchanged (revision 7f3a). A newer value is pending"
    );
    assert_eq!((&one.target, &one.sources), (&first.target, &first.sources));
    assert_eq!(waits(&one, "9c41", three), one, "nothing new is nothing to write");
    let two = waits(&one, "ab12", three);
    let pending = two.rotation.as_ref().unwrap();
    assert_eq!(
        pending.noticed_time,
        Some("2026-01-01T12:00:00Z".parse().unwrap())
    );
    assert_eq!(pending.pending_revision.as_deref(), Some("ab12"));
    let written = report(
        &subject(&rotation, Some(&two), None),
        synced("ab12", "2026-01-01T14:00:00Z"),
        opens,
    );
    assert!(written.condition(ConditionType::RotationPending).is_none());
    assert_eq!(written.rotation.unwrap().noticed_time, None);
}

#[test]
fn pending_value_stays_reported_while_a_store_fails() {
    let rotation = Rotation {
        windows: vec![window("0 2 * * *", 60, "UTC")],
        ..Rotation::default()
    };
    let now = at("2026-01-01T12:00:00Z");
    let first = report(
        &subject(&rotation, None, None),
        synced("7f3a", "2026-01-01T00:00:00Z"),
        now,
    );
    let pending = rotation::pending(None, "9c41".to_owned(), WaitsFor::Window, None, now);
    let waits = report(
        &subject(&rotation, Some(&first), None),
        Outcome::Waits(pending),
        now,
    );
    let failure = lockstep_core::Failure::new(Reason::Unavailable, "the store does not answer");
    let failed = report(
        &subject(&rotation, Some(&waits), None),
        Outcome::Failed(&failure),
        now,
    );
    assert!(failed.condition(ConditionType::RotationPending).is_some());
    assert_eq!(failed.rotation, waits.rotation);
}

#[test]
fn overdue_is_based_on_the_age_of_the_version() {
    let rotation = Rotation {
        max_age: Some("30d".parse().unwrap()),
        ..Rotation::default()
    };
    let created = "2026-01-01T00:00:00Z";
    let young = report(
        &subject(&rotation, None, None),
        synced("7f3a", created),
        at("2026-01-30T23:59:59Z"),
    );
    assert!(young.condition(ConditionType::RotationOverdue).is_none());
    let old = report(
        &subject(&rotation, Some(&young), None),
        Outcome::Unchanged,
        at("2026-01-31T00:00:00Z"),
    );
    let condition = old.condition(ConditionType::RotationOverdue).unwrap();
    assert_eq!(
        condition.message,
        "key \"shop/database\" in SecretStore/vault: its version of 2026-01-01T00:00:00Z is older than maxAge 30d. Rotate it at the source"
    );
    assert_eq!(
        old.condition(ConditionType::Ready),
        young.condition(ConditionType::Ready)
    );
    let rotated = report(
        &subject(&rotation, Some(&old), None),
        synced("9c41", "2026-02-01T00:00:00Z"),
        at("2026-02-01T00:00:10Z"),
    );
    assert!(rotated.condition(ConditionType::RotationOverdue).is_none());
}

#[test]
fn rotate_now_is_handled_once() {
    let rotation = Rotation::default();
    let now = at("2026-01-01T12:00:00Z");
    let heard = report(
        &subject(&rotation, None, Some("1")),
        synced("7f3a", "2026-01-01T00:00:00Z"),
        now,
    );
    assert_eq!(heard.rotation.unwrap().handled_rotate_now.as_deref(), Some("1"));
    let frozen = report(
        &subject(&rotation, None, Some("1")),
        Outcome::Acknowledged { suspended: true },
        now,
    );
    assert_eq!(frozen.rotation.unwrap().handled_rotate_now.as_deref(), Some("1"));
    let failure = lockstep_core::Failure::new(Reason::Unavailable, "the store does not answer");
    let failed = report(
        &subject(&rotation, None, Some("1")),
        Outcome::Failed(&failure),
        now,
    );
    assert_eq!(failed.rotation, None, "it is let in when the store answers");
}
