//! What is due for a lease, case by case.

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use jiff::{SignedDuration, Timestamp};
use lockstep_api::{
    GenerateMethod, Lease, LeaseEnd, LeaseIntent, LeaseStatus, Reason, SourceStatus, StoreKind, StoreRef,
    SyncedSecretSpec, SyncedSecretStatus, TargetState,
};
use lockstep_core::{
    fingerprint::FingerprintKey,
    lease::Generation,
    lease::{self, Action, Cause, Issuer, Retention, Retries},
    reconcile::{Memory, Observed, Settings, Step, Trigger, decide},
    remote::{ErrorKind, IssuanceToken, LeaseRequest, Minted, SecretValue},
    report::{Outcome, Subject, report},
    rotation,
};
use serde_json::json;

const RETENTION: Retention = Retention {
    revoke_after: Duration::from_secs(300),
    issue_timeout: Duration::from_secs(180),
    has_targets: false,
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

static KEY: LazyLock<FingerprintKey> = LazyLock::new(|| FingerprintKey::new([7; 32]).unwrap());

fn issuer() -> Issuer<'static> {
    Issuer {
        key: &KEY,
        uid: "uid",
        namespace: "shop",
        name: "database",
    }
}

/// A lease of 300 seconds that was given at the time 0.
fn lease(accessor: &str) -> Lease {
    let mut lease = Lease {
        id: format!("database/creds/shop/{accessor}"),
        accessor: accessor.to_owned(),
        store: StoreRef::new(StoreKind::SecretStore, "vault"),
        path: "database/creds/shop".to_owned(),
        request: "same".to_owned(),
        issued_time: at(0),
        expiration_time: at(300),
        duration_seconds: 300,
        renewable: true,
        ..Lease::default()
    };
    issuer().sign(&mut lease);
    lease
}

fn holding(current: Lease) -> LeaseStatus {
    LeaseStatus {
        current: Some(current),
        ..LeaseStatus::default()
    }
}

fn status(lease: LeaseStatus) -> SyncedSecretStatus {
    SyncedSecretStatus {
        lease: Some(lease),
        ..SyncedSecretStatus::default()
    }
}

fn generation() -> Generation {
    Generation {
        entry: "dataFrom[0].generate".to_owned(),
        store: StoreRef {
            name: "vault".to_owned(),
            kind: StoreKind::SecretStore,
        },
        request: LeaseRequest {
            path: crate::at("database/creds/shop"),
            method: GenerateMethod::Get,
            parameters: BTreeMap::new(),
        },
    }
}

