//! The write of a Secret, against a model of the API server with its admission policy, with crashes and with people who edit the
//! Secret in between.

use lockstep_core::secret_write::{
    Answer, Done, How, Request, SecretIdentity, SecretWrite, Step, WriteFailure, recorded,
};
use proptest::prelude::*;

const US: &str = "us";

/// A Secret as the API server keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    uid: u32,
    version: u32,
    owner: Option<&'static str>,
    adopt: Option<&'static str>,
    immutable: bool,
    kind: u8,
    content: u8,
}

impl Stored {
    fn identity(&self) -> SecretIdentity {
        Server::identity(self.uid, self.version)
    }
}

/// What the SyncedSecret wants.
#[derive(Debug, Clone, Copy)]
struct Desired {
    immutable: bool,
    kind: u8,
    content: u8,
}

/// The API server with the policy `lockstep-secrets`.
#[derive(Debug, Clone, Default)]
struct Server {
    stored: Option<Stored>,
    /// Whether the component `deny-guesses` denies before object validation.
    denies_early: bool,
    last_uid: u32,
    last_version: u32,
    /// The uids of Secrets that this SyncedSecret created or that were handed to it.
    ours: Vec<u32>,
    /// Changes to Secrets that are not this SyncedSecret's.
    trespasses: Vec<String>,
}

impl Server {
    fn identity(uid: u32, version: u32) -> SecretIdentity {
        SecretIdentity {
            uid: uid.to_string(),
            resource_version: version.to_string(),
        }
    }

    fn new_version(&mut self) -> u32 {
        self.last_version += 1;
        self.last_version
    }

    fn new_uid(&mut self) -> u32 {
        self.last_uid += 1;
        self.last_uid
    }

    fn may_update(stored: &Stored) -> bool {
        stored.owner == Some(US) || stored.adopt == Some(US)
    }

    fn perform(&mut self, request: &Request, desired: Desired) -> Answer<()> {
        match request {
            Request::Create => self.create(desired),
            Request::Replace { uid, sealed } => self.replace(uid.as_deref(), *sealed, desired),
            Request::Claim => match &self.stored {
                None => Answer::NotFound,
                Some(stored) if self.denies_early && stored.owner != Some(US) => Answer::Denied,
                Some(stored) if stored.immutable => Answer::Immutable,
                Some(stored) if stored.owner == Some(US) => Answer::Written(stored.identity()),
                Some(_) => Answer::Denied,
            },
            Request::Prove => match &self.stored {
                None => Answer::NotFound,
                Some(stored) if stored.immutable && !self.denies_early => Answer::Immutable,
                Some(_) => Answer::Denied,
            },
            Request::ProveCreate => Answer::Denied,
            Request::Rehearse => Answer::Written(Self::identity(0, 0)),
            Request::Probe(identity) => match &self.stored {
                None => Answer::NotFound,
                Some(stored) if stored.identity() == *identity => Answer::Deleted,
                Some(_) => Answer::Conflict,
            },
            Request::Delete(identity) => match self.stored.clone() {
                None => Answer::NotFound,
                Some(stored) if stored.identity() != *identity => Answer::Conflict,
                Some(stored) if stored.owner.is_none() => Answer::Denied,
                Some(stored) => {
                    if !self.ours.contains(&stored.uid) {
                        self.trespasses.push(format!("deleted {stored:?}"));
                    }
                    self.stored = None;
                    Answer::Deleted
                }
            },
        }
    }

    fn create(&mut self, desired: Desired) -> Answer<()> {
        if self.stored.is_some() {
            return Answer::AlreadyExists;
        }
        let (uid, version) = (self.new_uid(), self.new_version());
        self.ours.push(uid);
        self.stored = Some(Stored {
            uid,
            version,
            owner: Some(US),
            adopt: None,
            immutable: false,
            kind: desired.kind,
            content: desired.content,
        });
        Answer::Written(Self::identity(uid, version))
    }

    fn replace(&mut self, uid: Option<&str>, sealed: bool, desired: Desired) -> Answer<()> {
        let Some(stored) = &mut self.stored else {
            return Answer::NotFound;
        };
        if uid.is_some_and(|uid| uid != stored.uid.to_string()) {
            return Answer::Conflict;
        }
        if self.denies_early && !Self::may_update(stored) {
            return Answer::Denied;
        }
        let content_is_fixed = stored.immutable && (!sealed || stored.content != desired.content);
        if content_is_fixed || stored.kind != desired.kind {
            return Answer::Immutable;
        }
        if !Self::may_update(stored) {
            return Answer::Denied;
        }
        let before = stored.clone();
        stored.owner = Some(US);
        stored.adopt = None;
        stored.immutable = sealed;
        stored.content = desired.content;
        if *stored != before {
            self.last_version += 1;
            stored.version = self.last_version;
        }
        let identity = stored.identity();
        let uid = stored.uid;
        if !self.ours.contains(&uid) {
            self.ours.push(uid);
        }
        Answer::Written(identity)
    }
}

