//! Describes failures in our own words. Of a response, only the error code and the status are used.
//! Its text is searched for a few words and never shown, because it repeats names, policies and
//! account numbers.

use std::{error::Error, time::Duration};

use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use lockstep_http::{BodyError, HttpError, ServiceHints, connection_failure};
use lockstep_provider::{CallError, ErrorKind, Operation, ProviderError, RemoteRef};

use crate::client::LONGEST_BODY;

const HINTS: ServiceHints = ServiceHints {
    name: "Check region and endpoint, and that the name is known inside of the cluster",
    certificate: "Check that nothing intercepts the connection, and that the endpoint is AWS' own or has a public certificate",
};

/// The purpose of a failed call.
pub(crate) struct Purpose {
    pub(crate) operation: Operation,
    /// The request, with a verb in -ing: `reading "shop/database"`.
    pub(crate) doing: String,
    /// The identity: `as role arn:aws:iam::123456789012:role/shop`.
    pub(crate) identity: String,
    /// The message if the object does not exist.
    pub(crate) missing: String,
    /// The action that the policy must grant.
    pub(crate) action: &'static str,
}

/// The reason why a call failed.
#[derive(Debug, Clone)]
pub(crate) enum Failed {
    /// There were no credentials to call with.
    Login(ProviderError),
    /// There was no usable response.
    Http(HttpError),
    /// The connection broke during the response.
    BrokenOff,
    /// The response is about another value or version than requested.
    Mismatch,
    /// The request could not be sent.
    NotSent,
    /// The service, or something in its place, returned an error.
    Refused {
        why: Why,
        status: u16,
        retry_after: Option<Duration>,
    },
}

/// The meaning of an error of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The value does not exist.
    Missing,
    /// The KMS key does not exist.
    NoKey,
    /// The queue does not exist.
    NoQueue,
    /// The secret is marked for deletion.
    Deleted,
    /// The policy does not grant the action.
    Denied,
    /// The value exists, but its KMS key may not be used.
    KeyDenied,
    /// The ciphertext belongs to another key or location, or is damaged.
    WrongCiphertext,
    /// The KMS key is disabled, or is about to be deleted.
    KeyUnusable,
    /// The credentials are invalid or have expired.
    Credentials,
    /// The clocks differ too much.
    Skewed,
    /// There were too many requests.
    Throttled,
    /// The service is unavailable.
    Broken,
    /// The request is invalid.
    Invalid,
    /// The response does not come from AWS.
    Garbage,
}