fn spec(extra: &serde_json::Value) -> SyncedSecretSpec {
    let mut spec = json!({
        "secretStoreRef": { "name": "vault" },
        "dataFrom": [{ "generate": { "vault": { "path": "database/creds/shop" } } }],
    });
    spec.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

#[test]
fn leases_are_renewed_at_different_times_in_the_last_third() {
    let times: Vec<_> = (0..50)
        .map(|number| {
            let status = status(holding(lease(&format!("a{number}"))));
            let (at, action) =
                lease::next(&status, RETENTION, &Retries::default(), SignedDuration::ZERO).unwrap();
            assert_eq!(action, Action::Renew(format!("a{number}")));
            at.as_second()
        })
        .collect();
    assert!(times.iter().all(|time| (200..=234).contains(time)), "{times:?}");
    assert!(
        times.iter().max().unwrap() - times.iter().min().unwrap() > 20,
        "{times:?}"
    );
}

#[test]
fn renewal_extends_the_lease_and_a_shorter_one_is_the_last() {
    let before = holding(lease("a"));
    let after = lease::renewed(&before, "a", Duration::from_secs(300), at(210));
    let current = after.current.as_ref().unwrap();
    assert_eq!((current.expiration_time, current.end_reason), (at(510), None));
    assert_eq!(lease::mint_at(Some(&after), false), None);
    let endless = lease::renewed(&before, "a", Duration::MAX, at(210));
    let expires = endless.current.unwrap().expiration_time;
    assert_eq!(
        expires.to_string(),
        "2999-12-31T23:59:59Z",
        "a status admits no later time"
    );
    let rounded = lease::renewed(&before, "a", Duration::from_secs(298), at(210));
    assert_eq!(rounded.current.unwrap().end_reason, None, "seconds are rounded");
    let short = lease::renewed(&before, "a", Duration::from_secs(120), at(210));
    assert_eq!(
        short.current.as_ref().unwrap().end_reason,
        Some(LeaseEnd::MaximumReached)
    );
    let cause = Cause::Ends(LeaseEnd::MaximumReached);
    let (time, why) = lease::mint_at(Some(&short), false).unwrap();
    assert!(time <= at(210) && why == cause);
    assert_eq!(
        lease::next(
            &status(short),
            RETENTION,
            &Retries::default(),
            SignedDuration::ZERO
        ),
        None
    );
}

#[test]
fn rejected_renewal_replaces_and_a_lost_one_is_retried() {
    let before = holding(lease("a"));
    for kind in [ErrorKind::NotFound, ErrorKind::PermissionDenied] {
        let after = lease::renewal_failed(&before, "a", kind, "no").unwrap();
        assert_eq!(after.current.unwrap().end_reason, Some(LeaseEnd::RenewalRefused));
    }
    for kind in [
        ErrorKind::Unavailable,
        ErrorKind::Timeout,
        ErrorKind::RateLimited,
        ErrorKind::Unauthenticated,
        ErrorKind::ConfigInvalid,
        ErrorKind::CredentialsUnavailable,
    ] {
        assert_eq!(lease::renewal_failed(&before, "a", kind, "no"), None, "{kind:?}");
    }
}

/// Follows the leases of an object in five minutes, where each one lives for a second. Each step
/// knows the status only, as after a restart.
fn issued_by_store_with_short_leases(renewable: bool) -> usize {
    let mut leases: Option<LeaseStatus> = None;
    let mut issued = 0;
    for now in 0..300 {
        let current = leases.as_ref().and_then(|leases| leases.current.clone());
        if let (Some(current), true) = (&current, renewable) {
            let refused = ErrorKind::PermissionDenied;
            leases = lease::renewal_failed(leases.as_ref().unwrap(), &current.accessor, refused, "no");
        }
        let name = lease::request_name(&generation());
        if lease::cause(leases.as_ref(), &name, None, at(now)).is_none() {
            continue;
        }
        issued += 1;
        let issuance_token = IssuanceToken {
            server: "https://vault".to_owned(),
            accessor: format!("n{issued}"),
            token: SecretValue::from("token"),
            lives: Duration::from_secs(60),
        };
        let intent = lease::intend(
            leases.as_ref(),
            &generation(),
            &issuance_token,
            &issuer(),
            at(now),
        );
        let given = Minted {
            id: None,
            value: SecretValue::from("value"),
            lives: Duration::from_secs(1),
            renewable,
        };
        let minted = lease::minted(&intent, name, &given, &issuer(), at(now));
        let source = SourceStatus {
            version: minted.minted.as_ref().map(|lease| lease.id.clone()),
            ..SourceStatus::default()
        };
        leases = lease::written(Some(&minted), &[source], at(now));
        leases.as_mut().unwrap().old.clear();
    }
    issued
}

#[test]
fn leases_that_end_at_once_are_replaced_at_a_pace() {
    assert_eq!(issued_by_store_with_short_leases(true), 10);
    assert_eq!(issued_by_store_with_short_leases(false), 10);
    let short = Lease {
        expiration_time: at(1),
        duration_seconds: 1,
        ..lease("a")
    };
    assert_eq!(lease::explain_gap(&short), None, "it is renewed");
    let refused = lease::renewal_failed(&holding(short), "a", ErrorKind::PermissionDenied, "no");
    let gap = lease::explain_gap(&refused.unwrap().current.unwrap()).unwrap();
    assert!(gap.contains("1970-01-01T00:00:30Z"), "{gap}");
}

#[test]
fn unrenewable_lease_is_replaced_in_its_last_third() {
    let certificate = Lease {
        end_reason: Some(LeaseEnd::NotRenewable),
        ..lease("a")
    };
    let leases = holding(certificate);
    let (time, _) = lease::mint_at(Some(&leases), false).unwrap();
    assert!((200..=234).contains(&time.as_second()), "{time}");
    assert_eq!(lease::cause(Some(&leases), "same", None, at(100)), None);
    assert!(lease::cause(Some(&leases), "same", None, at(240)).is_some());
}

#[test]
fn replacement_waits_at_most_until_the_last_tenth_of_the_lease() {
    let leases = holding(Lease {
        end_reason: Some(LeaseEnd::MaximumReached),
        ..lease("a")
    });
    let (time, _) = lease::mint_at(Some(&leases), true).unwrap();
    assert_eq!(time, at(270));
    assert!(!lease::is_replacement_urgent(Some(&leases), at(269)));
    assert!(lease::is_replacement_urgent(Some(&leases), at(270)));
    assert!(
        !lease::is_replacement_urgent(Some(&holding(lease("a"))), at(299)),
        "it is renewed"
    );
    assert_eq!(lease::mint_at(None, true), None);
}

#[test]
fn intent_is_revoked_when_no_credential_can_follow() {
    let intent = LeaseIntent {
        accessor: "i".to_owned(),
        recorded_time: at(10),
        ..LeaseIntent::default()
    };
    let found = status(LeaseStatus {
        intent: Some(intent),
        ..holding(lease("a"))
    });
    let due = lease::next(&found, RETENTION, &Retries::default(), SignedDuration::ZERO);
    // the server may still issue a credential
    let revoke = Action::Revoke("i".to_owned());
    assert_eq!(due, Some((at(190), revoke.clone())));
    let mut retries = Retries::default();
    retries.answered("i");
    let due = lease::next(&found, RETENTION, &retries, SignedDuration::ZERO);
    assert_eq!(due, Some((Timestamp::MIN, revoke.clone())));
    retries.done(&revoke);
    assert_eq!(retries, Retries::default());

    let doubtful = LeaseStatus {
        minted: Some(lease("m")),
        ..holding(lease("a"))
    };
    assert!(lease::has_uncertain_credential(Some(&doubtful)));
    assert_eq!(
        lease::cause(Some(&doubtful), "same", None, at(10)),
        Some(Cause::Unknown)
    );
    let remembered = Some("database/creds/shop/m");
    assert_eq!(lease::cause(Some(&doubtful), "same", remembered, at(10)), None);
    let issuance_token = IssuanceToken {
        server: "https://vault".to_owned(),
        accessor: "n".to_owned(),
        token: SecretValue::from("CANARY"),
        lives: Duration::from_secs(60),
    };
    let intended = lease::intend(Some(&doubtful), &generation(), &issuance_token, &issuer(), at(10));
    assert!(!format!("{intended:?}").contains("CANARY"));
    assert_eq!(intended.old, [lease("m")]);
    assert!(
        lease::has_uncertain_credential(Some(&intended)),
        "until another is written"
    );
    let due = lease::next(
        &status(intended),
        RETENTION,
        &Retries::default(),
        SignedDuration::ZERO,
    );
    assert_eq!(
        due.unwrap().1,
        Action::Revoke("n".to_owned()),
        "the intent, and nothing else"
    );
}

#[test]
fn old_lease_without_targets_is_revoked_after_a_delay() {
    let old = Lease {
        replaced_time: Some(at(50)),
        expiration_time: at(10_000),
        duration_seconds: 9_000,
        ..lease("o")
    };
    let current = Lease {
        expiration_time: at(10_000),
        duration_seconds: 9_000,
        ..lease("a")
    };
    let held = status(LeaseStatus {
        old: vec![old],
        ..holding(current)
    });
    let due = lease::next(&held, RETENTION, &Retries::default(), SignedDuration::ZERO);
    assert_eq!(due, Some((at(350), Action::Revoke("o".to_owned()))));
    let due = lease::next(
        &held,
        Retention {
            revoke_after: Duration::from_secs(1),
            ..RETENTION
        },
        &Retries::default(),
        SignedDuration::ZERO,
    );
    assert_eq!(due, Some((at(51), Action::Revoke("o".to_owned()))));
}

/// A Secret at revision `b`, whose rollout came to its end at 100 with targets in these states.
fn rolled_out(old: Lease, states: &[TargetState]) -> SyncedSecretStatus {
    let targets = states
        .iter()
        .map(|state| json!({ "kind": "Deployment", "name": "shop", "wave": 1, "state": state.as_str() }));
    let rotation = json!({
        "phase": "Complete",
        "rollout": {
            "phase": "Complete", "revision": "b", "wave": 1, "startTime": at(60).to_string(),
            "endTime": at(100).to_string(), "targets": targets.collect::<Vec<_>>(),
        },
    });
    SyncedSecretStatus {
        target: Some(lockstep_api::TargetStatus {
            revision: "b".to_owned(),
            ..lockstep_api::TargetStatus::default()
        }),
        rotation: Some(serde_json::from_value(rotation).unwrap()),
        ..status(LeaseStatus {
            old: vec![old],
            ..LeaseStatus::default()
        })
    }
}

#[test]
fn old_lease_is_revoked_once_targets_use_the_new_credential() {
    let old = Lease {
        replaced_time: Some(at(50)),
        end_reason: Some(LeaseEnd::NotRenewable),
        expiration_time: at(10_000),
        ..lease("o")
    };
    let retention = Retention {
        has_targets: true,
        ..RETENTION
    };
    let due = |states: &[TargetState]| {
        let found = rolled_out(old.clone(), states);
        let due = lease::next(&found, retention, &Retries::default(), SignedDuration::ZERO);
        due.map(|(at, _)| at)
    };
    let at_once = Some(Timestamp::MIN);
    assert_eq!(due(&[TargetState::Ready, TargetState::ScaledToZero]), at_once);
    // one that is misspelt proves nothing, and neither does a selector that finds none
    assert_eq!(due(&[TargetState::Missing]), Some(at(400)));
    assert_eq!(due(&[TargetState::Ready, TargetState::Missing]), Some(at(400)));
    assert_eq!(due(&[]), Some(at(400)));
    assert_eq!(due(&[TargetState::Ready, TargetState::Partial]), None);
}

#[test]
fn old_lease_with_targets_is_kept_until_a_rollout() {
    let old = Lease {
        replaced_time: Some(at(0)),
        end_reason: Some(LeaseEnd::NotRenewable),
        ..lease("o")
    };
    let found = status(LeaseStatus {
        old: vec![old],
        ..LeaseStatus::default()
    });
    let retention = Retention {
        has_targets: true,
        ..RETENTION
    };
    assert_eq!(
        lease::next(&found, retention, &Retries::default(), SignedDuration::ZERO),
        None
    );
    let rollout = json!({ "targets": [{ "kind": "Deployment", "name": "shop" }] });
    assert!(
        Retention::of(
            &spec(&json!({ "rotation": { "rollout": rollout } })),
            Duration::ZERO
        )
        .has_targets
    );
    assert!(!Retention::of(&spec(&json!({})), Duration::ZERO).has_targets);
}

#[test]
fn first_write_after_an_unrecorded_one_starts_a_rollout() {
    let rotation = spec(
        &json!({ "rotation": { "rollout": { "targets": [{ "kind": "Deployment", "name": "shop" }] } } }),
    );
    let began = |leases: LeaseStatus| {
        let old = status(leases);
        let subject = Subject {
            generation: 1,
            refresh: None,
            rotate_now: None,
            rotation: rotation.rotation.as_ref(),
            target_name: "database",
            old: Some(&old),
            drifted: false,
        };
        let outcome = Outcome::Synced {
            target: lockstep_api::TargetStatus::default(),
            sources: vec![SourceStatus {
                version: Some("database/creds/shop/b".to_owned()),
                ..SourceStatus::default()
            }],
            back: false,
            waits: None,
        };
        report(&subject, outcome, at(1))
            .rotation
            .unwrap()
            .rollout
            .is_some()
    };
    let first = LeaseStatus {
        minted: Some(lease("b")),
        ..LeaseStatus::default()
    };
    assert!(!began(first.clone()), "pods find it when they start");
    let after_a_restart = LeaseStatus {
        old: vec![lease("a")],
        ..first
    };
    assert!(began(after_a_restart), "a pod may have started on the one before");
}

#[test]
fn failure_of_one_lease_does_not_delay_another() {
    let old = Lease {
        replaced_time: Some(at(0)),
        ..lease("o")
    };
    let held = status(LeaseStatus {
        old: vec![old],
        ..holding(lease("a"))
    });
    let revoke = Action::Revoke("o".to_owned());
    let mut retries = Retries::default();
    let at_once = Retention {
        revoke_after: Duration::ZERO,
        ..RETENTION
    };
    for _ in 0..12 {
        retries.failed(&revoke, false, "uid", at(240));
    }
    let (due, action) = lease::next(&held, at_once, &retries, SignedDuration::ZERO).unwrap();
    assert!(
        matches!(action, Action::Renew(_)) && due <= at(240),
        "{action:?} at {due}"
    );
    retries.done(&revoke);
    let (_, action) = lease::next(&held, at_once, &retries, SignedDuration::ZERO).unwrap();
    assert_eq!(action, revoke);
}

#[test]
fn unrevoked_lease_is_reported_until_it_expires() {
    let old = Lease {
        replaced_time: Some(at(0)),
        ..lease("o")
    };
    let held = LeaseStatus {
        old: vec![old],
        ..holding(Lease {
            expiration_time: at(9_000),
            duration_seconds: 9_000,
            ..lease("a")
        })
    };
    assert_eq!(
        lease::revocation_failed(&held, "o", ErrorKind::Unavailable, "down", at(1)),
        None
    );
    let left = lease::revocation_failed(
        &held,
        "o",
        ErrorKind::PermissionDenied,
        "the policy needs more",
        at(1),
    );
    let left = left.unwrap();
    let due = lease::next(
        &status(left.clone()),
        RETENTION,
        &Retries::default(),
        SignedDuration::ZERO,
    );
    assert_eq!(due, Some((at(300), Action::Forget("o".to_owned()))));
    let subject = Subject {
        generation: 1,
        refresh: None,
        rotate_now: None,
        rotation: None,
        target_name: "database",
        old: None,
        drifted: false,
    };
    let said = report(&subject, Outcome::Leased(Some(left.clone())), at(1));
    let condition = said
        .condition(lockstep_api::ConditionType::LeaseUnrevoked)
        .unwrap();
    assert!(condition.has_reason(Reason::LeaseLeft));
    assert!(
        condition.message.ends_with("the policy needs more"),
        "{}",
        condition.message
    );
    let forgotten = lease::revoked(&left, "o");
    let said = report(
        &Subject {
            old: Some(&said),
            ..subject
        },
        Outcome::Leased(forgotten),
        at(301),
    );
    assert_eq!(said.condition(lockstep_api::ConditionType::LeaseUnrevoked), None);
}

#[test]
fn a_lease_lives_no_longer_than_the_token_that_it_was_made_with() {
    let issuance_token = IssuanceToken {
        server: "https://vault".to_owned(),
        accessor: "a".to_owned(),
        token: SecretValue::from("CANARY"),
        lives: Duration::from_secs(100),
    };
    let intent = lease::intend(None, &generation(), &issuance_token, &issuer(), at(0));
    let minted = Minted {
        id: None,
        value: SecretValue::from("CANARY"),
        lives: Duration::from_secs(1000),
        renewable: false,
    };
    let noted = lease::minted(&intent, "same".to_owned(), &minted, &issuer(), at(1));
    let noted = noted.minted.unwrap();
    assert_eq!((noted.duration_seconds, noted.expiration_time), (99, at(100)));
    assert_eq!(noted.id, "a", "the accessor stands for a lease that there is not");
    assert_eq!(noted.end_reason, Some(LeaseEnd::NotRenewable));
}

#[test]
fn path_method_parameters_and_store_identify_a_request() {
    let mut names = std::collections::BTreeSet::new();
    let mut all = vec![generation(); 5];
    all[1].request.path = crate::at("database/creds/shop2");
    all[2].request.method = GenerateMethod::Post;
    all[3]
        .request
        .parameters
        .insert("ttl".to_owned(), "1h".to_owned());
    all[4].store.name = "other".to_owned();
    for generation in &all {
        names.insert(lease::request_name(generation));
    }
    assert_eq!(names.len(), 5);
}

#[test]
fn remembered_credential_is_not_written_when_outdated() {
    let remembered = Some("database/creds/shop/m");
    let cause = |minted: Lease, request: &str, now: i64| {
        let status = LeaseStatus {
            minted: Some(minted),
            ..LeaseStatus::default()
        };
        lease::cause(Some(&status), request, remembered, at(now))
    };
    assert_eq!(cause(lease("m"), "same", 299), None);
    assert_eq!(cause(lease("m"), "other", 10), Some(Cause::Requested));
    assert!(cause(lease("m"), "same", 300).is_some(), "it has expired");
    for ends in [LeaseEnd::RenewalRefused, LeaseEnd::MaximumReached] {
        let ends_soon = Lease {
            end_reason: Some(ends),
            ..lease("m")
        };
        assert_eq!(cause(ends_soon, "same", 10), Some(Cause::Ends(ends)));
    }
    let certificate = Lease {
        end_reason: Some(LeaseEnd::NotRenewable),
        ..lease("m")
    };
    assert_eq!(cause(certificate.clone(), "same", 199), None);
    assert!(cause(certificate, "same", 240).is_some());
}

#[test]
fn too_many_unrevoked_intents_stop_issuance() {
    let intent = |number: usize| LeaseIntent {
        accessor: format!("i{number}"),
        expiration_time: at(9_000),
        mac: Some("one".to_owned()),
        ..LeaseIntent::default()
    };
    let issuance_token = IssuanceToken {
        server: "https://vault".to_owned(),
        accessor: "n".to_owned(),
        token: SecretValue::from("CANARY"),
        lives: Duration::from_secs(60),
    };
    let lost = LeaseStatus {
        intent: Some(intent(0)),
        ..LeaseStatus::default()
    };
    let next = lease::intend(Some(&lost), &generation(), &issuance_token, &issuer(), at(10));
    assert!(next.old[0].unwritten && !lease::has_uncertain_credential(Some(&next)));
    let retention = Retention {
        has_targets: true,
        ..RETENTION
    };
    let freed = status(LeaseStatus { intent: None, ..next });
    let due = lease::next(&freed, retention, &Retries::default(), SignedDuration::ZERO);
    let revoke = Action::Revoke("i0".to_owned());
    assert_eq!(due, Some((at(180), revoke)));

    let mut left = LeaseStatus::default();
    for number in 0..8 {
        assert_eq!(lease::check_room(Some(&left)), Ok(()), "{number}");
        left.intent = Some(intent(number));
        let accessor = format!("i{number}");
        left = lease::revocation_failed(&left, &accessor, ErrorKind::PermissionDenied, "no", at(1)).unwrap();
        assert!(!lease::has_uncertain_credential(Some(&left)));
    }
    let full = lease::check_room(Some(&left)).unwrap_err();
    assert!(
        full.message.contains("revoke-accessor") && full.message.contains(&at(9_000).to_string()),
        "{}",
        full.message
    );
    // the store does not answer: they pile up all the same
    let waiting = LeaseStatus {
        old: vec![lease("o"); 24],
        ..LeaseStatus::default()
    };
    assert!(lease::check_room(Some(&waiting)).is_err());
}

#[test]
fn leases_become_old_when_their_entry_is_removed() {
    let sources = [SourceStatus::default()];
    let next = lease::written(Some(&holding(lease("a"))), &sources, at(7)).unwrap();
    assert_eq!(next.current, None);
    assert_eq!(next.old[0].replaced_time, Some(at(7)));
}

#[test]
fn rollback_with_generated_credentials_is_rejected() {
    let rollout = json!({ "targets": [{ "kind": "Deployment", "name": "shop" }], "onFailure": "Rollback" });
    let failure = rotation::check(&spec(&json!({ "rotation": { "rollout": rollout } }))).unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidSpec);
    assert!(
        failure.message.contains("dataFrom[0].generate"),
        "{}",
        failure.message
    );
}

