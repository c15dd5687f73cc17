//! The object of a reconcile, with the state of this run.

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

/// Delay before the next decision when a newer version of the object is about to arrive.
const STALE_PAUSE: Duration = Duration::from_millis(50);

/// One reconcile of one object.
pub(super) struct Reconcile {
    pub(super) key: ObjectKey,
    pub(super) uid: String,
    pub(super) object: Arc<SyncedSecret>,
    pub(super) shared: Arc<Shared>,
    pub(super) priority: Priority,
    /// Whether it waited in the lane of the stores and may send requests to them. Rollout steps do
    /// not, so they continue while a store hangs.
    pub(super) asks_stores: bool,
    /// Counts the bytes that it read, and holds its slot for large values.
    pub(super) meter: Meter,
    /// Whether others wait for its lane, and so for the same store.
    pub(super) backlog: Backlog,
    /// The last status that this reconcile wrote. It writes several if a credential is issued.
    pub(super) committed: Mutex<Option<SyncedSecretStatus>>,
    /// The object version of the last known status. The status of a later version is not
    /// overwritten.
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

    /// Returns what signs and verifies the leases of this object.
    pub(super) fn issuer(&self) -> Issuer<'_> {
        Issuer {
            key: &self.shared.key,
            uid: &self.uid,
            namespace: &self.key.namespace,
            name: &self.key.name,
        }
    }

    /// Whether the finalizer delays the deletion of the object until its leases are revoked.
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

    /// Like [`Self::owner`], for a Secret with another name.
    pub(super) fn owner_of_name<'a>(&'a self, target: &'a str) -> Owner<'a> {
        Owner {
            target,
            ..self.owner()
        }
    }

    /// Like [`Self::owner`], for the last written Secret. A versioned Secret has another name than
    /// the spec.
    pub(super) fn owner_of<'a>(&'a self, written: Option<&'a TargetStatus>) -> Owner<'a> {
        match written.filter(|written| self.is_target(written)) {
            Some(written) => self.owner_of_name(&written.name),
            None => self.owner(),
        }
    }

    /// Returns the last status that this reconcile wrote.
    pub(super) fn committed(&self) -> Option<SyncedSecretStatus> {
        let committed = self.committed.lock().unwrap_or_else(PoisonError::into_inner);
        committed.clone()
    }

    /// Whether the last written Secret is the target of the spec.
    pub(super) fn is_target(&self, written: &TargetStatus) -> bool {
        versions::is_target(self.owner().target, &self.object.spec.target, written)
    }

    pub(super) fn decide(&self) -> (Step, Option<SyncedSecretStatus>) {
        let shared = &self.shared;
        let now = shared.clock.now();
        shared.objects.with(&self.key, &self.uid, |tracked| {
            if tracked.is_stale(&self.object) {
                // the controller receives the newer version soon
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
