//! One reconcile: gather → plan → fetch → assemble → apply → report → schedule.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::FutureExt;
use http::{HeaderValue, header};
use kube::{
    Resource,
    api::{Patch, PatchParams},
    core::{PartialObjectMeta, request::Request},
    runtime::{
        controller::Action,
        events::{Event, EventType},
    },
};
use lockstep_api::{
    ConditionStatus, ConditionType, CreationPolicy, DeletionPolicy, Reason, StoreRef, SyncedSecret,
    SyncedSecretStatus, TargetStatus, annotation,
};
use lockstep_core::{
    Failure,
    assemble::{self, DesiredSecret, Identity},
    collect::{self, Collected},
    decide::{self, Observed, Step, Why},
    plan::{self, Input},
    remote::Requeue,
    report::{self, Outcome, Subject},
};
use lockstep_provider::{Context, Provider, ProviderError, StoreKey};
use serde_json::json;
use tracing::Instrument;

use crate::{
    context::Shared,
    fetch::{self, Stores},
    index::{ObjectKey, Surroundings, store_key},
    lanes::Priority,
    secret::{Owner, Probed, WRITE_TIMEOUT, WriteError, Written},
};

/// The metadata that the API server answers with.
const METADATA_ONLY: HeaderValue =
    HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
/// How long the sources of one SyncedSecret may take together.
const FETCH_DEADLINE: Duration = Duration::from_secs(60);
/// How long one reconcile may take. What it waits for has deadlines of its own; this one is the last resort.
const RECONCILE_DEADLINE: Duration = Duration::from_secs(300);

/// How soon an object is looked at again of which a newer version is on its way.
const STALE_PAUSE: Duration = Duration::from_millis(50);

/// Reconciles one object. It never fails: what goes wrong is reported in status and tried again.
///
/// Thousands of objects can wait for a slot at the same time. While they do, this future holds next to nothing: the
/// work, which needs much more room, is made when it begins.
pub async fn reconcile(object: Arc<SyncedSecret>, shared: Arc<Shared>) -> Result<Action, Infallible> {
    let mut reconcile = Reconcile::new(ObjectKey::of(&object), object, shared);
    match reconcile.decide().0 {
        Step::Await => return Ok(Action::await_change()),
        Step::Idle(wait) => return Ok(Action::requeue(wait)),
        Step::Fetch(Why::First | Why::SpecChanged | Why::Requested) => reconcile.priority = Priority::High,
        Step::Acknowledge | Step::Probe | Step::Fetch(_) => {}
    }
    let slots = reconcile.shared.lanes.lane(reconcile.lane());
    let _slot = slots.acquire(reconcile.priority).await;
    let span = tracing::info_span!("reconcile", synced_secret = %reconcile.key);
    Ok(Box::pin(reconcile.run()).instrument(span).await)
}

struct Reconcile {
    key: ObjectKey,
    uid: String,
    object: Arc<SyncedSecret>,
    shared: Arc<Shared>,
    priority: Priority,
}

/// How a sync went.
enum Synced {
    /// The Secret is as it has to be.
    InSync {
        target: TargetStatus,
        collected: Collected,
    },
    /// Every source is gone, and so is the Secret.
    Gone,
}

/// What a plan is made from, in one piece that can be handed to another thread.
struct Gathered {
    key: ObjectKey,
    uid: String,
    object: Arc<SyncedSecret>,
    around: Surroundings,
}

impl Gathered {
    fn input(&self) -> Input<'_> {
        Input {
            name: &self.key.name,
            namespace: &self.key.namespace,
            uid: &self.uid,
            spec: &self.object.spec,
            stores: &self.around.views,
            rival: self.around.rival.as_ref(),
        }
    }

    /// Does work with it that may take seconds where the spec has templates: then away from the threads that
    /// everybody shares.
    async fn work<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Input<'_>) -> T + Send + 'static,
    ) -> T {
        let spec = &self.object.spec;
        let renders =
            spec.target.template.is_some() || spec.data_from.iter().any(|entry| !entry.rewrite.is_empty());
        if !renders {
            return work(&self.input());
        }
        let gathered = self.clone();
        aside(move || work(&gathered.input())).await
    }
}

