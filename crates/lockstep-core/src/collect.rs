//! Turns the remote values into the keys of the Secret, before any template runs.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use jiff::Timestamp;
use lockstep_api::{
    DataEntry, DataFromEntry, DecodingStrategy, DeletionPolicy, Reason, Rewrite, SourceStatus, StoreRef,
};

use crate::{
    Failure,
    access::Grant,
    decode::decode,
    lease,
    plan::{self, Input, Read},
    property::{self, Document, PropertyError},
    remote::{ErrorKind, Location, ProviderError, RemoteRef, RemoteSecret, Requeue, SecretValue},
    rewrite::rewrite,
    spec,
    template::{self, Budget},
    text,
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
    /// Every remote value is gone, and `deletionPolicy` is `Delete`.
    Gone,
}

/// Builds the keys of the Secret from the remote values.
///
/// # Errors
/// The first entry that fails, in the order of the spec. The result is never partial.
pub fn collect(input: &Input<'_>, fetched: &Fetched) -> Result<Outcome, Failure> {
    if let Some(store) = &fetched.too_large {
        return Err(too_large(&store.to_string()));
    }
    match gather_keys(input, fetched) {
        Err(failure)
            if failure.is_not_found()
                && input.spec.target.deletion_policy == DeletionPolicy::Delete
                && all_gone(input, fetched)
                && !searches_within_a_grant(input) =>
        {
            Ok(Outcome::Gone)
        }
        Err(failure) => Err(failure),
        Ok(collected)
            if collected.sources.is_empty() && collected.sealed.is_empty() && collected.leased.is_none() =>
        {
            let deletes = input.spec.target.deletion_policy == DeletionPolicy::Delete;
            match nothing_found(input, fetched) {
                _ if deletes && !searches_within_a_grant(input) => Ok(Outcome::Gone),
                Some(failure) => Err(failure),
                None => Ok(Outcome::Complete(collected)),
            }
        }
        Ok(collected) => Ok(Outcome::Complete(collected)),
    }
}

/// Fails when every entry is a search and none found a value. `Retain` must not empty the Secret.
fn nothing_found(input: &Input<'_>, fetched: &Fetched) -> Option<Failure> {
    let (index, _) = fetched.found.first_key_value()?;
    let entry = input.spec.data_from.get(*index)?;
    let place = spec::data_from_place(*index, entry);
    let store = spec::store_ref(input.spec, entry.secret_store_ref.as_ref())?;
    let mut message = format!("{place}: {store}: no remote value matches");
    if input.spec.target.deletion_policy == DeletionPolicy::Delete {
        message.push_str(" within what the store grants. deletionPolicy: Delete deletes nothing then, because the store may have granted more before");
    }
    Some(Failure::new(Reason::SourceNotFound, message).requeued(ErrorKind::NotFound.requeue()))
}

/// Whether a search sees only a part of its store. Then an empty result does not show that the values
/// are gone: the store may grant less than before.
fn searches_within_a_grant(input: &Input<'_>) -> bool {
    let mut searches = input.spec.data_from.iter().filter(|entry| entry.find.is_some());
    searches.any(|entry| {
        let store = spec::store_ref(input.spec, entry.secret_store_ref.as_ref());
        let view = store.and_then(|store| input.stores.get(store));
        view.is_none_or(|view| !matches!(view.grant, Grant::Everything))
    })
}

fn all_gone(input: &Input<'_>, fetched: &Fetched) -> bool {
    // a ciphertext is in the spec itself and cannot be gone; a credential is issued again
    if input.spec.data.iter().any(|entry| entry.ciphertext.is_some()) || lease::wanted(input.spec).is_some() {
        return false;
    }
    fetched
        .reads
        .values()
        .all(|read| matches!(read, Err(error) if error.kind == ErrorKind::NotFound))
        && fetched.found.values().all(Result::is_ok)
}

