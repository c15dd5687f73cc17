//! Rollouts, transition by transition.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lockstep_api::{
    OnFailure, PreviousRevision, Rollout, RolloutPhase, RolloutStatus, TargetState, VerificationState,
    Verify, VerifyHttpGet, VerifyJob, WorkloadKind,
};
use lockstep_core::rotation::{
    Check, RolloutInput,
    rollout::{self, MAX_TARGETS, Step},
    verify::{self, Attempt},
    workload::{Observation, Readiness, Target, Workload},
};
use serde_json::json;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn target(name: &str) -> Target {
    Target {
        kind: WorkloadKind::Deployment,
        name: name.to_owned(),
    }
}

fn there(revision: &str, readiness: Readiness) -> Observation {
    Observation::There(Workload {
        uid: "uid".to_owned(),
        revision: (!revision.is_empty()).then(|| revision.to_owned()),
        references: None,
        readiness,
    })
}

fn spec() -> Rollout {
    Rollout {
        progress_deadline: Some("60s".parse().unwrap()),
        soak: Some("10s".parse().unwrap()),
        ..Rollout::default()
    }
}

fn begun(spec: &Rollout, names: &[&str]) -> RolloutStatus {
    let previous = PreviousRevision {
        revision: "old".to_owned(),
        ..PreviousRevision::default()
    };
    let begun = rollout::begin("new", Some(previous), None, spec, at(0));
    let found: Vec<Target> = names.iter().map(|name| target(name)).collect();
    rollout::resolve(&begun, &found, spec, 1, at(0))
}

/// A look at `a` and what follows from it; a restart succeeds.
fn look(
    rollout: &RolloutStatus,
    spec: &Rollout,
    sights: &[(&str, Observation)],
    now: i64,
) -> (RolloutStatus, usize) {
    look_and_check(rollout, spec, sights, &Check::Unknown, now)
}

fn look_and_check(
    rollout: &RolloutStatus,
    spec: &Rollout,
    sights: &[(&str, Observation)],
    check: &Check,
    now: i64,
) -> (RolloutStatus, usize) {
    let seen: BTreeMap<Target, Observation> = sights
        .iter()
        .map(|(name, sight)| (target(name), sight.clone()))
        .collect();
    let cx = RolloutInput {
        spec,
        seen: &seen,
        restarted: &BTreeMap::new(),
        check,
        grant: "grant it",
        now: at(now),
    };
    let Step { mut rollout, restart } = rollout::step(rollout, &cx);
    for (target, _) in &restart {
        rollout::restarted(&mut rollout, target, at(now));
    }
    (rollout, restart.len())
}

fn state(rollout: &RolloutStatus, name: &str) -> TargetState {
    let mut targets = rollout.targets.iter();
    targets.find(|target| target.name == name).unwrap().state
}

#[test]
fn wave_sizes_follow_the_spec() {
    let names = ["a", "b", "c", "d", "e", "f"];
    for (waves, concurrent, expected) in [
        (vec![], None, [1, 2, 3, 4, 5, 6]),
        (vec![], Some(4), [1, 1, 1, 1, 2, 2]),
        (vec![1, 2], None, [1, 2, 2, 3, 3, 4]),
        (vec![2, 100], None, [1, 1, 2, 2, 2, 2]),
    ] {
        let spec = Rollout {
            waves,
            max_concurrent: concurrent,
            ..spec()
        };
        let dealt: Vec<i64> = begun(&spec, &names)
            .targets
            .iter()
            .map(|target| target.wave)
            .collect();
        assert_eq!(dealt, expected);
    }
}