async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // the runtime ends, and whoever waits with it
            Err(_) => futures::future::pending().await,
        },
    }
}

struct ObjectStores<'a> {
    shared: &'a Shared,
    namespace: &'a str,
}

#[async_trait]
impl Stores for ObjectStores<'_> {
    async fn provider(&self, store: &StoreRef) -> Result<Arc<dyn Provider>, ProviderError> {
        self.shared.provider(&store_key(self.namespace, store)).await
    }
}

impl Reconcile {
    fn new(key: ObjectKey, object: Arc<SyncedSecret>, shared: Arc<Shared>) -> Self {
        let uid = object.metadata.uid.clone().unwrap_or_default();
        Self {
            key,
            uid,
            object,
            shared,
            priority: Priority::Low,
        }
    }

    fn observed<'a>(&'a self, status: Option<&'a SyncedSecretStatus>) -> Observed<'a> {
        Observed {
            uid: &self.uid,
            generation: self.object.metadata.generation.unwrap_or_default(),
            deleting: self.object.metadata.deletion_timestamp.is_some(),
            refresh: self.refresh(),
            spec: &self.object.spec,
            status,
        }
    }

    fn refresh(&self) -> Option<&str> {
        self.object
            .metadata
            .annotations
            .as_ref()?
            .get(annotation::REFRESH)
            .map(String::as_str)
    }