const SETTINGS: Settings = Settings {
    drift_probe_interval: Duration::ZERO,
    issue_timeout: Duration::from_secs(180),
    deletion_delay: Duration::ZERO,
    process_seed: 1,
};

fn observed<'a>(spec: &'a SyncedSecretSpec, status: Option<&'a SyncedSecretStatus>) -> Observed<'a> {
    Observed {
        uid: "uid",
        generation: 1,
        deleting: false,
        deleted_at: None,
        guarded: true,
        ahead: SignedDuration::ZERO,
        refresh: None,
        rotate_now: None,
        spec,
        status,
        issuer: issuer(),
    }
}

/// A status that is Ready, with what another one says of leases.
fn synced_as(other: SyncedSecretStatus) -> SyncedSecretStatus {
    SyncedSecretStatus {
        lease: other.lease,
        ..synced(holding(lease("a")))
    }
}

fn synced(lease: LeaseStatus) -> SyncedSecretStatus {
    let subject = Subject {
        generation: 1,
        refresh: None,
        rotate_now: None,
        rotation: None,
        target_name: "database",
        old: Some(&status(lease)),
        drifted: false,
    };
    let sources = vec![SourceStatus {
        version: Some("database/creds/shop/a".to_owned()),
        ..SourceStatus::default()
    }];
    let target = lockstep_api::TargetStatus {
        name: "database".to_owned(),
        ..lockstep_api::TargetStatus::default()
    };
    report(
        &subject,
        Outcome::Synced {
            target,
            sources,
            back: false,
            waits: None,
        },
        at(0),
    )
}