#[test]
fn wave_is_restarted_ready_and_soaked_before_the_next() {
    let spec = spec();
    let (old, new) = (there("", Readiness::Ready), there("new", Readiness::Ready));
    let first = begun(&spec, &["a", "b"]);
    let (restarted, count) = look(&first, &spec, &[("a", old.clone()), ("b", old.clone())], 1);
    assert_eq!(
        (count, state(&restarted, "a"), state(&restarted, "b")),
        (1, TargetState::Updating, TargetState::Waiting)
    );
    let moving = there("new", Readiness::Progressing);
    let (waits, count) = look(&restarted, &spec, &[("a", moving.clone())], 5);
    assert_eq!((count, waits.phase), (0, RolloutPhase::Progressing));
    let (soaks, _) = look(&waits, &spec, &[("a", new.clone())], 10);
    assert_eq!((soaks.phase, soaks.wave), (RolloutPhase::Soaking, 1));
    // one that falls over while it soaks begins anew
    let (fell, _) = look(&soaks, &spec, &[("a", moving)], 12);
    assert_eq!(
        (fell.phase, fell.soak_end_time),
        (RolloutPhase::Progressing, None)
    );
    let (soaks, _) = look(&fell, &spec, &[("a", new.clone())], 15);
    let (early, _) = look(&soaks, &spec, &[("a", new.clone())], 24);
    assert_eq!(early.wave, 1);
    let (next, _) = look(&early, &spec, &[("a", new.clone())], 25);
    assert_eq!((next.wave, state(&next, "a")), (2, TargetState::Ready));
    let (next, count) = look(&next, &spec, &[("b", old)], 26);
    assert_eq!(count, 1);
    let (next, _) = look(&next, &spec, &[("b", new.clone())], 30);
    let (done, _) = look(&next, &spec, &[("b", new)], 40);
    assert_eq!(done.phase, RolloutPhase::Complete);
    assert!(done.previous.is_none() && done.end_time.is_some());
    assert!(rollout::targets_to_observe(&done).is_empty());
}

#[test]
fn late_target_holds_the_rollout_until_it_is_ready() {
    let spec = spec();
    let moving = there("new", Readiness::Progressing);
    let (restarted, _) = look(
        &begun(&spec, &["a", "b"]),
        &spec,
        &[("a", there("", Readiness::Ready))],
        0,
    );
    let (waits, _) = look(&restarted, &spec, &[("a", moving.clone())], 59);
    assert_eq!(waits.phase, RolloutPhase::Progressing);
    let (held, _) = look(&waits, &spec, &[("a", moving.clone())], 60);
    assert_eq!(
        (held.phase, state(&held, "a"), state(&held, "b")),
        (RolloutPhase::Held, TargetState::NotReady, TargetState::Waiting)
    );
    assert!(
        held.message
            .as_ref()
            .unwrap()
            .starts_with("Deployment/a: not ready within progressDeadline 1m")
    );
    assert_eq!(
        look(&held, &spec, &[("a", moving)], 90).0,
        held,
        "nothing new is nothing to write"
    );
    let (unseen, _) = look(&held, &spec, &[], 95);
    assert_eq!(unseen, held, "what is not seen changes nothing");
    let (on, _) = look(&held, &spec, &[("a", there("new", Readiness::Ready))], 100);
    assert_eq!((on.phase, on.message), (RolloutPhase::Soaking, None));
    let retried = rollout::retry(&held, at(200));
    assert_eq!(
        (retried.phase, state(&retried, "a")),
        (RolloutPhase::Progressing, TargetState::Waiting)
    );
}

