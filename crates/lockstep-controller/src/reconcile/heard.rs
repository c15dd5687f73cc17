//! What a reconcile has to do with the messages that woke its object.

use lockstep_core::{
    Failure,
    collect::Fetched,
    decide,
    hints::{self, Pin},
    plan::Read,
    remote::{Part, RemoteRef},
};
use lockstep_provider::StoreKey;

use super::Reconcile;
use crate::{fetch::Stores as _, index::store_key};

impl Reconcile {
    /// Lets go of messages that can make no sync of this object due.
    pub(super) fn rest(&self) {
        if !self.shared.events.concern(&self.key) {
            return;
        }
        let heeds = self.shared.objects.with(&self.key, &self.uid, |tracked| {
            if tracked.is_stale(&self.object) {
                return true;
            }
            let status = tracked.status(&self.object);
            decide::heeds_hints(&self.observed(status.as_ref()))
        });
        if !heeds {
            self.shared.events.settle(&self.key);
        }
    }

    /// What a sync found is written or in the status, or there was nothing new: unless the status could not be written.
    pub(super) fn heard(&self) {
        let settled = self.remember(|tracked, _, _| tracked.memory.retry_at.is_none());
        self.shared.events.end(&self.key, settled);
    }

    /// A sync failed. Where that is the last word until something changes, no message brings it further; else the message
    /// waits for the next attempt.
    pub(super) fn unheard(&self, failure: &Failure) {
        self.shared.events.end(&self.key, hints::settles(failure));
    }

    /// Reads anew what may be older than a message says: by the version that it names.
    pub(super) async fn confirm(&self, fetched: &mut Fetched) {
        let pins = self.shared.events.pins(&self.key);
        for (read, pin) in doubtful(fetched, &pins, &self.key.namespace) {
            let Ok(provider) = self.stores().provider(&read.store).await else {
                continue;
            };
            let named = RemoteRef::version(&read.reference.key, &pin.version);
            let mut answers = provider.fetch(&self.context(), &[named]).await;
            let (Some(answer), Some(Ok(named))) = (fetched.reads.get_mut(&read), answers.pop()) else {
                continue;
            };
            if Pin::prefers(answer, &named) {
                *answer = Ok(named);
            }
        }
    }
}

/// What was read as the current value and may be older than what the newest message about it tells.
fn doubtful(fetched: &Fetched, pins: &[(StoreKey, Pin)], namespace: &str) -> Vec<(Read, Pin)> {
    let newest = |read: &Read| {
        let concern = |(store, pin): &&(StoreKey, Pin)| {
            *store == store_key(namespace, &read.store) && pin.keys.contains(&read.reference.key)
        };
        let pins = pins.iter().filter(concern).map(|(_, pin)| pin);
        pins.max_by_key(|pin| pin.at).cloned()
    };
    if pins.is_empty() {
        return Vec::new();
    }
    fetched
        .reads
        .iter()
        .filter(|(read, _)| read.reference.version.is_none() && read.reference.part == Part::Value)
        .filter_map(|(read, answer)| {
            let pin = newest(read)?;
            pin.doubts(answer).then(|| (read.clone(), pin))
        })
        .collect()
}