#[test]
fn suspended_object_renews_leases_but_issues_none() {
    let suspended = spec(&json!({ "suspend": true }));
    let held = synced(holding(lease("a")));
    let mut memory = Memory::default();
    let step = decide(&observed(&suspended, Some(&held)), &mut memory, SETTINGS, at(240));
    assert_eq!(step, Step::Lease(Action::Renew("a".to_owned())));
    let ends = synced(holding(Lease {
        end_reason: Some(LeaseEnd::MaximumReached),
        ..lease("a")
    }));
    let step = decide(&observed(&suspended, Some(&ends)), &mut memory, SETTINGS, at(240));
    assert_eq!(step, Step::Acknowledge);
    let active = spec(&json!({}));
    let step = decide(&observed(&active, Some(&ends)), &mut memory, SETTINGS, at(240));
    assert_eq!(step, Step::Fetch(Trigger::Lease));
}

#[test]
fn lease_wakes_the_object_before_its_refresh() {
    let spec = spec(&json!({ "refreshInterval": "24h" }));
    let held = synced(holding(lease("a")));
    let step = decide(
        &observed(&spec, Some(&held)),
        &mut Memory::default(),
        SETTINGS,
        at(10),
    );
    let Step::Idle(wait) = step else {
        panic!("{step:?}")
    };
    assert!((190..=225).contains(&wait.as_secs()), "{wait:?}");
}