#[test]
fn only_a_target_that_was_ready_before_causes_a_rollback() {
    let spec = Rollout {
        on_failure: OnFailure::Rollback,
        ..spec()
    };
    for (before, expected) in [
        (
            Readiness::Ready,
            (RolloutPhase::RollingBack, TargetState::NotReady),
        ),
        // it was just scaled, or restarted for another Secret
        (
            Readiness::Progressing,
            (RolloutPhase::RollingBack, TargetState::NotReady),
        ),
        (Readiness::Failed, (RolloutPhase::Held, TargetState::Failing)),
        (Readiness::Unavailable, (RolloutPhase::Held, TargetState::Failing)),
    ] {
        let (mut restarted, mut count) =
            look(&begun(&spec, &["a"]), &spec, &[("a", there("old", before))], 0);
        if expected.1 == TargetState::Failing {
            assert_eq!(count, 0, "that it was failing is noted before the restart");
            (restarted, count) = look(&restarted, &spec, &[("a", there("old", before))], 0);
        }
        assert_eq!(count, 1, "the new value may be the cure");
        let (late, _) = look(
            &restarted,
            &spec,
            &[("a", there("new", Readiness::Progressing))],
            61,
        );
        assert_eq!((late.phase, state(&late, "a")), expected, "{before:?}");
        assert_eq!(late.awaits_rollback(), expected.0 == RolloutPhase::RollingBack);
    }
    // a controller that gives up is believed before the deadline
    let (restarted, _) = look(
        &begun(&spec, &["a"]),
        &spec,
        &[("a", there("old", Readiness::Ready))],
        0,
    );
    let (failed, _) = look(&restarted, &spec, &[("a", there("new", Readiness::Failed))], 5);
    assert_eq!(failed.phase, RolloutPhase::RollingBack);
}

#[test]
fn rollback_restarts_only_restarted_targets_and_ends_there() {
    let spec = Rollout {
        on_failure: OnFailure::Rollback,
        max_concurrent: Some(2),
        ..spec()
    };
    let old = there("old", Readiness::Ready);
    let (restarted, _) = look(
        &begun(&spec, &["a", "b", "c"]),
        &spec,
        &[("a", old.clone()), ("b", old)],
        0,
    );
    let bad = there("new", Readiness::Progressing);
    let (failed, _) = look(
        &restarted,
        &spec,
        &[("a", there("new", Readiness::Ready)), ("b", bad)],
        60,
    );
    assert!(failed.awaits_rollback() && rollout::targets_to_observe(&failed).is_empty());
    let back = rollout::begin_rollback(&failed, "old", &spec, at(61));
    let names: Vec<&str> = back.targets.iter().map(|target| target.name.as_str()).collect();
    assert_eq!(
        (names.as_slice(), back.phase),
        (["b", "a"].as_slice(), RolloutPhase::RollingBack),
        "who is not ready first, the others in waves"
    );
    let both = |sight: &Observation| [("a", sight.clone()), ("b", sight.clone())];
    let (back, count) = look(&back, &spec, &both(&there("new", Readiness::Progressing)), 62);
    assert_eq!(count, 1);
    let (stuck, _) = look(&back, &spec, &both(&there("old", Readiness::Progressing)), 200);
    assert_eq!(stuck.phase, RolloutPhase::Held, "there is nothing to go back to");
    let (on, _) = look(&stuck, &spec, &both(&there("old", Readiness::Ready)), 201);
    assert_eq!((on.phase, on.wave), (RolloutPhase::RollingBack, 2));
    let (done, _) = look(&on, &spec, &both(&there("old", Readiness::Ready)), 202);
    assert_eq!(done.phase, RolloutPhase::RolledBack);
}

#[test]
fn unusual_targets_have_distinct_outcomes() {
    let spec = Rollout { soak: None, ..spec() };
    for (sight, expected, phase) in [
        (Observation::Missing, TargetState::Missing, RolloutPhase::Complete),
        (Observation::Forbidden, TargetState::Forbidden, RolloutPhase::Held),
        (
            Observation::NoTemplate,
            TargetState::NoTemplate,
            RolloutPhase::Held,
        ),
        (
            Observation::NoReference,
            TargetState::NoReference,
            RolloutPhase::Held,
        ),
        (
            there("new", Readiness::ScaledToZero),
            TargetState::ScaledToZero,
            RolloutPhase::Complete,
        ),
        (
            there("new", Readiness::Paused),
            TargetState::Paused,
            RolloutPhase::Held,
        ),
    ] {
        let (next, count) = look(&begun(&spec, &["a"]), &spec, &[("a", sight.clone())], 0);
        assert_eq!(
            (next.phase, state(&next, "a"), count),
            (phase, expected, 0),
            "{sight:?}"
        );
    }
    let rollback = Rollout {
        on_failure: OnFailure::Rollback,
        ..spec.clone()
    };
    let paused = there("new", Readiness::Paused);
    let (held, _) = look(&begun(&rollback, &["a"]), &rollback, &[("a", paused)], 0);
    assert_eq!(held.phase, RolloutPhase::Held, "a pause is nobody's fault");
    // when it is resumed, its time begins
    let moving = there("new", Readiness::Progressing);
    let (resumed, _) = look(&held, &rollback, &[("a", moving.clone())], 1000);
    assert_eq!(
        (resumed.phase, state(&resumed, "a")),
        (RolloutPhase::Progressing, TargetState::Updating)
    );
    let (late, _) = look(&resumed, &rollback, &[("a", moving)], 1060);
    assert_eq!(late.phase, RolloutPhase::RollingBack);
}

