//! Reads the key of a service account from a Secret, validates it before use, and signs JWTs with
//! it.

use aws_lc_rs::{rand::SystemRandom, rsa::KeyPair, signature::RSA_PKCS1_SHA256};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use lockstep_provider::{ErrorKind, Operation, ProviderError, SecretValue};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde::Deserialize;
use serde_json::json;
use url::{Host, Url};
use zeroize::{Zeroize as _, Zeroizing};

/// The scope of a token: everything that the identity may do.
pub(crate) const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// Lifetime of a signed JWT in seconds: the maximum that Google accepts.
const LIFETIME: i64 = 3600;
/// Maximum length of a key in bytes. Google's keys are below 3 KiB.
const LONGEST_KEY: usize = 64 * 1024;

/// The key of a service account.
pub(crate) struct ServiceAccountKey {
    /// The email of the service account.
    pub(crate) email: String,
    /// The endpoint where a JWT is exchanged.
    pub(crate) token_uri: Url,
    id: String,
    pair: KeyPair,
}

/// The used fields of Google's JSON key file.
#[derive(Deserialize)]
struct File {
    r#type: String,
    client_email: String,
    #[serde(default)]
    private_key_id: String,
    private_key: String,
    token_uri: String,
}

impl Drop for File {
    fn drop(&mut self) {
        self.private_key.zeroize();
    }
}

impl ServiceAccountKey {
    /// Parses a key. `what` names its source.
    ///
    /// # Errors
    /// `CredentialsUnavailable`, naming the source and the field.
    pub(crate) fn read(value: &SecretValue, what: &str) -> Result<Self, ProviderError> {
        let not_one = || {
            unavailable(format!("{what} is not the JSON key of a service account"))
                .with_hint("Use the output of gcloud iam service-accounts keys create: JSON with type, client_email, private_key and token_uri")
        };
        if value.len() > LONGEST_KEY {
            return Err(not_one());
        }
        // The parser's own message can contain its input.
        let file: File = serde_json::from_slice(value.expose()).map_err(|_| not_one())?;
        let bad = |field: &str, why: &str| unavailable(format!("{what}: {field} {why}"));
        if file.r#type != "service_account" {
            return Err(bad("type", "is not service_account").with_hint(
                "Other kinds of credentials are not read from Secrets; see auth.workloadIdentityFederation",
            ));
        }
        crate::config::check_email("", &file.client_email)
            .map_err(|_| bad("client_email", "is not the address of a service account"))?;
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        if file.private_key_id.len() > 128 || !file.private_key_id.bytes().all(is_word) {
            return Err(bad("private_key_id", "is not the id of a key"));
        }
        let token_uri = token_uri(&file.token_uri).ok_or_else(|| {
            bad("token_uri", "is not an https URL")
                .with_hint("Google's is https://oauth2.googleapis.com/token")
        })?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(file.private_key.as_bytes());
        let pair = der
            .ok()
            .and_then(|der| KeyPair::from_pkcs8(der.secret_pkcs8_der()).ok())
            .ok_or_else(|| bad("private_key", "is not an RSA key in PKCS #8"))?;
        Ok(Self {
            email: file.client_email.clone(),
            token_uri,
            id: file.private_key_id.clone(),
            pair,
        })
    }

    /// Creates a JWT to exchange for an access token (RFC 7523, with the claims of "Using OAuth 2.0
    /// for Server to Server Applications").
    ///
    /// # Errors
    /// `CredentialsUnavailable` if the key cannot sign.
    pub(crate) fn assertion(&self, now: Timestamp) -> Result<Zeroizing<String>, ProviderError> {
        let head = json!({ "alg": "RS256", "typ": "JWT", "kid": self.id });
        let claims = json!({
            "iss": self.email,
            "scope": SCOPE,
            "aud": self.token_uri.as_str(),
            "iat": now.as_second(),
            "exp": now.as_second() + LIFETIME,
        });
        let part = |value: &serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let mut text = Zeroizing::new(format!("{}.{}", part(&head), part(&claims)));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                text.as_bytes(),
                &mut signature,
            )
            .map_err(|_| unavailable("could not sign with the service account's private key"))?;
        text.push('.');
        text.push_str(&BASE64_URL_SAFE_NO_PAD.encode(signature));
        Ok(text)
    }
}

/// Parses the endpoint for a JWT. A JWT is a login in itself, so it is sent only over TLS.
fn token_uri(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_loopback = match url.host()? {
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
        Host::Domain(name) => name == "localhost",
    };
    let is_plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    let good = is_plain && (url.scheme() == "https" || (url.scheme() == "http" && is_loopback));
    good.then_some(url)
}

/// Reads a token that is a single word: printable ASCII, with surrounding whitespace removed.
///
/// # Errors
/// `CredentialsUnavailable`, naming the token.
pub(crate) fn word(value: &SecretValue, what: &str) -> Result<Zeroizing<String>, ProviderError> {
    let text = value.expose_str().unwrap_or("\0").trim_ascii();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(unavailable(format!("{what} is empty, or not one word")));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// Creates the error for a credential that cannot be used.
pub(crate) fn unavailable(message: impl Into<String>) -> ProviderError {
    ProviderError::new(ErrorKind::CredentialsUnavailable, Operation::Login, message)
}

#[cfg(test)]
#[path = "credential_tests.rs"]
mod tests;
