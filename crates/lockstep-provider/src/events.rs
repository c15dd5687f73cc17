use std::fmt;

use async_trait::async_trait;
use jiff::Timestamp;
use lockstep_core::events::VersionHint;

use crate::ProviderError;

/// A source of change events for a store: a queue or a stream. Only one task at a time consumes it.
#[async_trait]
pub trait EventSource: Send + Sync + fmt::Debug {
    /// Waits for messages. Also returns without messages after a timeout, which depends on the
    /// service and is less than a minute.
    ///
    /// # Errors
    /// Returns the service's error without its text. The consumer retries after a pause.
    async fn receive(&self) -> Result<Vec<Message>, ProviderError>;

    /// Acknowledges messages, so that they are not delivered again. An expired receipt is not an
    /// error.
    ///
    /// # Errors
    /// Returns the service's error without its text. The messages are then delivered again.
    async fn acknowledge(&self, receipts: &[String]) -> Result<(), ProviderError> {
        let _ = receipts;
        Ok(())
    }
}

/// Maximum length of a key or version in a message, in bytes. Names are shorter in every service:
/// an ARN has at most 2,048 bytes.
pub const LONGEST_NAME: usize = 2 << 10;
/// Maximum length of the id or receipt of a message, in bytes. Services use a few hundred.
pub const LONGEST_RECEIPT: usize = 4 << 10;
/// Maximum number of keys in one message. `DeleteParameters` takes ten parameters, which have up to
/// three forms each.
pub const MOST_KEYS: usize = 32;

/// One message of an event source.
#[derive(Clone)]
pub struct Message {
    /// Identifies the message. A redelivery has the same id.
    pub id: String,
    /// Acknowledges the message; `None` if the source needs no acknowledgements. It grants access
    /// to the message and is not shown.
    pub receipt: Option<String>,
    /// What happened, according to the message.
    pub kind: EventKind,
    /// When it happened at the source, if the message contains a time.
    pub at: Option<Timestamp>,
}

impl Message {
    /// Returns the message unchanged, or a malformed one if any part is larger than a service would
    /// send. Anyone who can write to the queue controls the content, and the message is kept in
    /// memory until it is handled.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let names = self.kind.keys().len() <= MOST_KEYS
            && self.kind.keys().iter().all(|key| key.len() <= LONGEST_NAME)
            && match &self.kind {
                EventKind::VersionChanged(hint) => {
                    hint.version.len() <= LONGEST_NAME && hint.read_version.len() <= LONGEST_NAME
                }
                _ => true,
            };
        if self.id.len() > LONGEST_RECEIPT {
            self.id.clear();
            self.kind = EventKind::Malformed;
        }
        if self
            .receipt
            .as_ref()
            .is_some_and(|receipt| receipt.len() > LONGEST_RECEIPT)
        {
            // it is not acknowledged; the queue drops it according to its own settings
            self.receipt = None;
            self.kind = EventKind::Malformed;
        }
        if !names {
            self.kind = EventKind::Malformed;
        }
        self
    }
}

/// The receipt is omitted because its holder can delete the message.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// What happened, according to a message. It only determines what to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// A value may have changed. Contains every form in which a reference of this store can name
    /// it.
    Changed(Vec<String>),
    /// A value may have changed, and this version became the current one.
    VersionChanged(VersionHint),
    /// Any value may have changed, because messages may have been lost.
    Anything,
    /// Nothing changed that a reader of this store can see.
    Irrelevant,
    /// The message is not a known event.
    Malformed,
}

impl EventKind {
    /// Returns every form in which a reference can name the changed value.
    pub fn keys(&self) -> &[String] {
        match self {
            Self::Changed(keys) => keys,
            Self::VersionChanged(hint) => &hint.keys,
            Self::Anything | Self::Irrelevant | Self::Malformed => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: EventKind) -> Message {
        Message {
            id: "1".to_owned(),
            receipt: Some("receipt".to_owned()),
            kind,
            at: None,
        }
    }

    fn keys(count: usize, length: usize) -> EventKind {
        EventKind::Changed(vec!["k".repeat(length); count])
    }

    fn version(version: usize, read_version: usize) -> EventKind {
        EventKind::VersionChanged(VersionHint {
            keys: vec!["key".to_owned()],
            version: "v".repeat(version),
            read_version: "t".repeat(read_version),
            at: None,
        })
    }

    #[test]
    fn message_with_too_many_or_too_long_names_is_malformed() {
        for within in [
            keys(MOST_KEYS, 1),
            keys(1, LONGEST_NAME),
            version(LONGEST_NAME, LONGEST_NAME),
            EventKind::Anything,
        ] {
            assert_eq!(message(within.clone()).bounded().kind, within);
        }
        for beyond in [
            keys(MOST_KEYS + 1, 1),
            keys(1, LONGEST_NAME + 1),
            version(LONGEST_NAME + 1, 1),
            version(1, LONGEST_NAME + 1),
        ] {
            let bounded = message(beyond).bounded();
            assert_eq!(bounded.kind, EventKind::Malformed);
            assert_eq!(bounded.receipt.as_deref(), Some("receipt"), "it is acknowledged");
        }
    }

    #[test]
    fn overlong_ids_and_receipts_are_dropped() {
        let long = "x".repeat(LONGEST_RECEIPT + 1);
        let id = Message {
            id: long.clone(),
            ..message(EventKind::Irrelevant)
        };
        let id = id.bounded();
        assert_eq!((id.kind, id.id.as_str()), (EventKind::Malformed, ""));
        assert!(id.receipt.is_some());
        let receipt = Message {
            receipt: Some(long),
            ..message(keys(1, 1))
        };
        let receipt = receipt.bounded();
        assert_eq!((receipt.kind, receipt.receipt), (EventKind::Malformed, None));
        let within = Message {
            id: "x".repeat(LONGEST_RECEIPT),
            receipt: Some("x".repeat(LONGEST_RECEIPT)),
            ..message(keys(1, 1))
        };
        let within = within.bounded();
        assert_eq!((within.id.len(), within.kind), (LONGEST_RECEIPT, keys(1, 1)));
    }
}