#[test]
fn removed_revision_annotation_is_not_written_again() {
    let spec = spec();
    let (restarted, _) = look(
        &begun(&spec, &["a"]),
        &spec,
        &[("a", there("", Readiness::Ready))],
        0,
    );
    let removed = there("", Readiness::Ready);
    let (held, count) = look(&restarted, &spec, &[("a", removed.clone())], 1);
    assert_eq!(
        (held.phase, state(&held, "a"), count),
        (RolloutPhase::Held, TargetState::Overwritten, 0)
    );
    assert_eq!(look(&held, &spec, &[("a", removed.clone())], 100).1, 0);
    let retried = rollout::retry(&held, at(101));
    assert_eq!(
        look(&retried, &spec, &[("a", removed)], 101).1,
        1,
        "who asks for it gets it"
    );
}

#[test]
fn recently_restarted_target_waits_for_its_minimum_interval() {
    let spec = spec();
    let first = begun(&spec, &["a"]);
    let seen = BTreeMap::from([(target("a"), there("", Readiness::Ready))]);
    let restarted = BTreeMap::from([(target("a"), at(100))]);
    for (now, expected) in [(159, 0), (160, 1)] {
        let cx = RolloutInput {
            spec: &spec,
            seen: &seen,
            restarted: &restarted,
            check: &Check::Unknown,
            grant: "",
            now: at(now),
        };
        assert_eq!(rollout::step(&first, &cx).restart.len(), expected);
    }
    // the way back does not wait
    let back = RolloutStatus {
        rollback: true,
        phase: RolloutPhase::RollingBack,
        ..first.clone()
    };
    let cx = RolloutInput {
        spec: &spec,
        seen: &seen,
        restarted: &restarted,
        check: &Check::Unknown,
        grant: "",
        now: at(101),
    };
    assert_eq!(rollout::step(&back, &cx).restart.len(), 1);
    assert_eq!(
        rollout::next_observation(&back, &spec, &restarted, at(120)),
        Some(at(121))
    );
    assert_eq!(
        rollout::next_observation(&first, &spec, &restarted, at(120)),
        Some(at(135)),
        "at most so late"
    );
    assert_eq!(
        rollout::next_observation(&first, &spec, &restarted, at(150)),
        Some(at(160))
    );
}

#[test]
fn spec_change_during_a_rollout_keeps_its_progress() {
    let spec = spec();
    let old = there("", Readiness::Ready);
    let (moving, _) = look(&begun(&spec, &["a", "b", "c"]), &spec, &[("a", old)], 0);
    assert!(rollout::wants_targets(&moving, 2) && !rollout::wants_targets(&moving, 1));
    let found = [target("d"), target("a"), target("c")];
    let next = rollout::resolve(&moving, &found, &spec, 2, at(5));
    let shown: Vec<(&str, i64)> = next
        .targets
        .iter()
        .map(|target| (target.name.as_str(), target.wave))
        .collect();
    assert_eq!(shown, [("a", 1), ("d", 2), ("c", 3)]);
    assert_eq!(state(&next, "a"), TargetState::Updating);
    let none = rollout::resolve(&moving, &[], &spec, 2, at(5));
    assert_eq!(none.phase, RolloutPhase::Complete);
    let others = rollout::resolve(&moving, &[target("d"), target("c")], &spec, 2, at(5));
    assert_eq!(
        rollout::targets_to_observe(&others),
        [target("d")],
        "a wave whose targets all went does not stop the others"
    );
}

