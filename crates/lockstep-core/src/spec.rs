//! Questions to a spec that several decisions ask: which stores it names, how messages name its entries, where its keys are.

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

/// A store, as far as a plan needs to know it.
#[derive(Debug, Clone)]
pub struct StoreView {
    /// What the SyncedSecret's namespace may read from it.
    pub grant: Grant,
    /// Parses what users write for it; the error of a store whose spec cannot work.
    pub locator: Result<Arc<dyn Locator>, ProviderError>,
}

/// The name of the Secret that a SyncedSecret writes.
pub fn target_name<'a>(name: &'a str, target: &'a Target) -> &'a str {
    target.name.as_deref().unwrap_or(name)
}

/// How messages name an entry of `data`.
pub fn data_place(index: usize, secret_key: &str) -> String {
    format!("data[{index}] (secretKey \"{secret_key}\")")
}

/// How messages name an entry of `dataFrom`.
pub fn data_from_place(index: usize, entry: &DataFromEntry) -> String {
    if entry.find.is_some() {
        format!("dataFrom[{index}].find")
    } else if entry.generate.is_some() {
        format!("dataFrom[{index}].generate")
    } else {
        format!("dataFrom[{index}].extract")
    }
}

/// The location that a key of a store means, if it means one.
pub(crate) fn location_of(
    stores: &BTreeMap<StoreRef, StoreView>,
    store: &StoreRef,
    key: &str,
) -> Option<Location> {
    let locator = stores.get(store)?.locator.as_ref().ok()?;
    Some(locator.locate(key, None).ok()?.location)
}

/// What of a value a metadata policy reads.
pub fn part(policy: MetadataPolicy) -> Part {
    match policy {
        MetadataPolicy::None => Part::Value,
        MetadataPolicy::Fetch => Part::Metadata,
    }
}

/// The store of an entry: its own, or the SyncedSecret's.
pub fn store_ref<'a>(spec: &'a SyncedSecretSpec, own: Option<&'a StoreRef>) -> Option<&'a StoreRef> {
    own.or(spec.secret_store_ref.as_ref())
}

/// Every store that a spec names.
pub fn store_refs(spec: &SyncedSecretSpec) -> BTreeSet<StoreRef> {
    let own = spec
        .data
        .iter()
        .map(|entry| entry.secret_store_ref.as_ref())
        .chain(spec.data_from.iter().map(|entry| entry.secret_store_ref.as_ref()));
    own.filter_map(|own| store_ref(spec, own)).cloned().collect()
}

/// The store whose refresh schedule a SyncedSecret follows: `secretStoreRef` of the spec, or the first store that it names.
pub fn primary_store(spec: &SyncedSecretSpec) -> Option<StoreRef> {
    let first = || store_refs(spec).pop_first();
    spec.secret_store_ref.clone().or_else(first)
}

/// The batch key of a SyncedSecret within its primary store. Objects whose first key of that store is equal share it.
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
