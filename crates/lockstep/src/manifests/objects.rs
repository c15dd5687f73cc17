//! Converts documents to the objects that lockstep reads, validated as the API server does at
//! admission.

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

/// Position of an object in the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Position {
    /// The file as given on the command line, or `standard input`.
    pub(crate) file: String,
    /// First line of the document, starting at 1.
    pub(crate) line: usize,
}

/// A document that the API server would reject or that cannot be parsed.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    #[serde(flatten)]
    pub(crate) position: Position,
    /// Kind and name, if the document has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) object: Option<String>,
    /// Names the field and what is wrong with it.
    pub(crate) message: String,
}

/// A SyncedSecret and its position.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) position: Position,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) object: SyncedSecret,
}

/// All objects that lockstep would see in the cluster.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    /// SyncedSecrets in the order of the documents.
    pub(crate) synced_secrets: Vec<Placed>,
    /// Stores and their positions.
    pub(crate) stores: BTreeMap<StoreKey, (StoreEntry, Position)>,
    /// Labels of namespaces, by name.
    pub(crate) namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Annotations of Secrets, by namespace and name.
    pub(crate) secrets: BTreeMap<(String, String), BTreeMap<String, String>>,
    /// Problems found in the input.
    pub(crate) problems: Vec<Problem>,
    seen: BTreeSet<ObjectKey>,
    only: Option<&'static [&'static str]>,
    schemas: Schemas,
    default_namespace: String,
}

impl Objects {
    /// Returns the objects in all texts. `default_namespace` is used for objects without one.
    pub(crate) fn of(sources: &[Source], default_namespace: &str) -> Self {
        let mut objects = Self::none(default_namespace);
        objects.read(sources);
        objects
    }

    /// Returns only the stores in all texts. A text that cannot be parsed has none.
    pub(crate) fn stores_of(sources: &[Source], default_namespace: &str) -> Self {
        let mut objects = Self::none(default_namespace);
        objects.only = Some(&["SecretStore", "ClusterSecretStore"]);
        objects.read(sources);
        objects
    }

    /// Validates an object as the API server would. The object is not kept.
    pub(crate) fn admission(&mut self, value: Value, position: &Position) -> Vec<Problem> {
        self.take(value, position, true);
        self.seen.clear();
        self.synced_secrets.clear();
        self.stores.clear();
        self.namespaces.clear();
        self.secrets.clear();
        std::mem::take(&mut self.problems)
    }

