//! Rollouts in a small world: any sequence of changes, failures, crashes and clock jumps ends where the newest value says, and
//! never restarts without cause, nor skips a wave.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use lockstep_api::{
    ConditionType, OnFailure, Reason, Rollout, RolloutPhase, RolloutStatus, Rotation, SourceStatus,
    SyncedSecretStatus, Target as SecretTarget, TargetStatus, VerificationStatus, Verify, VerifyJob,
    WorkloadKind,
};
use lockstep_core::{
    report::{Outcome, Subject, report},
    rotation::{
        self, Change, Check, Entry, RolloutInput, Windows,
        references::{self, References},
        rollout,
        verify::{self, Attempt},
        versions,
        workload::{Observation, Readiness, Target, Workload},
    },
};
use proptest::prelude::*;

/// How long a pod takes to become ready, in seconds.
const STARTS: i64 = 5;

#[derive(Debug, Clone)]
struct Machine {
    carries: Option<String>,
    since: Timestamp,
    exists: bool,
    paused: bool,
    restarts: usize,
}

#[derive(Debug)]
struct World {
    /// What the clock on the wall says. It can be set.
    now: Timestamp,
    /// What passes by itself: pods and the deadlines of rollouts go by it.
    steady: Timestamp,
    source: usize,
    /// Values with which no pod becomes ready.
    bad: BTreeSet<usize>,
    machines: BTreeMap<Target, Machine>,
    rotation: Rotation,
    status: Option<SyncedSecretStatus>,
    writes: usize,
    reachable: bool,
    /// Values with which no check passes.
    unfit: BTreeSet<usize>,
    checker: Checker,
    /// The Jobs that were made, by their names, and since when.
    jobs: BTreeMap<String, Timestamp>,
    /// The waves of rollouts that a check passed.
    verified: BTreeSet<(String, String, i64)>,
    /// Whether the operator ends before it can say what it writes next.
    ends_after_write: bool,
    /// Whether each revision is a Secret of its own, and which of those are there.
    versioned: bool,
    secrets: BTreeSet<String>,
    /// What asks to rotate now.
    asks: Option<String>,
}

/// How it goes with what checks need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checker {
    Works,
    Hangs,
    Missing,
    Forbidden,
}

fn revision(number: usize) -> String {
    format!("r{number}")
}

impl World {
    fn new(rollout: Rollout, targets: usize, versioned: bool) -> Self {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let machine = Machine {
            carries: None,
            since: now,
            exists: true,
            paused: false,
            restarts: 0,
        };
        let name = |number| Target {
            kind: WorkloadKind::Deployment,
            name: format!("t{number}"),
        };
        let mut world = Self {
            now,
            steady: now,
            source: 1,
            bad: BTreeSet::new(),
            machines: (0..targets)
                .map(|number| (name(number), machine.clone()))
                .collect(),
            rotation: Rotation {
                rollout: Some(rollout),
                ..Rotation::default()
            },
            status: None,
            writes: 0,
            reachable: true,
            unfit: BTreeSet::new(),
            checker: Checker::Works,
            jobs: BTreeMap::new(),
            verified: BTreeSet::new(),
            asks: None,
            ends_after_write: false,
            versioned,
            secrets: BTreeSet::new(),
        };
        world.sync();
        world
    }

    fn spec(&self) -> Rollout {
        self.rotation.rollout.clone().unwrap()
    }

    fn report(&mut self, outcome: Outcome<'_>) {
        let subject = Subject {
            generation: 1,
            refresh: None,
            rotate_now: self.asks.as_deref(),
            rotation: Some(&self.rotation),
            target_name: "database",
            old: self.status.as_ref(),
            drifted: false,
        };
        self.status = Some(report(&subject, outcome, self.now));
    }

