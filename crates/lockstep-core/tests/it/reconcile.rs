//! The reconcile machine in a cluster in memory: whatever changes, fails, ends in the middle or sets its
//! clock, it converges to the newest allowed value and does no harm on the way.

use std::time::Duration;

use lockstep_api::{
    Access, ConditionStatus, ConditionType, Reason, RolloutPhase, SyncedSecret, SyncedSecretSpec, annotation,
};
use lockstep_core::{
    access::{self, Grant},
    fingerprint::FingerprintKey,
    lease,
};
use lockstep_testkit::fake_cluster::{Checks, FakeCluster, FakeStore, FakeWorkloads, Fault, KEY, LEASE_PATH};
use proptest::{prelude::*, test_runner::RngSeed};
use serde_json::{Value, json};

/// The features of a SyncedSecret.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a feature that is used or not"
)]
struct Features {
    /// Whether the store issues a credential, or has a value with versions.
    leases: bool,
    /// Whether a search finds the value.
    search: bool,
    rollout: Option<RolloutFeatures>,
    versioned: bool,
    windows: bool,
    immutable: bool,
    delete: bool,
}

#[derive(Debug, Clone)]
struct RolloutFeatures {
    targets: usize,
    waves: Vec<u32>,
    soak: Option<u64>,
    verify: bool,
    rollback: bool,
}

impl Features {
    fn spec(&self) -> SyncedSecretSpec {
        let entry = if self.leases {
            json!({ "generate": { "vault": { "path": LEASE_PATH }, "revokeAfter": "20s" } })
        } else if self.search {
            json!({
                "find": { "path": "shop" },
                "rewrite": [{ "regexp": { "source": "^.*$", "target": "document" } }],
            })
        } else {
            json!({ "extract": { "key": KEY } })
        };
        let mut rotation = serde_json::Map::new();
        if self.windows {
            rotation.insert(
                "windows".to_owned(),
                json!([{ "schedule": "0 * * * *", "duration": "20m" }]),
            );
        }
        if let Some(rollout) = &self.rollout {
            rotation.insert("rollout".to_owned(), rollout.spec(!self.leases && !self.search));
        }
        let mut spec = json!({
            "secretStoreRef": { "name": "vault" },
            "refreshInterval": "60s",
            "dataFrom": [entry],
            "target": {
                "versioned": self.is_versioned(),
                "revisionHistoryLimit": 0,
                "immutable": self.immutable && !self.is_versioned(),
                "deletionPolicy": if self.delete { "Delete" } else { "Retain" },
            },
        });
        if self.search {
            let property = |name| format!("{{{{ (.document | fromJson).{name} }}}}");
            let data = json!({ "username": property("username"), "password": property("password") });
            spec["target"]["template"] = json!({ "data": data });
        }
        if !rotation.is_empty() {
            spec["rotation"] = Value::Object(rotation);
        }
        serde_json::from_value(spec).unwrap()
    }

    fn is_versioned(&self) -> bool {
        self.versioned && self.rollout.is_some()
    }

    fn cluster(&self) -> FakeCluster {
        let targets = self.rollout.as_ref().map_or(0, |rollout| rollout.targets);
        let object = SyncedSecret::new("database", self.spec());
        let mut cluster = FakeCluster::new(object, FakeWorkloads::deployments(targets), key(1));
        cluster.store.put("v1");
        cluster
    }
}

impl RolloutFeatures {
    fn spec(&self, has_versions: bool) -> Value {
        let targets: Vec<_> = (0..self.targets)
            .map(|number| json!({ "kind": "Deployment", "name": format!("t{number}") }))
            .collect();
        let mut rollout = json!({
            "targets": targets,
            "waves": self.waves,
            "progressDeadline": "60s",
            "minimumInterval": "30s",
            "onFailure": if self.rollback && has_versions { "Rollback" } else { "Hold" },
        });
        if let Some(soak) = self.soak {
            rollout["soak"] = json!(format!("{soak}s"));
        }
        if self.verify {
            rollout["verify"] = json!({ "job": { "cronJob": "smoke" }, "timeout": "60s" });
        }
        rollout
    }
}

