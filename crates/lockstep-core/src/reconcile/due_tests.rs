use std::sync::LazyLock;

use lockstep_api::{Condition, TargetStatus};

use jiff::SignedDuration;
use lockstep_api::{ConditionStatus, SyncedSecretSpec, SyncedSecretStatus};

use super::*;
use crate::{Failure, fingerprint::FingerprintKey, lease::Issuer, schedule::RefreshSchedule};

static KEY: LazyLock<FingerprintKey> = LazyLock::new(|| FingerprintKey::new([7; 32]).unwrap());

const SETTINGS: Settings = Settings {
    drift_probe_interval: Duration::from_secs(600),
    issue_timeout: Duration::from_secs(180),
    deletion_delay: Duration::ZERO,
    process_seed: 7,
};

const WITHOUT_PROBES: Settings = Settings {
    drift_probe_interval: Duration::ZERO,
    ..SETTINGS
};

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn after(seconds: u64) -> Timestamp {
    later(now(), Duration::from_secs(seconds))
}

fn ready(status: ConditionStatus, reason: Reason) -> SyncedSecretStatus {
    SyncedSecretStatus {
        observed_generation: Some(1),
        conditions: vec![Condition {
            kind: ConditionType::Ready,
            status,
            reason: reason.to_string(),
            message: String::new(),
            last_transition_time: now(),
            observed_generation: Some(1),
        }],
        target: Some(TargetStatus::default()),
        ..SyncedSecretStatus::default()
    }
}

fn synced() -> SyncedSecretStatus {
    ready(ConditionStatus::True, Reason::Synced)
}

fn observed<'a>(spec: &'a SyncedSecretSpec, status: Option<&'a SyncedSecretStatus>) -> Observed<'a> {
    Observed {
        uid: "uid",
        generation: 1,
        deleting: false,
        deleted_at: None,
        guarded: false,
        ahead: SignedDuration::ZERO,
        refresh: None,
        rotate_now: None,
        spec,
        status,
        issuer: Issuer {
            key: &KEY,
            uid: "uid",
            namespace: "shop",
            name: "database",
        },
    }
}

#[test]
fn new_object_is_synced_at_once() {
    let spec = SyncedSecretSpec::default();
    let step = decide(&observed(&spec, None), &mut Memory::default(), SETTINGS, now());
    assert_eq!(step, Step::Fetch(Trigger::First));
}

#[test]
fn object_in_sync_is_idle_until_something_is_due() {
    let (spec, status) = (SyncedSecretSpec::default(), synced());
    let mut memory = Memory::default();
    let object = observed(&spec, Some(&status));
    memory.succeeded(&object, SETTINGS, RefreshSchedule::Free, now());
    let Step::Idle(wait) = decide(&object, &mut memory, SETTINGS, now()) else {
        panic!("not idle")
    };
    assert!(
        wait >= Duration::from_secs(600) && wait <= Duration::from_secs(660),
        "{wait:?}"
    );
    assert_eq!(decide(&object, &mut memory, SETTINGS, after(661)), Step::Probe);
    assert_eq!(
        decide(&object, &mut memory, SETTINGS, after(3961)),
        Step::Fetch(Trigger::Interval)
    );
}

#[test]
fn frequent_refreshes_do_not_delay_drift_probes() {
    let spec = SyncedSecretSpec {
        refresh_interval: Some(lockstep_api::Duration::from_secs(60)),
        ..SyncedSecretSpec::default()
    };
    let status = synced();
    let mut memory = Memory::default();
    let object = observed(&spec, Some(&status));
    let mut probes = 0;
    for second in 0..3600 {
        match decide(&object, &mut memory, SETTINGS, after(second)) {
            Step::Fetch(_) => memory.succeeded(&object, SETTINGS, RefreshSchedule::Free, after(second)),
            Step::Probe => {
                probes += 1;
                memory.probed(&object, SETTINGS, after(second));
            }
            _ => {}
        }
    }
    assert!((5..=7).contains(&probes), "{probes} probes in an hour");
}

