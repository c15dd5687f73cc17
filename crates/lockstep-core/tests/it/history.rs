//! What was written, and how long it took.

use std::time::Duration;

use jiff::Timestamp;
use lockstep_api::{
    PreviousRevision, RevisionRecord, Rollout, RolloutPhase, RolloutTarget, Rotation, SourceStatus,
    StoreKind, StoreRef, SyncedSecretStatus, TargetStatus, WaitsFor, WorkloadKind,
};
use lockstep_core::{
    history::{MAX_RECORDS, Stage, reached},
    report::{Outcome, Subject, report},
    rotation::{self, rollout},
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn source(version: i64) -> SourceStatus {
    SourceStatus {
        store: StoreRef::new(StoreKind::SecretStore, "vault"),
        key: "shop/database".to_owned(),
        version: Some(version.to_string()),
        created_time: Some(at(version * 1000)),
    }
}

fn with_rollout() -> Rotation {
    Rotation {
        rollout: Some(Rollout {
            targets: vec![RolloutTarget {
                kind: WorkloadKind::Deployment,
                name: Some("api".to_owned()),
                selector: None,
            }],
            ..Rollout::default()
        }),
        ..Rotation::default()
    }
}

struct Life {
    rotation: Rotation,
    status: Option<SyncedSecretStatus>,
}

impl Life {
    fn new(rotation: Rotation) -> Self {
        Self {
            rotation,
            status: None,
        }
    }

    fn say(&mut self, outcome: Outcome<'_>, now: i64) -> Vec<(Stage, Duration)> {
        let subject = Subject {
            generation: 1,
            refresh: None,
            rotate_now: None,
            rotation: Some(&self.rotation),
            target_name: "database",
            old: self.status.as_ref(),
            drifted: false,
        };
        let new = report(&subject, outcome, at(now));
        let stages = reached(self.status.as_ref(), &new, at(now));
        self.status = Some(new);
        stages
    }

    fn sync(&mut self, version: i64, now: i64) -> Vec<(Stage, Duration)> {
        let target = TargetStatus {
            name: "database".to_owned(),
            revision: format!("r{version}"),
            ..TargetStatus::default()
        };
        let outcome = Outcome::Synced {
            target,
            sources: vec![source(version)],
            back: false,
            waits: None,
        };
        self.say(outcome, now)
    }

    fn step(
        &mut self,
        change: impl FnOnce(&mut lockstep_api::RolloutStatus),
        now: i64,
    ) -> Vec<(Stage, Duration)> {
        let status = self.status.clone().unwrap();
        let old = status.rotation.unwrap();
        let mut next = old.rollout.clone().unwrap();
        change(&mut next);
        let stepped = {
            let held = status
                .target
                .as_ref()
                .map(|target| (target, status.sources.as_slice()));
            rotation::stepped(&old, next, held, at(now))
        };
        self.say(Outcome::Stepped(stepped), now)
    }

    fn records(&self) -> &[RevisionRecord] {
        &self.status.as_ref().unwrap().history
    }
}

#[test]
fn each_revision_is_recorded_once_with_its_changes() {
    let mut life = Life::new(Rotation::default());
    assert_eq!(life.sync(1, 1001), [], "a first sync is no change");
    life.sync(1, 1500);
    assert_eq!(life.records().len(), 1);
    let stages = life.sync(2, 2007);
    assert_eq!(
        stages,
        [
            (Stage::Noticed, Duration::from_secs(7)),
            (Stage::Written, Duration::from_secs(7))
        ]
    );
    assert_eq!(life.sync(2, 2500), [], "once");
    let [newest, oldest] = life.records() else {
        panic!("{:?}", life.records())
    };
    assert_eq!((newest.revision.as_str(), oldest.revision.as_str()), ("r2", "r1"));
    assert!(
        oldest.changed.is_empty(),
        "a first sync changes nothing: {oldest:?}"
    );
    assert_eq!(
        (newest.changed.as_slice(), newest.changed_count),
        ([source(2)].as_slice(), Some(1))
    );
    for version in 3..30 {
        life.sync(version, version * 1000);
    }
    assert_eq!(life.records().len(), MAX_RECORDS);
    assert_eq!(life.records()[0].revision, "r29");
}

#[test]
fn pending_change_is_noticed_before_it_is_written() {
    let mut life = Life::new(Rotation::default());
    life.sync(1, 1001);
    let pending = rotation::pending(None, "r2".to_owned(), WaitsFor::Window, None, at(2010));
    assert_eq!(life.say(Outcome::Waits(pending), 2010), []);
    let stages = life.sync(2, 2600);
    assert_eq!(
        stages,
        [
            (Stage::Noticed, Duration::from_secs(10)),
            (Stage::Written, Duration::from_secs(600))
        ]
    );
    assert_eq!(life.records()[0].noticed_time, Some(at(2010)));
}

#[test]
fn rollout_records_when_all_are_ready_and_rollback_no_change() {
    let mut life = Life::new(with_rollout());
    life.sync(1, 1001);
    life.sync(2, 2001);
    let complete = |rollout: &mut lockstep_api::RolloutStatus| {
        rollout.phase = RolloutPhase::Complete;
        rollout.end_time = Some(at(2100));
    };
    assert_eq!(
        life.step(complete, 2100),
        [(Stage::Ready, Duration::from_secs(100))]
    );
    assert_eq!(life.sync(2, 2200), []);
    let newest = &life.records()[0];
    assert_eq!(newest.rollout, Some(RolloutPhase::Complete));
    assert!(newest.end_time.is_some());

    life.sync(3, 3001);
    let fail = |rollout: &mut lockstep_api::RolloutStatus| {
        rollout.phase = RolloutPhase::RollingBack;
        rollout.message = Some("Deployment/api: not ready".to_owned());
        rollout.previous = Some(PreviousRevision {
            revision: "r2".to_owned(),
            sources: vec![source(2)],
            ..PreviousRevision::default()
        });
    };
    assert_eq!(life.step(fail, 3100), []);
    let back = rollout::begin_rollback(
        life.status
            .as_ref()
            .unwrap()
            .rotation
            .as_ref()
            .unwrap()
            .rollout
            .as_ref()
            .unwrap(),
        "r2",
        life.rotation.rollout.as_ref().unwrap(),
        at(3101),
    );
    assert!(back.rollback);
    let target = TargetStatus {
        name: "database".to_owned(),
        revision: "r2".to_owned(),
        ..TargetStatus::default()
    };
    let outcome = Outcome::Synced {
        target,
        sources: vec![source(2)],
        back: true,
        waits: None,
    };
    assert_eq!(life.say(outcome, 3101), []);
    let [newest, failed, ..] = life.records() else {
        panic!("{:?}", life.records())
    };
    assert!(newest.rollback && newest.revision == "r2");
    assert_eq!(failed.rollout, Some(RolloutPhase::RollingBack));
    assert_eq!(failed.message.as_deref(), Some("Deployment/api: not ready"));
}

#[test]
fn clock_behind_the_source_causes_no_negative_duration() {
    let mut life = Life::new(Rotation::default());
    life.sync(1, 10);
    let stages = life.sync(2, 20);
    assert!(stages.iter().all(|(_, took)| took.is_zero()), "{stages:?}");
}
