//! From documents to the objects that lockstep reads, checked as the API server checks them at admission.

use std::collections::{BTreeMap, BTreeSet};

use kube::{CustomResourceExt, api::ObjectMeta};
use lockstep_api::{ClusterSecretStore, SecretStore, SyncedSecret, crd};
use lockstep_controller::{
    index::{ObjectKey, StoreEntry},
    watch::Store,
};
use lockstep_core::text;
use lockstep_provider::StoreKey;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    input::Source,
    schema::Schemas,
    yaml::{self, shown},
};

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Place {
    /// The file as it was named, or `standard input`.
    pub(crate) file: String,
    /// The line in which its document begins, from 1.
    pub(crate) line: usize,
}

/// What the API server would not take, or nobody can read.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    #[serde(flatten)]
    pub(crate) place: Place,
    /// Kind and name, where the document has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) object: Option<String>,
    /// A sentence that names the field.
    pub(crate) message: String,
}

/// A SyncedSecret and where it stands.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) place: Place,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) object: SyncedSecret,
}

/// Everything that lockstep would see in the cluster.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    /// In the order of the documents.
    pub(crate) synced_secrets: Vec<Placed>,
    /// Stores and where they stand.
    pub(crate) stores: BTreeMap<StoreKey, (StoreEntry, Place)>,
    /// Labels by the name of the namespace.
    pub(crate) namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Annotations of Secrets by namespace and name.
    pub(crate) secrets: BTreeMap<(String, String), BTreeMap<String, String>>,
    /// What is wrong with some of them.
    pub(crate) problems: Vec<Problem>,
    seen: BTreeSet<ObjectKey>,
    only: Option<&'static [&'static str]>,
    schemas: Schemas,
    default_namespace: String,
}

impl Objects {
    /// The objects of all texts. Objects that do not say their namespace are in `default_namespace`.
    pub(crate) fn of(sources: &[Source], default_namespace: &str) -> Self {
        let mut objects = Self::none(default_namespace);
        objects.read(sources);
        objects
    }

    /// The stores alone of all texts; a text that cannot be read has none.
    pub(crate) fn stores_of(sources: &[Source], default_namespace: &str) -> Self {
        let mut objects = Self::none(default_namespace);
        objects.only = Some(&["SecretStore", "ClusterSecretStore"]);
        objects.read(sources);
        objects
    }

    /// What the API server would say to an object that stands at that place. Nothing of it is kept.
    pub(crate) fn admission(&mut self, value: Value, place: &Place) -> Vec<Problem> {
        self.take(value, place, true);
        self.seen.clear();
        self.synced_secrets.clear();
        self.stores.clear();
        self.namespaces.clear();
        self.secrets.clear();
        std::mem::take(&mut self.problems)
    }

    /// None as yet.
    pub(crate) fn none(default_namespace: &str) -> Self {
        Self {
            schemas: Schemas::new(),
            default_namespace: default_namespace.to_owned(),
            ..Self::default()
        }
    }

    fn read(&mut self, sources: &[Source]) {
        for source in sources {
            for document in yaml::documents(&source.text) {
                let place = Place {
                    file: source.name.clone(),
                    line: document.line,
                };
                match document.value {
                    Ok(value) => self.take(value, &place, source.named),
                    Err(message) if self.only.is_none() => self.problem(&place, None, message),
                    Err(_) => {}
                }
            }
        }
    }

    fn problem(&mut self, place: &Place, object: Option<&str>, message: impl Into<String>) {
        self.problems.push(Problem {
            place: place.clone(),
            object: object.map(str::to_owned),
            message: message.into(),
        });
    }