#[test]
fn refreshes_after_a_restart_spread_over_ten_minutes() {
    let (spec, status) = (SyncedSecretSpec::default(), synced());
    let due: Vec<_> = (0..100)
        .map(|n| {
            let uid = format!("uid-{n}");
            let object = Observed {
                uid: &uid,
                ..observed(&spec, Some(&status))
            };
            let mut memory = Memory::default();
            decide(&object, &mut memory, SETTINGS, now());
            memory.next_refresh.unwrap()
        })
        .collect();
    assert!(due.iter().all(|at| *at <= after(600)));
    assert!(due.iter().filter(|at| **at < after(300)).count() > 25);
    assert!(due.iter().filter(|at| **at > after(300)).count() > 25);
}

#[test]
fn changed_spec_refresh_or_dependency_causes_one_sync() {
    let (spec, mut status) = (SyncedSecretSpec::default(), synced());
    let mut memory = Memory::default();
    let object = observed(&spec, Some(&status));
    memory.succeeded(&object, SETTINGS, RefreshSchedule::Free, now());
    let changed = Observed {
        generation: 2,
        ..object
    };
    assert_eq!(
        decide(&changed, &mut memory, SETTINGS, now()),
        Step::Fetch(Trigger::SpecChanged)
    );
    let asked = Observed {
        refresh: Some("x"),
        ..object
    };
    assert_eq!(
        decide(&asked, &mut memory, SETTINGS, now()),
        Step::Fetch(Trigger::Requested)
    );
    assert_eq!(
        decide(&object, &mut memory, SETTINGS, now()),
        Step::Probe,
        "who asks for a refresh wants the Secret to be looked at, too"
    );
    memory.probed(&object, SETTINGS, now());
    memory.dirty = true;
    assert_eq!(
        decide(&object, &mut memory, SETTINGS, now()),
        Step::Fetch(Trigger::Dependency)
    );
    memory.begin(&object);
    assert!(matches!(
        decide(&object, &mut memory, SETTINGS, now()),
        Step::Idle(_)
    ));
    status.handled_refresh = Some("x".into());
    let handled = Observed {
        refresh: Some("x"),
        ..observed(&spec, Some(&status))
    };
    assert!(matches!(
        decide(&handled, &mut memory, SETTINGS, now()),
        Step::Idle(_)
    ));
}

#[test]
fn failure_waits_for_its_retry_even_if_its_status_is_lost() {
    let spec = SyncedSecretSpec::default();
    let object = observed(&spec, None);
    let mut memory = Memory::default();
    memory.begin(&object);
    memory.failed(&object, &Failure::new(Reason::Malformed, "x"), now());
    assert!(matches!(
        decide(&object, &mut memory, SETTINGS, now()),
        Step::Idle(_)
    ));
    assert_eq!(
        decide(&object, &mut memory, SETTINGS, after(700)),
        Step::Fetch(Trigger::Retry)
    );
    memory.dirty = true;
    assert_eq!(
        decide(&object, &mut memory, SETTINGS, now()),
        Step::Fetch(Trigger::First),
        "a dependency does not wait"
    );
    memory.dirty = false;
    let changed = Observed {
        generation: 2,
        ..object
    };
    assert_eq!(
        decide(&changed, &mut memory, SETTINGS, now()),
        Step::Fetch(Trigger::First),
        "a new spec does not wait"
    );
}

#[test]
fn failure_of_an_earlier_process_is_retried_at_once() {
    let (spec, status) = (
        SyncedSecretSpec::default(),
        ready(ConditionStatus::False, Reason::Unavailable),
    );
    let step = decide(
        &observed(&spec, Some(&status)),
        &mut Memory::default(),
        SETTINGS,
        now(),
    );
    assert_eq!(step, Step::Fetch(Trigger::Retry));
}