    fn write(&mut self, number: usize, back: bool) {
        let source = SourceStatus {
            version: Some(number.to_string()),
            ..SourceStatus::default()
        };
        let target = TargetStatus {
            name: if self.versioned {
                references::name("database", &revision(number))
            } else {
                "database".to_owned()
            },
            versioned: self.versioned,
            revision: revision(number),
            fingerprint: format!("f{number}"),
            ..TargetStatus::default()
        };
        if self.versioned
            && let Some(intent) = versions::intend(self.status.as_ref(), &target.name, &target.revision)
        {
            self.report(Outcome::Intends(intent));
        }
        let known = self.status.as_ref().and_then(|status| status.target.as_ref());
        if known.is_none_or(|known| known.revision != target.revision) {
            self.writes += 1;
            let kept = self.secrets.contains(&target.revision);
            assert!(
                !(self.versioned && back) || kept,
                "what a rollback goes back to is still there"
            );
            self.secrets.insert(target.revision.clone());
        }
        if std::mem::take(&mut self.ends_after_write) {
            return;
        }
        self.report(Outcome::Synced {
            target,
            sources: vec![source],
            back,
            waits: None,
        });
    }

    /// What the operator does at a refresh.
    fn sync(&mut self) {
        let status = self.status.clone();
        let known = status.as_ref().and_then(|status| status.target.as_ref());
        let rotation = status.as_ref().and_then(|status| status.rotation.as_ref());
        let wanted = revision(self.source);
        let handled = rotation.and_then(|rotation| rotation.handled_rotate_now.as_ref());
        let requested = self.asks.is_some() && handled != self.asks.as_ref();
        if let Some(refused) = rotation.and_then(|rotation| rotation.refused.as_ref())
            && refused.revision == wanted
            && !requested
        {
            let pinned = refused.pinned.revision.trim_start_matches('r').parse().unwrap();
            self.write(pinned, true);
            return;
        }
        let spec = self.spec();
        let change = Change {
            written: known,
            target_name: known.map_or("database", |known| known.name.as_str()),
            revision: &wanted,
            drifted: false,
            requested,
            rollout: Some(&spec),
            last_rollout: rotation.and_then(|rotation| rotation.rollout.as_ref()),
        };
        match rotation::entry(&Windows::default(), &change, self.now) {
            Entry::Now => self.write(self.source, false),
            Entry::Wait(waits_for, next) => {
                let pending = rotation::pending(rotation, wanted, waits_for, next, self.now);
                self.report(Outcome::Waits(pending));
            }
        }
    }

    fn sight(&self, target: &Target) -> Observation {
        let machine = &self.machines[target];
        if !self.reachable {
            return Observation::Unknown;
        }
        if !machine.exists {
            return Observation::Missing;
        }
        Observation::There(Workload {
            uid: "uid".to_owned(),
            revision: machine.carries.clone(),
            references: self.versioned.then(References::default),
            readiness: self.readiness(machine),
        })
    }

    fn readiness(&self, machine: &Machine) -> Readiness {
        let bad = self
            .bad
            .iter()
            .any(|bad| machine.carries.as_deref() == Some(&revision(*bad)));
        let young = self.steady < machine.since + SignedDuration::from_secs(STARTS);
        if machine.paused {
            Readiness::Paused
        } else if bad || (young && machine.carries.is_some()) {
            Readiness::Progressing
        } else {
            Readiness::Ready
        }
    }

    /// Makes the check under way, or looks at it. Its Job is there from then on, whatever becomes of the operator.
    fn check(&mut self, rollout: &RolloutStatus, check: &VerificationStatus) -> Check {
        if !self.reachable {
            return Check::Unknown;
        }
        let attempt = Attempt {
            synced_secret: "database",
            uid: "uid",
            rollout,
            verification: check,
        };
        let name = verify::job_name(&attempt);
        match self.checker {
            Checker::Missing => return Check::Blocked("missing".to_owned()),
            Checker::Forbidden => return Check::Forbidden("forbidden".to_owned()),
            Checker::Works | Checker::Hangs => {}
        }
        let persisted = self.status.as_ref().unwrap().rotation.as_ref().unwrap();
        let persisted = persisted.rollout.as_ref().unwrap().verification.as_ref();
        assert_eq!(
            persisted.map(|persisted| (persisted.wave, persisted.attempt)),
            Some((check.wave, check.attempt)),
            "a Job is made for what the status says"
        );
        let made = *self.jobs.entry(name).or_insert(self.steady);
        let unfit = self
            .unfit
            .iter()
            .any(|unfit| rollout.revision == revision(*unfit));
        if self.checker == Checker::Hangs || self.steady < made + SignedDuration::from_secs(STARTS) {
            return Check::NotYet("not yet".to_owned());
        }
        if unfit {
            return Check::Failed("unfit".to_owned());
        }
        self.verified
            .insert((rollout.start_time.clone(), rollout.revision.clone(), check.wave));
        Check::Passed
    }

