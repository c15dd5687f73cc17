//! Decodes remote values with `decodingStrategy`.

use base64::{
    Engine,
    alphabet::{self, Alphabet},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use lockstep_api::DecodingStrategy;

use crate::remote::SecretValue;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: Alphabet = alphabet::STANDARD;
const URL_SAFE: Alphabet = alphabet::URL_SAFE;

/// The error of [`decode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The value is not standard base64.
    #[error("the value is not standard base64, which decodingStrategy: Base64 requires")]
    NotBase64,
    /// The value is not URL-safe base64.
    #[error("the value is not URL-safe base64, which decodingStrategy: Base64URL requires")]
    NotBase64Url,
}

/// Decodes a value. Padding is optional, and white space is ignored.
///
/// `Auto` decodes standard or URL-safe base64 with full padding, and returns everything else
/// unchanged. It guesses: plain text such as `password` or `deadbeef` is valid base64 and is
/// decoded. Use another strategy if the encoding is known.
///
/// # Errors
///
/// When the value does not have the encoding of the strategy. `None` and `Auto` never fail.
pub fn decode(strategy: DecodingStrategy, value: &SecretValue) -> Result<SecretValue, DecodeError> {
    match strategy {
        DecodingStrategy::None => Ok(value.clone()),
        DecodingStrategy::Base64 => base64(&STANDARD, value.expose()).ok_or(DecodeError::NotBase64),
        DecodingStrategy::Base64Url => base64(&URL_SAFE, value.expose()).ok_or(DecodeError::NotBase64Url),
        DecodingStrategy::Auto => Ok(auto(value)),
    }
}

fn auto(value: &SecretValue) -> SecretValue {
    let bytes = without_space(value.expose());
    if bytes.is_empty() || !bytes.len().is_multiple_of(4) {
        return value.clone();
    }
    base64(&STANDARD, &bytes)
        .or_else(|| base64(&URL_SAFE, &bytes))
        .unwrap_or_else(|| value.clone())
}

fn base64(alphabet: &Alphabet, bytes: &[u8]) -> Option<SecretValue> {
    GeneralPurpose::new(alphabet, LENIENT)
        .decode(without_space(bytes))
        .ok()
        .map(SecretValue::new)
}

fn without_space(bytes: &[u8]) -> Vec<u8> {
    bytes
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect()
}