#[test]
fn suspension_is_reported_once_and_resuming_syncs() {
    let spec = SyncedSecretSpec {
        suspend: true,
        ..SyncedSecretSpec::default()
    };
    let status = synced();
    assert_eq!(
        decide(
            &observed(&spec, Some(&status)),
            &mut Memory::default(),
            SETTINGS,
            now()
        ),
        Step::Acknowledge
    );
    let suspended = ready(ConditionStatus::True, Reason::Suspended);
    assert_eq!(
        decide(
            &observed(&spec, Some(&suspended)),
            &mut Memory::default(),
            SETTINGS,
            now()
        ),
        Step::Await
    );
    let resumed = SyncedSecretSpec::default();
    let mut memory = Memory::default();
    decide(&observed(&spec, Some(&suspended)), &mut memory, SETTINGS, now());
    let object = observed(&resumed, Some(&suspended));
    assert_eq!(
        decide(&object, &mut memory, SETTINGS, now()),
        Step::Fetch(Trigger::Retry)
    );
    memory.succeeded(&object, SETTINGS, RefreshSchedule::Free, now());
    assert_eq!(
        decide(&observed(&resumed, Some(&status)), &mut memory, SETTINGS, now()),
        Step::Probe,
        "the Secret may be another one since"
    );
}

#[test]
fn created_once_never_reads_again_but_probes_the_secret() {
    let spec = SyncedSecretSpec {
        refresh_policy: RefreshPolicy::CreatedOnce,
        ..SyncedSecretSpec::default()
    };
    let status = synced();
    let mut memory = Memory {
        dirty: true,
        ..Memory::default()
    };
    let object = observed(&spec, Some(&status));
    assert!(matches!(
        decide(&object, &mut memory, SETTINGS, now()),
        Step::Idle(_)
    ));
    assert_eq!(decide(&object, &mut memory, SETTINGS, after(700)), Step::Probe);
    let changed = Observed {
        generation: 2,
        ..object
    };
    assert_eq!(decide(&changed, &mut memory, SETTINGS, now()), Step::Acknowledge);
}

/// The process ended after the Secret was recorded and before it was made immutable.
#[test]
fn unsealed_secret_is_synced_under_every_policy() {
    let mut status = synced();
    let entry = TargetStatus {
        name: "database".to_owned(),
        uid: "uid".to_owned(),
        ..TargetStatus::default()
    };
    status.target = Some(TargetStatus {
        fingerprint: "complete".to_owned(),
        ..entry.clone()
    });
    status.versions.push(entry);
    for refresh_policy in [
        RefreshPolicy::CreatedOnce,
        RefreshPolicy::OnChange,
        RefreshPolicy::Periodic,
    ] {
        let spec = SyncedSecretSpec {
            refresh_policy,
            ..SyncedSecretSpec::default()
        };
        let step = decide(
            &observed(&spec, Some(&status)),
            &mut Memory::default(),
            SETTINGS,
            now(),
        );
        assert!(matches!(step, Step::Fetch(_)), "{refresh_policy:?}: {step:?}");
        // a failed attempt waits for its retry
        let mut memory = Memory::default();
        let object = observed(&spec, Some(&status));
        memory.begin(&object);
        let failure = Failure::new(Reason::WriteFailed, "no").requeued(crate::remote::Requeue::Backoff);
        memory.failed(&object, &failure, now());
        let step = decide(&object, &mut memory, SETTINGS, now());
        assert!(matches!(step, Step::Idle(_)), "{refresh_policy:?}: {step:?}");
    }
    // and once for each attempt where it cannot be: while it is suspended
    let suspended = SyncedSecretSpec {
        suspend: true,
        ..SyncedSecretSpec::default()
    };
    let mut status = ready(ConditionStatus::False, Reason::Suspended);
    status.versions.push(TargetStatus::default());
    let step = decide(
        &observed(&suspended, Some(&status)),
        &mut Memory::default(),
        SETTINGS,
        now(),
    );
    assert_eq!(step, Step::Await);
}

#[test]
fn on_change_reads_only_when_the_spec_changes() {
    let spec = SyncedSecretSpec {
        refresh_policy: RefreshPolicy::OnChange,
        ..SyncedSecretSpec::default()
    };
    let status = synced();
    let object = observed(&spec, Some(&status));
    let mut memory = Memory::default();
    memory.succeeded(&object, SETTINGS, RefreshSchedule::Free, now());
    assert_eq!(
        decide(&object, &mut memory, SETTINGS, after(100_000)),
        Step::Probe
    );
    let mut memory = Memory::default();
    memory.succeeded(&object, WITHOUT_PROBES, RefreshSchedule::Free, now());
    assert_eq!(
        decide(&object, &mut memory, WITHOUT_PROBES, after(100_000)),
        Step::Await
    );
    let changed = Observed {
        generation: 2,
        ..object
    };
    assert_eq!(
        decide(&changed, &mut memory, SETTINGS, now()),
        Step::Fetch(Trigger::SpecChanged)
    );
}

