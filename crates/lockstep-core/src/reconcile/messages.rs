//! Reads values again that may be older than a message about them.

use std::cmp::Reverse;

use super::{
    effect::{MessageStep, SourcesRead, VersionMessage},
    run::Run,
    stale::numbers,
};
use crate::{
    collect::Fetched,
    events::{MAX_CONFIRMED, VersionHint},
    plan::Read,
    remote::{ErrorKind, Operation, Part, ProviderError, RemoteRef, RemoteSecret},
};

impl Run {
    /// Reads values that may be older than a message again, by the version that the message names.
    /// A false message costs one read in total, not one per object and attempt, because anyone who
    /// can write to the queue may have sent it.
    pub(super) async fn confirm(&mut self, read: &mut SourcesRead) {
        let now = self.moment().wall;
        read.messages.retain(|message| message.hint.is_recent(now));
        // the newest message first
        read.messages.sort_by_key(|message| Reverse(message.hint.at));
        for current in concerned_reads(&read.fetched, &read.messages) {
            let Some(answer) = read.fetched.reads.get_mut(&current) else {
                continue;
            };
            let about = read.messages.iter().filter(|message| concerns(message, &current));
            for (count, VersionMessage { number, hint, .. }) in about.enumerate() {
                if !hint.doubts(answer) {
                    continue;
                }
                if count >= MAX_CONFIRMED {
                    self.has_unconfirmed = true;
                    break;
                }
                let named = RemoteRef::version(current.reference.key.clone(), &hint.version);
                let named = self.effects.read_version((current.store.clone(), named)).await;
                let named = named.and_then(|named| self.not_older_than_recorded(&current, answer, named));
                match outcome(answer, named) {
                    Confirmed::Newer(named) => *answer = Ok(*named),
                    Confirmed::Refuted => self.effects.messages(MessageStep::Refute(*number)).await,
                    Confirmed::Unknown => {
                        self.has_unconfirmed = true;
                        break;
                    }
                }
            }
        }
    }
}

impl Run {
    /// Accepts a version of a value that does not exist at the moment only if it is newer than the
    /// one in the status. Otherwise a false message would bring an older version of a deleted value
    /// back.
    fn not_older_than_recorded(
        &self,
        read: &Read,
        answer: &Result<RemoteSecret, ProviderError>,
        named: RemoteSecret,
    ) -> Result<RemoteSecret, ProviderError> {
        let sources = self.status.iter().flat_map(|status| &status.sources);
        let mut recorded =
            sources.filter(|source| source.store == read.store && *source.key == *read.reference.key);
        let (Err(_), Some(recorded)) = (answer, recorded.next()) else {
            return Ok(named);
        };
        let is_newer = numbers(&named, recorded).map_or_else(
            || {
                let times = recorded.created_time.zip(named.created);
                times.is_some_and(|(recorded, named)| named > recorded)
            },
            |(named, recorded)| named > recorded,
        );
        if is_newer {
            return Ok(named);
        }
        let message = "the version is not newer than the one that was written";
        Err(ProviderError::new(ErrorKind::NotFound, Operation::Read, message))
    }
}

/// The result of reading the version that a message names.
#[derive(Debug)]
enum Confirmed {
    /// The version is newer than the one read as current.
    Newer(Box<RemoteSecret>),
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
        Ok(named) if VersionHint::prefers(read, &named) => Confirmed::Newer(Box::new(named)),
        Err(error) if error.kind.is_transient() || error.kind == ErrorKind::RateLimited => Confirmed::Unknown,
        Ok(_) | Err(_) => Confirmed::Refuted,
    }
}

fn concerns(message: &VersionMessage, read: &Read) -> bool {
    message.store == read.store && message.hint.keys.iter().any(|key| *key == *read.reference.key)
}

/// Returns the reads of current values that messages are about.
fn concerned_reads(fetched: &Fetched, messages: &[VersionMessage]) -> Vec<Read> {
    let is_current = |read: &&Read| read.reference.version.is_none() && read.reference.part == Part::Value;
    let is_concerned = |read: &&Read| messages.iter().any(|message| concerns(message, read));
    if messages.is_empty() {
        return Vec::new();
    }
    let reads = fetched.reads.keys().filter(is_current).filter(is_concerned);
    reads.cloned().collect()
}

#[cfg(test)]
mod tests {
    use crate::remote::{Operation, SecretValue};

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
    fn answer_of_the_source_decides_whether_a_message_is_true() {
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
