//! Builds the input of the forecast from the objects.

use std::collections::{BTreeMap, btree_map::Entry};

use lockstep_api::{Limits, Reason, RefreshPolicy, StoreRef};
use lockstep_controller::index::{Index, store_key};
use lockstep_core::{
    Failure,
    forecast::{Object, Store, Wants},
    plan::{self, Plan},
    reconcile,
    remote::Part,
    spec::{self, Source},
};
use lockstep_provider::{Costs, Registry, StoreKey};

use crate::manifests::{Objects, Placed};

/// A store, and everything known about it without calling it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) store: Store,
    pub(super) costs: Costs,
    pub(super) limits: Limits,
    /// Name of the provider, as in YAML.
    pub(super) provider: &'static str,
}

/// The SyncedSecrets to count, and those that failed.
#[derive(Debug, Default)]
pub(super) struct Counted<'a> {
    pub(super) stores: BTreeMap<StoreKey, Known>,
    pub(super) objects: Vec<Object<StoreKey>>,
    pub(super) failed: Vec<(&'a Placed, Failure)>,
    /// Number of suspended SyncedSecrets, which cause no calls.
    pub(super) suspended: usize,
    /// Number of SyncedSecrets that are synced once and not refreshed.
    pub(super) once: usize,
}

/// Plans each SyncedSecret as the operator does, and collects what it reads.
pub(super) fn count<'a>(objects: &'a Objects, index: &Index, registry: &Registry) -> Counted<'a> {
    let mut counted = Counted::default();
    for placed in &objects.synced_secrets {
        match one(placed, index, registry, &mut counted.stores) {
            Ok(_) if placed.object.spec.suspend => counted.suspended += 1,
            Ok(object) => {
                counted.once += usize::from(object.interval.is_none());
                counted.objects.push(object);
            }
            Err(failure) => counted.failed.push((placed, failure)),
        }
    }
    // a store that only suspended SyncedSecrets use gets no calls
    let used = |key: &StoreKey| {
        counted
            .objects
            .iter()
            .any(|object| object.wants.contains_key(key))
    };
    counted.stores.retain(|key, _| used(key));
    counted
}

fn one(
    placed: &Placed,
    index: &Index,
    registry: &Registry,
    stores: &mut BTreeMap<StoreKey, Known>,
) -> Result<Object<StoreKey>, Failure> {
    let around = placed.view_of(index);
    let input = placed.input(&around);
    let plan = plan::plan(&input)?;
    let key = |store: &StoreRef| store_key(&placed.namespace, store);
    for store in spec::store_refs(input.spec) {
        if let Entry::Vacant(place) = stores.entry(key(&store)) {
            let known = known(place.key(), index, registry)?;
            place.insert(known);
        }
    }
    let primary_store = spec::primary_store(input.spec).ok_or_else(|| {
        // unreachable: planning fails without a store
        Failure::new(Reason::InvalidSpec, "secretStoreRef is required")
    })?;
    let mut wants = wants(&plan, &key);
    add_entries(placed, &mut wants, &key);
    let periodic = input.spec.refresh_policy == RefreshPolicy::Periodic;
    Ok(Object {
        // only a cluster assigns a uid, so use the name instead
        batch_key: spec::batch_key(
            input.spec,
            &primary_store,
            &format!("{}/{}", placed.namespace, placed.name),
        ),
        interval: periodic.then(|| reconcile::interval(input.spec)),
        primary_store: key(&primary_store),
        wants,
    })
}

fn known(key: &StoreKey, index: &Index, registry: &Registry) -> Result<Known, Failure> {
    let config = index.store_config(key).map(|(config, _)| config);
    let config =
        config.ok_or_else(|| Failure::new(Reason::StoreNotFound, format!("{key} does not exist")))?;
    let costs = registry
        .costs(&config)
        .map_err(|error| Failure::provider(&key.to_string(), &error))?;
    Ok(Known {
        store: Store {
            label: key.label(),
            members: index.count_members(key),
            backend: costs.backend,
        },
        costs,
        limits: config.limits,
        provider: config.provider.name().unwrap_or_default(),
    })
}

fn wants(plan: &Plan, key: &impl Fn(&StoreRef) -> StoreKey) -> BTreeMap<StoreKey, Wants> {
    let mut wants: BTreeMap<StoreKey, Wants> = BTreeMap::new();
    for read in &plan.reads {
        let wants = wants.entry(key(&read.store)).or_default();
        wants.reads.insert(read.reference.clone());
    }
    for search in &plan.searches {
        let wants = wants.entry(key(&search.store)).or_default();
        wants.searches.insert(search.query.clone());
    }
    for decryption in &plan.decryptions {
        wants.entry(key(&decryption.store)).or_default().decryptions += 1;
    }
    wants
}

/// Adds the calls of each entry as if it were not batched or shared.
fn add_entries(placed: &Placed, wants: &mut BTreeMap<StoreKey, Wants>, key: &impl Fn(&StoreRef) -> StoreKey) {
    for entry in spec::entries(&placed.object.spec).flatten() {
        let Some(wants) = wants.get_mut(&key(entry.store)) else {
            continue;
        };
        let calls = &mut wants.entries;
        match entry.source {
            Source::Value(_, reference) | Source::Fields(reference) => match reference.part {
                Part::Value => calls.reads += 1,
                Part::Metadata => calls.metadata += 1,
            },
            Source::Search(_) => calls.finds += 1,
            // a credential is issued when there is none, not at each refresh
            Source::Ciphertext { .. } | Source::Generated(_) => {}
        }
    }
}
