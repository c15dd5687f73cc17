//! Decides whether a failed sync settles the messages that caused it.

use lockstep_api::Reason;

use crate::{Failure, remote::Requeue};

/// Whether a failed sync settles a message: when another sync would fail in the same way until a
/// change wakes the object. A value that could not be read or written does not settle it.
pub fn settles(failure: &Failure) -> bool {
    let unwritten = matches!(
        failure.reason,
        Reason::WriteFailed
            | Reason::TargetForeign
            | Reason::TargetNotFound
            | Reason::MergeForbidden
            | Reason::TooLarge
    );
    !unwritten && matches!(failure.requeue, Requeue::OnChange | Requeue::RefreshInterval)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::{ErrorKind, Operation, ProviderError};

    #[test]
    fn unread_or_unwritten_value_does_not_settle_a_message() {
        let provider = |kind| Failure::provider("", &ProviderError::new(kind, Operation::Read, "no"));
        for kind in [
            ErrorKind::Unavailable,
            ErrorKind::Timeout,
            ErrorKind::RateLimited,
            ErrorKind::Internal,
        ] {
            assert!(!settles(&provider(kind)), "{kind:?}");
        }
        for kind in [
            ErrorKind::NotFound,
            ErrorKind::PermissionDenied,
            ErrorKind::Malformed,
        ] {
            assert_eq!(
                settles(&provider(kind)),
                matches!(kind.requeue(), Requeue::OnChange | Requeue::RefreshInterval),
                "{kind:?}"
            );
        }
        assert!(settles(&provider(ErrorKind::NotFound)));
        for reason in [Reason::WriteFailed, Reason::TargetForeign, Reason::TargetNotFound] {
            assert!(!settles(&Failure::new(reason, "no")), "{reason}");
        }
        assert!(settles(&Failure::new(Reason::AccessDenied, "no")));
        assert!(settles(&Failure::new(Reason::TemplateFailed, "no")));
    }
}