    fn owner(&self) -> Owner<'_> {
        Owner {
            object: &self.object,
            namespace: &self.key.namespace,
            name: &self.key.name,
            target: plan::target_name(&self.key.name, &self.object.spec.target),
        }
    }

    fn decide(&self) -> (Step, Option<SyncedSecretStatus>) {
        let shared = &self.shared;
        let now = shared.clock.now();
        shared.objects.with(&self.key, &self.uid, |tracked| {
            if tracked.is_stale(&self.object) {
                // the controller hands out the newer one in a moment
                return (Step::Idle(STALE_PAUSE), None);
            }
            let status = tracked.status(&self.object);
            if let Some(status) = &status {
                tracked.note_status(status);
            }
            let step = decide::decide(
                &self.observed(status.as_ref()),
                &mut tracked.memory,
                shared.settings,
                now,
            );
            (step, status)
        })
    }

    async fn run(self) -> Action {
        // what was due may have been done, or have changed, while this waited
        let (step, status) = self.decide();
        let started = Instant::now();
        let guarded = AssertUnwindSafe(tokio::time::timeout(
            RECONCILE_DEADLINE,
            self.step(step, status.clone()),
        ));
        let outcome = match guarded.catch_unwind().await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => {
                let failure = Failure::new(Reason::Internal, "the reconcile did not end in time");
                self.fail(status.as_ref(), &failure.requeued(Requeue::LongBackoff))
                    .await
            }
            Err(_) => {
                self.shared.metrics.panics.inc();
                tracing::error!("the reconcile panicked");
                let failure =
                    Failure::new(Reason::Internal, "a fault in lockstep itself; its log says where");
                self.fail(status.as_ref(), &failure.requeued(Requeue::LongBackoff))
                    .await
            }
        };
        self.shared
            .metrics
            .outcome(outcome)
            .observe(started.elapsed().as_secs_f64());
        match self.decide().0 {
            Step::Idle(wait) => Action::requeue(wait),
            Step::Await => Action::await_change(),
            // something changed meanwhile; at once, but not in a tight loop
            _ => Action::requeue(Duration::from_millis(100)),
        }
    }

    fn lane(&self) -> BTreeSet<StoreKey> {
        plan::store_refs(&self.object.spec)
            .iter()
            .map(|store| store_key(&self.key.namespace, store))
            .collect()
    }

    async fn step(&self, step: Step, status: Option<SyncedSecretStatus>) -> &'static str {
        let status = status.as_ref();
        match step {
            Step::Await | Step::Idle(_) => "unchanged",
            Step::Acknowledge => {
                let suspended = self.object.spec.suspend;
                self.report(status, Outcome::Acknowledged { suspended }).await;
                if suspended {
                    Reason::Suspended.as_str()
                } else {
                    Reason::Synced.as_str()
                }
            }
            Step::Probe => self.probe(status).await,
            Step::Fetch(why) => self.fetch(status, why).await,
        }
    }

    async fn probe(&self, status: Option<&SyncedSecretStatus>) -> &'static str {
        let owner = self.owner();
        let found = {
            let _slot = self.shared.writes.acquire(self.priority).await;
            self.shared.writer.probe(&owner).await
        };
        let known = status.and_then(|status| status.target.as_ref());
        let drifted = match (&found, known) {
            (Ok(Probed::There(there)), Some(known)) => {
                let same = there.uid == known.uid && there.resource_version == known.resource_version;
                let once = self.object.spec.refresh_policy == lockstep_api::RefreshPolicy::CreatedOnce;
                self.count_probe(if same { "unchanged" } else { "edited" });
                !same && !once
            }
            (Ok(Probed::There(_)), None) => true,
            (Ok(Probed::Gone), _) => {
                self.count_probe("gone");
                true
            }
            (Err(error), _) => {
                self.count_probe(if error.label() == "foreign" {
                    "foreign"
                } else {
                    "error"
                });
                let failure = error.failure(&owner);
                return self.fail(status, &failure).await;
            }
        };
        if drifted {
            return self.fetch(status, Why::Drift).await;
        }
        let now = self.shared.clock.now();
        self.remember(|tracked, observed, settings| tracked.memory.probed(&observed, settings, now));
        "unchanged"
    }

    fn count_probe(&self, outcome: &str) {
        self.shared.metrics.probes.with_label_values(&[outcome]).inc();
    }

    fn remember<T>(
        &self,
        change: impl FnOnce(&mut crate::objects::Tracked, Observed<'_>, decide::Settings) -> T,
    ) -> T {
        let settings = self.shared.settings;
        self.shared.objects.with(&self.key, &self.uid, |tracked| {
            let observed = self.observed(None);
            change(tracked, observed, settings)
        })
    }

    async fn fetch(&self, status: Option<&SyncedSecretStatus>, why: Why) -> &'static str {
        tracing::debug!(why = why.label(), "sync");
        self.remember(|tracked, observed, _| tracked.memory.begin(&observed));
        match self.sync(status, why).await {
            Ok(Synced::InSync { target, collected }) => {
                self.succeeded();
                let outcome = Outcome::Synced {
                    target,
                    sources: collected.sources,
                };
                self.report(status, outcome).await;
                Reason::Synced.as_str()
            }
            Ok(Synced::Gone) => {
                self.succeeded();
                self.report(status, Outcome::Gone).await;
                // a source that comes back is noticed at the refresh interval
                let now = self.shared.clock.now();
                let wait = decide::interval(&self.object.spec);
                self.remember(|tracked, _, _| tracked.memory.retry_at = Some(decide::later(now, wait)));
                Reason::SourceDeleted.as_str()
            }
            Err(failure) => self.fail(status, &failure).await,
        }
    }

    fn succeeded(&self) {
        let now = self.shared.clock.now();
        self.remember(|tracked, observed, settings| {
            tracked.memory.succeeded(&observed, settings, now);
            tracked.note_success(now);
        });
    }

    async fn fail(&self, status: Option<&SyncedSecretStatus>, failure: &Failure) -> &'static str {
        let now = self.shared.clock.now();
        self.remember(|tracked, observed, _| tracked.memory.failed(&observed, failure, now));
        tracing::info!(reason = %failure.reason, message = %failure.message, "not synced");
        self.report(status, Outcome::Failed(failure)).await;
        failure.reason.as_str()
    }

    async fn sync(&self, status: Option<&SyncedSecretStatus>, why: Why) -> Result<Synced, Failure> {
        let shared = &self.shared;
        let gathered = Arc::new(Gathered {
            around: shared.index().surroundings(&self.key, &self.object),
            key: self.key.clone(),
            uid: self.uid.clone(),
            object: self.object.clone(),
        });
        if gathered.around.terminating {
            let message = format!("namespace \"{}\" is being deleted", self.key.namespace);
            return Err(Failure::new(Reason::NamespaceTerminating, message));
        }
        let input = gathered.input();
        let plan = plan::plan(&input)?;
        let stores = ObjectStores {
            shared,
            namespace: &self.key.namespace,
        };
        let cx = Context {
            deadline: Some(Instant::now() + FETCH_DEADLINE),
        };
        let fetched = fetch::fetch(&plan, &stores, &cx).await;
        let known = status.and_then(|status| status.target.as_ref());
        let collected = match gathered
            .work(move |input| collect::collect(input, &fetched))
            .await?
        {
            collect::Outcome::Complete(collected) => collected,
            collect::Outcome::Gone => {
                self.remove(&input).await?;
                return Ok(Synced::Gone);
            }
        };
        let identity = assemble::identify(&input, &collected, &shared.key);
        if let Some(known) = known
            && why != Why::Drift
            && known.fingerprint == identity.fingerprint
            && known.name == input.target_name()
        {
            return Ok(Synced::InSync {
                target: known.clone(),
                collected,
            });
        }
        let (secret, collected) = gathered
            .work(move |input| assemble::assemble(input, &collected).map(|secret| (secret, collected)))
            .await?;
        let target = self.write(&secret, identity).await?;
        if let Some(old) = known.filter(|old| old.name != target.name) {
            self.remove_renamed(old).await?;
        }
        Ok(Synced::InSync { target, collected })
    }

    fn check_may_write(&self) -> Result<(), Failure> {
        if self.shared.may_write.load(Ordering::Acquire) {
            return Ok(());
        }
        let message =
            "lockstep writes no Secret while its admission policy does not refuse what it must refuse";
        Err(Failure::new(Reason::WriteFailed, message).requeued(Requeue::Backoff))
    }

    async fn write(&self, secret: &DesiredSecret, identity: Identity) -> Result<TargetStatus, Failure> {
        self.check_may_write()?;
        let owner = self.owner();
        let _slot = self.shared.writes.acquire(self.priority).await;
        let writes = &self.shared.metrics.writes;
        match self.shared.writer.apply_or_replace(&owner, secret).await {
            Ok((
                Written {
                    uid,
                    resource_version,
                },
                replaced,
            )) => {
                writes
                    .with_label_values(&[if replaced { "replaced" } else { "applied" }])
                    .inc();
                Ok(TargetStatus {
                    name: secret.name.clone(),
                    uid,
                    resource_version,
                    revision: identity.revision,
                    fingerprint: identity.fingerprint,
                    last_change_time: None,
                })
            }
            Err(error) => {
                writes.with_label_values(&[error.label()]).inc();
                Err(error.failure(&owner))
            }
        }
    }

    /// Removes what this SyncedSecret wrote, because every source is gone.
    async fn remove(&self, input: &Input<'_>) -> Result<(), Failure> {
        debug_assert_eq!(input.spec.target.deletion_policy, DeletionPolicy::Delete);
        self.check_may_write()?;
        let owner = self.owner();
        let _slot = self.shared.writes.acquire(self.priority).await;
        let result = if input.spec.target.creation_policy == CreationPolicy::Merge {
            // the Secret is somebody else's: only this SyncedSecret's keys go
            let empty = assemble::assemble(input, &Collected::default())?;
            match self.shared.writer.apply_or_replace(&owner, &empty).await {
                Ok(_) | Err(WriteError::Missing) => Ok(()),
                Err(error) => Err(error),
            }
        } else {
            self.shared.writer.delete(&owner).await
        };
        let label = result.as_ref().map_or_else(WriteError::label, |()| "deleted");
        self.shared.metrics.writes.with_label_values(&[label]).inc();
        result.map_err(|error| error.failure(&owner))
    }

    /// Removes the Secret of an earlier `target.name`.
    async fn remove_renamed(&self, old: &TargetStatus) -> Result<(), Failure> {
        if self.object.spec.target.creation_policy != CreationPolicy::Owner {
            return Ok(());
        }
        let owner = Owner {
            target: &old.name,
            ..self.owner()
        };
        match self.shared.writer.delete(&owner).await {
            // somebody took it over meanwhile: it is not ours to remove
            Ok(()) | Err(WriteError::Foreign) => Ok(()),
            Err(error) => Err(error.failure(&owner)),
        }
    }

    /// Writes the status, when it changed, and an event, when somebody should know.
    async fn report(&self, old: Option<&SyncedSecretStatus>, outcome: Outcome<'_>) {
        let owner = self.owner();
        let subject = Subject {
            generation: self.object.metadata.generation.unwrap_or_default(),
            refresh: self.refresh(),
            target_name: owner.target,
            old,
        };
        let status = report::report(&subject, outcome, self.shared.clock.now());
        if old == Some(&status) {
            return;
        }
        let written = {
            let _slot = self.shared.writes.acquire(self.priority).await;
            tokio::time::timeout(WRITE_TIMEOUT, self.patch_status(&replaced(old, &status))).await
        };
        let outcome = match written {
            Ok(Ok(meta)) => {
                self.remember(|tracked, _, _| {
                    tracked.note_status(&status);
                    tracked.note_written(meta.metadata.resource_version.as_deref(), status.clone());
                });
                self.publish(old, &status).await;
                "ok"
            }
            // the object is gone: nobody is left to be told
            Ok(Err(kube::Error::Api(error))) if error.code == 404 => "ok",
            _ => {
                tracing::warn!("the status could not be written");
                let failure = Failure::new(Reason::WriteFailed, "the status could not be written");
                let now = self.shared.clock.now();
                self.remember(|tracked, observed, _| {
                    tracked
                        .memory
                        .failed(&observed, &failure.requeued(Requeue::Backoff), now)
                });
                "error"
            }
        };
        self.shared.metrics.status.with_label_values(&[outcome]).inc();
    }

    /// Patches the status. The answer is metadata only: of the object, that is all that is new.
    async fn patch_status(
        &self,
        status: &serde_json::Value,
    ) -> kube::Result<PartialObjectMeta<SyncedSecret>> {
        let params = PatchParams {
            field_manager: Some(annotation::MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(json!({ "status": status }));
        let objects = Request::new(SyncedSecret::url_path(&(), Some(&self.key.namespace)));
        let mut request = objects
            .patch_subresource("status", &self.key.name, &params, &patch)
            .map_err(kube::Error::BuildRequest)?;
        request.headers_mut().insert(header::ACCEPT, METADATA_ONLY);
        self.shared.client.request(request).await
    }

    async fn publish(&self, old: Option<&SyncedSecretStatus>, status: &SyncedSecretStatus) {
        let Some(ready) = status.condition(ConditionType::Ready) else {
            return;
        };
        let before = old.and_then(|old| old.condition(ConditionType::Ready));
        let revision =
            |status: &SyncedSecretStatus| status.target.as_ref().map(|target| target.revision.clone());
        let turned =
            before.is_none_or(|before| before.status != ready.status || before.reason != ready.reason);
        let rewritten = old.is_some_and(|old| revision(old) != revision(status));
        // a first success is in the status, and costs no third write
        if !(turned || rewritten) || (before.is_none() && ready.status == ConditionStatus::True) {
            return;
        }
        let event = Event {
            type_: if ready.status == ConditionStatus::True {
                EventType::Normal
            } else {
                EventType::Warning
            },
            reason: ready.reason.clone(),
            note: Some(ready.message.chars().take(1000).collect()),
            action: "Sync".to_owned(),
            secondary: None,
        };
        let reference = self.object.object_ref(&());
        let publish = self.shared.recorder.publish(&event, &reference);
        if !matches!(
            tokio::time::timeout(Duration::from_secs(5), publish).await,
            Ok(Ok(()))
        ) {
            tracing::debug!("an event could not be published");
        }
    }
}

/// The status as a merge patch: what is no longer there has to be said.
fn replaced(old: Option<&SyncedSecretStatus>, new: &SyncedSecretStatus) -> serde_json::Value {
    let mut patch = serde_json::to_value(new).unwrap_or_default();
    let before = serde_json::to_value(old).unwrap_or_default();
    if let (Some(patch), Some(before)) = (patch.as_object_mut(), before.as_object()) {
        for field in before.keys() {
            patch.entry(field.clone()).or_insert(serde_json::Value::Null);
        }
        // a nested field that goes away would stay: replace the object as a whole by naming its fields
        if let (Some(new), Some(old)) = (
            patch.get_mut("target").and_then(serde_json::Value::as_object_mut),
            before.get("target").and_then(serde_json::Value::as_object),
        ) {
            for field in old.keys() {
                new.entry(field.clone()).or_insert(serde_json::Value::Null);
            }
        }
    }
    patch
}
