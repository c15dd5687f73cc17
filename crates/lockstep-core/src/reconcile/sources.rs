//! Reads the sources of a sync and makes the content of the Secret from them.

use std::sync::Arc;

use lockstep_api::{LeaseStatus, SyncedSecret};

use super::{
    effect::ReadSources,
    facts::{ClusterView, Facts},
    run::Run,
};
use crate::{
    Failure,
    assemble::{self, DesiredSecret},
    collect::{self, Collected, Fetched, Generated},
    lease,
    plan::{self, Input, Plan},
    remote::SecretValue,
    revision::{self, Candidate, Content, Name, Revision},
    rotation,
};

/// Up to this many bytes of values and entries of the spec, work runs on the current thread.
const QUICK_BYTES: usize = 64 * 1024;
const QUICK_ENTRIES: usize = 100;

/// The owned input of a plan, which can be moved to another thread.
pub(super) struct Inputs {
    namespace: String,
    name: String,
    uid: String,
    object: Arc<SyncedSecret>,
    view: Arc<ClusterView>,
    generated: Option<Generated>,
}

impl Inputs {
    pub(super) fn new(facts: &Facts, object: Arc<SyncedSecret>, generated: Option<Generated>) -> Arc<Self> {
        Arc::new(Self {
            namespace: facts.namespace.clone(),
            name: facts.name.clone(),
            uid: facts.uid.clone(),
            object,
            view: facts.view.clone(),
            generated,
        })
    }

    fn input(&self) -> Input<'_> {
        Input {
            name: &self.name,
            namespace: &self.namespace,
            uid: &self.uid,
            spec: &self.object.spec,
            stores: &self.view.views,
            rival: self.view.rival.as_ref(),
        }
    }

    /// Whether work on this many bytes takes long: with templates, rewrites, many bytes or entries.
    fn is_long(&self, bytes: usize) -> bool {
        let spec = &self.object.spec;
        let renders =
            spec.target.template.is_some() || spec.data_from.iter().any(|entry| !entry.rewrite.is_empty());
        renders || bytes > QUICK_BYTES || spec.data.len() + spec.data_from.len() > QUICK_ENTRIES
    }
}

/// The values that were read for one sync.
pub(super) struct Reading {
    inputs: Arc<Inputs>,
    pub(super) plan: Arc<Plan>,
    fetched: Fetched,
    pub(super) collected: Collected,
    pub(super) fingerprint: String,
}

impl Reading {
    /// Whether this process does not hold the fields of its credential.
    pub(super) fn lacks_credential(&self) -> bool {
        let leased = self.collected.leased.as_ref();
        leased.is_some_and(|leased| leased.keys.is_none())
    }
}

