//! Reads a spec for several decisions: the stores it names, the names of its entries in messages,
//! and the locations of its keys.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lockstep_api::{DataFromEntry, MetadataPolicy, StoreRef, SyncedSecretSpec, Target};

use crate::{
    access::Grant,
    remote::{Location, Locator, Part, ProviderError},
    schedule::BatchKey,
};

/// The parts of a store that a plan needs.
#[derive(Debug, Clone)]
pub struct StoreView {
    /// What the namespace of the SyncedSecret may read from the store.
    pub grant: Grant,
    /// Parses the keys that users write. An error if the store's own spec is invalid.
    pub locator: Result<Arc<dyn Locator>, ProviderError>,
}

/// Returns the name of the Secret: `target.name`, or the name of the SyncedSecret.
pub fn target_name<'a>(name: &'a str, target: &'a Target) -> &'a str {
    target.name.as_deref().unwrap_or(name)
}

/// Returns the name of an entry of `data` for messages.
pub fn data_place(index: usize, secret_key: &str) -> String {
    format!("data[{index}] (secretKey \"{secret_key}\")")
}

/// Returns the name of an entry of `dataFrom` for messages.
pub fn data_from_place(index: usize, entry: &DataFromEntry) -> String {
    if entry.find.is_some() {
        format!("dataFrom[{index}].find")
    } else if entry.generate.is_some() {
        format!("dataFrom[{index}].generate")
    } else {
        format!("dataFrom[{index}].extract")
    }
}

/// Resolves a key of a store. `None` if the store does not exist or the key is invalid.
pub(crate) fn location_of(
    stores: &BTreeMap<StoreRef, StoreView>,
    store: &StoreRef,
    key: &str,
) -> Option<Location> {
    let locator = stores.get(store)?.locator.as_ref().ok()?;
    Some(locator.locate(key, None).ok()?.location)
}

/// Returns which part of a value a metadata policy reads.
pub fn part(policy: MetadataPolicy) -> Part {
    match policy {
        MetadataPolicy::None => Part::Value,
        MetadataPolicy::Fetch => Part::Metadata,
    }
}

/// Returns the store of an entry: its own, or the default of the spec.
pub fn store_ref<'a>(spec: &'a SyncedSecretSpec, own: Option<&'a StoreRef>) -> Option<&'a StoreRef> {
    own.or(spec.secret_store_ref.as_ref())
}

/// Returns every store that a spec names.
pub fn store_refs(spec: &SyncedSecretSpec) -> BTreeSet<StoreRef> {
    let own = spec
        .data
        .iter()
        .map(|entry| entry.secret_store_ref.as_ref())
        .chain(spec.data_from.iter().map(|entry| entry.secret_store_ref.as_ref()));
    own.filter_map(|own| store_ref(spec, own)).cloned().collect()
}

/// Returns the store whose refresh schedule applies: `secretStoreRef` of the spec, or the first
/// named store.
pub fn primary_store(spec: &SyncedSecretSpec) -> Option<StoreRef> {
    let first = || store_refs(spec).pop_first();
    spec.secret_store_ref.clone().or_else(first)
}

/// Returns the batch key within the primary store. Objects with the same first key of that store
/// share it.
pub fn batch_key(spec: &SyncedSecretSpec, primary: &StoreRef, uid: &str) -> BatchKey {
    let led = |own: Option<&StoreRef>| store_ref(spec, own) == Some(primary);
    let data = spec
        .data
        .iter()
        .filter(|entry| led(entry.secret_store_ref.as_ref()));
    let data_from = spec
        .data_from
        .iter()
        .filter(|entry| led(entry.secret_store_ref.as_ref()));
    let keys = data.filter_map(|entry| entry.remote_ref.as_ref().map(|reference| &reference.key));
    let extracts = data_from.filter_map(|entry| entry.extract.as_ref().map(|extract| &extract.key));
    let first = keys.chain(extracts).next();
    first.map_or_else(|| BatchKey::of_object(uid), |key| BatchKey::of_key(key))
}
