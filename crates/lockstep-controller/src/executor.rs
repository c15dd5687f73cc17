//! Performs the effects of reconciles. [`lockstep_core::reconcile`] decides; nothing here does.

mod facts;
mod records;
mod sources;

use std::{
    collections::BTreeSet,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::FutureExt;
use lockstep_api::{StoreRef, SyncedSecret};
use lockstep_core::{
    owner::Owner,
    reconcile::{
        Done, Effect, EffectResult, Fault, LeasePolicy, LeaseSupport, MessageStep, Reconcile, Restarts,
        RunCheck, Step,
    },
    rotation::verify::Attempt,
    schedule::BatchKey,
    spec,
};
use lockstep_provider::{Backlog, Context, Provider, ProviderError, StoreKey};
use parking_lot::Mutex;
use tracing::Instrument;

use crate::{
    context::Shared,
    fetch::{self, Meter, Stores},
    index::{Authorization, Index, ObjectKey, store_key},
    kube::{admission::Verdict, checks::CheckScope, status::StatusClient},
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
    executor.release_ignored_messages();
    let Some(step) = executor.decide() else {
        return Some(STALE_PAUSE);
    };
    if matches!(step, Step::Await | Step::Idle(_)) {
        return step.wakeup();
    }
    if step.is_urgent() {
        executor.priority = Priority::High;
    }
    executor.uses_stores = step.uses_stores();
    let slots = executor.shared.lanes.lane(executor.lane());
    let _slot = slots
        .acquire_batched(executor.priority, executor.batch_key())
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
    uses_stores: bool,
    /// Counts the bytes that it read, and holds its slot for large values.
    meter: Meter,
    /// Whether others wait for its lane, and so for the same store.
    backlog: Backlog,
    /// What its grants follow from. A store that changed since is not read.
    authorization: Mutex<Authorization>,
}

#[async_trait]
impl Stores for Executor {
    async fn provider(&self, store: &StoreRef) -> Result<Arc<dyn Provider>, ProviderError> {
        let key = self.store_key(store);
        let is_authorized = |index: &Index| {
            let authorization = self.authorization.lock();
            index.is_authorized(&authorization, &self.key.namespace, &key)
        };
        self.shared.provider_if(&key, is_authorized).await
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
            uses_stores: true,
            backlog: Backlog::default(),
            authorization: Mutex::default(),
        }
    }

    fn store_key(&self, store: &StoreRef) -> StoreKey {
        store_key(&self.key.namespace, store)
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
                    self.shared.metrics.process.panics.inc();
                }
                tracing::error!(%fault, "the reconcile was aborted");
                let Some(facts) = self.facts() else { return };
                let report = Reconcile::abort(facts, fault, self.shared.moment());
                Box::pin(self.drive(report)).await
            }
        };
        self.shared
            .metrics
            .process
            .reconcile
            .with_label_values(&[done.outcome])
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
                    answers.into_iter().next().unwrap_or_else(fetch::omitted_answer)
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
                        .issue_token(&self.context(), &request)
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
            Effect::MergeSecret(merge) => {
                let _slot = shared.writes.acquire(self.priority).await;
                let owner = self.owner(&merge.secret.name);
                Result::MergeSecret(shared.writer.merge(&owner, &merge).await)
            }
            Effect::FindMerged(name) => {
                let _slot = shared.writes.acquire(self.priority).await;
                Result::FindMerged(shared.writer.find_merged(&self.owner(&name)).await)
            }
            Effect::FindTargets(targets) => {
                Result::FindTargets(shared.workloads.find(&shared.client, namespace, &targets).await)
            }
            Effect::ObserveTargets((secret, targets)) => {
                let seen = shared
                    .workloads
                    .observe(&shared.client, namespace, &secret, targets);
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

    fn batch_key(&self) -> BatchKey {
        let batch_key = self.shared.index().batch_key(&self.key);
        batch_key.map_or_else(|| BatchKey::of_object(&self.uid), |(_, batch_key)| batch_key)
    }

    fn lane(&self) -> BTreeSet<StoreKey> {
        if !self.uses_stores {
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
        let scope = CheckScope {
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
            .check(&scope, &check.verify, &attempt, now)
            .await
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