#[test]
fn clock_that_is_set_back_delays_no_renewal() {
    let spec = spec(&json!({}));
    let held = synced(holding(lease("a")));
    let set_back = Observed {
        ahead: SignedDuration::from_hours(-1),
        ..observed(&spec, Some(&held))
    };
    let step = decide(&set_back, &mut Memory::default(), SETTINGS, at(240 - 3600));
    assert_eq!(step, Step::Lease(Action::Renew("a".to_owned())));
    let step = decide(&set_back, &mut Memory::default(), SETTINGS, at(100 - 3600));
    assert!(
        matches!(step, Step::Idle(wait) if wait.as_secs() < 140),
        "{step:?}"
    );
}

#[test]
fn deletion_waits_for_leases_only_for_a_limited_time() {
    let spec = spec(&json!({}));
    let held = synced(holding(lease("a")));
    let mut memory = Memory::default();
    let deleted = |status| Observed {
        deleting: true,
        deleted_at: Some(at(100)),
        ..observed(&spec, status)
    };
    let revoke = Action::Revoke("a".to_owned());
    let step = decide(&deleted(Some(&held)), &mut memory, SETTINGS, at(100));
    assert_eq!(step, Step::Lease(revoke.clone()));
    memory.lease_retries.failed(&revoke, false, "uid", at(100));
    let step = decide(&deleted(Some(&held)), &mut memory, SETTINGS, at(100));
    assert!(matches!(step, Step::Idle(_)), "{step:?}");
    let step = decide(&deleted(Some(&held)), &mut memory, SETTINGS, at(699));
    assert_eq!(step, Step::Lease(revoke.clone()));
    let step = decide(&deleted(Some(&held)), &mut memory, SETTINGS, at(700));
    assert_eq!(step, Step::Lease(Action::Release), "ten minutes are enough");
    // of a store that is gone nothing is to be expected
    memory.lease_retries.failed(&revoke, true, "uid", at(101));
    let step = decide(&deleted(Some(&held)), &mut memory, SETTINGS, at(160));
    assert_eq!(step, Step::Lease(Action::Release));
    // nothing is held
    let step = decide(&deleted(None), &mut Memory::default(), SETTINGS, at(100));
    assert_eq!(step, Step::Lease(Action::Release));
    let free = Observed {
        guarded: false,
        ..deleted(Some(&held))
    };
    assert_eq!(decide(&free, &mut memory, SETTINGS, at(100)), Step::Await);
}

