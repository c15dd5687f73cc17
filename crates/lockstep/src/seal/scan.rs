//! Finds the values to seal in a text, and plaintext that cannot be sealed.

use lockstep_api::{CiphertextScope, StoreRef};
use lockstep_core::text::shell_quote;
use lockstep_provider::{Binding, SecretValue};
use serde_json::Value;

use super::{
    edit::{self, Slot},
    finding::Finding,
    plaintext,
    tree::{self, Node, Shared, Step},
};
use crate::manifests::{
    input::Source,
    objects::{Objects, Position},
    schema::UNSEALED,
    yaml::{self, shown},
};

/// Placeholder for a future ciphertext.
const PLACEHOLDER: &str = "lockstep:v1:";

/// A text and what was found in it. It does not implement `Debug`, because it contains plaintext.
pub(super) struct Scan<'a> {
    pub(super) source: &'a Source,
    /// Content of the documents.
    pub(super) documents: Vec<Value>,
    /// Values to seal.
    pub(super) entries: Vec<Entry>,
    /// Errors that prevent sealing. If there are any, the text is not changed.
    pub(super) faults: Vec<Finding>,
    /// Documents that cannot be parsed and could contain plaintext.
    pub(super) unreadable: Vec<Finding>,
    /// Plaintext found.
    pub(super) plaintexts: Vec<Finding>,
    /// Why the text was skipped. A folder can contain unrelated files.
    pub(super) skipped: Option<String>,
}

/// An entry of `data` to seal.
#[derive(Debug)]
pub(super) struct Entry {
    /// Position of the entry.
    pub(super) position: Position,
    /// The object as shown in messages.
    pub(super) object: String,
    /// Namespace of the object; `None` if it is unknown.
    pub(super) namespace: Option<String>,
    /// Name of the object.
    pub(super) name: String,
    /// Path of the entry, such as `spec.data[0]`.
    pub(super) path: String,
    /// The field to seal, one of [`UNSEALED`].
    pub(super) field: &'static str,
    pub(super) secret_key: String,
    pub(super) scope: CiphertextScope,
    pub(super) store: StoreRef,
    /// Content of the field.
    pub(super) held: SecretValue,
    /// Index of the document. `pointer` is the path of the entry in it.
    document: usize,
    pointer: String,
    slot: Slot,
}

/// A document and the positions of its nodes.
#[derive(Clone, Copy)]
struct Document<'a> {
    index: usize,
    line: usize,
    tree: Option<&'a Node>,
}

/// An object in a document: the document itself or an item of a List.
struct Object<'a> {
    document: Document<'a>,
    value: &'a Value,
    steps: Vec<Step<'a>>,
    pointer: String,
    label: String,
}

/// Scans a text. `namespace` is used for objects without one.
pub(super) fn scan<'a>(source: &'a Source, namespace: Option<&str>) -> Scan<'a> {
    let mut scan = Scan {
        source,
        documents: Vec::new(),
        entries: Vec::new(),
        faults: Vec::new(),
        unreadable: Vec::new(),
        plaintexts: Vec::new(),
        skipped: None,
    };
    let documents = yaml::documents(&source.text);
    let trees = tree::documents(&source.text).unwrap_or_default();
    // without a tree, lines are those of documents and nothing can be replaced
    let same = trees.len() == documents.len();
    for (index, document) in documents.into_iter().enumerate() {
        let within = Document {
            index,
            line: document.line,
            tree: trees.get(index).filter(|_| same),
        };
        match document.value {
            Ok(value) => {
                scan.scan_object(within, &value, Vec::new(), String::new(), namespace);
                scan.documents.push(value);
            }
            Err(message) if source.named || is_about_secrets(&source.text) => {
                let finding = Finding::new(scan.position(document.line), None, None, message);
                scan.unreadable.push(finding);
            }
            Err(message) => {
                scan.skipped = Some(format!("{}: skipped: {message}", source.name));
                scan.entries.clear();
                return scan;
            }
        }
    }
    scan
}

/// Whether a text that cannot be parsed could contain plaintext. Templates of Secrets are not valid
/// YAML and contain no values.
fn is_about_secrets(text: &str) -> bool {
    let is_secret = |line: &str| {
        let line = line.trim_start_matches([' ', '\t', '-', '"', '\'', '{']);
        line.starts_with("kind") && line.contains("Secret")
    };
    text.contains(lockstep_api::GROUP) || !text.contains("{{") && text.lines().any(is_secret)
}