/// Runs writes until the Secret has its final form, recording it in between; after `crash_after` requests the process ends.
fn run(
    server: &mut Server,
    recorded: &mut Option<SecretIdentity>,
    desired: Desired,
    mut crash_after: usize,
) -> Option<Result<Done, WriteFailure<()>>> {
    loop {
        let (mut write, mut request) = SecretWrite::start(recorded.clone(), desired.immutable, true);
        let done = loop {
            if crash_after == 0 {
                return None;
            }
            crash_after -= 1;
            match write.resume(server.perform(&request, desired)) {
                Step::Send(next) => request = next,
                Step::Done(done) => break done,
                Step::Failed(failure) => return Some(Err(failure)),
            }
        };
        // the status is one more write, and a crash can come before it
        if crash_after == 0 {
            return None;
        }
        crash_after -= 1;
        *recorded = Some(done.identity.clone());
        if done.sealed {
            return Some(Ok(done));
        }
    }
}

#[derive(Debug, Clone)]
enum Event {
    /// A write with this many requests before the process ends.
    Write(Desired, usize),
    Deleted,
    /// Someone deletes the Secret and creates one of the same name.
    Taken {
        adopt: bool,
        immutable: bool,
        kind: u8,
    },
    /// Someone edits the content of a mutable Secret.
    Edited(u8),
    /// Someone hands the Secret over to another SyncedSecret, which adopts it and may make it immutable.
    HandedOver {
        immutable: bool,
    },
    /// Someone changes a label.
    Labelled,
}

fn desired() -> impl Strategy<Value = Desired> {
    (any::<bool>(), 0..2u8, 0..3u8).prop_map(|(immutable, kind, content)| Desired {
        immutable,
        kind,
        content,
    })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (desired(), 0..9usize).prop_map(|(desired, crash)| Event::Write(desired, crash)),
        1 => Just(Event::Deleted),
        1 => (any::<bool>(), any::<bool>(), 0..2u8)
            .prop_map(|(adopt, immutable, kind)| Event::Taken { adopt, immutable, kind }),
        1 => (3..6u8).prop_map(Event::Edited),
        2 => any::<bool>().prop_map(|immutable| Event::HandedOver { immutable }),
        1 => Just(Event::Labelled),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_crash_or_edit_makes_a_write_change_an_unowned_secret(
        events in prop::collection::vec(event(), 0..12),
        last in desired(),
        denies_early in any::<bool>(),
    ) {
        let mut server = Server { denies_early, ..Server::default() };
        let mut recorded = None;
        for event in events {
            match event {
                Event::Write(desired, crash) => {
                    let before = server.stored.clone();
                    run(&mut server, &mut recorded, desired, crash);
                    if let Some(before) = before.filter(|before| !Server::may_update(before)) {
                        prop_assert_eq!(server.stored.as_ref(), Some(&before), "a foreign Secret was changed");
                    }
                }
                Event::Deleted => server.stored = None,
                Event::Taken { adopt, immutable, kind } => {
                    let (uid, version) = (server.new_uid(), server.new_version());
                    let adopt = adopt.then_some(US);
                    server.stored = Some(Stored { uid, version, owner: None, adopt, immutable, kind, content: 9 });
                }
                Event::Labelled => {
                    let version = server.new_version();
                    if let Some(stored) = &mut server.stored {
                        stored.version = version;
                    }
                }
                Event::HandedOver { immutable } => {
                    let version = server.new_version();
                    if let Some(stored) = &mut server.stored {
                        stored.version = version;
                        stored.owner = Some("another");
                        stored.adopt = None;
                        stored.immutable |= immutable;
                        let uid = stored.uid;
                        server.ours.retain(|ours| *ours != uid);
                    }
                }
                Event::Edited(content) => {
                    let version = server.new_version();
                    if let Some(stored) = server.stored.as_mut().filter(|stored| !stored.immutable) {
                        stored.content = content;
                        stored.version = version;
                    }
                }
            }
        }
        let before = server.stored.clone();
        let known = recorded.clone();
        let outcome = run(&mut server, &mut recorded, last, usize::MAX).unwrap();
        prop_assert!(server.trespasses.is_empty(), "{:?}", server.trespasses);
        match outcome {
            Ok(_) => {
                let stored = server.stored.clone().unwrap();
                prop_assert_eq!(stored.content, last.content);
                prop_assert_eq!(stored.kind, last.kind);
                prop_assert_eq!(stored.immutable, last.immutable);
                // nothing is left to do
                let again = run(&mut server, &mut recorded, last, 1);
                prop_assert!(again.is_none());
                prop_assert_eq!(server.stored, Some(stored));
            }
            Err(failure) => {
                let before = before.unwrap();
                // nothing shows whose it is
                let is_unclear = before.immutable && known != Some(before.identity());
                match failure {
                    WriteFailure::Foreign | WriteFailure::NotAdoptable => {}
                    WriteFailure::Changed if is_unclear => {}
                    other => prop_assert!(false, "{other:?}"),
                }
                let is_ours = server.ours.contains(&before.uid);
                prop_assert!(!is_ours || is_unclear, "a Secret of ours is stuck: {before:?}");
                prop_assert_eq!(server.stored, Some(before), "a failed write changes nothing");
            }
        }
    }
}

