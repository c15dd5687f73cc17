//! Classifies errors of the API server about Secrets. The text of the server is never shown,
//! because it can quote the submitted or the stored object.

use kube::core::response::{StatusCause, StatusDetails};
use lockstep_core::secret_write::WriteError;

/// The policy that restricts the operator to its own Secrets.
const POLICY: &str = "lockstep-secrets";

/// A rule of the policy that can deny a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// A new Secret needs an owner.
    Creation,
    /// Only the owner changes a Secret.
    Ownership,
    /// A Secret with finalizers is not deleted, and one that is being deleted is not changed.
    Deletion,
    /// Another rule.
    Other,
}

/// The messages of the policy by rule. A test compares them with the policy.
const MESSAGES: [(Rule, &str); 3] = [
    (
        Rule::Creation,
        "lockstep creates only Secrets that carry the annotation lockstep.dev/owner",
    ),
    (
        Rule::Ownership,
        "lockstep changes only Secrets whose annotation lockstep.dev/owner, lockstep.dev/adopt or lockstep.dev/merge names the SyncedSecret that writes them",
    ),
    (
        Rule::Deletion,
        "lockstep does not delete a Secret that has finalizers, and changes none that is being deleted",
    ),
];

/// The optional policy that denies earlier what [`POLICY`] denies. It denies by a JSON patch that
/// fails.
const EARLY_POLICY: &str = "lockstep-deny-guesses";

/// The paths of the failing patches by rule. A test compares them with the policy.
const EARLY_PATHS: [(Rule, &str); 1] = [(Rule::Ownership, "/denied-by-rule-ownership")];

/// An error of the API server, classified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ApiError {
    /// A Secret of that name exists.
    AlreadyExists,
    /// The Secret does not exist.
    NotFound,
    /// A precondition failed.
    Conflict,
    /// A field cannot be changed.
    Immutable,
    /// The admission policy denied the request.
    Denied(Rule),
    /// The role lacks the permission.
    Forbidden,
    /// The namespace is being deleted, or is gone.
    NamespaceTerminating,
    /// The Secret, or the request, is too large.
    TooLarge,
    /// Any other error, without the text of the server, and whether a retry can help.
    Other { what: String, transient: bool },
}

impl From<ApiError> for WriteError {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::AlreadyExists | ApiError::Conflict => WriteError::Raced,
            ApiError::NotFound => WriteError::Missing,
            ApiError::Immutable => WriteError::Immutable,
            ApiError::Denied(Rule::Deletion) => WriteError::NotDeletable,
            ApiError::Denied(_) => WriteError::Foreign,
            ApiError::Forbidden => WriteError::Other {
                what: "the API server rejected the request: lockstep's role lacks a permission".to_owned(),
                transient: false,
            },
            ApiError::NamespaceTerminating => WriteError::NamespaceTerminating,
            ApiError::TooLarge => WriteError::TooLarge,
            ApiError::Other { what, transient } => WriteError::Other { what, transient },
        }
    }
}

/// Classifies an error.
pub(super) fn classify(error: &kube::Error) -> ApiError {
    let kube::Error::Api(status) = error else {
        return ApiError::Other {
            what: "the API server could not be reached".to_owned(),
            transient: true,
        };
    };
    let details = status.details.as_ref();
    let terminating = |cause: &StatusCause| cause.reason == "NamespaceTerminating";
    if causes(details).iter().any(terminating) {
        return ApiError::NamespaceTerminating;
    }
    match status.code {
        403 if let Some(rule) = denying_rule(&status.message) => ApiError::Denied(rule),
        403 if status.message.contains("cannot patch resource \"secrets\"") => ApiError::Forbidden,
        403 => ApiError::Other {
            what: "the API server rejected the request: lockstep's role lacks a permission, or a quota or another policy denies it"
                .to_owned(),
            transient: false,
        },
        404 if details.is_some_and(|details| details.kind == "namespaces") => ApiError::NamespaceTerminating,
        404 => ApiError::NotFound,
        409 if status.reason == "AlreadyExists" => ApiError::AlreadyExists,
        409 => ApiError::Conflict,
        413 => ApiError::TooLarge,
        422 if is_immutability(details) => ApiError::Immutable,
        422 if status.message.contains("Too long") || status.message.contains("must have at most") => {
            ApiError::TooLarge
        }
        code => ApiError::Other {
            what: format!("the API server returned {code} {}", word(&status.reason)),
            transient: code == 429 || code >= 500,
        },
    }
}

fn causes(details: Option<&StatusDetails>) -> &[StatusCause] {
    details.map_or(&[], |details| details.causes.as_slice())
}

