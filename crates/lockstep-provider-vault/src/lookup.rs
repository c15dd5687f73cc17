//! Looks up which engine the server has at a path.

use lockstep_provider::{ErrorKind, Operation, ProviderError};

use crate::{auth::Authenticated, endpoint::MountOf, engine::Mount, error::Purpose};

/// Looks up the engine at a path, which is a mount path or below one.
///
/// # Errors
/// `ConfigInvalid` when the server has no engine there, and an error of the request when it returns
/// none. The hint says which field or policy to check. The error is never `NotFound`: a missing
/// engine must not count as a missing value.
pub(crate) async fn mount_at(
    server: &Authenticated,
    operation: Operation,
    path: &str,
    hint: &str,
) -> Result<Mount, ProviderError> {
    let purpose = Purpose {
        operation,
        doing: format!("looking up the engine at \"{path}\""),
        identity: server.identity(),
        missing: format!("the server has no engine at \"{path}\""),
        mount: path.to_owned(),
        policy: None,
    };
    let endpoint = MountOf {
        path: path.to_owned(),
    };
    let answer = server.send(operation, &endpoint).await?;
    if !answer.is_success() {
        let error = purpose.failed(&answer);
        return Err(match error.kind {
            // the server also denies the lookup of a mount that does not exist
            ErrorKind::PermissionDenied => error.with_hint(hint),
            ErrorKind::NotFound => {
                ProviderError::new(ErrorKind::ConfigInvalid, operation, error.message).with_hint(hint)
            }
            _ => error,
        });
    }
    let mount = answer.envelope().and_then(|envelope| envelope.parse::<Mount>());
    mount.ok_or_else(|| purpose.malformed(&answer, "does not name an engine"))
}
