//! Watches update the index and wake the objects that depend on a change.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Debug,
    sync::Arc,
};

use futures::{Stream, StreamExt, future};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        watcher::{self, Config, Event, watcher},
    },
};
use lockstep_api::{ClusterSecretStore, CredentialKind, SecretStore, StoreKind};
use lockstep_core::text::is_subdomain;
use lockstep_provider::StoreKey;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    context::Shared,
    events,
    index::{CredentialKey, Index, ObjectKey, StoreEntry},
    tasks::Tasks,
};

/// The annotation in which `kubectl apply` without `--server-side` keeps a copy of the whole
/// object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Watches objects of one of lockstep's kinds. An object that this version cannot parse is skipped
/// and counted, and never stops the watch. If an earlier version of it could be parsed, it counts
/// as deleted, so that an outdated spec is not used.
pub fn own_kind<K>(
    api: Api<DeserializeGuard<K>>,
    shared: &Arc<Shared>,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + Default + 'static,
{
    let kind = K::kind(&()).into_owned();
    let gauge = shared
        .metrics
        .process
        .malformed
        .with_label_values(&[kind.as_str()]);
    let mut malformed: BTreeSet<(Option<String>, String)> = BTreeSet::new();
    watcher(api, Config::default())
        .default_backoff()
        .filter_map(move |event| {
            let mut read = |guard: DeserializeGuard<K>| match guard.0 {
                Ok(mut object) => {
                    // Unused, and most of the memory of ten thousand objects.
                    object.managed_fields_mut().clear();
                    if let Some(annotations) = &mut object.meta_mut().annotations {
                        annotations.remove(LAST_APPLIED);
                    }
                    if malformed.remove(&(object.namespace(), object.name_any())) {
                        gauge.dec();
                    }
                    Ok(object)
                }
                Err(invalid) => {
                    let name = invalid.metadata.name.clone().unwrap_or_default();
                    if malformed.insert((invalid.metadata.namespace.clone(), name.clone())) {
                        gauge.inc();
                        let namespace = invalid.metadata.namespace.as_deref().unwrap_or_default();
                        tracing::warn!(
                            kind,
                            namespace,
                            name,
                            "skipped an object that this version of lockstep cannot read"
                        );
                    }
                    let mut placeholder = K::default();
                    *placeholder.meta_mut() = invalid.metadata;
                    Err(placeholder)
                }
            };
            future::ready(match event {
                Ok(Event::Apply(guard)) => Some(Ok(match read(guard) {
                    Ok(object) => Event::Apply(object),
                    Err(placeholder) => Event::Delete(placeholder),
                })),
                Ok(Event::InitApply(guard)) => read(guard).ok().map(|object| Ok(Event::InitApply(object))),
                Ok(Event::Delete(guard)) => {
                    let object = match read(guard) {
                        Ok(object) | Err(object) => object,
                    };
                    if malformed.remove(&(object.namespace(), object.name_any())) {
                        gauge.dec();
                    }
                    Some(Ok(Event::Delete(object)))
                }
                Ok(Event::Init) => {
                    // Objects that were deleted while the watch was interrupted are not listed
                    // again.
                    gauge.sub(i64::try_from(malformed.len()).unwrap_or(i64::MAX));
                    malformed.clear();
                    Some(Ok(Event::Init))
                }
                Ok(Event::InitDone) => Some(Ok(Event::InitDone)),
                Err(error) => {
                    // The text of the error can contain the body of a response.
                    tracing::warn!(kind, "a watch broke off, and is taken up again");
                    Some(Err(error))
                }
            })
        })
}

/// A kind of store.
pub trait Store: Resource<DynamicType = ()> {
    /// The kind in references to it.
    const KIND: StoreKind;
    /// Returns what the index keeps of it.
    fn entry(&self) -> StoreEntry;
}

impl Store for SecretStore {
    const KIND: StoreKind = StoreKind::SecretStore;

    fn entry(&self) -> StoreEntry {
        StoreEntry {
            uid: self.metadata.uid.clone().unwrap_or_default(),
            generation: self.metadata.generation.unwrap_or_default(),
            provider: self.spec.provider.clone(),
            limits: self.spec.limits.unwrap_or_default(),
            events: self.spec.events.clone(),
            access: None,
        }
    }
}

impl Store for ClusterSecretStore {
    const KIND: StoreKind = StoreKind::ClusterSecretStore;

    fn entry(&self) -> StoreEntry {
        StoreEntry {
            uid: self.metadata.uid.clone().unwrap_or_default(),
            generation: self.metadata.generation.unwrap_or_default(),
            provider: self.spec.provider.clone(),
            limits: self.spec.limits.unwrap_or_default(),
            events: self.spec.events.clone(),
            access: Some(self.spec.access.clone()),
        }
    }
}

/// Follows the stores of a kind, in a namespace or in all, and signals when the first list is
/// complete.
pub async fn follow_stores<K>(
    shared: Arc<Shared>,
    api: Api<DeserializeGuard<K>>,
    namespace: Option<String>,
    ready: watch::Sender<bool>,
    credentials: Arc<CredentialWatches>,
) where
    K: Store + Clone + Debug + DeserializeOwned + Send + Sync + Default + 'static,
{
    let mut events = std::pin::pin!(own_kind(api, &shared));
    let mut listed: Option<BTreeSet<StoreKey>> = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = Some(BTreeSet::new()),
            Ok(Event::InitApply(store) | Event::Apply(store)) => {
                let key = key_of(&store);
                apply_store(&shared, &key, store.entry()).await;
                match &mut listed {
                    // During the initial list, one update at the end is enough.
                    Some(listed) => {
                        listed.insert(key);
                    }
                    None => credentials.follow(&shared),
                }
            }
            Ok(Event::Delete(store)) => {
                delete_store(&shared, &key_of(&store)).await;
                credentials.follow(&shared);
            }
            Ok(Event::InitDone) => {
                let listed = listed.take().unwrap_or_default();
                let known = shared.index().stores(K::KIND, namespace.as_deref());
                for gone in known.into_iter().filter(|key| !listed.contains(key)) {
                    delete_store(&shared, &gone).await;
                }
                credentials.follow(&shared);
                ready.send_replace(true);
            }
            Err(_) => {}
        }
    }
}

