//! Converts failed responses to errors in our own words. The server's text only distinguishes cases
//! and is never shown: it may contain values, tokens, or names that the user did not write.

use lockstep_core::text::hcl_quote;
use lockstep_provider::{ErrorKind, Operation, ProviderError};

use crate::answer::Answer;

/// What a request is for, to describe it in an error.
#[derive(Debug, Clone)]
pub(crate) struct Purpose {
    /// The operation of the request.
    pub(crate) operation: Operation,
    /// Continues the sentence after `permission denied `: `reading "shop/database"`.
    pub(crate) doing: String,
    /// The identity of the request: `as role "shop" (auth/kubernetes)`.
    pub(crate) identity: String,
    /// The message if the server reports that something does not exist: `key "shop/database" does
    /// not exist`.
    pub(crate) missing: String,
    /// The mount path of the engine, for the error that it does not exist.
    pub(crate) mount: String,
    /// The path and capability that the policy needs.
    pub(crate) policy: Option<(String, &'static str)>,
}

impl Purpose {
    fn error(&self, kind: ErrorKind, message: impl Into<String>) -> ProviderError {
        ProviderError::new(kind, self.operation, message)
    }

    /// Returns the error of a response with an unexpected form. It does not contain the length,
    /// which would reveal that of a value.
    pub(crate) fn malformed(&self, answer: &Answer, what: &str) -> ProviderError {
        let message = format!("{}: the response {what} (status {})", self.doing, answer.status);
        self.error(ErrorKind::Malformed, message)
    }

    /// Returns the error of a failed response.
    pub(crate) fn failed(&self, answer: &Answer) -> ProviderError {
        if let Some(error) = cannot_serve(self.operation, answer) {
            return error;
        }
        // From here on only Vault's own responses count: a 404 from an ingress must not make a
        // value "gone".
        if answer.envelope().is_none() {
            return self
                .malformed(answer, "is not Vault's JSON")
                .with_hint("Check that server is the address of Vault");
        }
        let doing = &self.doing;
        match answer.status {
            404 if answer.has_error_containing("namespace not found") => self
                .error(
                    ErrorKind::ConfigInvalid,
                    format!("{doing}: the namespace does not exist on the server"),
                )
                .with_hint("Check spec.provider.vault.namespace"),
            404 if answer.has_error_containing("versioned K/V") => self
                .error(
                    ErrorKind::ConfigInvalid,
                    format!("{doing}: \"{}\" is a key/value engine of version 2", self.mount),
                )
                .with_hint("Set spec.provider.vault.version to v2"),
            404 if answer.complains() => self
                .error(
                    ErrorKind::ConfigInvalid,
                    format!("{doing}: the server has no secrets engine at \"{}\"", self.mount),
                )
                .with_hint(
                    "Check spec.provider.vault.path, or the beginning of the key if path is not set",
                ),
            404 if answer.is_nothing() && self.reads() => {
                self.error(ErrorKind::NotFound, self.missing.clone())
            }
            404 => self
                .malformed(answer, "is a 404 that does not come from a secrets engine")
                .with_hint("Check that server is the address of Vault"),
            401 => self.error(
                ErrorKind::Unauthenticated,
                format!("{doing} {}: the server rejected the token", self.identity),
            ),
            403 => {
                let error = self.error(
                    ErrorKind::PermissionDenied,
                    format!("permission denied {doing} {}", self.identity),
                );
                match &self.policy {
                    Some((path, capability)) => error.with_hint(policy_hint(path, capability)),
                    None => error,
                }
            }
            400 | 405 => self
                .error(
                    ErrorKind::ConfigInvalid,
                    format!(
                        "{doing}: the server rejected the request as invalid (status {})",
                        answer.status
                    ),
                )
                .with_hint(
                    "Check spec.provider.vault.path and version: the engine at that path may have another type",
                ),
            _ => self.malformed(answer, "has a status that Vault does not use here"),
        }
    }

