//! Executes a plan: all its reads, searches and decryptions.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use lockstep_api::StoreRef;
use lockstep_core::{
    collect::{Fetched, MAX_SOURCE_BYTES},
    plan::{Decryption, Plan, Read, Search},
    remote::{RemoteRef, SecretValue},
};
use lockstep_provider::{Context, ErrorKind, Operation, Provider, ProviderError, RemoteSecret};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::fair::{FairSlot, FairSlots};

/// Provides the clients of stores: from a cluster in the operator, from a folder in `lockstep
/// render`.
#[async_trait]
pub trait Stores: Sync {
    /// Returns the client of a store.
    ///
    /// # Errors
    /// When the store cannot be used.
    async fn provider(&self, store: &StoreRef) -> Result<Arc<dyn Provider>, ProviderError>;
}

/// Maximum number of stores that one SyncedSecret reads from at the same time.
const STORES_AT_ONCE: usize = 8;
/// Maximum number of ciphertexts of one SyncedSecret that are decrypted at the same time.
const CIPHERTEXTS_AT_ONCE: usize = 16;

/// Maximum number of concurrent requests of one SyncedSecret to one store.
const REQUESTS_AT_ONCE: usize = 32;

/// Maximum number of SyncedSecrets with more than [`SMALL`] bytes of values at the same time, in
/// total and per namespace.
const LARGE_AT_ONCE: usize = 6;
const LARGE_OF_NAMESPACE: usize = 2;
/// A SyncedSecret with at most this many bytes of values needs no slot for large values.
const SMALL: usize = 64 * 1024;

/// The slots for SyncedSecrets with large values. With the limit of each, they limit the values in
/// memory.
#[derive(Debug, Clone)]
pub struct Large(FairSlots);

impl Default for Large {
    fn default() -> Self {
        Self(FairSlots::new(LARGE_AT_ONCE, LARGE_OF_NAMESPACE))
    }
}

/// Counts the bytes of the values of one SyncedSecret during its sync.
///
/// Up to [`SMALL`] bytes need no slot. A SyncedSecret that reads more waits once for a slot, and
/// holds nothing that others need while it waits. One slot covers everything that it may read.
#[derive(Debug)]
pub struct Meter {
    large: Large,
    namespace: String,
    bytes: Mutex<usize>,
    slot: tokio::sync::Mutex<Option<FairSlot>>,
}

/// Whether values that were read can be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// The values fit the limits and are kept.
    Fits,
    /// The values have to be read again with a slot.
    NeedsSlot,
    /// The values exceed the limit of one SyncedSecret.
    TooLarge,
}

impl Meter {
    /// Creates a meter before the first read.
    pub fn new(large: Large, namespace: &str) -> Self {
        Self {
            large,
            namespace: namespace.to_owned(),
            bytes: Mutex::default(),
            slot: tokio::sync::Mutex::default(),
        }
    }

    /// Resets the count for another read of the same SyncedSecret, which keeps its slot.
    fn begin(&self) {
        *self.bytes.lock() = 0;
    }

    /// Whether the values need a slot.
    pub fn is_large(&self) -> bool {
        *self.bytes.lock() > SMALL
    }

    fn add(&self, more: usize, has_slot: bool) -> Fit {
        let mut bytes = self.bytes.lock();
        let all = bytes.saturating_add(more);
        if all > MAX_SOURCE_BYTES {
            return Fit::TooLarge;
        }
        if all > SMALL && !has_slot {
            return Fit::NeedsSlot;
        }
        *bytes = all;
        Fit::Fits
    }

    /// Waits for a slot, unless the meter has one.
    ///
    /// # Errors
    /// `Timeout` if no slot is free before the deadline.
    pub async fn acquire_slot(&self, cx: &Context) -> Result<(), ProviderError> {
        let mut slot = self.slot.lock().await;
        if slot.is_some() {
            return Ok(());
        }
        // half of the time is reserved for reading
        let deadline = cx.deadline.map_or_else(
            || Instant::now() + Duration::from_secs(60),
            |deadline| {
                let left = deadline.saturating_duration_since(std::time::Instant::now());
                Instant::now() + left / 2
            },
        );
        let taken = timeout_at(deadline, self.large.0.acquire(&self.namespace)).await;
        *slot = Some(taken.map_err(|_| {
            ProviderError::new(
                ErrorKind::Timeout,
                Operation::Read,
                "lockstep limits how many large values it reads at the same time, and no slot was free in time. lockstep retries",
            )
        })?);
        Ok(())
    }

    async fn has_slot(&self) -> bool {
        self.slot.lock().await.is_some()
    }
}

