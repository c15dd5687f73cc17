//! Dependencies between objects. Watches update this plain struct and reconciles query it, without
//! a cluster and without `async`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use lockstep_api::{
    Access, CreationPolicy, CredentialKind, CredentialRef, Limits, StoreEvents, StoreKind, StoreProvider,
    StoreRef, SyncedSecret,
};
use lockstep_core::{
    access::{self, Grant, Namespace},
    events::{self, Interest},
    plan::Rival,
    reconcile::ClusterView,
    rotation::versions,
    schedule::BatchKey,
    spec::{self, StoreView},
};
use lockstep_provider::{EndpointPolicy, Location, Locator, ProviderError, Registry, StoreConfig, StoreKey};

/// Namespace and name of a SyncedSecret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// The namespace of the SyncedSecret.
    pub namespace: Arc<str>,
    /// The name of the SyncedSecret.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// Creates a key from a namespace and a name.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Returns the key of a SyncedSecret.
    pub fn of(object: &SyncedSecret) -> Self {
        Self::new(
            object.metadata.namespace.as_deref().unwrap_or_default(),
            object.metadata.name.as_deref().unwrap_or_default(),
        )
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A Secret or ConfigMap that a store reads credentials or certificates from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialKey {
    /// Whether it is a Secret or a ConfigMap.
    pub kind: CredentialKind,
    /// The namespace of the object.
    pub namespace: String,
    /// The name of the object.
    pub name: String,
}

/// A store as it is in the API server.
#[derive(Debug, Clone)]
pub struct StoreEntry {
    /// The uid of the store.
    pub uid: String,
    /// The generation of its spec.
    pub generation: i64,
    /// The backend and its configuration.
    pub provider: StoreProvider,
    /// The request budget.
    pub limits: Limits,
    /// The source of change events.
    pub events: Option<StoreEvents>,
    /// The namespaces that may use it. `None` for a SecretStore, which its whole namespace may use.
    pub access: Option<Vec<Access>>,
}

#[derive(Debug, Clone)]
struct StoreState {
    entry: Arc<StoreEntry>,
    /// The configuration of its provider as JSON.
    configuration: Arc<str>,
    /// Parses the keys of its secrets.
    locator: Result<Arc<dyn Locator>, ProviderError>,
    /// Counts changes of its credentials, so that a client created from older credentials is not
    /// used again.
    epoch: u64,
    /// The objects that it reads credentials from.
    credentials: BTreeSet<CredentialKey>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct NamespaceState {
    labels: Arc<BTreeMap<String, String>>,
    terminating: bool,
}

/// The stores and the labels of a namespace that the grants of one reconcile follow from.
#[derive(Debug, Clone, Default)]
pub struct Authorization {
    stores: Vec<(StoreKey, Arc<StoreEntry>)>,
    labels: Option<Arc<BTreeMap<String, String>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ObjectState {
    uid: String,
    created: String,
    target: String,
    /// Whether it has written its target Secret.
    holds: bool,
    /// Whether it merges keys into its target Secret.
    merges: bool,
    stores: BTreeSet<StoreKey>,
    /// The values that it reads from each store.
    interests: BTreeSet<(StoreKey, Interest)>,
    /// The primary store and the batch key in it.
    batch_key: Option<(StoreKey, BatchKey)>,
}

/// Everything that the watches reported.
#[derive(Debug, Default)]
pub struct Index {
    operator_namespace: String,
    registry: Registry,
    objects: HashMap<ObjectKey, ObjectState>,
    by_store: HashMap<StoreKey, BTreeSet<ObjectKey>>,
    by_value: HashMap<(StoreKey, Interest), BTreeSet<ObjectKey>>,
    /// The searches in each store.
    searches: HashMap<StoreKey, BTreeSet<Interest>>,
    /// The number of SyncedSecrets for each batch key of each primary store.
    members: HashMap<StoreKey, HashMap<BatchKey, usize>>,
    by_target: HashMap<(Arc<str>, String), BTreeSet<ObjectKey>>,
    by_namespace: HashMap<Arc<str>, BTreeSet<ObjectKey>>,
    stores: HashMap<StoreKey, StoreState>,
    by_credential: HashMap<CredentialKey, BTreeSet<StoreKey>>,
    credentials: HashMap<CredentialKey, String>,
    namespaces: HashMap<String, NamespaceState>,
    /// Whether SecretStores may use loopback addresses, for tests.
    allow_local_endpoints: bool,
}

/// Resolves a store reference in a namespace.
pub fn store_key(namespace: &str, reference: &StoreRef) -> StoreKey {
    StoreKey {
        kind: reference.kind,
        namespace: (reference.kind == StoreKind::SecretStore).then(|| namespace.to_owned()),
        name: reference.name.clone(),
    }
}

impl Index {
    /// Creates an empty index for an operator in this namespace.
    pub fn new(operator_namespace: &str) -> Self {
        Self {
            operator_namespace: operator_namespace.to_owned(),
            ..Self::default()
        }
    }

    /// Allows SecretStores to use loopback addresses, for tests.
    #[must_use]
    pub fn with_local_endpoints(mut self, allowed: bool) -> Self {
        self.allow_local_endpoints = allowed;
        self
    }

    /// Sets the providers that parse the keys of stores. Without them, no key of any store is
    /// valid.
    #[must_use]
    pub fn with_registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Returns the namespace that a store's credentials are in.
    pub fn credential_namespace<'a>(&'a self, store: &'a StoreKey) -> &'a str {
        store.namespace.as_deref().unwrap_or(&self.operator_namespace)
    }

    /// Adds or replaces a SyncedSecret. Returns the others that must be reconciled because they
    /// have the same target Secret.
    pub fn apply_object(&mut self, object: &SyncedSecret) -> BTreeSet<ObjectKey> {
        let key = ObjectKey::of(object);
        let target = spec::target_name(&key.name, &object.spec.target).to_owned();
        let written = object.status.as_ref().and_then(|status| status.target.as_ref());
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let leader = spec::primary_store(&object.spec);
        let state = ObjectState {
            batch_key: leader.map(|leader| {
                let batch_key = spec::batch_key(&object.spec, &leader, &uid);
                (store_key(&key.namespace, &leader), batch_key)
            }),
            uid,
            created: object
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0.to_string())
                .unwrap_or_default(),
            holds: written.is_some_and(|written| versions::is_target(&target, &object.spec.target, written)),
            target,
            merges: object.spec.target.creation_policy == CreationPolicy::Merge,
            stores: spec::store_refs(&object.spec)
                .iter()
                .map(|store| store_key(&key.namespace, store))
                .collect(),
            interests: events::interests(&object.spec)
                .into_iter()
                .map(|(store, interest)| (store_key(&key.namespace, &store), interest))
                .collect(),
        };
        if self.objects.get(&key) == Some(&state) {
            return BTreeSet::new();
        }
        let mut wake = self.delete_object(&key);
        for store in &state.stores {
            self.by_store
                .entry(store.clone())
                .or_default()
                .insert(key.clone());
        }
        for interest in &state.interests {
            self.add_interest(interest, &key);
        }
        if let Some((store, batch_key)) = &state.batch_key {
            let members = self.members.entry(store.clone()).or_default();
            *members.entry(*batch_key).or_default() += 1;
        }
        let rivals = self
            .by_target
            .entry((key.namespace.clone(), state.target.clone()))
            .or_default();
        wake.extend(rivals.iter().cloned());
        rivals.insert(key.clone());
        self.by_namespace
            .entry(key.namespace.clone())
            .or_default()
            .insert(key.clone());
        self.objects.insert(key.clone(), state);
        wake.remove(&key);
        wake
    }

    /// Removes a SyncedSecret. Returns the others that must be reconciled because they have the
    /// same target Secret.
    pub fn delete_object(&mut self, key: &ObjectKey) -> BTreeSet<ObjectKey> {
        let Some(state) = self.objects.remove(key) else {
            return BTreeSet::new();
        };
        for store in &state.stores {
            remove(&mut self.by_store, store, key);
        }
        for interest in &state.interests {
            self.remove_interest(interest, key);
        }
        if let Some((store, batch_key)) = &state.batch_key {
            self.leave(store, *batch_key);
        }
        remove(&mut self.by_namespace, &key.namespace, key);
        let target = (key.namespace.clone(), state.target);
        remove(&mut self.by_target, &target, key);
        self.by_target.get(&target).cloned().unwrap_or_default()
    }

    fn add_interest(&mut self, interest: &(StoreKey, Interest), key: &ObjectKey) {
        if matches!(interest.1, Interest::Search(_)) {
            let searches = self.searches.entry(interest.0.clone()).or_default();
            searches.insert(interest.1.clone());
        }
        self.by_value
            .entry(interest.clone())
            .or_default()
            .insert(key.clone());
    }

    fn remove_interest(&mut self, interest: &(StoreKey, Interest), key: &ObjectKey) {
        remove(&mut self.by_value, interest, key);
        if self.by_value.contains_key(interest) {
            return;
        }
        if let Some(searches) = self.searches.get_mut(&interest.0) {
            searches.remove(&interest.1);
            if searches.is_empty() {
                self.searches.remove(&interest.0);
            }
        }
    }

    /// Returns the objects that read, or may find by a search, a value of the store with one of
    /// these names. Objects that are not granted the value are left out: otherwise a search would
    /// show its namespace when values of others change.
    pub fn readers(&self, store: &StoreKey, names: &[String]) -> BTreeSet<ObjectKey> {
        let keys = names.iter().cloned().map(Interest::Key);
        let searches = self.searches.get(store).into_iter().flatten();
        let concerned = searches.filter(|search| search.is_concerned(names)).cloned();
        let mut readers: BTreeSet<_> = keys
            .chain(concerned)
            .filter_map(|interest| self.by_value.get(&(store.clone(), interest)))
            .flatten()
            .cloned()
            .collect();
        if readers.is_empty() {
            return readers;
        }
        let granted = self.granted_any(store, names);
        // the objects are sorted by namespace
        let mut last: Option<(Arc<str>, bool)> = None;
        readers.retain(|reader| match &last {
            Some((namespace, is_granted)) if *namespace == reader.namespace => *is_granted,
            _ => {
                last.insert((reader.namespace.clone(), granted(&reader.namespace)))
                    .1
            }
        });
        readers
    }

    /// Returns whether the store grants a namespace a value with one of these names.
    fn granted_any<'a>(&'a self, store: &StoreKey, names: &[String]) -> impl Fn(&str) -> bool + 'a {
        let state = self.stores.get(store);
        let locate = |name: &String| {
            let locator = state?.locator.as_ref().ok()?;
            Some(locator.locate(name, None).ok()?.location)
        };
        let locations: Vec<Location> = names.iter().filter_map(locate).collect();
        move |namespace| match state.map(|state| &state.entry.access) {
            Some(Some(access)) => access::grants_any(access, self.namespace(namespace), &locations),
            Some(None) => true,
            None => false,
        }
    }

    fn namespace<'a>(&'a self, name: &'a str) -> Namespace<'a> {
        Namespace {
            name,
            labels: self.namespaces.get(name).map(|state| &*state.labels),
        }
    }

    /// Returns the uid of a SyncedSecret.
    pub fn uid(&self, key: &ObjectKey) -> Option<&str> {
        self.objects.get(key).map(|state| state.uid.as_str())
    }

    /// Returns the stores with change events, each with the revision of its configuration.
    pub fn listening(&self) -> BTreeMap<StoreKey, String> {
        let hears = |key: &&StoreKey| {
            self.stores
                .get(*key)
                .is_some_and(|state| state.entry.events.is_some())
        };
        self.stores
            .keys()
            .filter(hears)
            .filter_map(|key| Some((key.clone(), self.store_config(key)?.1)))
            .collect()
    }

    fn leave(&mut self, store: &StoreKey, batch_key: BatchKey) {
        let Some(members) = self.members.get_mut(store) else {
            return;
        };
        if let Some(count) = members.get_mut(&batch_key) {
            *count -= 1;
            if *count == 0 {
                members.remove(&batch_key);
            }
        }
        if members.is_empty() {
            self.members.remove(store);
        }
    }

    /// Returns the SyncedSecrets of a namespace, or all.
    pub fn objects(&self, namespace: Option<&str>) -> Vec<ObjectKey> {
        match namespace {
            Some(namespace) => self
                .by_namespace
                .get(namespace)
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            None => self.objects.keys().cloned().collect(),
        }
    }

    /// Adds or replaces a store. If it changed, returns the objects that depend on it.
    pub fn apply_store(&mut self, key: &StoreKey, entry: StoreEntry) -> Option<BTreeSet<ObjectKey>> {
        if self
            .stores
            .get(key)
            .is_some_and(|known| known.entry.uid == entry.uid && known.entry.generation == entry.generation)
        {
            return None;
        }
        let epoch = self.stores.get(key).map_or(0, |known| known.epoch);
        self.unlink_credentials(key);
        let namespace = self.credential_namespace(key).to_owned();
        let credential = |reference: CredentialRef| CredentialKey {
            kind: reference.kind,
            namespace: namespace.clone(),
            name: reference.name,
        };
        let credentials: BTreeSet<_> = entry
            .provider
            .credential_refs()
            .into_iter()
            .map(credential)
            .collect();
        for credential in &credentials {
            self.by_credential
                .entry(credential.clone())
                .or_default()
                .insert(key.clone());
        }
        self.stores.insert(
            key.clone(),
            StoreState {
                // plain types always serialize
                configuration: serde_json::to_string(&entry.provider).unwrap_or_default().into(),
                locator: self.registry.locator(&entry.provider),
                entry: Arc::new(entry),
                epoch,
                credentials,
            },
        );
        Some(self.dependents(key))
    }

    /// Removes a store. Returns the objects that depend on it.
    pub fn delete_store(&mut self, key: &StoreKey) -> BTreeSet<ObjectKey> {
        self.unlink_credentials(key);
        self.stores.remove(key);
        self.dependents(key)
    }

    /// Returns the stores of a kind, in a namespace or in all.
    pub fn stores(&self, kind: StoreKind, namespace: Option<&str>) -> Vec<StoreKey> {
        let wanted = |key: &&StoreKey| {
            key.kind == kind && (namespace.is_none() || key.namespace.as_deref() == namespace)
        };
        self.stores.keys().filter(wanted).cloned().collect()
    }

    /// Returns the first malformed glob of a store and its location.
    pub fn malformed_glob(&self, key: &StoreKey) -> Option<(String, String)> {
        let access = self.stores.get(key)?.entry.access.as_ref()?;
        access::malformed_glob(access).map(|(place, glob)| (place, glob.to_owned()))
    }

    fn unlink_credentials(&mut self, key: &StoreKey) {
        let Some(state) = self.stores.get_mut(key) else {
            return;
        };
        for credential in std::mem::take(&mut state.credentials) {
            let Some(stores) = self.by_credential.get_mut(&credential) else {
                continue;
            };
            stores.remove(key);
            if stores.is_empty() {
                self.by_credential.remove(&credential);
                self.credentials.remove(&credential);
            }
        }
    }

    /// Returns the objects that read from a store.
    pub fn dependents(&self, key: &StoreKey) -> BTreeSet<ObjectKey> {
        self.by_store.get(key).cloned().unwrap_or_default()
    }

    /// Whether the SyncedSecret exists.
    pub fn has_object(&self, key: &ObjectKey) -> bool {
        self.objects.contains_key(key)
    }

    /// Returns the number of SyncedSecrets whose primary store is this one.
    pub fn count_members(&self, store: &StoreKey) -> usize {
        self.members.get(store).map_or(0, HashMap::len)
    }

    /// Returns the primary store of a SyncedSecret and its batch key there.
    pub fn batch_key(&self, key: &ObjectKey) -> Option<(StoreKey, BatchKey)> {
        self.objects.get(key)?.batch_key.clone()
    }

    /// Returns every Secret and ConfigMap that stores read credentials from.
    pub fn credential_keys(&self) -> BTreeSet<CredentialKey> {
        self.by_credential.keys().cloned().collect()
    }

    /// Records the current version of a credential. Returns the stores whose clients were created
    /// from another version.
    pub fn apply_credential(&mut self, key: &CredentialKey, version: &str) -> BTreeSet<StoreKey> {
        let Some(stores) = self.by_credential.get(key).cloned() else {
            return BTreeSet::new();
        };
        match self.credentials.insert(key.clone(), version.to_owned()) {
            Some(before) if before != version => {
                for store in &stores {
                    if let Some(state) = self.stores.get_mut(store) {
                        state.epoch = state.epoch.wrapping_add(1);
                    }
                }
                stores
            }
            _ => BTreeSet::new(),
        }
    }

    /// Records the version of a credential that was read, unless a watch has already reported one.
    pub fn note_credential(&mut self, key: &CredentialKey, version: &str) {
        if self.by_credential.contains_key(key) {
            self.credentials
                .entry(key.clone())
                .or_insert_with(|| version.to_owned());
        }
    }

    /// Returns the keys of all stores.
    pub fn store_keys(&self) -> Vec<StoreKey> {
        self.stores.keys().cloned().collect()
    }

    /// Returns the configuration for a client of the store, and a text that changes whenever the
    /// client must be rebuilt.
    pub fn store_config(&self, key: &StoreKey) -> Option<(StoreConfig, String)> {
        let state = self.stores.get(key)?;
        let config = StoreConfig {
            key: key.clone(),
            provider: state.entry.provider.clone(),
            limits: state.entry.limits,
            events: state.entry.events.clone(),
            endpoints: EndpointPolicy::of(key.kind, self.allow_local_endpoints),
        };
        Some((
            config,
            format!("{}/{}/{}", state.entry.uid, state.entry.generation, state.epoch),
        ))
    }

    /// Adds or replaces a namespace. Returns the SyncedSecrets that must be reconciled because they
    /// depend on its labels or on its termination.
    pub fn apply_namespace(
        &mut self,
        name: &str,
        labels: BTreeMap<String, String>,
        terminating: bool,
    ) -> BTreeSet<ObjectKey> {
        let state = NamespaceState {
            labels: Arc::new(labels),
            terminating,
        };
        // A namespace that is new also counts as a change: no selector matched it until now.
        if self.namespaces.get(name) == Some(&state) {
            return BTreeSet::new();
        }
        self.namespaces.insert(name.to_owned(), state);
        let Some(objects) = self.by_namespace.get(name) else {
            return BTreeSet::new();
        };
        objects
            .iter()
            .filter(|key| self.uses_cluster_store(key))
            .cloned()
            .collect()
    }

    fn uses_cluster_store(&self, key: &ObjectKey) -> bool {
        self.objects.get(key).is_some_and(|state| {
            state
                .stores
                .iter()
                .any(|store| store.kind == StoreKind::ClusterSecretStore)
        })
    }

    /// Removes a namespace. No selector matches it from now on.
    pub fn delete_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    /// Returns what the grants of these stores follow from.
    pub fn authorization<'a>(
        &self,
        namespace: &str,
        stores: impl Iterator<Item = &'a StoreRef>,
    ) -> Authorization {
        let entry = |store: &StoreRef| {
            let key = store_key(namespace, store);
            let entry = self.stores.get(&key)?.entry.clone();
            Some((key, entry))
        };
        Authorization {
            stores: stores.filter_map(entry).collect(),
            labels: self.namespaces.get(namespace).map(|state| state.labels.clone()),
        }
    }

    /// Whether the grant of a store, and the store itself, are those of the authorization.
    pub fn is_authorized(&self, authorization: &Authorization, namespace: &str, key: &StoreKey) -> bool {
        let labels = self.namespaces.get(namespace).map(|state| &state.labels);
        let are_same = match (labels, &authorization.labels) {
            (Some(now), Some(then)) => Arc::ptr_eq(now, then),
            (now, then) => now.is_none() && then.is_none(),
        };
        let entry = self.stores.get(key).map(|state| &state.entry);
        let then = authorization.stores.iter().find(|(known, _)| known == key);
        let is_same = entry
            .zip(then)
            .is_some_and(|(now, (_, then))| Arc::ptr_eq(now, then));
        is_same && (are_same || key.kind == StoreKind::SecretStore)
    }

    /// Removes the namespaces that are not in a complete list.
    pub fn retain_namespaces(&mut self, listed: &BTreeSet<String>) {
        self.namespaces.retain(|name, _| listed.contains(name));
    }

    /// Returns the view of the cluster that a reconcile of this object needs.
    pub fn view_of(&self, key: &ObjectKey, object: &SyncedSecret) -> ClusterView {
        let namespace = self.namespaces.get(key.namespace.as_ref());
        let views = spec::store_refs(&object.spec)
            .into_iter()
            .filter_map(|reference| {
                let grant = self.grant(&key.namespace, &reference)?;
                let store = self.stores.get(&store_key(&key.namespace, &reference))?;
                let view = StoreView {
                    grant,
                    configuration: store.configuration.clone(),
                    locator: store.locator.clone(),
                };
                Some((reference, view))
            })
            .collect();
        ClusterView {
            views,
            rival: self.rival(key),
            terminating: namespace.is_some_and(|namespace| namespace.terminating),
        }
    }

    /// Returns the access of a namespace to a store, or `None` if the store does not exist.
    pub fn grant(&self, namespace: &str, reference: &StoreRef) -> Option<Grant> {
        let entry = &self.stores.get(&store_key(namespace, reference))?.entry;
        let Some(access) = &entry.access else {
            return Some(Grant::Everything);
        };
        Some(Grant::new(access, self.namespace(namespace)))
    }

    fn rival(&self, key: &ObjectKey) -> Option<Rival> {
        let own = self.objects.get(key)?;
        let rank = |key: &ObjectKey, state: &ObjectState| {
            (
                !state.holds,
                state.created.clone(),
                state.uid.clone(),
                key.clone(),
            )
        };
        let own_rank = rank(key, own);
        self.by_target
            .get(&(key.namespace.clone(), own.target.clone()))?
            .iter()
            .filter(|other| *other != key)
            .filter_map(|other| Some((other, self.objects.get(other)?)))
            // Several can merge into one Secret: the API server records the owner of each key.
            .filter(|(_, other)| !(own.merges && other.merges))
            .map(|(other, state)| rank(other, state))
            .filter(|other| *other < own_rank)
            .min()
            .map(|(_, _, _, oldest)| Rival {
                name: oldest.name.to_string(),
            })
    }
}

fn remove<K: std::hash::Hash + Eq>(map: &mut HashMap<K, BTreeSet<ObjectKey>>, at: &K, key: &ObjectKey) {
    if let Some(set) = map.get_mut(at) {
        set.remove(key);
        if set.is_empty() {
            map.remove(at);
        }
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
