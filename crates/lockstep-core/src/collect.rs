//! Turns the remote values into the keys of the Secret, before any template runs.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use jiff::Timestamp;
use lockstep_api::{
    DecodingStrategy, DeletionPolicy, Generate, Reason, Rewrite, SourceStatus, StoreRef, crd::TIMES,
};

use crate::{
    Failure,
    decode::decode,
    plan::{Input, Read},
    property::{self, Document, PropertyError},
    remote::{ErrorKind, Location, ProviderError, RemoteRef, RemoteSecret, Requeue, SecretValue},
    rewrite::rewrite,
    spec::{self, Entry, EntryPath, Reference, Source},
    template::{self, Budget},
    text::{self, excerpt},
};

/// The results of a plan: all its reads, and the values that its searches found.
#[derive(Debug, Default)]
pub struct Fetched {
    /// The result of each read.
    pub reads: HashMap<Read, Result<RemoteSecret, ProviderError>>,
    /// The locations that each search found, by index in `dataFrom`. `reads` contains their values.
    pub found: BTreeMap<usize, Result<Vec<Location>, ProviderError>>,
    /// The decrypted values by index in `data`. `None` if nothing was decrypted, which is enough to
    /// detect a change.
    pub decrypted: Option<BTreeMap<usize, Result<SecretValue, ProviderError>>>,
    /// The credential of the plan; `None` until one exists.
    pub generated: Option<Generated>,
    /// The store at which reading stopped because all values together exceed [`MAX_SOURCE_BYTES`].
    pub too_large: Option<StoreRef>,
}

/// A credential that a store issued.
#[derive(Debug, Clone)]
pub struct Generated {
    /// The id of the lease, which fingerprints use instead of the value.
    pub lease: String,
    /// When the store issued it.
    pub issued: Timestamp,
    /// The fields as one JSON object. `None` if this process does not hold them, which is enough to
    /// detect a change.
    pub value: Option<SecretValue>,
}

/// Maximum total size in bytes of a SyncedSecret's remote values, and of its keys before any
/// template.
pub const MAX_SOURCE_BYTES: usize = 4 << 20;

/// The keys of the Secret, before any template.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    /// Values by key. Keys from ciphertexts are missing until they are decrypted.
    pub values: BTreeMap<String, SecretValue>,
    /// The keys that come from ciphertexts, with the input for their fingerprint.
    pub sealed: BTreeMap<String, SealedInput>,
    /// The keys that come from a credential, with the input for its fingerprint.
    pub leased: Option<LeasedInput>,
    /// The remote values that were read.
    pub sources: Vec<SourceStatus>,
    /// Time until the first value changes by itself, if the store reports it.
    pub fresh_for: Option<Duration>,
}

/// The fingerprint input of the keys that come from a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeasedInput {
    /// The id of the lease; `None` until one exists.
    pub lease: Option<String>,
    /// The keys; `None` if this process does not hold the fields.
    pub keys: Option<BTreeSet<String>>,
    /// The steps that rename the keys.
    pub rewrite: Vec<Rewrite>,
}

/// The fingerprint input of a key that comes from a ciphertext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedInput {
    /// The ciphertext. It differs each time the same value is sealed.
    pub text: String,
    /// How the value is decoded.
    pub strategy: DecodingStrategy,
}

/// The result of [`collect`].
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Every required key has a value.
    Complete(Collected),
    /// No remote value was found, and `deletionPolicy` is `Delete`.
    Gone,
}

/// Builds the keys of the Secret from the remote values.
///
/// # Errors
/// The first entry that fails, in the order of the spec. The result is never partial.
pub fn collect(input: &Input<'_>, fetched: &Fetched) -> Result<Outcome, Failure> {
    if let Some(store) = &fetched.too_large {
        return Err(too_large(store));
    }
    match gather_keys(input, fetched) {
        Err(failure)
            if failure.is_not_found()
                && input.spec.target.deletion_policy == DeletionPolicy::Delete
                && all_gone(input, fetched) =>
        {
            Ok(Outcome::Gone)
        }
        Err(failure) => Err(failure),
        Ok(collected)
            if collected.sources.is_empty() && collected.sealed.is_empty() && collected.leased.is_none() =>
        {
            if input.spec.target.deletion_policy == DeletionPolicy::Delete {
                return Ok(Outcome::Gone);
            }
            nothing_found(input).map_or(Ok(Outcome::Complete(collected)), Err)
        }
        Ok(collected) => Ok(Outcome::Complete(collected)),
    }
}