fn key_of<K: Store>(store: &K) -> StoreKey {
    StoreKey {
        kind: K::KIND,
        namespace: store.meta().namespace.clone(),
        name: store.name_any(),
    }
}

async fn apply_store(shared: &Shared, key: &StoreKey, entry: StoreEntry) {
    let dependents = shared.index_mut().apply_store(key, entry);
    if let Some(dependents) = dependents {
        shared.clients.drop_client(key).await;
        shared.checks.wake([key.clone()]);
        shared.wake(dependents);
    }
}

async fn delete_store(shared: &Shared, key: &StoreKey) {
    let dependents = shared.index_mut().delete_store(key);
    shared.clients.forget(key).await;
    shared.events.forget(key);
    shared.metrics.events.remove(&key.label());
    shared.wake(dependents);
}

/// Follows the labels and the deletion of namespaces, by their metadata.
pub async fn follow_namespaces(shared: Arc<Shared>, ready: watch::Sender<bool>) {
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(shared.client.clone());
    let mut events = std::pin::pin!(watcher(api, Config::default()).default_backoff());
    let mut listed = BTreeSet::new();
    while let Some(event) = events.next().await {
        let Ok(event) = event else {
            tracing::warn!(kind = "Namespace", "a watch broke off, and is taken up again");
            continue;
        };
        let is_complete = matches!(event, Event::InitDone);
        let woken = apply_namespace_event(&mut shared.index_mut(), &mut listed, event);
        shared.wake(woken);
        if is_complete {
            ready.send_replace(true);
        }
    }
}

