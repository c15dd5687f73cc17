use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use lockstep_core::time::{SharedClock, SystemClock};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

use super::faults::{Fault, Faults};
use crate::{Binding, Ciphertext, ErrorKind, Operation, ProviderError, SecretValue};

/// A backend in memory. Clones and providers share its state: a test keeps one clone to change
/// values and to inject faults while the code under test runs.
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

/// The state of one key.
#[derive(Default)]
pub(super) struct Entry {
    /// The versions, numbered from 1; `None` is a deleted version.
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
    /// Creates an empty backend.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// Creates an empty backend whose versions get their creation time from `clock`.
    pub fn with_clock(clock: SharedClock) -> Self {
        Self {
            state: Arc::default(),
            hung: Arc::new(watch::Sender::new(false)),
            clock,
            batch: 1,
            only_current_in_batches: false,
        }
    }

    /// Sets the number of references per request. Defaults to 1.
    #[must_use]
    pub fn with_batch(mut self, batch: usize) -> Self {
        self.batch = batch;
        self
    }

    /// Makes references to a version or to metadata unbatchable.
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

    /// Stores fields as one JSON object, like a backend with fields returns them.
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

    /// Returns a stand-in for an encrypted value: the location, followed by the plain value.
    pub fn encrypt(value: &SecretValue, binding: &Binding) -> Ciphertext {
        let mut bytes = binding.to_bytes();
        bytes.extend_from_slice(value.expose());
        Ciphertext {
            bytes,
            binding: binding.clone(),
        }
    }

    /// Deletes a key with all its versions.
    pub fn delete(&self, key: &str) {
        self.write().entries.remove(key);
    }

    /// Sets whether reading a key is denied.
    pub fn set_denied(&self, key: &str, denied: bool) {
        self.write().entries.entry(key.to_owned()).or_default().denied = denied;
    }

    /// Delays every request by this time.
    pub fn set_latency(&self, latency: Duration) {
        self.write().faults.latency = latency;
    }

    /// Makes every request wait until this is unset.
    pub fn set_hung(&self, hung: bool) {
        self.hung.send_replace(hung);
    }

    /// Makes the next requests, of any operation, fail.
    pub fn fail_next(&self, count: usize, kind: ErrorKind, retry_after: Option<Duration>) {
        let fault = Fault {
            kind,
            retry_after,
            in_login: false,
        };
        self.write().faults.add(count, fault);
    }

    /// Makes the logins of the next requests, of any operation, fail.
    pub fn fail_logins(&self, count: usize, kind: ErrorKind) {
        let fault = Fault {
            kind,
            retry_after: None,
            in_login: true,
        };
        self.write().faults.add(count, fault);
    }

    /// Throttles every second request from now on.
    pub fn throttle_every_second(&self) {
        self.write().faults.every_second = true;
    }

    /// Makes the next reads of one key fail. The other references of a batch succeed.
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

    /// Ends all faults, except for denied keys.
    pub fn heal(&self) {
        self.write().faults.clear();
        self.set_hung(false);
    }

    /// Returns the number of requests of this operation. A batch counts as one.
    pub fn calls(&self, operation: Operation) -> u64 {
        self.read()
            .faults
            .calls
            .get(&operation)
            .copied()
            .unwrap_or_default()
    }

    /// Returns how often a key was read.
    pub fn reads(&self, key: &str) -> u64 {
        self.read().faults.reads.get(key).copied().unwrap_or_default()
    }

    /// Returns the total number of reads of all keys.
    pub fn total_reads(&self) -> u64 {
        self.read().faults.reads.values().sum()
    }

    /// Returns the largest number of references in one request.
    pub fn largest_batch(&self) -> usize {
        self.read().faults.largest_batch
    }

    /// Returns the largest number of requests that were in flight at the same time.
    pub fn most_in_flight(&self) -> usize {
        self.read().faults.most_in_flight
    }

    /// Handles the start of a request: counts it, delays it as configured, and fails it if a fault
    /// is due.
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

    /// Handles the build of a client.
    pub(super) async fn configure(&self) -> Result<(), ProviderError> {
        let failure = {
            let mut state = self.write();
            *state.faults.calls.entry(Operation::Configure).or_default() += 1;
            state.faults.next_for_key(CONFIGURE)
        };
        // Yields like a real factory that reads certificates, so that other tasks can run in
        // between.
        tokio::task::yield_now().await;
        failure.map_or(Ok(()), |fault| Err(fault.error(Operation::Configure)))
    }

    /// Makes the next builds of clients fail.
    pub fn fail_configure(&self, count: usize, kind: ErrorKind) {
        self.fail_key(CONFIGURE, count, kind);
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write()
    }
}

/// The key that stands for building a client. No real key is empty.
const CONFIGURE: &str = "";

/// A request in flight, until it is dropped.
pub(super) struct InFlight<'a>(&'a MemoryBackend);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.write().faults.in_flight -= 1;
    }
}
