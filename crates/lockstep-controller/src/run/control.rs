//! The controller of SyncedSecrets: what makes a reconcile due, and how it runs.

use std::sync::Arc;

use futures::StreamExt;
use kube::runtime::{
    Predicate, PredicateConfig, WatchStreamExt,
    reflector::{self, ObjectRef},
    watcher::Event,
};
use lockstep_api::{SyncedSecret, annotation};

use super::dispatch::dispatch;
use crate::{admin::Readiness, context::Shared, executor::run_reconcile, index::ObjectKey, watch as follow};

/// The parts of a SyncedSecret whose change makes a reconcile due. The status is excluded, because
/// only the operator writes it.
struct Relevant;

impl Predicate<SyncedSecret> for Relevant {
    fn hash_property(&self, object: &SyncedSecret) -> Option<u64> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let meta = &object.metadata;
        let mut hasher = DefaultHasher::new();
        (&meta.uid, meta.generation, meta.deletion_timestamp.is_some()).hash(&mut hasher);
        let asked = |name| meta.annotations.as_ref().and_then(|all| all.get(name));
        [annotation::REFRESH, annotation::ROTATE_NOW]
            .map(asked)
            .hash(&mut hasher);
        Some(hasher.finish())
    }
}

/// Runs the reconciles of a namespace, or of all.
pub(super) async fn control(shared: Arc<Shared>, scope: Option<String>, readiness: Readiness) {
    let (reader, writer) = reflector::store::<SyncedSecret>();
    let events = follow::own_kind(follow::scoped(&shared.client, scope.as_deref()), &shared);
    let observing = shared.clone();
    let mut listed: Option<std::collections::BTreeSet<ObjectKey>> = None;
    let within = scope.clone();
    let trigger = events
        .inspect(move |event| {
            let Ok(event) = event else { return };
            match event {
                Event::Init => listed = Some(std::collections::BTreeSet::new()),
                Event::InitApply(object) | Event::Apply(object) => {
                    if let Some(listed) = &mut listed {
                        listed.insert(ObjectKey::of(object));
                    }
                    observing.objects.observe(&ObjectKey::of(object), object);
                    let rivals = observing.index_mut().apply_object(object);
                    observing.wake(rivals);
                }
                Event::Delete(object) => forget(&observing, &ObjectKey::of(object)),
                Event::InitDone => {
                    let listed = listed.take().unwrap_or_default();
                    let known = observing.index().objects(within.as_deref());
                    for gone in known.into_iter().filter(|key| !listed.contains(key)) {
                        forget(&observing, &gone);
                    }
                    readiness.there("synced secrets");
                    observing.events.listed(within.as_deref());
                }
            }
        })
        .reflect(writer)
        .applied_objects()
        .predicate_filter(Relevant, PredicateConfig::default())
        .filter_map(|object| std::future::ready(object.ok().map(|object| ObjectKey::of(&object))));
    let due = shared.wake.get(&scope).cloned().unwrap_or_default();
    let named = due.clone();
    let watching = trigger.for_each(|key| {
        named.wake([key]);
        std::future::ready(())
    });
    let working = async {
        // Until the list is complete, other objects with the same target Secret may be unknown.
        if reader.wait_until_ready().await.is_err() {
            return;
        }
        dispatch(due, |key: ObjectKey| {
            let object = reader.get(&ObjectRef::new(&key.name).within(&key.namespace));
            let shared = shared.clone();
            async move {
                let Some(object) = object else {
                    // A store may have reported a change just before the deletion.
                    shared.events.settle(&key);
                    return None;
                };
                let again = run_reconcile(object, shared.clone()).await;
                // The object may have been deleted during the reconcile, which must not leave state
                // behind.
                if !shared.index().has_object(&key) {
                    shared.objects.remove(&key);
                    shared.events.settle(&key);
                }
                again
            }
        })
        .await;
    };
    tokio::select! { () = watching => {}, () = working => {} }
}

fn forget(shared: &Shared, key: &ObjectKey) {
    let rivals = shared.index_mut().delete_object(key);
    shared.objects.remove(key);
    shared.events.settle(key);
    shared.wake(rivals);
}