/// Decrypts every ciphertext of the plan. The results are by index in `data`.
pub async fn decrypt(
    plan: &Plan,
    stores: &dyn Stores,
    cx: &Context,
) -> BTreeMap<usize, Result<SecretValue, ProviderError>> {
    stream::iter(plan.decryptions.clone())
        .map(|decryption| decrypt_one(decryption, stores, cx))
        .buffer_unordered(CIPHERTEXTS_AT_ONCE)
        .collect()
        .await
}

async fn decrypt_one(
    decryption: Decryption,
    stores: &dyn Stores,
    cx: &Context,
) -> (usize, Result<SecretValue, ProviderError>) {
    (decryption.entry, decrypted(&decryption, stores, cx).await)
}

async fn decrypted(
    decryption: &Decryption,
    stores: &dyn Stores,
    cx: &Context,
) -> Result<SecretValue, ProviderError> {
    let failed = |message: String| ProviderError::new(ErrorKind::Undecryptable, Operation::Decrypt, message);
    let provider = stores.provider(&decryption.store).await?;
    let (own, other) = (provider.capability().name, decryption.kms());
    if own != other {
        return Err(failed(format!(
            "the ciphertext was sealed with a key of provider \"{}\", but this store has provider \"{own}\"",
            other.escape_debug()
        )));
    }
    let decrypted = provider.decrypt(cx, &decryption.ciphertext).await?;
    // no cipher makes text shorter, and the length of the ciphertext is limited
    if decrypted.len() > decryption.ciphertext.bytes.len() {
        return Err(failed(
            "the store returned more bytes than the ciphertext can contain".to_owned(),
        ));
    }
    decryption
        .open(&decrypted)
        .map_err(|error| failed(format!("the ciphertext {error}")))
}

/// Executes the reads and searches of the plan. Each read has a result, even if the provider omits
/// one. It stops when the values exceed the limit of one SyncedSecret.
pub async fn fetch(plan: &Plan, stores: &dyn Stores, cx: &Context, meter: &Meter) -> Fetched {
    meter.begin();
    let mut by_store: BTreeMap<StoreRef, (Vec<RemoteRef>, Vec<Search>)> = BTreeMap::new();
    for read in &plan.reads {
        by_store
            .entry(read.store.clone())
            .or_default()
            .0
            .push(read.reference.clone());
    }
    for search in &plan.searches {
        by_store
            .entry(search.store.clone())
            .or_default()
            .1
            .push(search.clone());
    }
    let mut answers = stream::iter(by_store)
        .map(|(store, (refs, searches))| fetch_store(store, refs, searches, stores, cx, meter))
        .buffer_unordered(STORES_AT_ONCE);
    let mut all = Fetched::default();
    while let Some(one) = answers.next().await {
        all.reads.extend(one.reads);
        all.found.extend(one.found);
        if one.too_large.is_some() {
            all.too_large = one.too_large;
            break;
        }
    }
    drop(answers);
    if all.too_large.is_some() {
        // partial results are not used
        all.reads.clear();
    }
    all
}

async fn fetch_store(
    store: StoreRef,
    mut refs: Vec<RemoteRef>,
    searches: Vec<Search>,
    stores: &dyn Stores,
    cx: &Context,
    meter: &Meter,
) -> Fetched {
    let mut fetched = Fetched::default();
    let provider = match stores.provider(&store).await {
        Ok(provider) => provider,
        Err(error) => {
            fetched.reads.extend(
                refs.into_iter()
                    .map(|reference| (read(&store, reference), Err(error.clone()))),
            );
            fetched.found.extend(
                searches
                    .into_iter()
                    .map(|search| (search.entry, Err(error.clone()))),
            );
            return fetched;
        }
    };
    let mut failed = None;
    for search in searches {
        // after an error, the sync fails: another search is of no use
        let found = match &failed {
            Some(error) => Err(ProviderError::clone(error)),
            None => cx.match_time.limit(provider.find(cx, &search.query)).await,
        };
        failed = found.as_ref().err().cloned();
        let found = found.map(|found| {
            let mut keys: Vec<_> = found
                .into_iter()
                .map(|meta| meta.key)
                // the provider knows the scope, but the grant is checked again
                .filter(|location| search.grant.allows(location))
                .collect();
            keys.sort();
            keys.dedup();
            keys
        });
        if let Ok(keys) = &found {
            refs.extend(keys.iter().cloned().map(RemoteRef::current));
        }
        fetched.found.insert(search.entry, found);
    }
    refs.sort();
    refs.dedup();
    if refs.is_empty() {
        return fetched;
    }
    let mut left = group_into_requests(provider.as_ref(), refs);
    while !left.is_empty() {
        let has_slot = meter.has_slot().await;
        match read_some(
            provider.as_ref(),
            cx,
            &store,
            &mut left,
            meter,
            has_slot,
            &mut fetched,
        )
        .await
        {
            Fit::Fits => {}
            Fit::TooLarge => {
                fetched.too_large = Some(store);
                return fetched;
            }
            Fit::NeedsSlot => {
                if let Err(error) = meter.acquire_slot(cx).await {
                    let missing = left.drain(..).flatten();
                    fetched
                        .reads
                        .extend(missing.map(|reference| (read(&store, reference), Err(error.clone()))));
                }
            }
        }
    }
    fetched
}

