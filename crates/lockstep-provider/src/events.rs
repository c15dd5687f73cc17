use std::fmt;

use async_trait::async_trait;
use jiff::Timestamp;
use lockstep_core::events::VersionHint;

use crate::ProviderError;

/// Where a store hears of changes: a queue, or a stream. One task at a time listens to it.
#[async_trait]
pub trait EventSource: Send + Sync + fmt::Debug {
    /// Waits for messages. It comes back after a while also where there are none; that while is what the service allows,
    /// and less than a minute.
    ///
    /// # Errors
    /// What the service says, in words of ours. Whoever listens tries again after a pause.
    async fn receive(&self) -> Result<Vec<Message>, ProviderError>;

    /// Acknowledges messages: they are not given out again. A receipt that is no longer good is no error.
    ///
    /// # Errors
    /// What the service says, in words of ours. The messages are then given out again.
    async fn acknowledge(&self, receipts: &[String]) -> Result<(), ProviderError> {
        let _ = receipts;
        Ok(())
    }
}

/// The longest key and version of a message, in bytes: the names of every service are shorter, an ARN has at most 2,048.
pub const LONGEST_NAME: usize = 2 << 10;
/// The longest id and receipt of a message, in bytes. Those of the services have some hundred.
pub const LONGEST_RECEIPT: usize = 4 << 10;
/// The most keys of one message. `DeleteParameters` takes ten parameters, which have up to three forms each.
pub const MOST_KEYS: usize = 32;

/// One message.
#[derive(Clone)]
pub struct Message {
    /// What names it, and names it still when it is given out again.
    pub id: String,
    /// What acknowledges it; `None` where the source takes no acknowledgements. It is a capability, and is not shown.
    pub receipt: Option<String>,
    /// What happened, according to the message.
    pub kind: EventKind,
    /// When that happened at the source, where it says so.
    pub at: Option<Timestamp>,
}

impl Message {
    /// The same, or, where something in it is larger than anything that a service makes, a malformed one: what a message
    /// says is anybody's who can write to its queue, and is remembered until it is dealt with.
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
            // it is not acknowledged, and its queue drops it in its own time
            self.receipt = None;
            self.kind = EventKind::Malformed;
        }
        if !names {
            self.kind = EventKind::Malformed;
        }
        self
    }
}

/// A receipt lets who has it delete the message.
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
    /// A value may have changed. Contains every form in which a reference of this store can name it.
    Changed(Vec<String>),
    /// A value may have changed, and this version became the current one.
    VersionChanged(VersionHint),
    /// Any value may have changed, because messages may have been lost.
    Anything,
    /// Nothing changed that a reader of this store can see.
    Nothing,
    /// The message is not a known event.
    Malformed,
}

impl EventKind {
    /// Returns every form in which a reference can name the changed value.
    pub fn keys(&self) -> &[String] {
        match self {
            Self::Changed(keys) => keys,
            Self::VersionChanged(hint) => &hint.keys,
            Self::Anything | Self::Nothing | Self::Malformed => &[],
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
    fn a_message_with_more_or_longer_names_than_any_service_has_is_malformed() {
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
    fn an_id_or_a_receipt_that_no_service_makes_is_not_kept() {
        let long = "x".repeat(LONGEST_RECEIPT + 1);
        let id = Message {
            id: long.clone(),
            ..message(EventKind::Nothing)
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
