//! The text of a ciphertext, and envelopes.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Binding;
use crate::remote::{Ciphertext, SecretValue};

/// What every ciphertext begins with, but for the version.
const NAME: &str = "lockstep:";
/// The version of the form.
const VERSION: &str = "v1:";
const DIRECT: u8 = 1;
const ENVELOPE: u8 = 2;
const PLACE_BYTES: usize = 8;
const CHECK_BYTES: usize = 4;
/// How long the key of an envelope is.
pub const DATA_KEY_BYTES: usize = 32;
/// How long the nonce of an envelope is. A key encrypts one envelope and no other.
pub const NONCE_BYTES: usize = 12;

/// Why a ciphertext cannot be used. The sentence goes on after "the ciphertext".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CiphertextError {
    /// It does not look like one.
    #[error("is none: it must begin with lockstep:v1:, as lockstep seal writes it")]
    NotSealed,
    /// A form that this version does not know.
    #[error("has a form that this version of lockstep does not know; it knows lockstep:v1:")]
    UnknownVersion,
    /// Something is missing, or was changed.
    #[error("is not whole: something of it is missing or was changed")]
    Damaged,
    /// It was sealed for another namespace, SyncedSecret, key or scope.
    #[error("was sealed for another place: another namespace, SyncedSecret, secretKey or ciphertextScope")]
    OtherPlace,
    /// The key does not open the envelope.
    #[error("cannot be opened with the key that the KMS gave out for it")]
    NotOpened,
}

/// A ciphertext, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sealed {
    kms: String,
    place: [u8; PLACE_BYTES],
    wrapped: Vec<u8>,
    body: Option<Vec<u8>>,
}

impl Sealed {
    /// A value that the KMS of that provider encrypted.
    pub fn direct(kms: &str, binding: &Binding, wrapped: Vec<u8>) -> Self {
        Self {
            kms: kms.to_owned(),
            place: binding.digest(),
            wrapped,
            body: None,
        }
    }

    /// A value in an envelope. `wrapped` is `key`, encrypted by the KMS of that provider; `key` and `nonce` are random, and
    /// used once.
    ///
    /// # Errors
    /// `NotOpened` where the cipher refuses, which it does for values of gigabytes.
    pub fn envelope(
        kms: &str,
        binding: &Binding,
        wrapped: Vec<u8>,
        value: &SecretValue,
        key: &[u8; DATA_KEY_BYTES],
        nonce: [u8; NONCE_BYTES],
    ) -> Result<Self, CiphertextError> {
        let refused = |_| CiphertextError::NotOpened;
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).map_err(refused)?);
        let mut text = Zeroizing::new(value.expose().to_vec());
        let tag = cipher
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(binding.to_bytes()),
                text.as_mut_slice(),
            )
            .map_err(refused)?;
        let mut body = nonce.to_vec();
        body.extend_from_slice(&text);
        body.extend_from_slice(tag.as_ref());
        Ok(Self {
            body: Some(body),
            ..Self::direct(kms, binding, wrapped)
        })
    }

    /// Reads a ciphertext; white space in it is passed over, as YAML may fold it.
    ///
    /// # Errors
    /// `NotSealed`, `UnknownVersion`, `Damaged`.
    pub fn parse(text: &str) -> Result<Self, CiphertextError> {
        let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let rest = text.strip_prefix(NAME).ok_or(CiphertextError::NotSealed)?;
        let Some(encoded) = rest.strip_prefix(VERSION) else {
            let versioned = rest.split_once(':').is_some_and(|(version, _)| {
                version
                    .strip_prefix('v')
                    .is_some_and(|number| number.parse::<u32>().is_ok())
            });
            return Err(if versioned {
                CiphertextError::UnknownVersion
            } else {
                CiphertextError::NotSealed
            });
        };
        let bytes = URL_SAFE_NO_PAD
            .decode(encoded)
            .map_err(|_| CiphertextError::Damaged)?;
        Self::from_bytes(&bytes).ok_or(CiphertextError::Damaged)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (bytes, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
        if Sha256::digest(bytes).get(..CHECK_BYTES)? != check {
            return None;
        }
        let (form, bytes) = bytes.split_first()?;
        let (length, bytes) = bytes.split_first()?;
        let (kms, bytes) = bytes.split_at_checked(usize::from(*length))?;
        let (place, bytes) = bytes.split_first_chunk::<PLACE_BYTES>()?;
        let (length, bytes) = bytes.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (wrapped, body) = bytes.split_at_checked(length)?;
        let body = match *form {
            DIRECT if body.is_empty() => None,
            ENVELOPE => Some(body.to_vec()),
            _ => return None,
        };
        Some(Self {
            kms: String::from_utf8(kms.to_vec()).ok()?,
            place: *place,
            wrapped: wrapped.to_vec(),
            body,
        })
    }

    /// The provider whose KMS encrypted it.
    pub fn kms(&self) -> &str {
        &self.kms
    }

    /// What the KMS has to decrypt, when this belongs there.
    ///
    /// # Errors
    /// `OtherPlace`.
    pub fn ciphertext(&self, binding: Binding) -> Result<Ciphertext, CiphertextError> {
        if self.place != binding.digest() {
            return Err(CiphertextError::OtherPlace);
        }
        Ok(Ciphertext {
            bytes: self.wrapped.clone(),
            binding,
        })
    }

    /// The value, from what the KMS decrypted.
    ///
    /// # Errors
    /// `NotOpened` when it is an envelope, and that is not its key.
    pub fn open(&self, decrypted: &SecretValue, binding: &Binding) -> Result<SecretValue, CiphertextError> {
        let Some(body) = &self.body else {
            return Ok(decrypted.clone());
        };
        let open = || {
            let (nonce, text) = body.split_first_chunk::<NONCE_BYTES>()?;
            let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, decrypted.expose()).ok()?);
            let mut text = Zeroizing::new(text.to_vec());
            let aad = Aad::from(binding.to_bytes());
            let value = cipher
                .open_in_place(Nonce::assume_unique_for_key(*nonce), aad, text.as_mut_slice())
                .ok()?;
            Some(SecretValue::new(&*value))
        };
        open().ok_or(CiphertextError::NotOpened)
    }
}

/// The text, as it stands in YAML.
impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![if self.body.is_some() { ENVELOPE } else { DIRECT }];
        // a provider's name is a word
        bytes.push(u8::try_from(self.kms.len()).map_err(|_| fmt::Error)?);
        bytes.extend_from_slice(self.kms.as_bytes());
        bytes.extend_from_slice(&self.place);
        let length = u32::try_from(self.wrapped.len()).map_err(|_| fmt::Error)?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&self.wrapped);
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        let check = Sha256::digest(&bytes);
        bytes.extend(check.iter().take(CHECK_BYTES));
        write!(f, "{NAME}{VERSION}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}