impl Scan<'_> {
    /// Whether the text has errors, so nothing in it may be sealed.
    pub(super) fn is_blocked(&self) -> bool {
        !self.faults.is_empty() || !self.unreadable.is_empty()
    }

    /// Returns the text with each entry replaced by its ciphertext, unless anything else would
    /// change.
    pub(super) fn sealed(&self, ciphertexts: &[String]) -> Option<String> {
        let all = || self.entries.iter().zip(ciphertexts);
        let changes = all().flat_map(|(entry, ciphertext)| entry.slot.changes(ciphertext));
        let text = edit::apply(&self.source.text, changes.collect())?;
        let mut expected = self.documents.clone();
        for (entry, ciphertext) in all() {
            let object = expected.get_mut(entry.document)?.pointer_mut(&entry.pointer)?;
            edit::replace(object, entry.field, ciphertext);
        }
        edit::has_documents(&text, &expected).then_some(text)
    }

    fn position(&self, line: usize) -> Position {
        Position {
            file: self.source.name.clone(),
            line,
        }
    }

    /// Scans one object, or each item of a List, for values to seal and for plaintext.
    fn scan_object(
        &mut self,
        document: Document<'_>,
        value: &Value,
        steps: Vec<Step<'_>>,
        pointer: String,
        namespace: Option<&str>,
    ) {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
        let (version, kind) = (text("apiVersion"), text("kind"));
        if kind.ends_with("List")
            && let Some(items) = value["items"].as_array()
        {
            for (index, item) in items.iter().enumerate() {
                let mut steps = steps.clone();
                steps.extend([Step::Field("items"), Step::Item(index)]);
                self.scan_object(
                    document,
                    item,
                    steps,
                    format!("{pointer}/items/{index}"),
                    namespace,
                );
            }
            return;
        }
        let metadata_field = |field: &str| value["metadata"][field].as_str().map(str::to_owned);
        let name = metadata_field("name").unwrap_or_default();
        let own_namespace = metadata_field("namespace").or_else(|| namespace.map(str::to_owned));
        let label = match &own_namespace {
            Some(namespace) => format!("{kind} {}/{}", shown(namespace), shown(&name)),
            None => format!("{kind} {}", shown(&name)).trim_end().to_owned(),
        };
        let object = Object {
            document,
            value,
            steps,
            pointer,
            label,
        };
        let group = version.split('/').next().unwrap_or_default();
        if group == lockstep_api::GROUP && kind == "SyncedSecret" {
            for index in 0..value["spec"]["data"].as_array().map_or(0, Vec::len) {
                self.scan_data_entry(&object, index, own_namespace.as_ref(), &name);
            }
        } else {
            for found in plaintext::of_object(group, kind, value) {
                let mut steps = object.steps.clone();
                steps.extend_from_slice(&found.steps);
                let position = self.position(object.line(&steps));
                let finding = Finding::new(position, Some(&object.label), Some(&found.field), found.message);
                self.plaintexts.push(finding);
            }
        }
    }

    /// Scans one entry of `spec.data`.
    fn scan_data_entry(&mut self, object: &Object<'_>, index: usize, namespace: Option<&String>, name: &str) {
        let value = &object.value["spec"]["data"][index];
        let path = format!("spec.data[{index}]");
        let mut steps = object.steps.clone();
        steps.extend([Step::Field("spec"), Step::Field("data"), Step::Item(index)]);
        let scope: CiphertextScope =
            serde_json::from_value(value["ciphertextScope"].clone()).unwrap_or_default();
        let secret_key = value["secretKey"].as_str().unwrap_or_default();
        if let Some(ciphertext) = value["ciphertext"].as_str() {
            let known = namespace.map(|namespace| (scope, namespace.as_str(), name, secret_key));
            if let Some(message) = plaintext::of_ciphertext(ciphertext, known) {
                let at = [steps.as_slice(), &[Step::Field("ciphertext")]].concat();
                let field = format!("{path}.ciphertext");
                let position = self.position(object.line(&at));
                self.plaintexts
                    .push(Finding::new(position, Some(&object.label), Some(&field), message));
            }
        }
        let Some(field) = UNSEALED.into_iter().find(|field| value.get(field).is_some()) else {
            return;
        };
        let at = [steps.as_slice(), &[Step::Field(field)]].concat();
        let position = self.position(object.line(&at));
        let finding = |message: String| {
            Finding::new(
                position.clone(),
                Some(&object.label),
                Some(&format!("{path}.{field}")),
                message,
            )
        };
        // standard input has a name but no path
        let file = match self.source.path {
            Some(_) => self.source.name.as_str(),
            None => "-",
        };
        self.plaintexts.push(finding(format!(
            "not sealed. Run: lockstep seal -f {}",
            shell_quote(file)
        )));
        let other = ["plaintextFile", "remoteRef", "ciphertext"]
            .into_iter()
            .find(|other| *other != field && value.get(other).is_some());
        if let Some(other) = other {
            self.faults.push(finding(format!(
                "cannot be combined with {other}. Remove one of them"
            )));
            return;
        }
        if scope != CiphertextScope::Cluster && namespace.is_none() {
            let message = "metadata.namespace is not set, but a sealed value is bound to its namespace. Set it, or use --namespace";
            self.faults.push(finding(message.to_owned()));
            return;
        }
        let Some(held) = value[field].as_str() else {
            self.faults
                .push(finding("must be a string (quote it)".to_owned()));
            return;
        };
        let slot = match object.slot(&self.source.text, &steps, field, held) {
            Ok(slot) => slot,
            Err(message) => {
                self.faults.push(finding(message.to_owned()));
                return;
            }
        };
        let spec = &object.value["spec"];
        let store = [&value["secretStoreRef"], &spec["secretStoreRef"]]
            .into_iter()
            .find(|store| !store.is_null())
            .and_then(|store| serde_json::from_value(store.clone()).ok());
        let Some(store) = store else {
            let message = "no store to seal it with. Set secretStoreRef, in this entry or in spec";
            self.faults.push(finding(message.to_owned()));
            return;
        };
        self.entries.push(Entry {
            position,
            object: object.label.clone(),
            namespace: namespace.cloned(),
            name: name.to_owned(),
            path: path.clone(),
            field,
            secret_key: secret_key.to_owned(),
            scope,
            store,
            held: held.into(),
            document: object.document.index,
            pointer: format!("{}/spec/data/{index}", object.pointer),
            slot,
        });
    }

    /// Adds errors for objects that the API server would reject even after sealing.
    pub(super) fn admission(&mut self, server: &mut Objects) {
        let mut documents = self.documents.clone();
        let mut touched: Vec<(usize, usize)> = Vec::new();
        for entry in &self.entries {
            let object = documents
                .get_mut(entry.document)
                .and_then(|document| document.pointer_mut(&entry.pointer));
            if let Some(object) = object {
                edit::replace(object, entry.field, PLACEHOLDER);
            }
            if touched
                .last()
                .is_none_or(|(document, _)| *document != entry.document)
            {
                touched.push((entry.document, entry.position.line));
            }
        }
        for (document, line) in touched {
            let Some(value) = documents.get_mut(document).map(Value::take) else {
                continue;
            };
            let position = self.position(line);
            for problem in server.admission(value, &position) {
                self.faults.push(Finding {
                    position: problem.position,
                    object: problem.object,
                    field: None,
                    message: problem.message,
                });
            }
        }
    }
}

