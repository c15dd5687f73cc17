//! The one form in which lockstep requests tokens of ServiceAccounts: one audience, ten minutes, bound to nothing else.

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};

/// How long a requested token lives, in seconds: what the admission policy allows at most.
const TOKEN_SECONDS: i64 = 600;

/// The request for a token with that audience.
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
