use std::{fmt, ops::Deref};

use lockstep_provider::room::Room;
use zeroize::Zeroizing;

/// The bytes of a response body, with the memory reservation that they hold until they are dropped.
/// The bytes are wiped on drop, and `Debug` shows only their length.
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
