//! Describes failures in our own words. Of a response, only the status, its name and the reason are
//! used. Its text is searched for the state of a version and never shown, because it repeats names,
//! policies and addresses.

use std::{error::Error as StdError, time::Duration};

use google_cloud_gax::error::Error;
use lockstep_http::{HttpError, ServiceHints};
use lockstep_provider::{CallError, ErrorKind, Operation, ProviderError};

use crate::{answer::Answer, refusal};

pub(crate) use crate::refusal::Why;

const HINTS: ServiceHints = ServiceHints {
    name: "Check location and the endpoints, and that the name is known inside of the cluster",
    certificate: "Check that nothing intercepts the connection, and that the endpoints are Google's own or have a public certificate",
};

/// The purpose of a failed call.
pub(crate) struct Purpose {
    pub(crate) operation: Operation,
    /// The request, with a verb in -ing: `reading "database"`.
    pub(crate) doing: String,
    /// The identity: `as service account shop@shop-prod.iam.gserviceaccount.com`.
    pub(crate) identity: String,
    /// The message if the object does not exist.
    pub(crate) missing: String,
    /// The required permission, and the role that contains it.
    pub(crate) role: &'static str,
}

/// The reason why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the call failed")]
pub(crate) enum Failed {
    /// There was no login to call with.
    Login(ProviderError),
    /// There was no usable response.
    Http(HttpError),
    /// The request could not be sent.
    NotSent,
    /// The service, or something in its place, returned an error.
    Refused {
        why: Why,
        status: u16,
        retry_after: Option<Duration>,
    },
}

impl Failed {
    /// Classifies an error of Google's library, which passes through the errors of our transport.
    pub(crate) fn of(error: &Error) -> Self {
        let mut source = error.source();
        while let Some(current) = source {
            if let Some(failed) = current.downcast_ref::<Self>() {
                return failed.clone();
            }
            source = current.source();
        }
        // The library rejected the request as incomplete.
        Self::NotSent
    }

    /// Classifies a response with an error.
    pub(crate) fn refused(answer: &Answer) -> Self {
        let (why, delay) = refusal::read(answer.status, &answer.body);
        Self::Refused {
            why,
            status: answer.status,
            retry_after: answer.retry_after.or(delay),
        }
    }

    /// Creates the error for a malformed response.
    pub(crate) fn garbage(status: u16) -> Self {
        Self::Refused {
            why: Why::Garbage,
            status,
            retry_after: None,
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
            Self::NotSent => {
                return purpose.failed(ErrorKind::ConfigInvalid, "the request could not be made");
            }
            Self::Refused {
                why,
                status,
                retry_after,
            } => (why, status, retry_after),
        };
        let error = purpose.refused(why, status);
        match retry_after {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        }
    }

    /// Returns the error of a login. `doing` is a verb in -ing: `exchanging the token of …`.
    pub(crate) fn login(self, doing: &str, advice: &str) -> ProviderError {
        let refused = match self.why() {
            Some(Why::Denied | Why::Missing) => Some(ErrorKind::PermissionDenied),
            Some(Why::Credentials | Why::Invalid | Why::Precondition) => Some(ErrorKind::Unauthenticated),
            _ => None,
        };
        let purpose = Purpose {
            operation: Operation::Login,
            doing: doing.to_owned(),
            identity: String::new(),
            missing: String::new(),
            role: "",
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
                    | Why::Denied
                    | Why::Disabled
                    | Why::Destroyed
                    | Why::Precondition
                    | Why::Invalid
            )
        )
    }
}

impl Purpose {
    fn refused(&self, why: Why, status: u16) -> ProviderError {
        let Self {
            doing,
            identity,
            missing,
            role,
            ..
        } = self;
        match why {
            Why::Missing => self.failed(ErrorKind::NotFound, missing.clone()),
            Why::Denied => self
                .failed(
                    ErrorKind::PermissionDenied,
                    format!("permission denied {doing} {identity}"),
                )
                .with_hint(format!("The identity needs {role}")),
            Why::ServiceDisabled => self
                .failed(
                    ErrorKind::PermissionDenied,
                    format!("{doing}: the API is not enabled in the project"),
                )
                .with_hint("Enable the API: gcloud services enable secretmanager.googleapis.com (or cloudkms, sts, iamcredentials), and wait a few minutes"),
            // Google returns FAILED_PRECONDITION for all three, which is neither NOT_FOUND nor
            // PERMISSION_DENIED, and so do we. With NotFound, `deletionPolicy: Delete` would delete
            // a Secret, and `optional` would omit a key, because a version was disabled, which is
            // meant to be reversible. The secret of a destroyed version still exists, so its Secret
            // may still be wanted. PermissionDenied would send the user to IAM, which is already
            // correct. KeyUnavailable is also the error for a KMS key in these states.
            Why::Disabled => self
                .failed(ErrorKind::KeyUnavailable, format!("{doing}: the version is disabled"))
                .with_hint("Enable the version, or set secretVersionSelectionPolicy: LatestOrFetch to read the newest version that is enabled"),
            Why::Destroyed => self
                .failed(ErrorKind::KeyUnavailable, format!("{doing}: the version is destroyed"))
                .with_hint("Add a new version, or set secretVersionSelectionPolicy: LatestOrFetch to read the newest version that is enabled"),
            Why::Precondition => self
                .failed(
                    ErrorKind::KeyUnavailable,
                    format!("{doing}: the version cannot be read in its current state"),
                )
                .with_hint("Check whether the version or its KMS key is disabled or destroyed"),
            Why::Credentials => self
                .failed(
                    ErrorKind::Unauthenticated,
                    format!("{doing} {identity}: the service rejected the credentials (status {status})"),
                )
                .with_hint("Check that the service account and its key still exist, and that the clock of the operator's node is correct"),
            Why::Throttled => self.failed(
                ErrorKind::RateLimited,
                format!("the service asks to slow down (status {status})"),
            ),
            Why::Broken => self.failed(
                ErrorKind::Unavailable,
                format!("the service is unavailable (status {status})"),
            ),
            Why::Invalid => self
                .failed(
                    ErrorKind::ConfigInvalid,
                    format!("{doing}: the service rejected the request as invalid (status {status})"),
                )
                .with_hint("Check the key, its version, and the store's projectID and location"),
            Why::Garbage => self
                .failed(
                    ErrorKind::Malformed,
                    format!("{doing}: the response does not come from Google (status {status})"),
                )
                .with_hint("Check that endpoint is the address of the service"),
        }
    }

