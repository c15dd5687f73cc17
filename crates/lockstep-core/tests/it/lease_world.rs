//! Leases in a small world: whatever changes, fails, ends in the middle or sets its clock, no credential is revoked while somebody
//! uses it, none is made without cause, and none is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use lockstep_api::{
    GenerateMethod, Rollout, RolloutPhase, Rotation, SourceStatus, StoreKind, StoreRef, SyncedSecretStatus,
    TargetProgress, TargetState, TargetStatus, WorkloadKind,
};
use lockstep_core::{
    fingerprint::FingerprintKey,
    lease::Generation,
    lease::{self, Action, Issuer, Retention, Retries},
    remote::{ErrorKind, LeaseRequest, Minted, SecretValue, Warrant},
    report::{Outcome, Subject, report},
};
use proptest::prelude::*;

/// For how long the engine gives a lease, in seconds.
const GIVES: i64 = 60;
/// How long one lives at most.
const MAXIMUM: i64 = 400;
const REVOKE_AFTER: Duration = Duration::from_secs(20);

/// What the server knows of a token and of what was made with it.
#[derive(Debug, Clone, Copy)]
struct Held {
    issued: Timestamp,
    expires: Timestamp,
}

#[derive(Debug, Default)]
struct Server {
    /// Leases that are neither revoked nor expired, by accessor.
    leases: BTreeMap<String, Held>,
    next: usize,
    mints: usize,
    down: bool,
    denies_renewal: bool,
}

/// The process ended.
#[derive(Debug)]
struct Crash;

/// What a process remembers, and loses.
#[derive(Debug, Default)]
struct Process {
    credential: Option<String>,
    retries: Retries,
    drifted: bool,
}

#[derive(Debug)]
struct World {
    /// The clock on the wall, which can be set.
    now: Timestamp,
    /// What passes by itself.
    steady: Timestamp,
    server: Server,
    process: Process,
    status: Option<SyncedSecretStatus>,
    /// The accessor of the credential that the Secret holds.
    secret: Option<String>,
    /// The one that the pods of the targets run on, where there are targets.
    pods: Option<String>,
    rotation: Rotation,
    /// The fingerprint key, which can be lost.
    key: FingerprintKey,
    /// What lived when a key was lost.
    disowned: BTreeSet<String>,
    path: usize,
    /// The process ends at this write or request.
    crash_in: Option<usize>,
    status_down: bool,
    secret_down: bool,
}

fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

impl World {
    fn new(targets: bool) -> Self {
        let now = Timestamp::from_second(1_000_000).unwrap();
        Self {
            now,
            steady: now,
            server: Server::default(),
            process: Process::default(),
            status: None,
            secret: None,
            pods: None,
            rotation: Rotation {
                rollout: targets.then(Rollout::default),
                ..Rotation::default()
            },
            key: FingerprintKey::new([7; 32]).unwrap(),
            disowned: BTreeSet::new(),
            path: 0,
            crash_in: None,
            status_down: false,
            secret_down: false,
        }
    }

    fn generation(&self) -> Generation {
        Generation {
            entry: 0,
            store: StoreRef {
                name: "vault".to_owned(),
                kind: StoreKind::SecretStore,
            },
            request: LeaseRequest {
                path: crate::at(format!("database/creds/{}", self.path)),
                method: GenerateMethod::Get,
                parameters: BTreeMap::new(),
            },
        }
    }

    fn request(&self) -> String {
        lease::request_name(&self.generation())
    }