#[test]
fn finalizer_is_removed_with_the_last_lease() {
    let plain: SyncedSecretSpec = serde_json::from_value(json!({
        "secretStoreRef": { "name": "vault" },
        "data": [{ "secretKey": "a", "remoteRef": { "key": "k" } }],
    }))
    .unwrap();
    let old = Lease {
        replaced_time: Some(at(0)),
        ..lease("o")
    };
    let held = status(LeaseStatus {
        old: vec![old],
        ..LeaseStatus::default()
    });
    let step = decide(
        &observed(&plain, Some(&held)),
        &mut Memory::default(),
        SETTINGS,
        at(400),
    );
    assert_eq!(step, Step::Lease(Action::Revoke("o".to_owned())));
    let nothing = SyncedSecretStatus::default();
    let step = decide(
        &observed(&plain, Some(&nothing)),
        &mut Memory::default(),
        SETTINGS,
        at(400),
    );
    assert_eq!(step, Step::Lease(Action::Release));
}

/// Every way to make the status name a lease that lockstep did not note.
fn forgeries() -> Vec<(&'static str, LeaseStatus)> {
    let signed = |issuer: Issuer<'_>| {
        let mut lease = lease("a");
        issuer.sign(&mut lease);
        lease
    };
    let other_key = FingerprintKey::new([8; 32]).unwrap();
    let other = |change: fn(&mut Lease)| {
        let mut lease = lease("a");
        change(&mut lease);
        holding(lease)
    };
    let intent = LeaseIntent {
        accessor: "a".to_owned(),
        store: StoreRef::new(StoreKind::SecretStore, "vault"),
        ..LeaseIntent::default()
    };
    vec![
        ("no MAC", other(|lease| lease.mac = None)),
        (
            "another accessor",
            other(|lease| "root".clone_into(&mut lease.accessor)),
        ),
        (
            "another id",
            other(|lease| "database/creds/admin/1".clone_into(&mut lease.id)),
        ),
        (
            "another store",
            other(|lease| lease.store.kind = StoreKind::ClusterSecretStore),
        ),
        (
            "another server",
            other(|lease| "https://other".clone_into(&mut lease.server)),
        ),
        (
            "another path",
            other(|lease| "database/creds/admin".clone_into(&mut lease.path)),
        ),
        (
            "another key",
            holding(signed(Issuer {
                key: &other_key,
                ..issuer()
            })),
        ),
        (
            "another object",
            holding(signed(Issuer {
                uid: "other",
                ..issuer()
            })),
        ),
        (
            "another namespace",
            holding(signed(Issuer {
                namespace: "other",
                ..issuer()
            })),
        ),
        (
            "another name",
            holding(signed(Issuer {
                name: "other",
                ..issuer()
            })),
        ),
        (
            "minted",
            LeaseStatus {
                minted: Some(Lease {
                    mac: None,
                    ..lease("a")
                }),
                ..LeaseStatus::default()
            },
        ),
        (
            "old",
            LeaseStatus {
                old: vec![Lease {
                    mac: None,
                    unwritten: true,
                    ..lease("a")
                }],
                ..LeaseStatus::default()
            },
        ),
        (
            "an intent",
            LeaseStatus {
                intent: Some(intent),
                ..LeaseStatus::default()
            },
        ),
    ]
}

