//! CRC32C, with which Secret Manager and Cloud KMS prove that bytes arrived unchanged.

pub(crate) use crc32c::crc32c;

/// Returns whether the service sent the checksum of `bytes`. A missing checksum does not match.
pub(crate) fn matches(bytes: &[u8], checksum: Option<i64>) -> bool {
    checksum == Some(i64::from(crc32c(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_match_rfc_3720() {
        // Appendix B.4.
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
    fn missing_or_wrong_checksum_does_not_match() {
        assert!(matches(b"123456789", Some(0xe306_9283)));
        assert!(!matches(b"123456789", Some(0xe306_9282)));
        assert!(!matches(b"123456789", None));
    }
}