#[test]
fn requested_probe_runs_once_when_probes_are_disabled() {
    let spec = SyncedSecretSpec {
        refresh_policy: RefreshPolicy::OnChange,
        ..SyncedSecretSpec::default()
    };
    let status = synced();
    let object = observed(&spec, Some(&status));
    let mut memory = Memory::default();
    memory.succeeded(&object, WITHOUT_PROBES, RefreshSchedule::Free, now());
    memory.next_probe = Some(now());
    assert_eq!(decide(&object, &mut memory, WITHOUT_PROBES, now()), Step::Probe);
    memory.probed(&object, WITHOUT_PROBES, now());
    assert_eq!(
        decide(&object, &mut memory, WITHOUT_PROBES, after(100_000)),
        Step::Await
    );
}

#[test]
fn unknown_state_is_written_again_without_a_change() {
    let status = synced();
    let mut memory = Memory::default();
    assert!(memory.assumes_in_sync(Some(&status)));
    memory.begin_write();
    assert!(
        !memory.assumes_in_sync(Some(&status)),
        "a write that failed may have come to pass"
    );
    let (spec, mut foreign) = (SyncedSecretSpec::default(), synced());
    memory.probed(&observed(&spec, Some(&status)), SETTINGS, now());
    assert!(memory.assumes_in_sync(Some(&status)));
    memory.drifted();
    memory.begin_write();
    assert_eq!(memory.secret_state, SecretState::Drifted);
    for condition in &mut foreign.conditions {
        condition.reason = Reason::TargetForeign.to_string();
    }
    assert!(
        !Memory::default().assumes_in_sync(Some(&foreign)),
        "an earlier process found it so"
    );
}

#[test]
fn object_being_deleted_needs_no_work() {
    let spec = SyncedSecretSpec::default();
    let object = Observed {
        deleting: true,
        ..observed(&spec, None)
    };
    assert_eq!(
        decide(&object, &mut Memory::default(), SETTINGS, now()),
        Step::Await
    );
}

fn nightly(max_age: Option<&str>) -> SyncedSecretSpec {
    let spec = serde_json::json!({
        "refreshInterval": "24h",
        "rotation": {
            "maxAge": max_age,
            "windows": [{ "schedule": "0 2 * * *", "duration": "1h" }],
        },
    });
    serde_json::from_value(spec).unwrap()
}

fn pending() -> SyncedSecretStatus {
    let mut status = synced();
    let opens = "2026-01-01T02:00:00Z".parse().unwrap();
    status.rotation = Some(rotation::pending(
        None,
        "9c41".to_owned(),
        WaitsFor::Window,
        Some(opens),
        now(),
    ));
    status
}

#[test]
fn pending_value_is_due_when_its_window_opens() {
    let (spec, status) = (nightly(None), pending());
    let object = observed(&spec, Some(&status));
    // a process that has just started remembers nothing
    let mut memory = Memory::default();
    memory.succeeded(&object, WITHOUT_PROBES, RefreshSchedule::Free, now());
    let Step::Idle(wait) = decide(&object, &mut memory, WITHOUT_PROBES, now()) else {
        panic!("not idle")
    };
    assert!(
        (7200.0..=7260.0).contains(&wait.as_secs_f64()),
        "within the first minute of the window: {wait:?}"
    );
    assert_eq!(
        decide(&object, &mut memory, WITHOUT_PROBES, after(7199)),
        Step::Idle(wait.saturating_sub(Duration::from_secs(7199)))
    );
    assert_eq!(
        decide(
            &object,
            &mut Memory {
                next_refresh: Some(after(80_000)),
                ..Memory::default()
            },
            WITHOUT_PROBES,
            after(7261)
        ),
        Step::Fetch(Trigger::Window)
    );
}

