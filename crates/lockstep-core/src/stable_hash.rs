//! A hash for names that outlive the process, over explicit bytes.

/// FNV-1a with 64 bits, the same in every version and on every machine. It is not suitable for
/// secrets.
#[derive(Debug, Clone)]
pub struct StableHash(u64);

impl Default for StableHash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl StableHash {
    fn bytes(mut self, bytes: &[u8]) -> Self {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self
    }

    /// Adds a text: its UTF-8 bytes and the byte `0xff`, which separates it from the next one.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes()).bytes(&[0xff])
    }

    /// Adds a number: its 8 bytes, the least significant first.
    #[must_use]
    pub fn number(self, number: i64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    /// Returns the upper 32 bits of the hash, as 8 hexadecimal digits.
    pub fn finish(self) -> String {
        format!("{:08x}", self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of Jobs and annotations in clusters depend on these values.
    #[test]
    fn hashes_are_stable() {
        assert_eq!(StableHash::default().text("database").finish(), "1073f1c0");
        let job = StableHash::default()
            .text("uid")
            .text("r1")
            .text("2026-01-01T00:00:00Z")
            .number(2)
            .number(1);
        assert_eq!(job.finish(), "6db483df");
    }
}
