//! Runs a sync: gather → plan → fetch → assemble → apply.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use lockstep_api::{
    CreationPolicy, DeletionPolicy, Reason, RefusedRevision, RotationStatus, SourceStatus, StoreRef,
    SyncedSecret, SyncedSecretStatus, TargetStatus,
};
use lockstep_core::{
    Failure,
    assemble::{self, DesiredSecret},
    collect::{self, Collected, Fetched, Generated},
    decide::Trigger,
    lease,
    plan::{self, Input, Plan},
    remote::{Requeue, SecretValue},
    report::Waiting,
    revision::{self, Candidate, Content, Revision},
    rotation::{self, Change, Entry, references},
    secret_write::{self, Done, SecretIdentity},
};
use lockstep_provider::{Context, Provider, ProviderError};

use super::item::Reconcile;
use crate::{
    context::Shared,
    fair::Places,
    fetch::{self, Stores},
    index::{ClusterView, ObjectKey, store_key},
    owner::Owner,
    secret::WriteError,
};

/// Timeout for all sources of one SyncedSecret.
const FETCH_DEADLINE: Duration = Duration::from_secs(60);

/// Maximum number of attempts to write an immutable Secret while someone deletes it in between.
const MAX_SEAL_ATTEMPTS: u32 = 4;

/// Used instead of a revision for a pending credential that is not issued yet.
const NEW_CREDENTIAL: &str = "new";

/// The result of a sync.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each sync, and it is not kept"
)]
pub(super) enum Synced {
    /// The Secret is in sync.
    InSync {
        target: TargetStatus,
        sources: Vec<SourceStatus>,
        /// Whether the Secret has earlier values, because the rollout of the current ones failed.
        back: bool,
        /// A newer value that may not be written yet.
        waits: Option<Box<Waiting>>,
    },
    /// A change is pending.
    Waits(Box<RotationStatus>),
    /// All sources are gone and the Secret was deleted.
    Gone,
}

/// The owned input of a plan, which can be moved to another thread.
struct Gathered {
    key: ObjectKey,
    uid: String,
    object: Arc<SyncedSecret>,
    around: ClusterView,
    generated: Option<Generated>,
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

    /// Runs work with the input. Long work (templates, rewrites, many bytes or entries) runs on
    /// separate threads, in a fair order of namespaces.
    async fn work<T: Send + 'static>(
        self: &Arc<Self>,
        compute: &Places,
        bytes: usize,
        work: impl FnOnce(&Input<'_>) -> T + Send + 'static,
    ) -> T {
        let spec = &self.object.spec;
        let renders =
            spec.target.template.is_some() || spec.data_from.iter().any(|entry| !entry.rewrite.is_empty());
        if !renders && bytes <= QUICK_BYTES && spec.data.len() + spec.data_from.len() <= QUICK_ENTRIES {
            return work(&self.input());
        }
        let gathered = self.clone();
        compute
            .run(&self.key.namespace, move || work(&gathered.input()))
            .await
    }
}

/// Up to this many bytes of values and entries of the spec, work runs on the current thread.
const QUICK_BYTES: usize = 64 * 1024;
const QUICK_ENTRIES: usize = 100;

fn read_bytes(fetched: &Fetched) -> usize {
    let read = fetched.reads.values().flatten().map(|secret| secret.value.len());
    let decrypted = fetched
        .decrypted
        .iter()
        .flat_map(|all| all.values().flatten())
        .map(SecretValue::len);
    read.chain(decrypted).sum()
}

fn collected_bytes(collected: &Collected) -> usize {
    collected.values.values().map(SecretValue::len).sum()
}

impl Reading {
    async fn content(&self, shared: &Shared) -> Content {
        let (collected, key) = (self.collected.clone(), shared.key.clone());
        self.gathered
            .work(&shared.compute, collected_bytes(&self.collected), move |input| {
                Content::of(input, &collected, &key)
            })
            .await
    }

    /// Whether this process does not hold the fields of its credential.
    fn lacks_credential(&self) -> bool {
        let leased = self.collected.leased.as_ref();
        leased.is_some_and(|leased| leased.keys.is_none())
    }
}

pub(super) struct ObjectStores<'a> {
    shared: &'a Shared,
    namespace: &'a str,
}

#[async_trait]
impl Stores for ObjectStores<'_> {
    async fn provider(&self, store: &StoreRef) -> Result<Arc<dyn Provider>, ProviderError> {
        self.shared.provider(&store_key(self.namespace, store)).await
    }
}