fn key(number: u8) -> FingerprintKey {
    FingerprintKey::new([number; 32]).unwrap()
}

#[derive(Debug, Clone)]
enum Event {
    Pass(u64),
    Jump(i64),
    /// A new version of the value, with or without a message.
    Put(bool),
    PutBad,
    PutUnfit,
    PutPrevious,
    FalseMessage,
    DeleteValue,
    StoreDown(bool),
    StoreLags(bool),
    StoreHidesNames(bool),
    StoreIssuesLate(bool),
    DeniesRenewal(bool),
    StatusDown(bool),
    WorkloadsDown(bool),
    WatchLags(bool),
    Checks(Checks),
    Fault(Fault),
    Restart(usize),
    Turn(usize),
    ReplaceKey(u8),
    EditSecret,
    DeleteSecret,
    Suspend(bool),
    RotateNow(u8),
    Refresh(u8),
    EditSpec,
    Rename,
    Pause(usize, bool),
    DeleteWorkload(usize),
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        (0_usize..30).prop_map(Fault::CrashBefore),
        (0_usize..30).prop_map(Fault::CrashAfter),
        (0_usize..30).prop_map(Fault::Fail),
        (0_usize..30).prop_map(Fault::LoseAnswer),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => (1_u64..90).prop_map(Event::Pass),
        1 => (-500_i64..500).prop_map(Event::Jump),
        4 => any::<bool>().prop_map(Event::Put),
        1 => Just(Event::PutBad),
        1 => Just(Event::PutUnfit),
        1 => Just(Event::PutPrevious),
        1 => Just(Event::FalseMessage),
        1 => Just(Event::DeleteValue),
        2 => any::<bool>().prop_map(Event::StoreDown),
        1 => any::<bool>().prop_map(Event::StoreLags),
        1 => any::<bool>().prop_map(Event::StoreHidesNames),
        1 => any::<bool>().prop_map(Event::StoreIssuesLate),
        1 => any::<bool>().prop_map(Event::DeniesRenewal),
        1 => any::<bool>().prop_map(Event::StatusDown),
        1 => any::<bool>().prop_map(Event::WorkloadsDown),
        1 => any::<bool>().prop_map(Event::WatchLags),
        1 => prop_oneof![
            Just(Checks::Work),
            Just(Checks::Hang),
            Just(Checks::Missing),
            Just(Checks::Forbidden),
        ].prop_map(Event::Checks),
        8 => fault().prop_map(Event::Fault),
        1 => (0_usize..2).prop_map(Event::Restart),
        3 => (0_usize..2).prop_map(Event::Turn),
        1 => any::<u8>().prop_map(Event::ReplaceKey),
        1 => Just(Event::EditSecret),
        1 => Just(Event::DeleteSecret),
        1 => any::<bool>().prop_map(Event::Suspend),
        1 => any::<u8>().prop_map(Event::RotateNow),
        1 => any::<u8>().prop_map(Event::Refresh),
        1 => Just(Event::EditSpec),
        1 => Just(Event::Rename),
        1 => (0_usize..6, any::<bool>()).prop_map(|(number, paused)| Event::Pause(number, paused)),
        1 => (0_usize..6).prop_map(Event::DeleteWorkload),
    ]
}

fn features() -> impl Strategy<Value = Features> {
    let rollout = (
        1_usize..6,
        prop::collection::vec(1_u32..4, 0..3),
        prop::option::of(1_u64..20),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(targets, waves, soak, verify, rollback)| RolloutFeatures {
            targets,
            waves,
            soak,
            verify,
            rollback,
        });
    (
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.3),
        prop::option::weighted(0.7, rollout),
        any::<bool>(),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.3),
    )
        .prop_map(
            |(leases, search, rollout, versioned, windows, immutable, delete)| Features {
                leases,
                search: search && !leases,
                rollout,
                versioned,
                windows,
                immutable,
                delete,
            },
        )
}

/// The longest time that passes at once, because pods become ready without a wakeup.
const LONGEST_STEP: Duration = Duration::from_secs(30);

