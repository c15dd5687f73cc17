//! Which requests bring a Secret to its desired content, without ever reading it.
//!
//! [`SecretWrite`] decides; the caller sends each [`Request`] to the API server and feeds the [`Answer`] back.
//!
//! ```text
//! start ──▶ uid recorded ──▶ Replace(uid) ── 200 ──▶ Done
//!    │                          │ 404, 409 ──▶ Create
//!    │                          └ immutable ─▶ Claim ── ours ──▶ Rehearse ──▶ Delete ──▶ Create
//!    └────▶ otherwise ──▶ Create ── 201 ──▶ Done
//!                           └ exists ──▶ Prove ── refused ──▶ Replace(no uid) ── 200 ──▶ Done
//!                                                                └ immutable ──▶ Claim
//! ```
//!
//! A denied replacement with an immutable Secret is followed by a claim as well. The API server compares the data of an immutable
//! Secret before the policy runs, so a denial shows that the data is the same. The write ends as it does with other data.
//!
//! These rules keep other people's Secrets safe:
//!
//! - A Secret is deleted only by uid and resourceVersion together: those that a [`Request::Claim`] returned, which proves that the
//!   Secret belongs to this SyncedSecret, or those that status recorded, if the Secret is immutable and cannot be claimed. Someone may
//!   hand the Secret over to another SyncedSecret at any time. This keeps the uid and changes the resourceVersion.
//! - A request without a uid is sent only after [`Request::Prove`] showed that the admission policy is enforced for this very Secret,
//!   because the policy alone decides then whether the Secret may be replaced.
//! - A Secret that keys were merged into is never taken for one that lockstep wrote.
//!
//! A Secret becomes immutable only after its uid is recorded: [`SecretWrite`] creates it mutable and reports
//! [`Done::sealed`] as false, the caller records the uid and writes again. An immutable Secret could not be claimed after a crash.

mod error;

use lockstep_api::{SyncedSecretStatus, TargetStatus};

pub use error::WriteError;

/// The Secret of that name in the status. An entry that was recorded before a write is newer than the one that was reported after an
/// earlier write.
pub fn recorded(status: Option<&SyncedSecretStatus>, name: &str) -> Option<SecretIdentity> {
    let status = status?;
    let recorded = status.versions.iter().chain(&status.target);
    recorded
        .filter(|target| target.name == name && !target.merged)
        .find_map(SecretIdentity::recorded)
}

/// Identity of a Secret in the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretIdentity {
    /// Its `metadata.uid`.
    pub uid: String,
    /// Its `metadata.resourceVersion`.
    pub resource_version: String,
}

impl SecretIdentity {
    /// The identity in an entry of the status, if the Secret was written.
    pub fn recorded(target: &TargetStatus) -> Option<Self> {
        (!target.uid.is_empty()).then(|| Self {
            uid: target.uid.clone(),
            resource_version: target.resource_version.clone(),
        })
    }
}

/// Whether a Secret is as the status records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drift {
    /// It was not changed since.
    None,
    /// It was changed, or replaced by another one.
    Edited,
    /// It does not exist.
    Gone,
}

/// A request about one Secret. None of them returns content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `POST` of the desired Secret, mutable.
    Create,
    /// `PUT` of the desired Secret.
    Replace {
        /// Precondition; without it the admission policy alone decides.
        uid: Option<String>,
        /// Whether the Secret is sent as immutable.
        sealed: bool,
    },
    /// Dry-run `PUT` in the name of an owner that does not exist. The admission policy refuses it, if it is enforced for this Secret.
    Prove,
    /// Dry-run `POST` without an owner. It proves the policy for the namespace where the Secret is immutable, so that no `PUT` reaches
    /// the policy.
    ProveCreate,
    /// Dry-run `PUT` that the admission policy allows only on a Secret of this SyncedSecret. The answer holds its uid.
    Claim,
    /// Dry-run `POST` of the desired Secret under an unused name, so that nothing is deleted for a Secret that cannot be created.
    Rehearse,
    /// `DELETE` with uid and resourceVersion as preconditions.
    Delete(SecretIdentity),
    /// Dry-run `DELETE` with the same preconditions: whether the Secret is as the status records it.
    Probe(SecretIdentity),
}