#[test]
fn data_of_an_immutable_secret_does_not_change_the_failure() {
    let sealed = Desired {
        immutable: true,
        ..PLAIN
    };
    for denies_early in [false, true] {
        for adopt in [None, Some("someone else")] {
            let failures = [9, 1].map(|content| {
                let mut server = foreign(adopt, true, 0);
                server.denies_early = denies_early;
                first(Desired { content, ..sealed }, &mut server)
            });
            let [right, wrong] = failures;
            assert_eq!(right, wrong);
            assert!(right.is_err());
            if !denies_early {
                assert_eq!(right, Err(WriteFailure::NotAdoptable));
            }
        }
        // a Secret that another SyncedSecret adopted and made immutable
        let failures = [2, 1].map(|content| {
            let mut server = Server {
                denies_early,
                ..Server::default()
            };
            let mut recorded = None;
            run(&mut server, &mut recorded, PLAIN, usize::MAX);
            let stored = server.stored.as_mut().unwrap();
            stored.owner = Some("another");
            stored.immutable = true;
            stored.content = 2;
            stored.version += 1;
            run(
                &mut server,
                &mut recorded,
                Desired { content, ..sealed },
                usize::MAX,
            )
            .unwrap()
        });
        let [right, wrong] = failures;
        assert_eq!(right, wrong);
        assert!(right.is_err());
    }
}

#[test]
fn own_immutable_secret_is_found_without_a_record() {
    let sealed = Desired {
        immutable: true,
        ..PLAIN
    };
    for denies_early in [false, true] {
        let mut server = Server {
            denies_early,
            ..Server::default()
        };
        first(sealed, &mut server).unwrap();
        let before = server.stored.clone();
        assert_eq!(first(sealed, &mut server).unwrap().how, How::Updated);
        assert_eq!(server.stored, before);
    }
}

fn first(desired: Desired, server: &mut Server) -> Result<Done, WriteFailure<()>> {
    run(server, &mut None, desired, usize::MAX).unwrap()
}

fn known() -> Option<SecretIdentity> {
    Some(Server::identity(1, 1))
}

const PLAIN: Desired = Desired {
    immutable: false,
    kind: 0,
    content: 1,
};

fn foreign(adopt: Option<&'static str>, immutable: bool, kind: u8) -> Server {
    let stored = Stored {
        uid: 7,
        version: 1,
        owner: None,
        adopt,
        immutable,
        kind,
        content: 9,
    };
    Server {
        stored: Some(stored),
        last_uid: 7,
        ..Server::default()
    }
}

#[test]
fn first_write_is_one_request() {
    let (mut write, request) = SecretWrite::start(None, false, true);
    assert_eq!(request, Request::Create);
    let step = write.resume(Answer::<()>::Written(Server::identity(1, 1)));
    assert!(matches!(
        step,
        Step::Done(Done {
            how: How::Created,
            sealed: true,
            ..
        })
    ));
}

#[test]
fn later_write_is_one_request_with_the_uid() {
    let (mut write, request) = SecretWrite::start(known(), false, true);
    let uid = Some("1".to_owned());
    assert_eq!(request, Request::Replace { uid, sealed: false });
    let step = write.resume(Answer::<()>::Written(Server::identity(1, 1)));
    assert!(matches!(
        step,
        Step::Done(Done {
            how: How::Updated,
            sealed: true,
            ..
        })
    ));
}

#[test]
fn without_a_proven_policy_no_request_lacks_the_uid() {
    let (mut write, _) = SecretWrite::start(None, false, false);
    let step = write.resume(Answer::<()>::AlreadyExists);
    assert_eq!(step, Step::Failed(WriteFailure::Unproven));
    let (mut write, _) = SecretWrite::start(known(), true, false);
    assert_eq!(write.resume(Answer::<()>::Conflict), Step::Send(Request::Create));
    assert_eq!(
        write.resume(Answer::<()>::AlreadyExists),
        Step::Failed(WriteFailure::Unproven)
    );
}