impl Entry {
    /// Returns the object and key that the ciphertext is bound to.
    pub(super) fn binding(&self) -> Binding {
        let namespace = self.namespace.as_deref().unwrap_or_default();
        Binding::new(self.scope, namespace, &self.name, &self.secret_key)
    }
}

impl Object<'_> {
    fn line(&self, steps: &[Step<'_>]) -> usize {
        self.document
            .tree
            .map_or(self.document.line, |tree| tree.line_of(steps))
    }

    /// Returns where the ciphertext replaces a field.
    fn slot(&self, text: &str, steps: &[Step<'_>], field: &str, held: &str) -> Result<Slot, &'static str> {
        const UNCLEAR: &str = "cannot determine its position in the file. Write it in double quotes";
        let tree = self.document.tree.ok_or(UNCLEAR)?;
        let at = [steps, &[Step::Field(field)]].concat();
        let value = tree.descend(&at).map_err(|shared| match shared {
            Shared::Anchor => "it or a parent has an anchor (&name), so its aliases would change too. Repeat the value instead",
            Shared::Alias => "it comes from an alias (*name) or a merge key (<<). Repeat the value instead",
        })?;
        let (key, _) = tree
            .descend(steps)
            .ok()
            .and_then(|entry| entry.field(field))
            .ok_or(UNCLEAR)?;
        if value.tagged || key.tagged || key.anchored {
            return Err("it has a tag (!name), or its key has a tag or an anchor. Remove them");
        }
        // two YAML parsers must agree on the value
        if value.text().is_none_or(|value| value.expose() != held.as_bytes()) {
            return Err(UNCLEAR);
        }
        Slot::of(text, key, value).ok_or(UNCLEAR)
    }
}
