//! What every reconcile shares.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
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

use crate::{
    audiences::Audiences,
    events::Events,
    fair::Places,
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

/// What every reconcile shares.
pub struct Shared {
    /// The client of the API server.
    pub client: Client,
    /// The account that this process is to the API server.
    pub account: Arc<Account>,
    /// The audiences that tokens are minted with.
    pub audiences: Arc<Audiences>,
    /// Writes Secrets.
    pub writer: SecretWriter,
    /// Restarts workloads.
    pub workloads: Workloads,
    /// The proof that the policy for leases holds.
    pub lease_proof: LeaseProof,
    /// Makes the checks between the waves of rollouts.
    pub verifier: Verifier,
    /// Publishes events.
    pub recorder: Recorder,
    /// Clients of stores.
    pub clients: Clients,
    /// Who depends on whom.
    pub index: Arc<RwLock<Index>>,
    /// What is remembered about each object.
    pub objects: Arc<Objects>,
    /// What is measured.
    pub metrics: Metrics,
    /// The key of fingerprints.
    pub key: FingerprintKey,
    /// Where the time comes from.
    pub clock: SharedClock,
    /// Where the time comes from by which pods are given their deadlines.
    pub steady: SharedClock,
    /// Settings that decisions depend on.
    pub settings: Settings,
    /// Slots by set of stores.
    pub lanes: Lanes<BTreeSet<StoreKey>>,
    /// Threads for what takes a processor.
    pub compute: Places,
    /// Places for SyncedSecrets with large values.
    pub large: Large,
    /// Slots for writes to the API server.
    pub writes: Slots,
    /// Whether the admission policy was proven, or its absence accepted.
    pub may_write: AtomicBool,
    /// Whether the admission policy was proven.
    pub policy_proven: AtomicBool,
    /// Objects to look at again, by the namespace that a controller watches (`None`: all).
    pub wake: BTreeMap<Option<String>, WakeQueue<ObjectKey>>,
    /// Stores to check.
    pub checks: WakeQueue<StoreKey>,
    /// What stores tell of changes.
    pub events: Events,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    /// The index, to ask.
    pub fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index, to change.
    pub fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
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

    /// Has objects looked at again because something they depend on changed.
    pub fn wake(&self, keys: BTreeSet<ObjectKey>) {
        if keys.is_empty() {
            return;
        }
        self.objects.mark_dirty(&keys);
        self.enqueue(keys);
    }

    /// Has objects synced because a store told that a value of theirs may have changed: ahead of others, where it is known
    /// which one.
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

    /// Has an object looked at, without anything that it depends on having changed.
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

    /// Checks every store again, and wakes the SyncedSecrets that depend on them. With `new_login`, every store logs in again.
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

    /// The client of a store.
    ///
    /// # Errors
    /// What making it fails with.
    pub async fn provider(&self, key: &StoreKey) -> Result<Arc<dyn Provider>, ProviderError> {
        let (config, revision, namespace) = {
            let index = self.index();
            let Some((config, revision)) = index.store_config(key) else {
                // it was there when the plan was made; the deletion wakes the object again
                return Err(ProviderError::new(
                    ErrorKind::ConfigInvalid,
                    Operation::Configure,
                    "the store was deleted",
                ));
            };
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
