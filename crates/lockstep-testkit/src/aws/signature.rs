//! Verifies signatures of requests, by AWS' Signature Version 4.

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{self, SHA256},
    hmac,
};
use axum::http::{HeaderMap, Method, Uri};

/// The signed parts of a request.
pub(super) struct Signed<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

/// The `Authorization` header: the key, and what it signed.
pub(super) struct Authorization<'a> {
    /// The access key id.
    pub(super) key: &'a str,
    /// Date, region, service and a fixed word.
    scope: &'a str,
    headers: Vec<&'a str>,
    signature: &'a str,
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

impl<'a> Authorization<'a> {
    /// Parses the header. Returns `None` if a part is missing.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let fields = text.strip_prefix(ALGORITHM)?.trim_start();
        let field = |name: &str| {
            let mut fields = fields.split(',').map(str::trim);
            fields
                .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
                .filter(|value| !value.is_empty())
        };
        let (key, scope) = field("Credential")?.split_once('/')?;
        let parts = scope.split('/').count();
        (parts == 4 && scope.ends_with("/aws4_request")).then_some(())?;
        Some(Self {
            key,
            scope,
            headers: field("SignedHeaders")?.split(';').collect(),
            signature: field("Signature")?,
        })
    }

    /// Whether the signature was made with this secret for this request.
    pub(super) fn is_of(&self, secret: &str, signed: &Signed<'_>) -> bool {
        let header = |name: &str| {
            let values = signed.headers.get_all(name).iter();
            let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
            values
                .join(",")
                .split_ascii_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        };
        let mut request = format!(
            "{}\n{}\n{}\n",
            signed.method,
            signed.uri.path(),
            signed.uri.query().unwrap_or_default()
        );
        for name in &self.headers {
            request.extend([name, ":", &header(name), "\n"]);
        }
        request.extend(["\n", &self.headers.join(";"), "\n", &sha256(signed.body)]);
        let text = format!(
            "{ALGORITHM}\n{}\n{}\n{}",
            header("x-amz-date"),
            self.scope,
            sha256(request.as_bytes())
        );
        let key = format!("AWS4{secret}").into_bytes();
        let key = self.scope.split('/').fold(key, |key, part| sign(&key, part));
        let signature = hex(&sign(&key, &text));
        verify_slices_are_equal(signature.as_bytes(), self.signature.as_bytes()).is_ok()
    }
}

fn sign(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    /// The example "GET Object" of "Signature Calculations for the Authorization Header" in the S3
    /// API Reference.
    #[test]
    fn example_of_aws_is_verified_only_with_its_secret() {
        let payload = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let headers: HeaderMap = [
            ("host", "examplebucket.s3.amazonaws.com"),
            ("range", "bytes=0-9"),
            ("x-amz-content-sha256", payload),
            ("x-amz-date", "20130524T000000Z"),
        ]
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
        .collect();
        let text = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
                    SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
                    Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        let authorization = Authorization::parse(text).unwrap();
        assert_eq!(authorization.key, "AKIAIOSFODNN7EXAMPLE");
        let (uri, method) = ("/test.txt".parse().unwrap(), Method::GET);
        let signed = |body| Signed {
            method: &method,
            uri: &uri,
            headers: &headers,
            body,
        };
        let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        assert!(authorization.is_of(secret, &signed(b"")));
        assert!(!authorization.is_of("another", &signed(b"")));
        assert!(!authorization.is_of(secret, &signed(b"changed")));
    }

    #[test]
    fn incomplete_signature_is_rejected() {
        for text in [
            "",
            "Bearer token",
            "AWS4-HMAC-SHA256 Credential=AKIA/20130524/us-east-1/s3/aws4_request, SignedHeaders=host",
            "AWS4-HMAC-SHA256 Credential=AKIA, SignedHeaders=host, Signature=0",
            "AWS4-HMAC-SHA256 SignedHeaders=host, Signature=0",
        ] {
            assert!(Authorization::parse(text).is_none(), "{text}");
        }
    }
}
