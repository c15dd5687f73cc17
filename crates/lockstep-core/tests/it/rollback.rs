//! What is given up, and what comes in its place, from sync to sync.

use jiff::Timestamp;
use lockstep_api::{
    OnFailure, Rollout, RolloutPhase, RolloutStatus, RolloutTarget, Rotation, RotationPhase, SourceStatus,
    StoreKind, StoreRef, SyncedSecretSpec, SyncedSecretStatus, TargetProgress, TargetState, TargetStatus,
    WaitsFor, WorkloadKind,
};
use lockstep_core::{
    report::{Outcome, Subject, Waiting, report},
    rotation,
};
use serde_json::json;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn source(key: &str, version: &str) -> SourceStatus {
    SourceStatus {
        store: StoreRef::new(StoreKind::SecretStore, "vault"),
        key: key.to_owned(),
        version: Some(version.to_owned()),
        created_time: None,
    }
}

fn target(revision: &str) -> TargetStatus {
    TargetStatus {
        name: "database".to_owned(),
        revision: revision.to_owned(),
        fingerprint: format!("f-{revision}"),
        ..TargetStatus::default()
    }
}

struct Life {
    rotation: Rotation,
    status: Option<SyncedSecretStatus>,
    clock: i64,
}

impl Life {
    fn new() -> Self {
        let rollout = Rollout {
            targets: vec![RolloutTarget {
                kind: WorkloadKind::Deployment,
                name: Some("api".to_owned()),
                selector: None,
            }],
            on_failure: OnFailure::Rollback,
            ..Rollout::default()
        };
        Self {
            rotation: Rotation {
                rollout: Some(rollout),
                ..Rotation::default()
            },
            status: None,
            clock: 0,
        }
    }

    fn say(&mut self, outcome: Outcome<'_>) {
        self.clock += 1;
        let subject = Subject {
            generation: 1,
            refresh: None,
            rotate_now: None,
            rotation: Some(&self.rotation),
            target_name: "database",
            old: self.status.as_ref(),
            drifted: false,
        };
        self.status = Some(report(&subject, outcome, at(self.clock)));
    }

    fn write(&mut self, revision: &str, sources: &[SourceStatus], back: bool, waits: Option<Waiting>) {
        self.say(Outcome::Synced {
            target: target(revision),
            sources: sources.to_vec(),
            back,
            waits,
        });
    }

    fn rotation(&self) -> &lockstep_api::RotationStatus {
        self.status.as_ref().unwrap().rotation.as_ref().unwrap()
    }

    fn rollout(&self) -> &RolloutStatus {
        self.rotation().rollout.as_ref().unwrap()
    }

    /// The only target was restarted, and the rollout is in that phase.
    fn comes_to(&mut self, phase: RolloutPhase) {
        let status = self.status.clone().unwrap();
        let mut rollout = self.rollout().clone();
        rollout.phase = phase;
        rollout.wave = 1;
        rollout.targets = vec![TargetProgress {
            kind: WorkloadKind::Deployment,
            name: "api".to_owned(),
            wave: 1,
            state: TargetState::NotReady,
            updated_time: Some(at(0)),
            was_failing: false,
        }];
        if rollout.phase.is_over() {
            rollout.previous = None;
        }
        let held = status
            .target
            .as_ref()
            .map(|target| (target, status.sources.as_slice()));
        let stepped = rotation::stepped(status.rotation.as_ref().unwrap(), rollout, held, at(self.clock));
        self.say(Outcome::Stepped(stepped));
    }

    fn refuses(&self, sources: &[SourceStatus]) -> bool {
        let refused = self.rotation().refused.as_ref().unwrap();
        rotation::is_still_refused(refused, "another fingerprint", sources)
    }

    /// R2 of version 2 failed, and R1 of version 1 is back.
    fn rolled_back() -> Self {
        let mut life = Self::new();
        life.write("R1", &[source("db", "1"), source("name", "7")], false, None);
        life.write("R2", &[source("db", "2"), source("name", "7")], false, None);
        life.comes_to(RolloutPhase::RollingBack);
        assert!(rotation::awaits_rollback(Some(life.rotation())));
        life.write("R1", &[source("db", "1"), source("name", "7")], true, None);
        assert!(life.rollout().rollback);
        life.comes_to(RolloutPhase::RolledBack);
        life
    }
}

#[test]
fn failed_value_is_identified_by_its_source_versions() {
    let life = Life::rolled_back();
    assert!(life.refuses(&[source("db", "2"), source("name", "7")]));
    assert!(
        life.refuses(&[source("db", "2"), source("name", "7"), source("more", "1")]),
        "the spec reads one more"
    );
    assert!(
        life.refuses(&[source("db", "2"), source("name", "8")]),
        "another value is newer"
    );
    assert!(
        !life.refuses(&[source("db", "3"), source("name", "7")]),
        "it is newer"
    );
    assert!(
        !life.refuses(&[source("db", "1"), source("name", "7")]),
        "it went back"
    );
    assert!(!life.refuses(&[source("name", "7")]), "it is no longer read");
}

