//! The Secret that a SyncedSecret makes, as Kubernetes reads it.

use std::{collections::BTreeMap, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use kube::Resource;
use lockstep_api::{CreationPolicy, SyncedSecret, annotation};
use lockstep_core::{assemble::DesiredSecret, owner::Owner, remote::SecretValue};
use serde::{Serialize, Serializer, ser::SerializeMap};

/// A Secret. `D` is its data: [`Base64Data`] where Kubernetes is to take it, something else where people look at it.
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
    // an empty map would be owned by the field manager of a server-side apply
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
    /// The same under another name.
    #[must_use]
    pub fn named(mut self, name: &'a str) -> Self {
        self.metadata.name = name;
        self
    }

    /// The same, for a Secret that has not changed since.
    #[must_use]
    pub fn unchanged_since(mut self, resource_version: &'a str) -> Self {
        self.metadata.resource_version = Some(resource_version);
        self
    }

    /// The same, immutable or not.
    #[must_use]
    pub fn sealed(mut self, sealed: bool) -> Self {
        self.immutable = sealed.then_some(true);
        self
    }

    /// The Secret of that owner. With `uid`, a write fails if the Secret is another one or does not exist. An owner without a uid,
    /// which was never in a cluster, is named by the annotation alone.
    pub fn new(owner: &Owner<'a>, secret: &'a DesiredSecret, uid: Option<&'a str>, data: D) -> Self {
        let merge = secret.creation_policy == CreationPolicy::Merge;
        // a Secret that is merged into belongs to someone else, and its labels and annotations say so
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

/// It tells nothing, since the data could be values.
impl<D> fmt::Debug for Manifest<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Manifest")
    }
}

/// Values in base64, as Kubernetes takes them. Serializing this shows them.
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
    fn values_are_shown_on_the_wire_only() {
        assert_eq!(wire(CreationPolicy::Owner, Some("u"))["data"]["k"], "Y2FuYXJ5");
    }

    #[test]
    fn an_owner_is_referenced_where_it_has_a_uid_and_owns() {
        let reference = |policy, uid| wire(policy, uid)["metadata"]["ownerReferences"][0]["kind"].clone();
        assert_eq!(reference(CreationPolicy::Owner, Some("u")), "SyncedSecret");
        assert!(reference(CreationPolicy::Owner, None).is_null());
        assert!(reference(CreationPolicy::Orphan, Some("u")).is_null());
    }

    #[test]
    fn what_is_merged_leaves_the_labels_and_the_nature_of_the_secret_alone() {
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