impl Failed {
    /// Classifies an error of the SDK.
    pub(crate) fn of<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E, HttpResponse>) -> Self {
        match error {
            SdkError::TimeoutError(_) => Self::Http(HttpError::NotAnsweredInTime),
            // Its only timeout is the one for connecting.
            SdkError::DispatchFailure(_) => {
                Self::Http(connection_failure(error).unwrap_or(HttpError::NotConnected))
            }
            SdkError::ServiceError(failure) => {
                let metadata = failure.err().meta();
                let raw = failure.raw();
                let own = metadata.code().map(str::to_owned);
                let code = own.or_else(|| raw.body().bytes().and_then(code_in_xml));
                let refused =
                    Self::refused(code.as_deref(), metadata.message().unwrap_or_default(), Some(raw));
                refused.unless_undocumented(raw)
            }
            SdkError::ResponseError(failure) => {
                let raw = failure.raw();
                let body = raw.body().bytes();
                let refused = Self::refused(body.and_then(code_in_xml).as_deref(), "", Some(raw));
                let refused = refused.unless_undocumented(raw);
                // Without a complete body, only the status can be used.
                if refused.why() == Some(Why::Garbage) && body.is_none() {
                    Self::of_body(error, raw.status().as_u16())
                } else {
                    refused
                }
            }
            // ConstructionFailure, and variants that later versions of the SDK may add.
            _ => Self::NotSent,
        }
    }

    /// Classifies why a body was not read to its end. A body that is too long would be so again.
    fn of_body(error: &(dyn Error + 'static), status: u16) -> Self {
        let mut sources = std::iter::successors(Some(error), |&error| error.source());
        match sources.find_map(<dyn Error>::downcast_ref::<BodyError>) {
            Some(BodyError::TooLong) => Self::Http(HttpError::TooLong {
                status,
                longest: LONGEST_BODY,
            }),
            Some(BodyError::TooComplex) => Self::Http(HttpError::TooComplex { status }),
            Some(BodyError::NoRoom) => Self::Http(HttpError::NoRoom),
            None => Self::BrokenOff,
        }
    }

    /// Classifies the error of one of several items of a request.
    pub(crate) fn of_part(code: Option<&str>, message: Option<&str>) -> Self {
        Self::refused(Some(code.unwrap_or("?")), message.unwrap_or_default(), None)
    }

    /// Creates the error for an item that does not exist.
    pub(crate) fn missing() -> Self {
        Self::Refused {
            why: Why::Missing,
            status: 400,
            retry_after: None,
        }
    }

    /// Creates the error for a secret that is marked for deletion.
    pub(crate) fn deleted() -> Self {
        Self::Refused {
            why: Why::Deleted,
            status: 400,
            retry_after: None,
        }
    }

    /// Creates the error for a malformed response.
    pub(crate) fn garbage() -> Self {
        Self::Refused {
            why: Why::Garbage,
            status: 200,
            retry_after: None,
        }
    }

    /// Discards the verdict that a value does not exist unless the service documents the response,
    /// because `deletionPolicy: Delete` then deletes the Secret. A proxy, a wrong endpoint or
    /// another service can return 404 or a similar code.
    fn unless_undocumented(self, raw: &HttpResponse) -> Self {
        let Self::Refused {
            why: Why::Missing | Why::Deleted,
            status,
            retry_after,
        } = self
        else {
            return self;
        };
        // The services return 400; moto returns 404.
        if matches!(status, 400 | 404) && raw.body().bytes().is_some_and(has_type) {
            return self;
        }
        Self::Refused {
            why: of_status(status, false),
            status,
            retry_after,
        }
    }

    /// Whether the item does not exist.
    pub(crate) fn is_missing(&self) -> bool {
        self.why() == Some(Why::Missing)
    }

    fn refused(code: Option<&str>, message: &str, raw: Option<&HttpResponse>) -> Self {
        let status = raw.map_or(400, |raw| raw.status().as_u16());
        let why = code
            .and_then(|code| of_code(code, message))
            .unwrap_or_else(|| of_status(status, code.is_some()));
        let retry_after = raw
            .and_then(|raw| raw.headers().get("retry-after"))
            .and_then(|text| text.trim().parse().ok())
            .map(Duration::from_secs);
        Self::Refused {
            why,
            status,
            retry_after,
        }
    }

    /// Returns the meaning of the error, if the service returned one.
    pub(crate) fn why(&self) -> Option<Why> {
        match self {
            Self::Refused { why, .. } => Some(*why),
            _ => None,
        }
    }

    /// Returns the error for the user.
    pub(crate) fn error(self, purpose: &Purpose) -> ProviderError {
        let (why, status, retry_after) = match self {
            Self::Login(error) => return error,
            Self::Http(error) => return error.into_cloud_error(purpose.operation, &purpose.doing, &HINTS),
            Self::BrokenOff => {
                let message = "the connection broke in the middle of the service's response";
                return purpose.failed(ErrorKind::Unavailable, message.to_owned());
            }
            Self::Mismatch => return purpose.malformed("is about another value or version"),
            Self::NotSent => {
                return purpose.failed(
                    ErrorKind::ConfigInvalid,
                    "the request could not be made".to_owned(),
                );
            }
            Self::Refused {
                why,
                status,
                retry_after,
            } => (why, status, retry_after),
        };
        let Purpose {
            doing,
            identity,
            missing,
            action,
            ..
        } = purpose;
        let error = match why {
            // In a search or a login, this does not mean that a value is missing.
            Why::Missing | Why::Deleted if purpose.operation != Operation::Read => purpose.not_of_aws(status),
            Why::NoQueue if purpose.operation != Operation::Listen => purpose.not_of_aws(status),
            Why::Missing | Why::NoQueue => purpose.failed(ErrorKind::NotFound, missing.clone()),
            Why::Deleted => purpose.failed(ErrorKind::NotFound, format!("{missing}: it is marked for deletion")),
            Why::Denied => purpose
                .failed(
                    ErrorKind::PermissionDenied,
                    format!("permission denied {doing} {identity}"),
                )
                .with_hint(format!("The policy needs: {action}")),
            Why::KeyDenied => purpose
                .failed(
                    ErrorKind::PermissionDenied,
                    format!("{doing} {identity}: permission denied for the KMS key of the value"),
                )
                .with_hint("The policy needs kms:Decrypt on the key that encrypts the value, and the key must be enabled"),
            Why::WrongCiphertext => purpose.failed(
                ErrorKind::Undecryptable,
                format!("{doing}: the ciphertext belongs to another key or location, or is damaged"),
            ),
            Why::KeyUnusable => purpose.failed(
                ErrorKind::KeyUnavailable,
                format!("{doing}: the KMS key is disabled or pending deletion"),
            ),
            Why::Credentials => purpose
                .failed(
                    ErrorKind::Unauthenticated,
                    format!("{doing} {identity}: the service rejected the credentials (status {status})"),
                )
                .with_hint("Check that the credentials are still valid, and that they belong to the account and region of the store"),
            Why::Skewed => purpose
                .failed(
                    ErrorKind::Unauthenticated,
                    format!("{doing}: the service reports that the clock is wrong (status {status})"),
                )
                .with_hint("Set the clock of the operator's node"),
            Why::Throttled => purpose.failed(
                ErrorKind::RateLimited,
                format!("the service asks to slow down (status {status})"),
            ),
            Why::Broken => purpose.failed(
                ErrorKind::Unavailable,
                format!("the service is unavailable (status {status})"),
            ),
            Why::Invalid => purpose
                .failed(
                    ErrorKind::ConfigInvalid,
                    format!("{doing}: the service rejected the request as invalid (status {status})"),
                )
                .with_hint("Check the key, its version, and the store's prefix"),
            Why::Garbage | Why::NoKey => purpose.not_of_aws(status),
        };
        match retry_after {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        }
    }

    /// Returns the error of a login. `doing` is a verb in -ing: `assuming role …`.
    pub(crate) fn login(self, doing: &str, advice: &str) -> ProviderError {
        let refused = match self.why() {
            Some(Why::Denied) => Some(ErrorKind::PermissionDenied),
            Some(Why::Credentials | Why::Invalid) => Some(ErrorKind::Unauthenticated),
            _ => None,
        };
        let purpose = Purpose {
            operation: Operation::Login,
            doing: doing.to_owned(),
            identity: String::new(),
            missing: String::new(),
            action: "",
        };
        match refused {
            Some(kind) => purpose
                .failed(kind, format!("{doing}: the token service rejected the request"))
                .with_hint(advice),
            None => self.error(&purpose),
        }
    }
}

