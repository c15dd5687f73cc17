//! Serializes the Secret of a SyncedSecret for the API server.

use std::{collections::BTreeMap, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use kube::Resource;
use lockstep_api::{CreationPolicy, SyncedSecret, annotation};
use lockstep_core::{assemble::DesiredSecret, owner::Owner, remote::SecretValue};
use serde::{Serialize, Serializer, ser::SerializeMap};

/// A Secret. `D` is its data: [`Base64Data`] for Kubernetes, another type for output to users.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest<'a, D> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata<'a>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    secret_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    immutable: Option<bool>,
    data: D,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    name: &'a str,
    namespace: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_version: Option<&'a str>,
    // The field manager of a server-side apply would own an empty map.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_references: Option<[OwnerReference<'a>; 1]>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OwnerReference<'a> {
    api_version: String,
    kind: String,
    name: &'a str,
    uid: &'a str,
    controller: bool,
}

impl<'a, D> Manifest<'a, D> {
    /// Sets the name.
    #[must_use]
    pub fn named(mut self, name: &'a str) -> Self {
        self.metadata.name = name;
        self
    }

    /// Makes the write fail if the Secret changed since this version.
    #[must_use]
    pub fn unchanged_since(mut self, resource_version: &'a str) -> Self {
        self.metadata.resource_version = Some(resource_version);
        self
    }

    /// Sets whether the Secret is immutable.
    #[must_use]
    pub fn sealed(mut self, sealed: bool) -> Self {
        self.immutable = sealed.then_some(true);
        self
    }

    /// Creates the Secret of an owner. With `uid`, a write fails if the Secret is another one or
    /// does not exist. An owner without a uid, which was never in a cluster, is identified only by
    /// the annotation.
    pub fn new(owner: &Owner<'a>, secret: &'a DesiredSecret, uid: Option<&'a str>, data: D) -> Self {
        let merge = secret.creation_policy == CreationPolicy::Merge;
        // A Secret with merged keys belongs to someone else, and so do its labels and annotations.
        let is_written =
            |key: &str| !(merge && matches!(key, annotation::MANAGED_BY_LABEL | annotation::OWNER));
        let owner_references = owner
            .object
            .metadata
            .uid
            .as_deref()
            .filter(|_| secret.creation_policy == CreationPolicy::Owner)
            .map(|uid| {
                [OwnerReference {
                    api_version: SyncedSecret::api_version(&()).into_owned(),
                    kind: SyncedSecret::kind(&()).into_owned(),
                    name: owner.name,
                    uid,
                    controller: true,
                }]
            });
        Self {
            api_version: "v1",
            kind: "Secret",
            metadata: Metadata {
                name: &secret.name,
                namespace: owner.namespace,
                uid,
                resource_version: None,
                labels: texts(&secret.labels, is_written),
                annotations: texts(&secret.annotations, is_written),
                owner_references,
            },
            secret_type: secret.secret_type.as_deref(),
            immutable: (secret.immutable && !merge).then_some(true),
            data,
        }
    }
}

impl<'a> Manifest<'a, Base64Data<'a>> {
    /// Returns what it writes: what messages call it, its path in `fieldsV1`, and its name.
    pub fn written(&self) -> Vec<(&'static str, &'static str, &'a str)> {
        let data = self.data.0.keys().map(|key| ("key", "/f:data", key.as_str()));
        let Metadata {
            labels, annotations, ..
        } = &self.metadata;
        let labels = labels.keys().map(|key| ("label", "/f:metadata/f:labels", *key));
        let annotations = annotations
            .keys()
            .map(|key| ("annotation", "/f:metadata/f:annotations", *key));
        data.chain(labels).chain(annotations).collect()
    }
}

fn texts(all: &BTreeMap<String, String>, is_written: impl Fn(&str) -> bool) -> BTreeMap<&str, &str> {
    let all = all.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    all.filter(|(key, _)| is_written(key)).collect()
}

/// The data is not printed, because it can contain values.
impl<D> fmt::Debug for Manifest<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Manifest")
    }
}

/// Values in base64 for Kubernetes. Serializing this reveals them.
pub struct Base64Data<'a>(pub &'a BTreeMap<String, SecretValue>);

impl fmt::Debug for Base64Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Base64Data")
    }
}

impl Serialize for Base64Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0 {
            map.serialize_entry(key, &*zeroize::Zeroizing::new(STANDARD.encode(value.expose())))?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(creation_policy: CreationPolicy) -> DesiredSecret {
        DesiredSecret {
            labels: [(
                annotation::MANAGED_BY_LABEL.to_owned(),
                annotation::MANAGER.to_owned(),
            )]
            .into(),
            annotations: [(annotation::OWNER.to_owned(), "a".to_owned())].into(),
            data: [("k".to_owned(), SecretValue::from("canary"))].into(),
            immutable: true,
            creation_policy,
            ..DesiredSecret::nothing("a")
        }
    }

    fn wire(creation_policy: CreationPolicy, uid: Option<&str>) -> serde_json::Value {
        let mut object = SyncedSecret::new("a", lockstep_api::SyncedSecretSpec::default());
        object.metadata.uid = uid.map(str::to_owned);
        let owner = Owner {
            object: &object,
            namespace: "shop",
            name: "a",
            target: "a",
        };
        let secret = secret(creation_policy);
        let manifest = Manifest::new(&owner, &secret, None, Base64Data(&secret.data));
        assert!(!format!("{manifest:?} {:?} {secret:?}", manifest.data).contains("canary"));
        serde_json::to_value(&manifest).unwrap()
    }

    #[test]
    fn values_are_only_in_the_serialized_form() {
        assert_eq!(wire(CreationPolicy::Owner, Some("u"))["data"]["k"], "Y2FuYXJ5");
    }

    #[test]
    fn owner_reference_needs_a_uid_and_ownership() {
        let reference = |policy, uid| wire(policy, uid)["metadata"]["ownerReferences"][0]["kind"].clone();
        assert_eq!(reference(CreationPolicy::Owner, Some("u")), "SyncedSecret");
        assert!(reference(CreationPolicy::Owner, None).is_null());
        assert!(reference(CreationPolicy::Orphan, Some("u")).is_null());
    }

    #[test]
    fn merge_keeps_labels_type_and_immutability() {
        let own = wire(CreationPolicy::Owner, None);
        assert_eq!(
            own["metadata"]["labels"]["app.kubernetes.io/managed-by"],
            "lockstep"
        );
        assert_eq!(own["immutable"], true);
        let merged = wire(CreationPolicy::Merge, None);
        assert!(merged["metadata"].get("labels").is_none());
        assert!(merged.get("immutable").is_none());
        assert!(merged["metadata"].get("annotations").is_none());
        assert_eq!(own["metadata"]["annotations"]["lockstep.dev/owner"], "a");
    }
}