fn verified() -> Rollout {
    Rollout {
        verify: Some(Verify {
            job: Some(VerifyJob {
                cron_job: "smoke".to_owned(),
            }),
            timeout: Some("30s".parse().unwrap()),
            ..Verify::default()
        }),
        soak: None,
        ..spec()
    }
}

fn not_yet() -> Check {
    Check::NotYet("Job/x has not finished".to_owned())
}

fn check(rollout: &RolloutStatus) -> (i64, i64, VerificationState) {
    let check = rollout.verification.as_ref().unwrap();
    (check.wave, check.attempt, check.state)
}

/// A rollout whose first wave, `a`, is being verified since second 10.
fn verifying(spec: &Rollout) -> RolloutStatus {
    let new = [("a", there("new", Readiness::Ready))];
    let (verifying, _) = look(&begun(spec, &["a", "b"]), spec, &new, 10);
    assert_eq!(
        (verifying.phase, verifying.wave, check(&verifying)),
        (RolloutPhase::Verifying, 1, (1, 1, VerificationState::Running))
    );
    verifying
}

#[test]
fn every_wave_is_verified_before_the_rollout_continues() {
    let spec = verified();
    let new = |name| [(name, there("new", Readiness::Ready))];
    let first = verifying(&spec);
    assert!(first.phase.is_moving(), "what changes meanwhile waits");
    let (waits, count) = look_and_check(&first, &spec, &new("a"), &not_yet(), 39);
    assert_eq!((waits.phase, waits.wave, count), (RolloutPhase::Verifying, 1, 0));
    assert_eq!(
        look_and_check(&waits, &spec, &new("a"), &Check::Unknown, 39).0,
        waits,
        "what is not seen proves nothing"
    );
    let (next, _) = look_and_check(&waits, &spec, &new("a"), &Check::Passed, 39);
    assert_eq!(
        (next.phase, next.wave, verify::wanted(&next, &spec)),
        (RolloutPhase::Progressing, 2, None)
    );
    let (last, _) = look(&next, &spec, &new("b"), 50);
    assert_eq!(
        (last.phase, check(&last)),
        (RolloutPhase::Verifying, (2, 1, VerificationState::Running))
    );
    let (done, _) = look_and_check(&last, &spec, &new("b"), &Check::Passed, 60);
    assert_eq!(
        (done.phase, check(&done).2),
        (RolloutPhase::Complete, VerificationState::Passed)
    );
}

