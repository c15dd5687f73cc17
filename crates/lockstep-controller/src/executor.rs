//! Performs the effects of reconciles. [`lockstep_core::reconcile`] decides; nothing here does.

use std::{
    collections::BTreeSet,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::FutureExt;
use lockstep_api::{StoreRef, SyncedSecret, SyncedSecretStatus};
use lockstep_core::{
    lease::{self, Issuer},
    owner::Owner,
    reconcile::{
        self, Done, Effect, EffectResult, Facts, Fault, LeasePolicy, LeaseSupport, MessageStep, Observed,
        ReadSources, Reconcile, Record, Restarts, RunCheck, SourcesRead, Step, VersionMessage,
    },
    rotation::verify::Attempt,
    schedule::{BatchKey, RefreshSchedule},
    spec,
};
use lockstep_provider::{Backlog, Context, ErrorKind, Provider, ProviderError, StoreKey};
use tracing::Instrument;

use crate::{
    context::Shared,
    fetch::{self, Meter, Stores},
    index::{ObjectKey, store_key},
    kube::{admission::Verdict, checks::Place, status::StatusClient},
    lanes::Priority,
};

/// Timeout of one reconcile. Its requests have their own deadlines, so this is a last resort.
const RECONCILE_DEADLINE: Duration = Duration::from_secs(300);
/// Timeout for all sources of one SyncedSecret.
const FETCH_DEADLINE: Duration = Duration::from_secs(60);
/// Delay before the next decision when a newer version of the object is about to arrive.
const STALE_PAUSE: Duration = Duration::from_millis(50);

/// Reconciles one object and returns when it is due again. `None` means that it waits for a change.
///
/// It never fails: errors are reported in the status and retried. Thousands of objects can wait for
/// a slot at the same time, so the waiting future is small. The larger future of the work is
/// created when the work starts.
pub async fn run_reconcile(object: Arc<SyncedSecret>, shared: Arc<Shared>) -> Option<Duration> {
    let mut executor = Executor::new(object, shared);
    executor.release_unheeded_messages();
    let Some(step) = executor.decide() else {
        return Some(STALE_PAUSE);
    };
    if matches!(step, Step::Await | Step::Idle(_)) {
        return step.wakeup();
    }
    if step.is_urgent() {
        executor.priority = Priority::High;
    }
    executor.asks_stores = step.asks_stores();
    let slots = executor.shared.lanes.lane(executor.lane());
    let _slot = slots
        .acquire_beside(executor.priority, executor.batch_key())
        .await;
    executor.backlog = Backlog::new(move || slots.is_full());
    let span = tracing::info_span!("reconcile", synced_secret = %executor.key);
    Box::pin(executor.run()).instrument(span).await;
    executor.decide().map_or(Some(STALE_PAUSE), |step| step.wakeup())
}

/// Runs the work of one reconcile. A panic or an endless wait does not affect other reconciles.
async fn guard<T>(work: impl Future<Output = T>) -> Result<T, Fault> {
    match AssertUnwindSafe(tokio::time::timeout(RECONCILE_DEADLINE, work))
        .catch_unwind()
        .await
    {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(_)) => Err(Fault::Late),
        Err(_) => Err(Fault::Panicked),
    }
}

/// Performs the effects of one reconcile.
struct Executor {
    key: ObjectKey,
    uid: String,
    object: Arc<SyncedSecret>,
    shared: Arc<Shared>,
    priority: Priority,
    /// Whether it waited in the lane of the stores and may send requests to them.
    asks_stores: bool,
    /// Counts the bytes that it read, and holds its slot for large values.
    meter: Meter,
    /// Whether others wait for its lane, and so for the same store.
    backlog: Backlog,
}

#[async_trait]
impl Stores for Executor {
    async fn provider(&self, store: &StoreRef) -> Result<Arc<dyn Provider>, ProviderError> {
        self.shared.provider(&self.store_key(store)).await
    }
}

