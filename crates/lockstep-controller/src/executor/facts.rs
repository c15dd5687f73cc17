//! Gathers what a reconcile depends on.

use std::{collections::BTreeMap, sync::Arc};

use lockstep_api::SyncedSecretStatus;
use lockstep_core::{
    lease::{self, Issuer},
    reconcile::{self, Facts, Observed, Step},
};

use super::Executor;

impl Executor {
    fn observed<'a>(&'a self, status: Option<&'a SyncedSecretStatus>) -> Observed<'a> {
        let issuer = Issuer {
            key: &self.shared.key,
            uid: &self.uid,
            namespace: &self.key.namespace,
            name: &self.key.name,
        };
        let moment = self.shared.moment();
        Observed::new(
            &self.object,
            status,
            issuer,
            moment.wall.duration_since(moment.steady),
        )
    }

    /// Returns the next step; `None` if the watch is about to deliver a newer version of the
    /// object.
    pub(super) fn decide(&self) -> Option<Step> {
        let shared = &self.shared;
        shared.objects.with(&self.key, &self.uid, |tracked| {
            if tracked.is_stale(&self.object) {
                return None;
            }
            tracked.memory.take(&mut tracked.marks);
            let status = tracked.status(&self.object);
            if let Some(status) = &status {
                tracked.note_status(status);
            }
            let (observed, now) = (self.observed(status.as_deref()), shared.clock.now());
            Some(reconcile::decide(
                &observed,
                &mut tracked.memory,
                shared.settings,
                now,
            ))
        })
    }

    /// Releases messages that cannot trigger a sync of this object.
    pub(super) fn release_ignored_messages(&self) {
        if !self.shared.events.concerns(&self.key) {
            return;
        }
        let heeds = self.shared.objects.with(&self.key, &self.uid, |tracked| {
            let status = tracked.status(&self.object);
            tracked.is_stale(&self.object) || self.observed(status.as_deref()).reacts_to_events()
        });
        if !heeds {
            self.shared.events.settle(&self.key);
        }
    }

    /// Gathers what the reconcile depends on; `None` if the object is about to be replaced.
    pub(super) fn facts(&self) -> Option<Facts> {
        let shared = &self.shared;
        let tracked = shared.objects.with(&self.key, &self.uid, |tracked| {
            if tracked.is_stale(&self.object) {
                return None;
            }
            tracked.memory.take(&mut tracked.marks);
            let status = tracked.status(&self.object);
            Some((status, tracked.version(&self.object), tracked.memory.clone()))
        });
        let (status, resource_version, memory) = tracked?;
        let index = shared.index();
        let leases = status
            .iter()
            .flat_map(|status| lease::stores(status.lease.as_ref()));
        let lease_grants: BTreeMap<_, _> = leases
            .map(|store| (store.clone(), index.grant(&self.key.namespace, store)))
            .collect();
        let view = index.view_of(&self.key, &self.object);
        let stores = view.views.keys().chain(lease_grants.keys());
        *self.authorization.lock() = index.authorization(&self.key.namespace, stores);
        Some(Facts {
            object: self.object.clone(),
            namespace: self.key.namespace.to_string(),
            name: self.key.name.to_string(),
            uid: self.uid.clone(),
            status,
            resource_version,
            memory,
            view: Arc::new(view),
            lease_grants,
            account: shared.account.kubectl_option(),
            key: shared.key.clone(),
            settings: shared.settings,
            uses_stores: self.uses_stores,
        })
    }
}