#[test]
fn failed_or_late_check_stops_the_rollout_until_retry() {
    let back = Rollout {
        on_failure: OnFailure::Rollback,
        ..verified()
    };
    let new = [("a", there("new", Readiness::Ready))];
    let failed = Check::Failed("Job/x failed (BackoffLimitExceeded)".to_owned());
    for (found, now, says) in [
        (failed, 11, "verify: Job/x failed (BackoffLimitExceeded)"),
        (
            not_yet(),
            40,
            "verify: not passed within timeout 30s: Job/x has not finished",
        ),
    ] {
        let spec = verified();
        let (held, _) = look_and_check(&verifying(&spec), &spec, &new, &found, now);
        assert_eq!(
            (held.phase, check(&held).2),
            (RolloutPhase::Held, VerificationState::Failed)
        );
        let message = held.message.clone().unwrap();
        assert!(
            message.starts_with(says) && message.contains("lockstep.dev/rotate-now"),
            "{message}"
        );
        // whatever its targets do meanwhile
        for readiness in [Readiness::Ready, Readiness::Progressing, Readiness::Ready] {
            let sight = [("a", there("new", readiness))];
            let (still, count) = look_and_check(&held, &spec, &sight, &Check::Passed, 500);
            assert_eq!(
                (still.phase, still.wave, count),
                (RolloutPhase::Held, 1, 0),
                "{readiness:?}"
            );
        }
        let again = rollout::retry(&held, at(600));
        let (again, _) = look(&again, &spec, &new, 600);
        assert_eq!(
            (again.phase, check(&again)),
            (RolloutPhase::Verifying, (1, 2, VerificationState::Running))
        );
        let changed = rollout::resolve(&held, &[target("a"), target("b")], &spec, 2, at(600));
        let (changed, _) = look(&changed, &spec, &new, 600);
        assert_eq!(check(&changed), (1, 2, VerificationState::Running));
        let without = Rollout { verify: None, ..spec };
        let (on, _) = look(&held, &without, &new, 600);
        assert_eq!((on.phase, on.wave), (RolloutPhase::Progressing, 2));

        let (gone, _) = look_and_check(&verifying(&back), &back, &new, &found, now);
        assert!(gone.awaits_rollback(), "{:?}", gone.phase);
        assert!(!gone.message.as_ref().unwrap().contains("rotate-now"));
        let returned = rollout::begin_rollback(&gone, "old", &back, at(700));
        assert_eq!(returned.verification, None);
        let old = [("a", there("old", Readiness::Ready))];
        let (returned, _) = look(&returned, &back, &old, 701);
        assert_eq!(
            returned.phase,
            RolloutPhase::RolledBack,
            "the way back is not verified"
        );
    }
}

#[test]
fn blocked_check_causes_no_rollback_and_its_timeout_waits() {
    let spec = Rollout {
        on_failure: OnFailure::Rollback,
        ..verified()
    };
    let new = [("a", there("new", Readiness::Ready))];
    for (found, state) in [
        (
            Check::Forbidden("grant it".to_owned()),
            VerificationState::Forbidden,
        ),
        (
            Check::Blocked("CronJob/smoke does not exist".to_owned()),
            VerificationState::Blocked,
        ),
    ] {
        let (held, _) = look_and_check(&verifying(&spec), &spec, &new, &found, 11);
        assert_eq!((held.phase, check(&held).2), (RolloutPhase::Held, state));
        let (still, _) = look_and_check(&held, &spec, &new, &found, 5000);
        assert_eq!(still, held, "nothing new is nothing to write");
        assert_eq!(look(&held, &spec, &new, 5000).0, held);
        let (on, _) = look_and_check(&held, &spec, &new, &not_yet(), 5000);
        assert_eq!(
            (on.phase, on.message.as_ref(), check(&on)),
            (RolloutPhase::Verifying, None, (1, 1, VerificationState::Running))
        );
        let (late, _) = look_and_check(&on, &spec, &new, &not_yet(), 5030);
        assert!(late.awaits_rollback());
    }
}

#[test]
fn check_without_a_result_is_held_until_there_is_one() {
    let spec = Rollout {
        on_failure: OnFailure::Rollback,
        ..verified()
    };
    let new = [("a", there("new", Readiness::Ready))];
    let (waits, _) = look_and_check(&verifying(&spec), &spec, &new, &Check::Unknown, 39);
    assert_eq!(waits.phase, RolloutPhase::Verifying);
    let (held, _) = look_and_check(&waits, &spec, &new, &Check::Unknown, 40);
    assert_eq!(
        (held.phase, check(&held).2),
        (RolloutPhase::Held, VerificationState::Blocked),
        "nobody's value is to blame"
    );
    let message = held.message.as_ref().unwrap();
    assert!(
        message.starts_with("verify: the result is still unknown after timeout 30s"),
        "{message}"
    );
    assert_eq!(
        look_and_check(&held, &spec, &new, &Check::Unknown, 5000).0,
        held,
        "nothing new is nothing to write"
    );
    let (on, _) = look_and_check(&held, &spec, &new, &not_yet(), 5000);
    assert_eq!((on.phase, &on.message), (RolloutPhase::Verifying, &None));
    let (passed, _) = look_and_check(&held, &spec, &new, &Check::Passed, 5000);
    assert_eq!((passed.phase, passed.wave), (RolloutPhase::Progressing, 2));
}

