//! Reads the sources of a reconcile.

use std::collections::BTreeSet;

use lockstep_api::StoreRef;
use lockstep_core::{
    reconcile::{ReadSources, SourcesRead, VersionMessage},
    schedule::RefreshSchedule,
};
use lockstep_provider::{ErrorKind, Operation, ProviderError};

use super::Executor;
use crate::fetch;

impl Executor {
    pub(super) async fn read_sources(&self, read: ReadSources) -> Result<SourcesRead, ProviderError> {
        let context = self.context();
        if read.large {
            self.meter.take_place(&context).await?;
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
        let hints = self.shared.events.version_hints(&self.key).into_iter();
        // also those of values that searches found
        let stores: BTreeSet<StoreRef> = fetched.reads.keys().map(|read| read.store.clone()).collect();
        let messages = hints.filter_map(|(number, key, hint)| {
            let store = stores.iter().find(|store| self.store_key(store) == key)?.clone();
            Some(VersionMessage { number, store, hint })
        });
        Ok(SourcesRead {
            large: self.meter.is_large() || fetched.too_large.is_some(),
            messages: messages.collect(),
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
