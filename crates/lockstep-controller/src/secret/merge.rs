//! `creationPolicy: Merge`: keys in a Secret that belongs to someone else.
//!
//! It needs `patch` on that Secret, which is read access to it and is granted by name in its namespace. Each SyncedSecret applies with
//! a field manager of its own, so that the API server tells whose key is whose; the admission policy lets a field manager in only if
//! the Secret lists it.

use kube::api::{Patch, PatchParams};
use lockstep_core::{
    assemble::DesiredSecret,
    owner::Owner,
    secret_write::{SecretIdentity, WriteError},
    text::is_subdomain,
};
use serde_json::json;

use super::{
    SecretWriter,
    api_error::{ApiError, FieldConflict},
    requests,
};
use crate::manifest::{Base64Data, Manifest};

/// Field managers of SyncedSecrets that merge begin with this.
const MANAGER_PREFIX: &str = "lockstep-merge:";
/// What the API server allows for the name of a field manager.
const LONGEST_MANAGER: usize = 128;

fn params(owner: &Owner<'_>) -> Result<PatchParams, WriteError> {
    let manager = format!("{MANAGER_PREFIX}{}", owner.name);
    if manager.len() > LONGEST_MANAGER {
        return Err(WriteError::MergeNameTooLong(
            LONGEST_MANAGER - MANAGER_PREFIX.len(),
        ));
    }
    Ok(PatchParams {
        field_manager: Some(manager),
        ..PatchParams::default()
    })
}

impl SecretWriter {
    /// Applies the keys, labels and annotations of this SyncedSecret to a Secret that exists. Those that no other SyncedSecret merges are
    /// taken over.
    ///
    /// # Errors
    /// Why they were not applied.
    pub async fn merge(
        &self,
        owner: &Owner<'_>,
        secret: &DesiredSecret,
    ) -> Result<SecretIdentity, WriteError> {
        let params = params(owner)?;
        let found = self.touch(owner, &params).await?;
        let manifest = Manifest::new(owner, secret, Some(&found.uid), Base64Data(&secret.data));
        let patch = Patch::Apply(&manifest);
        let apply = requests(owner.namespace).patch(&secret.name, &params, &patch);
        let conflicts = match self.identity(apply).await {
            Err(ApiError::FieldConflict(conflicts)) => conflicts,
            result => return result.map_err(|error| self.failed(error)),
        };
        let others = other_synced_secrets(&conflicts, secret);
        if !others.is_empty() {
            return Err(WriteError::MergeConflict(others));
        }
        // another SyncedSecret may have applied the same key since the conflicts were found
        let manifest = manifest.unchanged_since(&found.resource_version);
        let apply = requests(owner.namespace).patch(&secret.name, &params.force(), &Patch::Apply(&manifest));
        self.identity(apply).await.map_err(|error| self.failed(error))
    }

    /// Finds the Secret that keys were merged into.
    ///
    /// # Errors
    /// Why it was not found.
    pub async fn find_merged(&self, owner: &Owner<'_>) -> Result<SecretIdentity, WriteError> {
        self.touch(owner, &params(owner)?).await
    }

    /// A patch that changes nothing: it finds the Secret, and shows that it may be patched.
    async fn touch(&self, owner: &Owner<'_>, params: &PatchParams) -> Result<SecretIdentity, WriteError> {
        let patch = Patch::Merge(json!({}));
        let request = requests(owner.namespace).patch(owner.target, params, &patch);
        self.identity(request).await.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: ApiError) -> WriteError {
        match error {
            ApiError::Forbidden => WriteError::MergeForbidden(self.account.kubectl_option()),
            ApiError::Denied(_) => WriteError::MergeNotListed,
            error => error.into(),
        }
    }
}

/// What of `secret` other SyncedSecrets merge: `key "password"`, each with the other's name.
fn other_synced_secrets(conflicts: &[FieldConflict], secret: &DesiredSecret) -> Vec<(String, String)> {
    let others = conflicts.iter().filter_map(|conflict| {
        let what = part_of(secret, &conflict.field)?;
        let manager = conflict.message.split('"').nth(1)?;
        let name = manager.strip_prefix(MANAGER_PREFIX)?;
        is_subdomain(name).then(|| (what, name.to_owned()))
    });
    others.collect()
}

/// What the field is called in messages. It is named as this SyncedSecret has it, and not as the API server does.
fn part_of(secret: &DesiredSecret, field: &str) -> Option<String> {
    if let Some(key) = field.strip_prefix(".data.") {
        let (key, _) = secret.data.get_key_value(key)?;
        return Some(format!("key \"{key}\""));
    }
    if let Some(label) = field.strip_prefix(".metadata.labels.") {
        let (label, _) = secret.labels.get_key_value(label)?;
        return Some(format!("label \"{label}\""));
    }
    let annotation = field.strip_prefix(".metadata.annotations.")?;
    let (annotation, _) = secret.annotations.get_key_value(annotation)?;
    Some(format!("annotation \"{annotation}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(field: &str, message: &str) -> FieldConflict {
        FieldConflict {
            field: field.to_owned(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn only_managers_of_synced_secrets_are_named() {
        let mut secret = DesiredSecret::nothing("shared");
        secret.data = [("password".to_owned(), "canary".into())].into();
        secret.annotations = [("example.org/team".to_owned(), "canary".to_owned())].into();
        let rows = [
            (
                ".data.password",
                "conflict with \"lockstep-merge:b\" using v1",
                Some(("key \"password\"", "b")),
            ),
            (
                ".metadata.annotations.example.org/team",
                "conflict with \"lockstep-merge:b\" using v1",
                Some(("annotation \"example.org/team\"", "b")),
            ),
            (".data.password", "conflict with \"kubectl-edit\" using v1", None),
            (
                ".data.password",
                "conflict with \"lockstep-merge:$(id)\" using v1",
                None,
            ),
            (".data.other", "conflict with \"lockstep-merge:b\" using v1", None),
            (
                ".metadata.labels",
                "conflict with \"lockstep-merge:b\" using v1",
                None,
            ),
        ];
        for (field, message, other) in rows {
            let found = other_synced_secrets(&[conflict(field, message)], &secret);
            let expected: Vec<_> = other
                .map(|(what, other): (&str, &str)| (what.to_owned(), other.to_owned()))
                .into_iter()
                .collect();
            assert_eq!(found, expected, "{field} {message}");
        }
    }
}