    /// Clears away earlier Secrets, and says so unless it crashes.
    fn clear(&mut self, crash: bool) {
        let status = self.status.clone().unwrap();
        let none_kept = SecretTarget {
            versioned: true,
            revision_history_limit: Some(0),
            ..SecretTarget::default()
        };
        let surplus = versions::surplus(&status, &none_kept);
        let seen: BTreeMap<Target, Observation> = self
            .machines
            .keys()
            .map(|target| (target.clone(), self.sight(target)))
            .collect();
        if surplus.is_empty() || !versions::are_all_on(&seen, &self.held()) {
            return;
        }
        let names = surplus.iter().map(|version| version.name.clone()).collect();
        for version in surplus {
            self.secrets.remove(&version.revision);
        }
        if !crash {
            self.report(Outcome::Cleared(names));
        }
    }

    /// What no event may break.
    fn check_secrets(&self) {
        let held = self.held();
        assert!(self.secrets.contains(&held), "{held} is gone");
        for machine in self
            .machines
            .values()
            .filter(|machine| self.versioned && machine.exists)
        {
            if let Some(carried) = &machine.carries {
                assert!(
                    self.secrets.contains(carried),
                    "{carried} is gone, and its pods are not"
                );
            }
        }
    }

    /// One step of the operator; when it crashes, the cluster has it and the status has not.
    fn step(&mut self, crash: bool) {
        let spec = self.spec();
        let status = self.status.clone().unwrap();
        if rotation::awaits_rollback(status.rotation.as_ref()) {
            self.sync();
            return;
        }
        let Some(rotation) = status.rotation.as_ref() else {
            return;
        };
        let Some(rollout) = rotation.rollout.as_ref() else {
            return;
        };
        let mut next = rollout.clone();
        if rollout::wants_targets(&next, 1) {
            let all: Vec<Target> = self.machines.keys().cloned().collect();
            next = rollout::resolve(&next, &all, &spec, 1, self.steady);
        }
        let seen = rollout::looks(&next)
            .into_iter()
            .map(|target| (target.clone(), self.sight(&target)))
            .collect();
        let check = match verify::wanted(&next, &spec).cloned() {
            Some(check) => self.check(&next, &check),
            None => Check::Unknown,
        };
        let cx = RolloutInput {
            spec: &spec,
            seen: &seen,
            restarted: &BTreeMap::new(),
            check: &check,
            grant: "",
            now: self.steady,
        };
        let step = rollout::step(&next, &cx);
        next = step.rollout;
        for (target, _) in step.restart {
            self.restart(&target, &next);
            rollout::restarted(&mut next, &target, self.steady);
        }
        if !crash {
            let held = status
                .target
                .as_ref()
                .map(|target| (target, status.sources.as_slice()));
            let stepped = rotation::stepped(rotation, next, held, self.steady);
            self.report(Outcome::Stepped(stepped));
        }
    }

