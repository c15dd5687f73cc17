//! Credentials from Secrets, cleaned of what editors and `echo` leave behind, and checked before anything else sees
//! them.

use lockstep_api::SecretKeyRef;
use lockstep_provider::{Credentials, ErrorKind, Operation, ProviderError, SecretValue};
use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

/// The longest token, in bytes. Each store keeps its own, and a server could answer with one of any length.
const LONGEST_TOKEN: usize = 32 * 1024;

/// A token, as the header that carries it. Its `Debug` says `Sensitive`.
///
/// White space at the ends is cut off: a newline at the end is what a Secret made from a file has.
///
/// # Errors
/// `CredentialsUnavailable` when it is empty or cannot be a header, naming where it came from (`what`).
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
        return Err(unavailable(format!("{what} holds characters that no token has")).with_hint(
            "A token is one line of printable ASCII without spaces; only white space at its ends is cut off",
        ));
    }
    let mut header = HeaderValue::from_bytes(trimmed)
        .map_err(|_| unavailable(format!("{what} cannot be sent as a header")))?;
    header.set_sensitive(true);
    Ok(header)
}

/// A credential that is one word, such as a secret id or a JWT: without white space at its ends.
///
/// # Errors
/// What [`Credentials::secret`] says; `CredentialsUnavailable` when it is empty or no printable text.
pub(crate) async fn word(
    credentials: &dyn Credentials,
    reference: &SecretKeyRef,
) -> Result<Zeroizing<String>, ProviderError> {
    let value = credentials.secret(&reference.name, &reference.key).await?;
    clean_word(&value, &describe(reference))
}

/// [`word`] of a value that is already there.
///
/// # Errors
/// `CredentialsUnavailable`, naming where it came from (`what`).
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

/// A password: only one line end is cut off, because anything else may belong to it.
///
/// # Errors
/// What [`Credentials::secret`] says; `CredentialsUnavailable` when it is empty or not UTF-8.
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

/// As messages name it: `Secret "approle", key "secret-id"`.
pub(crate) fn describe(reference: &SecretKeyRef) -> String {
    format!("Secret \"{}\", key \"{}\"", reference.name, reference.key)
}

/// A credential that cannot be used.
pub(crate) fn unavailable(message: impl Into<String>) -> ProviderError {
    ProviderError::new(ErrorKind::CredentialsUnavailable, Operation::Login, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_loses_white_space_at_its_ends_and_nothing_else() {
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
    fn a_token_that_is_no_header_is_an_error_that_names_its_place_and_never_shows_it() {
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
    fn a_token_header_does_not_show_itself() {
        assert_eq!(
            format!("{:?}", token_header(b"hvs.canary", "it").unwrap()),
            "Sensitive"
        );
    }

    #[test]
    fn a_word_is_checked_like_a_token_but_may_be_any_text() {
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
