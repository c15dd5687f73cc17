//! `creationPolicy: Merge`: keys in a Secret that belongs to someone else.
//!
//! It needs `patch` on that Secret, which is read access to it and is granted by name in its
//! namespace. Each SyncedSecret applies with a field manager of its own, and
//! `metadata.managedFields` names the manager of each key. The admission policy allows a field
//! manager only if the Secret lists it.

use kube::api::{Patch, PatchParams};
use lockstep_api::{GROUP, SyncedSecretSpec, annotation};
use lockstep_core::{
    owner::Owner,
    reconcile::MergeSecret,
    secret_write::{SecretIdentity, WriteError},
    spec,
    text::{excerpt, is_subdomain},
};
use serde_json::{Value, json};

use super::{SecretWriter, api_error::ApiError, identity_of, request_builder};
use crate::manifest::{Base64Data, Manifest};

/// Field managers of SyncedSecrets that merge begin with this.
const MANAGER_PREFIX: &str = "lockstep-merge:";
/// What the API server allows for the name of a field manager.
const LONGEST_MANAGER: usize = 128;
/// How often a merge is tried while others change the Secret.
const MERGE_ATTEMPTS: u32 = 3;

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
    /// Applies the keys, labels and annotations of this SyncedSecret to a Secret that exists, unless
    /// someone else wrote one of them. If the same spec was merged into this Secret before, those
    /// that others changed since are taken back, except from other SyncedSecrets.
    ///
    /// # Errors
    /// Why they were not applied.
    pub async fn merge(&self, owner: &Owner<'_>, merge: &MergeSecret) -> Result<SecretIdentity, WriteError> {
        let (params, secret) = (params(owner)?, &*merge.secret);
        let mut attempts = 1;
        loop {
            let found = self.touch(owner, &params).await?;
            if let Some(owned_by) = found.owned_by.filter(|_| !secret.is_nothing()) {
                return Err(WriteError::MergeOwned(owned_by));
            }
            let manifest = Manifest::new(owner, secret, Some(&found.identity.uid), Base64Data(&secret.data));
            let was_merged = merge.merged_before.as_ref() == Some(&found.identity.uid);
            let others = other_managers(&found.managed_fields, owner, &manifest, was_merged);
            if !others.is_empty() {
                return Err(WriteError::MergeConflict(others));
            }
            // another SyncedSecret may apply the same key after `touch`
            let manifest = manifest.unchanged_since(&found.identity.resource_version);
            let patch = Patch::Apply(&manifest);
            let apply = request_builder(owner.namespace).patch(&secret.name, &params.clone().force(), &patch);
            match self.send_and_parse_identity(apply).await {
                Err(ApiError::Conflict) if attempts < MERGE_ATTEMPTS => attempts += 1,
                result => return result.map_err(|error| self.failed(error)),
            }
        }
    }

    /// Finds the Secret that keys were merged into.
    ///
    /// # Errors
    /// Why it was not found.
    pub async fn find_merged(&self, owner: &Owner<'_>) -> Result<SecretIdentity, WriteError> {
        let found = self.touch(owner, &params(owner)?).await?;
        Ok(found.identity)
    }

    /// Finds the Secret with a patch that changes nothing. It succeeds only if the Secret may be
    /// patched.
    async fn touch(&self, owner: &Owner<'_>, params: &PatchParams) -> Result<Found, WriteError> {
        let patch = Patch::Merge(json!({}));
        let request = request_builder(owner.namespace).patch(owner.target, params, &patch);
        let found = async {
            let object = self.request(request).await?;
            Ok(Found {
                identity: identity_of(&object)?,
                managed_fields: object["metadata"]["managedFields"].clone(),
                owned_by: owned_by(&object["metadata"]),
            })
        };
        found.await.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: ApiError) -> WriteError {
        match error {
            ApiError::Forbidden => WriteError::MergeForbidden(self.account.kubectl_option()),
            ApiError::Denied(_) => WriteError::MergeNotListed,
            error => error.into(),
        }
    }
}

/// A Secret that keys are merged into.
struct Found {
    identity: SecretIdentity,
    /// Its `metadata.managedFields`.
    managed_fields: Value,
    /// The name of the SyncedSecret that owns it.
    owned_by: Option<String>,
}

/// Returns the name of the SyncedSecret that owns a Secret with this metadata: it may replace the
/// Secret, or the Secret is deleted with it.
fn owned_by(metadata: &Value) -> Option<String> {
    let by_annotation = metadata["annotations"][annotation::OWNER].as_str();
    let references = metadata["ownerReferences"].as_array().into_iter().flatten();
    let mut own = references.filter(|reference| {
        let group = reference["apiVersion"]
            .as_str()
            .and_then(|version| version.split_once('/'));
        group.is_some_and(|(group, _)| group == GROUP)
    });
    let by_reference = || own.next()?["name"].as_str();
    by_annotation.or_else(by_reference).map(str::to_owned)
}