/// The world of one case.
struct World {
    features: Features,
    cluster: FakeCluster,
    /// The operator that works.
    operator: usize,
    /// Whether an operator may have written a Secret that no status records.
    is_uncertain: bool,
    /// Whether leases have MACs of a key that is lost. They are left to expire.
    lost_key: bool,
    puts: usize,
}

impl World {
    fn new(features: Features) -> Self {
        Self {
            cluster: features.cluster(),
            features,
            operator: 0,
            is_uncertain: false,
            lost_key: false,
            puts: 1,
        }
    }

    fn put(&mut self) -> String {
        self.puts += 1;
        let content = format!("v{}", self.puts);
        self.cluster.store.put(&content);
        content
    }

    fn play(&mut self, event: &Event) {
        let cluster = &mut self.cluster;
        match event {
            Event::Pass(seconds) => cluster.pass(Duration::from_secs(*seconds)),
            Event::Jump(seconds) => cluster.jump(*seconds),
            Event::Put(notify) => {
                self.put();
                // no message is about a credential
                if *notify && !self.features.leases {
                    self.cluster.store.notify(false, self.cluster.wall);
                    self.cluster.deliver_messages();
                }
            }
            Event::PutBad => {
                let content = self.put();
                self.cluster.workloads.bad.insert(content);
            }
            Event::PutUnfit => {
                let content = self.put();
                self.cluster.workloads.unfit.insert(content);
            }
            Event::PutPrevious => {
                let versions = &cluster.store.versions;
                let previous = versions.iter().rev().nth(1).or(versions.last()).cloned();
                cluster.store.put(&previous.unwrap_or_default());
            }
            Event::FalseMessage if self.features.leases => {}
            Event::FalseMessage => {
                cluster.store.notify(true, cluster.wall);
                cluster.deliver_messages();
            }
            Event::DeleteValue => cluster.store.deleted = true,
            Event::StoreDown(down) => cluster.store.down = *down,
            Event::StoreLags(lags) => cluster.store.lags = *lags,
            Event::StoreHidesNames(hides) => cluster.store.hides_names = *hides,
            Event::StoreIssuesLate(late) => cluster.store.issues_late = *late,
            Event::DeniesRenewal(denies) => cluster.store.denies_renewal = *denies,
            Event::StatusDown(down) => {
                self.is_uncertain |= down;
                cluster.status_down = *down;
            }
            Event::WorkloadsDown(down) => cluster.workloads.down = *down,
            Event::WatchLags(lags) => cluster.watch_lags = *lags,
            Event::Checks(checks) => cluster.workloads.checks = *checks,
            Event::Fault(fault) => {
                self.is_uncertain = true;
                cluster.fault = Some(*fault);
            }
            Event::Restart(number) => cluster.start_operator(*number),
            Event::Turn(number) => {
                self.is_uncertain |= cluster.watch_lags && self.operator != *number;
                self.operator = *number;
            }
            Event::ReplaceKey(number) => {
                self.lost_key = true;
                cluster.replace_key(key(*number));
            }
            Event::EditSecret => {
                if let Some(target) = cluster.status().target {
                    cluster.secrets.edit(&target.name);
                }
            }
            // pods without their Secret do not start, which is another story
            Event::DeleteSecret if self.features.is_versioned() => {}
            Event::DeleteSecret => {
                if let Some(target) = cluster.status().target {
                    cluster.secrets.all.remove(&target.name);
                }
            }
            Event::Suspend(suspend) => cluster.edit_spec(|spec| spec.suspend = *suspend),
            Event::RotateNow(value) => cluster.annotate(annotation::ROTATE_NOW, &value.to_string()),
            Event::Refresh(value) => cluster.annotate(annotation::REFRESH, &value.to_string()),
            Event::EditSpec => cluster.edit_spec(|spec| {
                let interval = lockstep_api::Duration::from_secs(61);
                spec.refresh_interval = Some(interval);
            }),
            Event::Rename => {
                if !self.features.is_versioned() {
                    cluster.edit_spec(|spec| {
                        let name = spec.target.name.take();
                        spec.target.name = name.is_none().then(|| "renamed".to_owned());
                    });
                }
            }
            Event::Pause(number, paused) => {
                if let Some(workload) = cluster.workloads.nth(*number) {
                    workload.paused = *paused;
                }
            }
            Event::DeleteWorkload(number) => {
                if let Some(workload) = cluster.workloads.nth(*number) {
                    workload.exists = false;
                }
            }
        }
        let was_deleted = self.is_source_deleted();
        self.cluster.run(self.operator);
        let says_deleted = self.is_source_deleted() && !was_deleted;
        assert!(
            !says_deleted || self.cluster.store.deleted,
            "the value exists: {:#?}",
            self.cluster.status()
        );
        self.check();
    }

