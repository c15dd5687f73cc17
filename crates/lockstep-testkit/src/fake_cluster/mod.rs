//! A cluster in memory that performs the effects of the real reconcile machine.
//!
//! It has one SyncedSecret, Secrets with their admission policy, workloads, a store with values and
//! leases, messages, two clocks, and two operators that can take turns. A test changes the world,
//! lets operators reconcile, and reads what happened. [`FakeCluster::violations`] lists what must
//! never happen, whatever a test does.

mod secrets;
mod store;
mod workloads;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use lockstep_api::{ConditionStatus, ConditionType, SyncedSecret, SyncedSecretStatus};
use lockstep_core::{access::Grant, remote::Verbatim, rotation::workload::Refusal};
use lockstep_core::{
    fingerprint::FingerprintKey,
    lease::{self, Issuer},
    reconcile::{
        self, ClusterView, CurrentStatus, Done, Effect, EffectResult, Facts, LeasePolicy, Marks, Memory,
        MessageStep, Moment, Notice, Observed, Reconcile, Record, Restarts, Settings, StatusAnswer,
        StatusPatch, Step,
    },
    schedule::RefreshSchedule,
    secret_write::{Answer, WriteError},
    spec::StoreView,
};
use serde_json::Value;

pub use self::{
    secrets::{FakeSecret, FakeSecrets},
    store::{FakeMessage, FakeStore, KEY, LEASE_PATH},
    workloads::{Checks, FakeWorkload, FakeWorkloads},
};

/// The namespace of the SyncedSecret.
pub const NAMESPACE: &str = "shop";
/// The name of the SyncedSecret.
pub const NAME: &str = "database";
/// The uid of the SyncedSecret.
pub const UID: &str = "11111111-1111-1111-1111-111111111111";

/// Maximum number of reconciles until nothing is due. More are a loop.
const MAX_RECONCILES: usize = 200;

/// A fault at an effect, counted from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The operator ends before the effect.
    CrashBefore(usize),
    /// The operator ends after the effect, before it receives the result.
    CrashAfter(usize),
    /// The effect fails and changes nothing.
    Fail(usize),
    /// The effect is performed, but is reported to the operator as failed.
    LoseAnswer(usize),
}

impl Fault {
    /// Returns the fault of the next effect, if it is its turn.
    fn tick(fault: &mut Option<Self>) -> Option<Self> {
        let (Self::CrashBefore(left) | Self::CrashAfter(left) | Self::Fail(left) | Self::LoseAnswer(left)) =
            fault.as_mut()?;
        if *left > 0 {
            *left -= 1;
            return None;
        }
        fault.take()
    }
}

/// One process of the operator.
#[derive(Debug, Default)]
struct Operator {
    /// The object as its watch delivered it last.
    seen: Arc<SyncedSecret>,
    memory: Memory,
    marks: Marks,
    /// The last status that it wrote, with the version of the object.
    written: Option<(u64, Arc<SyncedSecretStatus>)>,
    restarts: Restarts,
    /// The messages that its running sync handles.
    handled: BTreeSet<u64>,
}

/// A cluster in memory.
#[derive(Debug)]
pub struct FakeCluster {
    /// The wall clock, which can be set.
    pub wall: Timestamp,
    /// The monotonic clock, which pods, deadlines and leases use.
    pub steady: Timestamp,
    /// The SyncedSecret in the API server.
    pub object: SyncedSecret,
    /// Whether the object was deleted.
    pub gone: bool,
    /// The Secrets.
    pub secrets: FakeSecrets,
    /// The store.
    pub store: FakeStore,
    /// What the store grants.
    pub grant: Grant,
    /// The workloads.
    pub workloads: FakeWorkloads,
    /// The next fault.
    pub fault: Option<Fault>,
    /// Whether the watches deliver nothing at the moment.
    pub watch_lags: bool,
    /// Whether status writes fail.
    pub status_down: bool,
    /// How often each effect was performed.
    pub counts: BTreeMap<&'static str, usize>,
    /// The published events.
    pub notices: Vec<Notice>,
    /// What must never happen, and did.
    pub violations: Vec<String>,
    key: FingerprintKey,
    operators: [Operator; 2],
    settings: Settings,
}