fn gather_keys(input: &Input<'_>, fetched: &Fetched) -> Result<Collected, Failure> {
    let mut keys = Keys::default();
    let (mut sealed, mut leased) = (BTreeMap::new(), None);
    let budget = Budget::begin();
    let mut documents = Documents::default();
    for (index, entry) in input.spec.data.iter().enumerate() {
        let place = spec::data_place(index, &entry.secret_key);
        in_time(budget, &place)?;
        let value = if let Some(text) = &entry.ciphertext {
            keys.claim(&entry.secret_key, &place, true)?;
            let stands_for_it = SealedInput {
                text: text.clone(),
                strategy: entry.decoding_strategy,
            };
            sealed.insert(entry.secret_key.clone(), stands_for_it);
            decrypted(input, fetched, index, entry, &place)?
        } else {
            let value = data_value(input, fetched, &mut documents, entry, &place)?;
            if value.is_some() {
                keys.claim(&entry.secret_key, &place, true)?;
            }
            value
        };
        if let Some(value) = value {
            keys.insert(entry.secret_key.clone(), value, &place)?;
        }
    }
    for (index, entry) in input.spec.data_from.iter().enumerate() {
        let place = spec::data_from_place(index, entry);
        let value = fetched
            .generated
            .as_ref()
            .and_then(|generated| generated.value.as_ref());
        if entry.generate.is_some() && value.is_none() {
            leased = Some(LeasedInput {
                lease: fetched
                    .generated
                    .as_ref()
                    .map(|generated| generated.lease.clone()),
                keys: None,
                rewrite: entry.rewrite.clone(),
            });
            continue;
        }
        in_time(budget, &place)?;
        let entries = data_from_values(input, fetched, &mut documents, index, entry, &place)?;
        let entries = rewrite(&entry.rewrite, entries, budget)
            .map_err(|error| Failure::new(Reason::RewriteFailed, format!("dataFrom[{index}].{error}")))?;
        if entry.generate.is_some() {
            leased = Some(LeasedInput {
                lease: fetched
                    .generated
                    .as_ref()
                    .map(|generated| generated.lease.clone()),
                keys: Some(entries.keys().cloned().collect()),
                rewrite: entry.rewrite.clone(),
            });
        }
        for (key, value) in entries {
            keys.claim(&key, &place, false)?;
            keys.insert(key, value, &place)?;
        }
    }
    Ok(Collected {
        values: keys.values,
        sealed,
        leased,
        sources: sources(input, fetched),
        fresh_for: fetched
            .reads
            .values()
            .filter_map(|read| read.as_ref().ok()?.fresh_for)
            .min(),
    })
}

fn in_time(budget: Budget, place: &str) -> Result<(), Failure> {
    if !budget.is_spent() {
        return Ok(());
    }
    let message = format!(
        "{place}: extracting the properties of the remote values took longer than {} s. Split the values, or use fewer properties",
        template::TOGETHER.as_secs()
    );
    Err(Failure::new(Reason::TooLarge, message).requeued(Requeue::RefreshInterval))
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

#[derive(Default)]
struct Keys {
    values: BTreeMap<String, SecretValue>,
    bytes: usize,
    /// The entry that each key comes from, and whether the spec names the key.
    places: HashMap<String, (String, bool)>,
}

impl Keys {
    /// Adds a value, unless the total becomes too large.
    fn insert(&mut self, key: String, value: SecretValue, place: &str) -> Result<(), Failure> {
        self.bytes = self.bytes.saturating_add(key.len() + value.len());
        if self.bytes > MAX_SOURCE_BYTES {
            return Err(too_large(place));
        }
        self.values.insert(key, value);
        Ok(())
    }

    /// Records the entry that writes the key. Fails if another entry writes it too.
    fn claim(&mut self, key: &str, place: &str, named: bool) -> Result<(), Failure> {
        if let Some((first, first_named)) = self.places.insert(key.to_owned(), (place.to_owned(), named)) {
            // the names of properties can be secrets, too
            let message = if named || first_named {
                format!("{first} and {place} both write the key \"{}\"", shown_key(key))
            } else {
                format!("{first} and {place} both write the same key. Rename one with dataFrom[].rewrite")
            };
            return Err(Failure::new(Reason::DuplicateKey, message));
        }
        Ok(())
    }
}

/// The failure when a SyncedSecret reads more than [`MAX_SOURCE_BYTES`].
pub(crate) fn too_large(place: &str) -> Failure {
    let message = format!(
        "{place}: the values exceed {} MiB in total, the limit for one SyncedSecret. Split the SyncedSecret, or let find match fewer values",
        MAX_SOURCE_BYTES >> 20
    );
    // the values may become smaller again
    Failure::new(Reason::TooLarge, message).requeued(Requeue::RefreshInterval)
}

/// Shortens a key that a backend returned, and replaces control characters, for a message.
pub(crate) fn shown_key(key: &str) -> String {
    let shown: String = key
        .chars()
        .take(64)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if shown.len() < key.len() {
        format!("{shown}…")
    } else {
        shown
    }
}

fn lookup<'a>(
    fetched: &'a Fetched,
    store: &StoreRef,
    reference: &RemoteRef,
    written: &str,
    place: &str,
) -> Result<&'a RemoteSecret, (Failure, ErrorKind)> {
    let read = Read {
        store: store.clone(),
        reference: reference.clone(),
    };
    // a provider names the location, and the user knows the key
    let context = if written == reference.key.as_str() {
        format!("{place}: {store}")
    } else {
        format!("{place}: key \"{}\": {store}", shown_key(written))
    };
    match fetched.reads.get(&read) {
        Some(Ok(secret)) => Ok(secret),
        Some(Err(error)) => Err((Failure::provider(&context, error), error.kind)),
        None => Err((
            Failure::new(
                Reason::Malformed,
                format!(
                    "{context}: the response does not contain key \"{}\"",
                    reference.key
                ),
            )
            .requeued(crate::remote::Requeue::Backoff),
            ErrorKind::Malformed,
        )),
    }
}

