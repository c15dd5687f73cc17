//! Computes keyed hashes of the inputs of a Secret.
//!
//! The key is generated at install and never leaves the cluster. A fingerprint in a status
//! therefore reveals nothing about a value, even to someone who can guess the value.

use std::{collections::BTreeMap, fmt};

use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::remote::SecretValue;

/// The key of all fingerprints, at least 32 random bytes.
#[derive(Clone)]
pub struct FingerprintKey(Zeroizing<Vec<u8>>);

/// The error of a key with fewer than 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the fingerprint key is shorter than 32 bytes")]
pub struct KeyTooShort;

impl FingerprintKey {
    /// Creates a key from random bytes.
    ///
    /// # Errors
    /// When there are fewer than 32 bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, KeyTooShort> {
        let bytes = Zeroizing::new(bytes.into());
        if bytes.len() < 32 {
            Err(KeyTooShort)
        } else {
            Ok(Self(bytes))
        }
    }

    /// Starts a hash for one purpose. Hashes for different purposes are never equal.
    pub fn hash(&self, purpose: &str) -> Hasher {
        // HMAC accepts keys of any length, so this cannot fail
        let mac = Hmac::<Sha256>::new_from_slice(&self.0).ok();
        let mut hasher = Hasher(mac);
        hasher.field(purpose.as_bytes());
        hasher
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey")
    }
}

/// A keyed hash that is not finished. The length of each field is hashed too, so different lists of
/// fields have different hashes.
pub struct Hasher(Option<Hmac<Sha256>>);

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

impl Hasher {
    /// Adds a field.
    pub fn field(&mut self, bytes: &[u8]) -> &mut Self {
        if let Some(mac) = &mut self.0 {
            mac.update(&(bytes.len() as u64).to_be_bytes());
            mac.update(bytes);
        }
        self
    }

    /// Adds the keys and values of a map, and their number.
    pub fn values(&mut self, values: &BTreeMap<String, SecretValue>) -> &mut Self {
        self.field(&(values.len() as u64).to_be_bytes());
        for (key, value) in values {
            self.field(key.as_bytes()).field(value.expose());
        }
        self
    }

    /// Whether `text` is the complete hash in hexadecimal digits. The comparison takes constant
    /// time.
    pub fn verify(self, text: &str) -> bool {
        let digits = text.as_bytes().chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        });
        let bytes: Option<Vec<u8>> = digits.collect();
        match (self.0, bytes) {
            (Some(mac), Some(bytes)) => mac.verify_slice(&bytes).is_ok(),
            _ => false,
        }
    }

    /// Returns the hash as `length` hexadecimal digits, at most 64.
    pub fn finish(self, length: usize) -> String {
        let mut text = String::with_capacity(64);
        if let Some(mac) = self.0 {
            for byte in mac.finalize().into_bytes() {
                for digit in [byte >> 4, byte & 15] {
                    text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
                }
            }
        }
        text.truncate(length);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> FingerprintKey {
        FingerprintKey::new(vec![byte; 32]).unwrap()
    }

    fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, SecretValue> {
        pairs
            .iter()
            .map(|(k, v)| (k.to_string(), SecretValue::from(*v)))
            .collect()
    }

    fn hash(key: &FingerprintKey, purpose: &str, pairs: &[(&str, &str)]) -> String {
        let mut hasher = key.hash(purpose);
        hasher.values(&values(pairs));
        hasher.finish(64)
    }

    #[test]
    fn only_equal_inputs_have_equal_hashes() {
        let one = hash(&key(1), "a", &[("x", "1")]);
        assert_eq!(one, hash(&key(1), "a", &[("x", "1")]));
        assert_eq!(one.len(), 64);
        for other in [
            hash(&key(2), "a", &[("x", "1")]),
            hash(&key(1), "b", &[("x", "1")]),
            hash(&key(1), "a", &[("x", "2")]),
            hash(&key(1), "a", &[("x1", "")]),
            hash(&key(1), "a", &[("x", "1"), ("y", "")]),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn only_the_complete_hash_verifies() {
        let mac = |byte: u8| key(byte).hash("lease");
        let right = mac(1).finish(64);
        assert!(mac(1).verify(&right));
        assert!(!mac(2).verify(&right));
        for wrong in [
            "",
            "00",
            &right[..62],
            &format!("{right}00"),
            &right.replace(&right[..2], "+1"),
            "zz",
            "ä",
        ] {
            assert!(!mac(1).verify(wrong), "{wrong}");
        }
    }

    #[test]
    fn short_key_is_rejected() {
        assert!(FingerprintKey::new(vec![0; 31]).is_err());
    }
}
