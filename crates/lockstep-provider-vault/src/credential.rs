//! Reads credentials from Secrets, removes what editors and `echo` leave behind, and validates them
//! before anything else uses them.

use lockstep_api::SecretKeyRef;
use lockstep_provider::{Credentials, ErrorKind, Operation, ProviderError, SecretValue};
use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

/// Maximum length of a token, in bytes. Each store keeps its token in memory, and a server could
/// return one of any length.
const LONGEST_TOKEN: usize = 32 * 1024;

/// Converts a token to the header that carries it. Its `Debug` output is `Sensitive`.
///
/// Leading and trailing white space is removed: a Secret created from a file ends with a newline.
///
/// # Errors
/// `CredentialsUnavailable` when the token is empty or not a valid header value. The error names
/// the source (`what`).
pub(crate) fn token_header(token: &[u8], what: &str) -> Result<HeaderValue, ProviderError> {
    let trimmed = token.trim_ascii();
    if trimmed.is_empty() {
        return Err(unavailable(format!("{what} is empty")));
    }
    if trimmed.len() > LONGEST_TOKEN {
        return Err(unavailable(format!(
            "{what} is longer than {LONGEST_TOKEN} bytes"
        )));
    }
    if !trimmed.iter().all(u8::is_ascii_graphic) {
        return Err(unavailable(format!("{what} contains characters that are not allowed in a token")).with_hint(
            "A token must be one line of printable ASCII without spaces. Leading and trailing whitespace is ignored",
        ));
    }
    let mut header = HeaderValue::from_bytes(trimmed)
        .map_err(|_| unavailable(format!("{what} cannot be sent as a header")))?;
    header.set_sensitive(true);
    Ok(header)
}

/// Reads a credential that is one word, such as a secret id or a JWT, without leading and trailing
/// white space.
///
/// # Errors
/// The errors of [`Credentials::secret`]; `CredentialsUnavailable` when the word is empty or not
/// printable text.
pub(crate) async fn word(
    credentials: &dyn Credentials,
    reference: &SecretKeyRef,
) -> Result<Zeroizing<String>, ProviderError> {
    let value = credentials.secret(&reference.name, &reference.key).await?;
    clean_word(&value, &describe(reference))
}

/// Like [`word`], for a value that was already read.
///
/// # Errors
/// `CredentialsUnavailable`, naming the source (`what`).
pub(crate) fn clean_word(value: &SecretValue, what: &str) -> Result<Zeroizing<String>, ProviderError> {
    let text = value
        .expose_str()
        .ok_or_else(|| unavailable(format!("{what} is not UTF-8")))?
        .trim_ascii();
    if text.is_empty() {
        return Err(unavailable(format!("{what} is empty")));
    }
    if text.chars().any(char::is_control) {
        return Err(unavailable(format!("{what} holds control characters")));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// Reads a password. Only one trailing line end is removed, because anything else may be part of
/// it.
///
/// # Errors
/// The errors of [`Credentials::secret`]; `CredentialsUnavailable` when the password is empty or
/// not UTF-8.
pub(crate) async fn password(
    credentials: &dyn Credentials,
    reference: &SecretKeyRef,
) -> Result<Zeroizing<String>, ProviderError> {
    let value = credentials.secret(&reference.name, &reference.key).await?;
    let what = describe(reference);
    let text = value
        .expose_str()
        .ok_or_else(|| unavailable(format!("{what} is not UTF-8")))?;
    let text = text
        .strip_suffix('\n')
        .map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    if text.is_empty() {
        return Err(unavailable(format!("{what} is empty")));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// Formats a reference as messages show it: `Secret "approle", key "secret-id"`.
pub(crate) fn describe(reference: &SecretKeyRef) -> String {
    format!("Secret \"{}\", key \"{}\"", reference.name, reference.key)
}

/// Returns the error of a credential that cannot be used.
pub(crate) fn unavailable(message: impl Into<String>) -> ProviderError {
    ProviderError::new(ErrorKind::CredentialsUnavailable, Operation::Login, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_trimmed_but_otherwise_unchanged() {
        for token in [
            "hvs.canary",
            "hvs.canary\n",
            "hvs.canary\r\n",
            " \thvs.canary \n\n",
        ] {
            assert_eq!(
                token_header(token.as_bytes(), "it").unwrap().as_bytes(),
                b"hvs.canary"
            );
        }
    }

    #[test]
    fn invalid_token_error_names_the_source_but_not_the_token() {
        for token in [
            "",
            " \n",
            "hvs.can\nary",
            "hvs.can ary",
            "hvs.canäry",
            "hvs.can\0ary",
            "canary\r\nX-Evil: 1",
        ] {
            let error = token_header(token.as_bytes(), "Secret \"vault\", key \"token\"").unwrap_err();
            assert_eq!(error.kind, ErrorKind::CredentialsUnavailable);
            assert!(
                error.to_string().contains("Secret \"vault\", key \"token\""),
                "{error}"
            );
            assert!(!format!("{error} {error:?}").contains("can"), "{error}");
        }
    }

    #[test]
    fn token_header_is_not_shown() {
        assert_eq!(
            format!("{:?}", token_header(b"hvs.canary", "it").unwrap()),
            "Sensitive"
        );
    }

    #[test]
    fn word_is_validated_but_may_contain_unicode() {
        assert_eq!(
            *clean_word(&SecretValue::from(" größe\n"), "it").unwrap(),
            "größe"
        );
        for bad in [&b""[..], b"\n", b"can\nary", b"can\xffary"] {
            let error = clean_word(&SecretValue::new(bad), "it").unwrap_err();
            assert!(!error.to_string().contains("can"), "{error}");
        }
    }
}