/// The values that were read for one sync.
struct Reading {
    gathered: Arc<Gathered>,
    plan: Plan,
    fetched: Fetched,
    collected: Collected,
    fingerprint: String,
}

impl Reconcile {
    pub(super) async fn sync(
        &self,
        status: Option<&SyncedSecretStatus>,
        why: Trigger,
    ) -> Result<Synced, Failure> {
        let shared = &self.shared;
        let gathered = self.gather(self.object.clone(), self.generated(status));
        if gathered.around.terminating {
            let message = format!("namespace \"{}\" is being deleted", self.key.namespace);
            return Err(Failure::new(Reason::NamespaceTerminating, message));
        }
        let known = status.and_then(|status| status.target.as_ref());
        let Some(mut reading) = self.read(gathered).await? else {
            self.check_may_write()?;
            let owner = self.owner();
            if !self.object.spec.target.versioned {
                self.remove(status).await?;
            }
            if let Some(old) = known.filter(|old| old.name != owner.target) {
                self.remove_renamed(old).await?;
            }
            for old in status.iter().flat_map(|status| &status.versions) {
                self.remove_renamed(old).await?;
            }
            return Ok(Synced::Gone);
        };
        let fresh_for = reading.collected.fresh_for;
        self.remember(|tracked, _, _| tracked.fresh_for = fresh_for);
        let generation = reading.plan.generation.clone();
        let cause = generation
            .as_ref()
            .and_then(|generation| self.lease_cause(status, generation));
        let name = self.owner_of(known).target.to_owned();
        let waiting = status.and_then(|status| status.rotation.as_ref());
        let requested = self.observed(status).asks_to_rotate();
        let refused = rotation::refused(&self.object.spec, waiting).filter(|_| !requested);
        if let Some(refused) = refused
            .filter(|refused| rotation::still_says(refused, &reading.fingerprint, &reading.collected.sources))
        {
            return Box::pin(self.stay_back(status, refused, why)).await;
        }
        if let Some(known) = known
            && cause.is_none()
            && let Some(target) = self.kept(status, known, &mut reading, why).await
        {
            return Ok(Synced::InSync {
                target,
                sources: reading.collected.sources,
                back: false,
                waits: None,
            });
        }
        // a rollout failed and a newer value may not be written yet: roll back first
        let back = refused.filter(|_| rotation::awaits_rollback(waiting));
        let rollout = self.object.spec.rotation.as_ref();
        let rollout = rollout.and_then(|rotation| rotation.rollout.as_ref());
        let windows = reading.plan.windows.clone();
        let enter = |revision: &str| {
            let change = Change {
                written: known,
                target_name: &name,
                revision,
                drifted: why == Trigger::Drift,
                requested,
                rollout,
                last_rollout: waiting.and_then(|waiting| waiting.rollout.as_ref()),
            };
            rotation::entry(&windows, &change, shared.clock.now())
        };
        let waits = |revision: String, waits_for, next| {
            let now = shared.clock.now();
            let pending = rotation::pending(waiting, revision, waits_for, next, now);
            Ok(Synced::Waits(Box::new(pending)))
        };
        // issue another credential as soon as it may be written, or before the current one ends
        if let Some(generation) = generation
            && (cause.is_some() || reading.lacks_credential())
        {
            let leases = status.and_then(|status| status.lease.as_ref());
            if let Entry::Wait(waits_for, next) = enter(NEW_CREDENTIAL)
                && !lease::cannot_wait(leases, shared.steady.now())
            {
                return waits(NEW_CREDENTIAL.to_owned(), waits_for, next);
            }
            tracing::debug!(?cause, "a credential has to be made");
            let generated = Box::pin(self.mint(status, &generation)).await?;
            self.accept(&mut reading, generated).await?;
            self.decrypt(&mut reading).await?;
            let revision = self.revision(status, &reading, refused).await;
            return self.write_reading(reading, revision, status, false).await;
        }
        // a pending change is not decrypted again while it waits
        if back.is_none()
            && let Some(old) = waiting
            && let Some(revision) = &old.pending_revision
            && self.remember(|tracked, _, _| tracked.memory.waiting.as_ref() == Some(&reading.fingerprint))
            && let Entry::Wait(waits_for, next) = enter(revision)
        {
            return waits(revision.clone(), waits_for, next);
        }
        self.decrypt(&mut reading).await?;
        let revision = self.revision(status, &reading, refused).await;
        if let Some(refused) = refused.filter(|refused| refused.revision == revision.name) {
            return Box::pin(self.stay_back(status, refused, why)).await;
        }
        if let Entry::Wait(waits_for, next) = enter(&revision.name) {
            let revision = revision.name;
            if let Some(refused) = back {
                let mut synced = Box::pin(self.stay_back(status, refused, why)).await?;
                if let Synced::InSync { waits, .. } = &mut synced {
                    *waits = Some(Box::new(Waiting {
                        revision,
                        waits_for,
                        next,
                    }));
                }
                return Ok(synced);
            }
            self.remember(|tracked, _, _| tracked.memory.waiting = Some(reading.fingerprint));
            return waits(revision, waits_for, next);
        }
        self.write_reading(reading, revision, status, false).await
    }