impl Executor {
    fn new(object: Arc<SyncedSecret>, shared: Arc<Shared>) -> Self {
        let key = ObjectKey::of(&object);
        Self {
            uid: object.metadata.uid.clone().unwrap_or_default(),
            meter: Meter::new(shared.large.clone(), &key.namespace),
            key,
            object,
            shared,
            priority: Priority::Low,
            asks_stores: true,
            backlog: Backlog::default(),
        }
    }

    fn store_key(&self, store: &StoreRef) -> StoreKey {
        store_key(&self.key.namespace, store)
    }

    fn observed<'a>(&'a self, status: Option<&'a SyncedSecretStatus>) -> Observed<'a> {
        let issuer = Issuer {
            key: &self.shared.key,
            uid: &self.uid,
            namespace: &self.key.namespace,
            name: &self.key.name,
        };
        let moment = self.shared.moment();
        Observed::new(
            &self.object,
            status,
            issuer,
            moment.wall.duration_since(moment.steady),
        )
    }

    /// Returns the next step; `None` if the watch is about to deliver a newer version of the object.
    fn decide(&self) -> Option<Step> {
        let shared = &self.shared;
        shared.objects.with(&self.key, &self.uid, |tracked| {
            if tracked.is_stale(&self.object) {
                return None;
            }
            tracked.memory.take(&mut tracked.marks);
            let status = tracked.status(&self.object);
            if let Some(status) = &status {
                tracked.note_status(status);
            }
            let (observed, now) = (self.observed(status.as_deref()), shared.clock.now());
            Some(reconcile::decide(
                &observed,
                &mut tracked.memory,
                shared.settings,
                now,
            ))
        })
    }

    /// Releases messages that cannot trigger a sync of this object.
    fn release_unheeded_messages(&self) {
        if !self.shared.events.concern(&self.key) {
            return;
        }
        let heeds = self.shared.objects.with(&self.key, &self.uid, |tracked| {
            let status = tracked.status(&self.object);
            tracked.is_stale(&self.object) || self.observed(status.as_deref()).heeds_hints()
        });
        if !heeds {
            self.shared.events.settle(&self.key);
        }
    }

    /// Gathers what the reconcile depends on; `None` if the object is about to be replaced.
    fn facts(&self) -> Option<Facts> {
        let shared = &self.shared;
        let tracked = shared.objects.with(&self.key, &self.uid, |tracked| {
            if tracked.is_stale(&self.object) {
                return None;
            }
            tracked.memory.take(&mut tracked.marks);
            let status = tracked.status(&self.object);
            Some((status, tracked.version(&self.object), tracked.memory.clone()))
        });
        let (status, resource_version, memory) = tracked?;
        let index = shared.index();
        let leases = status
            .iter()
            .flat_map(|status| lease::stores(status.lease.as_ref()));
        let lease_grants = leases
            .map(|store| (store.clone(), index.grant(&self.key.namespace, &store)))
            .collect();
        Some(Facts {
            object: self.object.clone(),
            namespace: self.key.namespace.to_string(),
            name: self.key.name.to_string(),
            uid: self.uid.clone(),
            status,
            resource_version,
            memory,
            view: Arc::new(index.surroundings(&self.key, &self.object)),
            lease_grants,
            account: shared.account.kubectl_option(),
            key: shared.key.clone(),
            settings: shared.settings,
            asks_stores: self.asks_stores,
        })
    }

    async fn run(&self) {
        let started = Instant::now();
        let Some(facts) = self.facts() else { return };
        let done = match guard(Box::pin(
            self.drive(Reconcile::start(facts, self.shared.moment())),
        ))
        .await
        {
            Ok(done) => done,
            Err(fault) => {
                if fault == Fault::Panicked {
                    self.shared.metrics.panics.inc();
                }
                tracing::error!(%fault, "the reconcile was aborted");
                let Some(facts) = self.facts() else { return };
                let report = Reconcile::abort(facts, fault, self.shared.moment());
                Box::pin(self.drive(report)).await
            }
        };
        self.shared
            .metrics
            .outcome(done.outcome)
            .observe(started.elapsed().as_secs_f64());
        let memory = done.memory;
        self.shared
            .objects
            .with(&self.key, &self.uid, |tracked| tracked.memory = memory);
    }

