//! Rejects values that are older than those that were written.

use std::time::Duration;

use jiff::Timestamp;
use lockstep_api::{SourceStatus, annotation};

use super::run::Run;
use crate::{
    Failure,
    collect::Fetched,
    plan::Read,
    remote::{ErrorKind, Part, RemoteSecret},
    time::later,
};

/// How long a value with an earlier version than the one in the status is rejected. A server that
/// lags behind, such as a standby, catches up by then. If an administrator restored a backup, it is
/// the current value.
const STALE: Duration = Duration::from_mins(10);

impl Run {
    /// Rejects current values whose versions are earlier than those in the status. Otherwise a
    /// server that lags behind would roll the Secret back after a rotation.
    pub(super) fn reject_stale(&mut self, fetched: &Fetched) -> Result<(), Failure> {
        let sources = self
            .status
            .as_deref()
            .map(|status| &*status.sources)
            .unwrap_or_default();
        let stale = fetched.reads.iter().find_map(|(read, answer)| {
            let secret = answer.as_ref().ok()?;
            let recorded = sources.iter().find(|source| is_current(read, source))?;
            is_older(secret, recorded).then(|| {
                let version = |version: &Option<String>| version.clone().unwrap_or_default();
                format!(
                    "{}: key \"{}\": the store returned version {}, but version {} was written before",
                    read.store,
                    read.reference.key,
                    version(&secret.version),
                    version(&recorded.version)
                )
            })
        });
        let Some(stale) = stale else {
            self.memory.stale_since = None;
            return Ok(());
        };
        let now = self.moment().steady;
        let until = later(*self.memory.stale_since.get_or_insert(now), STALE);
        if self.observed().is_rotation_requested() || now >= until {
            return Ok(());
        }
        let message = format!(
            "{stale}. Maybe a replica lags behind. lockstep writes the earlier version only if the store still returns it after 10 minutes, or with the annotation {}",
            annotation::ROTATE_NOW
        );
        let kind = ErrorKind::Unavailable;
        Err(Failure::new(kind.reason(), message).requeued(kind.requeue()))
    }
}

/// Whether a read is the one of the current value of a source.
pub(super) fn is_current(read: &Read, source: &SourceStatus) -> bool {
    let reference = &read.reference;
    source.store == read.store
        && *source.key == *reference.key
        && reference.version.is_none()
        && reference.part == Part::Value
}

/// Whether the version is an earlier one of the same value. A value that was deleted and created
/// again begins with the first version, but it was created later, if the store tells when. Versions
/// that are no numbers have no order: AWS moves the label of the current version back and forth.
fn is_older(secret: &RemoteSecret, recorded: &SourceStatus) -> bool {
    let created: Option<(Timestamp, Timestamp)> = secret.created.zip(recorded.created_time);
    numbers(secret, recorded).is_some_and(|(read, written)| read < written)
        && created.is_none_or(|(read, written)| read <= written)
}

/// Returns the versions of a value and of the source in the status, if both are numbers.
pub(super) fn numbers(secret: &RemoteSecret, recorded: &SourceStatus) -> Option<(u64, u64)> {
    let number = |version: &Option<String>| version.as_ref()?.parse::<u64>().ok();
    number(&secret.version).zip(number(&recorded.version))
}

#[cfg(test)]
mod tests {
    use lockstep_api::{StoreKind, StoreRef};

    use super::*;
    use crate::remote::SecretValue;

    #[test]
    fn earlier_number_is_older_unless_it_was_created_later() {
        let at = |second: Option<i64>| second.map(|second| Timestamp::from_second(second).unwrap());
        for (read, written, is_expected) in [
            (("4", Some(10)), ("5", Some(20)), true),
            (("4", Some(20)), ("5", Some(20)), true),
            (("1", Some(30)), ("5", Some(20)), false),
            (("5", Some(20)), ("5", Some(20)), false),
            (("6", None), ("5", None), false),
            // Google does not tell when a version was created
            (("4", None), ("5", None), true),
            (("9", None), ("10", Some(20)), true),
            (("uuid/4", Some(10)), ("uuid/5", Some(20)), false),
        ] {
            let secret = RemoteSecret {
                value: SecretValue::from("x"),
                version: Some(read.0.to_owned()),
                created: at(read.1),
                fresh_for: None,
            };
            let recorded = SourceStatus {
                store: StoreRef {
                    name: "vault".to_owned(),
                    kind: StoreKind::SecretStore,
                },
                key: "a".to_owned(),
                version: Some(written.0.to_owned()),
                created_time: at(written.1),
            };
            assert_eq!(is_older(&secret, &recorded), is_expected, "{read:?} {written:?}");
        }
    }
}