/// Fails when every entry is a search and none found a value. `Retain` must not empty the Secret.
fn nothing_found(input: &Input<'_>) -> Option<Failure> {
    let mut entries = spec::entries(input.spec).flatten();
    let search = entries.find(|entry| matches!(entry.source, Source::Search(_)))?;
    let message = format!("{}: no remote value matches", search.store);
    Some(search.not_found(message))
}

fn all_gone(input: &Input<'_>, fetched: &Fetched) -> bool {
    // a ciphertext is in the spec itself and cannot be gone; a credential is issued again
    let stays = |entry: Entry<'_>| matches!(entry.source, Source::Ciphertext { .. } | Source::Generated(_));
    if spec::entries(input.spec).flatten().any(stays) {
        return false;
    }
    fetched
        .reads
        .values()
        .all(|read| matches!(read, Err(error) if error.kind == ErrorKind::NotFound))
        && fetched.found.values().all(Result::is_ok)
}

fn gather_keys(input: &Input<'_>, fetched: &Fetched) -> Result<Collected, Failure> {
    let mut gathered = Gathered {
        input,
        fetched,
        budget: Budget::begin(),
        documents: Documents::default(),
        writers: HashMap::new(),
        bytes: 0,
        collected: Collected {
            sources: sources(input, fetched),
            fresh_for: fetched
                .reads
                .values()
                .filter_map(|read| read.as_ref().ok()?.fresh_for)
                .min(),
            ..Collected::default()
        },
    };
    for entry in spec::entries(input.spec) {
        gathered.add(&entry?)?;
    }
    Ok(gathered.collected)
}

/// The keys of the entries that were added.
struct Gathered<'a> {
    input: &'a Input<'a>,
    fetched: &'a Fetched,
    budget: Budget,
    documents: Documents<'a>,
    /// The entry that writes each key.
    writers: HashMap<String, EntryPath<'a>>,
    /// The total size of the keys and values.
    bytes: usize,
    collected: Collected,
}

impl<'a> Gathered<'a> {
    fn add(&mut self, entry: &Entry<'a>) -> Result<(), Failure> {
        check_budget(self.budget, entry)?;
        let values = match entry.source {
            Source::Value(secret_key, reference) => {
                return match self.value(entry, &reference) {
                    Ok(value) => self.insert(entry, secret_key.to_owned(), value),
                    Err(failure) if entry.optional && failure.is_not_found() => Ok(()),
                    Err(failure) => Err(failure),
                };
            }
            Source::Ciphertext { secret_key, text, .. } => {
                let sealed = SealedInput {
                    text: text.to_owned(),
                    strategy: entry.decoding,
                };
                self.collected.sealed.insert(secret_key.to_owned(), sealed);
                return match &self.fetched.decrypted {
                    None => self.claim(entry, secret_key),
                    Some(values) => self.insert(entry, secret_key.to_owned(), decrypted(values, entry)?),
                };
            }
            Source::Fields(reference) => {
                let secret = self.lookup(entry, &self.input.read(entry, &reference)?, reference.key)?;
                let fields = self.documents.of(&secret.value).fields(reference.property);
                fields.map_err(|error| property_failure(&error, entry, reference.key, reference.property))?
            }
            Source::Search(_) => self.found(entry)?,
            Source::Generated(generate) => match self.generated(entry, generate)? {
                Some(values) => values,
                None => return Ok(()),
            },
        };
        let decoded = values
            .into_iter()
            .map(|(key, value)| Ok((key, decoded(entry, &value)?)))
            .collect::<Result<_, Failure>>()?;
        let renamed = rewrite(entry.rewrite, decoded, self.budget).map_err(|error| {
            let message = format!("{}.{error}", entry.path.item());
            Failure::new(Reason::RewriteFailed, message)
        })?;
        if let (Source::Generated(_), Some(leased)) = (entry.source, &mut self.collected.leased) {
            leased.keys = Some(renamed.keys().cloned().collect());
        }
        let mut renamed = renamed.into_iter();
        renamed.try_for_each(|(key, value)| self.insert(entry, key, value))
    }

    /// Adds a value, unless another entry writes the key or the total becomes too large.
    fn insert(&mut self, entry: &Entry<'a>, key: String, value: SecretValue) -> Result<(), Failure> {
        self.claim(entry, &key)?;
        self.bytes = self.bytes.saturating_add(key.len() + value.len());
        if self.bytes > MAX_SOURCE_BYTES {
            return Err(too_large(&entry.path));
        }
        self.collected.values.insert(key, value);
        Ok(())
    }

    /// Records the entry that writes the key. Fails if another entry writes it too.
    fn claim(&mut self, entry: &Entry<'a>, key: &str) -> Result<(), Failure> {
        let first = self.writers.insert(key.to_owned(), entry.path);
        first.map_or(Ok(()), |first| Err(entry.path.duplicate(first, key)))
    }

