//! Resolves the entries of a spec: the one reading of `data` and `dataFrom` that every decision
//! uses.

use std::fmt;

use lockstep_api::{
    CiphertextScope, DataEntry, DataFromEntry, DecodingStrategy, Generate, MetadataPolicy, Reason, Rewrite,
    StoreRef, SyncedSecretSpec, synced_secret,
};

use crate::{
    Failure,
    remote::{ErrorKind, Part, ProviderError},
    text::excerpt,
};

/// The place of an entry in the spec. Its `Display` is what messages begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryPath<'a> {
    /// An entry of `data`.
    Data {
        /// Its index.
        index: usize,
        /// The key of the Secret that it writes.
        secret_key: &'a str,
    },
    /// An entry of `dataFrom`.
    DataFrom {
        /// Its index.
        index: usize,
        /// The field that is its source.
        field: &'static str,
    },
}

impl EntryPath<'_> {
    /// Returns the index in `data` or `dataFrom`.
    pub fn index(self) -> usize {
        match self {
            Self::Data { index, .. } | Self::DataFrom { index, .. } => index,
        }
    }

    /// Returns the path of the list item, such as `data[0]`.
    pub fn item(self) -> String {
        match self {
            Self::Data { index, .. } => format!("data[{index}]"),
            Self::DataFrom { index, .. } => format!("dataFrom[{index}]"),
        }
    }

    /// Returns the failure when this entry writes a key that `first` writes too.
    pub fn duplicate(self, first: Self, key: &str) -> Failure {
        let both = format!("{} and {} both write", first.item(), self.item());
        // the names of properties can be secret, so only keys of the spec are shown
        let is_named = [first, self].iter().any(|path| matches!(path, Self::Data { .. }));
        let message = if is_named {
            format!("{both} the key \"{}\"", excerpt(key))
        } else {
            format!("{both} the same key. Rename one with dataFrom[].rewrite")
        };
        Failure::new(Reason::DuplicateKey, message)
    }
}

impl fmt::Display for EntryPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data { index, secret_key } => write!(f, "data[{index}] (secretKey \"{secret_key}\")"),
            Self::DataFrom { index, field } => write!(f, "dataFrom[{index}].{field}"),
        }
    }
}

/// A remote value that an entry names by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference<'a> {
    /// The key, as the user wrote it.
    pub key: &'a str,
    /// The property of the value; `None` for the whole value.
    pub property: Option<&'a str>,
    /// The version; `None` for the current one.
    pub version: Option<&'a str>,
    /// The part to read.
    pub part: Part,
}

/// Where the keys of an entry come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Source<'a> {
    /// One key from a remote value or one of its properties.
    Value(&'a str, Reference<'a>),
    /// One key from a ciphertext.
    Ciphertext {
        /// The key of the Secret.
        secret_key: &'a str,
        /// The ciphertext.
        text: &'a str,
        /// The scope that it was sealed for.
        scope: CiphertextScope,
    },
    /// One key for each property of a remote value.
    Fields(Reference<'a>),
    /// One key for each remote value that a search finds.
    Search(&'a synced_secret::Find),
    /// One key for each field of a credential that the store issues.
    Generated(&'a Generate),
}

/// One entry of `data` or `dataFrom`, with the defaults of the spec applied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry<'a> {
    /// Its place in the spec.
    pub path: EntryPath<'a>,
    /// Its store.
    pub store: &'a StoreRef,
    /// Where its keys come from.
    pub source: Source<'a>,
    /// How its values are decoded.
    pub decoding: DecodingStrategy,
    /// Whether its key is left out if the remote value does not exist.
    pub optional: bool,
    /// The steps that rename its keys.
    pub rewrite: &'a [Rewrite],
}

impl<'a> Entry<'a> {
    /// Returns the remote value that the entry names by key, if any.
    pub fn reference(&self) -> Option<Reference<'a>> {
        match self.source {
            Source::Value(_, reference) | Source::Fields(reference) => Some(reference),
            Source::Ciphertext { .. } | Source::Search(_) | Source::Generated(_) => None,
        }
    }

    /// Creates a failure whose message begins with the place of the entry.
    pub fn failure(&self, reason: Reason, message: impl fmt::Display) -> Failure {
        Failure::new(reason, format!("{}: {message}", self.path))
    }

    /// Creates the failure for an error of the store.
    pub fn store_failure(&self, error: &ProviderError) -> Failure {
        Failure::provider(&format!("{}: {}", self.path, self.store), error)
    }

    /// Creates the failure when no remote value exists.
    pub fn not_found(&self, message: impl fmt::Display) -> Failure {
        self.failure(ErrorKind::NotFound.reason(), message)
            .requeued(ErrorKind::NotFound.requeue())
    }
}