/// Sends the requests concurrently until the values of one cannot be kept. References whose values
/// are kept are removed from `left`.
async fn read_some(
    provider: &dyn Provider,
    cx: &Context,
    store: &StoreRef,
    left: &mut Vec<Vec<RemoteRef>>,
    meter: &Meter,
    has_slot: bool,
    fetched: &mut Fetched,
) -> Fit {
    let mut unread: Vec<Option<Vec<RemoteRef>>> = left.drain(..).map(Some).collect();
    let requests: Vec<_> = unread.iter().flatten().cloned().enumerate().collect();
    let mut answers = stream::iter(requests)
        .map(|(number, refs)| async move { (number, provider.fetch(cx, &refs).await) })
        .buffer_unordered(REQUESTS_AT_ONCE);
    let mut fit = Fit::Fits;
    while let Some((number, answers)) = answers.next().await {
        fit = meter.add(answers.iter().map(size).sum(), has_slot);
        if fit != Fit::Fits {
            break;
        }
        let refs = unread.get_mut(number).and_then(Option::take).unwrap_or_default();
        fetched.reads.extend(
            refs.into_iter()
                .map(|reference| read(store, reference))
                .zip(answers.into_iter().chain(std::iter::repeat_with(omitted_answer))),
        );
    }
    left.extend(unread.into_iter().flatten());
    fit
}

pub(crate) fn omitted_answer() -> Result<RemoteSecret, ProviderError> {
    Err(ProviderError::new(
        ErrorKind::Malformed,
        Operation::Read,
        "the response does not contain some of the keys",
    ))
}

fn size(answer: &Result<RemoteSecret, ProviderError>) -> usize {
    answer.as_ref().map_or(0, |secret| secret.value.len())
}

/// Groups references into requests: batches up to the provider's limit, and single requests for
/// unbatchable references.
fn group_into_requests(provider: &dyn Provider, refs: Vec<RemoteRef>) -> Vec<Vec<RemoteRef>> {
    let size = provider.capability().batch.max(1);
    let (batchable, unbatchable): (Vec<_>, Vec<_>) = refs
        .into_iter()
        .partition(|reference| size > 1 && provider.batches(reference));
    let batches = batchable.chunks(size).map(<[RemoteRef]>::to_vec);
    batches
        .chain(unbatchable.into_iter().map(|one| vec![one]))
        .collect()
}