    /// Whether the status says that the values and the Secret are deleted.
    fn is_source_deleted(&self) -> bool {
        let status = self.cluster.status();
        let ready = status.condition(ConditionType::Ready);
        ready.is_some_and(|ready| ready.has_reason(Reason::SourceDeleted))
    }

    fn check(&self) {
        assert!(
            self.cluster.violations.is_empty(),
            "{:#?}\n{:#?}",
            self.cluster.violations,
            self.cluster.status()
        );
        if !self.lost_key {
            self.check_leases_are_recorded();
        }
    }

    /// Every credential that lives is in the status.
    fn check_leases_are_recorded(&self) {
        let leases = self.cluster.status().lease.unwrap_or_default();
        for accessor in self.cluster.store.leases() {
            let recorded = lease::lease_to_revoke(&leases, accessor);
            assert!(recorded.is_some(), "{accessor} is lost: {leases:#?}");
        }
    }

    /// Everything heals but bad values, and time passes until nothing changes any more.
    fn settle(&mut self) {
        let cluster = &mut self.cluster;
        cluster.fault = None;
        cluster.store.down = false;
        cluster.store.lags = false;
        cluster.store.hides_names = false;
        cluster.store.issues_late = false;
        cluster.store.denies_renewal = false;
        cluster.status_down = false;
        cluster.watch_lags = false;
        cluster.workloads.down = false;
        cluster.workloads.checks = Checks::Work;
        cluster.wall = cluster.steady;
        cluster.deliver_messages();
        if cluster.object.spec.suspend {
            cluster.edit_spec(|spec| spec.suspend = false);
        }
        for number in 0..6 {
            if let Some(workload) = cluster.workloads.nth(number) {
                workload.paused = false;
            }
        }
        // windows open every hour
        let time = Duration::from_mins(if self.features.windows { 75 } else { 25 });
        self.wait(time);
        // a check that failed is made once more when somebody asks
        self.cluster.annotate(annotation::ROTATE_NOW, "settled");
        self.wait(time);
        self.check();
    }

