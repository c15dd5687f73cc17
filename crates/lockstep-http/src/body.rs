use std::{fmt, ops::Deref};

use lockstep_provider::room::Room;
use zeroize::Zeroizing;

/// The bytes of an answer, and the room that they take until they are dropped. They are wiped then, and `Debug` tells their
/// number only.
pub struct Body {
    bytes: Zeroizing<Vec<u8>>,
    _room: Room,
}

impl Body {
    pub(crate) fn new(bytes: Zeroizing<Vec<u8>>, room: Room) -> Self {
        Self { bytes, _room: room }
    }
}

impl From<Zeroizing<Vec<u8>>> for Body {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self::new(bytes, Room::default())
    }
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.bytes.len())
    }
}