fn store<'a>(input: &Input<'a>, own: Option<&'a StoreRef>, place: &str) -> Result<&'a StoreRef, Failure> {
    spec::store_ref(input.spec, own).ok_or_else(|| {
        Failure::new(
            Reason::InvalidSpec,
            format!("{place}: secretStoreRef is not set. Set it here or in spec.secretStoreRef"),
        )
    })
}

/// Returns the value of an entry with a ciphertext; `None` if nothing was decrypted yet.
fn decrypted(
    input: &Input<'_>,
    fetched: &Fetched,
    index: usize,
    entry: &DataEntry,
    place: &str,
) -> Result<Option<SecretValue>, Failure> {
    let Some(values) = &fetched.decrypted else {
        return Ok(None);
    };
    let store = store(input, entry.secret_store_ref.as_ref(), place)?;
    match values.get(&index) {
        Some(Ok(value)) => decoded(entry.decoding_strategy, value, place).map(Some),
        Some(Err(error)) => Err(Failure::provider(&format!("{place}: {store}"), error)),
        None => Err(Failure::new(
            Reason::Internal,
            format!("{place}: the ciphertext was not decrypted"),
        )),
    }
}

fn data_value<'a>(
    input: &Input<'_>,
    fetched: &'a Fetched,
    documents: &mut Documents<'a>,
    entry: &DataEntry,
    place: &str,
) -> Result<Option<SecretValue>, Failure> {
    let store = store(input, entry.secret_store_ref.as_ref(), place)?;
    let remote = entry.remote_ref.as_ref().ok_or_else(|| {
        Failure::new(
            Reason::InvalidSpec,
            format!("{place}: set exactly one of remoteRef and ciphertext"),
        )
    })?;
    let reference = plan::remote_ref(input, store, remote, place)?;
    let secret = match lookup(fetched, store, &reference, &remote.key, place) {
        Ok(secret) => secret,
        Err((_, ErrorKind::NotFound)) if entry.optional => return Ok(None),
        Err((failure, _)) => return Err(failure),
    };
    let value = match &remote.property {
        None => secret.value.clone(),
        Some(path) => match documents.of(&secret.value).extract(path) {
            Ok(value) => value,
            Err(PropertyError::Missing { .. }) if entry.optional => return Ok(None),
            Err(error) => {
                return Err(property_failure(&error, &remote.key, Some(path), store, place));
            }
        },
    };
    decoded(entry.decoding_strategy, &value, place).map(Some)
}

fn decoded(strategy: DecodingStrategy, value: &SecretValue, place: &str) -> Result<SecretValue, Failure> {
    decode(strategy, value).map_err(|error| Failure::new(Reason::DecodeFailed, format!("{place}: {error}")))
}

