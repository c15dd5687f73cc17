use std::{fmt, time::Duration};

use lockstep_api::Reason;

/// Upper bound for `retry_after`. Longer values are clamped.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Classifies a provider error. It alone determines the requeue, the reason of the condition and
/// event, and the label in metrics.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, strum::IntoStaticStr, strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum ErrorKind {
    /// The remote value or its version does not exist.
    NotFound,
    /// The credentials are valid but not authorized for this request.
    PermissionDenied,
    /// The configuration of the store cannot work.
    ConfigInvalid,
    /// The credentials that `auth` of the store names do not exist, or lockstep may not read them.
    CredentialsUnavailable,
    /// The response does not have the required form.
    Malformed,
    /// The provider does not support the request.
    Unsupported,
    /// The ciphertext is damaged, or belongs to another key or location.
    Undecryptable,
    /// The KMS key is disabled, destroyed or missing, or the requested version of a remote value
    /// exists but is disabled or destroyed. It never means that a value was deleted.
    KeyUnavailable,
    /// The credentials were rejected or have expired.
    Unauthenticated,
    /// The backend rejected the request because of its rate limit.
    RateLimited,
    /// The backend cannot be reached, or reports that it cannot serve requests.
    Unavailable,
    /// The backend did not respond in time.
    Timeout,
    /// A bug in lockstep.
    Internal,
}

/// When a failed object is reconciled again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeue {
    /// After the refresh interval.
    RefreshInterval,
    /// After a change of something that the object depends on, and with a slow recheck as a
    /// fallback.
    OnChange,
    /// Almost at once, for new credentials, then with backoff.
    Quick,
    /// After the delay that the backend requested, for all requests to the store.
    RetryAfter,
    /// With exponential backoff and jitter.
    Backoff,
    /// With longer exponential backoff and jitter.
    LongBackoff,
}

impl ErrorKind {
    /// Returns the label in metrics and logs.
    pub fn label(self) -> &'static str {
        self.into()
    }

    /// Returns the reason in conditions and events.
    pub const fn reason(self) -> Reason {
        match self {
            Self::NotFound => Reason::SourceNotFound,
            Self::PermissionDenied => Reason::PermissionDenied,
            Self::ConfigInvalid => Reason::ConfigInvalid,
            Self::CredentialsUnavailable => Reason::CredentialsUnavailable,
            Self::Malformed => Reason::Malformed,
            Self::Unsupported => Reason::Unsupported,
            Self::Undecryptable => Reason::DecryptFailed,
            Self::KeyUnavailable => Reason::KeyUnavailable,
            Self::Unauthenticated => Reason::Unauthenticated,
            Self::RateLimited => Reason::RateLimited,
            Self::Unavailable => Reason::Unavailable,
            Self::Timeout => Reason::Timeout,
            Self::Internal => Reason::Internal,
        }
    }

    /// Returns when the failed object is reconciled again.
    pub const fn requeue(self) -> Requeue {
        match self {
            Self::NotFound => Requeue::RefreshInterval,
            Self::PermissionDenied
            | Self::ConfigInvalid
            | Self::CredentialsUnavailable
            | Self::Malformed
            | Self::Unsupported
            | Self::Undecryptable
            | Self::KeyUnavailable => Requeue::OnChange,
            Self::Unauthenticated => Requeue::Quick,
            Self::RateLimited => Requeue::RetryAfter,
            Self::Unavailable | Self::Timeout => Requeue::Backoff,
            Self::Internal => Requeue::LongBackoff,
        }
    }

    /// Whether the same request may succeed within seconds. The retry layer then sends it again.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Unavailable | Self::Timeout)
    }
}

/// The kind of a request to a provider, used as a label in metrics and as a word in messages.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, strum::IntoStaticStr, strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum Operation {
    /// Create a client from the configuration of a store.
    Configure,
    /// Log in to a backend.
    Login,
    /// Renew a login.
    Renew,
    /// Read values.
    Read,
    /// Search for values.
    Find,
    /// Decrypt a ciphertext.
    Decrypt,
    /// Encrypt a value. Only `lockstep seal` does this, never the operator.
    Encrypt,
    /// Check whether the store works.
    Check,
    /// Issue the token that a credential is issued with.
    IssueToken,
    /// Issue a credential.
    Mint,
    /// Renew the lease of a credential.
    RenewLease,
    /// Revoke a credential.
    Revoke,
    /// Receive change events.
    Listen,
}

impl Operation {
    /// Returns the label in metrics and logs.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

/// A failed request to a provider.
///
/// lockstep writes the message itself. It may contain what the user wrote (key, version, role,
/// mount), a status code and a length. It never contains a value, a credential, a field that the
/// user did not name, or text of the backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ProviderError {
    /// The kind of the error.
    pub kind: ErrorKind,
    /// The request that failed.
    pub operation: Operation,
    /// The message. It starts in lower case and follows `SecretStore/vault: `.
    pub message: String,
    /// What the user can do, as a separate sentence.
    pub hint: Option<String>,
    /// The delay that the backend requested before the next request.
    pub retry_after: Option<Duration>,
}

impl ProviderError {
    /// Creates an error without a hint and delay.
    pub fn new(kind: ErrorKind, operation: Operation, message: impl Into<String>) -> Self {
        Self {
            kind,
            operation,
            message: message.into(),
            hint: None,
            retry_after: None,
        }
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sets the delay that the backend requested, clamped to [`RETRY_AFTER_MAX`].
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after.min(RETRY_AFTER_MAX));
        self
    }
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, ". {hint}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_clamped_to_one_hour() {
        let error = ProviderError::new(ErrorKind::RateLimited, Operation::Read, "slow down");
        let forever = error.clone().with_retry_after(Duration::MAX);
        assert_eq!(forever.retry_after, Some(RETRY_AFTER_MAX));
        let soon = error.with_retry_after(Duration::from_secs(3));
        assert_eq!(soon.retry_after, Some(Duration::from_secs(3)));
    }
}