/// Applies an event of the watch for namespaces. Returns the SyncedSecrets that must be reconciled.
/// `listed` holds the namespaces of an unfinished list.
fn apply_namespace_event(
    index: &mut Index,
    listed: &mut BTreeSet<String>,
    event: Event<PartialObjectMeta<Namespace>>,
) -> BTreeSet<ObjectKey> {
    match event {
        Event::Init => listed.clear(),
        Event::InitApply(namespace) => {
            listed.insert(namespace.name_any());
            return apply_namespace(index, namespace);
        }
        Event::Apply(namespace) => return apply_namespace(index, namespace),
        Event::Delete(namespace) => index.delete_namespace(&namespace.name_any()),
        // Namespaces that were deleted while the watch was interrupted are not listed again.
        Event::InitDone => index.retain_namespaces(&std::mem::take(listed)),
    }
    BTreeSet::new()
}

fn apply_namespace(index: &mut Index, namespace: PartialObjectMeta<Namespace>) -> BTreeSet<ObjectKey> {
    let name = namespace.name_any();
    let terminating = namespace.metadata.deletion_timestamp.is_some();
    let labels = namespace.metadata.labels.unwrap_or_default();
    index.apply_namespace(&name, labels, terminating)
}

/// Watches each Secret or ConfigMap that a store reads credentials from. Each has its own watch, by
/// name, of metadata only.
#[derive(Debug)]
pub struct CredentialWatches {
    tasks: Tasks,
    running: parking_lot::Mutex<HashMap<CredentialKey, CancellationToken>>,
}

impl CredentialWatches {
    /// Creates an empty set of watches.
    pub fn new(tasks: Tasks) -> Self {
        Self {
            tasks,
            running: parking_lot::Mutex::default(),
        }
    }

    /// Starts the watches that the index requires, and stops the others.
    pub fn follow(&self, shared: &Arc<Shared>) {
        events::listen::follow(shared);
        let mut running = self.running.lock();
        // Read under the lock. Otherwise, a slower caller with an older list could restart a watch
        // that another caller stopped.
        let wanted = shared.index().credential_keys();
        running.retain(|key, token| {
            let keep = wanted.contains(key);
            if !keep {
                token.cancel();
            }
            keep
        });
        for key in wanted {
            if running.contains_key(&key) {
                continue;
            }
            let token = CancellationToken::new();
            running.insert(key.clone(), token.clone());
            let shared = shared.clone();
            self.tasks.spawn("credential watch", token, async move {
                match key.kind {
                    CredentialKind::Secret => follow_credential::<Secret>(shared, key).await,
                    CredentialKind::ConfigMap => follow_credential::<ConfigMap>(shared, key).await,
                }
            });
        }
    }
}

async fn follow_credential<K>(shared: Arc<Shared>, key: CredentialKey)
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    // No object has such a name, and in a selector it could match more than one name.
    if !is_subdomain(&key.name) {
        return;
    }
    let api: Api<PartialObjectMeta<K>> = Api::namespaced(shared.client.clone(), &key.namespace);
    let config = Config::default().fields(&format!("metadata.name={}", key.name));
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let mut seen = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => seen = false,
            Ok(Event::InitApply(object) | Event::Apply(object)) => {
                seen = true;
                changed(&shared, &key, version(&object)).await;
            }
            Ok(Event::InitDone) if seen => {}
            Ok(Event::InitDone | Event::Delete(_)) => changed(&shared, &key, "unreadable").await,
            Err(error) => {
                if is_forbidden(&error) {
                    changed(&shared, &key, "unreadable").await;
                }
            }
        }
    }
}

fn version<K>(object: &PartialObjectMeta<K>) -> &str {
    object.metadata.resource_version.as_deref().unwrap_or_default()
}

fn is_forbidden(error: &watcher::Error) -> bool {
    use watcher::Error;
    let (Error::InitialListFailed(kube::Error::Api(status))
    | Error::WatchStartFailed(kube::Error::Api(status))
    | Error::WatchFailed(kube::Error::Api(status))
    | Error::WatchError(status)) = error
    else {
        return false;
    };
    status.code == 403
}