    fn take(&mut self, mut value: Value, place: &Place, named: bool) {
        let text = |field: &str| {
            value
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if api_version.is_empty() || kind.is_empty() {
            // a folder may hold other YAML
            if named && self.only.is_none() {
                self.problem(
                    place,
                    None,
                    "no Kubernetes object: apiVersion and kind are needed",
                );
            }
            return;
        }
        if self
            .only
            .is_some_and(|only| kind != "List" && !only.contains(&kind.as_str()))
        {
            return;
        }
        let ours = format!("{}/{}", lockstep_api::GROUP, lockstep_api::VERSION);
        match (api_version.as_str(), kind.as_str()) {
            ("v1", "List") => match value.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) => {
                    for item in items {
                        self.take(item, place, named);
                    }
                }
                _ => self.problem(place, Some("List"), "items is missing, or no list"),
            },
            ("v1", "Namespace" | "Secret") => self.builtin(&value, &kind, place),
            (version, "SyncedSecret" | "SecretStore" | "ClusterSecretStore") if version == ours => {
                self.custom(value, &kind, place);
            }
            (version, _) if version.split('/').next() == Some(lockstep_api::GROUP) => {
                let message = format!(
                    "{} \"{}\" is not known. Known are SyncedSecret, SecretStore and ClusterSecretStore of {ours}",
                    shown(version),
                    shown(&kind)
                );
                self.problem(place, Some(&shown(&kind)), message);
            }
            _ => {}
        }
    }

    fn builtin(&mut self, value: &Value, kind: &str, place: &Place) {
        let texts = |field: &str| -> BTreeMap<String, String> {
            let map = value["metadata"][field].as_object();
            map.into_iter()
                .flatten()
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect()
        };
        let Some(name) = value["metadata"]["name"].as_str() else {
            return self.problem(place, Some(kind), "metadata.name is needed");
        };
        if kind == "Namespace" {
            self.namespaces.insert(name.to_owned(), texts("labels"));
        } else {
            let namespace = value["metadata"]["namespace"]
                .as_str()
                .unwrap_or(&self.default_namespace);
            self.secrets
                .insert((namespace.to_owned(), name.to_owned()), texts("annotations"));
        }
    }

    fn custom(&mut self, mut value: Value, kind: &str, place: &Place) {
        // it is the cluster's to say
        if let Some(fields) = value.as_object_mut() {
            fields.remove("status");
        }
        let Some(name) = value["metadata"]["name"].as_str().map(str::to_owned) else {
            return self.problem(place, Some(kind), "metadata.name is needed");
        };
        let object = format!("{kind} \"{}\"", shown(&name));
        if !text::is_subdomain(&name) {
            return self.problem(
                place,
                Some(&object),
                "metadata.name must be lower-case letters, digits, '-' and '.', and at most 253 of them",
            );
        }
        let namespace = match &value["metadata"]["namespace"] {
            Value::String(namespace) => namespace.clone(),
            _ => self.default_namespace.clone(),
        };
        if !text::is_label(&namespace) {
            return self.problem(
                place,
                Some(&object),
                "metadata.namespace must be lower-case letters, digits and '-', and at most 63 of them",
            );
        }
        let faults = self.schemas.faults(kind, &value);
        if !faults.is_empty() {
            for fault in faults {
                self.problem(place, Some(&object), fault);
            }
            return;
        }
        match kind {
            "SyncedSecret" => {
                if let Some(mut synced) = self.admit::<SyncedSecret>(value, &object, place) {
                    synced.metadata.namespace = Some(namespace.clone());
                    if !self.seen.insert(ObjectKey::of(&synced)) {
                        return self.problem(
                            place,
                            Some(&object),
                            format!("it is there twice in namespace \"{}\"", shown(&namespace)),
                        );
                    }
                    self.synced_secrets.push(Placed {
                        place: place.clone(),
                        namespace,
                        name,
                        object: synced,
                    });
                }
            }
            "SecretStore" => self.store::<SecretStore>(value, Some(namespace), name, &object, place),
            _ => self.store::<ClusterSecretStore>(value, None, name, &object, place),
        }
    }

    fn store<K>(&mut self, value: Value, namespace: Option<String>, name: String, object: &str, place: &Place)
    where
        K: Store + CustomResourceExt + Serialize + DeserializeOwned,
    {
        let Some(store) = self.admit::<K>(value, object, place) else {
            return;
        };
        let key = StoreKey {
            kind: K::KIND,
            namespace,
            name,
        };
        if self.stores.contains_key(&key) {
            return self.problem(place, Some(&key.to_string()), "it is there twice");
        }
        self.stores.insert(key, (store.entry(), place.clone()));
    }

    /// The object, when its type and the rules of its CRD take it.
    fn admit<K>(&mut self, value: Value, object: &str, place: &Place) -> Option<K>
    where
        K: CustomResourceExt + Serialize + DeserializeOwned,
    {
        // the error itself would quote the value
        let metadata = serde_json::from_value::<ObjectMeta>(value["metadata"].clone());
        let Ok(admitted) = serde_json::from_value::<K>(value) else {
            let message = match metadata {
                Err(_) => {
                    "metadata: a field does not have its type. Values of labels and annotations must be texts (quote them)"
                }
                Ok(_) => "spec: a field does not have the form that the reference of its kind describes",
            };
            self.problem(place, Some(object), message);
            return None;
        };
        match crd::validate(&admitted) {
            Ok(()) => Some(admitted),
            Err(rules) => {
                for rule in rules {
                    self.problem(place, Some(object), rule);
                }
                None
            }
        }
    }

    /// The labels of a namespace as the cluster would have them: its own name is always among them.
    pub(crate) fn labels(&self, namespace: &str) -> BTreeMap<String, String> {
        let mut labels = self.namespaces.get(namespace).cloned().unwrap_or_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), namespace.to_owned());
        labels
    }
}

impl Placed {
    /// Its name and where it stands, for machines.
    pub(crate) fn json(&self) -> Value {
        json!({ "namespace": self.namespace, "name": self.name, "file": self.place.file, "line": self.place.line })
    }
}