    /// Performs effects until the reconcile is over.
    async fn drive(&self, (mut reconcile, first): (Reconcile, Effect)) -> Done {
        let mut effect = first;
        loop {
            let result = match effect {
                Effect::Done(done) => return *done,
                effect => Box::pin(self.perform(effect)).await,
            };
            effect = reconcile.resume(result, self.shared.moment());
        }
    }

    async fn perform(&self, effect: Effect) -> EffectResult {
        use EffectResult as Result;
        let shared = &self.shared;
        let namespace = &*self.key.namespace;
        match effect {
            Effect::ReadSources(read) => Result::ReadSources(self.read_sources(read).await),
            Effect::ReadVersion((store, reference)) => Result::ReadVersion(
                async {
                    let provider = self.provider(&store).await?;
                    let answers = provider.fetch(&self.context(), &[reference]).await;
                    answers.into_iter().next().unwrap_or_else(fetch::left_out)
                }
                .await,
            ),
            Effect::Decrypt(plan) => Result::Decrypt(fetch::decrypt(&plan, self, &self.context()).await),
            Effect::Compute(work) => {
                shared.compute.run(namespace, move || work.run()).await;
                Result::Compute(())
            }
            Effect::PlanRefresh(()) => Result::PlanRefresh(self.refresh_schedule().await),
            Effect::LeaseSupport(store) => {
                let provider = self.provider(&store).await;
                Result::LeaseSupport(provider.map(|provider| LeaseSupport {
                    provider: provider.capability().name,
                    leases: provider.capability().leases,
                }))
            }
            Effect::IssueToken((store, request)) => Result::IssueToken(
                async {
                    self.provider(&store)
                        .await?
                        .warrant(&self.context(), &request)
                        .await
                }
                .await,
            ),
            Effect::IssueCredential((store, token, request)) => Result::IssueCredential(
                async {
                    let provider = self.provider(&store).await?;
                    provider.mint(&self.context(), &token, &request).await
                }
                .await,
            ),
            Effect::RenewLease((store, lease, wanted)) => Result::RenewLease(
                async {
                    let provider = self.provider(&store).await?;
                    provider.renew_lease(&self.context(), &lease, wanted).await
                }
                .await,
            ),
            Effect::RevokeLease((store, lease)) => Result::RevokeLease(
                async { self.provider(&store).await?.revoke(&self.context(), &lease).await }.await,
            ),
            Effect::ProveLeasePolicy(()) => Result::ProveLeasePolicy(self.prove_lease_policy().await),
            Effect::SetFinalizer(present) => {
                let _slot = shared.writes.acquire(self.priority).await;
                Result::SetFinalizer(self.status_client().set_finalizer(present).await)
            }
            Effect::RequestSecret(request) => {
                let _slot = shared.writes.acquire(self.priority).await;
                let (owner, desired) = (self.owner(&request.name), request.desired.as_deref());
                Result::RequestSecret(shared.writer.send(&owner, desired, &request.request).await)
            }
            Effect::MergeSecret(secret) => {
                let _slot = shared.writes.acquire(self.priority).await;
                let owner = self.owner(&secret.name);
                Result::MergeSecret(shared.writer.merge(&owner, &secret).await)
            }
            Effect::FindMerged(name) => {
                let _slot = shared.writes.acquire(self.priority).await;
                Result::FindMerged(shared.writer.find_merged(&self.owner(&name)).await)
            }
            Effect::FindTargets(targets) => {
                Result::FindTargets(shared.workloads.find(&shared.client, namespace, &targets).await)
            }
            Effect::ObserveTargets((secret, targets)) => {
                let seen = shared.workloads.look(&shared.client, namespace, &secret, targets);
                Result::ObserveTargets(seen.await)
            }
            Effect::RecallRestarts(targets) => Result::RecallRestarts(Restarts {
                at: shared.workloads.restarted(namespace, &targets),
                pause: shared.workloads.pause(namespace, &targets),
            }),
            Effect::Restart(restart) => {
                let now = shared.steady.now();
                Result::Restart(
                    shared
                        .workloads
                        .restart(&shared.client, namespace, &restart, now)
                        .await,
                )
            }
            Effect::RunCheck(check) => Result::RunCheck(self.run_check(&check).await),
            Effect::WriteStatus(patch) => {
                let _slot = shared.writes.acquire(self.priority).await;
                Result::WriteStatus(self.status_client().write(patch).await)
            }
            Effect::ReadStatus(()) => Result::ReadStatus(self.status_client().read().await),
            Effect::Publish(notice) => {
                self.status_client().publish(&shared.recorder, notice).await;
                Result::Publish(())
            }
            Effect::Messages(step) => {
                match step {
                    MessageStep::Begin => shared.events.begin(&self.key),
                    MessageStep::End { durable } => shared.events.end(&self.key, durable),
                    MessageStep::Refute(number) => shared.events.refute(number),
                }
                Result::Messages(())
            }
            Effect::Record(record) => {
                self.record(record);
                Result::Record(())
            }
            // the loop that drives the reconcile ends with it
            Effect::Done(_) => Result::Record(()),
        }
    }

