use std::{error::Error, fmt};

use lockstep_provider::room::{Room, Share};

use crate::json::{JsonCounter, JsonLimits};

/// The reason why the rest of a body is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// The body exceeds the maximum number of bytes.
    TooLong,
    /// The body exceeds the maximum number of JSON elements.
    TooComplex,
    /// Other responses occupy the memory, and none of them ended in time.
    NoRoom,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the response is too long",
            Self::TooComplex => "the response has too many JSON elements",
            Self::NoRoom => "there is no memory for the answer",
        })
    }
}

impl Error for BodyError {}

/// Limits for the body of one response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimits {
    /// Maximum number of bytes.
    pub bytes: usize,
    /// Limits for the JSON structure, for parsers that build large values from small elements.
    pub json: Option<JsonLimits>,
}

/// Checks the body of one response while it arrives, and reserves memory for it.
#[derive(Debug)]
pub struct BodyMeter {
    bytes: usize,
    expected: usize,
    arrived: usize,
    json: Option<JsonCounter>,
    share: Share,
    room: Room,
}

impl BodyMeter {
    /// Creates a meter for a body. `announced` is the length that the server announced, if any.
    pub fn new(limits: BodyLimits, announced: Option<usize>, share: &Share) -> Self {
        Self {
            bytes: limits.bytes,
            expected: announced.unwrap_or(limits.bytes).min(limits.bytes),
            arrived: 0,
            json: limits.json.map(JsonCounter::new),
            share: share.clone(),
            room: Room::default(),
        }
    }

    /// Admits the next bytes of the body. Waits for memory if the body needs more.
    ///
    /// # Errors
    /// Fails when the rest of the body must not be read. The meter then releases its reservation.
    pub async fn admit(mut self, bytes: &[u8]) -> Result<Self, BodyError> {
        self.arrived = self.arrived.saturating_add(bytes.len());
        if self.arrived > self.bytes {
            return Err(BodyError::TooLong);
        }
        if let Some(json) = &mut self.json {
            json.count(bytes).map_err(|_| BodyError::TooComplex)?;
        }
        let room = self.room.grow(&self.share, self.arrived, self.expected).await;
        self.room = room.ok_or(BodyError::NoRoom)?;
        Ok(self)
    }

    /// Returns the number of bytes that are reserved.
    pub const fn capacity(&self) -> usize {
        self.room.bytes()
    }

    /// Returns the reservation of the body once it has arrived.
    pub fn into_room(self) -> Room {
        self.room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BodyLimits = BodyLimits {
        bytes: 64 * 1024,
        json: Some(JsonLimits {
            containers: 2,
            commas: 10,
            depth: 2,
        }),
    };

    async fn admitted(limits: BodyLimits, chunks: &[&[u8]]) -> Result<usize, BodyError> {
        let mut meter = BodyMeter::new(limits, None, &Share::default());
        for chunk in chunks {
            meter = meter.admit(chunk).await?;
        }
        Ok(meter.capacity())
    }

    #[tokio::test]
    async fn limits_apply_across_chunks() {
        let half = vec![b' '; 32 * 1024];
        assert_eq!(admitted(LIMITS, &[&half, &half]).await, Ok(64 * 1024));
        assert_eq!(
            admitted(LIMITS, &[&half, &half, b" "]).await,
            Err(BodyError::TooLong)
        );
        assert!(admitted(LIMITS, &[b"[{", b"}]"]).await.is_ok());
        assert_eq!(
            admitted(LIMITS, &[b"[{", b"},{}]"]).await,
            Err(BodyError::TooComplex)
        );
        let any = BodyLimits { json: None, ..LIMITS };
        assert!(admitted(any, &[b"[{},{},{}]"]).await.is_ok());
    }

    #[tokio::test]
    async fn capacity_covers_admitted_bytes() {
        let limits = BodyLimits {
            bytes: 1 << 20,
            json: None,
        };
        for announced in [None, Some(0), Some(100_000), Some(usize::MAX)] {
            let mut meter = BodyMeter::new(limits, announced, &Share::default());
            for number in 1..=100 {
                meter = meter.admit(&[0; 1000]).await.unwrap();
                assert!(meter.capacity() >= number * 1000, "{announced:?}");
            }
        }
    }
}