fn fetched_bytes(fetched: &Fetched) -> usize {
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

impl Run {
    /// Runs a computation with the input. A long one runs outside of the async threads.
    async fn compute<T: Send + 'static>(
        &self,
        inputs: &Arc<Inputs>,
        bytes: usize,
        work: impl FnOnce(&Input<'_>) -> T + Send + 'static,
    ) -> T {
        if !inputs.is_long(bytes) {
            return work(&inputs.input());
        }
        let inputs = inputs.clone();
        self.effects.compute(move || work(&inputs.input())).await
    }

    /// Returns the credential that belongs in the Secret, with its fields if this process holds
    /// them.
    pub(super) fn generated(&self) -> Option<Generated> {
        let lease = lease::in_use(self.leases())?;
        let remembered = self.memory.credential.as_ref();
        let value = remembered
            .filter(|(id, _)| *id == lease.id)
            .map(|(_, value)| value.clone());
        Some(Generated {
            lease: lease.id.clone(),
            issued: lease.issued_time,
            value,
        })
    }

    /// Reads every source; `None` if all are gone and `deletionPolicy` is `Delete`.
    pub(super) async fn read(&mut self, inputs: Arc<Inputs>) -> Result<Option<Reading>, Failure> {
        // any other result ends the time for which all values are gone
        let gone_since = self.memory.gone_since.take();
        let plan = Arc::new(plan::plan(&inputs.input())?);
        let request = ReadSources {
            plan: plan.clone(),
            large: self.memory.large,
        };
        let read = self.effects.read_sources(request).await;
        let mut read = read.map_err(|error| Failure::provider("the values", &error))?;
        self.memory.large = read.large;
        read.fetched.generated.clone_from(&inputs.generated);
        self.confirm(&mut read).await;
        self.reject_stale(&read.fetched)?;
        let (outcome, fetched) = self.collect(&inputs, read.fetched).await;
        let Some((collected, fingerprint)) = outcome? else {
            self.confirm_gone(&plan, gone_since).await?;
            return Ok(None);
        };
        self.check_dropped(&plan, &collected).await?;
        rotation::check_sources(&inputs.object.spec, &collected.sources)?;
        Ok(Some(Reading {
            inputs,
            plan,
            fetched,
            collected,
            fingerprint,
        }))
    }

    /// Builds the keys and their fingerprint from the values; `None` if every source is gone.
    async fn collect(
        &self,
        inputs: &Arc<Inputs>,
        fetched: Fetched,
    ) -> (Result<Option<(Collected, String)>, Failure>, Fetched) {
        let (key, bytes) = (self.facts.key.clone(), fetched_bytes(&fetched));
        let collect = move |input: &Input<'_>| {
            let outcome = collect::collect(input, &fetched).map(|outcome| match outcome {
                collect::Outcome::Gone => None,
                collect::Outcome::Complete(collected) => {
                    let fingerprint = assemble::fingerprint(input, &collected, &key);
                    Some((collected, fingerprint))
                }
            });
            (outcome, fetched)
        };
        self.compute(inputs, bytes, collect).await
    }

    /// Adds a credential to the values that were read.
    pub(super) async fn add_credential(
        &self,
        reading: &mut Reading,
        generated: Generated,
    ) -> Result<(), Failure> {
        let mut fetched = std::mem::take(&mut reading.fetched);
        fetched.generated = Some(generated);
        let (outcome, fetched) = self.collect(&reading.inputs, fetched).await;
        reading.fetched = fetched;
        if let Some((collected, fingerprint)) = outcome? {
            reading.collected = collected;
            reading.fingerprint = fingerprint;
        }
        Ok(())
    }

    /// Decrypts the ciphertexts among the sources.
    pub(super) async fn decrypt(&self, reading: &mut Reading) -> Result<(), Failure> {
        if reading.plan.decryptions.is_empty() {
            return Ok(());
        }
        let decrypted = self.effects.decrypt(reading.plan.clone()).await;
        let mut fetched = std::mem::take(&mut reading.fetched);
        fetched.decrypted = Some(decrypted);
        let bytes = fetched_bytes(&fetched);
        let collect = move |input: &Input<'_>| collect::collect(input, &fetched);
        let outcome = self.compute(&reading.inputs, bytes, collect).await?;
        if let collect::Outcome::Complete(decrypted) = outcome {
            reading.collected = decrypted;
        }
        Ok(())
    }

    /// Builds the Secret from the values that were read.
    pub(super) async fn assemble(&self, reading: &Reading) -> Result<DesiredSecret, Failure> {
        let collected = reading.collected.clone();
        let bytes = collected_bytes(&collected);
        let assemble = move |input: &Input<'_>| assemble::assemble(input, &collected);
        self.compute(&reading.inputs, bytes, assemble).await
    }

    pub(super) async fn content(&self, reading: &Reading) -> Content {
        let (collected, key) = (reading.collected.clone(), self.facts.key.clone());
        let bytes = collected_bytes(&collected);
        let hash = move |input: &Input<'_>| Content::of(input, &collected, &key);
        self.compute(&reading.inputs, bytes, hash).await
    }

    /// Returns the revision of the values that were read. Known content keeps its name.
    pub(super) async fn revision(&self, reading: &Reading, refused: Option<Name<'_>>) -> Revision {
        let known = self.known_target();
        let known = known
            .as_ref()
            .map(|known| Candidate::new(known, self.is_unchanged(reading)));
        let refused = refused.map(|refused| Candidate::new(refused, false));
        let content = self.content(reading).await;
        content.revision(known.into_iter().chain(refused))
    }

    /// Whether the spec and the versions of the sources are those of the status.
    pub(super) fn is_unchanged(&self, reading: &Reading) -> bool {
        let generation = self.facts.object.metadata.generation;
        let status = self.status.as_deref();
        status.is_some_and(|status| revision::is_unchanged(status, generation, &reading.collected.sources))
    }

    /// Returns why another credential has to be issued, if the existing one is not sufficient.
    pub(super) fn lease_cause(&self, generation: &lease::Generation) -> Option<lease::Cause> {
        let request = lease::request_name(generation);
        let remembered = self.memory.credential.as_ref().map(|(id, _)| id.as_str());
        let leases: Option<&LeaseStatus> = self.leases();
        lease::cause(leases, &request, remembered, self.moment().steady)
    }
}
