//! The sync itself: gather → plan → fetch → assemble → apply.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use lockstep_api::{
    CreationPolicy, DeletionPolicy, Reason, RotationStatus, SourceStatus, StoreRef, SyncedSecret,
    SyncedSecretStatus, TargetStatus,
};
use lockstep_core::{
    Failure,
    assemble::{self, DesiredSecret},
    collect,
    decide::Why,
    plan::{self, Input},
    remote::Requeue,
    rotation::{self, Change, Entry},
};
use lockstep_provider::{Context, Provider, ProviderError};

use super::Reconcile;
use crate::{
    context::Shared,
    fetch::{self, Stores},
    index::{ObjectKey, Surroundings, store_key},
    secret::{Owner, WriteError, Written},
};

/// How long the sources of one SyncedSecret may take together.
const FETCH_DEADLINE: Duration = Duration::from_secs(60);

/// How a sync went.
pub(super) enum Synced {
    /// The Secret is as it has to be.
    InSync {
        target: TargetStatus,
        sources: Vec<SourceStatus>,
    },
    /// What changed waits for a window.
    Waits(RotationStatus),
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
    pub(super) async fn sync(
        &self,
        status: Option<&SyncedSecretStatus>,
        why: Why,
    ) -> Result<Synced, Failure> {
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
            backlog: self.backlog.clone(),
            ..Context::default()
        };
        let fetched = fetch::fetch(&plan, &stores, &cx).await;
        let known = status.and_then(|status| status.target.as_ref());
        let (outcome, mut fetched) = gathered
            .work(move |input| (collect::collect(input, &fetched), fetched))
            .await;
        let mut collected = match outcome? {
            collect::Outcome::Complete(collected) => collected,
            collect::Outcome::Gone => {
                self.remove(&input).await?;
                if let Some(old) = known.filter(|old| old.name != input.target_name()) {
                    self.remove_renamed(old).await?;
                }
                return Ok(Synced::Gone);
            }
        };
        let fingerprint = assemble::fingerprint(&input, &collected, &shared.key);
        if let Some(known) = known
            && why != Why::Drift
            && self.remember(|tracked, _, _| tracked.memory.trusts(status))
            && known.fingerprint == fingerprint
            && known.name == input.target_name()
        {
            return Ok(Synced::InSync {
                target: known.clone(),
                sources: collected.sources,
            });
        }
        let waiting = status.and_then(|status| status.rotation.as_ref());
        let requested = self.observed(status).asks_to_rotate();
        let enter = |revision: &str| {
            let change = Change {
                written: known,
                target_name: input.target_name(),
                revision,
                drifted: why == Why::Drift,
                requested,
            };
            rotation::entry(&plan.windows, &change, shared.clock.now())
        };
        // what was found to wait is not decrypted again for as long as it waits
        if let Some(old) = waiting
            && let Some(revision) = &old.pending_revision
            && self.remember(|tracked, _, _| tracked.memory.waiting.as_ref() == Some(&fingerprint))
            && let Entry::Wait(next) = enter(revision)
        {
            let pending = rotation::pending(waiting, revision.clone(), next, shared.clock.now());
            return Ok(Synced::Waits(pending));
        }
        if !plan.decryptions.is_empty() {
            fetched.decrypted = Some(fetch::decrypt(&plan, &stores, &cx).await);
            let outcome = gathered
                .work(move |input| collect::collect(input, &fetched))
                .await?;
            if let collect::Outcome::Complete(decrypted) = outcome {
                collected = decrypted;
            }
        }
        let revision = assemble::revision(&input, &collected, &shared.key);
        if let Entry::Wait(next) = enter(&revision) {
            self.remember(|tracked, _, _| tracked.memory.waiting = Some(fingerprint));
            let pending = rotation::pending(waiting, revision, next, shared.clock.now());
            return Ok(Synced::Waits(pending));
        }
        let (secret, collected) = gathered
            .work(move |input| assemble::assemble(input, &collected).map(|secret| (secret, collected)))
            .await?;
        let target = self.write(&secret, fingerprint, revision).await?;
        if let Some(old) = known.filter(|old| old.name != target.name) {
            self.remove_renamed(old).await?;
        }
        Ok(Synced::InSync {
            target,
            sources: collected.sources,
        })
    }

    pub(super) fn check_may_write(&self) -> Result<(), Failure> {
        if self.shared.may_write.load(Ordering::Acquire) {
            return Ok(());
        }
        let message =
            "lockstep writes no Secret while its admission policy does not refuse what it must refuse";
        Err(Failure::new(Reason::WriteFailed, message).requeued(Requeue::Backoff))
    }

    async fn write(
        &self,
        secret: &DesiredSecret,
        fingerprint: String,
        revision: String,
    ) -> Result<TargetStatus, Failure> {
        self.check_may_write()?;
        let owner = self.owner();
        let _slot = self.shared.writes.acquire(self.priority).await;
        let writes = &self.shared.metrics.writes;
        self.remember(|tracked, _, _| tracked.memory.writes());
        match self.shared.writer.apply_or_replace(&owner, secret).await {
            Ok((
                Written {
                    uid,
                    resource_version,
                },
                replaced,
            )) => {
                let now = self.shared.clock.now();
                self.remember(|tracked, observed, settings| tracked.memory.probed(&observed, settings, now));
                writes
                    .with_label_values(&[if replaced { "replaced" } else { "applied" }])
                    .inc();
                Ok(TargetStatus {
                    name: secret.name.clone(),
                    uid,
                    resource_version,
                    revision,
                    fingerprint,
                    last_change_time: None,
                })
            }
            Err(error) => {
                writes.with_label_values(&[error.label()]).inc();
                if matches!(error, WriteError::Foreign) {
                    self.remember(|tracked, _, _| tracked.memory.drifted());
                }
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
            let nothing = DesiredSecret::nothing(owner.target);
            match self.shared.writer.apply_or_replace(&owner, &nothing).await {
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
}
