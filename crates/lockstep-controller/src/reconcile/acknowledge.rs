//! Acknowledges the event messages that woke an object, or keeps them for the next attempt.

use lockstep_core::{
    Failure,
    collect::Fetched,
    decide,
    hints::{self, Pin},
    plan::Read,
    remote::{Part, RemoteRef, RemoteSecret},
};
use lockstep_provider::{ErrorKind, ProviderError, StoreKey};

use super::item::Reconcile;
use crate::{fetch::Stores as _, index::store_key};

impl Reconcile {
    /// Releases messages that cannot trigger a sync of this object.
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

    /// Releases messages after a sync whose result is durable, unless the status could not be
    /// written.
    pub(super) fn acknowledge(&self) {
        let settled = self.remember(|tracked, _, _| tracked.memory.retry_at.is_none());
        self.shared.events.end(&self.key, settled);
    }

    /// Handles the messages of a failed sync. They are released if the failure lasts until
    /// something changes; otherwise they wait for the next attempt.
    pub(super) fn release_messages(&self, failure: &Failure) {
        self.shared.events.end(&self.key, hints::settles(failure));
    }

    /// Reads values that may be older than a message again, by the version that the message names.
    /// A false message costs one read in total, not one per object and attempt, because anyone who
    /// can write to the queue may have sent it.
    pub(super) async fn confirm(&self, fetched: &mut Fetched) {
        let mut pins = self.shared.events.pins(&self.key);
        let now = self.shared.clock.now();
        pins.retain(|(_, _, pin)| pin.is_recent(now));
        for (read, message, pin) in doubtful(fetched, &pins, &self.key.namespace) {
            let Ok(provider) = self.stores().provider(&read.store).await else {
                continue;
            };
            let named = RemoteRef::version(read.reference.key.clone(), &pin.version);
            let mut answers = provider.fetch(&self.context(), &[named]).await;
            let (Some(answer), Some(named)) = (fetched.reads.get_mut(&read), answers.pop()) else {
                continue;
            };
            match outcome(answer, named) {
                Confirmed::Newer(named) => *answer = Ok(named),
                Confirmed::Refuted => self.shared.events.refute(message),
                Confirmed::Unknown => {}
            }
        }
    }
}

/// The result of reading the version that a message names.
#[derive(Debug)]
enum Confirmed {
    /// The version is newer than the one read as current.
    Newer(RemoteSecret),
    /// The version does not exist or is not newer.
    Refuted,
    /// The version could not be read now.
    Unknown,
}

fn outcome(
    read: &Result<RemoteSecret, ProviderError>,
    named: Result<RemoteSecret, ProviderError>,
) -> Confirmed {
    match named {
        Ok(named) if Pin::prefers(read, &named) => Confirmed::Newer(named),
        Err(error) if error.kind.is_transient() || error.kind == ErrorKind::RateLimited => Confirmed::Unknown,
        Ok(_) | Err(_) => Confirmed::Refuted,
    }
}

/// Returns the reads whose value may be older than the newest message about it.
fn doubtful(fetched: &Fetched, pins: &[(u64, StoreKey, Pin)], namespace: &str) -> Vec<(Read, u64, Pin)> {
    let newest = |read: &Read| {
        let concern = |(_, store, pin): &&(u64, StoreKey, Pin)| {
            *store == store_key(namespace, &read.store)
                && pin.keys.iter().any(|key| *key == *read.reference.key)
        };
        let pins = pins.iter().filter(concern);
        pins.max_by_key(|(_, _, pin)| pin.at)
    };
    if pins.is_empty() {
        return Vec::new();
    }
    fetched
        .reads
        .iter()
        .filter(|(read, _)| read.reference.version.is_none() && read.reference.part == Part::Value)
        .filter_map(|(read, answer)| {
            let (message, _, pin) = newest(read)?;
            pin.doubts(answer).then(|| (read.clone(), *message, pin.clone()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use lockstep_core::remote::SecretValue;
    use lockstep_provider::Operation;

    use super::*;

    fn version(number: &str) -> RemoteSecret {
        RemoteSecret {
            value: SecretValue::from("value"),
            version: Some(number.to_owned()),
            created: None,
            fresh_for: None,
        }
    }

    fn failed(kind: ErrorKind) -> ProviderError {
        ProviderError::new(kind, Operation::Read, "no")
    }

    #[test]
    fn a_version_is_taken_refuted_or_looked_for_again_by_what_the_source_says_of_it() {
        let read = Ok(version("7"));
        assert!(matches!(outcome(&read, Ok(version("8"))), Confirmed::Newer(_)));
        for older in ["6", "7"] {
            assert!(matches!(outcome(&read, Ok(version(older))), Confirmed::Refuted));
        }
        for kind in [
            ErrorKind::NotFound,
            ErrorKind::PermissionDenied,
            ErrorKind::Malformed,
        ] {
            assert!(
                matches!(outcome(&read, Err(failed(kind))), Confirmed::Refuted),
                "{kind:?}"
            );
        }
        for kind in [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::RateLimited] {
            assert!(
                matches!(outcome(&read, Err(failed(kind))), Confirmed::Unknown),
                "{kind:?}"
            );
        }
    }
}
