use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use jiff::Timestamp;
use lockstep_core::time::{SharedClock, SystemClock};
use tokio::sync::watch;

use super::faults::{Fault, Faults};
use crate::{Binding, Ciphertext, ErrorKind, Operation, ProviderError, SecretValue};

/// A backend in memory. Clones share it, and every provider that it makes reads it: a test holds one clone, changes
/// values and orders faults while the code under test runs.
#[derive(Clone)]
pub struct MemoryBackend {
    state: Arc<RwLock<State>>,
    hung: Arc<watch::Sender<bool>>,
    clock: SharedClock,
    pub(super) batch: usize,
    pub(super) only_current_in_batches: bool,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) entries: BTreeMap<String, Entry>,
    pub(super) faults: Faults,
}

/// One key.
#[derive(Default)]
pub(super) struct Entry {
    /// Numbered from 1; `None` is a version that was deleted.
    pub(super) versions: Vec<Option<Version>>,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) denied: bool,
}

#[derive(Clone)]
pub(super) struct Version {
    pub(super) value: SecretValue,
    pub(super) created: Timestamp,
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend")
            .field("keys", &self.read().entries.len())
            .finish_non_exhaustive()
    }
}

impl MemoryBackend {
    /// An empty backend.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// An empty backend whose versions are created when `clock` says.
    pub fn with_clock(clock: SharedClock) -> Self {
        Self {
            state: Arc::default(),
            hung: Arc::new(watch::Sender::new(false)),
            clock,
            batch: 1,
            only_current_in_batches: false,
        }
    }

    /// Takes so many references as one request. Default: 1.
    #[must_use]
    pub fn with_batch(mut self, batch: usize) -> Self {
        self.batch = batch;
        self
    }

    /// Takes references with a version, and those to metadata, one by one.
    #[must_use]
    pub fn with_only_current_in_batches(mut self) -> Self {
        self.only_current_in_batches = true;
        self
    }

    /// Stores a value as the next version of a key, and returns the version.
    pub fn put(&self, key: &str, value: impl Into<SecretValue>) -> String {
        let version = Version {
            value: value.into(),
            created: self.clock.now(),
        };
        let mut state = self.write();
        let entry = state.entries.entry(key.to_owned()).or_default();
        entry.versions.push(Some(version));
        entry.versions.len().to_string()
    }