impl From<ProviderError> for Failed {
    fn from(error: ProviderError) -> Self {
        Self::Login(error)
    }
}

impl CallError for Failed {
    fn is_of_credentials(&self) -> bool {
        self.why() == Some(Why::Credentials)
    }

    fn is_an_answer(&self) -> bool {
        matches!(
            self.why(),
            Some(
                Why::Missing
                    | Why::NoKey
                    | Why::NoQueue
                    | Why::Deleted
                    | Why::Denied
                    | Why::KeyDenied
                    | Why::WrongCiphertext
                    | Why::KeyUnusable
                    | Why::Invalid
            )
        )
    }
}

impl Purpose {
    /// Describes the read of a value, which requires this action.
    pub(crate) fn reading(reference: &RemoteRef, identity: String, action: &'static str) -> Self {
        let key = &reference.key;
        let missing = match &reference.version {
            None => format!("key \"{key}\" does not exist"),
            Some(version) => format!("key \"{key}\" does not exist, or has no version \"{version}\""),
        };
        Self {
            operation: Operation::Read,
            doing: format!("reading \"{key}\""),
            identity,
            missing,
            action,
        }
    }

    fn failed(&self, kind: ErrorKind, message: String) -> ProviderError {
        ProviderError::new(kind, self.operation, message)
    }

    /// Returns the error for a response that the service does not document.
    fn not_of_aws(&self, status: u16) -> ProviderError {
        self.malformed(&format!("does not come from AWS (status {status})"))
            .with_hint("Check that endpoint is the address of the service")
    }

    /// Returns the error for a malformed response.
    pub(crate) fn malformed(&self, what: &str) -> ProviderError {
        self.failed(
            ErrorKind::Malformed,
            format!("{}: the response {what}", self.doing),
        )
    }
}

