use std::{fmt, time::Duration};

use lockstep_api::Reason;

/// The longest pause that a backend is believed to want: what asks for more is looked at again then.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What went wrong at a provider. What happens next, the condition's reason, the event's reason and the metric's label
/// are each one function of this.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, strum::IntoStaticStr, strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum ErrorKind {
    /// The remote value, or its version, does not exist.
    NotFound,
    /// The credentials are good, but do not cover this.
    PermissionDenied,
    /// The store's configuration cannot work.
    ConfigInvalid,
    /// lockstep may not read what the store's `auth` names, or it is not there.
    CredentialsUnavailable,
    /// The answer is not in the form that it must have.
    Malformed,
    /// The provider cannot do what is asked.
    Unsupported,
    /// The ciphertext is damaged, or belongs to another key or place.
    Undecryptable,
    /// The KMS key is disabled, destroyed or missing, or the version of a remote key is there, and disabled or destroyed. Never
    /// a reason to think that a value is gone.
    KeyUnavailable,
    /// The credentials were refused, or have ended.
    Unauthenticated,
    /// The backend asks to slow down.
    RateLimited,
    /// The backend cannot be reached, or says that it cannot serve.
    Unavailable,
    /// The backend did not answer in time.
    Timeout,
    /// A fault in lockstep itself.
    Internal,
}

/// When a failed object is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeue {
    /// At the refresh interval.
    RefreshInterval,
    /// When something it depends on changes; a slow recheck is the backstop.
    OnChange,
    /// At once with new credentials, then with backoff.
    Quick,
    /// When the backend said, for the whole store.
    RetryAfter,
    /// With jittered exponential backoff.
    Backoff,
    /// With long backoff.
    LongBackoff,
}

impl ErrorKind {
    /// The label in metrics and logs.
    pub fn label(self) -> &'static str {
        self.into()
    }

    /// The reason in conditions and events.
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

    /// What happens next.
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

    /// Whether the same request may succeed within seconds, so that the retry layer tries it again.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Unavailable | Self::Timeout)
    }
}

/// What was asked of a provider: a label in metrics, a word in messages.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, strum::IntoStaticStr, strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum Operation {
    /// Make a client from the store's configuration.
    Configure,
    /// Log in.
    Login,
    /// Renew a login.
    Renew,
    /// Read values.
    Read,
    /// Look for values.
    Find,
    /// Decrypt a ciphertext.
    Decrypt,
    /// Encrypt a value, which `lockstep seal` does and the operator never.
    Encrypt,
    /// See whether the store works.
    Check,
    /// Get the token that a credential is minted with.
    IssueToken,
    /// Have a credential made.
    Mint,
    /// Renew the lease of a credential.
    RenewLease,
    /// Revoke a credential.
    Revoke,
    /// Hear of changes.
    Listen,
}

impl Operation {
    /// The label in metrics and logs.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

/// A failed request to a provider.
///
/// The message is a sentence of ours: it may name what the user wrote (key, version, role, mount), a status code and a
/// length, and never a value, a credential, a field that the user did not name, or the backend's own text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ProviderError {
    /// What went wrong.
    pub kind: ErrorKind,
    /// What was asked.
    pub operation: Operation,
    /// The sentence; it starts in lower case and reads on after `SecretStore/vault: `.
    pub message: String,
    /// What the user can do, as a sentence of its own.
    pub hint: Option<String>,
    /// When the backend wants to be asked again.
    pub retry_after: Option<Duration>,
}

impl ProviderError {
    /// An error of that kind.
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

    /// Adds when the backend wants to be asked again; what is longer than [`RETRY_AFTER_MAX`] counts as that.
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