/// Whether an object is rejected only because of immutable fields of a Secret. The message alone
/// does not decide, because it contains names that users chose.
fn is_immutability(details: Option<&StatusDetails>) -> bool {
    let immutable = |cause: &StatusCause| {
        matches!(cause.field.as_str(), "data" | "immutable" | "type")
            && cause.message.contains("field is immutable")
    };
    !causes(details).is_empty() && causes(details).iter().all(immutable)
}

/// Returns the rule of lockstep's policies for Secrets that denied the request. The message can
/// contain names that users chose, but none of them can contain the quotes around the name of the
/// policy.
fn denying_rule(message: &str) -> Option<Rule> {
    if let Some(why) = denial(message, &format!("ValidatingAdmissionPolicy '{POLICY}'")) {
        let known = MESSAGES.iter().find(|(_, text)| why == *text);
        return Some(known.map_or(Rule::Other, |(rule, _)| *rule));
    }
    let why = denial(message, &format!("policy '{EARLY_POLICY}'"))?;
    let known = EARLY_PATHS
        .iter()
        .find(|(_, path)| why.starts_with("JSON Patch: ") && why.contains(&format!("'{path}'")));
    Some(known.map_or(Rule::Other, |(rule, _)| *rule))
}

/// Returns why `policy` denied the request, if it did.
fn denial<'a>(message: &'a str, policy: &str) -> Option<&'a str> {
    let (_, refusal) = message.split_once(&format!("{policy} with binding "))?;
    let (_, why) = refusal.split_once("denied request: ")?;
    Some(why.trim())
}