/// Creates the error for an invalid key. `what` continues the sentence after the key.
pub(crate) fn invalid_key(key: &str, what: impl std::fmt::Display) -> ProviderError {
    let message = format!("key \"{}\" {what}", key.escape_debug());
    ProviderError::new(ErrorKind::ConfigInvalid, Operation::Read, message)
}

/// The complete text with which Secrets Manager refuses to read a secret that is marked for
/// deletion. Any other text, for example one with such a word in the name of a secret, does not
/// prove that the value is gone.
const MARKED_FOR_DELETION: [&str; 2] = [
    "You can't perform this operation on the secret because it was marked for deletion.",
    "You can\u{2019}t perform this operation on the secret because it was marked for deletion.",
];

/// Returns the meaning of an error code. For a few codes with several meanings, a word in the text
/// decides.
fn of_code(code: &str, text: &str) -> Option<Why> {
    Some(match code {
        "ResourceNotFoundException"
        | "InvalidResourceId"
        | "ParameterNotFound"
        | "ParameterVersionNotFound" => Why::Missing,
        "NotFoundException" => Why::NoKey,
        "QueueDoesNotExist" | "AWS.SimpleQueueService.NonExistentQueue" => Why::NoQueue,
        "InvalidCiphertextException" | "IncorrectKeyException" => Why::WrongCiphertext,
        "DisabledException" | "KMSInvalidStateException" => Why::KeyUnusable,
        "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" | "NotAuthorized" => {
            if text.to_ascii_lowercase().contains("access to kms is not allowed") {
                Why::KeyDenied
            } else {
                Why::Denied
            }
        }
        "DecryptionFailure"
        | "InvalidKeyId"
        | "KMSAccessDeniedException"
        | "KMSDisabledException"
        | "KmsAccessDenied"
        | "KMS.AccessDeniedException"
        | "KmsDisabled"
        | "KMS.DisabledException" => Why::KeyDenied,
        "ExpiredTokenException"
        | "ExpiredToken"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidClientTokenIdException"
        | "InvalidAccessKeyId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "InvalidIdentityToken"
        | "IDPRejectedClaim"
        | "AuthFailure"
        | "OptInRequired" => Why::Credentials,
        "RequestTimeTooSkewed" | "RequestExpired" => Why::Skewed,
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "TooManyRequests"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "ProvisionedThroughputExceededException"
        | "BandwidthLimitExceeded"
        | "OverLimit"
        | "SlowDown" => Why::Throttled,
        "InternalServiceError"
        | "InternalServiceErrorException"
        | "InternalServerError"
        | "InternalFailure"
        | "InternalFailureException"
        | "InternalError"
        | "KMSInternalException"
        | "KeyUnavailableException"
        | "DependencyTimeoutException"
        | "IDPCommunicationError" => Why::Broken,
        // The code has several causes, and only its text distinguishes them.
        "InvalidRequestException" if MARKED_FOR_DELETION.contains(&text) => Why::Deleted,
        "InvalidRequestException"
        | "ValidationException"
        | "ValidationError"
        | "InvalidParameterException"
        | "InvalidKeyUsageException"
        | "InvalidArnException"
        | "InvalidParameterValue"
        | "InvalidNextTokenException"
        | "InvalidNextToken"
        | "InvalidFilterKey"
        | "InvalidFilterValue"
        | "InvalidFilterOption"
        | "UnsupportedParameterType"
        | "MalformedPolicyDocument"
        | "PackedPolicyTooLarge"
        | "RegionDisabledException" => Why::Invalid,
        _ => return None,
    })
}

/// Returns the meaning of a status without a known code.
fn of_status(status: u16, is_of_aws: bool) -> Why {
    match status {
        429 | 503 => Why::Throttled,
        300..=399 | 500..=599 => Why::Broken,
        401 if is_of_aws => Why::Credentials,
        403 if is_of_aws => Why::Denied,
        // No service reports a missing value with a status alone or with an unlisted code.
        404 => Why::Garbage,
        400..=499 if is_of_aws => Why::Invalid,
        _ => Why::Garbage,
    }
}

/// Whether a body names its error in `__type`, as the JSON protocols of AWS do. The SDK also
/// accepts `code`, which others use.
fn has_type(body: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(body).is_ok_and(|body| body["__type"].is_string())
}

