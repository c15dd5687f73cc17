//! Confirms that values are gone before the Secret made from them is deleted.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use lockstep_api::{DeletionPolicy, Reason, SourceStatus};

use super::{
    effect::ReadSources,
    facts::{ClusterView, Facts},
    run::Run,
    stale::is_current,
};
use crate::{
    Failure,
    plan::{Plan, Read},
    remote::{ErrorKind, RemoteRef, Requeue},
    time::later,
};

impl Run {
    /// Checks that every value in the status is gone, and that all have been gone for the deletion
    /// delay. `since` is when they were first found gone, if that did not change since.
    pub(super) async fn confirm_gone(
        &mut self,
        plan: &Plan,
        since: Option<Timestamp>,
    ) -> Result<(), Failure> {
        self.confirm_recorded_gone(plan).await?;
        let (now, delay) = (self.moment().steady, self.facts.settings.deletion_delay);
        let since = since.unwrap_or(now);
        self.memory.gone_since = Some(since);
        let left = Duration::try_from(later(since, delay).duration_since(now)).unwrap_or_default();
        if left.is_zero() || self.known_target().is_none() {
            return Ok(());
        }
        let message = format!(
            "all remote values are gone. If they are still gone in {} seconds, Secret \"{}\" is deleted",
            left.as_secs(),
            self.facts.target_name()
        );
        let mut failure = Failure::new(Reason::SourceNotFound, message).requeued(Requeue::RetryAfter);
        failure.retry_after = Some(left);
        Err(failure)
    }

    /// Identifies the configuration of all stores that the spec names, if `deletionPolicy` is
    /// `Delete`. Tenants cannot read ClusterSecretStores, so it is a keyed hash.
    pub(super) fn store_hash(&self) -> Option<String> {
        let deletes = self.facts.object.spec.target.deletion_policy == DeletionPolicy::Delete;
        deletes.then(|| {
            let mut hash = self.facts.key.hash("store");
            hash.field(self.facts.uid.as_bytes());
            for (store, view) in &self.facts.view.views {
                hash.field(store.to_string().as_bytes());
                hash.field(view.configuration.as_bytes());
            }
            hash.finish(16)
        })
    }

    /// Checks that every value in the status is gone, except those that the plan found missing. A
    /// search without results does not show that: the server may hide names from lists, the store
    /// may grant less than before, or the spec may search elsewhere or name a version that does not
    /// exist.
    async fn confirm_recorded_gone(&self, plan: &Plan) -> Result<(), Failure> {
        let Some(status) = self.status.as_deref() else {
            return Ok(());
        };
        let hash = status
            .target
            .as_ref()
            .and_then(|target| target.store_hash.as_ref());
        if hash.is_some() && hash != self.store_hash().as_ref() {
            let why = "the configuration of a store, or the fingerprint key, changed since they were read";
            return Err(kept(&self.facts, why));
        }
        let listed = i64::try_from(status.sources.len()).unwrap_or(i64::MAX);
        if let Some(count) = status.source_count.filter(|count| *count > listed)
            && !plan.searches.is_empty()
        {
            let why = format!("the status lists only {listed} of them, and there were {count}");
            return Err(kept(&self.facts, why));
        }
        let is_planned = |source: &&SourceStatus| {
            let mut planned = plan.reads.iter();
            planned.any(|read| is_current(read, source))
        };
        let unplanned = status.sources.iter().filter(|source| !is_planned(source));
        let reads = unplanned
            .map(|source| recorded(&self.facts.view, source).map_err(|why| kept(&self.facts, why)))
            .collect::<Result<Vec<Read>, Failure>>()?;
        if reads.is_empty() {
            return Ok(());
        }
        let plan = Arc::new(Plan {
            reads,
            ..Plan::default()
        });
        let request = ReadSources {
            plan: plan.clone(),
            large: self.memory.large,
        };
        let answers = self.effects.read_sources(request).await;
        let answers = answers.map_err(|error| Failure::provider("the values", &error))?;
        for read in &plan.reads {
            let why = match answers.fetched.reads.get(read) {
                Some(Err(error)) if error.kind == ErrorKind::NotFound => continue,
                Some(Err(error)) => format!("key \"{}\": {}: {error}", read.reference.key, read.store),
                Some(Ok(_)) => format!("{} still has \"{}\"", read.store, read.reference.key),
                None => format!("{} was not asked for \"{}\"", read.store, read.reference.key),
            };
            return Err(kept(&self.facts, why));
        }
        Ok(())
    }
}

/// Returns the read of the current value of a source in the status, or why it may not be read.
fn recorded(view: &ClusterView, source: &SourceStatus) -> Result<Read, String> {
    let SourceStatus { store, key, .. } = source;
    let Some(store_view) = view.views.get(store) else {
        return Err(format!(
            "the spec does not name {store} any more, which had \"{key}\""
        ));
    };
    let locator = store_view
        .locator
        .as_ref()
        .map_err(|error| format!("{store}: {error}"))?;
    let located = locator.locate(key, None).ok();
    // a few locations cannot be written as keys
    let location = located
        .map(|located| located.location)
        .filter(|location| **location == **key)
        .ok_or_else(|| format!("{store} had \"{key}\", which cannot be looked up"))?;
    if !store_view.grant.allows(&location) {
        return Err(format!("{store} does not grant \"{key}\" any more"));
    }
    Ok(Read {
        store: store.clone(),
        reference: RemoteRef::current(location),
    })
}

fn kept(facts: &Facts, why: impl std::fmt::Display) -> Failure {
    let message = format!(
        "no remote value was found, but Secret \"{}\" is kept, because not all values that it was made from are known to be gone: {why}. Correct the spec, the access or the store, or delete the SyncedSecret",
        facts.target_name()
    );
    Failure::new(Reason::SourceNotFound, message).requeued(Requeue::RefreshInterval)
}