fn read(store: &StoreRef, reference: RemoteRef) -> Read {
    Read {
        store: store.clone(),
        reference,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use lockstep_core::access::Grant;
    use lockstep_provider::{FindQuery, MatchTime, MemoryBackend};

    use super::*;

    struct One(Arc<dyn Provider>);

    #[async_trait]
    impl Stores for One {
        async fn provider(&self, _: &StoreRef) -> Result<Arc<dyn Provider>, ProviderError> {
            Ok(Arc::clone(&self.0))
        }
    }

    fn store() -> StoreRef {
        serde_json::from_value(serde_json::json!({ "name": "vault" })).unwrap()
    }

    fn reads(keys: impl IntoIterator<Item = String>) -> Plan {
        Plan {
            reads: keys
                .into_iter()
                .map(|key| {
                    read(
                        &store(),
                        RemoteRef::current(lockstep_provider::Location::new(key).unwrap()),
                    )
                })
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            ..Plan::default()
        }
    }

    fn keys(count: usize) -> impl Iterator<Item = String> {
        (0..count).map(|n| format!("key-{n}"))
    }

    fn backend(count: usize, bytes: usize) -> MemoryBackend {
        let backend = MemoryBackend::new();
        for key in keys(count) {
            backend.put(&key, "x".repeat(bytes));
        }
        backend
    }

    #[tokio::test(start_paused = true)]
    async fn fetch_stops_at_the_size_limit() {
        let backend = backend(100, 1 << 20);
        backend.set_latency(Duration::from_millis(5));
        let meter = Meter::new(Large::default(), "hostile");
        let plan = reads(keys(100));
        let fetched = fetch(&plan, &One(backend.provider()), &Context::default(), &meter).await;
        assert_eq!(fetched.too_large, Some(store()));
        assert!(fetched.reads.is_empty());
        assert!(backend.calls(Operation::Read) <= 100, "most are never asked for");
    }

    #[tokio::test(start_paused = true)]
    async fn everything_within_the_limit_is_read_in_one_slot() {
        for (count, bytes, large) in [
            (3, 10, false),
            (3, 1 << 20, true),
            (500, 1000, true),
            (64, 1024, false),
        ] {
            let backend = backend(count, bytes);
            let meter = Meter::new(Large::default(), "shop");
            let plan = reads(keys(count));
            let fetched = fetch(&plan, &One(backend.provider()), &Context::default(), &meter).await;
            assert_eq!(fetched.reads.len(), count);
            assert!(fetched.reads.values().all(Result::is_ok));
            assert_eq!((meter.is_large(), meter.has_slot().await), (large, large));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_large_synced_secrets_wait_for_each_other() {
        let large = Large::default();
        let mut hostile = Vec::new();
        for namespace in ["a", "b", "c"] {
            for _ in 0..LARGE_OF_NAMESPACE {
                let meter = Meter::new(large.clone(), namespace);
                meter.acquire_slot(&Context::default()).await.unwrap();
                hostile.push(meter);
            }
        }
        let one = One(backend(3, 1 << 20).provider());
        let cx = Context {
            deadline: Some((Instant::now() + Duration::from_secs(10)).into_std()),
            ..Context::default()
        };
        let meter = Meter::new(large.clone(), "shop");
        let fetched = fetch(&reads(keys(3)), &one, &cx, &meter).await;
        let errors = fetched.reads.values().filter_map(|read| read.as_ref().err());
        assert_eq!(errors.filter(|error| error.kind == ErrorKind::Timeout).count(), 3);

        let small = One(backend(3, 1000).provider());
        let fetched = fetch(&reads(keys(3)), &small, &cx, &meter).await;
        assert!(fetched.reads.values().all(Result::is_ok));

        hostile.pop();
        let meter = Meter::new(large, "shop");
        let fetched = fetch(&reads(keys(3)), &one, &Context::default(), &meter).await;
        assert!(fetched.reads.values().all(Result::is_ok));
    }

    fn searches<'a>(names: impl IntoIterator<Item = &'a str>) -> Plan {
        let search = |(entry, name): (usize, &str)| Search {
            entry,
            store: store(),
            query: FindQuery {
                name: Some(name.to_owned()),
                ..FindQuery::default()
            },
            grant: Grant::Everything,
        };
        Plan {
            searches: names.into_iter().enumerate().map(search).collect(),
            ..Plan::default()
        }
    }

    #[tokio::test]
    async fn no_search_starts_after_the_time_for_matching_is_spent() {
        let backend = backend(3, 10);
        let cx = Context::default();
        cx.match_time.add(MatchTime::MAX * 2);
        let meter = Meter::new(Large::default(), "hostile");
        let fetched = fetch(&searches(["a", "b", "c"]), &One(backend.provider()), &cx, &meter).await;
        assert_eq!(backend.calls(Operation::Find), 0);
        assert_eq!(fetched.found.len(), 3);
        for error in fetched.found.into_values().filter_map(Result::err) {
            assert_eq!(error.kind, ErrorKind::ConfigInvalid);
            assert!(error.message.starts_with("find.name.regexp: "), "{error}");
        }
    }

    #[tokio::test]
    async fn search_that_uses_up_the_time_is_the_last_one() {
        let backend = backend(3, 10);
        let cx = Context::default();
        cx.match_time.add(MatchTime::MAX);
        let meter = Meter::new(Large::default(), "hostile");
        let fetched = fetch(&searches(["a", "b", "c"]), &One(backend.provider()), &cx, &meter).await;
        assert_eq!(backend.calls(Operation::Find), 1);
        let failed: Vec<bool> = fetched.found.values().map(Result::is_err).collect();
        assert_eq!(failed, [false, true, true]);
    }

    #[tokio::test]
    async fn no_search_follows_one_that_failed() {
        let backend = backend(3, 10);
        let meter = Meter::new(Large::default(), "shop");
        let plan = searches(["key-1", "(", "key-2", "key-3"]);
        let fetched = fetch(&plan, &One(backend.provider()), &Context::default(), &meter).await;
        assert_eq!(backend.calls(Operation::Find), 1);
        let failed: Vec<bool> = fetched.found.values().map(Result::is_err).collect();
        assert_eq!(failed, [false, true, true, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn search_results_count_towards_the_limit() {
        let backend = backend(10, 1 << 20);
        let plan = searches([""]);
        let meter = Meter::new(Large::default(), "hostile");
        let fetched = fetch(&plan, &One(backend.provider()), &Context::default(), &meter).await;
        assert_eq!(fetched.too_large, Some(store()));
    }
}