#[test]
fn forged_lease_is_neither_renewed_nor_revoked() {
    let spec = spec(&json!({}));
    for (case, forged) in forgeries() {
        let held = synced_as(status(forged.clone()));
        let step = decide(
            &observed(&spec, Some(&held)),
            &mut Memory::default(),
            SETTINGS,
            at(10_000),
        );
        assert_eq!(step, Step::Lease(Action::Disown), "{case}");
        let left = lease::disowned(&forged, &issuer(), at(10));
        assert!(!lease::has_unproven(&left, &issuer()), "{case}: once is enough");
        assert_eq!(lease::disowned(&left, &issuer(), at(20)), left, "{case}");
        for time in [10, 250, 10_000] {
            let mut memory = Memory::default();
            let held = synced_as(status(left.clone()));
            let step = decide(&observed(&spec, Some(&held)), &mut memory, SETTINGS, at(time));
            let touches = matches!(step, Step::Lease(Action::Renew(_) | Action::Revoke(_)));
            assert!(!touches, "{case} at {time}: {step:?}");
        }
        let subject = Subject {
            generation: 1,
            refresh: None,
            rotate_now: None,
            rotation: None,
            target_name: "database",
            old: Some(&held),
            drifted: false,
        };
        let said = report(&subject, Outcome::Leased(Some(left)), at(11));
        let condition = said
            .condition(lockstep_api::ConditionType::LeaseUnrevoked)
            .unwrap();
        assert!(
            condition.has_reason(Reason::LeaseUnproven),
            "{case}: {condition:?}"
        );
    }
}