    /// Keeps or writes the revision that replaces a failed one.
    async fn stay_back(
        &self,
        status: Option<&SyncedSecretStatus>,
        refused: &RefusedRevision,
        why: Trigger,
    ) -> Result<Synced, Failure> {
        let known = status.and_then(|status| status.target.as_ref());
        let generation = status.and_then(|status| status.observed_generation);
        let is_back = |known: &&TargetStatus| {
            known.revision == refused.pinned.revision
                && self.is_target(known)
                && generation == self.object.metadata.generation
                && why != Trigger::Drift
                && self.remember(|tracked, _, _| tracked.memory.trusts(status))
        };
        if let Some(known) = known.filter(is_back) {
            return Ok(Synced::InSync {
                target: known.clone(),
                sources: refused.pinned.sources.clone(),
                back: true,
                waits: None,
            });
        }
        // a changed spec changes the revision
        let kept = if self.object.spec.target.versioned && generation == self.object.metadata.generation {
            Box::pin(self.kept_version(status, &refused.pinned.revision)).await?
        } else {
            None
        };
        if let Some(target) = kept {
            return Ok(Synced::InSync {
                target,
                sources: refused.pinned.sources.clone(),
                back: true,
                waits: None,
            });
        }
        let unreadable = |mut failure: Failure| {
            failure.message = format!(
                "the rollback to revision {} failed: {}",
                refused.pinned.revision, failure.message
            );
            failure
        };
        let mut object = (*self.object).clone();
        let views = self.shared.index().surroundings(&self.key, &object).views;
        object.spec = rotation::pin(&object.spec, &views, &refused.pinned.sources);
        let gathered = self.gather(Arc::new(object), None);
        let Some(mut reading) = self.read(gathered).await.map_err(unreadable)? else {
            let gone = Failure::new(Reason::SourceNotFound, "its remote values are gone");
            return Err(unreadable(gone.requeued(Requeue::RefreshInterval)));
        };
        if let Some(known) = known
            && let Some(target) = self.kept(status, known, &mut reading, why).await
        {
            return Ok(Synced::InSync {
                target,
                sources: reading.collected.sources,
                back: true,
                waits: None,
            });
        }
        self.decrypt(&mut reading).await.map_err(unreadable)?;
        // the versions of the previous revision produce it again under another key, unless the spec
        // changed
        let same_spec =
            status.is_some_and(|status| revision::has_same_spec(status, self.object.metadata.generation));
        let names = known
            .map(|known| Candidate::new(known, self.is_unchanged(status, &reading)))
            .into_iter()
            .chain([Candidate::new(&refused.pinned, same_spec)]);
        let revision = reading.content(&self.shared).await.revision(names);
        self.write_reading(reading, revision, status, true).await
    }

    /// Returns the recorded Secret if it is assumed to contain the values that were read. If the
    /// status was written under another fingerprint key, only the hashes are updated.
    async fn kept(
        &self,
        status: Option<&SyncedSecretStatus>,
        known: &TargetStatus,
        reading: &mut Reading,
        why: Trigger,
    ) -> Option<TargetStatus> {
        let leases = status.and_then(|status| status.lease.as_ref());
        let is_current = known.key_id.as_deref() == Some(&*revision::key_id(&self.shared.key));
        let same =
            known.fingerprint == reading.fingerprint || !is_current && self.is_unchanged(status, reading);
        let holds = same
            && why != Trigger::Drift
            && !lease::in_doubt(leases)
            && self.remember(|tracked, _, _| tracked.memory.trusts(status))
            && self.is_target(known);
        if !holds {
            return None;
        }
        // without the values, they cannot be hashed: the next sync tries again
        if is_current || self.decrypt(reading).await.is_err() {
            return Some(known.clone());
        }
        let mut target = known.clone();
        target.fingerprint.clone_from(&reading.fingerprint);
        let content = reading.content(&self.shared).await;
        content.revision([Candidate::new(known, true)]).set(&mut target);
        if reading.lacks_credential() {
            // the hashed content is incomplete; the next write contains another credential
            target.revision_hash = None;
        }
        tracing::debug!(key_id = ?target.key_id, "recorded the hashes under the current fingerprint key");
        Some(target)
    }