    /// Returns the value of an entry with a `remoteRef`.
    fn value(&mut self, entry: &Entry<'_>, reference: &Reference<'_>) -> Result<SecretValue, Failure> {
        let secret = self.lookup(entry, &self.input.read(entry, reference)?, reference.key)?;
        let Some(path) = reference.property else {
            return decoded(entry, &secret.value);
        };
        let value = self.documents.of(&secret.value).extract(path);
        let value = value.map_err(|error| property_failure(&error, entry, reference.key, Some(path)))?;
        decoded(entry, &value)
    }

    fn lookup(&self, entry: &Entry<'_>, read: &Read, written: &str) -> Result<&'a RemoteSecret, Failure> {
        // a provider names the location, and the user knows the key
        let key = &read.reference.key;
        let context = if written == key.as_str() {
            format!("{}: {}", entry.path, entry.store)
        } else {
            format!("{}: key \"{}\": {}", entry.path, excerpt(written), entry.store)
        };
        match self.fetched.reads.get(read) {
            Some(Ok(secret)) => Ok(secret),
            Some(Err(error)) => Err(Failure::provider(&context, error)),
            None => {
                let message = format!("{context}: the response does not contain key \"{key}\"");
                Err(Failure::new(Reason::Malformed, message).requeued(Requeue::Backoff))
            }
        }
    }

    /// Returns the values that a search found.
    fn found(&self, entry: &Entry<'_>) -> Result<BTreeMap<String, SecretValue>, Failure> {
        let keys = match self.fetched.found.get(&entry.path.index()) {
            Some(Ok(keys)) => keys,
            Some(Err(error)) => return Err(entry.store_failure(error)),
            None => return Err(entry.failure(Reason::Internal, "the search did not run")),
        };
        let mut values = BTreeMap::new();
        for key in keys {
            let read = Read {
                store: entry.store.clone(),
                reference: RemoteRef::current(key.clone()),
            };
            match self.lookup(entry, &read, key) {
                Ok(secret) => {
                    values.insert(key.to_string(), secret.value.clone());
                }
                // listed a moment ago and gone now: as if the search had come later
                Err(failure) if failure.is_not_found() => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(values)
    }

    /// Returns the fields of the credential; `None` if this process does not hold them.
    fn generated(
        &mut self,
        entry: &Entry<'_>,
        generate: &Generate,
    ) -> Result<Option<BTreeMap<String, SecretValue>>, Failure> {
        let generated = self.fetched.generated.as_ref();
        self.collected.leased = Some(LeasedInput {
            lease: generated.map(|generated| generated.lease.clone()),
            keys: None,
            rewrite: entry.rewrite.to_vec(),
        });
        let value = generated.and_then(|generated| generated.value.as_ref());
        let fields = value.map(|value| property::fields(value, None)).transpose();
        fields.map_err(|error| property_failure(&error, entry, &generate.vault.path, None))
    }
}

fn check_budget(budget: Budget, entry: &Entry<'_>) -> Result<(), Failure> {
    if !budget.is_spent() {
        return Ok(());
    }
    let message = format!(
        "extracting the properties of the remote values took longer than {} s. Split the values, or use fewer properties",
        template::TOGETHER.as_secs()
    );
    let failure = entry.failure(Reason::TooLarge, message);
    Err(failure.requeued(Requeue::RefreshInterval))
}

/// Parses each remote value once, for any number of properties.
#[derive(Default)]
struct Documents<'a>(HashMap<usize, Document<'a>>);

impl<'a> Documents<'a> {
    fn of(&mut self, value: &'a SecretValue) -> &Document<'a> {
        // values that share their bytes are one document
        let bytes = value.expose().as_ptr().addr();
        self.0.entry(bytes).or_insert_with(|| Document::new(value))
    }
}

/// The failure when a SyncedSecret reads more than [`MAX_SOURCE_BYTES`].
pub(crate) fn too_large(place: &dyn std::fmt::Display) -> Failure {
    let message = format!(
        "{place}: the values exceed {} MiB in total, the limit for one SyncedSecret. Split the SyncedSecret, or let find match fewer values",
        MAX_SOURCE_BYTES >> 20
    );
    // the values may become smaller again
    Failure::new(Reason::TooLarge, message).requeued(Requeue::RefreshInterval)
}

/// Returns the value of an entry with a ciphertext.
fn decrypted(
    values: &BTreeMap<usize, Result<SecretValue, ProviderError>>,
    entry: &Entry<'_>,
) -> Result<SecretValue, Failure> {
    match values.get(&entry.path.index()) {
        Some(Ok(value)) => decoded(entry, value),
        Some(Err(error)) => Err(entry.store_failure(error)),
        None => Err(entry.failure(Reason::Internal, "the ciphertext was not decrypted")),
    }
}

fn decoded(entry: &Entry<'_>, value: &SecretValue) -> Result<SecretValue, Failure> {
    decode(entry.decoding, value).map_err(|error| entry.failure(Reason::DecodeFailed, error))
}

fn property_failure(error: &PropertyError, entry: &Entry<'_>, key: &str, path: Option<&str>) -> Failure {
    let store = entry.store;
    match (error, path) {
        (PropertyError::Missing { properties }, Some(path)) => {
            let which = if *properties == 1 {
                "property"
            } else {
                "properties"
            };
            entry.not_found(format_args!(
                "key \"{key}\" has no property \"{path}\" in store {store}; it has {properties} {which}"
            ))
        }
        (error, Some(path)) => entry.failure(
            Reason::Malformed,
            format_args!("property \"{path}\" of key \"{key}\" in store {store}: {error}"),
        ),
        (error, None) => entry.failure(
            Reason::Malformed,
            format_args!("key \"{key}\" in store {store}: {error}"),
        ),
    }
}

/// Maximum length of a version in the status; `remoteRef.version` has the same limit.
const MAX_VERSION: usize = 256;

fn sources(input: &Input<'_>, fetched: &Fetched) -> Vec<SourceStatus> {
    let mut sources: Vec<_> = fetched
        .reads
        .iter()
        .filter_map(|(read, secret)| Some((read, secret.as_ref().ok()?)))
        .map(|(read, secret)| SourceStatus {
            store: read.store.clone(),
            key: read.reference.key.to_string(),
            // an invalid name is left out of the status, as if the store had no versions
            version: secret
                .version
                .clone()
                .filter(|version| text::is_backend_name(version, MAX_VERSION)),
            // so is a time that the API server would reject
            created_time: secret.created.filter(|created| TIMES.contains(created)),
        })
        .collect();
    sources.extend(generated_source(input, fetched));
    sources.sort();
    sources
}

/// Returns the source of a credential. Its version is the lease id.
fn generated_source(input: &Input<'_>, fetched: &Fetched) -> Option<SourceStatus> {
    let generated = fetched.generated.as_ref()?;
    let (entry, generate) = spec::generated(input.spec)?;
    Some(SourceStatus {
        store: entry.store.clone(),
        key: generate.vault.path.clone(),
        version: Some(generated.lease.clone()),
        created_time: Some(generated.issued),
    })
}

#[cfg(test)]
mod tests {
    use lockstep_api::SyncedSecretSpec;

    use super::*;

    fn spec(policy: &str, entries: &serde_json::Value) -> SyncedSecretSpec {
        let mut spec = serde_json::json!({
            "secretStoreRef": { "name": "vault" }, "target": { "deletionPolicy": policy },
        });
        spec.as_object_mut()
            .unwrap()
            .extend(entries.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    fn collected(spec: &SyncedSecretSpec, fetched: &Fetched) -> Result<Outcome, Failure> {
        let input = Input {
            name: "s",
            namespace: "shop",
            uid: "uid",
            spec,
            stores: &BTreeMap::from([(
                serde_json::from_value(serde_json::json!({ "name": "vault" })).unwrap(),
                spec::StoreView {
                    configuration: "".into(),
                    grant: crate::access::Grant::Everything,
                    locator: Ok(std::sync::Arc::new(crate::remote::Verbatim)),
                },
            )]),
            rival: None,
        };
        collect(&input, fetched)
    }

    #[test]
    fn search_without_results_does_not_empty_the_secret() {
        let entries = serde_json::json!({ "dataFrom": [{ "find": { "path": "shop" } }] });
        let fetched = Fetched {
            found: BTreeMap::from([(0, Ok(Vec::new()))]),
            ..Fetched::default()
        };
        let failure = collected(&spec("Retain", &entries), &fetched).unwrap_err();
        assert_eq!(failure.reason, Reason::SourceNotFound);
        assert_eq!(
            failure.message,
            "dataFrom[0].find: SecretStore/vault: no remote value matches"
        );
        let gone = collected(&spec("Delete", &entries), &fetched);
        assert!(matches!(gone, Ok(Outcome::Gone)));
    }

    fn read_as(key: &str, value: String) -> (Read, Result<RemoteSecret, ProviderError>) {
        let read = Read {
            store: serde_json::from_value(serde_json::json!({ "name": "vault" })).unwrap(),
            reference: RemoteRef::current(Location::new(key).unwrap()),
        };
        let secret = RemoteSecret {
            value: SecretValue::from(value),
            version: None,
            created: None,
            fresh_for: None,
        };
        (read, Ok(secret))
    }

    #[test]
    fn created_time_outside_of_the_status_range_is_left_out() {
        let entries = serde_json::json!({ "data": [{ "secretKey": "a", "remoteRef": { "key": "a" } }] });
        for (created, is_kept) in [
            ("0999-12-31T23:59:59.999999999Z", false),
            ("1000-01-01T00:00:00Z", true),
            ("2999-12-31T23:59:59.999999999Z", true),
            ("3000-01-01T00:00:00Z", false),
        ] {
            let created: Timestamp = created.parse().unwrap();
            let (read, secret) = read_as("a", "v".to_owned());
            let secret = secret.map(|secret| RemoteSecret {
                created: Some(created),
                ..secret
            });
            let fetched = Fetched {
                reads: HashMap::from([(read, secret)]),
                ..Fetched::default()
            };
            let Ok(Outcome::Complete(collected)) = collected(&spec("Retain", &entries), &fetched) else {
                panic!("a value was read");
            };
            assert_eq!(collected.sources[0].created_time, is_kept.then_some(created));
        }
    }

    #[test]
    fn value_is_parsed_once_for_all_its_properties() {
        let fields: Vec<_> = (0..100_000)
            .map(|n| format!("\"f{n}\":{{\"x\":\"{n}\"}}"))
            .collect();
        let fetched = Fetched {
            reads: HashMap::from([read_as("big", format!("{{{}}}", fields.join(",")))]),
            ..Fetched::default()
        };
        let timed = |entries: usize| {
            let data: Vec<_> = (0..entries)
                .map(|n| {
                    let path = format!("f{}.x", n * 50);
                    serde_json::json!({ "secretKey": format!("k{n}"), "remoteRef": { "key": "big", "property": path } })
                })
                .collect();
            let spec = spec("Retain", &serde_json::json!({ "data": data }));
            let begun = std::time::Instant::now();
            let outcome = collected(&spec, &fetched).unwrap();
            let elapsed = begun.elapsed();
            let Outcome::Complete(keys) = outcome else {
                panic!("it is there")
            };
            let last = format!("k{}", entries - 1);
            assert_eq!(
                keys.values[&last].expose_str(),
                Some(&*(50 * (entries - 1)).to_string())
            );
            elapsed
        };
        let (one, many) = (timed(1), timed(2000));
        assert!(many < 100 * one, "2000 entries: {many:?}, 1 entry: {one:?}");
    }

    #[test]
    fn extracted_properties_are_limited_to_four_mebibytes() {
        let value = format!("{{\"x\":\"{}\"}}", "CANARY".repeat(150_000));
        let fetched = Fetched {
            reads: HashMap::from([read_as("big", value)]),
            ..Fetched::default()
        };
        let entry = |n| serde_json::json!({ "secretKey": format!("k{n}"), "remoteRef": { "key": "big", "property": "x" } });
        let entries = |count: usize| serde_json::json!({ "data": (0..count).map(entry).collect::<Vec<_>>() });
        assert!(collected(&spec("Retain", &entries(4)), &fetched).is_ok());
        let failure = collected(&spec("Retain", &entries(5)), &fetched).unwrap_err();
        assert_eq!(failure.reason, Reason::TooLarge);
        assert_eq!(
            failure.message,
            "data[4] (secretKey \"k4\"): the values exceed 4 MiB in total, the limit for one SyncedSecret. Split the SyncedSecret, or let find match fewer values"
        );
    }

    #[test]
    fn missing_optional_key_is_omitted_or_deletes_the_secret() {
        let entries = serde_json::json!({ "data": [
            { "secretKey": "x", "optional": true, "remoteRef": { "key": "a" } },
        ] });
        let missing = ProviderError::new(ErrorKind::NotFound, crate::remote::Operation::Read, "not there");
        let read = Read {
            store: serde_json::from_value(serde_json::json!({ "name": "vault" })).unwrap(),
            reference: RemoteRef::current(Location::new("a").unwrap()),
        };
        let fetched = Fetched {
            reads: HashMap::from([(read, Err(missing))]),
            ..Fetched::default()
        };
        let kept = collected(&spec("Retain", &entries), &fetched);
        assert!(matches!(kept, Ok(Outcome::Complete(keys)) if keys.values.is_empty()));
        let gone = collected(&spec("Delete", &entries), &fetched);
        assert!(matches!(gone, Ok(Outcome::Gone)));
    }
}