    /// Returns an empty set.
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
                let position = Position {
                    file: source.name.clone(),
                    line: document.line,
                };
                match document.value {
                    Ok(value) => self.take(value, &position, source.named),
                    Err(message) if self.only.is_none() => self.problem(&position, None, message),
                    Err(_) => {}
                }
            }
        }
    }

    fn problem(&mut self, position: &Position, object: Option<&str>, message: impl Into<String>) {
        self.problems.push(Problem {
            position: position.clone(),
            object: object.map(str::to_owned),
            message: message.into(),
        });
    }

    fn take(&mut self, mut value: Value, position: &Position, named: bool) {
        let text = |field: &str| {
            value
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if api_version.is_empty() || kind.is_empty() {
            // a folder can contain other YAML
            if named && self.only.is_none() {
                self.problem(
                    position,
                    None,
                    "not a Kubernetes object: apiVersion and kind are required",
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
        let own_version = format!("{}/{}", lockstep_api::GROUP, lockstep_api::VERSION);
        match (api_version.as_str(), kind.as_str()) {
            ("v1", "List") => match value.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) => {
                    for item in items {
                        self.take(item, position, named);
                    }
                }
                _ => self.problem(position, Some("List"), "items: must be a list"),
            },
            ("v1", "Namespace" | "Secret") => self.builtin(&value, &kind, position),
            (version, "SyncedSecret" | "SecretStore" | "ClusterSecretStore") if version == own_version => {
                self.custom(value, &kind, position);
            }
            (version, _) if version.split('/').next() == Some(lockstep_api::GROUP) => {
                let message = format!(
                    "{} \"{}\" is not supported. Use SyncedSecret, SecretStore or ClusterSecretStore of {own_version}",
                    shown(version),
                    shown(&kind)
                );
                self.problem(position, Some(&shown(&kind)), message);
            }
            _ => {}
        }
    }

    fn builtin(&mut self, value: &Value, kind: &str, position: &Position) {
        let texts = |field: &str| -> BTreeMap<String, String> {
            let map = value["metadata"][field].as_object();
            map.into_iter()
                .flatten()
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect()
        };
        let Some(name) = value["metadata"]["name"].as_str() else {
            return self.problem(position, Some(kind), "metadata.name: required");
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

    fn custom(&mut self, mut value: Value, kind: &str, position: &Position) {
        // only the cluster sets the status
        if let Some(fields) = value.as_object_mut() {
            fields.remove("status");
        }
        let Some(name) = value["metadata"]["name"].as_str().map(str::to_owned) else {
            return self.problem(position, Some(kind), "metadata.name: required");
        };
        let object = format!("{kind} \"{}\"", shown(&name));
        if !text::is_subdomain(&name) {
            return self.problem(
                position,
                Some(&object),
                "metadata.name: must have at most 253 lowercase letters, digits, '-' or '.'",
            );
        }
        let namespace = match &value["metadata"]["namespace"] {
            Value::String(namespace) => namespace.clone(),
            _ => self.default_namespace.clone(),
        };
        if !text::is_label(&namespace) {
            return self.problem(
                position,
                Some(&object),
                "metadata.namespace: must have at most 63 lowercase letters, digits or '-'",
            );
        }
        let faults = self.schemas.faults(kind, &value);
        if !faults.is_empty() {
            for fault in faults {
                self.problem(position, Some(&object), fault);
            }
            return;
        }
        match kind {
            "SyncedSecret" => {
                if let Some(mut synced) = self.parse_and_validate::<SyncedSecret>(value, &object, position) {
                    synced.metadata.namespace = Some(namespace.clone());
                    if !self.seen.insert(ObjectKey::of(&synced)) {
                        return self.problem(
                            position,
                            Some(&object),
                            format!("duplicate object in namespace \"{}\"", shown(&namespace)),
                        );
                    }
                    self.synced_secrets.push(Placed {
                        position: position.clone(),
                        namespace,
                        name,
                        object: synced,
                    });
                }
            }
            "SecretStore" => self.store::<SecretStore>(value, Some(namespace), name, &object, position),
            _ => self.store::<ClusterSecretStore>(value, None, name, &object, position),
        }
    }

    fn store<K>(
        &mut self,
        value: Value,
        namespace: Option<String>,
        name: String,
        object: &str,
        position: &Position,
    ) where
        K: Store + CustomResourceExt + Serialize + DeserializeOwned,
    {
        let Some(store) = self.parse_and_validate::<K>(value, object, position) else {
            return;
        };
        let key = StoreKey {
            kind: K::KIND,
            namespace,
            name,
        };
        if self.stores.contains_key(&key) {
            return self.problem(position, Some(&key.to_string()), "duplicate object");
        }
        self.stores.insert(key, (store.entry(), position.clone()));
    }

    /// Parses the object, and checks the rules of its CRD. Reports what is wrong.
    fn parse_and_validate<K>(&mut self, value: Value, object: &str, position: &Position) -> Option<K>
    where
        K: CustomResourceExt + Serialize + DeserializeOwned,
    {
        // serde's error would quote the value
        let metadata = serde_json::from_value::<ObjectMeta>(value["metadata"].clone());
        let Ok(admitted) = serde_json::from_value::<K>(value) else {
            let message = match metadata {
                Err(_) => {
                    "metadata: a field has the wrong type. Values of labels and annotations must be strings (quote them)"
                }
                Ok(_) => "spec: a field has an invalid value. See the reference of the kind",
            };
            self.problem(position, Some(object), message);
            return None;
        };
        match crd::validate(&admitted) {
            Ok(()) => Some(admitted),
            Err(rules) => {
                for rule in rules {
                    self.problem(position, Some(object), rule);
                }
                None
            }
        }
    }

    /// Returns the labels of a namespace as a cluster would have them, including its own name.
    pub(crate) fn labels(&self, namespace: &str) -> BTreeMap<String, String> {
        let mut labels = self.namespaces.get(namespace).cloned().unwrap_or_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), namespace.to_owned());
        labels
    }
}

impl Placed {
    /// Returns its name and position as JSON.
    pub(crate) fn json(&self) -> Value {
        json!({ "namespace": self.namespace, "name": self.name, "file": self.position.file, "line": self.position.line })
    }
}