/// What the API server answered. `E` is any other failure; it ends the write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<E> {
    /// Success of a create, a replacement, a claim or a rehearsal.
    Written(SecretIdentity),
    /// Success of a deletion.
    Deleted,
    /// A Secret of that name exists.
    AlreadyExists,
    /// No Secret of that name exists.
    NotFound,
    /// The Secret has another uid or resourceVersion than the preconditions.
    Conflict,
    /// A field of the Secret cannot be changed.
    Immutable,
    /// The admission policy refused: the Secret belongs to someone else. For a proof: the rule that it proves refused.
    Denied,
    /// Something other than the rule that a proof is about refused, so it proves nothing.
    Unguarded,
    /// Anything else.
    Failed(E),
}

/// Why a write ended without the Secret being written. Nothing was changed unless the variant says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteFailure<E> {
    /// The Secret exists and belongs to someone else.
    Foreign,
    /// The Secret exists, is immutable or has another type, and does not belong to this SyncedSecret.
    NotAdoptable,
    /// The Secret exists, and without a proven admission policy nothing shows whose it is.
    Unproven,
    /// The Secret changed between two requests. A retry settles it.
    Raced,
    /// The Secret is immutable and was changed since it was recorded, so nothing shows whose it is.
    Changed,
    /// The API server refused or failed.
    Api(E),
}

/// Result of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The Secret that was written.
    pub identity: SecretIdentity,
    /// How it was written.
    pub how: How,
    /// Whether the Secret has its final mutability. If false, record the uid and write again.
    pub sealed: bool,
}

/// How a Secret was written; the label in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum How {
    /// It did not exist.
    Created,
    /// Its content was replaced.
    Updated,
    /// It was deleted and created again, because a field of it cannot be changed.
    Recreated,
}

impl How {
    /// The label in metrics.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

/// The next step of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<E> {
    /// Send this request and resume with its answer.
    Send(Request),
    /// The Secret is written.
    Done(Done),
    /// The Secret is not written.
    Failed(WriteFailure<E>),
}

/// Upper bound for the requests of one write: someone who deletes and creates the Secret all the time cannot keep it going.
const MAX_REQUESTS: usize = 10;

/// What shows that the Secret belongs to this SyncedSecret.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owned {
    /// Nothing.
    Unknown,
    /// The status recorded it.
    Recorded(SecretIdentity),
    /// A claim in this write returned it.
    Claimed(SecretIdentity),
}

/// One write of one Secret.
#[derive(Debug, Clone)]
pub struct SecretWrite {
    immutable: bool,
    policy_proven: bool,
    sent: Request,
    requests: usize,
    owned: Owned,
    recreating: bool,
}

impl SecretWrite {
    /// Starts a write. `recorded` is the Secret of that name in status.
    pub fn start(recorded: Option<SecretIdentity>, immutable: bool, policy_proven: bool) -> (Self, Request) {
        let (owned, first) = match recorded {
            Some(recorded) => {
                let uid = Some(recorded.uid.clone());
                let sealed = immutable;
                (Owned::Recorded(recorded), Request::Replace { uid, sealed })
            }
            None => (Owned::Unknown, Request::Create),
        };
        let write = Self {
            immutable,
            policy_proven,
            sent: first.clone(),
            requests: 1,
            owned,
            recreating: false,
        };
        (write, first)
    }

