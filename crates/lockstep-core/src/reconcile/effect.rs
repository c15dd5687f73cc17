//! The requests of a reconcile to the world, and their results.
//!
//! A reconcile performs no I/O. It returns an [`Effect`], the executor performs it, and the
//! reconcile resumes with the [`EffectResult`].

use std::{
    collections::BTreeMap,
    fmt,
    future::{pending, poll_fn},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use jiff::Timestamp;
use lockstep_api::{
    Reason, RolloutStatus, RolloutTarget, StoreRef, SyncedSecretStatus, VerificationStatus, Verify,
};
use serde_json::Value;

use super::memory::Memory;
use crate::{
    assemble::DesiredSecret,
    collect::Fetched,
    events::VersionHint,
    plan::Plan,
    remote::{
        ErrorKind, IssuanceToken, LeaseHandle, LeaseRequest, Minted, ProviderError, RemoteRef, RemoteSecret,
        SecretValue,
    },
    rotation::{
        Check,
        workload::{Observation, Refusal, RolloutSecret, Target, Workload},
    },
    schedule::RefreshSchedule,
    secret_write::{self, Answer, SecretIdentity, WriteError},
};

/// The state of the world that changes during a reconcile.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The wall clock, which can be set.
    pub wall: Timestamp,
    /// The monotonic clock, which deadlines of pods and leases use.
    pub steady: Timestamp,
    /// Whether the admission policy for Secrets was proven, or its absence accepted.
    pub may_write: bool,
    /// Whether the admission policy for Secrets was proven.
    pub policy_proven: bool,
}

/// The sources that a sync reads.
#[derive(Debug, Clone)]
pub struct ReadSources {
    /// The remote values to read.
    pub plan: Arc<Plan>,
    /// Whether the values were large at the last sync. Reading them twice costs more than waiting
    /// for a slot first.
    pub large: bool,
}

/// The values that were read.
#[derive(Debug)]
pub struct SourcesRead {
    /// The result of each read.
    pub fetched: Fetched,
    /// Whether the values are large.
    pub large: bool,
    /// The messages that name versions of the values.
    pub messages: Vec<VersionMessage>,
}

/// A message of a store that names the version of a value.
#[derive(Debug, Clone)]
pub struct VersionMessage {
    /// The number of the message.
    pub number: u64,
    /// The store.
    pub store: StoreRef,
    /// The version that the message names.
    pub hint: Arc<VersionHint>,
}

/// A request about one Secret.
#[derive(Debug, Clone)]
pub struct SecretRequest {
    /// The name of the Secret.
    pub name: String,
    /// The content of the Secret, for requests that write it.
    pub desired: Option<Arc<DesiredSecret>>,
    /// The request.
    pub request: secret_write::Request,
}

/// A merge of keys into a Secret of someone else.
#[derive(Debug, Clone)]
pub struct MergeSecret {
    /// What to merge.
    pub secret: Arc<DesiredSecret>,
    /// The uid of the Secret that the same spec was merged into before. Only there, keys that others
    /// changed since are taken back.
    pub merged_before: Option<String>,
}

/// The last restarts of targets by this process.
#[derive(Debug, Clone, Default)]
pub struct Restarts {
    /// When each target was restarted.
    pub at: BTreeMap<Target, Timestamp>,
    /// The backoff before the next restart after unexpected failures.
    pub pause: Duration,
}

/// A restart of one workload.
#[derive(Debug, Clone)]
pub struct Restart {
    /// The workload.
    pub target: Target,
    /// The workload as it was observed.
    pub seen: Workload,
    /// The Secret whose revision the pods get.
    pub secret: RolloutSecret,
    /// The revision.
    pub revision: String,
}

/// The check after a wave.
#[derive(Debug, Clone)]
pub struct RunCheck {
    /// `rotation.rollout.verify` of the spec.
    pub verify: Verify,
    /// The rollout that is verified.
    pub rollout: RolloutStatus,
    /// The recorded state of the check.
    pub verification: VerificationStatus,
}

/// A status to write.
#[derive(Debug, Clone)]
pub struct StatusPatch {
    /// The version of the object that must still be the current one.
    pub resource_version: Option<String>,
    /// The status as a merge patch.
    pub patch: Value,
}

/// The answer to a status write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatusAnswer {
    /// The status was written. Contains the new version of the object.
    Written(Option<String>),
    /// The object changed since.
    Conflict,
    /// The object does not exist.
    NotFound,
    /// Any other error, or no answer.
    Failed,
}

/// The object as the API server has it now.
#[derive(Debug, Clone, PartialEq)]
pub enum CurrentStatus {
    /// The object exists.
    Found {
        /// Its version.
        resource_version: Option<String>,
        /// Its status.
        status: Option<Box<SyncedSecretStatus>>,
    },
    /// The object does not exist, or is another one of that name.
    Gone,
    /// The API server did not answer.
    Failed,
}