    /// Lets time pass, from one wakeup of the operator to the next.
    fn wait(&mut self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let wakeup = self.cluster.run(self.operator).unwrap_or(LONGEST_STEP);
            let step = wakeup.clamp(Duration::from_secs(1), LONGEST_STEP).min(left);
            self.cluster.pass(step);
            left -= step;
        }
        self.cluster.run(self.operator);
    }

    fn content(&self) -> Option<String> {
        let target = self.cluster.status().target?;
        let secret = self.cluster.secrets.all.get(&target.name)?;
        Some(secret.content()?.to_owned())
    }

    fn phase(&self) -> Option<RolloutPhase> {
        Some(self.cluster.status().rotation?.rollout?.phase)
    }

    fn check_settled(&self) {
        let status = self.cluster.status();
        let ready = status.condition(ConditionType::Ready).unwrap();
        // a process ended after it made the Secret immutable and before it recorded that, so nothing
        // shows whose the Secret is
        let stuck = [
            Reason::TargetNotDeletable,
            Reason::TargetForeign,
            Reason::LeaseLeft,
        ];
        if self.features.immutable
            && self.is_uncertain
            && stuck.iter().any(|reason| ready.has_reason(*reason))
        {
            return;
        }
        if self.features.leases {
            assert_eq!(ready.status, ConditionStatus::True, "{}", ready.message);
            self.check_leases();
            return;
        }
        if self.cluster.store.deleted {
            if self.features.delete {
                assert!(ready.has_reason(Reason::SourceDeleted), "{}", ready.message);
                // only a Secret that the status records is deleted
                let secrets = &self.cluster.secrets.all;
                assert!(self.is_uncertain || secrets.is_empty(), "{secrets:?}");
            } else {
                assert!(ready.has_reason(Reason::SourceNotFound), "{}", ready.message);
            }
            return;
        }
        assert_eq!(ready.status, ConditionStatus::True, "{}", ready.message);
        let newest = self.cluster.store.current().unwrap().to_owned();
        let workloads = &self.cluster.workloads;
        let existing: Vec<_> = workloads
            .all
            .values()
            .filter(|workload| workload.exists)
            .collect();
        let verifies = self
            .features
            .rollout
            .as_ref()
            .is_some_and(|rollout| rollout.verify);
        let is_bad = workloads.bad.contains(&newest) || verifies && workloads.unfit.contains(&newest);
        if !is_bad || self.features.rollout.is_none() {
            assert_eq!(self.content(), Some(newest.clone()), "{status:#?}");
            if let Some(phase) = self.phase() {
                assert_eq!(phase, RolloutPhase::Complete, "{status:#?}");
                for workload in existing {
                    // the first value needs no restart
                    let is_first = workload.revision.is_none() && !self.features.is_versioned();
                    assert!(
                        is_first || workload.content.as_ref() == Some(&newest),
                        "{workload:?} {status:#?}"
                    );
                }
            }
        } else if !existing.is_empty() {
            let rollback = self
                .features
                .rollout
                .as_ref()
                .is_some_and(|rollout| rollout.rollback);
            match self.phase() {
                Some(RolloutPhase::Held) | None => {}
                Some(RolloutPhase::RolledBack) => {
                    assert!(rollback);
                    assert_ne!(self.content(), Some(newest));
                    assert!(status.condition(ConditionType::Stalled).is_some());
                }
                other => panic!("{other:?} {status:#?}"),
            }
        }
        // A Secret stays under an earlier name if no status records it.
        if !self.features.is_versioned() && !self.is_uncertain {
            assert_eq!(self.cluster.secrets.all.len(), 1, "{:?}", self.cluster.secrets);
        }
    }

    /// One credential is left: the one in the Secret and in the status.
    fn check_leases(&self) {
        let leases = self.cluster.status().lease.unwrap();
        let current = leases.current.as_ref().unwrap();
        assert_eq!(
            self.content(),
            Some(FakeStore::content_of(&current.accessor)),
            "{leases:#?}"
        );
        // one may have been replaced just now
        assert!(leases.intent.is_none() && leases.minted.is_none(), "{leases:#?}");
        assert!(self.lost_key || leases.old.len() <= 1, "{leases:#?}");
    }

    /// Another refresh of the same values writes nothing.
    fn check_idle(&mut self) {
        if self.features.leases {
            return;
        }
        let writes = |cluster: &FakeCluster| {
            ["Restart", "WriteStatus", "Publish", "SetFinalizer", "MergeSecret"]
                .map(|effect| cluster.counts.get(effect).copied().unwrap_or_default())
        };
        let (before, secrets) = (writes(&self.cluster), self.cluster.secrets.all.clone());
        self.wait(Duration::from_mins(10));
        assert_eq!(writes(&self.cluster), before, "{:#?}", self.cluster.status());
        assert_eq!(self.cluster.secrets.all, secrets);
    }
}

/// The same cases in every run, unless `PROPTEST_RNG_SEED` or `PROPTEST_CASES` asks for others.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: default.cases.max(200),
        rng_seed: match default.rng_seed {
            RngSeed::Random => RngSeed::Fixed(1),
            seed @ RngSeed::Fixed(_) => seed,
        },
        ..default
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn reconcile_converges_and_does_no_harm(
        features in features(),
        events in prop::collection::vec(event(), 0..50),
    ) {
        let mut world = World::new(features);
        world.cluster.run(0);
        for event in &events {
            world.play(event);
        }
        world.settle();
        world.check_settled();
        world.check_idle();
        world.check();
    }
}

