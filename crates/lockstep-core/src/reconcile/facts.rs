//! The input of a reconcile.

use std::{collections::BTreeMap, sync::Arc};

use lockstep_api::{StoreRef, SyncedSecret, SyncedSecretStatus, TargetStatus, annotation};

use super::{
    effect::Moment,
    memory::Memory,
    observed::{Observed, Settings},
};
use crate::{
    access::Grant,
    fingerprint::FingerprintKey,
    lease::Issuer,
    owner::Owner,
    plan::Rival,
    rotation::versions,
    spec::{self, StoreView},
};

/// What a reconcile needs to know about other objects.
#[derive(Debug, Clone, Default)]
pub struct ClusterView {
    /// The existing stores that the object names.
    pub views: BTreeMap<StoreRef, StoreView>,
    /// The SyncedSecret that writes the same Secret: the one that has written it, or else the oldest.
    pub rival: Option<Rival>,
    /// Whether the namespace is being deleted.
    pub terminating: bool,
}

/// Everything that a reconcile depends on when it starts.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The object as the watch delivered it.
    pub object: Arc<SyncedSecret>,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The last known status. It can be newer than the one in the object.
    pub status: Option<Arc<SyncedSecretStatus>>,
    /// The version of the object that has this status.
    pub resource_version: Option<String>,
    /// What the process remembers about the object.
    pub memory: Memory,
    /// The stores, the rival and the namespace.
    pub view: Arc<ClusterView>,
    /// What the namespace may read from the stores of its leases; `None` if a store does not exist.
    pub lease_grants: BTreeMap<StoreRef, Option<Grant>>,
    /// The option that names the operator's account to kubectl.
    pub account: String,
    /// The key of fingerprints and MACs.
    pub key: FingerprintKey,
    /// The settings of the process.
    pub settings: Settings,
    /// Whether the reconcile may send requests to stores.
    pub uses_stores: bool,
}

impl Facts {
    /// Returns the object as decisions see it.
    pub fn observed<'a>(&'a self, status: Option<&'a SyncedSecretStatus>, moment: Moment) -> Observed<'a> {
        let ahead = moment.wall.duration_since(moment.steady);
        Observed::new(&self.object, status, self.issuer(), ahead)
    }

    pub(super) fn generation(&self) -> i64 {
        self.object.metadata.generation.unwrap_or_default()
    }

    /// Returns what signs and verifies the leases of the object.
    pub(super) fn issuer(&self) -> Issuer<'_> {
        Issuer {
            key: &self.key,
            uid: &self.uid,
            namespace: &self.namespace,
            name: &self.name,
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

    /// Returns the name of the Secret, without a revision.
    pub(super) fn target_name(&self) -> &str {
        spec::target_name(&self.name, &self.object.spec.target)
    }

    /// Returns the object as the owner of a Secret.
    pub(super) fn owner_of<'a>(&'a self, target: &'a str) -> Owner<'a> {
        Owner {
            object: &self.object,
            namespace: &self.namespace,
            name: &self.name,
            target,
        }
    }

    /// Whether the last written Secret is the target of the spec.
    pub(super) fn is_target(&self, written: &TargetStatus) -> bool {
        versions::is_target(self.target_name(), &self.object.spec.target, written)
    }

    /// Returns the name of the last written Secret if it is the target of the spec, or the name in
    /// the spec. A versioned Secret has another name than the spec.
    pub(super) fn current_name<'a>(&'a self, written: Option<&'a TargetStatus>) -> &'a str {
        match written.filter(|written| self.is_target(written)) {
            Some(written) => &written.name,
            None => self.target_name(),
        }
    }
}
