//! Builds token requests for ServiceAccounts. Every token has one audience, expires after ten
//! minutes and is bound to no object.

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};

/// Lifetime of a token in seconds: the maximum that the admission policy allows.
const TOKEN_SECONDS: i64 = 600;

/// Builds a request for a token with this audience.
pub(crate) fn request(audience: &str) -> TokenRequest {
    TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![audience.to_owned()],
            expiration_seconds: Some(TOKEN_SECONDS),
            bound_object_ref: None,
        },
        ..TokenRequest::default()
    }
}