#[test]
fn status_records_the_created_job_until_a_retry() {
    let new = [("a", there("new", Readiness::Ready))];
    let by_job = verified();
    let mut by_request = verified();
    by_request.verify = Some(Verify {
        job: None,
        http_get: Some(VerifyHttpGet::default()),
        ..by_request.verify.unwrap()
    });
    let made = |spec: &Rollout, found: &Check| {
        let (next, _) = look_and_check(&verifying(spec), spec, &new, found, 11);
        next.verification.unwrap().job_created
    };
    for found in [not_yet(), Check::Passed, Check::Failed("x".to_owned())] {
        assert!(made(&by_job, &found), "{found:?}");
        assert!(!made(&by_request, &found), "a request makes no Job: {found:?}");
    }
    for found in [
        Check::Unknown,
        Check::Blocked("x".to_owned()),
        Check::Forbidden("x".to_owned()),
    ] {
        assert!(!made(&by_job, &found), "{found:?}");
    }

    let (running, _) = look_and_check(&verifying(&by_job), &by_job, &new, &not_yet(), 11);
    let attempt = Attempt {
        synced_secret: "database",
        uid: "uid",
        rollout: &running,
        verification: running.verification.as_ref().unwrap(),
    };
    let cleared = verify::deleted_job_result(&attempt);
    let (held, _) = look_and_check(&running, &by_job, &new, &cleared, 12);
    let message = held.message.as_ref().unwrap();
    assert!(
        held.phase == RolloutPhase::Held && message.contains("rotate-now"),
        "{message}"
    );
    assert!(held.verification.as_ref().unwrap().job_created);
    let (again, _) = look(&rollout::retry(&held, at(20)), &by_job, &new, 20);
    assert_eq!(check(&again), (1, 2, VerificationState::Running));
    assert!(
        !again.verification.unwrap().job_created,
        "another attempt has a Job of its own"
    );
}

#[test]
fn verification_job_is_kept_for_at_least_an_hour() {
    let spec = verified();
    let rollout = verifying(&spec);
    let attempt = Attempt {
        synced_secret: "database",
        uid: "uid",
        rollout: &rollout,
        verification: rollout.verification.as_ref().unwrap(),
    };
    for (said, stays) in [
        (None, 3600),
        (Some(0), 3600),
        (Some(60), 3600),
        (Some(86_400), 86_400),
    ] {
        let cron_job = json!({
            "metadata": { "name": "smoke", "uid": "u" },
            "spec": { "jobTemplate": { "spec": { "ttlSecondsAfterFinished": said, "template": {} } } },
        });
        let job = verify::job(&attempt, spec.verify.as_ref().unwrap(), &cron_job).unwrap();
        assert_eq!(job["spec"]["ttlSecondsAfterFinished"], stays, "{said:?}");
    }
}

#[test]
fn target_that_fails_during_verification_restarts_it() {
    let spec = verified();
    let (fell, _) = look_and_check(
        &verifying(&spec),
        &spec,
        &[("a", there("new", Readiness::Progressing))],
        &Check::Passed,
        11,
    );
    assert_eq!(
        (fell.phase, fell.wave, check(&fell)),
        (
            RolloutPhase::Progressing,
            1,
            (1, 1, VerificationState::Superseded)
        )
    );
    assert_eq!(verify::wanted(&fell, &spec), None);
    let (anew, _) = look(&fell, &spec, &[("a", there("new", Readiness::Ready))], 12);
    assert_eq!(check(&anew), (1, 2, VerificationState::Running));
}