/// Resolves the entries of a spec, `data` first.
///
/// # Errors
/// Per entry, when it has no store, or not exactly one source. Decisions that do not report errors
/// skip such an entry: the plan fails because of it.
pub fn entries(spec: &SyncedSecretSpec) -> impl Iterator<Item = Result<Entry<'_>, Failure>> {
    let data = spec.data.iter().enumerate();
    let data_from = spec.data_from.iter().enumerate();
    data.map(move |(index, entry)| of_data(spec, index, entry))
        .chain(data_from.map(move |(index, entry)| of_data_from(spec, index, entry)))
}

fn of_data<'a>(spec: &'a SyncedSecretSpec, index: usize, entry: &'a DataEntry) -> Result<Entry<'a>, Failure> {
    let secret_key = &*entry.secret_key;
    let path = EntryPath::Data { index, secret_key };
    let source = match (&entry.remote_ref, &entry.ciphertext) {
        (Some(remote), None) => {
            let reference = Reference {
                key: &remote.key,
                property: remote.property.as_deref(),
                version: remote.version.as_deref(),
                part: part(remote.metadata_policy),
            };
            Source::Value(secret_key, reference)
        }
        (None, Some(text)) => Source::Ciphertext {
            secret_key,
            text,
            scope: entry.ciphertext_scope,
        },
        _ => return Err(invalid(path, "set exactly one of remoteRef and ciphertext")),
    };
    Ok(Entry {
        path,
        store: store(spec, entry.secret_store_ref.as_ref(), path)?,
        source,
        decoding: entry.decoding_strategy,
        optional: entry.optional,
        rewrite: &[],
    })
}

fn of_data_from<'a>(
    spec: &'a SyncedSecretSpec,
    index: usize,
    entry: &'a DataFromEntry,
) -> Result<Entry<'a>, Failure> {
    let (field, source, decoding) = match (&entry.extract, &entry.find, &entry.generate) {
        (Some(extract), None, None) => {
            let reference = Reference {
                key: &extract.key,
                property: extract.property.as_deref(),
                version: extract.version.as_deref(),
                part: part(extract.metadata_policy),
            };
            ("extract", Source::Fields(reference), extract.decoding_strategy)
        }
        (None, Some(find), None) => ("find", Source::Search(find), find.decoding_strategy),
        (None, None, Some(generate)) => ("generate", Source::Generated(generate), DecodingStrategy::None),
        _ => {
            return Err(invalid(
                format_args!("dataFrom[{index}]"),
                "set exactly one of extract, find and generate",
            ));
        }
    };
    let path = EntryPath::DataFrom { index, field };
    Ok(Entry {
        path,
        store: store(spec, entry.secret_store_ref.as_ref(), path)?,
        source,
        decoding,
        optional: false,
        rewrite: &entry.rewrite,
    })
}

fn store<'a>(
    spec: &'a SyncedSecretSpec,
    own: Option<&'a StoreRef>,
    path: EntryPath<'_>,
) -> Result<&'a StoreRef, Failure> {
    own.or(spec.secret_store_ref.as_ref()).ok_or_else(|| {
        let message = "secretStoreRef is not set. Set it here or in spec.secretStoreRef";
        invalid(path, message)
    })
}

fn invalid(path: impl fmt::Display, message: &str) -> Failure {
    Failure::new(Reason::InvalidSpec, format!("{path}: {message}"))
}

fn part(policy: MetadataPolicy) -> Part {
    match policy {
        MetadataPolicy::None => Part::Value,
        MetadataPolicy::Fetch => Part::Metadata,
    }
}

