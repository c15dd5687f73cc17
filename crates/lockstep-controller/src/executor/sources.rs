//! Reads the sources of a reconcile.

use std::collections::{HashMap, HashSet};

use lockstep_api::StoreRef;
use lockstep_core::{
    reconcile::{ReadSources, SourcesRead, VersionMessage},
    schedule::RefreshSchedule,
};
use lockstep_provider::{ErrorKind, Operation, ProviderError, StoreKey};

use super::Executor;
use crate::fetch;

impl Executor {
    pub(super) async fn read_sources(&self, read: ReadSources) -> Result<SourcesRead, ProviderError> {
        let context = self.context();
        if read.large {
            self.meter.acquire_slot(&context).await?;
        }
        let deleted = self
            .shared
            .objects
            .with(&self.key, &self.uid, |tracked| tracked.deleted());
        let fetched = fetch::fetch(&read.plan, self, &context, &self.meter);
        let Some(fetched) = deleted.run_until_cancelled(fetched).await else {
            let message = "the SyncedSecret was deleted";
            return Err(ProviderError::new(ErrorKind::Timeout, Operation::Read, message));
        };
        // also those of values that searches found
        let mut read: HashMap<StoreKey, (StoreRef, HashSet<&str>)> = HashMap::new();
        for one in fetched.reads.keys() {
            let stores = read.entry(self.store_key(&one.store));
            let (_, keys) = stores.or_insert_with(|| (one.store.clone(), HashSet::new()));
            keys.insert(&one.reference.key);
        }
        let is_read =
            |store: &StoreKey, key: &str| read.get(store).is_some_and(|(_, keys)| keys.contains(key));
        let now = self.shared.clock.now();
        let hints = self.shared.events.version_hints(&self.key, now, is_read);
        let messages = hints.into_iter().filter_map(|(number, store, hint)| {
            let (store, _) = read.get(&store)?;
            Some(VersionMessage {
                number,
                store: store.clone(),
                hint,
            })
        });
        let messages = messages.collect();
        Ok(SourcesRead {
            large: self.meter.is_large() || fetched.too_large.is_some(),
            messages,
            fetched,
        })
    }

    /// Returns the refresh schedule that the object shares with others.
    pub(super) async fn refresh_schedule(&self) -> RefreshSchedule {
        let Some((store, batch_key)) = self.shared.index().batch_key(&self.key) else {
            return RefreshSchedule::Free;
        };
        let Some(capability) = self.shared.clients.capability(&store).await else {
            return RefreshSchedule::Free;
        };
        let members = self.shared.index().count_members(&store);
        RefreshSchedule::new(&store.label(), members, capability.batch, batch_key)
    }
}