#[test]
fn spec_change_after_a_rollback_uses_the_previous_value() {
    let mut life = Life::rolled_back();
    life.write(
        "R1x",
        &[source("db", "1"), source("name", "7"), source("more", "1")],
        true,
        None,
    );
    assert_eq!(
        (life.rollout().phase, life.rollout().rollback),
        (RolloutPhase::Progressing, false),
        "it is no way back"
    );
    assert_eq!(life.rollout().previous, None, "and there is none from it");
    let refused = life.rotation().refused.as_ref().unwrap();
    assert_eq!(
        (refused.revision.as_str(), refused.pinned.revision.as_str()),
        ("R2", "R1x")
    );
    assert!(life.refuses(&[source("db", "2"), source("name", "7"), source("more", "1")]));
    life.comes_to(RolloutPhase::Complete);
    life.write(
        "R3",
        &[source("db", "3"), source("name", "7"), source("more", "1")],
        false,
        None,
    );
    assert_eq!(life.rotation().refused, None);
    assert!(life.rollout().previous.is_some());
}

#[test]
fn spec_change_during_a_rollback_keeps_all_targets() {
    let mut life = Life::new();
    life.write("R1", &[source("db", "1")], false, None);
    life.write("R2", &[source("db", "2")], false, None);
    life.comes_to(RolloutPhase::RollingBack);
    life.write("R1", &[source("db", "1")], true, None);
    assert!(life.rollout().targets[0].updated_time.is_none());
    life.write("R1x", &[source("db", "1")], true, None);
    assert!(life.rollout().rollback);
    assert_eq!(
        (life.rollout().revision.as_str(), life.rollout().targets.len()),
        ("R1x", 1)
    );
}

#[test]
fn change_of_only_the_spec_is_not_rolled_back() {
    let mut life = Life::new();
    life.write("R1", &[source("db", "1")], false, None);
    life.write("R1-template", &[source("db", "1")], false, None);
    assert_eq!(life.rollout().previous, None);
    life.write("R2", &[source("db", "2")], false, None);
    // it fails, and the version before makes the same Secret
    life.comes_to(RolloutPhase::RollingBack);
    life.write("R2", &[source("db", "1")], true, None);
    assert_eq!(life.rollout().phase, RolloutPhase::Held);
    assert!(
        life.rollout()
            .message
            .as_ref()
            .unwrap()
            .contains("Change it back")
    );
    assert!(!rotation::awaits_rollback(Some(life.rotation())) && life.rotation().refused.is_none());
}

#[test]
fn pending_value_still_waits_after_a_rollback() {
    let mut life = Life::new();
    life.write("R1", &[source("db", "1")], false, None);
    life.write("R2", &[source("db", "2")], false, None);
    let pending = rotation::pending(
        Some(life.rotation()),
        "R3".to_owned(),
        WaitsFor::Rollout,
        None,
        at(50),
    );
    life.say(Outcome::Waits(pending));
    life.comes_to(RolloutPhase::RollingBack);
    let waits = Waiting {
        revision: "R3".to_owned(),
        waits_for: WaitsFor::Window,
        next: Some(at(1000)),
    };
    life.write("R1", &[source("db", "1")], true, Some(waits));
    let rotation = life.rotation();
    assert_eq!(rotation.phase, RotationPhase::RollingBack);
    assert_eq!(rotation.pending_revision.as_deref(), Some("R3"));
    assert_eq!(rotation.noticed_time, Some(at(50)), "since it was noticed");
    assert_eq!(rotation::due(Some(rotation)), Some((WaitsFor::Window, at(1000))));
    assert!(rotation.refused.is_some());
}

#[test]
fn source_that_returns_with_another_value_is_rolled_out() {
    let mut life = Life::new();
    life.write("R1", &[source("db", "1")], false, None);
    life.say(Outcome::Gone { left_alone: false });
    life.write("R1", &[source("db", "1")], false, None);
    assert!(life.rotation().rollout.is_none(), "the same as before");
    life.say(Outcome::Gone { left_alone: false });
    life.write("R2", &[source("db", "2")], false, None);
    assert_eq!(life.rollout().phase, RolloutPhase::Progressing);
}

#[test]
fn only_unspecified_versions_are_pinned() {
    let spec: SyncedSecretSpec = serde_json::from_value(json!({
        "secretStoreRef": { "name": "vault" },
        "data": [
            { "secretKey": "now", "remoteRef": { "key": "db" } },
            { "secretKey": "fixed", "remoteRef": { "key": "db", "version": "5" } },
        ],
    }))
    .unwrap();
    for sources in [
        [source("db", "3"), source("db", "5")],
        [source("db", "5"), source("db", "3")],
    ] {
        let pinned = rotation::pin(&spec, &std::collections::BTreeMap::new(), &sources);
        let version = |nth: usize| pinned.data[nth].remote_ref.as_ref().unwrap().version.clone();
        assert_eq!(
            (version(0).as_deref(), version(1).as_deref()),
            (Some("3"), Some("5"))
        );
    }
    let pinned = rotation::pin(&spec, &std::collections::BTreeMap::new(), &[source("db", "5")]);
    assert_eq!(
        pinned.data[0].remote_ref.as_ref().unwrap().version.as_deref(),
        Some("5")
    );
}