    /// Stores fields as one JSON object, as a backend with fields answers them.
    pub fn put_fields(&self, key: &str, fields: &[(&str, &str)]) -> String {
        let object: serde_json::Map<_, _> = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).into()))
            .collect();
        self.put(key, serde_json::Value::Object(object).to_string())
    }

    /// Sets a tag of a key.
    pub fn tag(&self, key: &str, name: &str, value: &str) {
        self.write()
            .entries
            .entry(key.to_owned())
            .or_default()
            .tags
            .insert(name.to_owned(), value.to_owned());
    }

    /// What stands for a value that its key encrypted: the place, and then the value as it is.
    pub fn encrypt(value: &SecretValue, binding: &Binding) -> Ciphertext {
        let mut bytes = binding.to_bytes();
        bytes.extend_from_slice(value.expose());
        Ciphertext {
            bytes,
            binding: binding.clone(),
        }
    }

    /// Forgets a key with all its versions.
    pub fn delete(&self, key: &str) {
        self.write().entries.remove(key);
    }

    /// Deletes one version of a key; the others stay.
    pub fn delete_version(&self, key: &str, version: &str) {
        let index = version
            .parse::<usize>()
            .ok()
            .and_then(|number| number.checked_sub(1));
        if let Some(slot) = self
            .write()
            .entries
            .get_mut(key)
            .zip(index)
            .and_then(|(entry, i)| entry.versions.get_mut(i))
        {
            *slot = None;
        }
    }

    /// Whether reading a key is refused.
    pub fn set_denied(&self, key: &str, denied: bool) {
        self.write().entries.entry(key.to_owned()).or_default().denied = denied;
    }

    /// Lets every request take so long.
    pub fn set_latency(&self, latency: Duration) {
        self.write().faults.latency = latency;
    }

    /// Lets every request wait until this is unset.
    pub fn set_hung(&self, hung: bool) {
        self.hung.send_replace(hung);
    }

    /// Lets the next requests, of any operation, fail.
    pub fn fail_next(&self, count: usize, kind: ErrorKind, retry_after: Option<Duration>) {
        let fault = Fault {
            kind,
            retry_after,
            in_login: false,
        };
        self.write().faults.add(count, fault);
    }

    /// Lets the logins of the next requests, of any operation, fail.
    pub fn fail_logins(&self, count: usize, kind: ErrorKind) {
        let fault = Fault {
            kind,
            retry_after: None,
            in_login: true,
        };
        self.write().faults.add(count, fault);
    }

    /// Lets every second request fail from now on: the store asks to slow down.
    pub fn throttle_every_second(&self) {
        self.write().faults.every_second = true;
    }

    /// Lets the next reads of one key fail; the other references of a batch are answered.
    pub fn fail_key(&self, key: &str, count: usize, kind: ErrorKind) {
        self.write().faults.add_for_key(
            key,
            count,
            Fault {
                kind,
                retry_after: None,
                in_login: false,
            },
        );
    }

    /// Ends all faults, except for keys that are denied.
    pub fn heal(&self) {
        self.write().faults.clear();
        self.set_hung(false);
    }

    /// How many requests of that operation came in; a batch is one.
    pub fn calls(&self, operation: Operation) -> u64 {
        self.read()
            .faults
            .calls
            .get(&operation)
            .copied()
            .unwrap_or_default()
    }

    /// How often a key was read.
    pub fn reads(&self, key: &str) -> u64 {
        self.read().faults.reads.get(key).copied().unwrap_or_default()
    }

    /// How often any key was read.
    pub fn total_reads(&self) -> u64 {
        self.read().faults.reads.values().sum()
    }

    /// The most references that ever came in one request.
    pub fn largest_batch(&self) -> usize {
        self.read().faults.largest_batch
    }

    /// The most requests that were ever in flight at once.
    pub fn most_in_flight(&self) -> usize {
        self.read().faults.most_in_flight
    }

    /// A request comes in: counts it, lets it wait as ordered, and fails it when its turn to fail has come.
    pub(super) async fn request(&self, operation: Operation) -> Result<InFlight<'_>, ProviderError> {
        let (latency, fault) = {
            let mut state = self.write();
            let faults = &mut state.faults;
            *faults.calls.entry(operation).or_default() += 1;
            faults.in_flight += 1;
            faults.most_in_flight = faults.most_in_flight.max(faults.in_flight);
            (faults.latency, faults.next())
        };
        let in_flight = InFlight(self);
        let mut hung = self.hung.subscribe();
        // The sender lives as long as this backend.
        let _ = hung.wait_for(|hung| !hung).await;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        match fault {
            Some(fault) => Err(fault.error(operation)),
            None => Ok(in_flight),
        }
    }

    /// A client is made.
    pub(super) async fn configure(&self) -> Result<(), ProviderError> {
        let failure = {
            let mut state = self.write();
            *state.faults.calls.entry(Operation::Configure).or_default() += 1;
            state.faults.next_for_key(CONFIGURE)
        };
        // As a real factory, which reads certificates: others get a turn in between.
        tokio::task::yield_now().await;
        failure.map_or(Ok(()), |fault| Err(fault.error(Operation::Configure)))
    }

    /// Lets the making of the next clients fail.
    pub fn fail_configure(&self, count: usize, kind: ErrorKind) {
        self.fail_key(CONFIGURE, count, kind);
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stands among the keys for the making of a client; no key is empty.
const CONFIGURE: &str = "";

/// A request in flight, until dropped.
pub(super) struct InFlight<'a>(&'a MemoryBackend);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.write().faults.in_flight -= 1;
    }
}