#[test]
fn forged_leases_leave_room_for_own_leases() {
    let forged = Lease {
        mac: None,
        ..lease("forged")
    };
    let mut full = holding(lease("a"));
    full.old = vec![forged; 31];
    full.old.push(lease("o"));
    full.intent = Some(LeaseIntent {
        accessor: "forged".to_owned(),
        ..LeaseIntent::default()
    });
    let left = lease::disowned(&full, &issuer(), at(10));
    assert_eq!(left.current, full.current);
    assert!(
        left.old.contains(&lease("o")) && left.old.len() < 8,
        "{}",
        left.old.len()
    );
    assert_eq!(lease::check_room(Some(&left)), Ok(()));
}

#[test]
fn forged_lease_does_not_delay_deletion() {
    let spec = spec(&json!({}));
    for (case, forged) in forgeries() {
        let held = synced_as(status(forged));
        let deleted = Observed {
            deleting: true,
            deleted_at: Some(at(100)),
            ..observed(&spec, Some(&held))
        };
        let step = decide(&deleted, &mut Memory::default(), SETTINGS, at(100));
        assert_eq!(step, Step::Lease(Action::Release), "{case}");
    }
}

#[test]
fn what_lockstep_noted_is_its_own() {
    let issuance_token = IssuanceToken {
        server: "https://vault".to_owned(),
        accessor: "n".to_owned(),
        token: SecretValue::from("CANARY"),
        lives: Duration::from_secs(1000),
    };
    for id in [Some("database/creds/shop/1".to_owned()), None] {
        let intent = lease::intend(None, &generation(), &issuance_token, &issuer(), at(0));
        assert!(!lease::has_unproven(&intent, &issuer()));
        let minted = Minted {
            id,
            value: SecretValue::from("CANARY"),
            lives: Duration::from_secs(1000),
            renewable: true,
        };
        let noted = lease::minted(&intent, "same".to_owned(), &minted, &issuer(), at(1));
        assert!(!lease::has_unproven(&noted, &issuer()));
        let again = lease::intend(Some(&intent), &generation(), &issuance_token, &issuer(), at(2));
        assert!(!lease::has_unproven(&again, &issuer()), "an intent that was lost");
        assert!(!format!("{noted:?} {again:?}").contains("CANARY"));
    }
}

#[test]
fn lost_key_issues_nothing_before_the_lease_ends() {
    let other_key = FingerprintKey::new([8; 32]).unwrap();
    let issuer = Issuer {
        key: &other_key,
        ..issuer()
    };
    let left = lease::disowned(&holding(lease("a")), &issuer, at(10));
    assert_eq!(lease::cause(Some(&left), "same", None, at(100)), None);
    let spec = spec(&json!({ "refreshInterval": "24h" }));
    let held = synced(left.clone());
    let mut memory = Memory::default();
    let object = Observed {
        issuer,
        ..observed(&spec, Some(&held))
    };
    let step = decide(&object, &mut memory, SETTINGS, at(100));
    assert!(matches!(step, Step::Idle(_)), "{step:?}");
    let step = decide(&object, &mut memory, SETTINGS, at(240));
    assert_eq!(
        step,
        Step::Fetch(Trigger::Lease),
        "it is replaced in its last third"
    );
    // those that were left behind are no reason to make no other
    let many = LeaseStatus {
        old: vec![left.current.unwrap(); 12],
        ..LeaseStatus::default()
    };
    assert_eq!(lease::check_room(Some(&many)), Ok(()));
}

#[test]
fn names_from_a_store_are_validated_before_they_are_recorded() {
    assert_eq!(lease::check_accessor("hmac.AbC-1_2"), Ok(()));
    let path = "database/creds/shop";
    assert_eq!(lease::check_id("database/creds/shop/AbC.n5", path), Ok(()));
    for bad in [
        "database/creds/shop",
        "database/creds/shop/",
        "database/creds/shopA/b",
        "eyJCANARY",
    ] {
        let failure = lease::check_id(bad, path).unwrap_err();
        assert!(!failure.message.contains("CANARY"), "{}", failure.message);
    }
    for bad in ["", "a b", "a\u{1b}[2J", "\u{202e}a", "ä", &"CANARY".repeat(200)] {
        for failure in [lease::check_accessor(bad), lease::check_id(bad, path)] {
            let failure = failure.unwrap_err();
            assert_eq!(failure.reason, Reason::Malformed);
            assert!(!failure.message.contains("CANARY"), "{}", failure.message);
        }
    }
}

/// Names of requests are in statuses: another format would issue every credential again after an upgrade.
#[test]
fn request_format_in_statuses_is_stable() {
    assert_eq!(lease::request_name(&generation()), "10a99bcbc0e47d2f");
}

/// MACs are in statuses: another format would leave every lease to expire after an upgrade.
#[test]
fn mac_format_in_statuses_is_stable() {
    let known = "622d4ab7aac362676ae85794f85858b61b002348c911bac2df6f0d135265bcf0";
    assert_eq!(lease("a").mac.as_deref(), Some(known));
}
