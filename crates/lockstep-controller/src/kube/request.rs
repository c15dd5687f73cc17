//! Timeouts and error kinds of all requests to the API server.

use std::time::Duration;

use kube::Error;

/// The media type that makes the API server return metadata only.
pub(crate) const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Timeout of a request that writes.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout of a request that reads.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// The kind of an error. The text of the API server is not used, because it can quote objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// RBAC, an admission policy, a webhook or a quota denies the request.
    Forbidden,
    /// The object or its kind does not exist.
    NotFound,
    /// The object exists, or it changed since it was read.
    Conflict,
    /// The API server does not accept the request, and a retry does not help.
    Invalid,
    /// The API server did not answer, or a retry can help.
    Unavailable,
}

impl ErrorKind {
    /// Returns the kind of an error.
    pub(crate) fn of(error: &Error) -> Self {
        let Error::Api(status) = error else {
            return Self::Unavailable;
        };
        match status.code {
            403 => Self::Forbidden,
            404 => Self::NotFound,
            409 => Self::Conflict,
            401 | 408 | 429 => Self::Unavailable,
            400..500 => Self::Invalid,
            _ => Self::Unavailable,
        }
    }
}

/// Limits the time of a request. A late response is an error without a response.
pub(crate) async fn bounded<T>(
    timeout: Duration,
    request: impl Future<Output = kube::Result<T>>,
) -> kube::Result<T> {
    let late = || Error::Service(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
    tokio::time::timeout(timeout, request)
        .await
        .unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_code_determines_the_error_kind() {
        let rows = [
            (400, ErrorKind::Invalid),
            (401, ErrorKind::Unavailable),
            (403, ErrorKind::Forbidden),
            (404, ErrorKind::NotFound),
            (409, ErrorKind::Conflict),
            (422, ErrorKind::Invalid),
            (429, ErrorKind::Unavailable),
            (500, ErrorKind::Unavailable),
        ];
        for (code, kind) in rows {
            let status = kube::core::Status {
                code,
                ..kube::core::Status::default()
            };
            assert_eq!(ErrorKind::of(&Error::Api(Box::new(status))), kind, "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn late_response_counts_as_no_response() {
        let late = bounded(READ_TIMEOUT, std::future::pending::<kube::Result<()>>()).await;
        assert_eq!(ErrorKind::of(&late.unwrap_err()), ErrorKind::Unavailable);
    }
}