    fn owner<'a>(&'a self, target: &'a str) -> Owner<'a> {
        Owner {
            object: &self.object,
            namespace: &self.key.namespace,
            name: &self.key.name,
            target,
        }
    }

    fn status_client(&self) -> StatusClient<'_> {
        StatusClient {
            client: &self.shared.client,
            object: &self.object,
            namespace: &self.key.namespace,
            name: &self.key.name,
            uid: &self.uid,
        }
    }

    fn context(&self) -> Context {
        Context {
            deadline: Some(Instant::now() + FETCH_DEADLINE),
            backlog: self.backlog.clone(),
            not_before: self.shared.events.woken_at(&self.key),
            ..Context::default()
        }
    }

    async fn read_sources(&self, read: ReadSources) -> Result<SourcesRead, ProviderError> {
        let context = self.context();
        if read.large {
            self.meter.take_place(&context).await?;
        }
        let fetched = fetch::fetch(&read.plan, self, &context, &self.meter).await;
        let pins = self.shared.events.pins(&self.key).into_iter();
        let stores: BTreeSet<StoreRef> = read.plan.reads.iter().map(|read| read.store.clone()).collect();
        let messages = pins.filter_map(|(number, key, pin)| {
            let store = stores.iter().find(|store| self.store_key(store) == key)?.clone();
            Some(VersionMessage { number, store, pin })
        });
        Ok(SourcesRead {
            large: self.meter.is_large() || fetched.too_large.is_some(),
            messages: messages.collect(),
            fetched,
        })
    }

    /// Returns the refresh schedule that the object shares with others.
    async fn refresh_schedule(&self) -> RefreshSchedule {
        let Some((store, batch_key)) = self.shared.index().batch_key(&self.key) else {
            return RefreshSchedule::Free;
        };
        let Some(capability) = self.shared.clients.capability(&store).await else {
            return RefreshSchedule::Free;
        };
        let members = self.shared.index().count_members(&store);
        RefreshSchedule::new(&store.label(), members, capability.batch, batch_key)
    }

    fn batch_key(&self) -> BatchKey {
        let batch_key = self.shared.index().batch_key(&self.key);
        batch_key.map_or_else(|| BatchKey::of_object(&self.uid), |(_, batch_key)| batch_key)
    }

    fn lane(&self) -> BTreeSet<StoreKey> {
        if !self.asks_stores {
            return BTreeSet::new();
        }
        let stores = spec::store_refs(&self.object.spec);
        stores.iter().map(|store| self.store_key(store)).collect()
    }

    async fn prove_lease_policy(&self) -> Result<(), LeasePolicy> {
        let shared = &self.shared;
        let object = (&*self.key.namespace, &*self.key.name, &*self.uid);
        let _slot = shared.writes.acquire(self.priority).await;
        let proven = shared
            .lease_proof
            .prove(&shared.client, object, shared.steady.now())
            .await;
        proven.map_err(|verdict| match verdict {
            Verdict::Unknown(why) => LeasePolicy::Unknown(why.to_owned()),
            Verdict::Open | Verdict::Enforced => LeasePolicy::Open,
        })
    }

    async fn run_check(&self, check: &RunCheck) -> lockstep_core::rotation::Check {
        let place = Place {
            client: &self.shared.client,
            account: &self.shared.account,
            namespace: &self.key.namespace,
        };
        let attempt = Attempt {
            synced_secret: &self.key.name,
            uid: &self.uid,
            rollout: &check.rollout,
            verification: &check.verification,
        };
        let now = self.shared.steady.now();
        self.shared
            .verifier
            .check(&place, &check.verify, &attempt, now)
            .await
    }

    /// Counts and logs.
    fn record(&self, record: Record) {
        let metrics = &self.shared.metrics;
        let remember = |change: &dyn Fn(&mut crate::objects::Tracked)| {
            self.shared
                .objects
                .with(&self.key, &self.uid, |tracked| change(tracked));
        };
        match record {
            Record::Sync(why) => tracing::debug!(why, "sync"),
            Record::Succeeded => {
                let now = self.shared.clock.now();
                remember(&|tracked| tracked.note_success(now));
            }
            Record::NotSynced(reason, message) => tracing::info!(%reason, %message, "not synced"),
            Record::Probe(outcome) => metrics.probes.with_label_values(&[outcome]).inc(),
            Record::SecretWrite(outcome) => metrics.writes.with_label_values(&[outcome]).inc(),
            Record::StatusPersisted {
                resource_version,
                status,
            } => remember(&|tracked| {
                tracked.note_status(&status);
                tracked.note_written(resource_version.as_deref(), status.clone());
            }),
            Record::StatusWrite(outcome) => {
                match outcome {
                    "superseded" => tracing::info!(
                        "another process wrote the status; dropping the result of this reconcile"
                    ),
                    "error" => tracing::warn!("the status could not be written"),
                    _ => {}
                }
                metrics.status.with_label_values(&[outcome]).inc();
            }
            Record::Propagation(stage, took) => {
                let propagation = metrics.propagation.with_label_values(&[stage]);
                propagation.observe(took.as_secs_f64());
            }
            Record::Lease { operation, error } => {
                let outcome = error.map_or("ok", ErrorKind::label);
                metrics.leases.with_label_values(&[operation, outcome]).inc();
            }
            Record::LeaseFailed(operation, message) => {
                tracing::warn!(operation, %message, "a lease operation failed");
            }
            Record::CredentialIssued(lease) => tracing::info!(%lease, "issued a credential"),
            Record::Restart(target, outcome) => {
                match outcome {
                    "restarted" => tracing::info!(%target, "restarted"),
                    "unguarded" => tracing::error!(
                        "the admission policy lockstep-workloads does not refuse what it must refuse; not restarting workloads"
                    ),
                    _ => {}
                }
                metrics.restarts.with_label_values(&[outcome]).inc();
            }
            Record::Pruned(secret, outcome) => {
                tracing::info!(%secret, outcome, "prunes the Secret of an earlier revision");
            }
            Record::Warning(message) => tracing::warn!("{message}"),
            Record::Debug(message) => tracing::debug!("{message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn panic_or_endless_wait_becomes_a_fault_without_its_text() {
        assert_eq!(guard(async { 1 }).await, Ok(1));
        let panicked = guard(async { panic!("canary") }).await.map(|(): ()| ());
        assert_eq!(panicked, Err(Fault::Panicked));
        let began = tokio::time::Instant::now();
        assert_eq!(guard(std::future::pending::<()>()).await, Err(Fault::Late));
        assert_eq!(began.elapsed(), RECONCILE_DEADLINE);
        for fault in [Fault::Panicked, Fault::Late] {
            assert!(!fault.to_string().contains("canary"));
        }
    }
}