/// Returns the error code of an XML response to a JSON request. Gateways in front of a service
/// sometimes return XML. Only a single word is accepted; it is compared and never shown.
fn code_in_xml(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body.get(..body.len().min(4096))?).ok()?;
    let (_, rest) = text
        .trim_start()
        .strip_prefix('<')
        .and_then(|_| text.split_once("<Code>"))?;
    let (code, _) = rest.split_once("</Code>")?;
    let is_word =
        !code.is_empty() && code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_word.then(|| code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purpose() -> Purpose {
        Purpose {
            operation: Operation::Read,
            doing: "reading \"shop/database\"".to_owned(),
            identity: "as role arn:aws:iam::123456789012:role/shop".to_owned(),
            missing: "key \"shop/database\" does not exist".to_owned(),
            action: "secretsmanager:GetSecretValue",
        }
    }

    #[test]
    fn every_code_has_one_kind_and_its_text_is_not_shown() {
        let cases = [
            ("ResourceNotFoundException", "", ErrorKind::NotFound),
            ("ParameterNotFound", "", ErrorKind::NotFound),
            ("AccessDeniedException", "", ErrorKind::PermissionDenied),
            (
                "AccessDeniedException",
                "Access to KMS is not allowed",
                ErrorKind::PermissionDenied,
            ),
            ("DecryptionFailure", "", ErrorKind::PermissionDenied),
            ("ExpiredTokenException", "", ErrorKind::Unauthenticated),
            ("UnrecognizedClientException", "", ErrorKind::Unauthenticated),
            ("InvalidSignatureException", "", ErrorKind::Unauthenticated),
            ("RequestTimeTooSkewed", "", ErrorKind::Unauthenticated),
            ("ThrottlingException", "", ErrorKind::RateLimited),
            ("TooManyRequestsException", "", ErrorKind::RateLimited),
            ("InternalServiceError", "", ErrorKind::Unavailable),
            ("InvalidRequestException", "", ErrorKind::ConfigInvalid),
            (
                "InvalidRequestException",
                "it was marked for deletion",
                ErrorKind::ConfigInvalid,
            ),
            ("ValidationException", "", ErrorKind::ConfigInvalid),
            ("InvalidCiphertextException", "", ErrorKind::Undecryptable),
            ("IncorrectKeyException", "", ErrorKind::Undecryptable),
            ("DisabledException", "", ErrorKind::KeyUnavailable),
            ("KMSInvalidStateException", "", ErrorKind::KeyUnavailable),
            ("KeyUnavailableException", "", ErrorKind::Unavailable),
            ("SomethingNew", "", ErrorKind::ConfigInvalid),
        ];
        for (code, text, want) in cases {
            let error = Failed::of_part(Some(code), Some(&format!("{text} canary"))).error(&purpose());
            assert_eq!(error.kind, want, "{code} {text}");
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
            assert!(!error.to_string().contains(".."), "{error}");
        }
    }

    #[test]
    fn status_without_an_aws_code_is_garbage_unless_clear() {
        for (status, want) in [
            (200, Why::Garbage),
            (302, Why::Broken),
            (403, Why::Garbage),
            (404, Why::Garbage),
            (429, Why::Throttled),
            (500, Why::Broken),
            (502, Why::Broken),
            (503, Why::Throttled),
        ] {
            assert_eq!(of_status(status, false), want, "{status}");
        }
        assert_eq!(of_status(403, true), Why::Denied);
        assert_eq!(of_status(404, true), Why::Garbage, "a code that is not listed");
    }

    #[test]
    fn denial_names_the_key_the_role_and_the_missing_action() {
        let error = Failed::of_part(Some("AccessDeniedException"), None).error(&purpose());
        assert_eq!(
            error.to_string(),
            "permission denied reading \"shop/database\" as role arn:aws:iam::123456789012:role/shop. \
             The policy needs: secretsmanager:GetSecretValue"
        );
    }

    #[test]
    fn only_the_code_of_an_xml_error_is_used() {
        let xml =
            b"<ErrorResponse><Error><Code>Throttling</Code><Message>canary</Message></Error></ErrorResponse>";
        assert_eq!(code_in_xml(xml).as_deref(), Some("Throttling"));
        for bad in [
            &b"<html>canary</html>"[..],
            b"{\"a\":\"<Code>Throttling</Code>\"}",
            b"<Code></Code>",
            b"<Code>can ary</Code>",
            b"",
        ] {
            assert_eq!(code_in_xml(bad), None);
        }
    }
}