impl FakeCluster {
    /// Creates a cluster in which nothing happened yet.
    pub fn new(object: SyncedSecret, workloads: FakeWorkloads, key: FingerprintKey) -> Self {
        let now = Timestamp::constant(1_767_225_600, 0);
        let mut cluster = Self {
            wall: now,
            steady: now,
            object,
            gone: false,
            secrets: FakeSecrets::default(),
            store: FakeStore::default(),
            grant: Grant::Everything,
            workloads,
            fault: None,
            watch_lags: false,
            status_down: false,
            counts: BTreeMap::new(),
            notices: Vec::new(),
            violations: Vec::new(),
            key,
            operators: <[Operator; 2]>::default(),
            settings: Settings {
                drift_probe_interval: Duration::from_secs(300),
                issue_timeout: Duration::from_secs(180),
                deletion_delay: Duration::from_secs(60),
                process_seed: 7,
            },
        };
        let metadata = &mut cluster.object.metadata;
        metadata.namespace = Some(NAMESPACE.to_owned());
        metadata.name = Some(NAME.to_owned());
        metadata.uid = Some(UID.to_owned());
        metadata.generation = Some(1);
        metadata.resource_version = Some("1".to_owned());
        for number in 0..cluster.operators.len() {
            cluster.start_operator(number);
        }
        cluster
    }

    /// Returns the status in the API server.
    pub fn status(&self) -> SyncedSecretStatus {
        self.object.status.clone().unwrap_or_default()
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
        self.wall = self.wall.saturating_add(time).unwrap_or(self.wall);
        self.steady = self.steady.saturating_add(time).unwrap_or(self.steady);
        self.store.expire(self.steady);
    }

    /// Sets the wall clock forward or back.
    pub fn jump(&mut self, seconds: i64) {
        let jump = SignedDuration::from_secs(seconds);
        self.wall = self.wall.saturating_add(jump).unwrap_or(self.wall);
    }

    /// Changes the spec.
    pub fn edit_spec(&mut self, change: impl FnOnce(&mut lockstep_api::SyncedSecretSpec)) {
        change(&mut self.object.spec);
        let generation = self.object.metadata.generation.unwrap_or_default();
        self.object.metadata.generation = Some(generation + 1);
        self.new_version();
    }

    /// Sets an annotation of the object.
    pub fn annotate(&mut self, name: &str, value: &str) {
        let annotations = self.object.metadata.annotations.get_or_insert_default();
        annotations.insert(name.to_owned(), value.to_owned());
        self.new_version();
    }