/// What a store can do with leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseSupport {
    /// The name of the provider.
    pub provider: &'static str,
    /// Whether it issues credentials.
    pub leases: bool,
}

/// The policy that restricts what the operator changes of a SyncedSecret is not proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeasePolicy {
    /// It is not enforced.
    Open,
    /// It could not be tested, with the reason.
    Unknown(String),
}

/// The severity of a published event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Nothing has to be done.
    Normal,
    /// A user should check the object.
    Warning,
}

/// A Kubernetes event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The severity.
    pub severity: Severity,
    /// The reason.
    pub reason: String,
    /// The action.
    pub action: &'static str,
    /// The text. It can be shown in a terminal.
    pub note: String,
}

/// What happens to the messages that woke the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageStep {
    /// A sync begins. It reads the values that the messages name.
    Begin,
    /// The sync ended. The messages are acknowledged if its result is durable.
    End {
        /// Whether the result is durable.
        durable: bool,
    },
    /// The version that a message names does not exist or is not newer.
    Refute(u64),
}

/// A record of a reconcile for metrics and logs.
#[derive(Debug, Clone)]
pub enum Record {
    /// A sync begins.
    Sync(&'static str),
    /// A sync succeeded.
    Succeeded,
    /// A sync failed.
    NotSynced(Reason, String),
    /// A probe of the Secret ended.
    Probe(&'static str),
    /// A write of the Secret ended.
    SecretWrite(&'static str),
    /// The status is persisted, in this version of the object.
    StatusPersisted {
        /// The version of the object.
        resource_version: Option<String>,
        /// The status.
        status: Arc<SyncedSecretStatus>,
    },
    /// A status write ended.
    StatusWrite(&'static str),
    /// A stage of a rotation was reached this long after the value was created.
    Propagation(&'static str, Duration),
    /// A lease operation ended.
    Lease {
        /// `mint`, `renew` or `revoke`.
        operation: &'static str,
        /// The error, if it failed.
        error: Option<ErrorKind>,
    },
    /// A lease operation failed, with the message of the store.
    LeaseFailed(&'static str, String),
    /// A credential was issued.
    CredentialIssued(String),
    /// The restart of a workload ended.
    Restart(Target, &'static str),
    /// The Secret of an earlier revision was deleted, or could not be.
    Pruned(String, &'static str),
    /// Something that an administrator should see in the log.
    Warning(String),
    /// Something for those who debug lockstep.
    Debug(&'static str),
}

/// A computation that can take long. It runs outside of the async threads.
pub struct Work(Box<dyn FnOnce() + Send>);

impl Work {
    /// Runs the work.
    pub fn run(self) {
        (self.0)();
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Work")
    }
}

/// The end of a reconcile.
#[derive(Debug)]
pub struct Done {
    /// The outcome, as a label of metrics.
    pub outcome: &'static str,
    /// The memory of the object from now on.
    pub memory: Memory,
}

/// Generates [`Effect`], [`EffectResult`] and the methods of [`Effects`] from one table.
macro_rules! effects {
    ($($(#[doc = $doc:literal])+ $method:ident: $effect:ident($input:ty) -> $output:ty;)+) => {
        /// A request of a reconcile to its executor.
        #[derive(Debug)]
        pub enum Effect {
            $($(#[doc = $doc])+ $effect($input),)+
            /// The reconcile is over.
            Done(Box<Done>),
        }

        /// The result of the [`Effect`] of the same name.
        #[derive(Debug)]
        pub enum EffectResult {
            $($(#[doc = $doc])+ $effect($output),)+
        }

        impl Effect {
            /// Returns the name of the effect.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$effect(..) => stringify!($effect),)+
                    Self::Done(_) => "Done",
                }
            }
        }

        impl Effects {
            $($(#[doc = $doc])+ pub(super) async fn $method(&self, input: $input) -> $output {
                match self.perform(Effect::$effect(input)).await {
                    EffectResult::$effect(output) => output,
                    _ => self.reject_result().await,
                }
            })+
        }
    };
}

effects! {
    /// Read the sources.
    read_sources: ReadSources(ReadSources) -> Result<SourcesRead, ProviderError>;
    /// Read one version of a value.
    read_version: ReadVersion((StoreRef, RemoteRef)) -> Result<RemoteSecret, ProviderError>;
    /// Decrypt the ciphertexts of a plan. The results are by index in `data`.
    decrypt: Decrypt(Arc<Plan>) -> BTreeMap<usize, Result<SecretValue, ProviderError>>;
    /// Run work on a thread for computing.
    compute_work: Compute(Work) -> ();
    /// Determine with which other objects the refreshes are aligned.
    plan_refresh: PlanRefresh(()) -> RefreshSchedule;
    /// Determine which lease operations a store supports.
    lease_support: LeaseSupport(StoreRef) -> Result<LeaseSupport, ProviderError>;
    /// Obtain a token that may issue one credential.
    issue_token: IssueToken((StoreRef, LeaseRequest)) -> Result<IssuanceToken, ProviderError>;
    /// Issue a credential with that token.
    issue_credential: IssueCredential((StoreRef, IssuanceToken, LeaseRequest)) -> Result<Minted, ProviderError>;
    /// Renew a lease for a time.
    renew_lease: RenewLease((StoreRef, LeaseHandle, Duration)) -> Result<Duration, ProviderError>;
    /// Revoke a lease.
    revoke_lease: RevokeLease((StoreRef, LeaseHandle)) -> Result<(), ProviderError>;
    /// Prove that the admission policy restricts what the operator changes of the object.
    prove_lease_policy: ProveLeasePolicy(()) -> Result<(), LeasePolicy>;
    /// Add or remove the finalizer. An error contains the reason.
    set_finalizer: SetFinalizer(bool) -> Result<(), String>;
    /// Send a request about a Secret.
    request_secret: RequestSecret(SecretRequest) -> Answer<WriteError>;
    /// Merge keys into a Secret of someone else.
    merge_secret: MergeSecret(MergeSecret) -> Result<SecretIdentity, WriteError>;
    /// Find a Secret that keys were merged into.
    find_merged: FindMerged(String) -> Result<SecretIdentity, WriteError>;
    /// Find the workloads that targets select.
    find_targets: FindTargets(Vec<RolloutTarget>) -> Result<Vec<Target>, Refusal>;
    /// Observe workloads.
    observe_targets: ObserveTargets((RolloutSecret, Vec<Target>)) -> BTreeMap<Target, Observation>;
    /// Return when this process restarted workloads.
    recall_restarts: RecallRestarts(Vec<Target>) -> Restarts;
    /// Restart a workload.
    restart: Restart(Restart) -> Result<(), Refusal>;
    /// Start the check after a wave, or observe it.
    run_check: RunCheck(Box<RunCheck>) -> Check;
    /// Write the status.
    write_status: WriteStatus(StatusPatch) -> StatusAnswer;
    /// Read the status.
    read_status: ReadStatus(()) -> CurrentStatus;
    /// Publish an event.
    publish: Publish(Notice) -> ();
    /// Begin or end the handling of messages.
    messages: Messages(MessageStep) -> ();
    /// Count and log something.
    record: Record(Record) -> ();
}

/// What the reconcile and its driver exchange.
#[derive(Debug)]
struct Exchange {
    effect: Option<Effect>,
    result: Option<EffectResult>,
    moment: Moment,
    mismatched: bool,
}

/// Performs effects for a reconcile: it hands them to the driver and waits for the results.
#[derive(Debug, Clone)]
pub(super) struct Effects(Arc<Mutex<Exchange>>);

impl Effects {
    pub(super) fn new(moment: Moment) -> Self {
        Self(Arc::new(Mutex::new(Exchange {
            effect: None,
            result: None,
            moment,
            mismatched: false,
        })))
    }

    fn exchange(&self) -> MutexGuard<'_, Exchange> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the current state of the world.
    pub(super) fn moment(&self) -> Moment {
        self.exchange().moment
    }

    async fn perform(&self, effect: Effect) -> EffectResult {
        self.exchange().effect = Some(effect);
        poll_fn(|_| match self.exchange().result.take() {
            Some(result) => Poll::Ready(result),
            None => Poll::Pending,
        })
        .await
    }

    /// The driver returned the result of another effect.
    async fn reject_result<T>(&self) -> T {
        self.exchange().mismatched = true;
        pending().await
    }

    /// Runs a computation outside of the async threads.
    pub(super) async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let result = Arc::new(Mutex::new(None));
        let slot = result.clone();
        let work = Work(Box::new(move || {
            let value = work();
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        }));
        self.compute_work(work).await;
        let done = result.lock().unwrap_or_else(PoisonError::into_inner).take();
        match done {
            Some(value) => value,
            // the driver did not run it
            None => self.reject_result().await,
        }
    }

    /// Returns the result of the last effect to the reconcile.
    pub(super) fn give(&self, result: EffectResult, moment: Moment) {
        let mut exchange = self.exchange();
        exchange.result = Some(result);
        exchange.moment = moment;
    }

    /// Returns the next effect; `None` if the driver returned the result of another effect.
    pub(super) fn take(&self) -> Option<Effect> {
        let mut exchange = self.exchange();
        if exchange.mismatched {
            return None;
        }
        exchange.effect.take()
    }
}
