//! Parses and writes the text of a ciphertext.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::{Binding, Envelope};
use crate::remote::{Ciphertext, SecretValue};

/// The prefix of every ciphertext, before the version.
const NAME: &str = "lockstep:";
/// The version of the format.
const VERSION: &str = "v1:";
const DIRECT: u8 = 1;
/// An envelope whose data key has the binding of a value. The KMS would decrypt it as a value.
const UNBOUND_ENVELOPE: u8 = 2;
const ENVELOPE: u8 = 3;
const PLACE_BYTES: usize = 8;
const CHECK_BYTES: usize = 4;

/// Why a ciphertext cannot be used. The message continues a sentence that starts with "the
/// ciphertext".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CiphertextError {
    /// The text does not have the form of a ciphertext.
    #[error("is none: it must begin with lockstep:v1:, as lockstep seal writes it")]
    NotSealed,
    /// This version of lockstep does not know the version of the format.
    #[error("has a form that this version of lockstep does not know; it knows lockstep:v1:")]
    UnknownVersion,
    /// The ciphertext is incomplete or was changed.
    #[error("is not whole: something of it is missing or was changed")]
    Damaged,
    /// The data key of the envelope is not bound to the envelope.
    #[error("is an envelope in an old form, which lockstep no longer opens")]
    OldEnvelope,
    /// The ciphertext was sealed for another namespace, SyncedSecret, key or scope.
    #[error("was sealed for another place: another namespace, SyncedSecret, secretKey or ciphertextScope")]
    OtherPlace,
    /// The data key does not decrypt the envelope.
    #[error("cannot be opened with the key that the KMS gave out for it")]
    NotOpened,
}

/// A parsed ciphertext.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sealed {
    kms: String,
    place: [u8; PLACE_BYTES],
    wrapped: Vec<u8>,
    envelope: Option<Envelope>,
}

impl Sealed {
    /// Creates the ciphertext of a value that the KMS of this provider encrypted.
    pub fn direct(kms: &str, binding: &Binding, wrapped: Vec<u8>) -> Self {
        Self {
            kms: kms.to_owned(),
            place: binding.digest(),
            wrapped,
            envelope: None,
        }
    }

    /// Creates the ciphertext of a value in an envelope. `wrapped` is its data key, which the KMS
    /// of this provider encrypted with [`Envelope::binding`].
    pub fn envelope(kms: &str, location: &Binding, wrapped: Vec<u8>, envelope: Envelope) -> Self {
        Self {
            envelope: Some(envelope),
            ..Self::direct(kms, location, wrapped)
        }
    }

    /// Parses a ciphertext. White space is ignored, because YAML may fold the text.
    ///
    /// # Errors
    /// `NotSealed`, `UnknownVersion`, `Damaged`, `OldEnvelope`.
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
        match checked(&bytes).and_then(<[u8]>::split_first) {
            Some((&UNBOUND_ENVELOPE, _)) => Err(CiphertextError::OldEnvelope),
            Some((form, bytes)) => Self::from_bytes(*form, bytes).ok_or(CiphertextError::Damaged),
            None => Err(CiphertextError::Damaged),
        }
    }

    fn from_bytes(form: u8, bytes: &[u8]) -> Option<Self> {
        let (length, bytes) = bytes.split_first()?;
        let (kms, bytes) = bytes.split_at_checked(usize::from(*length))?;
        let (place, bytes) = bytes.split_first_chunk::<PLACE_BYTES>()?;
        let (length, bytes) = bytes.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (wrapped, body) = bytes.split_at_checked(length)?;
        let envelope = match form {
            DIRECT if body.is_empty() => None,
            ENVELOPE => Some(Envelope::from_bytes(body)),
            _ => return None,
        };
        Some(Self {
            kms: String::from_utf8(kms.to_vec()).ok()?,
            place: *place,
            wrapped: wrapped.to_vec(),
            envelope,
        })
    }

    /// Returns the provider whose KMS encrypted the ciphertext.
    pub fn kms(&self) -> &str {
        &self.kms
    }

    /// Returns the request for the KMS, if the ciphertext was sealed for this location.
    ///
    /// # Errors
    /// `OtherPlace`.
    pub fn ciphertext(&self, location: Binding) -> Result<Ciphertext, CiphertextError> {
        if self.place != location.digest() {
            return Err(CiphertextError::OtherPlace);
        }
        Ok(Ciphertext {
            bytes: self.wrapped.clone(),
            binding: match &self.envelope {
                Some(envelope) => envelope.binding(location),
                None => location,
            },
        })
    }

    /// Returns the value from the plaintext that the KMS returned.
    ///
    /// # Errors
    /// `NotOpened` if this is an envelope and the plaintext is not its data key.
    pub fn open(&self, decrypted: &SecretValue, location: &Binding) -> Result<SecretValue, CiphertextError> {
        match &self.envelope {
            Some(envelope) => envelope
                .open(decrypted, location)
                .ok_or(CiphertextError::NotOpened),
            None => Ok(decrypted.clone()),
        }
    }
}

/// Returns the bytes without their checksum, if it matches.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (bytes, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
    (Sha256::digest(bytes).get(..CHECK_BYTES)? == check).then_some(bytes)
}

/// Writes the text as it appears in YAML.
impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![if self.envelope.is_some() { ENVELOPE } else { DIRECT }];
        // the name of a provider is short
        bytes.push(u8::try_from(self.kms.len()).map_err(|_| fmt::Error)?);
        bytes.extend_from_slice(self.kms.as_bytes());
        bytes.extend_from_slice(&self.place);
        let length = u32::try_from(self.wrapped.len()).map_err(|_| fmt::Error)?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&self.wrapped);
        bytes.extend_from_slice(self.envelope.as_ref().map_or(&[], Envelope::as_bytes));
        let check = Sha256::digest(&bytes);
        bytes.extend(check.iter().take(CHECK_BYTES));
        write!(f, "{NAME}{VERSION}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}
