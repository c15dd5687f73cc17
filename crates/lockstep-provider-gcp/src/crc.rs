//! CRC32C (Castagnoli), with which Secret Manager and Cloud KMS tell that bytes arrived as they left.

/// The polynomial of RFC 3720, section 12.1, reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

const TABLE: [u32; 256] = table();

#[expect(clippy::cast_possible_truncation, reason = "the index ends at 255")]
#[expect(clippy::indexing_slicing, reason = "the index ends at 255")]
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = (value >> 1) ^ (POLYNOMIAL * (value & 1));
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

/// The checksum of these bytes.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        let [low, ..] = (crc ^ u32::from(*byte)).to_le_bytes();
        let entry = TABLE.get(usize::from(low)).copied().unwrap_or_default();
        (crc >> 8) ^ entry
    })
}

/// Whether a service said this checksum of these bytes. It says none where it knows none, which is not enough.
pub(crate) fn matches(bytes: &[u8], said: Option<i64>) -> bool {
    said == Some(i64::from(crc32c(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksums_are_those_of_rfc_3720() {
        // appendix B.4
        let ascending: Vec<u8> = (0..32).collect();
        for (bytes, want) in [
            (&[0; 32][..], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
            (b"123456789", 0xe306_9283),
            (b"", 0),
        ] {
            assert_eq!(crc32c(bytes), want);
        }
    }

    #[test]
    fn a_checksum_that_is_missing_or_another_is_none() {
        assert!(matches(b"123456789", Some(0xe306_9283)));
        assert!(!matches(b"123456789", Some(0xe306_9282)));
        assert!(!matches(b"123456789", None));
    }
}