#[test]
fn rotate_now_is_due_at_once_and_only_once() {
    let (spec, mut status) = (nightly(None), pending());
    let asks = |status: &SyncedSecretStatus, memory: &mut Memory, now| {
        let object = Observed {
            rotate_now: Some("1"),
            ..observed(&spec, Some(status))
        };
        let step = decide(&object, memory, SETTINGS, now);
        if step == Step::Fetch(Trigger::Requested) {
            memory.begin(&object);
        }
        step
    };
    let mut memory = Memory::default();
    memory.succeeded(
        &observed(&spec, Some(&status)),
        SETTINGS,
        RefreshSchedule::Free,
        now(),
    );
    assert_eq!(asks(&status, &mut memory, now()), Step::Fetch(Trigger::Requested));
    // it failed, and waits for its retry
    memory.retry_at = Some(after(60));
    assert!(matches!(asks(&status, &mut memory, after(1)), Step::Idle(_)));
    memory.retry_at = None;
    status.rotation.as_mut().unwrap().handled_rotate_now = Some("1".to_owned());
    assert!(!matches!(asks(&status, &mut memory, after(2)), Step::Fetch(_)));
}

#[test]
fn overdue_source_is_reported_between_refreshes() {
    let (spec, mut status) = (nightly(Some("1h")), synced());
    status.sources = vec![lockstep_api::SourceStatus {
        created_time: Some(now()),
        ..Default::default()
    }];
    let mut memory = Memory {
        next_refresh: Some(after(80_000)),
        next_probe: Some(after(80_000)),
        ..Memory::default()
    };
    let object = observed(&spec, Some(&status));
    assert_eq!(
        decide(&object, &mut memory, SETTINGS, now()),
        Step::Idle(Duration::from_secs(3600))
    );
    assert_eq!(decide(&object, &mut memory, SETTINGS, after(3600)), Step::Report);
    let mut reported = status.clone();
    reported.conditions.push(Condition {
        kind: ConditionType::RotationOverdue,
        ..reported.conditions[0].clone()
    });
    let object = observed(&spec, Some(&reported));
    assert!(matches!(
        decide(&object, &mut memory, SETTINGS, after(3600)),
        Step::Idle(_)
    ));
}

#[test]
fn hint_makes_one_sync_due_at_once() {
    let (spec, status) = (SyncedSecretSpec::default(), synced());
    let object = observed(&spec, Some(&status));
    let mut memory = Memory::default();
    memory.succeeded(&object, SETTINGS, RefreshSchedule::Free, now());
    memory.hinted = true;
    assert!(object.reacts_to_events());
    assert_eq!(
        decide(&object, &mut memory, SETTINGS, now()),
        Step::Fetch(Trigger::Event)
    );
    memory.begin(&object);
    assert!(matches!(
        decide(&object, &mut memory, SETTINGS, now()),
        Step::Idle(_)
    ));

    // also during the delay of a retry, because the hint may be about the missing value
    let failure = Failure::new(Reason::SourceNotFound, "gone");
    memory.failed(&object, &failure, now());
    memory.hinted = true;
    assert_eq!(
        decide(&object, &mut memory, SETTINGS, now()),
        Step::Fetch(Trigger::Event)
    );
}

#[test]
fn hint_is_ignored_by_objects_without_scheduled_reads() {
    let status = synced();
    let suspended = SyncedSecretSpec {
        suspend: true,
        ..SyncedSecretSpec::default()
    };
    let of = |refresh_policy| SyncedSecretSpec {
        refresh_policy,
        ..SyncedSecretSpec::default()
    };
    let (once, on_change) = (of(RefreshPolicy::CreatedOnce), of(RefreshPolicy::OnChange));
    for spec in [&suspended, &once, &on_change] {
        let object = observed(spec, Some(&status));
        let mut memory = Memory {
            hinted: true,
            ..Memory::default()
        };
        assert!(!object.reacts_to_events(), "{spec:?}");
        let step = decide(&object, &mut memory, SETTINGS, now());
        assert!(!matches!(step, Step::Fetch(_)), "{spec:?}: {step:?}");
    }
    let deleted = Observed {
        deleting: true,
        ..observed(&once, None)
    };
    assert!(!deleted.reacts_to_events());
    assert!(
        observed(&once, None).reacts_to_events(),
        "it was never written, and a value may have come to be"
    );
}