/// Returns what others manage of `manifest`: `key "password"`, each with the manager. Without
/// `only_synced_secrets`, every manager counts besides lockstep's own. The values do not matter: a
/// conflict must not reveal whether they are the same. Names that the spec does not contain can be
/// parts of remote values, so they are not shown.
fn other_managers(
    managed_fields: &Value,
    owner: &Owner<'_>,
    manifest: &Manifest<'_, Base64Data<'_>>,
    only_synced_secrets: bool,
) -> Vec<(String, String)> {
    let written = manifest.written();
    let mut others = Vec::new();
    for entry in managed_fields.as_array().into_iter().flatten() {
        let manager = entry["manager"].as_str().unwrap_or_default();
        let other = match manager.strip_prefix(MANAGER_PREFIX) {
            Some(own) if own == owner.name => continue,
            Some(other) if is_subdomain(other) => format!("SyncedSecret \"{other}\""),
            // what lockstep wrote before the Secret was handed over
            None if manager == annotation::MANAGER => continue,
            _ if only_synced_secrets => continue,
            _ => format!("field manager \"{}\"", excerpt(manager)),
        };
        for (kind, path, field) in &written {
            let fields = entry["fieldsV1"].pointer(path);
            if fields.is_some_and(|fields| fields.get(format!("f:{field}")).is_some()) {
                let what = if is_named(&owner.object.spec, field) {
                    format!("{kind} \"{field}\"")
                } else {
                    format!("a {kind} that the spec does not name")
                };
                others.push((what, other.clone()));
            }
        }
    }
    others.dedup();
    others
}

/// Whether the spec contains the name of a key, label or annotation.
fn is_named(spec: &SyncedSecretSpec, name: &str) -> bool {
    let template = spec.target.template.as_ref();
    let metadata = template.and_then(|template| template.metadata.as_ref());
    spec::is_key_named(spec, name)
        || metadata.is_some_and(|metadata| {
            metadata.labels.contains_key(name) || metadata.annotations.contains_key(name)
        })
}

#[cfg(test)]
mod tests {
    use lockstep_api::CreationPolicy;
    use lockstep_core::assemble::DesiredSecret;

    use super::*;

    #[test]
    fn owner_is_found_by_annotation_and_by_reference() {
        let reference =
            |version: &str| json!({ "ownerReferences": [{ "apiVersion": version, "name": "a" }] });
        for (metadata, owner) in [
            (json!({ "annotations": { annotation::OWNER: "a" } }), Some("a")),
            (reference("lockstep.dev/v1alpha1"), Some("a")),
            (reference("apps/v1"), None),
            (reference("v1"), None),
            (json!({ "annotations": { annotation::MERGE: "a" } }), None),
            (Value::Null, None),
        ] {
            assert_eq!(owned_by(&metadata).as_deref(), owner, "{metadata}");
        }
    }

    #[test]
    fn fields_of_others_conflict_whatever_their_value() {
        let spec = json!({
            "data": [{ "secretKey": "password", "remoteRef": { "key": "a" } }],
            "target": { "template": { "metadata": {
                "labels": { "tier": "x" },
                "annotations": { "example.org/team": "x" },
            } } },
        });
        let spec = serde_json::from_value(spec).unwrap();
        let object = lockstep_api::SyncedSecret::new("a", spec);
        let owner = Owner {
            object: &object,
            namespace: "shop",
            name: "a",
            target: "shared",
        };
        let mut secret = DesiredSecret::nothing("shared");
        secret.creation_policy = CreationPolicy::Merge;
        secret.data = ["password", "canary"]
            .map(|key| (key.to_owned(), "canary".into()))
            .into();
        secret.labels = [("tier".to_owned(), "canary".to_owned())].into();
        secret.annotations = ["example.org/team", annotation::OWNER]
            .map(|key| (key.to_owned(), "canary".to_owned()))
            .into();
        let manifest = Manifest::new(&owner, &secret, None, Base64Data(&secret.data));
        let annotations =
            |key: &str| json!({ "f:metadata": { "f:annotations": { ".": {}, format!("f:{key}"): {} } } });
        let password = json!({ "f:data": { "f:password": {} } });
        let rows = [
            ("lockstep-merge:b", password.clone(), Some("key \"password\"")),
            (
                "lockstep-merge:b",
                json!({ "f:metadata": { "f:labels": { "f:tier": {} } } }),
                Some("label \"tier\""),
            ),
            (
                "lockstep-merge:b",
                annotations("example.org/team"),
                Some("annotation \"example.org/team\""),
            ),
            (
                "lockstep-merge:b",
                json!({ "f:data": { "f:canary": {} } }),
                Some("a key that the spec does not name"),
            ),
            // not written when merging
            ("lockstep-merge:b", annotations(annotation::OWNER), None),
            (
                "lockstep-merge:b",
                json!({ "f:data": { ".": {}, "f:other": {} } }),
                None,
            ),
            ("lockstep-merge:b", json!("f:data"), None),
            ("lockstep-merge:a", password.clone(), None),
            ("lockstep-merge:$(id)", password.clone(), None),
            (annotation::MANAGER, password.clone(), None),
            ("kubectl-edit", password.clone(), None),
        ];
        let found = |manager: &str, fields: &Value, only_synced_secrets| {
            let managed = json!([{ "manager": manager, "operation": "Apply", "fieldsV1": fields }]);
            other_managers(&managed, &owner, &manifest, only_synced_secrets)
        };
        for (manager, fields, what) in rows {
            let expected: Vec<_> = what
                .map(|what| (what.to_owned(), "SyncedSecret \"b\"".to_owned()))
                .into_iter()
                .collect();
            assert_eq!(found(manager, &fields, true), expected, "{manager}");
        }
        for (manager, shown) in [
            ("kubectl-edit", "field manager \"kubectl-edit\""),
            (
                "lockstep-merge:\u{1b}[2J",
                "field manager \"lockstep-merge:\\u{1b}[2J\"",
            ),
        ] {
            let expected = [("key \"password\"".to_owned(), shown.to_owned())];
            assert_eq!(found(manager, &password, false), expected);
        }
        assert_eq!(other_managers(&Value::Null, &owner, &manifest, false), []);
    }
}
