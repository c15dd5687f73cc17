//! From a value to the text of its ciphertext.

use std::time::Duration;

use lockstep_core::{
    assemble::MAX_SECRET_BYTES,
    ciphertext::{Binding, DATA_KEY_BYTES, NONCE_BYTES, Sealed},
};
use lockstep_provider::{Encryptor, ErrorKind, Operation, ProviderError, SecretValue};
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

/// How long a ciphertext may be, in characters: as `data[].ciphertext` takes it.
const MAX_TEXT: usize = 1_500_000;
/// How long one request to the KMS may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// How often a request is made until one succeeds.
const TRIES: u32 = 5;
/// How long the first pause between requests is; each is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a KMS may let us wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Why a value is not encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// A sentence; it says nothing of the value but its length.
    pub(super) message: String,
    /// Whether the same would be said of any other value, so that there is no point in asking.
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
            // a policy can look at the place
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

/// Whether the value goes into an envelope. A KMS takes no empty value.
pub(super) fn needs_envelope(encryptor: &dyn Encryptor, value: &SecretValue) -> bool {
    value.is_empty() || value.len() > encryptor.limit()
}

/// Encrypts a value for its place.
///
/// # Errors
/// What the KMS says, in the end; and what is too long.
pub(super) async fn seal(
    encryptor: &dyn Encryptor,
    value: &SecretValue,
    binding: &Binding,
) -> Result<String, Refusal> {
    if value.len() > MAX_SECRET_BYTES {
        return Err(format!(
            "it has {} bytes; a Secret takes at most {MAX_SECRET_BYTES}",
            value.len()
        )
        .into());
    }
    let sealed = if needs_envelope(encryptor, value) {
        let mut key = Zeroizing::new([0; DATA_KEY_BYTES]);
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(key.as_mut_slice())
            .and_then(|()| getrandom::fill(&mut nonce))
            .map_err(|_| "the machine gives out no random numbers".to_owned())?;
        let wrapped = encrypt(encryptor, &SecretValue::new(key.as_slice()), binding).await?;
        Sealed::envelope(encryptor.name(), binding, wrapped, value, &key, nonce)
            .map_err(|_| "the cipher does not take the value".to_owned())?
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
            "its ciphertext has {} characters; at most {MAX_TEXT} are allowed",
            text.len()
        )
        .into());
    }
    Ok(text)
}

/// Asks the KMS, again where that may help.
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
                format!("the KMS did not answer within {} s", DEADLINE.as_secs()),
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