    /// Returns whether the requested object may not exist. A missing token or mount says nothing
    /// about a value.
    const fn reads(&self) -> bool {
        matches!(
            self.operation,
            Operation::Read
                | Operation::Find
                | Operation::Decrypt
                | Operation::Encrypt
                | Operation::Mint
                | Operation::RenewLease
                | Operation::Revoke
        )
    }
}

/// Returns a hint with the policy line that grants a capability on a path. A path that a policy
/// would read as a pattern gets no line, because the line would grant more than the path.
pub(crate) fn policy_hint(path: &str, capability: &str) -> String {
    let quoted = hcl_quote(path);
    if ["*", "+", "{{"].iter().any(|pattern| path.contains(pattern)) {
        return format!(
            "The policy needs {capability} on {quoted}. Write it by hand: a policy reads \"*\" and \"+\" as wildcards and \"{{{{\" as a template"
        );
    }
    format!("The policy needs: path {quoted} {{ capabilities = [\"{capability}\"] }}")
}

/// Returns the error of a server that cannot serve any request, or `None` if it can.
pub(crate) fn cannot_serve(operation: Operation, answer: &Answer) -> Option<ProviderError> {
    let status = answer.status;
    let (kind, message) = match status {
        429 => (
            ErrorKind::RateLimited,
            "the server asks to slow down (status 429)".to_owned(),
        ),
        300..=399 => {
            let message = format!(
                "the server redirects to another address (status {status}), which lockstep does not follow"
            );
            return Some(
                ProviderError::new(ErrorKind::Unavailable, operation, message).with_hint(
                    "Set server to an address that does not redirect, such as that of the active node",
                ),
            );
        }
        503 if answer.has_error_containing("sealed") => (
            ErrorKind::Unavailable,
            "the server is sealed (status 503)".to_owned(),
        ),
        // 412: a standby that has not caught up; 472, 473: a standby that does not forward.
        412 | 472 | 473 => (
            ErrorKind::Unavailable,
            format!("the server is a standby that cannot handle the request (status {status})"),
        ),
        500..=599 => (
            ErrorKind::Unavailable,
            format!("the server is unavailable (status {status})"),
        ),
        _ => return None,
    };
    let error = ProviderError::new(kind, operation, message);
    Some(match answer.retry_after {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use zeroize::Zeroizing;

    use super::*;

    fn purpose() -> Purpose {
        Purpose {
            operation: Operation::Read,
            doing: "reading \"shop/database\"".to_owned(),
            identity: "as role \"shop\" (auth/kubernetes)".to_owned(),
            missing: "key \"shop/database\" does not exist".to_owned(),
            mount: "secret".to_owned(),
            policy: Some(("secret/data/shop/database".to_owned(), "read")),
        }
    }

    fn answer(status: u16, body: &str) -> Answer {
        Answer::new(
            status,
            Some(Duration::from_secs(7)),
            Zeroizing::new(body.as_bytes().to_vec()),
        )
    }

    #[test]
    fn only_reads_and_searches_return_not_found() {
        let nothing = answer(404, r#"{"errors":[]}"#);
        for (operation, kind) in [
            (Operation::Read, ErrorKind::NotFound),
            (Operation::Find, ErrorKind::NotFound),
            (Operation::Login, ErrorKind::Malformed),
            (Operation::Renew, ErrorKind::Malformed),
            (Operation::Check, ErrorKind::Malformed),
            (Operation::IssueToken, ErrorKind::Malformed),
        ] {
            let purpose = Purpose {
                operation,
                ..purpose()
            };
            assert_eq!(purpose.failed(&nothing).kind, kind, "{}", operation.label());
        }
    }

    #[test]
    fn each_status_has_one_kind_and_bodies_are_never_shown() {
        let vault = r#"{"errors":["canary"]}"#;
        let none = r#"{"errors":[]}"#;
        let html = "<html>canary</html>";
        let cases = [
            (301, html, ErrorKind::Unavailable),
            (307, "", ErrorKind::Unavailable),
            (400, vault, ErrorKind::ConfigInvalid),
            (400, html, ErrorKind::Malformed),
            (401, vault, ErrorKind::Unauthenticated),
            (403, vault, ErrorKind::PermissionDenied),
            (403, html, ErrorKind::Malformed),
            (404, none, ErrorKind::NotFound),
            (
                404,
                r#"{"request_id":"1","lease_id":"","renewable":false,"lease_duration":0,"data":null,"warnings":null}"#,
                ErrorKind::NotFound,
            ),
            // gateways have their own JSON
            (404, "{}", ErrorKind::Malformed),
            (404, r#"{"data":null,"warnings":null}"#, ErrorKind::Malformed),
            (404, r#"{"message":"not found"}"#, ErrorKind::Malformed),
            (404, r#"{"error":"no such host"}"#, ErrorKind::Malformed),
            (
                404,
                r#"{"message":"no Route matched","request_id":"1"}"#,
                ErrorKind::Malformed,
            ),
            (404, vault, ErrorKind::ConfigInvalid),
            (
                404,
                r#"{"data":null,"warnings":["Invalid path for a versioned K/V secrets engine."]}"#,
                ErrorKind::ConfigInvalid,
            ),
            (
                404,
                r#"{"errors":["namespace not found"]}"#,
                ErrorKind::ConfigInvalid,
            ),
            (404, html, ErrorKind::Malformed),
            (404, "", ErrorKind::Malformed),
            (404, "[]", ErrorKind::Malformed),
            (405, vault, ErrorKind::ConfigInvalid),
            (412, vault, ErrorKind::Unavailable),
            (418, vault, ErrorKind::Malformed),
            (429, vault, ErrorKind::RateLimited),
            (429, html, ErrorKind::RateLimited),
            (473, vault, ErrorKind::Unavailable),
            (500, vault, ErrorKind::Unavailable),
            (502, html, ErrorKind::Unavailable),
            (503, r#"{"errors":["Vault is sealed"]}"#, ErrorKind::Unavailable),
        ];
        for (status, body, want) in cases {
            let error = purpose().failed(&answer(status, body));
            assert_eq!(error.kind, want, "{status} {body}");
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        }
    }

    #[test]
    fn error_does_not_depend_on_the_response_length() {
        for status in [200, 403, 404, 418] {
            let short = purpose().malformed(&answer(status, "canary"), "holds no data");
            let long = purpose().malformed(&answer(status, &"canary".repeat(100)), "holds no data");
            assert_eq!(short, long);
            let short = purpose().failed(&answer(status, "canary"));
            let long = purpose().failed(&answer(status, &"canary".repeat(100)));
            assert_eq!(short, long);
        }
    }

    /// The server reads `*` at the end and `+` as a segment as wildcards, and `{{…}}` as a
    /// template.
    #[test]
    fn policy_line_is_omitted_if_it_would_grant_more() {
        for path in [
            "secret/data/*",
            "secret/data/shop*",
            "secret/data/+/db",
            "secret/data/a+b",
            "secret/data/{{identity.entity.id}}",
        ] {
            let purpose = Purpose {
                policy: Some((path.to_owned(), "read")),
                ..purpose()
            };
            let error = purpose.failed(&answer(403, r#"{"errors":["permission denied"]}"#));
            let hint = error.hint.unwrap_or_default();
            assert!(!hint.contains("capabilities"), "{hint}");
            assert!(hint.contains("by hand") && hint.contains(path), "{hint}");
        }
    }

    #[test]
    fn sealed_server_is_reported_as_sealed() {
        let error = purpose().failed(&answer(503, r#"{"errors":["Vault is sealed"]}"#));
        assert_eq!(error.message, "the server is sealed (status 503)");
    }

    #[test]
    fn retry_after_is_kept_if_the_server_cannot_serve() {
        assert_eq!(
            purpose().failed(&answer(429, "")).retry_after,
            Some(Duration::from_secs(7))
        );
        assert_eq!(
            purpose().failed(&answer(503, "")).retry_after,
            Some(Duration::from_secs(7))
        );
        assert_eq!(
            purpose().failed(&answer(404, r#"{"errors":[]}"#)).retry_after,
            None
        );
    }

    #[test]
    fn path_in_the_policy_line_stays_one_string() {
        let purpose = Purpose {
            policy: Some((
                "secret/data/x\" { capabilities = [\"sudo\"] }\npath \"${y}".to_owned(),
                "read",
            )),
            ..purpose()
        };
        let error = purpose.failed(&answer(403, r#"{"errors":["permission denied"]}"#));
        let wanted = r#"The policy needs: path "secret/data/x\" { capabilities = [\"sudo\"] }\u000apath \"\u0024{y}" { capabilities = ["read"] }"#;
        assert!(error.to_string().ends_with(wanted), "{error}");
    }

    #[test]
    fn denial_names_key_role_method_and_policy_line() {
        assert_eq!(
            purpose()
                .failed(&answer(403, r#"{"errors":["permission denied"]}"#))
                .to_string(),
            "permission denied reading \"shop/database\" as role \"shop\" (auth/kubernetes). \
             The policy needs: path \"secret/data/shop/database\" { capabilities = [\"read\"] }"
        );
    }
}