/// A reason of the API server: one word of letters, or nothing.
fn word(reason: &str) -> &str {
    if reason.len() <= 64 && reason.chars().all(|c| c.is_ascii_alphabetic()) {
        reason
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn api(code: u16, reason: &str, message: &str) -> kube::Error {
        let status = kube::core::Status {
            code,
            reason: reason.into(),
            message: message.into(),
            ..kube::core::Status::default()
        };
        kube::Error::Api(Box::new(status))
    }

    fn with_causes(code: u16, reason: &str, causes: &[(&str, &str, &str)]) -> kube::Error {
        let cause = |(reason, field, message): &(&str, &str, &str)| json!({ "reason": reason, "message": message, "field": field });
        let status = json!({
            "status": "Failure", "code": code, "reason": reason, "message": "Secret \"immutable\" is invalid",
            "details": { "name": "immutable", "kind": "Secret", "causes": causes.iter().map(cause).collect::<Vec<_>>() },
        });
        kube::Error::Api(Box::new(serde_json::from_value(status).unwrap()))
    }

    fn invalid(causes: &[(&str, &str)]) -> kube::Error {
        let causes: Vec<_> = causes
            .iter()
            .map(|(field, message)| ("FieldValueInvalid", *field, *message))
            .collect();
        with_causes(422, "Invalid", &causes)
    }

    #[test]
    fn errors_are_classified_by_code_reason_and_fields() {
        let policy = |why: &str| {
            format!(
                "secrets \"x\" is forbidden: ValidatingAdmissionPolicy 'lockstep-secrets' with binding 'b' denied request: {why}"
            )
        };
        let early = |path: &str| {
            format!(
                "policy 'lockstep-deny-guesses' with binding 'b' denied request: JSON Patch: error in remove for path: '{path}': Unable to remove nonexistent key: x: missing value"
            )
        };
        let rbac = "secrets \"x\" is forbidden: User \"u\" cannot patch resource \"secrets\" in API group \"\" in the namespace \"shop\"";
        let rows = [
            (
                api(403, "Forbidden", &policy("no")),
                ApiError::Denied(Rule::Other),
            ),
            (
                api(
                    403,
                    "Forbidden",
                    &policy(
                        "lockstep does not delete a Secret that has finalizers, and changes none that is being deleted",
                    ),
                ),
                ApiError::Denied(Rule::Deletion),
            ),
            // someone else's policy does not speak for lockstep's
            (
                api(
                    403,
                    "Forbidden",
                    &policy("no: lockstep creates only Secrets that carry the annotation lockstep.dev/owner"),
                ),
                ApiError::Denied(Rule::Other),
            ),
            (api(403, "Forbidden", rbac), ApiError::Forbidden),
            (api(404, "NotFound", ""), ApiError::NotFound),
            (api(409, "AlreadyExists", ""), ApiError::AlreadyExists),
            (api(409, "Conflict", "Precondition failed"), ApiError::Conflict),
            (api(413, "RequestEntityTooLarge", ""), ApiError::TooLarge),
            (
                invalid(&[("data", "Forbidden: field is immutable when `immutable` is set")]),
                ApiError::Immutable,
            ),
            (
                api(422, "Invalid", "data: Too long: must have at most 1048576 bytes"),
                ApiError::TooLarge,
            ),
            (
                api(403, "Forbidden", &early("/denied-by-rule-ownership")),
                ApiError::Denied(Rule::Ownership),
            ),
            (
                api(403, "Forbidden", &early("/denied-by-rule-dry-run")),
                ApiError::Denied(Rule::Other),
            ),
            // an error of the policy is not a denial by the rule
            (
                api(
                    403,
                    "Forbidden",
                    "policy 'lockstep-deny-guesses' with binding 'b' denied request: expression '/denied-by-rule-ownership' failed",
                ),
                ApiError::Denied(Rule::Other),
            ),
            (
                with_causes(
                    403,
                    "Forbidden",
                    &[("NamespaceTerminating", "metadata.namespace", "")],
                ),
                ApiError::NamespaceTerminating,
            ),
        ];
        for (error, expected) in rows {
            assert_eq!(classify(&error), expected, "{error}");
        }
    }

    #[test]
    fn only_immutable_fields_count_as_immutable() {
        let rows = [
            invalid(&[
                ("type", "Invalid value: \"a\": field is immutable"),
                ("data[tls.crt]", "Required value"),
            ]),
            invalid(&[(
                "data[.dockerconfigjson]",
                "Invalid value: of Secret immutable: field is immutable",
            )]),
            api(422, "Invalid", "Secret \"immutable\" is invalid"),
            api(403, "Forbidden", "User cannot update"),
            api(
                403,
                "Forbidden",
                "secrets \"lockstep-secrets\" is forbidden: ValidatingAdmissionPolicy 'quota' with binding 'b' denied request: no",
            ),
        ];
        for error in rows {
            let classified = classify(&error);
            assert!(
                matches!(classified, ApiError::Other { transient: false, .. }),
                "{classified:?}"
            );
        }
        assert!(matches!(
            classify(&api(503, "ServiceUnavailable", "etcd")),
            ApiError::Other { transient: true, .. }
        ));
    }

    #[test]
    fn no_text_of_the_api_server_is_kept() {
        for code in [400, 403, 404, 409, 413, 422, 429, 500] {
            let classified = format!(
                "{:?}",
                classify(&api(code, "canary canary", "canary Too long canary"))
            );
            assert!(!classified.contains("canary"), "{classified}");
        }
    }

    #[test]
    fn messages_are_those_of_the_policy() {
        let policy = include_str!("../../../../../deploy/kustomize/base/admission-secrets.yaml");
        let policy = policy.split_whitespace().collect::<Vec<_>>().join(" ");
        for (rule, message) in MESSAGES {
            assert!(policy.contains(&format!("message: >- {message} ")), "{rule:?}");
        }
    }

    #[test]
    fn early_policy_has_the_paths_and_conditions() {
        let text = |policy: &str| policy.split_whitespace().collect::<Vec<_>>().join(" ");
        let policy = text(include_str!(
            "../../../../../deploy/kustomize/base/admission-secrets.yaml"
        ));
        let early = text(include_str!(
            "../../../../../deploy/kustomize/components/deny-guesses/admission-guesses.yaml"
        ));
        assert!(early.contains(&format!("metadata: name: {EARLY_POLICY} ")));
        for (rule, path) in EARLY_PATHS {
            assert!(early.contains(&format!("path: '{path}'")), "{rule:?}");
        }
        // the text from `start` to the end of its expression
        let expression = |start: &str| {
            let (_, rest) = early.split_once(start).expect(start);
            let ends = [" - name: ", " mutations: "]
                .into_iter()
                .filter_map(|end| rest.find(end));
            let rest = &rest[..ends.min().unwrap_or(rest.len())];
            format!("{start}{rest}")
        };
        for name in ["owner", "oldOwner", "oldAdopt", "isClaim", "mayMerge"] {
            let variable = expression(&format!(" - name: {name} expression: "));
            assert!(policy.contains(&variable), "{variable}");
        }
        for start in [
            "variables.mayMerge || variables.owner != ''",
            "!variables.isClaim || request.dryRun &&",
            "!request.dryRun || variables.mayMerge",
        ] {
            let condition = expression(start).replace(
                "request.dryRun && variables",
                "request.dryRun && request.operation == 'UPDATE' && variables",
            );
            assert!(policy.contains(&condition), "{condition}");
        }
    }
}
