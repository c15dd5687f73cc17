//! Signs JSON web tokens like an identity provider or a Kubernetes API server.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey as _};
use serde_json::{Value, json};

/// Signs tokens with its own key.
pub(crate) struct Issuer(KeyPair);

impl Issuer {
    pub(crate) fn new() -> Self {
        Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap())
    }

    /// Returns the key that verifies the tokens, in PEM.
    pub(crate) fn public_key(&self) -> String {
        self.0.public_key_pem()
    }

    /// Returns a token with these claims, and the ServiceAccount "shop" of namespace "shop" as its
    /// subject.
    pub(crate) fn token(&self, audience: &str, expires: u64) -> String {
        let claims = json!({
            "iss": "https://kubernetes.default.svc",
            "sub": "system:serviceaccount:shop:shop",
            "aud": [audience],
            "iat": 1_700_000_000,
            "nbf": 1_700_000_000,
            "exp": expires,
            "kubernetes.io": { "namespace": "shop", "serviceaccount": { "name": "shop", "uid": "7f3a" } },
        });
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!(
            "{}.{}",
            part(json!({ "alg": "ES256", "typ": "JWT" })),
            part(claims)
        );
        let signature = URL_SAFE_NO_PAD.encode(fixed(&self.0.sign(signed.as_bytes()).unwrap()));
        format!("{signed}.{signature}")
    }
}

/// Converts a signature to the two numbers of 32 bytes each that a token contains. ASN.1
/// (`SEQUENCE` of two `INTEGER`s) encodes them with as many bytes as they need.
fn fixed(signature: &[u8]) -> Vec<u8> {
    let mut rest = &signature[2..];
    let mut numbers = Vec::with_capacity(64);
    for _ in 0..2 {
        let (number, after) = rest[2..].split_at(rest[1].into());
        let digits = number.iter().position(|byte| *byte != 0).unwrap();
        numbers.extend(std::iter::repeat_n(0, 32 - (number.len() - digits)));
        numbers.extend_from_slice(&number[digits..]);
        rest = after;
    }
    numbers
}

/// A time far in the future.
pub(crate) const NEVER: u64 = 4_102_444_800;
/// A time in the past.
pub(crate) const LONG_AGO: u64 = 1_700_000_100;
