//! Decides which requests bring a Secret to its desired content, without ever reading it.
//!
//! [`SecretWrite`] decides. The caller sends each [`Request`] to the API server and passes the
//! [`Answer`] back.
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
//! If the replacement with an immutable Secret is denied, a claim follows as well. The API server
//! compares the data of an immutable Secret before the policy runs, so a denial shows that the data
//! is the same. The write must not reveal this, so it ends as it does with other data.
//!
//! These rules protect Secrets of others:
//!
//! - A Secret is deleted only by uid and resourceVersion together. Either a [`Request::Claim`]
//!   returned them, which proves that the Secret belongs to this SyncedSecret, or the status
//!   recorded them and the Secret is immutable and cannot be claimed. Someone can hand the Secret
//!   over to another SyncedSecret at any time, which keeps the uid and changes the resourceVersion.
//! - A request without a uid is sent only after [`Request::Prove`] showed that the admission policy
//!   is enforced for this Secret, because then only the policy decides whether the Secret may be
//!   replaced.
//! - A Secret that keys were merged into is never treated as one that lockstep wrote.
//!
//! A Secret becomes immutable only after its uid is recorded, because an immutable Secret could not
//! be claimed after a crash. [`SecretWrite`] creates it mutable and sets [`Done::sealed`] to false.
//! The caller then records the uid and writes again.

mod error;

use lockstep_api::{SyncedSecretStatus, TargetStatus};

pub use error::WriteError;

/// Returns the identity of the Secret with this name in the status. An entry that was recorded
/// before a write is newer than one that was reported after an earlier write.
pub fn recorded(status: Option<&SyncedSecretStatus>, name: &str) -> Option<SecretIdentity> {
    let status = status?;
    let recorded = status.versions.iter().chain(&status.target);
    recorded
        .filter(|target| target.name == name && !target.merged)
        .find_map(SecretIdentity::recorded)
}

/// Identifies one state of a Secret in the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretIdentity {
    /// `metadata.uid` of the Secret.
    pub uid: String,
    /// `metadata.resourceVersion` of the Secret.
    pub resource_version: String,
}

impl SecretIdentity {
    /// Returns the identity in an entry of the status, if the Secret was written.
    pub fn recorded(target: &TargetStatus) -> Option<Self> {
        (!target.uid.is_empty()).then(|| Self {
            uid: target.uid.clone(),
            resource_version: target.resource_version.clone(),
        })
    }
}

/// How a Secret differs from what the status records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drift {
    /// The Secret is unchanged.
    None,
    /// The Secret was changed, or replaced by another one.
    Edited,
    /// The Secret does not exist.
    Gone,
}

/// A request about one Secret. No response contains the content of the Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `POST` of the desired Secret, mutable.
    Create,
    /// `PUT` of the desired Secret.
    Replace {
        /// The uid as a precondition. Without it, only the admission policy decides.
        uid: Option<String>,
        /// Whether the Secret is sent as immutable.
        sealed: bool,
    },
    /// Dry-run `PUT` for an owner that does not exist. If the admission policy is enforced for this
    /// Secret, it denies the request.
    Prove,
    /// Dry-run `POST` without an owner. It proves that the policy is enforced in the namespace. It
    /// is needed for an immutable Secret, for which no `PUT` reaches the policy.
    ProveCreate,
    /// Dry-run `PUT` that the admission policy allows only for a Secret of this SyncedSecret. The
    /// response contains the uid.
    Claim,
    /// Dry-run `POST` of the desired Secret under an unused name, so that a Secret is not deleted
    /// if it cannot be created again.
    Rehearse,
    /// `DELETE` with uid and resourceVersion as preconditions.
    Delete(SecretIdentity),
    /// Dry-run `DELETE` with the same preconditions, which shows whether the Secret is unchanged.
    Probe(SecretIdentity),
}

/// The response of the API server. `E` is any other error, which ends the write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<E> {
    /// The create, replacement, claim or rehearsal succeeded.
    Written(SecretIdentity),
    /// The deletion succeeded.
    Deleted,
    /// A Secret with this name exists.
    AlreadyExists,
    /// No Secret with this name exists.
    NotFound,
    /// The uid or resourceVersion differs from the preconditions.
    Conflict,
    /// A field of the Secret cannot be changed.
    Immutable,
    /// The admission policy denied the request, because the Secret belongs to someone else. For a
    /// proof, the tested rule denied it.
    Denied,
    /// Something other than the tested rule rejected a proof, so it proves nothing.
    Unguarded,
    /// Any other error.
    Failed(E),
}

/// Why a Secret was not written. Nothing was changed unless the variant states otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteFailure<E> {
    /// The Secret exists and belongs to someone else.
    Foreign,
    /// The Secret exists, is immutable or has another type, and does not belong to this
    /// SyncedSecret.
    NotAdoptable,
    /// The Secret exists, and its owner is unknown because the admission policy is not proven.
    Unproven,
    /// The Secret changed between two requests. A retry can succeed.
    Raced,
    /// The Secret is immutable and was changed since it was recorded, so its owner is unknown.
    Changed,
    /// The API server rejected the request or failed.
    Api(E),
}

/// The result of a successful write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The identity of the written Secret.
    pub identity: SecretIdentity,
    /// How the Secret was written.
    pub how: How,
    /// Whether the Secret has its final mutability. If false, record the uid and write again.
    pub sealed: bool,
}

/// How a Secret was written, also the label in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum How {
    /// The Secret did not exist.
    Created,
    /// The content of the Secret was replaced.
    Updated,
    /// The Secret was deleted and created again, because a field cannot be changed.
    Recreated,
}

impl How {
    /// Returns the label in metrics.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

/// The next step of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<E> {
    /// Send this request and resume with the response.
    Send(Request),
    /// The Secret was written.
    Done(Done),
    /// The Secret was not written.
    Failed(WriteFailure<E>),
}

/// Maximum number of requests in one write. It ends a write even if someone keeps deleting and
/// creating the Secret.
const MAX_REQUESTS: usize = 10;

/// The evidence that the Secret belongs to this SyncedSecret.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owned {
    /// There is no evidence.
    Unknown,
    /// The status recorded the Secret.
    Recorded(SecretIdentity),
    /// A claim in this write returned the Secret.
    Claimed(SecretIdentity),
}

/// The state of one write of a Secret.
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
    /// Starts a write. `recorded` is the Secret with the target name in the status.
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

    /// Processes the response to the last request and returns the next step.
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
            // a Secret that is already immutable can only be replaced with the same content
            (Request::Prove, Answer::Immutable) if self.immutable => self.send(Request::ProveCreate),
            (Request::ProveCreate, Answer::Denied) => self.send(Request::Replace {
                uid: None,
                sealed: true,
            }),
            (Request::Replace { sealed, .. }, Answer::Written(identity)) => {
                done(identity, How::Updated, sealed == self.immutable)
            }
            // someone deleted the Secret, and may have created another one
            (Request::Replace { uid: Some(_), .. }, Answer::NotFound | Answer::Conflict) => {
                self.owned = Owned::Unknown;
                self.send(Request::Create)
            }
            // someone else may have adopted the Secret meanwhile; without the policy, a claim shows
            // nothing
            (Request::Replace { uid: Some(_), .. }, Answer::Immutable) if !self.policy_proven => {
                self.send(Request::Rehearse)
            }
            // with the component deny-guesses, the policy denies a proof before object validation
            // rejects it
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
            // the policy sees an immutable Secret only if its data is the same, and the failure
            // must not reveal that
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
