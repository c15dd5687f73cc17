use std::fmt;

use async_trait::async_trait;
use jiff::Timestamp;
use lockstep_core::hints::Pin;

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

/// One message.
#[derive(Clone)]
pub struct Message {
    /// What names it, and names it still when it is given out again.
    pub id: String,
    /// What acknowledges it; `None` where the source takes no acknowledgements. It is a capability, and is not shown.
    pub receipt: Option<String>,
    /// What it says.
    pub told: Told,
    /// When that happened at the source, where it says so.
    pub at: Option<Timestamp>,
}

/// A receipt lets who has it delete the message.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("told", &self.told)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// What a message says. Nothing of it is believed: it says what to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A value may have changed: every form in which a reference of this store can name it.
    Changed(Vec<String>),
    /// The same, and which version is the current one since.
    Became(Pin),
    /// Any value may have changed: something may have been missed.
    Anything,
    /// Nothing that a reader of this store would see.
    Nothing,
    /// It is none of the events that are understood here.
    Malformed,
}

impl Told {
    /// Every form in which a reference can name what changed.
    pub fn keys(&self) -> &[String] {
        match self {
            Self::Changed(keys) => keys,
            Self::Became(pin) => &pin.keys,
            Self::Anything | Self::Nothing | Self::Malformed => &[],
        }
    }
}