/// Returns the version that each entry names by key, in the order of [`entries`]. `None` for
/// entries without a remote value.
pub fn versions_mut(spec: &mut SyncedSecretSpec) -> impl Iterator<Item = Option<&mut Option<String>>> {
    let data = spec
        .data
        .iter_mut()
        .map(|entry| entry.remote_ref.as_mut().map(|remote| &mut remote.version));
    let data_from = spec
        .data_from
        .iter_mut()
        .map(|entry| entry.extract.as_mut().map(|extract| &mut extract.version));
    data.chain(data_from)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(fields: &Value) -> SyncedSecretSpec {
        serde_json::from_value(fields.clone()).unwrap()
    }

    #[test]
    fn entries_have_the_defaults_of_the_spec() {
        let spec = spec(&json!({
            "secretStoreRef": { "name": "top" },
            "data": [
                { "secretKey": "a", "optional": true, "decodingStrategy": "Base64",
                    "remoteRef": { "key": "k", "property": "p", "version": "1" } },
                { "secretKey": "b", "ciphertext": "text", "secretStoreRef": { "name": "own" } },
            ],
            "dataFrom": [
                { "extract": { "key": "k", "metadataPolicy": "Fetch", "decodingStrategy": "Auto" } },
                { "find": { "path": "shop" }, "secretStoreRef": { "name": "own" } },
                { "generate": { "vault": { "path": "database/creds/shop" } },
                    "rewrite": [{ "merge": {} }] },
            ],
        }));
        let all: Vec<_> = entries(&spec).map(Result::unwrap).collect();
        let shown: Vec<_> = all
            .iter()
            .map(|entry| format!("{} of {}", entry.path, entry.store.name))
            .collect();
        assert_eq!(
            shown,
            [
                "data[0] (secretKey \"a\") of top",
                "data[1] (secretKey \"b\") of own",
                "dataFrom[0].extract of top",
                "dataFrom[1].find of own",
                "dataFrom[2].generate of top",
            ]
        );
        assert!(all[0].optional && !all[1].optional);
        assert_eq!(all[0].decoding, DecodingStrategy::Base64);
        assert_eq!(all[2].decoding, DecodingStrategy::Auto);
        assert_eq!(all[4].rewrite.len(), 1);
        let references: Vec<_> = all.iter().map(Entry::reference).collect();
        let value = Reference {
            key: "k",
            property: Some("p"),
            version: Some("1"),
            part: Part::Value,
        };
        let fields = Reference {
            property: None,
            version: None,
            part: Part::Metadata,
            ..value
        };
        assert_eq!(references, [Some(value), None, Some(fields), None, None]);
    }

    #[test]
    fn entry_without_a_store_or_one_source_fails_alone() {
        let spec = spec(&json!({
            "data": [
                { "secretKey": "a", "remoteRef": { "key": "k" } },
                { "secretKey": "b", "secretStoreRef": { "name": "own" } },
                { "secretKey": "c", "remoteRef": { "key": "k" }, "ciphertext": "text" },
                { "secretKey": "d", "remoteRef": { "key": "k" }, "secretStoreRef": { "name": "own" } },
            ],
            "dataFrom": [{}, { "extract": { "key": "k" }, "find": { "path": "shop" } }],
        }));
        let messages: Vec<_> = entries(&spec)
            .map(|entry| entry.map_or_else(|failure| failure.message, |entry| entry.path.item()))
            .collect();
        assert_eq!(
            messages,
            [
                "data[0] (secretKey \"a\"): secretStoreRef is not set. Set it here or in spec.secretStoreRef",
                "data[1] (secretKey \"b\"): set exactly one of remoteRef and ciphertext",
                "data[2] (secretKey \"c\"): set exactly one of remoteRef and ciphertext",
                "data[3]",
                "dataFrom[0]: set exactly one of extract, find and generate",
                "dataFrom[1]: set exactly one of extract, find and generate",
            ]
        );
    }

    #[test]
    fn versions_are_in_the_order_of_the_entries() {
        let mut spec = spec(&json!({
            "secretStoreRef": { "name": "top" },
            "data": [
                { "secretKey": "a", "ciphertext": "text" },
                { "secretKey": "b", "remoteRef": { "key": "k", "version": "1" } },
            ],
            "dataFrom": [{ "find": { "path": "shop" } }, { "extract": { "key": "k", "version": "2" } }],
        }));
        let of_entries: Vec<_> = entries(&spec)
            .map(|entry| {
                entry
                    .unwrap()
                    .reference()
                    .map(|reference| reference.version.map(str::to_owned))
            })
            .collect();
        let versions: Vec<_> = versions_mut(&mut spec).map(Option::<&mut _>::cloned).collect();
        assert_eq!(versions, of_entries);
        assert_eq!(versions[3], Some(Some("2".to_owned())));
    }
}
