//! CRC32C (Castagnoli), bit by bit, as in RFC 3720.

use serde_json::Value;

use super::Refusal;

/// The polynomial with its bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |mut register, byte| {
        register ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = register & 1;
            register = (register >> 1) ^ (POLYNOMIAL & carry.wrapping_neg());
        }
        register
    })
}

/// Verifies the checksum in a request, which is a number or a decimal string. Returns whether there
/// is one.
pub(super) fn check(bytes: &[u8], request: &Value, field: &'static str) -> Result<bool, Refusal> {
    let said = match &request[field] {
        Value::Null => return Ok(false),
        Value::String(text) => text.parse().ok(),
        other => other.as_i64(),
    };
    if said == Some(i64::from(crc32c(bytes))) {
        Ok(true)
    } else {
        Err(Refusal::invalid(format!(
            "{field} does not match the data CANARY"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_match_the_published_values() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }
}