    fn restart(&mut self, target: &Target, rollout: &RolloutStatus) {
        let held = self.status.as_ref().unwrap().target.as_ref().unwrap();
        assert_eq!(
            rollout.revision, held.revision,
            "a target gets what the Secret holds"
        );
        let wave = rollout
            .targets
            .iter()
            .find(|one| one.name == target.name)
            .unwrap()
            .wave;
        for before in rollout.targets.iter().filter(|before| before.wave < wave) {
            let machine = &self.machines[&Target::from(before)];
            assert!(
                machine.carries.as_deref() == Some(&rollout.revision)
                    || before.state == lockstep_api::TargetState::Missing,
                "wave {wave} begins, and {before} of an earlier one never had the revision"
            );
            assert!(
                before.state.is_done(),
                "wave {wave} begins, and {before} is {:?}",
                before.state
            );
        }
        if self.spec().verify.is_some() && !rollout.rollback {
            for before in 1..wave {
                let check = (rollout.start_time.clone(), rollout.revision.clone(), before);
                assert!(
                    self.verified.contains(&check),
                    "wave {wave} begins, and wave {before} is not verified"
                );
            }
        }
        let machine = self.machines.get_mut(target).unwrap();
        assert_ne!(
            machine.carries.as_deref(),
            Some(rollout.revision.as_str()),
            "a restart without cause"
        );
        machine.carries = Some(rollout.revision.clone());
        machine.since = self.steady;
        machine.restarts += 1;
    }

    fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
        self.steady += SignedDuration::from_secs(seconds);
    }

    fn phase(&self) -> Option<RolloutPhase> {
        let rotation = self.status.as_ref()?.rotation.as_ref()?;
        Some(rotation.rollout.as_ref()?.phase)
    }

    fn held(&self) -> String {
        self.status
            .as_ref()
            .unwrap()
            .target
            .as_ref()
            .unwrap()
            .revision
            .clone()
    }
}

#[derive(Debug, Clone)]
enum Event {
    Rotate,
    RotateBad,
    RotateUnfit,
    RotateAndCrash,
    Checker(Checker),
    Ask(u8),
    GoBack,
    Step,
    Crash,
    Pass(i64),
    Jump(i64),
    Pause(usize),
    Resume(usize),
    Delete(usize),
    Outage,
    Return,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => Just(Event::Rotate),
        1 => Just(Event::RotateBad),
        1 => Just(Event::RotateUnfit),
        1 => Just(Event::RotateAndCrash),
        2 => prop_oneof![
            2 => Just(Checker::Works),
            1 => Just(Checker::Hangs),
            1 => Just(Checker::Missing),
            1 => Just(Checker::Forbidden),
        ].prop_map(Event::Checker),
        1 => any::<u8>().prop_map(Event::Ask),
        1 => Just(Event::GoBack),
        8 => Just(Event::Step),
        2 => Just(Event::Crash),
        8 => (1_i64..40).prop_map(Event::Pass),
        1 => (-500_i64..500).prop_map(Event::Jump),
        1 => (0_usize..6).prop_map(Event::Pause),
        1 => (0_usize..6).prop_map(Event::Resume),
        1 => (0_usize..6).prop_map(Event::Delete),
        1 => Just(Event::Outage),
        2 => Just(Event::Return),
    ]
}

fn play(world: &mut World, event: &Event) {
    let nth = |world: &World, number: usize| {
        world
            .machines
            .keys()
            .nth(number % world.machines.len())
            .cloned()
            .unwrap()
    };
    match event {
        Event::Rotate => world.source += 1,
        Event::RotateBad => {
            world.source += 1;
            world.bad.insert(world.source);
        }
        Event::RotateAndCrash => {
            world.source += 1;
            world.ends_after_write = true;
        }
        Event::RotateUnfit => {
            world.source += 1;
            world.unfit.insert(world.source);
        }
        Event::Checker(checker) => world.checker = *checker,
        Event::Ask(number) => world.asks = Some(number.to_string()),
        Event::GoBack => world.source = world.source.saturating_sub(1).max(1),
        Event::Step => world.step(false),
        Event::Crash => world.step(true),
        Event::Pass(seconds) => world.pass(*seconds),
        Event::Jump(seconds) => world.now += SignedDuration::from_secs(*seconds),
        Event::Pause(number) => {
            let target = nth(world, *number);
            world.machines.get_mut(&target).unwrap().paused = true;
        }
        Event::Resume(number) => {
            let target = nth(world, *number);
            world.machines.get_mut(&target).unwrap().paused = false;
        }
        Event::Delete(number) => {
            let target = nth(world, *number);
            world.machines.get_mut(&target).unwrap().exists = false;
        }
        Event::Outage => world.reachable = false,
        Event::Return => world.reachable = true,
    }
    match event {
        Event::Step => world.clear(false),
        Event::Crash => world.clear(true),
        _ => {}
    }
    if matches!(
        event,
        Event::Rotate
            | Event::RotateBad
            | Event::RotateUnfit
            | Event::RotateAndCrash
            | Event::GoBack
            | Event::Ask(_)
    ) {
        world.sync();
        world.ends_after_write = false;
    }
}