    /// Deletes the object. A finalizer delays that.
    pub fn delete_object(&mut self) {
        if self.object.metadata.finalizers.as_ref().is_none_or(Vec::is_empty) {
            self.gone = true;
        }
        let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.wall);
        self.object.metadata.deletion_timestamp.get_or_insert(time);
        self.new_version();
    }

    /// Delivers unacknowledged messages to both operators.
    pub fn deliver_messages(&mut self) {
        if self.store.messages.is_empty() {
            return;
        }
        for operator in &mut self.operators {
            operator.marks.hinted = true;
        }
    }

    /// Replaces the fingerprint key and both processes.
    pub fn replace_key(&mut self, key: FingerprintKey) {
        self.key = key;
        for number in 0..self.operators.len() {
            self.start_operator(number);
        }
    }

    /// Restarts an operator. It remembers nothing.
    pub fn start_operator(&mut self, number: usize) {
        self.operators[number] = Operator {
            seen: Arc::new(self.object.clone()),
            ..Operator::default()
        };
        self.deliver_messages();
    }

    fn new_version(&mut self) {
        let version = version(&self.object) + 1;
        self.object.metadata.resource_version = Some(version.to_string());
    }

    fn moment(&self) -> Moment {
        Moment {
            wall: self.wall,
            steady: self.steady,
            may_write: true,
            policy_proven: true,
        }
    }

    fn observe(&mut self, number: usize) {
        if !self.watch_lags {
            self.operators[number].seen = Arc::new(self.object.clone());
        }
    }

    fn decide(&mut self, number: usize) -> Step {
        self.observe(number);
        let (settings, ahead, now) = (self.settings, self.wall.duration_since(self.steady), self.wall);
        let operator = &mut self.operators[number];
        operator.memory.take(&mut operator.marks);
        let status = operator.status();
        let issuer = Issuer {
            key: &self.key,
            uid: UID,
            namespace: NAMESPACE,
            name: NAME,
        };
        let observed = Observed::new(&operator.seen, status.as_deref(), issuer, ahead);
        reconcile::decide(&observed, &mut operator.memory, settings, now)
    }

    /// Runs one operator until nothing is due. Returns when something is due again.
    pub fn run(&mut self, number: usize) -> Option<Duration> {
        for _ in 0..MAX_RECONCILES {
            if self.gone {
                return None;
            }
            let step = self.decide(number);
            if matches!(step, Step::Await | Step::Idle(_)) {
                return step.wakeup();
            }
            self.reconcile(number, &step);
        }
        let step = self.decide(number);
        self.violations.push(format!(
            "more than {MAX_RECONCILES} reconciles in a row: {step:?}"
        ));
        None
    }

    /// Runs one reconcile.
    fn reconcile(&mut self, number: usize, step: &Step) {
        let facts = self.facts(number, step.uses_stores());
        let (mut reconcile, mut effect) = Reconcile::start(facts, self.moment());
        loop {
            if let Effect::Done(done) = effect {
                let Done { memory, .. } = *done;
                self.operators[number].memory = memory;
                return;
            }
            *self.counts.entry(effect.name()).or_default() += 1;
            let Some(result) = self.perform(number, effect) else {
                // the process ended; another one continues
                self.start_operator(number);
                return;
            };
            effect = reconcile.resume(result, self.moment());
        }
    }

    fn facts(&self, number: usize, uses_stores: bool) -> Facts {
        let operator = &self.operators[number];
        let status = operator.status();
        let leases = status
            .iter()
            .flat_map(|status| lease::stores(status.lease.as_ref()));
        let view = StoreView {
            configuration: self.store.path.as_str().into(),
            grant: self.grant.clone(),
            locator: Ok(Arc::new(Verbatim)),
        };
        Facts {
            object: operator.seen.clone(),
            namespace: NAMESPACE.to_owned(),
            name: NAME.to_owned(),
            uid: UID.to_owned(),
            resource_version: operator.resource_version(),
            memory: operator.memory.clone(),
            view: Arc::new(ClusterView {
                views: BTreeMap::from([(FakeStore::reference(), view)]),
                rival: None,
                terminating: false,
            }),
            lease_grants: leases
                .map(|store| (store.clone(), Some(Grant::Everything)))
                .collect(),
            account: "--serviceaccount=lockstep-system:lockstep".to_owned(),
            key: self.key.clone(),
            settings: self.settings,
            uses_stores,
            status,
        }
    }

    /// Performs an effect; `None` if the process ends there.
    fn perform(&mut self, number: usize, effect: Effect) -> Option<EffectResult> {
        let failed = failure_of(&effect);
        match Fault::tick(&mut self.fault) {
            Some(Fault::CrashBefore(_)) => return None,
            Some(Fault::Fail(_)) if failed.is_some() => return failed,
            Some(Fault::CrashAfter(_)) => {
                self.perform_now(number, effect);
                return None;
            }
            Some(Fault::LoseAnswer(_)) if failed.is_some() => {
                self.perform_now(number, effect);
                return failed;
            }
            Some(Fault::Fail(_) | Fault::LoseAnswer(_)) | None => {}
        }
        if matches!(effect, Effect::WriteStatus(_)) && self.status_down {
            return failed;
        }
        Some(self.perform_now(number, effect))
    }

    fn perform_now(&mut self, number: usize, effect: Effect) -> EffectResult {
        use EffectResult as Result;
        let steady = self.steady;
        match effect {
            Effect::ReadSources(read) => {
                let mut answer = self.store.read_all(&read.plan);
                if let Ok(read) = &mut answer {
                    read.messages = self.store.version_messages();
                }
                Result::ReadSources(answer)
            }
            Effect::ReadVersion((_, reference)) => Result::ReadVersion(self.store.read(&reference)),
            Effect::Decrypt(_) => Result::Decrypt(BTreeMap::new()),
            Effect::Compute(work) => {
                work.run();
                Result::Compute(())
            }
            Effect::PlanRefresh(()) => Result::PlanRefresh(RefreshSchedule::Free),
            Effect::LeaseSupport(_) => Result::LeaseSupport(self.store.lease_support()),
            Effect::IssueToken(_) => Result::IssueToken(self.store.issue_token()),
            Effect::IssueCredential((_, token, _)) => {
                Result::IssueCredential(self.store.issue_credential(&token, steady))
            }
            Effect::RenewLease((_, lease, _)) => Result::RenewLease(self.store.renew(&lease, steady)),
            Effect::RevokeLease((_, lease)) => {
                self.check_revocation(&lease.accessor);
                Result::RevokeLease(self.store.revoke(&lease))
            }
            Effect::ProveLeasePolicy(()) => Result::ProveLeasePolicy(Ok(())),
            Effect::SetFinalizer(present) => {
                self.set_finalizer(present);
                Result::SetFinalizer(Ok(()))
            }
            Effect::RequestSecret(request) => {
                self.check_content(&request.request, request.desired.as_deref());
                Result::RequestSecret(self.secrets.perform(&request))
            }
            Effect::MergeSecret(merge) => Result::MergeSecret(self.secrets.merge(&merge.secret)),
            Effect::FindMerged(name) => Result::FindMerged(self.secrets.find_merged(&name)),
            Effect::FindTargets(_) => Result::FindTargets(self.workloads.find()),
            Effect::ObserveTargets((secret, targets)) => {
                Result::ObserveTargets(self.workloads.observe(&secret, &targets, steady))
            }
            Effect::RecallRestarts(targets) => {
                let known = &self.operators[number].restarts.at;
                let at = targets.into_iter().filter_map(|target| {
                    let at = *known.get(&target)?;
                    Some((target, at))
                });
                Result::RecallRestarts(Restarts {
                    at: at.collect(),
                    pause: Duration::ZERO,
                })
            }
            Effect::Restart(restart) => {
                self.check_restart(&restart);
                let restarted = self.workloads.restart(&restart, &self.secrets, steady);
                if restarted.is_ok() {
                    let at = &mut self.operators[number].restarts.at;
                    at.insert(restart.target, steady);
                }
                Result::Restart(restarted)
            }
            Effect::RunCheck(check) => {
                self.check_recorded(&check);
                Result::RunCheck(self.workloads.check(&check, steady))
            }
            Effect::WriteStatus(patch) => Result::WriteStatus(self.write_status(&patch)),
            Effect::ReadStatus(()) => Result::ReadStatus(self.read_status()),
            Effect::Publish(notice) => {
                self.notices.push(notice);
                Result::Publish(())
            }
            Effect::Messages(step) => {
                self.handle_messages(number, step);
                Result::Messages(())
            }
            Effect::Record(record) => {
                if let Record::StatusPersisted {
                    resource_version,
                    status,
                } = record
                {
                    let version = resource_version.and_then(|version| version.parse().ok());
                    self.operators[number].written = Some((version.unwrap_or_default(), status));
                }
                Result::Record(())
            }
            // The loop ends with it.
            Effect::Done(_) => Result::Record(()),
        }
    }

    fn write_status(&mut self, write: &StatusPatch) -> StatusAnswer {
        if self.gone {
            return StatusAnswer::NotFound;
        }
        if write.resource_version != self.object.metadata.resource_version {
            return StatusAnswer::Conflict;
        }
        let mut status = serde_json::to_value(&self.object.status).unwrap_or_default();
        merge_patch(&mut status, &write.patch);
        match serde_json::from_value(status) {
            Ok(status) => self.object.status = status,
            Err(error) => {
                self.violations.push(format!("an invalid status: {error}"));
                return StatusAnswer::Failed;
            }
        }
        self.new_version();
        StatusAnswer::Written(self.object.metadata.resource_version.clone())
    }

    fn read_status(&self) -> CurrentStatus {
        if self.gone {
            return CurrentStatus::Gone;
        }
        CurrentStatus::Found {
            resource_version: self.object.metadata.resource_version.clone(),
            status: self.object.status.clone().map(Box::new),
        }
    }

    fn set_finalizer(&mut self, present: bool) {
        use lockstep_api::annotation::REVOKE_LEASE;
        let finalizers = self.object.metadata.finalizers.get_or_insert_default();
        let before = finalizers.clone();
        finalizers.retain(|name| name != REVOKE_LEASE);
        if present {
            finalizers.push(REVOKE_LEASE.to_owned());
        }
        if *finalizers == before {
            return;
        }
        self.gone = finalizers.is_empty() && self.object.metadata.deletion_timestamp.is_some();
        self.new_version();
    }

    fn handle_messages(&mut self, number: usize, step: MessageStep) {
        let pending: BTreeSet<u64> = self.store.messages.keys().copied().collect();
        let operator = &mut self.operators[number];
        match step {
            MessageStep::Begin => operator.handled = pending,
            MessageStep::End { durable: true } => {
                for message in std::mem::take(&mut operator.handled) {
                    self.check_acknowledgement(message);
                    self.store.messages.remove(&message);
                }
            }
            MessageStep::End { durable: false } => operator.handled.clear(),
            MessageStep::Refute(message) => self.store.refute(message),
        }
    }

    /// A message is acknowledged only when the status in the API server contains its effect.
    fn check_acknowledgement(&mut self, message: u64) {
        let Some(FakeMessage { version, at, refuted }) = self.store.messages.get(&message).copied() else {
            return;
        };
        // A message of another time says nothing about what the store contains now.
        let is_old = self.wall.duration_since(at).unsigned_abs() > Duration::from_mins(10);
        if is_old || refuted || version > self.store.versions.len() {
            return;
        }
        let status = self.status();
        let ready = status.condition(ConditionType::Ready);
        let is_ready = ready.is_some_and(|ready| ready.status == ConditionStatus::True);
        let read = status.sources.iter().any(|source| {
            let read = source
                .version
                .as_deref()
                .and_then(|read| read.parse::<usize>().ok());
            read.is_some_and(|read| read >= version)
        });
        let rotation = status.rotation.as_ref();
        let is_pending = rotation
            .is_some_and(|rotation| rotation.pending_revision.is_some() || rotation.refused.is_some());
        if is_ready && !read && !is_pending {
            self.violations.push(format!(
                "message {message} about version {version} was acknowledged, and the status has {:?}",
                status.sources
            ));
        }
    }

    /// A credential in use is not revoked.
    fn check_revocation(&mut self, accessor: &str) {
        let content = FakeStore::content_of(accessor);
        let in_secrets = self.secrets.holders(&content);
        let in_pods = self.workloads.users(&content);
        let is_dead = !self.store.leases().contains(&accessor);
        if is_dead || self.gone || self.object.metadata.deletion_timestamp.is_some() {
            return;
        }
        let target = self.status().target.map(|target| target.name);
        if in_secrets.iter().any(|name| Some(name) == target.as_ref()) || !in_pods.is_empty() {
            self.violations.push(format!(
                "{accessor} was revoked; it is in {in_secrets:?} and {in_pods:?}"
            ));
        }
    }
}