    pub(crate) fn failed(&self, kind: ErrorKind, message: impl Into<String>) -> ProviderError {
        ProviderError::new(kind, self.operation, message)
    }

    /// Returns the error for a malformed response.
    pub(crate) fn malformed(&self, what: &str) -> ProviderError {
        self.failed(
            ErrorKind::Malformed,
            format!("{}: the response {what}", self.doing),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purpose() -> Purpose {
        Purpose {
            operation: Operation::Read,
            doing: "reading \"database\"".to_owned(),
            identity: "as service account shop@shop-prod.iam.gserviceaccount.com".to_owned(),
            missing: "key \"database\" does not exist".to_owned(),
            role: "secretmanager.versions.access: grant it roles/secretmanager.secretAccessor on the secret",
        }
    }

    fn refused(why: Why) -> ProviderError {
        let failed = Failed::Refused {
            why,
            status: 400,
            retry_after: None,
        };
        failed.error(&purpose())
    }

    #[test]
    fn every_cause_has_one_kind() {
        use ErrorKind as Kind;
        let cases = [
            (Why::Missing, Kind::NotFound),
            (Why::Denied, Kind::PermissionDenied),
            (Why::ServiceDisabled, Kind::PermissionDenied),
            (Why::Disabled, Kind::KeyUnavailable),
            (Why::Destroyed, Kind::KeyUnavailable),
            (Why::Precondition, Kind::KeyUnavailable),
            (Why::Credentials, Kind::Unauthenticated),
            (Why::Throttled, Kind::RateLimited),
            (Why::Broken, Kind::Unavailable),
            (Why::Invalid, Kind::ConfigInvalid),
            (Why::Garbage, Kind::Malformed),
        ];
        for (why, want) in cases {
            let error = refused(why);
            assert_eq!(error.kind, want, "{why:?}");
            assert!(!error.to_string().contains(".."), "{error}");
        }
        let untrusted = HttpError::Untrusted {
            why: "it is another's",
            hint: "",
        };
        for (error, want) in [
            (HttpError::NotAnsweredInTime, Kind::Timeout),
            (HttpError::NotConnected, Kind::Unavailable),
            (HttpError::Broken, Kind::Unavailable),
            (HttpError::NameNotResolved, Kind::Unavailable),
            (untrusted, Kind::Unavailable),
            (HttpError::PlainHttp, Kind::ConfigInvalid),
            (TOO_LONG, Kind::Malformed),
            (HttpError::TooComplex { status: 200 }, Kind::Malformed),
        ] {
            assert_eq!(Failed::Http(error).error(&purpose()).kind, want, "{error:?}");
        }
    }

    const TOO_LONG: HttpError = HttpError::TooLong {
        status: 200,
        longest: crate::answer::LONGEST_BODY,
    };

    #[test]
    fn unavailable_version_is_neither_missing_nor_denied() {
        for why in [Why::Disabled, Why::Destroyed, Why::Precondition] {
            let error = refused(why);
            assert_ne!(error.kind, ErrorKind::NotFound);
            assert_ne!(error.kind, refused(Why::Denied).kind);
            assert!(error.hint.is_some(), "{error}");
        }
    }

    #[test]
    fn denial_names_key_identity_and_role() {
        assert_eq!(
            refused(Why::Denied).to_string(),
            "permission denied reading \"database\" as service account shop@shop-prod.iam.gserviceaccount.com. \
             The identity needs secretmanager.versions.access: grant it roles/secretmanager.secretAccessor on the secret"
        );
    }

    #[test]
    fn transport_errors_pass_through_the_library() {
        let through = Failed::of(&Error::io(Failed::Http(TOO_LONG)));
        assert!(matches!(through, Failed::Http(error) if error == TOO_LONG));
        assert!(matches!(Failed::of(&Error::io("CANARY")), Failed::NotSent));
    }
}