    /// Returns the revision of the values that were read. Known content keeps its name.
    async fn revision(
        &self,
        status: Option<&SyncedSecretStatus>,
        reading: &Reading,
        refused: Option<&RefusedRevision>,
    ) -> Revision {
        let known = status.and_then(|status| status.target.as_ref());
        let known = known.map(|known| Candidate::new(known, self.is_unchanged(status, reading)));
        let refused = refused.map(|refused| Candidate::new(refused, false));
        reading
            .content(&self.shared)
            .await
            .revision(known.into_iter().chain(refused))
    }

    fn is_unchanged(&self, status: Option<&SyncedSecretStatus>, reading: &Reading) -> bool {
        let generation = self.object.metadata.generation;
        status.is_some_and(|status| revision::is_unchanged(status, generation, &reading.collected.sources))
    }

    fn gather(&self, object: Arc<SyncedSecret>, generated: Option<Generated>) -> Arc<Gathered> {
        Arc::new(Gathered {
            around: self.shared.index().surroundings(&self.key, &object),
            key: self.key.clone(),
            uid: self.uid.clone(),
            object,
            generated,
        })
    }

    pub(super) fn context(&self) -> Context {
        Context {
            deadline: Some(Instant::now() + FETCH_DEADLINE),
            backlog: self.backlog.clone(),
            not_before: self.shared.events.woken_at(&self.key),
            ..Context::default()
        }
    }