/// Everything heals but bad values, and time passes.
fn settle(world: &mut World) {
    world.reachable = true;
    world.checker = Checker::Works;
    for machine in world.machines.values_mut() {
        machine.paused = false;
    }
    for look in 0..400 {
        if look == 200 {
            // a check that failed is made once more when somebody asks
            world.asks = Some("settled".to_owned());
        }
        world.pass(10);
        world.sync();
        world.step(false);
        world.clear(false);
        world.check_secrets();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(400), ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_it_ends_where_the_newest_value_says(
        targets in 1_usize..6,
        waves in prop::collection::vec(1_u32..4, 0..3),
        soak in prop::option::of(1_u64..20),
        rollback in any::<bool>(),
        verifies in any::<bool>(),
        versioned in any::<bool>(),
        events in prop::collection::vec(event(), 0..60),
    ) {
        let rollout = Rollout {
            waves,
            soak: soak.map(lockstep_api::Duration::from_secs),
            progress_deadline: Some(lockstep_api::Duration::from_secs(60)),
            minimum_interval: Some(lockstep_api::Duration::from_secs(30)),
            verify: verifies.then(|| Verify {
                job: Some(VerifyJob { cron_job: "smoke".to_owned() }),
                timeout: Some(lockstep_api::Duration::from_secs(60)),
                ..Verify::default()
            }),
            on_failure: if rollback { OnFailure::Rollback } else { OnFailure::Hold },
            ..Rollout::default()
        };
        let mut world = World::new(rollout, targets, versioned);
        for event in &events {
            play(&mut world, event);
            world.check_secrets();
        }
        settle(&mut world);
        let unfit = verifies && world.unfit.contains(&world.source);
        let bad = world.bad.contains(&world.source) || unfit;
        let newest = revision(world.source);
        let there: Vec<&Machine> = world.machines.values().filter(|machine| machine.exists).collect();
        for machine in world.machines.values() {
            prop_assert!(machine.restarts <= world.writes, "restarted {} times for {} writes", machine.restarts, world.writes);
        }
        if !bad {
            prop_assert_eq!(world.held(), newest.clone());
            if let Some(phase) = world.phase() {
                prop_assert_eq!(phase, RolloutPhase::Complete);
                for machine in &there {
                    let first = !versioned && machine.carries.is_none() && world.source == 1;
                    prop_assert!(first || machine.carries.as_deref() == Some(newest.as_str()), "{:?}", machine);
                }
                let rollout = world.status.as_ref().unwrap().rotation.as_ref().unwrap().rollout.as_ref().unwrap();
                if versioned {
                    prop_assert_eq!(&world.secrets, &BTreeSet::from([newest.clone()]), "earlier ones are cleared away");
                }
                if verifies && !there.is_empty() {
                    for wave in 1..=rollout.waves() {
                        let check = (rollout.start_time.clone(), newest.clone(), wave);
                        prop_assert!(world.verified.contains(&check), "wave {} was never verified", wave);
                    }
                }
            }
        } else if !there.is_empty() {
            // a bad value is held at its first wave, or gone again
            match world.phase() {
                Some(RolloutPhase::Held) => {}
                Some(RolloutPhase::RolledBack) => {
                    prop_assert!(rollback);
                    prop_assert_ne!(world.held(), newest);
                    let status = world.status.as_ref().unwrap();
                    prop_assert!(status.condition(ConditionType::Stalled).is_some());
                    prop_assert!(status.condition(ConditionType::RolloutComplete).unwrap().has_reason(Reason::RolledBack));
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