fn previous(revision: &str) -> Option<PreviousRevision> {
    Some(PreviousRevision {
        revision: revision.to_owned(),
        ..PreviousRevision::default()
    })
}

#[test]
fn rollback_over_two_unfinished_rollouts_covers_all_targets() {
    let spec = Rollout { soak: None, ..spec() };
    let names = [target("a"), target("b"), target("c")];
    // "a" got "second" and "third", "b" got "second" alone, "c" neither
    let old = || there("old", Readiness::Ready);
    let two = Rollout {
        max_concurrent: Some(2),
        ..spec.clone()
    };
    let (mut second, _) = look(
        &begun(&two, &["a", "b", "c"]),
        &two,
        &[("a", old()), ("b", old())],
        0,
    );
    second.phase = RolloutPhase::Held;
    let third = rollout::begin("third", previous("new"), Some(&second), &spec, at(10));
    assert_eq!(third.touched, ["Deployment/a", "Deployment/b"]);
    assert_eq!(third.previous, previous("old"));
    let third = rollout::resolve(&third, &names, &spec, 1, at(10));
    let (mut third, _) = look(&third, &spec, &[("a", there("new", Readiness::Progressing))], 10);
    assert!(
        !third.targets[0].was_failing,
        "what the value before it broke was not failing before"
    );
    third.phase = RolloutPhase::Held;
    let both = |rollout: &RolloutStatus| {
        let targets = rollout.targets.iter().map(|target| target.name.clone());
        targets.collect::<Vec<_>>()
    };
    let back = rollout::begin("old", previous("third"), Some(&third), &spec, at(20));
    assert_eq!(
        (both(&back), back.previous.clone()),
        (vec!["a".to_owned(), "b".to_owned()], None)
    );
    let back = rollout::begin_rollback(&third, "old", &spec, at(20));
    assert_eq!(both(&back), ["a", "b"]);
    // over one, those that were not restarted never left it
    let back = rollout::begin("old", previous("new"), Some(&second), &spec, at(20));
    assert_eq!(both(&back), ["a", "b"]);
    let all = rollout::begin_rollback(&rollout::mark_all_restarted(&third), "old", &spec, at(20));
    assert_eq!(all.targets.len(), 3);
}

#[test]
fn retry_before_a_rollback_starts_is_accepted() {
    let spec = Rollout {
        on_failure: OnFailure::Rollback,
        ..spec()
    };
    let (moving, _) = look(
        &begun(&spec, &["a"]),
        &spec,
        &[("a", there("old", Readiness::Ready))],
        0,
    );
    let (failed, _) = look(&moving, &spec, &[("a", there("new", Readiness::Failed))], 5);
    assert!(failed.awaits_rollback());
    let again = rollout::retry(&failed, at(10));
    assert_eq!(
        (again.phase, again.message.as_ref()),
        (RolloutPhase::Progressing, None)
    );
    assert_eq!(again.previous, previous("old"), "it can still be rolled back");
}

#[test]
fn too_many_selected_targets_hold_the_rollout() {
    let spec = spec();
    let names: Vec<String> = (0..=MAX_TARGETS).map(|nth| format!("t{nth}")).collect();
    let found: Vec<Target> = names.iter().map(|name| target(name)).collect();
    let first = rollout::begin("new", previous("old"), None, &spec, at(0));
    let held = rollout::resolve(&first, &found, &spec, 1, at(0));
    assert_eq!(held.phase, RolloutPhase::Held);
    assert!(
        held.message.as_ref().unwrap().contains("257 workloads match"),
        "{held:?}"
    );
    assert!(held.targets.is_empty() && rollout::wants_targets(&held, 1));
    assert!(rollout::next_observation(&held, &spec, &BTreeMap::new(), at(0)).is_some());
    let fits = rollout::resolve(&held, &found[1..], &spec, 1, at(20));
    assert_eq!(
        (fits.phase, fits.targets.len()),
        (RolloutPhase::Progressing, MAX_TARGETS)
    );
    assert_eq!(fits.message, None);
}