    pub(super) fn stores(&self) -> ObjectStores<'_> {
        ObjectStores {
            shared: &self.shared,
            namespace: &self.key.namespace,
        }
    }

    /// Reads every source; `None` if all are gone and `deletionPolicy` is `Delete`.
    async fn read(&self, gathered: Arc<Gathered>) -> Result<Option<Reading>, Failure> {
        let plan = plan::plan(&gathered.input())?;
        let cx = self.context();
        if self.remember(|tracked, _, _| tracked.large) {
            // its values were large, and reading them twice costs more than waiting first
            let place = self.meter.take_place(&cx).await;
            place.map_err(|error| Failure::provider("the values", &error))?;
        }
        let mut fetched = fetch::fetch(&plan, &self.stores(), &cx, &self.meter).await;
        let large = self.meter.is_large() || fetched.too_large.is_some();
        self.remember(|tracked, _, _| tracked.large = large);
        fetched.generated.clone_from(&gathered.generated);
        self.confirm(&mut fetched).await;
        let (outcome, fetched) = self.collect(&gathered, fetched).await;
        let Some((collected, fingerprint)) = outcome? else {
            return Ok(None);
        };
        rotation::check_sources(&gathered.object.spec, &collected.sources)?;
        Ok(Some(Reading {
            gathered,
            plan,
            fetched,
            collected,
            fingerprint,
        }))
    }

    /// Builds the keys and their fingerprint from the values; `None` if every source is gone.
    async fn collect(
        &self,
        gathered: &Arc<Gathered>,
        fetched: Fetched,
    ) -> (Result<Option<(Collected, String)>, Failure>, Fetched) {
        let (key, bytes) = (self.shared.key.clone(), read_bytes(&fetched));
        gathered
            .work(&self.shared.compute, bytes, move |input| {
                let outcome = collect::collect(input, &fetched).map(|outcome| match outcome {
                    collect::Outcome::Gone => None,
                    collect::Outcome::Complete(collected) => {
                        let fingerprint = assemble::fingerprint(input, &collected, &key);
                        Some((collected, fingerprint))
                    }
                });
                (outcome, fetched)
            })
            .await
    }

    /// Adds a credential to the values that were read.
    async fn accept(&self, reading: &mut Reading, generated: Generated) -> Result<(), Failure> {
        let mut fetched = std::mem::take(&mut reading.fetched);
        fetched.generated = Some(generated);
        let (outcome, fetched) = self.collect(&reading.gathered, fetched).await;
        reading.fetched = fetched;
        if let Some((collected, fingerprint)) = outcome? {
            reading.collected = collected;
            reading.fingerprint = fingerprint;
        }
        Ok(())
    }

    /// Decrypts the ciphertexts among the sources.
    async fn decrypt(&self, reading: &mut Reading) -> Result<(), Failure> {
        if reading.plan.decryptions.is_empty() {
            return Ok(());
        }
        let decrypted = fetch::decrypt(&reading.plan, &self.stores(), &self.context()).await;
        let mut fetched = std::mem::take(&mut reading.fetched);
        fetched.decrypted = Some(decrypted);
        let bytes = read_bytes(&fetched);
        let outcome = reading
            .gathered
            .work(&self.shared.compute, bytes, move |input| {
                collect::collect(input, &fetched)
            })
            .await?;
        if let collect::Outcome::Complete(decrypted) = outcome {
            reading.collected = decrypted;
        }
        Ok(())
    }

    /// Writes the values that were read.
    async fn write_reading(
        &self,
        reading: Reading,
        revision: Revision,
        status: Option<&SyncedSecretStatus>,
        back: bool,
    ) -> Result<Synced, Failure> {
        let known = status.and_then(|status| status.target.as_ref());
        let collected = reading.collected;
        let bytes = collected_bytes(&collected);
        let (mut secret, collected) = reading
            .gathered
            .work(&self.shared.compute, bytes, move |input| {
                assemble::assemble(input, &collected).map(|secret| (secret, collected))
            })
            .await?;
        let versioned = self.object.spec.target.versioned;
        let is_noted = |name: &str| {
            let mut noted = status.into_iter().flat_map(|status| &status.versions);
            noted.any(|noted| noted.name == name)
        };
        if known.is_some_and(|known| known.name != secret.name) && !versioned && !is_noted(&secret.name) {
            // otherwise it would not be recorded if the process stopped or could not delete the
            // earlier Secret
            let renamed = TargetStatus {
                name: secret.name.clone(),
                merged: secret.creation_policy == CreationPolicy::Merge,
                ..TargetStatus::default()
            };
            self.record(status, renamed).await?;
        }
        if versioned {
            secret.name = references::name(&secret.name, &revision.name);
            secret.immutable = true;
            Box::pin(self.intend(status, &secret.name, &revision.name)).await?;
        }
        let target = self.write(status, &secret, reading.fingerprint, revision).await?;
        // versioned Secrets, which targets may refer to, are pruned with the history
        let noted = status.into_iter().flat_map(|status| &status.versions);
        let renamed = known.into_iter().chain(noted);
        for old in renamed.filter(|old| old.name != target.name && !old.versioned && !versioned) {
            self.remove_renamed(old).await?;
        }
        Ok(Synced::InSync {
            target,
            sources: collected.sources,
            back,
            waits: None,
        })
    }

    pub(super) fn check_may_write(&self) -> Result<(), Failure> {
        if self.shared.may_write.load(Ordering::Acquire) {
            return Ok(());
        }
        let message = "the admission policy lockstep-secrets is not enforced, so lockstep writes no Secrets. Install it again";
        Err(Failure::new(Reason::WriteFailed, message).requeued(Requeue::Backoff))
    }

    /// Writes the Secret. An immutable Secret is written twice, and its uid is recorded in between.
    /// Otherwise, after a crash, it could not be changed, and nothing would show that this
    /// SyncedSecret owns it.
    async fn write(
        &self,
        status: Option<&SyncedSecretStatus>,
        secret: &DesiredSecret,
        fingerprint: String,
        revision: Revision,
    ) -> Result<TargetStatus, Failure> {
        self.check_may_write()?;
        let owner = self.owner_of_name(&secret.name);
        self.remember(|tracked, _, _| tracked.memory.writes());
        let target = |identity: SecretIdentity| TargetStatus {
            name: secret.name.clone(),
            uid: identity.uid,
            resource_version: identity.resource_version,
            revision: revision.name.clone(),
            revision_hash: revision.hash.clone(),
            key_id: Some(revision.key_id.clone()),
            fingerprint,
            versioned: self.object.spec.target.versioned,
            merged: secret.creation_policy == CreationPolicy::Merge,
            generation: None,
            last_change_time: None,
        };
        let identity = if secret.creation_policy == CreationPolicy::Merge {
            self.merge(&owner, secret).await?
        } else {
            let committed = self.committed();
            let mut recorded = secret_write::recorded(committed.as_ref().or(status), &secret.name);
            let mut attempts = 0;
            loop {
                let done = self.write_owned(&owner, secret, recorded).await?;
                if done.sealed {
                    break done.identity;
                }
                attempts += 1;
                if attempts >= MAX_SEAL_ATTEMPTS {
                    return Err(self.not_written(&owner, &WriteError::Raced));
                }
                let unsealed = TargetStatus {
                    fingerprint: String::new(),
                    ..target.clone()(done.identity.clone())
                };
                self.record(status, unsealed).await?;
                recorded = Some(done.identity);
            }
        };
        let now = self.shared.clock.now();
        self.remember(|tracked, observed, settings| tracked.memory.probed(&observed, settings, now));
        Ok(target(identity))
    }

    async fn write_owned(
        &self,
        owner: &Owner<'_>,
        secret: &DesiredSecret,
        recorded: Option<SecretIdentity>,
    ) -> Result<Done, Failure> {
        let _slot = self.shared.writes.acquire(self.priority).await;
        let written = self.shared.writer.write(owner, secret, recorded).await;
        self.count_write(written.as_ref().map(|done| done.how.label()));
        written.map_err(|error| self.not_written(owner, &error))
    }

    async fn merge(&self, owner: &Owner<'_>, secret: &DesiredSecret) -> Result<SecretIdentity, Failure> {
        let _slot = self.shared.writes.acquire(self.priority).await;
        let merged = self.shared.writer.merge(owner, secret).await;
        self.count_write(merged.as_ref().map(|_| "merged"));
        merged.map_err(|error| self.not_written(owner, &error))
    }

    fn not_written(&self, owner: &Owner<'_>, error: &WriteError) -> Failure {
        if error.is_foreign() {
            self.remember(|tracked, _, _| tracked.memory.drifted());
        }
        error.failure(owner)
    }

    fn count_write(&self, outcome: Result<&'static str, &WriteError>) {
        let label = outcome.unwrap_or_else(WriteError::label);
        self.shared.metrics.writes.with_label_values(&[label]).inc();
    }

    /// Deletes what this SyncedSecret wrote, because every source is gone. Only a Secret whose uid
    /// is in the status is deleted.
    async fn remove(&self, status: Option<&SyncedSecretStatus>) -> Result<(), Failure> {
        debug_assert_eq!(self.object.spec.target.deletion_policy, DeletionPolicy::Delete);
        self.check_may_write()?;
        let owner = self.owner();
        if self.object.spec.target.creation_policy == CreationPolicy::Merge {
            // the Secret belongs to someone else, so only this SyncedSecret's keys are removed
            if status.and_then(|status| status.target.as_ref()).is_none() {
                return Ok(());
            }
            let _slot = self.shared.writes.acquire(self.priority).await;
            let nothing = DesiredSecret::nothing(owner.target);
            let merged = match self.shared.writer.merge(&owner, &nothing).await {
                Ok(_) | Err(WriteError::Missing) => Ok(()),
                Err(error) => Err(error),
            };
            self.count_write(merged.as_ref().map(|()| "deleted"));
            return merged.map_err(|error| error.failure(&owner));
        }
        let Some(recorded) = secret_write::recorded(status, owner.target) else {
            return Ok(());
        };
        let _slot = self.shared.writes.acquire(self.priority).await;
        let deleted = self.shared.writer.delete(&owner, recorded).await;
        self.count_write(deleted.as_ref().map(|()| "deleted"));
        deleted.map_err(|error| error.failure(&owner))
    }

    /// Deletes a Secret with an earlier name that this SyncedSecret wrote.
    pub(super) async fn remove_renamed(&self, old: &TargetStatus) -> Result<(), Failure> {
        if self.object.spec.target.creation_policy != CreationPolicy::Owner || old.merged {
            return Ok(());
        }
        let owner = self.owner_of_name(&old.name);
        match self.delete_recorded(&owner, old).await {
            // someone else took it over, so lockstep does not delete it
            Ok(()) | Err(WriteError::Foreign) => Ok(()),
            Err(error) => Err(error.failure(&owner)),
        }
    }

    /// Deletes a recorded Secret by its uid, or by its name if it was recorded before it was
    /// written.
    pub(super) async fn delete_recorded(
        &self,
        owner: &Owner<'_>,
        recorded: &TargetStatus,
    ) -> Result<(), WriteError> {
        if recorded.merged {
            return Ok(());
        }
        let _slot = self.shared.writes.acquire(self.priority).await;
        match SecretIdentity::recorded(recorded) {
            Some(identity) => self.shared.writer.delete(owner, identity).await,
            None => self.shared.writer.delete_intended(owner).await,
        }
    }
}
