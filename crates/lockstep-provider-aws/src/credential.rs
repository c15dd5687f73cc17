//! Credentials from Secrets, cleaned of what editors and `echo` leave behind, and checked before anything else sees
//! them.

use lockstep_api::SecretKeyRef;
use lockstep_provider::{Credentials, ErrorKind, Operation, ProviderError, SecretValue};
use zeroize::Zeroizing;

/// A credential that is one word: printable ASCII, without white space at its ends.
///
/// # Errors
/// What [`Credentials::secret`] says; `CredentialsUnavailable` when it is empty or no such word.
pub(crate) async fn word(
    credentials: &dyn Credentials,
    reference: &SecretKeyRef,
) -> Result<Zeroizing<String>, ProviderError> {
    let value = credentials.secret(&reference.name, &reference.key).await?;
    let what = format!("Secret \"{}\", key \"{}\"", reference.name, reference.key);
    clean_word(&value, &what)
}

/// [`word`] of a value that is already there.
///
/// # Errors
/// `CredentialsUnavailable`, naming where it came from (`what`).
pub(crate) fn clean_word(value: &SecretValue, what: &str) -> Result<Zeroizing<String>, ProviderError> {
    let text = value.expose_str().unwrap_or("\0").trim_ascii();
    if text.is_empty() {
        return Err(unavailable(format!("{what} is empty")));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(
            unavailable(format!("{what} holds characters that no credential of AWS has")).with_hint(
                "It is one line of printable ASCII without spaces; only white space at its ends is cut off",
            ),
        );
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// A credential that cannot be used.
pub(crate) fn unavailable(message: impl Into<String>) -> ProviderError {
    ProviderError::new(ErrorKind::CredentialsUnavailable, Operation::Login, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_loses_white_space_at_its_ends_and_nothing_else() {
        for text in ["AKIACANARY", "AKIACANARY\n", " AKIACANARY \r\n"] {
            let word = clean_word(&SecretValue::from(text), "it").unwrap();
            assert_eq!(*word, "AKIACANARY");
        }
    }

    #[test]
    fn what_is_no_word_is_an_error_that_names_its_place_and_never_shows_it() {
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