#[test]
fn adoption_replaces_content_and_never_deletes() {
    let mut server = foreign(Some(US), false, 0);
    assert_eq!(first(PLAIN, &mut server).unwrap().how, How::Updated);
    for (immutable, kind) in [(true, 0), (true, 1), (false, 1)] {
        let mut server = foreign(Some(US), immutable, kind);
        let before = server.stored.clone();
        assert_eq!(first(PLAIN, &mut server), Err(WriteFailure::NotAdoptable));
        assert_eq!(server.stored, before);
    }
}

#[test]
fn unowned_secret_is_left_alone() {
    for adopt in [None, Some("someone else")] {
        let mut server = foreign(adopt, false, 0);
        assert_eq!(first(PLAIN, &mut server), Err(WriteFailure::Foreign));
    }
}

#[test]
fn policy_that_is_not_enforced_for_the_secret_stops_the_write() {
    let (mut write, _) = SecretWrite::start(None, true, true);
    assert_eq!(
        write.resume(Answer::<()>::AlreadyExists),
        Step::Send(Request::Prove)
    );
    let mut fixed = write.clone();
    let let_through = Answer::<()>::Written(Server::identity(7, 1));
    assert_eq!(
        write.resume(let_through.clone()),
        Step::Failed(WriteFailure::Unproven)
    );
    assert_eq!(
        fixed.resume(Answer::<()>::Immutable),
        Step::Send(Request::ProveCreate)
    );
    assert_eq!(fixed.resume(let_through), Step::Failed(WriteFailure::Unproven));
}

#[test]
fn secret_that_was_merged_into_is_not_recorded() {
    let target = |merged| lockstep_api::TargetStatus {
        name: "s".to_owned(),
        uid: "theirs".to_owned(),
        merged,
        ..lockstep_api::TargetStatus::default()
    };
    for (merged, expected) in [(false, Some("theirs")), (true, None)] {
        let status = lockstep_api::SyncedSecretStatus {
            target: Some(target(merged)),
            ..lockstep_api::SyncedSecretStatus::default()
        };
        let found = recorded(Some(&status), "s");
        assert_eq!(found.as_ref().map(|found| found.uid.as_str()), expected);
    }
}

#[test]
fn write_ends_when_someone_recreates_the_secret_forever() {
    let (mut write, mut request) = SecretWrite::start(known(), true, true);
    let mut sent = 1;
    let step = loop {
        let answer = match request {
            Request::Replace { .. } => Answer::<()>::Immutable,
            Request::Create => Answer::AlreadyExists,
            Request::Prove | Request::ProveCreate => Answer::Denied,
            Request::Claim | Request::Rehearse => Answer::Written(Server::identity(1, 1)),
            Request::Delete(_) | Request::Probe(_) => Answer::Deleted,
        };
        match write.resume(answer) {
            Step::Send(next) => request = next,
            end => break end,
        }
        sent += 1;
    };
    assert_eq!(step, Step::Failed(WriteFailure::Raced));
    assert!(sent <= 10, "{sent} requests");
}

#[test]
fn secret_that_was_handed_over_and_sealed_is_not_deleted() {
    let mut server = Server::default();
    let mut recorded = None;
    run(&mut server, &mut recorded, PLAIN, usize::MAX);
    let stored = server.stored.as_mut().unwrap();
    stored.owner = Some("another");
    stored.immutable = true;
    stored.version += 1;
    let before = server.stored.clone();
    let changed = Desired { content: 2, ..PLAIN };
    let outcome = run(&mut server, &mut recorded, changed, usize::MAX);
    assert_eq!(outcome, Some(Err(WriteFailure::Changed)));
    assert_eq!(server.stored, before);
}

#[test]
fn secret_that_is_handed_over_after_the_claim_is_not_deleted() {
    let mut server = Server::default();
    let mut recorded = None;
    let sealed = Desired { kind: 1, ..PLAIN };
    run(&mut server, &mut recorded, sealed, usize::MAX);
    let (mut write, mut request) = SecretWrite::start(recorded, false, true);
    let end = loop {
        let answer = server.perform(&request, PLAIN);
        if request == Request::Claim {
            server.stored.as_mut().unwrap().owner = Some("another");
            server.stored.as_mut().unwrap().version += 1;
        }
        match write.resume(answer) {
            Step::Send(next) => request = next,
            end => break end,
        }
    };
    assert_eq!(end, Step::Failed(WriteFailure::Raced));
    assert!(server.stored.is_some());
}