const PLAIN: Features = Features {
    leases: false,
    search: false,
    rollout: None,
    versioned: false,
    windows: false,
    immutable: false,
    delete: false,
};

#[test]
fn credential_is_replaced_only_near_its_maximum() {
    let mut world = World::new(Features {
        leases: true,
        ..PLAIN
    });
    world.wait(Duration::from_mins(20));
    world.check();
    // each lives at most 400 s
    let issued = world.cluster.store.issued;
    assert!((3..=5).contains(&issued), "{issued} in 20 minutes");
}

#[test]
fn credential_that_is_issued_late_is_revoked() {
    let mut world = World::new(Features {
        leases: true,
        ..PLAIN
    });
    world.cluster.store.issues_late = true;
    for _ in 0..6 {
        world.wait(Duration::from_secs(15));
        world.check();
    }
    assert!(!world.cluster.store.leases().is_empty(), "issued late");
    world.cluster.store.issues_late = false;
    world.wait(Duration::from_mins(10));
    world.check_leases();
    assert_eq!(world.cluster.store.leases().len(), 1);
}

#[test]
fn first_sync_sends_one_read_one_write_and_one_status() {
    let mut world = World::new(PLAIN);
    world.cluster.run(0);
    for (effect, expected) in [
        ("ReadSources", 1),
        ("RequestSecret", 1),
        ("WriteStatus", 1),
        ("Publish", 0),
    ] {
        let count = world.cluster.counts.get(effect).copied().unwrap_or_default();
        assert_eq!(count, expected, "{effect}");
    }
    assert_eq!(world.content().as_deref(), Some("v1"));
}

#[test]
fn search_that_finds_less_than_exists_changes_nothing() {
    let mut world = World::new(Features {
        search: true,
        ..PLAIN
    });
    world.cluster.store.has_second = true;
    world.cluster.edit_spec(|spec| {
        let rewrite = json!([{ "regexp": { "source": "^shop/", "target": "" } }]);
        let entries = json!([{ "find": { "path": "shop" }, "rewrite": rewrite }]);
        spec.data_from = serde_json::from_value(entries).unwrap();
        spec.target.template = None;
    });
    let keys = |world: &World| -> Vec<String> {
        let secrets = world.cluster.secrets.all.values();
        secrets.flat_map(|secret| secret.data.keys().cloned()).collect()
    };
    world.cluster.run(0);
    assert_eq!(keys(&world), ["database", "second"], "{}", message(&world));
    world.cluster.store.hides_names = true;
    world.wait(Duration::from_mins(2));
    assert_eq!(keys(&world), ["database", "second"]);
    let expected = "a search no longer finds a value that is not known to be gone, but Secret \"database\" is kept, because SecretStore/vault still has \"shop/database\"";
    assert!(message(&world).starts_with(expected), "{}", message(&world));
    world.cluster.store.deleted = true;
    world.wait(Duration::from_mins(2));
    assert_eq!(keys(&world), ["second"], "{}", message(&world));
    // a changed spec may find less
    world.cluster.store.deleted = false;
    world.cluster.store.hides_names = false;
    world.wait(Duration::from_mins(2));
    assert_eq!(keys(&world), ["database", "second"]);
    world.cluster.edit_spec(|spec| {
        spec.data_from[0].find.as_mut().unwrap().name =
            serde_json::from_value(json!({ "regexp": "second" })).unwrap();
    });
    world.cluster.store.hides_names = true;
    world.wait(Duration::from_mins(2));
    assert_eq!(keys(&world), ["second"], "{}", message(&world));
}

#[test]
fn optional_values_that_are_gone_do_not_empty_the_secret() {
    let mut world = World::new(PLAIN);
    world.cluster.edit_spec(|spec| {
        let entry = json!({ "secretKey": "a", "remoteRef": { "key": KEY }, "optional": true });
        spec.data_from = Vec::new();
        spec.data = serde_json::from_value(json!([entry])).unwrap();
    });
    world.cluster.run(0);
    world.cluster.violations.clear();
    let secrets = world.cluster.secrets.all.clone();
    assert!(!secrets.is_empty(), "{}", message(&world));
    world.cluster.store.deleted = true;
    world.wait(Duration::from_mins(2));
    assert_eq!(world.cluster.secrets.all, secrets);
    let kept = "no remote value was found, but Secret \"database\" is kept, because deletionPolicy is Retain";
    assert!(message(&world).starts_with(kept), "{}", message(&world));
}