    /// Takes the answer to the last request and returns the next step.
    pub fn resume<E>(&mut self, answer: Answer<E>) -> Step<E> {
        let sent = self.sent.clone();
        match (sent, answer) {
            (_, Answer::Failed(error)) => Step::Failed(WriteFailure::Api(error)),
            (Request::Create, Answer::Written(identity)) => {
                let how = if self.recreating {
                    How::Recreated
                } else {
                    How::Created
                };
                done(identity, how, !self.immutable)
            }
            (Request::Create, Answer::AlreadyExists) if self.policy_proven => self.send(Request::Prove),
            (Request::Create, Answer::AlreadyExists)
            | (Request::Prove | Request::ProveCreate, Answer::Written(_) | Answer::Unguarded) => {
                Step::Failed(WriteFailure::Unproven)
            }
            (Request::Prove, Answer::Denied) => self.send(Request::Replace {
                uid: None,
                sealed: false,
            }),
            // a Secret that is immutable already can only be replaced by the same content
            (Request::Prove, Answer::Immutable) if self.immutable => self.send(Request::ProveCreate),
            (Request::ProveCreate, Answer::Denied) => self.send(Request::Replace {
                uid: None,
                sealed: true,
            }),
            (Request::Replace { sealed, .. }, Answer::Written(identity)) => {
                done(identity, How::Updated, sealed == self.immutable)
            }
            // someone deleted the Secret, or deleted it and created another one
            (Request::Replace { uid: Some(_), .. }, Answer::NotFound | Answer::Conflict) => {
                self.owned = Owned::Unknown;
                self.send(Request::Create)
            }
            // someone else may have adopted the Secret meanwhile; without the policy a claim would show nothing
            (Request::Replace { uid: Some(_), .. }, Answer::Immutable) if !self.policy_proven => {
                self.send(Request::Rehearse)
            }
            // with the component deny-guesses, the policy denies a proof before object validation rejects it
            (
                Request::Replace {
                    uid: None,
                    sealed: false,
                },
                Answer::Immutable,
            ) if self.immutable => self.send(Request::Replace {
                uid: None,
                sealed: true,
            }),
            // the policy sees an immutable Secret only if its data is the same, and the failure must not reveal that
            (Request::Replace { .. }, Answer::Immutable)
            | (Request::Replace { sealed: true, .. }, Answer::Denied) => self.send(Request::Claim),
            (Request::Claim, Answer::Written(identity)) => {
                self.owned = Owned::Claimed(identity);
                self.send(Request::Rehearse)
            }
            (Request::Claim, Answer::Immutable) if self.owned != Owned::Unknown => {
                self.send(Request::Rehearse)
            }
            (Request::Claim, Answer::Denied) if self.owned != Owned::Unknown => {
                Step::Failed(WriteFailure::Foreign)
            }
            (Request::Claim, Answer::Denied | Answer::Immutable) | (Request::Prove, Answer::Immutable) => {
                Step::Failed(WriteFailure::NotAdoptable)
            }
            (Request::Rehearse, Answer::Written(_)) => match self.owned.clone() {
                Owned::Recorded(identity) | Owned::Claimed(identity) => self.send(Request::Delete(identity)),
                Owned::Unknown => Step::Failed(WriteFailure::Raced),
            },
            (Request::Delete(_), Answer::Conflict) if matches!(self.owned, Owned::Recorded(_)) => {
                Step::Failed(WriteFailure::Changed)
            }
            (Request::Delete(_), Answer::Deleted | Answer::NotFound) => {
                self.recreating = true;
                self.send(Request::Create)
            }
            (_, Answer::Denied) => Step::Failed(WriteFailure::Foreign),
            _ => Step::Failed(WriteFailure::Raced),
        }
    }

    fn send<E>(&mut self, request: Request) -> Step<E> {
        if self.requests >= MAX_REQUESTS {
            return Step::Failed(WriteFailure::Raced);
        }
        self.requests += 1;
        self.sent = request.clone();
        Step::Send(request)
    }
}

const fn done<E>(identity: SecretIdentity, how: How, sealed: bool) -> Step<E> {
    Step::Done(Done {
        identity,
        how,
        sealed,
    })
}