    fn issuer(&self) -> Issuer<'_> {
        Issuer {
            key: &self.key,
            uid: "uid",
            namespace: "shop",
            name: "database",
        }
    }

    fn leases(&self) -> Option<&lockstep_api::LeaseStatus> {
        self.status.as_ref()?.lease.as_ref()
    }

    /// Another process begins, with a clock that is right.
    fn restart(&mut self) {
        self.process = Process::default();
        self.now = self.steady;
    }

    fn retention(&self) -> Retention {
        Retention {
            revoke_after: REVOKE_AFTER,
            has_targets: self.rotation.rollout.is_some(),
        }
    }

    fn ahead(&self) -> SignedDuration {
        self.now.duration_since(self.steady)
    }

    /// A place where the process can end.
    fn point(&mut self) -> Result<(), Crash> {
        match &mut self.crash_in {
            Some(0) => {
                self.crash_in = None;
                self.restart();
                Err(Crash)
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Writes the status; whether it stands there.
    fn say(&mut self, outcome: Outcome<'_>) -> Result<bool, Crash> {
        self.point()?;
        if self.status_down {
            return Ok(false);
        }
        let subject = Subject {
            generation: 1,
            refresh: None,
            rotate_now: None,
            rotation: Some(&self.rotation),
            target_name: "database",
            old: self.status.as_ref(),
            drifted: false,
        };
        self.status = Some(report(&subject, outcome, self.now));
        self.point()?;
        Ok(true)
    }

    /// What lives on the server is named in the status, whatever happens. What was noted under a key that is lost is left to expire.
    fn nothing_is_lost(&self) {
        let noted = self
            .server
            .leases
            .keys()
            .filter(|accessor| !self.disowned.contains(*accessor));
        for accessor in noted {
            let named = self
                .leases()
                .is_some_and(|leases| lease::held_as(leases, accessor).is_some());
            assert!(named, "{accessor} is lost: {:?}", self.leases());
        }
    }

    fn mint(&mut self) -> Result<(), Crash> {
        let generation = self.generation();
        self.point()?;
        if self.server.down {
            return Ok(());
        }
        self.server.next += 1;
        let accessor = format!("a{}", self.server.next);
        let warrant = Warrant {
            server: "https://vault".to_owned(),
            accessor: accessor.clone(),
            token: SecretValue::from("token"),
            lives: Duration::from_secs(86_400),
        };
        let intent = lease::intend(self.leases(), &generation, &warrant, &self.issuer(), self.steady);
        if !self.say(Outcome::Leased(Some(intent.clone())))? {
            return Ok(());
        }
        if self.server.down {
            return Ok(());
        }
        let asked = self.steady;
        self.server.mints += 1;
        let held = Held {
            issued: self.steady,
            expires: self.steady + seconds(GIVES),
        };
        self.server.leases.insert(accessor.clone(), held);
        self.point()?;
        let minted = Minted {
            id: Some(format!("id-{accessor}")),
            value: SecretValue::from("{}"),
            lives: Duration::from_secs(60),
            renewable: true,
        };
        let noted = lease::minted(&intent, self.request(), &minted, &self.issuer(), asked);
        if !self.say(Outcome::Leased(Some(noted)))? {
            return Ok(());
        }
        self.process.credential = minted.id;
        self.write(&accessor)
    }

    fn write(&mut self, accessor: &str) -> Result<(), Crash> {
        self.point()?;
        if self.secret_down {
            return Ok(());
        }
        self.secret = Some(accessor.to_owned());
        if self.pods.is_none() && self.rotation.rollout.is_some() {
            self.pods = Some(accessor.to_owned());
        }
        self.process.drifted = false;
        self.point()?;
        self.in_sync(accessor).map(drop)
    }

    fn in_sync(&mut self, accessor: &str) -> Result<bool, Crash> {
        let target = TargetStatus {
            name: "database".to_owned(),
            revision: format!("r-{accessor}"),
            fingerprint: format!("f-{accessor}"),
            ..TargetStatus::default()
        };
        let sources = vec![SourceStatus {
            version: Some(format!("id-{accessor}")),
            ..SourceStatus::default()
        }];
        self.say(Outcome::Synced {
            target,
            sources,
            back: false,
            waits: None,
        })
    }

    fn sync(&mut self) -> Result<(), Crash> {
        let remembered = self.process.credential.clone();
        let cause = lease::cause(self.leases(), &self.request(), remembered.as_deref(), self.steady);
        let in_use = lease::in_use(self.leases()).map(|lease| lease.accessor.clone());
        let known = self.status.as_ref().and_then(|status| status.target.clone());
        let Some(accessor) = in_use.filter(|_| cause.is_none()) else {
            return self.mint();
        };
        let same = known.is_some_and(|known| known.fingerprint == format!("f-{accessor}"));
        if same && !self.process.drifted {
            return self.in_sync(&accessor).map(drop);
        }
        if remembered == Some(format!("id-{accessor}")) {
            self.write(&accessor)
        } else {
            self.mint()
        }
    }

    fn tend(&mut self, action: &Action) -> Result<(), Crash> {
        self.point()?;
        let leases = self.leases().cloned().unwrap();
        let failed = |world: &mut Self| {
            let now = world.steady;
            world.process.retries.failed(action, false, "uid", now);
        };
        if self.server.down {
            failed(self);
            return Ok(());
        }
        let next = match action {
            Action::Renew(accessor) => {
                let alive = self.server.leases.get_mut(accessor);
                match alive.filter(|_| !self.server.denies_renewal) {
                    Some(held) => {
                        let end = (self.steady + seconds(GIVES)).min(held.issued + seconds(MAXIMUM));
                        held.expires = end;
                        let given = Duration::try_from(end.duration_since(self.steady)).unwrap();
                        Some(lease::renewed(&leases, accessor, given, self.steady))
                    }
                    None => lease::renewal_failed(&leases, accessor, ErrorKind::NotFound, "gone"),
                }
            }
            Action::Revoke(accessor) => {
                assert!(
                    self.secret.as_ref() != Some(accessor) && self.pods.as_ref() != Some(accessor),
                    "{accessor} is in use: {leases:?}"
                );
                self.server.leases.remove(accessor);
                self.point()?;
                lease::revoked(&leases, accessor)
            }
            Action::Forget(accessor) => lease::revoked(&leases, accessor),
            Action::Disown => {
                self.disowned.extend(self.server.leases.keys().cloned());
                Some(lease::disowned(&leases, &self.issuer(), self.steady))
            }
            Action::Release => panic!("nothing is deleted here"),
        };
        self.process.retries.done(action);
        self.say(Outcome::Leased(next)).map(drop)
    }

    /// What a process does until nothing is due.
    fn run(&mut self) {
        for _ in 0..30 {
            self.nothing_is_lost();
            let unproven = self
                .leases()
                .is_some_and(|leases| lease::has_unproven(leases, &self.issuer()));
            let due = self
                .status
                .as_ref()
                .and_then(|status| {
                    if unproven {
                        return Some((Timestamp::MIN, Action::Disown));
                    }
                    lease::next(status, self.retention(), &self.process.retries, self.ahead())
                })
                .filter(|(at, _)| *at <= self.now);
            let mint = lease::mint_at(self.leases(), false).is_some_and(|(at, _)| at <= self.steady);
            let changed = self
                .leases()
                .and_then(|leases| leases.current.as_ref())
                .is_some_and(|current| current.request != self.request());
            let done = match due {
                Some((_, action)) => self.tend(&action),
                None if mint || changed || self.process.drifted || self.status.is_none() => self.sync(),
                None => break,
            };
            // after a crash another process goes on
            let _ = done;
        }
        self.nothing_is_lost();
    }

    fn pass(&mut self, by: i64) {
        self.now += seconds(by);
        self.steady += seconds(by);
        let steady = self.steady;
        self.server.leases.retain(|_, held| held.expires > steady);
    }

    /// The rollout of what the Secret holds ends.
    fn roll_out(&mut self) {
        let Some(status) = self.status.clone() else { return };
        let Some(mut rotation) = status.rotation else {
            return;
        };
        let Some(rollout) = &mut rotation.rollout else {
            return;
        };
        // it is over only where it is the one of what the Secret holds
        if self.secret.as_ref().map(|secret| format!("r-{secret}")) == Some(rollout.revision.clone()) {
            rollout.phase = RolloutPhase::Complete;
            rollout.targets = vec![TargetProgress {
                kind: WorkloadKind::Deployment,
                name: "shop".to_owned(),
                wave: 1,
                state: TargetState::Ready,
                updated_time: None,
                was_failing: false,
            }];
            self.pods.clone_from(&self.secret);
            let _ = self.say(Outcome::Stepped(rotation));
        }
    }

    fn heal(&mut self) {
        self.crash_in = None;
        self.server.down = false;
        self.server.denies_renewal = false;
        self.status_down = false;
        self.secret_down = false;
        self.now = self.steady;
        // at the end, one may have been replaced just now
        for round in 0..200 {
            self.run();
            self.roll_out();
            let replacing = self.leases().is_none_or(|leases| !leases.old.is_empty());
            if round > 120 && !replacing {
                return;
            }
            self.pass(10);
        }
    }

    /// One credential is left: the one that the Secret holds and the status names.
    fn is_settled(&self) {
        let leases = self.leases().unwrap();
        assert!(
            leases.intent.is_none() && leases.minted.is_none() && leases.old.is_empty(),
            "{leases:?}"
        );
        let current = &leases.current.as_ref().unwrap().accessor;
        assert_eq!(self.secret.as_ref(), Some(current));
        let alive: Vec<_> = self.server.leases.keys().collect();
        assert_eq!(alive, [current]);
    }
}

#[derive(Debug, Clone)]
enum Event {
    Pass(i64),
    SetClock(i64),
    ServerDown(bool),
    RenewalDenied(bool),
    StatusDown(bool),
    SecretDown(bool),
    CrashIn(usize),
    Restart,
    KeyLost(u8),
    Request,
    Drift,
    RollOut,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1_i64..90).prop_map(Event::Pass),
        1 => (-500_i64..500).prop_map(Event::SetClock),
        1 => any::<bool>().prop_map(Event::ServerDown),
        1 => any::<bool>().prop_map(Event::RenewalDenied),
        1 => any::<bool>().prop_map(Event::StatusDown),
        1 => any::<bool>().prop_map(Event::SecretDown),
        4 => (0_usize..12).prop_map(Event::CrashIn),
        1 => Just(Event::Restart),
        1 => any::<u8>().prop_map(Event::KeyLost),
        1 => Just(Event::Request),
        1 => Just(Event::Drift),
        2 => Just(Event::RollOut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_in_use_is_revoked_and_nothing_is_lost(
        targets in any::<bool>(),
        crash_in in proptest::option::of(0_usize..12),
        events in proptest::collection::vec(event(), 0..40),
    ) {
        let mut world = World::new(targets);
        world.crash_in = crash_in;
        world.run();
        for event in events {
            match event {
                Event::Pass(by) => world.pass(by),
                Event::SetClock(by) => world.now = world.steady + seconds(by),
                Event::ServerDown(down) => world.server.down = down,
                Event::RenewalDenied(denied) => world.server.denies_renewal = denied,
                Event::StatusDown(down) => world.status_down = down,
                Event::SecretDown(down) => world.secret_down = down,
                Event::CrashIn(points) => world.crash_in = Some(points),
                Event::Restart => world.restart(),
                Event::KeyLost(key) => {
                    world.key = FingerprintKey::new([key; 32]).unwrap();
                    world.restart();
                }
                Event::Request => world.path += 1,
                Event::Drift => {
                    world.secret = None;
                    world.process.drifted = true;
                }
                Event::RollOut => world.roll_out(),
            }
            world.run();
        }
        world.heal();
        world.is_settled();

        // a restart makes nothing new, and neither does time while the lease is renewed
        let mints = world.server.mints;
        let holds = world.secret.clone();
        world.restart();
        world.run();
        prop_assert_eq!(world.server.mints, mints);
        prop_assert_eq!(&world.secret, &holds);
    }

    #[test]
    fn without_changes_a_credential_is_replaced_when_its_maximum_is_near_and_not_before(steps in 1_i64..15) {
        let mut world = World::new(false);
        world.run();
        let mut passed = 0;
        while passed < 3 * MAXIMUM {
            world.pass(steps);
            passed += steps;
            world.run();
            let holder = world.secret.clone().unwrap();
            prop_assert!(world.server.leases.contains_key(&holder), "the one in the Secret has died after {}", passed);
        }
        // each lives nearly as long as it may
        let most = 1 + usize::try_from(passed / (MAXIMUM - GIVES)).unwrap();
        prop_assert!((3..=most + 1).contains(&world.server.mints), "{} in {} s", world.server.mints, passed);
    }
}