fn message(world: &World) -> String {
    let status = world.cluster.status();
    status.condition(ConditionType::Ready).unwrap().message.clone()
}

#[test]
fn secret_is_kept_while_the_values_of_its_status_exist() {
    let mut world = World::new(Features {
        search: true,
        delete: true,
        ..PLAIN
    });
    world.cluster.run(0);
    world.play(&Event::StoreHidesNames(true));
    world.wait(Duration::from_mins(2));
    let expected = "no remote value was found, but Secret \"database\" is kept, because not all values that it was made from are known to be gone: SecretStore/vault still has \"shop/database\"";
    assert!(message(&world).starts_with(expected), "{}", message(&world));
    assert!(world.content().is_some());
    // the store grants less
    world.play(&Event::StoreHidesNames(false));
    let access = json!([{ "namespaces": { "names": ["shop"] }, "keys": ["shop/other"] }]);
    let access: Vec<Access> = serde_json::from_value(access).unwrap();
    let namespace = access::Namespace {
        name: "shop",
        labels: None,
    };
    world.cluster.grant = Grant::new(&access, namespace);
    world.wait(Duration::from_mins(2));
    let ungranted = "SecretStore/vault does not grant \"shop/database\" any more";
    assert!(message(&world).contains(ungranted), "{}", message(&world));
    assert!(world.content().is_some());
    world.cluster.grant = Grant::Everything;
    let changed = "the entries of the spec, the configuration of a store, or the fingerprint key changed since they were read";
    let keeps = |world: &mut World| {
        world.wait(Duration::from_mins(4));
        assert!(message(world).contains(changed), "{}", message(world));
        assert!(world.content().is_some());
    };
    let extract = |world: &mut World, entry: Value| {
        world.cluster.edit_spec(|spec| {
            spec.data_from = serde_json::from_value(json!([{ "extract": entry }])).unwrap();
            spec.target.template = None;
        });
    };
    // the spec names a value or a version that does not exist
    extract(&mut world, json!({ "key": "shop/databse" }));
    keeps(&mut world);
    extract(&mut world, json!({ "key": KEY, "version": "99" }));
    keeps(&mut world);
    // the spec of the store names another path
    extract(&mut world, json!({ "key": KEY }));
    world.wait(Duration::from_mins(2));
    assert!(message(&world).contains("is in sync"), "{}", message(&world));
    world.cluster.store.path = "other".to_owned();
    keeps(&mut world);
    world.cluster.store.path = String::new();
    world.wait(Duration::from_mins(2));
    world.play(&Event::DeleteValue);
    world.wait(Duration::from_mins(4));
    assert!(world.is_source_deleted(), "{}", message(&world));
    assert!(world.cluster.secrets.all.is_empty());
}

#[test]
fn value_that_is_missing_for_a_moment_deletes_nothing() {
    let mut world = World::new(Features {
        delete: true,
        ..PLAIN
    });
    world.cluster.run(0);
    let secrets = world.cluster.secrets.all.clone();
    // a replica does not have it yet
    world.play(&Event::DeleteValue);
    world.wait(Duration::from_secs(55));
    assert_eq!(world.cluster.secrets.all, secrets);
    // the delay begins again after any other result, also an error
    world.cluster.store.down = true;
    world.wait(Duration::from_mins(10));
    world.cluster.store.down = false;
    while !message(&world).starts_with("all remote values are gone") {
        world.wait(Duration::from_secs(1));
    }
    world.wait(Duration::from_secs(50));
    assert_eq!(world.cluster.secrets.all, secrets);
    world.cluster.store.deleted = false;
    world.wait(Duration::from_mins(2));
    world.cluster.store.deleted = true;
    world.wait(Duration::from_secs(55));
    assert_eq!(world.cluster.secrets.all, secrets);
    world.wait(Duration::from_mins(3));
    assert!(world.cluster.secrets.all.is_empty());
}

