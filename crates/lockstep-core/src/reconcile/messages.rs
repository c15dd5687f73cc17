//! Reads values again that may be older than a message about them.

use super::{
    effect::{MessageStep, SourcesRead, VersionMessage},
    run::Run,
};
use crate::{
    collect::Fetched,
    hints::Pin,
    plan::Read,
    remote::{ErrorKind, Part, ProviderError, RemoteRef, RemoteSecret},
};

impl Run {
    /// Reads values that may be older than a message again, by the version that the message names.
    /// A false message costs one read in total, not one per object and attempt, because anyone who
    /// can write to the queue may have sent it.
    pub(super) async fn confirm(&self, read: &mut SourcesRead) {
        let now = self.moment().wall;
        read.messages.retain(|message| message.pin.is_recent(now));
        for (doubtful, message, pin) in doubtful(&read.fetched, &read.messages) {
            let named = RemoteRef::version(doubtful.reference.key.clone(), &pin.version);
            let named = self.effects.read_version((doubtful.store.clone(), named)).await;
            let Some(answer) = read.fetched.reads.get_mut(&doubtful) else {
                continue;
            };
            match outcome(answer, named) {
                Confirmed::Newer(named) => *answer = Ok(*named),
                Confirmed::Refuted => self.effects.messages(MessageStep::Refute(message)).await,
                Confirmed::Unknown => {}
            }
        }
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
        Ok(named) if Pin::prefers(read, &named) => Confirmed::Newer(Box::new(named)),
        Err(error) if error.kind.is_transient() || error.kind == ErrorKind::RateLimited => Confirmed::Unknown,
        Ok(_) | Err(_) => Confirmed::Refuted,
    }
}

/// Returns the reads whose value may be older than the newest message about it.
fn doubtful(fetched: &Fetched, messages: &[VersionMessage]) -> Vec<(Read, u64, Pin)> {
    let newest = |read: &Read| {
        let concerns = |message: &&VersionMessage| {
            message.store == read.store && message.pin.keys.iter().any(|key| *key == *read.reference.key)
        };
        messages
            .iter()
            .filter(concerns)
            .max_by_key(|message| message.pin.at)
    };
    if messages.is_empty() {
        return Vec::new();
    }
    fetched
        .reads
        .iter()
        .filter(|(read, _)| read.reference.version.is_none() && read.reference.part == Part::Value)
        .filter_map(|(read, answer)| {
            let VersionMessage { number, pin, .. } = newest(read)?;
            pin.doubts(answer).then(|| (read.clone(), *number, pin.clone()))
        })
        .collect()
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