async fn changed(shared: &Arc<Shared>, key: &CredentialKey, version: &str) {
    let stores = shared.index_mut().apply_credential(key, version);
    if !stores.is_empty() {
        events::listen::follow(shared);
    }
    for store in stores {
        tracing::info!(store = %store, credential = key.name, "a credential changed");
        shared.clients.drop_client(&store).await;
        shared.checks.wake([store.clone()]);
        let dependents = shared.index().dependents(&store);
        shared.wake(dependents);
    }
}

/// Waits until every watch has completed its first list.
pub async fn all_ready(
    mut watches: BTreeMap<&'static str, watch::Receiver<bool>>,
    mut each: impl FnMut(&'static str),
) {
    for (name, ready) in &mut watches {
        if ready.wait_for(|ready| *ready).await.is_ok() {
            each(name);
        }
    }
}

/// Returns a client for one namespace, or for all.
pub fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<DeserializeGuard<K>>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Follows the metadata of written Secrets, so that an edit is repaired within a second.
pub async fn follow_secrets(shared: Arc<Shared>, namespace: Option<String>) {
    use lockstep_api::annotation::{MANAGED_BY_LABEL, MANAGER, OWNER};
    let api: Api<PartialObjectMeta<Secret>> = match &namespace {
        Some(namespace) => Api::namespaced(shared.client.clone(), namespace),
        None => Api::all(shared.client.clone()),
    };
    let config = Config::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGER}"));
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    while let Some(event) = events.next().await {
        let secret = match event {
            Ok(Event::Apply(secret) | Event::Delete(secret)) => secret,
            Ok(_) => continue,
            Err(error) => {
                let forbidden = is_forbidden(&error);
                tracing::warn!(
                    forbidden,
                    "the watch of written Secrets broke off, and is taken up again"
                );
                continue;
            }
        };
        let (Some(owner), Some(namespace)) = (secret.annotations().get(OWNER), secret.namespace()) else {
            continue;
        };
        let key = crate::index::ObjectKey::new(&namespace, owner);
        shared.objects.request_probe(&key, &shared.clock.now());
        shared.wake_quietly(key);
    }
}

#[cfg(test)]
mod tests {
    use kube::core::PartialObjectMetaExt;
    use lockstep_api::StoreRef;
    use serde_json::json;

    use super::*;

    #[test]
    fn namespace_missing_from_a_new_list_matches_no_selector() {
        let store: ClusterSecretStore = serde_json::from_value(json!({
            "metadata": { "name": "shared" },
            "spec": {
                "provider": { "file": { "path": "/values" } },
                "access": [{
                    "namespaces": { "selector": { "matchLabels": { "team": "shop" } } },
                    "keys": ["**"],
                }],
            },
        }))
        .unwrap();
        let reference = StoreRef {
            name: "shared".into(),
            kind: StoreKind::ClusterSecretStore,
        };
        let namespace = |name: &str| {
            let metadata = json!({ "name": name, "labels": { "team": "shop" } });
            let metadata: kube::core::ObjectMeta = serde_json::from_value(metadata).unwrap();
            metadata.into_response_partial::<Namespace>()
        };
        let mut index = Index::new("lockstep-system");
        index.apply_store(&key_of(&store), store.entry());
        let mut listed = BTreeSet::new();
        let mut granted = |event| {
            apply_namespace_event(&mut index, &mut listed, event);
            ["gone", "kept"].map(|name| !index.grant(name, &reference).unwrap().is_empty())
        };
        granted(Event::Init);
        granted(Event::InitApply(namespace("gone")));
        granted(Event::InitApply(namespace("kept")));
        assert_eq!(granted(Event::InitDone), [true, true]);
        granted(Event::Init);
        assert_eq!(granted(Event::InitApply(namespace("kept"))), [true, true]);
        assert_eq!(granted(Event::InitDone), [false, true]);
    }
}
