//! Encrypts values that a KMS cannot: long values and empty ones.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::Binding;
use crate::remote::SecretValue;

/// Length of a data key in bytes.
pub const DATA_KEY_BYTES: usize = 32;
/// Length of a nonce in bytes. Each data key encrypts only one envelope.
pub const NONCE_BYTES: usize = 12;

/// A value encrypted with a data key: the nonce, the AES-256-GCM ciphertext and the tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Envelope(Vec<u8>);

impl Envelope {
    /// Encrypts a value for its location. `key` and `nonce` are random, and are used once. Returns
    /// `None` if the cipher rejects the value, which happens at gigabytes.
    pub fn seal(
        value: &SecretValue,
        key: &[u8; DATA_KEY_BYTES],
        nonce: [u8; NONCE_BYTES],
        location: &Binding,
    ) -> Option<Self> {
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
        let mut text = Zeroizing::new(value.expose().to_vec());
        let tag = cipher
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(location.to_bytes()),
                text.as_mut_slice(),
            )
            .ok()?;
        let mut bytes = nonce.to_vec();
        bytes.extend_from_slice(&text);
        bytes.extend_from_slice(tag.as_ref());
        Some(Self(bytes))
    }

    /// Returns the binding that the KMS authenticates with the data key of this envelope.
    pub fn binding(&self, location: Binding) -> Binding {
        location.of_data_key(&self.0)
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Decrypts the value. Returns `None` if the key or the location is wrong.
    pub(super) fn open(&self, key: &SecretValue, location: &Binding) -> Option<SecretValue> {
        let (nonce, text) = self.0.split_first_chunk::<NONCE_BYTES>()?;
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.expose()).ok()?);
        let mut text = Zeroizing::new(text.to_vec());
        let aad = Aad::from(location.to_bytes());
        let value = cipher
            .open_in_place(Nonce::assume_unique_for_key(*nonce), aad, text.as_mut_slice())
            .ok()?;
        Some(SecretValue::new(&*value))
    }
}