fn property_failure(
    error: &PropertyError,
    key: &str,
    path: Option<&str>,
    store: &StoreRef,
    place: &str,
) -> Failure {
    let message = match (error, path) {
        (PropertyError::Missing { properties }, Some(path)) => format!(
            "{place}: key \"{key}\" has no property \"{path}\" in store {store}; it has {properties} {}",
            if *properties == 1 {
                "property"
            } else {
                "properties"
            }
        ),
        (error, Some(path)) => {
            format!("{place}: property \"{path}\" of key \"{key}\" in store {store}: {error}")
        }
        (error, None) => format!("{place}: key \"{key}\" in store {store}: {error}"),
    };
    match error {
        PropertyError::Missing { .. } => {
            Failure::new(Reason::SourceNotFound, message).requeued(ErrorKind::NotFound.requeue())
        }
        _ => Failure::new(Reason::Malformed, message),
    }
}

fn data_from_values<'a>(
    input: &Input<'_>,
    fetched: &'a Fetched,
    documents: &mut Documents<'a>,
    index: usize,
    entry: &DataFromEntry,
    place: &str,
) -> Result<BTreeMap<String, SecretValue>, Failure> {
    let store = store(input, entry.secret_store_ref.as_ref(), place)?;
    if let Some(extract) = &entry.extract {
        let reference = plan::extract_ref(input, store, extract, place)?;
        let secret =
            lookup(fetched, store, &reference, &extract.key, place).map_err(|(failure, _)| failure)?;
        let path = extract.property.as_deref();
        let fields = documents
            .of(&secret.value)
            .fields(path)
            .map_err(|error| property_failure(&error, &extract.key, path, store, place))?;
        return fields
            .into_iter()
            .map(|(key, value)| Ok((key, decoded(extract.decoding_strategy, &value, place)?)))
            .collect();
    }
    if let Some(generate) = &entry.generate {
        let value = fetched
            .generated
            .as_ref()
            .and_then(|generated| generated.value.as_ref());
        let value = value.ok_or_else(|| {
            let message = format!("{place}: no credential was issued");
            Failure::new(Reason::Internal, message)
        })?;
        let path = &generate.vault.path;
        return property::fields(value, None)
            .map_err(|error| property_failure(&error, path, None, store, place));
    }
    let strategy = entry
        .find
        .as_ref()
        .map_or(DecodingStrategy::None, |find| find.decoding_strategy);
    let keys = match fetched.found.get(&index) {
        Some(Ok(keys)) => keys,
        Some(Err(error)) => return Err(Failure::provider(&format!("{place}: {store}"), error)),
        None => {
            return Err(Failure::new(
                Reason::Internal,
                format!("{place}: the search did not run"),
            ));
        }
    };
    let mut values = BTreeMap::new();
    for key in keys {
        match lookup(fetched, store, &RemoteRef::current(key.clone()), key, place) {
            Ok(secret) => {
                values.insert(key.to_string(), decoded(strategy, &secret.value, place)?);
            }
            // listed a moment ago and gone now: as if the search had come later
            Err((_, ErrorKind::NotFound)) => {}
            Err((failure, _)) => return Err(failure),
        }
    }
    Ok(values)
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
            created_time: secret.created,
        })
        .collect();
    sources.extend(generated_source(input, fetched));
    sources.sort();
    sources
}

/// Returns the source of a credential. Its version is the lease id.
fn generated_source(input: &Input<'_>, fetched: &Fetched) -> Option<SourceStatus> {
    let generated = fetched.generated.as_ref()?;
    let entry = input
        .spec
        .data_from
        .iter()
        .find(|entry| entry.generate.is_some())?;
    let store = spec::store_ref(input.spec, entry.secret_store_ref.as_ref())?;
    Some(SourceStatus {
        store: store.clone(),
        key: entry.generate.as_ref()?.vault.path.clone(),
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
                    grant: crate::access::Grant::Everything,
                    locator: Ok(std::sync::Arc::new(crate::remote::Verbatim)),
                },
            )]),
            rival: None,
        };
        collect(&input, fetched)
    }

    #[test]
    fn a_search_that_finds_nothing_any_more_empties_no_secret() {
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
    fn a_value_is_parsed_once_however_many_properties_it_yields() {
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
    fn properties_that_multiply_a_value_end_at_four_mebibytes() {
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
    fn an_optional_key_that_is_missing_is_left_out_and_with_delete_the_secret_goes() {
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
