//! Encrypts a value and returns the text of its ciphertext.

use std::time::Duration;

use lockstep_core::{
    assemble::MAX_SECRET_BYTES,
    ciphertext::{Binding, DATA_KEY_BYTES, Envelope, NONCE_BYTES, Sealed},
};
use lockstep_provider::{Encryptor, ErrorKind, Operation, ProviderError, SecretValue};
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

/// Maximum length of a ciphertext in characters, as in `data[].ciphertext`.
const MAX_TEXT: usize = 1_500_000;
/// Timeout of one request to the KMS.
const DEADLINE: Duration = Duration::from_secs(30);
/// Maximum number of attempts.
const TRIES: u32 = 5;
/// Pause before the second attempt. It doubles after each attempt.
const PAUSE: Duration = Duration::from_millis(500);
/// Upper bound for a pause that the KMS requests.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Reason why a value was not encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Message, which reveals only the length of the value.
    pub(super) message: String,
    /// Whether every other value would fail in the same way, so that further requests are useless.
    pub(super) of_any: bool,
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Self {
            message,
            of_any: false,
        }
    }
}

impl From<ProviderError> for Refusal {
    fn from(error: ProviderError) -> Self {
        let of_any = match error.kind {
            // a policy can depend on the encryption context
            ErrorKind::PermissionDenied | ErrorKind::Malformed | ErrorKind::RateLimited => false,
            ErrorKind::NotFound
            | ErrorKind::ConfigInvalid
            | ErrorKind::CredentialsUnavailable
            | ErrorKind::Unsupported
            | ErrorKind::Undecryptable
            | ErrorKind::KeyUnavailable
            | ErrorKind::Unauthenticated
            | ErrorKind::Unavailable
            | ErrorKind::Timeout
            | ErrorKind::Internal => true,
        };
        Self {
            message: error.to_string(),
            of_any,
        }
    }
}

/// Whether the value needs an envelope. A KMS does not accept empty or long values.
pub(super) fn needs_envelope(encryptor: &dyn Encryptor, value: &SecretValue) -> bool {
    value.is_empty() || value.len() > encryptor.max_plaintext_len()
}

/// Encrypts a value and binds it to its object and key.
///
/// # Errors
/// Returns the last error of the KMS, or an error if the value is too long.
pub(super) async fn seal(
    encryptor: &dyn Encryptor,
    value: &SecretValue,
    binding: &Binding,
) -> Result<String, Refusal> {
    if value.len() > MAX_SECRET_BYTES {
        return Err(format!(
            "the value is {} bytes, but a Secret can hold at most {MAX_SECRET_BYTES}",
            value.len()
        )
        .into());
    }
    let sealed = if needs_envelope(encryptor, value) {
        let mut key = Zeroizing::new([0; DATA_KEY_BYTES]);
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(key.as_mut_slice())
            .and_then(|()| getrandom::fill(&mut nonce))
            .map_err(|_| "cannot get random numbers from the system".to_owned())?;
        let envelope = Envelope::seal(value, &key, nonce, binding)
            .ok_or_else(|| "the cipher rejected the value".to_owned())?;
        let key = SecretValue::new(key.as_slice());
        let wrapped = encrypt(encryptor, &key, &envelope.binding(binding.clone())).await?;
        Sealed::envelope(encryptor.name(), binding, wrapped, envelope)
    } else {
        Sealed::direct(
            encryptor.name(),
            binding,
            encrypt(encryptor, value, binding).await?,
        )
    };
    let text = sealed.to_string();
    if text.len() > MAX_TEXT {
        return Err(format!(
            "the ciphertext has {} characters, but at most {MAX_TEXT} are allowed",
            text.len()
        )
        .into());
    }
    Ok(text)
}

/// Calls the KMS, with retries for transient errors.
async fn encrypt(
    encryptor: &dyn Encryptor,
    value: &SecretValue,
    binding: &Binding,
) -> Result<Vec<u8>, ProviderError> {
    let mut pause = PAUSE;
    let mut tries = 0;
    loop {
        tries += 1;
        let error = match timeout(DEADLINE, encryptor.encrypt(value, binding)).await {
            Ok(Ok(bytes)) => return Ok(bytes),
            Ok(Err(error)) => error,
            Err(_) => ProviderError::new(
                ErrorKind::Timeout,
                Operation::Encrypt,
                format!("the KMS did not respond within {} s", DEADLINE.as_secs()),
            ),
        };
        let again = error.kind.is_transient() || error.kind == ErrorKind::RateLimited;
        if !again || tries == TRIES {
            return Err(error);
        }
        sleep(error.retry_after.unwrap_or(pause).min(LONGEST_PAUSE)).await;
        pause *= 2;
    }
}