#[test]
fn lagging_store_does_not_roll_a_secret_back() {
    let mut world = World::new(PLAIN);
    world.play(&Event::Put(false));
    world.play(&Event::Pass(90));
    assert_eq!(world.content().as_deref(), Some("v2"));
    world.play(&Event::StoreLags(true));
    world.wait(Duration::from_mins(9));
    assert_eq!(world.content().as_deref(), Some("v2"));
    let status = world.cluster.status();
    let ready = status.condition(ConditionType::Ready).unwrap();
    let expected = "SecretStore/vault: key \"shop/database\": the store returned version 1, but version 2 was written before";
    assert!(ready.message.starts_with(expected), "{}", ready.message);
    world.play(&Event::StoreLags(false));
    world.wait(Duration::from_mins(6));
    let status = world.cluster.status();
    let ready = status.condition(ConditionType::Ready).unwrap();
    assert_eq!(ready.status, ConditionStatus::True, "{}", ready.message);
    // a backup was restored
    world.play(&Event::StoreLags(true));
    world.wait(Duration::from_mins(16));
    assert_eq!(world.content().as_deref(), Some("v1"));
    world.play(&Event::StoreLags(false));
    world.wait(Duration::from_mins(6));
    // or someone asks for it
    world.play(&Event::StoreLags(true));
    world.wait(Duration::from_mins(2));
    assert_eq!(world.content().as_deref(), Some("v2"));
    world.play(&Event::RotateNow(1));
    assert_eq!(world.content().as_deref(), Some("v1"));
}

#[test]
fn message_about_a_deleted_value_restores_nothing() {
    let mut world = World::new(PLAIN);
    for event in [
        Event::Put(false),
        Event::Put(false),
        Event::Pass(90),
        Event::DeleteValue,
    ] {
        world.play(&event);
    }
    assert_eq!(world.content().as_deref(), Some("v3"));
    world.cluster.store.notify_of(1, world.cluster.wall);
    world.cluster.deliver_messages();
    world.wait(Duration::from_mins(5));
    assert_eq!(world.content().as_deref(), Some("v3"));
    world.check();
}

/// A world in which a failed rollout of two targets is rolled back.
fn with_rollback() -> World {
    let rollout = RolloutFeatures {
        targets: 2,
        waves: vec![1],
        soak: None,
        verify: false,
        rollback: true,
    };
    World::new(Features {
        rollout: Some(rollout),
        ..PLAIN
    })
}

#[test]
fn rollback_does_not_write_other_values_with_old_versions() {
    let mut world = with_rollback();
    for event in [Event::Pass(60), Event::PutBad, Event::Pass(70), Event::Pass(20)] {
        world.play(&event);
    }
    assert_eq!(world.content().as_deref(), Some("v2"));
    // the key is deleted and created again
    world.cluster.store.versions = vec!["other".to_owned(), "v2".to_owned()];
    world.wait(Duration::from_mins(20));
    assert_ne!(world.content().as_deref(), Some("other"));
    let status = world.cluster.status();
    let ready = status.condition(ConditionType::Ready).unwrap();
    assert!(
        ready.message.contains("have other values now"),
        "{}",
        ready.message
    );
}

#[test]
fn changed_spec_reaches_a_rolled_back_secret_after_a_failure() {
    for effect in 0..8 {
        let mut world = with_rollback();
        for event in [Event::Pass(60), Event::PutBad, Event::Pass(70)] {
            world.play(&event);
        }
        world.wait(Duration::from_mins(20));
        assert_eq!(world.content().as_deref(), Some("v1"));
        world.cluster.edit_spec(|spec| {
            let template = json!({ "mergePolicy": "Merge", "data": { "another": "text" } });
            spec.target.template = serde_json::from_value(template).unwrap();
        });
        world.cluster.fault = Some(Fault::Fail(effect));
        world.wait(Duration::from_mins(20));
        let target = world.cluster.status().target.unwrap();
        let secret = &world.cluster.secrets.all[&target.name];
        assert!(secret.data.contains_key("another"), "effect {effect} failed");
    }
}