impl Operator {
    /// Returns the newest status that this process knows.
    fn status(&self) -> Option<Arc<SyncedSecretStatus>> {
        match &self.written {
            Some((written, status)) if *written > version(&self.seen) => Some(status.clone()),
            _ => self.seen.status.clone().map(Arc::new),
        }
    }

    fn resource_version(&self) -> Option<String> {
        match &self.written {
            Some((written, _)) if *written > version(&self.seen) => Some(written.to_string()),
            _ => self.seen.metadata.resource_version.clone(),
        }
    }
}

fn version(object: &SyncedSecret) -> u64 {
    let version = object.metadata.resource_version.as_deref();
    version
        .and_then(|version| version.parse().ok())
        .unwrap_or_default()
}

/// Applies a merge patch (RFC 7396).
fn merge_patch(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Some(target) = target.as_object_mut() else {
        return;
    };
    for (field, value) in patch {
        if value.is_null() {
            target.remove(field);
        } else {
            merge_patch(target.entry(field.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Returns the result of an effect that fails; `None` if it cannot fail.
fn failure_of(effect: &Effect) -> Option<EffectResult> {
    use EffectResult as Result;
    let refused = || WriteError::Other {
        what: "the API server could not be reached".to_owned(),
        transient: true,
    };
    Some(match effect {
        // no read fails as a whole
        Effect::ReadSources(read) => Result::ReadSources(Ok(store::unavailable(&read.plan))),
        Effect::ReadVersion(_) => Result::ReadVersion(Err(store::no_answer())),
        Effect::LeaseSupport(_) => Result::LeaseSupport(Err(store::no_answer())),
        Effect::IssueToken(_) => Result::IssueToken(Err(store::no_answer())),
        Effect::IssueCredential(_) => Result::IssueCredential(Err(store::no_answer())),
        Effect::RenewLease(_) => Result::RenewLease(Err(store::no_answer())),
        Effect::RevokeLease(_) => Result::RevokeLease(Err(store::no_answer())),
        Effect::ProveLeasePolicy(()) => {
            Result::ProveLeasePolicy(Err(LeasePolicy::Unknown("no response".to_owned())))
        }
        Effect::SetFinalizer(_) => Result::SetFinalizer(Err("no response".to_owned())),
        Effect::RequestSecret(_) => Result::RequestSecret(Answer::Failed(refused())),
        Effect::MergeSecret(_) => Result::MergeSecret(Err(refused())),
        Effect::FindMerged(_) => Result::FindMerged(Err(refused())),
        Effect::FindTargets(_) => Result::FindTargets(Err(Refusal::Unknown)),
        Effect::ObserveTargets(_) => Result::ObserveTargets(BTreeMap::new()),
        Effect::Restart(_) => Result::Restart(Err(Refusal::Unknown)),
        Effect::RunCheck(_) => Result::RunCheck(lockstep_core::rotation::Check::Unknown),
        Effect::WriteStatus(_) => Result::WriteStatus(StatusAnswer::Failed),
        Effect::ReadStatus(()) => Result::ReadStatus(CurrentStatus::Failed),
        Effect::Decrypt(_)
        | Effect::Compute(_)
        | Effect::PlanRefresh(())
        | Effect::RecallRestarts(_)
        | Effect::Publish(_)
        | Effect::Messages(_)
        | Effect::Record(_)
        | Effect::Done(_) => return None,
    })
}
