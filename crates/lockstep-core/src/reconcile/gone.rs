//! Confirms that values are gone before the Secret made from them is deleted.

use std::{fmt::Display, sync::Arc, time::Duration};

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
    collect::Collected,
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

    /// Identifies the entries of the spec and the configuration of their stores, if `deletionPolicy`
    /// is `Delete`. Tenants cannot read ClusterSecretStores, so it is a keyed hash.
    pub(super) fn source_hash(&self) -> Option<String> {
        let spec = &self.facts.object.spec;
        let deletes = spec.target.deletion_policy == DeletionPolicy::Delete;
        deletes.then(|| {
            let mut hash = self.facts.key.hash("store");
            hash.field(self.facts.uid.as_bytes());
            for (store, view) in &self.facts.view.views {
                hash.field(store.to_string().as_bytes());
                hash.field(view.configuration.as_bytes());
            }
            let entries = (&spec.secret_store_ref, &spec.data, &spec.data_from);
            // plain types always serialize
            hash.field(serde_json::to_string(&entries).unwrap_or_default().as_bytes());
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
        if let Some(target) = &status.target
            && target.source_hash != self.source_hash()
        {
            let why = "the entries of the spec, the configuration of a store, or the fingerprint key changed since they were read";
            return Err(kept(&self.facts, why));
        }
        let listed = i64::try_from(status.sources.len()).unwrap_or(i64::MAX);
        if let Some(count) = status.source_count.filter(|count| *count > listed)
            && !(plan.searches.is_empty() && self.has_synced_spec())
        {
            let why = format!("the status lists only {listed} of them, and there were {count}");
            return Err(kept(&self.facts, why));
        }
        let unplanned = status.sources.iter().filter(|source| !is_planned(plan, source));
        let found = self.find_existing(unplanned).await?;
        found.map_or(Ok(()), |why| Err(kept(&self.facts, why)))
    }

    /// Checks that the values that an unchanged spec no longer finds are gone, and that some value
    /// is left. Otherwise a narrower grant, or a list that hides a name, would remove keys from the
    /// Secret.
    pub(super) async fn check_dropped(&self, plan: &Plan, collected: &Collected) -> Result<(), Failure> {
        let Some(status) = self.status.as_deref().filter(|_| self.has_synced_spec()) else {
            return Ok(());
        };
        let is_empty =
            collected.sources.is_empty() && collected.sealed.is_empty() && collected.leased.is_none();
        if is_empty && !status.sources.is_empty() {
            let why = "deletionPolicy is Retain";
            return Err(unchanged(&self.facts, "no remote value was found", why));
        }
        // a value may lose its tags
        if plan.searches.is_empty() || plan.searches.iter().any(|search| !search.query.tags.is_empty()) {
            return Ok(());
        }
        let is_read = |source: &SourceStatus| {
            let mut sources = collected.sources.iter();
            sources.any(|read| read.store == source.store && read.key == source.key)
        };
        let dropped = status
            .sources
            .iter()
            .filter(|source| !is_read(source) && !is_planned(plan, source));
        let found = self.find_existing(dropped).await?;
        let what = "a search no longer finds a value that is not known to be gone";
        found.map_or(Ok(()), |why| Err(unchanged(&self.facts, what, why)))
    }

    /// Whether the Secret was written or confirmed with the current spec.
    fn has_synced_spec(&self) -> bool {
        let known = self.known_target();
        known.is_some_and(|known| known.generation == Some(self.facts.generation()))
    }

    /// Looks the values up again. Returns why one of them is not known to be gone, if any.
    async fn find_existing(
        &self,
        sources: impl Iterator<Item = &SourceStatus>,
    ) -> Result<Option<String>, Failure> {
        let reads: Result<Vec<Read>, String> =
            sources.map(|source| recorded(&self.facts.view, source)).collect();
        let reads = match reads {
            Ok(reads) if reads.is_empty() => return Ok(None),
            Ok(reads) => reads,
            Err(why) => return Ok(Some(why)),
        };
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
        let existing = plan.reads.iter().find_map(|read| {
            let Read { store, reference } = read;
            match answers.fetched.reads.get(read) {
                Some(Err(error)) if error.kind == ErrorKind::NotFound => None,
                Some(Err(error)) => Some(format!("key \"{}\": {store}: {error}", reference.key)),
                Some(Ok(_)) => Some(format!("{store} still has \"{}\"", reference.key)),
                None => Some(format!("{store} was not asked for \"{}\"", reference.key)),
            }
        });
        Ok(existing)
    }
}

fn is_planned(plan: &Plan, source: &SourceStatus) -> bool {
    plan.reads.iter().any(|read| is_current(read, source))
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

fn kept(facts: &Facts, why: impl Display) -> Failure {
    let why = format!("not all values that it was made from are known to be gone: {why}");
    unchanged(facts, "no remote value was found", why)
}

fn unchanged(facts: &Facts, what: &str, why: impl Display) -> Failure {
    let message = format!(
        "{what}, but Secret \"{}\" is kept, because {why}. Correct the spec, the access or the store, or delete the SyncedSecret",
        facts.target_name()
    );
    Failure::new(Reason::SourceNotFound, message).requeued(Requeue::RefreshInterval)
}
