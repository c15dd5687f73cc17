//! The controller of SyncedSecrets: what makes a reconcile due, and who runs it.

use std::sync::Arc;

use futures::StreamExt;
use kube::runtime::{
    Controller, Predicate, PredicateConfig, WatchStreamExt, controller,
    controller::Action,
    reflector::{self, ObjectRef},
    watcher::Event,
};
use lockstep_api::{SyncedSecret, annotation};
use tokio_util::sync::CancellationToken;

use crate::{admin::Readiness, context::Shared, index::ObjectKey, reconcile::reconcile, watch as follow};

/// What of a SyncedSecret makes a reconcile due. Its status is not: it is the operator's own word.
struct Relevant;

impl Predicate<SyncedSecret> for Relevant {
    fn hash_property(&self, object: &SyncedSecret) -> Option<u64> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let meta = &object.metadata;
        let mut hasher = DefaultHasher::new();
        (&meta.uid, meta.generation, meta.deletion_timestamp.is_some()).hash(&mut hasher);
        meta.annotations
            .as_ref()
            .and_then(|all| all.get(annotation::REFRESH))
            .hash(&mut hasher);
        Some(hasher.finish())
    }
}

/// Runs the reconciles of a namespace, or of all.
pub(super) async fn control(
    shared: Arc<Shared>,
    scope: Option<String>,
    readiness: Readiness,
    shutdown: CancellationToken,
) {
    let (reader, writer) = reflector::store::<SyncedSecret>();
    let events = follow::ours(follow::scoped(&shared.client, scope.as_deref()), &shared);
    let taking_in = shared.clone();
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
                    taking_in.objects.seen(&ObjectKey::of(object), object);
                    let rivals = taking_in.index_mut().apply_object(object);
                    taking_in.wake(rivals);
                }
                Event::Delete(object) => forget(&taking_in, &ObjectKey::of(object)),
                Event::InitDone => {
                    let listed = listed.take().unwrap_or_default();
                    let known = taking_in.index().objects(within.as_deref());
                    for gone in known.into_iter().filter(|key| !listed.contains(key)) {
                        forget(&taking_in, &gone);
                    }
                    readiness.there("synced secrets");
                }
            }
        })
        .reflect(writer)
        .applied_objects()
        .predicate_filter(Relevant, PredicateConfig::default());
    let woken = shared.wake.get(&scope).cloned().unwrap_or_default();
    let woken = woken.map(|key| ObjectRef::new(&key.name).within(&key.namespace));
    Controller::for_stream(trigger, reader)
        .reconcile_on(woken)
        .with_config(controller::Config::default().concurrency(0))
        .graceful_shutdown_on(async move { shutdown.cancelled().await })
        .run(reconcile, |_, error, _| match *error {}, shared)
        .for_each(|_: Result<(_, Action), _>| std::future::ready(()))
        .await;
}

fn forget(shared: &Shared, key: &ObjectKey) {
    let rivals = shared.index_mut().delete_object(key);
    shared.objects.remove(key);
    shared.wake(rivals);
}
