//! The object that a reconcile works on.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lockstep_api::{SyncedSecret, SyncedSecretStatus, TargetStatus, annotation};
use lockstep_core::{
    decide::{self, Observed, Step},
    lease::Issuer,
    rotation::versions,
    spec,
};
use lockstep_provider::Backlog;

use crate::{
    context::Shared, fetch::Meter, index::ObjectKey, lanes::Priority, objects::Tracked, owner::Owner,
};

/// Pause before an object is decided again of which a newer version is on its way.
const STALE_PAUSE: Duration = Duration::from_millis(50);

/// One object that is reconciled, and what this run of it knows.
pub(super) struct Reconcile {
    pub(super) key: ObjectKey,
    pub(super) uid: String,
    pub(super) object: Arc<SyncedSecret>,
    pub(super) shared: Arc<Shared>,
    pub(super) priority: Priority,
    /// Whether it may ask the stores: it waited in their lane. A rollout does not, so that it goes on while a store hangs.
    pub(super) asks_stores: bool,
    /// What it has read, and its place among those with large values.
    pub(super) meter: Meter,
    /// Whether others wait for its lane, and with it for the same store.
    pub(super) backlog: Backlog,
    /// The status that this reconcile wrote last: it writes more than one where a credential is made.
    pub(super) committed: Mutex<Option<SyncedSecretStatus>>,
    /// The version of the object that the last known status is of: a write of the status is for no later one.
    pub(super) version: Mutex<Option<String>>,
}

impl Reconcile {
    pub(super) fn new(key: ObjectKey, object: Arc<SyncedSecret>, shared: Arc<Shared>) -> Self {
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let meter = Meter::new(shared.large.clone(), &key.namespace);
        Self {
            key,
            uid,
            object,
            shared,
            meter,
            priority: Priority::Low,
            asks_stores: true,
            backlog: Backlog::default(),
            committed: Mutex::default(),
            version: Mutex::default(),
        }
    }

    pub(super) fn observed<'a>(&'a self, status: Option<&'a SyncedSecretStatus>) -> Observed<'a> {
        Observed {
            uid: &self.uid,
            generation: self.object.metadata.generation.unwrap_or_default(),
            deleting: self.object.metadata.deletion_timestamp.is_some(),
            deleted_at: self
                .object
                .metadata
                .deletion_timestamp
                .as_ref()
                .map(|time| time.0),
            guarded: self.is_guarded(),
            ahead: self.shared.clock.now().duration_since(self.shared.steady.now()),
            refresh: self.annotation(annotation::REFRESH),
            rotate_now: self.annotation(annotation::ROTATE_NOW),
            spec: &self.object.spec,
            status,
            issuer: self.issuer(),
        }
    }

    /// What leases of this object are proven with.
    pub(super) fn issuer(&self) -> Issuer<'_> {
        Issuer {
            key: &self.shared.key,
            uid: &self.uid,
            namespace: &self.key.namespace,
            name: &self.key.name,
        }
    }

    /// Whether the object waits for its leases to be revoked before it goes.
    pub(super) fn is_guarded(&self) -> bool {
        let finalizers = self.object.metadata.finalizers.as_deref().unwrap_or_default();
        finalizers.iter().any(|name| name == annotation::REVOKE_LEASE)
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        let annotations = self.object.metadata.annotations.as_ref()?;
        annotations.get(name).map(String::as_str)
    }

    pub(super) fn owner(&self) -> Owner<'_> {
        Owner {
            object: &self.object,
            namespace: &self.key.namespace,
            name: &self.key.name,
            target: spec::target_name(&self.key.name, &self.object.spec.target),
        }
    }

    /// The same for a Secret of that name.
    pub(super) fn owner_of_name<'a>(&'a self, target: &'a str) -> Owner<'a> {
        Owner {
            target,
            ..self.owner()
        }
    }

    /// The same for the Secret that was written last, which of a versioned target has another name than the spec says.
    pub(super) fn owner_of<'a>(&'a self, written: Option<&'a TargetStatus>) -> Owner<'a> {
        match written.filter(|written| self.is_target(written)) {
            Some(written) => self.owner_of_name(&written.name),
            None => self.owner(),
        }
    }

    /// The status that this reconcile wrote last.
    pub(super) fn committed(&self) -> Option<SyncedSecretStatus> {
        let committed = self.committed.lock().unwrap_or_else(PoisonError::into_inner);
        committed.clone()
    }

    /// Whether the Secret that was written last is the one that the spec means.
    pub(super) fn is_target(&self, written: &TargetStatus) -> bool {
        versions::is_target(self.owner().target, &self.object.spec.target, written)
    }

    pub(super) fn decide(&self) -> (Step, Option<SyncedSecretStatus>) {
        let shared = &self.shared;
        let now = shared.clock.now();
        shared.objects.with(&self.key, &self.uid, |tracked| {
            if tracked.is_stale(&self.object) {
                // the controller hands out the newer one in a moment
                return (Step::Idle(STALE_PAUSE), None);
            }
            let status = tracked.status(&self.object);
            *self.version.lock().unwrap_or_else(PoisonError::into_inner) = tracked.version(&self.object);
            if let Some(status) = &status {
                tracked.note_status(status);
            }
            let step = decide::decide(
                &self.observed(status.as_ref()),
                &mut tracked.memory,
                shared.settings,
                now,
            );
            (step, status)
        })
    }

    pub(super) fn remember<T>(
        &self,
        change: impl FnOnce(&mut Tracked, Observed<'_>, decide::Settings) -> T,
    ) -> T {
        let settings = self.shared.settings;
        self.shared.objects.with(&self.key, &self.uid, |tracked| {
            let observed = self.observed(None);
            change(tracked, observed, settings)
        })
    }
}
