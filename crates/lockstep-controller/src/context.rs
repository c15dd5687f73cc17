//! State that all reconciles share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use kube::{Client, runtime::events::Recorder};
use lockstep_core::{
    fingerprint::FingerprintKey,
    reconcile::{Moment, Settings},
    time::SharedClock,
};
use lockstep_provider::{Clients, Credentials, ErrorKind, Operation, Provider, ProviderError, StoreKey};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::{
    audiences::Audiences,
    events::Events,
    fair::FairSlots,
    fetch::Large,
    index::{Index, ObjectKey},
    kube::{
        account::Account, admission::LeaseProof, checks::Verifier, credentials::NamespaceCredentials,
        secrets::SecretWriter, workloads::Workloads,
    },
    lanes::{Lanes, Slots},
    metrics::Metrics,
    objects::Objects,
    wake::WakeQueue,
};

/// State that all reconciles share.
pub struct Shared {
    /// The client of the API server.
    pub client: Client,
    /// The account that this process uses at the API server.
    pub account: Arc<Account>,
    /// The audiences that tokens may be requested with.
    pub audiences: Arc<Audiences>,
    /// Writes Secrets.
    pub writer: SecretWriter,
    /// Restarts workloads.
    pub workloads: Workloads,
    /// The proof that the policy for leases is enforced.
    pub lease_proof: LeaseProof,
    /// Runs the checks between the waves of rollouts.
    pub verifier: Verifier,
    /// Publishes events.
    pub recorder: Recorder,
    /// Clients of stores.
    pub clients: Clients,
    /// Dependencies between SyncedSecrets, stores, credentials and namespaces.
    pub index: Arc<RwLock<Index>>,
    /// The in-memory state of each SyncedSecret.
    pub objects: Arc<Objects>,
    /// Metrics of the controller.
    pub metrics: Metrics,
    /// The key of fingerprints.
    pub key: FingerprintKey,
    /// The wall clock.
    pub clock: SharedClock,
    /// A clock that is never set. Deadlines of pods use it, so that setting the wall clock does not
    /// make them fail.
    pub steady: SharedClock,
    /// Settings that decisions depend on.
    pub settings: Settings,
    /// Slots for each set of stores.
    pub lanes: Lanes<BTreeSet<StoreKey>>,
    /// Threads for CPU-bound work.
    pub compute: FairSlots,
    /// Slots for SyncedSecrets with large values.
    pub large: Large,
    /// Slots for writes to the API server.
    pub writes: Slots,
    /// Whether the admission policy was proven, or its absence accepted.
    pub may_write: AtomicBool,
    /// Whether the admission policy was proven.
    pub policy_proven: AtomicBool,
    /// Objects to reconcile again, by the namespace that a controller watches (`None`: all).
    pub wake: BTreeMap<Option<String>, WakeQueue<ObjectKey>>,
    /// Stores to check.
    pub checks: WakeQueue<StoreKey>,
    /// Change events from stores.
    pub events: Events,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    /// Locks the index for reading.
    pub fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read()
    }

    /// Locks the index for writing.
    pub fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write()
    }

    /// Returns the clocks and whether Secrets may be written now.
    pub fn moment(&self) -> Moment {
        Moment {
            wall: self.clock.now(),
            steady: self.steady.now(),
            may_write: self.may_write.load(Ordering::Acquire),
            policy_proven: self.policy_proven.load(Ordering::Acquire),
        }
    }

    /// Reconciles objects again because one of their dependencies changed.
    pub fn wake(&self, keys: BTreeSet<ObjectKey>) {
        if keys.is_empty() {
            return;
        }
        self.objects.mark_dirty(&keys);
        self.enqueue(keys);
    }

    /// Syncs objects because a store reported that one of their values may have changed. If the
    /// value is known (`any` is false), they go ahead of other objects.
    pub fn hint(&self, keys: BTreeSet<ObjectKey>, any: bool) {
        let uids: Vec<_> = {
            let index = self.index();
            keys.iter()
                .filter_map(|key| Some((key, index.uid(key)?.to_owned())))
                .collect()
        };
        for (key, uid) in uids {
            self.objects.mark_hinted(key, &uid, any);
        }
        self.enqueue(keys);
    }

    /// Reconciles an object again although none of its dependencies changed.
    pub fn wake_quietly(&self, key: ObjectKey) {
        self.enqueue(BTreeSet::from([key]));
    }

    fn enqueue(&self, keys: BTreeSet<ObjectKey>) {
        if let Some(all) = self.wake.get(&None) {
            all.wake(keys);
            return;
        }
        for key in keys {
            if let Some(queue) = self.wake.get(&Some(key.namespace.to_string())) {
                queue.wake([key]);
            }
        }
    }

    /// Checks every store again, and wakes the SyncedSecrets that depend on them. With `new_login`,
    /// every store logs in again.
    pub async fn recheck_stores(&self, new_login: bool) {
        let stores = self.index().store_keys();
        if new_login {
            for store in &stores {
                self.clients.drop_client(store).await;
            }
        }
        self.checks.wake(stores.clone());
        for store in &stores {
            let dependents = self.index().dependents(store);
            self.wake(dependents);
        }
    }

    /// Returns the client of a store.
    ///
    /// # Errors
    /// When the client cannot be created.
    pub async fn provider(&self, key: &StoreKey) -> Result<Arc<dyn Provider>, ProviderError> {
        self.provider_if(key, |_| true).await
    }

    /// Returns the client of a store as it is configured now, if `is_authorized` accepts the index
    /// at this moment. A reconcile checks its grants when it starts. The store can be changed
    /// before its values are read, and its new configuration may grant other namespaces.
    ///
    /// # Errors
    /// When the client cannot be created, or the reconcile is not authorized any more.
    pub async fn provider_if(
        &self,
        key: &StoreKey,
        is_authorized: impl FnOnce(&Index) -> bool,
    ) -> Result<Arc<dyn Provider>, ProviderError> {
        let (config, revision, namespace) = {
            let index = self.index();
            let Some((config, revision)) = index.store_config(key) else {
                // The store existed when the plan was made. Its deletion wakes the object again.
                return Err(ProviderError::new(
                    ErrorKind::ConfigInvalid,
                    Operation::Configure,
                    "the store was deleted",
                ));
            };
            if !is_authorized(&index) {
                let message = "the store, or the labels of the namespace, changed during the sync";
                return Err(ProviderError::new(
                    ErrorKind::Unavailable,
                    Operation::Configure,
                    message,
                ));
            }
            (config, revision, index.credential_namespace(key).to_owned())
        };
        let credentials: Arc<dyn Credentials> = Arc::new(NamespaceCredentials::new(
            self.client.clone(),
            namespace,
            self.account.clone(),
            self.audiences.clone(),
            self.index.clone(),
        ));
        self.clients.get(key, &revision, &config, credentials).await
    }
}
