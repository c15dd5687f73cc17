//! Reads a spec for several decisions: its entries, the stores and keys that it names, and the
//! locations of its keys.

mod entries;

use std::{collections::BTreeSet, sync::Arc};

use lockstep_api::{Generate, Rollout, StoreRef, SyncedSecretSpec, Target};

use crate::{
    access::Grant,
    remote::{Locator, ProviderError},
    schedule::BatchKey,
};

pub use entries::{Entry, EntryPath, Reference, Source, entries, versions_mut};

/// The parts of a store that a plan needs.
#[derive(Debug, Clone)]
pub struct StoreView {
    /// What the namespace of the SyncedSecret may read from the store.
    pub grant: Grant,
    /// The configuration of the store, which determines where its values are.
    pub configuration: Arc<str>,
    /// Parses the keys that users write. An error if the store's own spec is invalid.
    pub locator: Result<Arc<dyn Locator>, ProviderError>,
}

/// Returns the name of the Secret: `target.name`, or the name of the SyncedSecret.
pub fn target_name<'a>(name: &'a str, target: &'a Target) -> &'a str {
    target.name.as_deref().unwrap_or(name)
}

/// Returns how changes are rolled out to workloads, if at all.
pub fn rollout(spec: &SyncedSecretSpec) -> Option<&Rollout> {
    spec.rotation.as_ref()?.rollout.as_ref()
}

/// Returns the keys of the Secret that the entries of `data` write.
pub fn secret_keys(spec: &SyncedSecretSpec) -> impl Iterator<Item = &str> {
    spec.data.iter().map(|entry| entry.secret_key.as_str())
}

/// Whether the spec contains the name of a key of the Secret.
pub fn is_key_named(spec: &SyncedSecretSpec, key: &str) -> bool {
    let template = spec.target.template.as_ref();
    secret_keys(spec).any(|named| named == key)
        || template.is_some_and(|template| template.data.contains_key(key))
}

/// Returns the entry whose credential a store issues, if any.
pub fn generated(spec: &SyncedSecretSpec) -> Option<(Entry<'_>, &Generate)> {
    entries(spec).flatten().find_map(|entry| match entry.source {
        Source::Generated(generate) => Some((entry, generate)),
        _ => None,
    })
}

/// Returns every store that a spec names.
pub fn store_refs(spec: &SyncedSecretSpec) -> BTreeSet<StoreRef> {
    entries(spec).flatten().map(|entry| entry.store.clone()).collect()
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
    let mut own = entries(spec).flatten().filter(|entry| entry.store == primary);
    own.find_map(|entry| entry.reference()).map_or_else(
        || BatchKey::of_object(uid),
        |reference| BatchKey::of_key(reference.key),
    )
}
