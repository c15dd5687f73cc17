//! Reads credentials from Secrets. It removes what editors and `echo` leave behind, and validates
//! them before use.

use lockstep_api::SecretKeyRef;
use lockstep_provider::{Credentials, ErrorKind, Operation, ProviderError, SecretValue};
use zeroize::Zeroizing;

/// Reads a credential that is a single word: printable ASCII, with surrounding whitespace removed.
///
/// # Errors
/// As [`Credentials::secret`]. `CredentialsUnavailable` if it is empty or not a single word.
pub(crate) async fn word(
    credentials: &dyn Credentials,
    reference: &SecretKeyRef,
) -> Result<Zeroizing<String>, ProviderError> {
    let value = credentials.secret(&reference.name, &reference.key).await?;
    let what = format!("Secret \"{}\", key \"{}\"", reference.name, reference.key);
    clean_word(&value, &what)
}

/// Checks a value that was already read, as [`word`] does.
///
/// # Errors
/// `CredentialsUnavailable`, naming its source (`what`).
pub(crate) fn clean_word(value: &SecretValue, what: &str) -> Result<Zeroizing<String>, ProviderError> {
    let text = value.expose_str().unwrap_or("\0").trim_ascii();
    if text.is_empty() {
        return Err(unavailable(format!("{what} is empty")));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(unavailable(format!(
            "{what} contains characters that are not allowed in AWS credentials"
        ))
        .with_hint(
            "The value must be one line of printable ASCII without spaces. Leading and trailing whitespace is ignored",
        ));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// Creates the error for a credential that cannot be used.
pub(crate) fn unavailable(message: impl Into<String>) -> ProviderError {
    ProviderError::new(ErrorKind::CredentialsUnavailable, Operation::Login, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_surrounding_whitespace_is_removed() {
        for text in ["AKIACANARY", "AKIACANARY\n", " AKIACANARY \r\n"] {
            let word = clean_word(&SecretValue::from(text), "it").unwrap();
            assert_eq!(*word, "AKIACANARY");
        }
    }

    #[test]
    fn invalid_word_names_its_source_and_is_not_shown() {
        let bad: [&[u8]; 6] = [
            b"",
            b" \n",
            b"can\nary",
            b"can ary",
            "canäry".as_bytes(),
            b"can\xffary",
        ];
        for bytes in bad {
            let error = clean_word(&SecretValue::new(bytes), "Secret \"aws\", key \"id\"").unwrap_err();
            assert_eq!(error.kind, ErrorKind::CredentialsUnavailable);
            assert!(
                error.to_string().contains("Secret \"aws\", key \"id\""),
                "{error}"
            );
            assert!(!error.to_string().contains("can"), "{error}");
        }
    }
}
