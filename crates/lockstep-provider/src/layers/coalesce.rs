use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::{
    FutureExt as _,
    future::{BoxFuture, WeakShared, join_all},
};
use tokio::time::Instant;

use super::{Flight, checked, deadline, for_each, gave_up, panicked, requests, wait};
use crate::{
    Backlog, Capability, Ciphertext, Context, FindQuery, LeaseHandle, LeaseRequest, MatchTime, Minted,
    Notice, Operation, Provider, ProviderError, RemoteMeta, RemoteRef, RemoteSecret, SecretValue, Warrant,
    metrics::StoreMetrics,
};

/// Reads a value once, however many want it at that moment; searches, too. Errors are shared like values.
///
/// Nothing is kept: a request leaves the table when it is answered, and its answer lives as long as those who waited
/// for it. A request ends early when the last of them goes away; while one is left, it is carried on, by whoever that
/// is. Each waits no longer than its own deadline. Who knows of a change ([`Context::not_before`]) joins no request that may
/// have been answered before it: a new one is made, which later ones join.
#[derive(Debug)]
pub struct Coalesce {
    provider: Arc<dyn Provider>,
    metrics: StoreMetrics,
    longest: Duration,
    reads: Table<RemoteRef, Vec<Result<RemoteSecret, ProviderError>>>,
    searches: Table<FindQuery, Result<Vec<RemoteMeta>, ProviderError>>,
    decryptions: Table<Ciphertext, Result<SecretValue, ProviderError>>,
}

impl Coalesce {
    /// Joins the requests of `provider`, which belongs to one store identity. A joined request takes at most `longest`.
    pub fn new(provider: Arc<dyn Provider>, metrics: StoreMetrics, longest: Duration) -> Self {
        Self {
            provider,
            metrics,
            longest,
            reads: Table::default(),
            searches: Table::default(),
            decryptions: Table::default(),
        }
    }

    /// The request that reads `refs` (one batch, or one that goes alone), not yet begun.
    fn read(
        &self,
        refs: Vec<RemoteRef>,
        backlog: Backlog,
    ) -> BoxFuture<'static, Vec<Result<RemoteSecret, ProviderError>>> {
        let provider = Arc::clone(&self.provider);
        let cx = Context {
            backlog,
            ..self.context()
        };
        async move {
            match AssertUnwindSafe(provider.fetch(&cx, &refs)).catch_unwind().await {
                Ok(results) => checked(refs.len(), Operation::Read, results),
                Err(_) => for_each(refs.len(), &panicked(Operation::Read)),
            }
        }
        .boxed()
    }

    fn search(
        &self,
        query: FindQuery,
        match_time: MatchTime,
    ) -> BoxFuture<'static, Result<Vec<RemoteMeta>, ProviderError>> {
        let provider = Arc::clone(&self.provider);
        let cx = Context {
            match_time,
            ..self.context()
        };
        async move {
            let search = AssertUnwindSafe(provider.find(&cx, &query)).catch_unwind();
            search.await.unwrap_or_else(|_| Err(panicked(Operation::Find)))
        }
        .boxed()
    }

    fn decryption(&self, ciphertext: Ciphertext) -> BoxFuture<'static, Result<SecretValue, ProviderError>> {
        let (provider, cx) = (Arc::clone(&self.provider), self.context());
        async move {
            let decryption = AssertUnwindSafe(provider.decrypt(&cx, &ciphertext)).catch_unwind();
            decryption
                .await
                .unwrap_or_else(|_| Err(panicked(Operation::Decrypt)))
        }
        .boxed()
    }

    /// A joined request serves callers with different deadlines, so it has an end of its own.
    fn context(&self) -> Context {
        Context {
            deadline: Some(deadline(&Context::default(), self.longest).into_std()),
            ..Context::default()
        }
    }

    /// Joins the reads in flight and begins one for each batch of what is left, and for each that shares none. Returns the requests, and for each
    /// reference which of them answers it at which place.
    fn join(&self, cx: &Context, refs: &[RemoteRef]) -> (Vec<ReadFlight>, Vec<(usize, usize)>) {
        let (mut joined, mut new) = (Vec::new(), Vec::new());
        let mut known: HashMap<&RemoteRef, Place> = HashMap::new();

        let mut table = self.reads.lock();
        for reference in refs {
            known.entry(reference).or_insert_with(|| {
                if let Some((flight, place)) = table.join(reference, cx.not_before) {
                    joined.push(flight);
                    Place::Joined(joined.len() - 1, place)
                } else {
                    new.push(reference.clone());
                    Place::New(new.len() - 1)
                }
            });
        }
        let mut flights = joined;
        let mut begun = vec![(usize::MAX, 0); new.len()];
        for places in requests(self.provider.as_ref(), &new) {
            let refs: Vec<RemoteRef> = places.iter().map(|place| new[*place].clone()).collect();
            for (answer, place) in places.into_iter().enumerate() {
                begun[place] = (flights.len(), answer);
            }
            flights.push(table.begin(&self.reads, refs.clone(), self.read(refs, cx.backlog.clone())));
        }
        drop(table);

        self.metrics.saved(refs.len() - new.len());
        let place = |reference| match known.get(reference) {
            Some(Place::Joined(flight, place)) => (*flight, *place),
            Some(Place::New(index)) => begun[*index],
            None => (usize::MAX, 0),
        };
        let places = refs.iter().map(place).collect();
        (flights, places)
    }
}

/// A request in flight that reads a batch.
type ReadFlight = Flight<Vec<Result<RemoteSecret, ProviderError>>>;

/// Where the answer for a reference comes from.
enum Place {
    /// From that joined request, at that place of its answer.
    Joined(usize, usize),
    /// From a new request: it is the so-manieth new reference.
    New(usize),
}

#[async_trait]
impl Provider for Coalesce {
    fn capability(&self) -> Capability {
        self.provider.capability()
    }

    fn batches(&self, reference: &RemoteRef) -> bool {
        self.provider.batches(reference)
    }

    async fn fetch(&self, cx: &Context, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        let (flights, places) = self.join(cx, refs);
        let end = cx.deadline.map(Instant::from_std);
        let answers = join_all(flights.into_iter().map(|flight| wait(flight, end))).await;
        places
            .into_iter()
            .map(|(flight, place)| match answers.get(flight) {
                Some(Some(answer)) => answer
                    .get(place)
                    .cloned()
                    .unwrap_or_else(|| Err(panicked(Operation::Read))),
                _ => Err(gave_up(Operation::Read)),
            })
            .collect()
    }

    async fn find(&self, cx: &Context, query: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError> {
        let flight = {
            let mut table = self.searches.lock();
            if let Some((flight, _)) = table.join(query, cx.not_before) {
                self.metrics.saved(1);
                flight
            } else {
                let search = self.search(query.clone(), cx.match_time.clone());
                table.begin(&self.searches, vec![query.clone()], search)
            }
        };
        match wait(flight, cx.deadline.map(Instant::from_std)).await {
            Some(answer) => Result::clone(&answer),
            None => Err(gave_up(Operation::Find)),
        }
    }

    async fn decrypt(&self, cx: &Context, ciphertext: &Ciphertext) -> Result<SecretValue, ProviderError> {
        let flight = {
            let mut table = self.decryptions.lock();
            if let Some((flight, _)) = table.join(ciphertext, None) {
                self.metrics.saved(1);
                flight
            } else {
                let request = self.decryption(ciphertext.clone());
                table.begin(&self.decryptions, vec![ciphertext.clone()], request)
            }
        };
        match wait(flight, cx.deadline.map(Instant::from_std)).await {
            Some(answer) => Result::clone(&answer),
            None => Err(gave_up(Operation::Decrypt)),
        }
    }

    async fn warrant(&self, cx: &Context, request: &LeaseRequest) -> Result<Warrant, ProviderError> {
        self.provider.warrant(cx, request).await
    }

    async fn mint(
        &self,
        cx: &Context,
        warrant: &Warrant,
        request: &LeaseRequest,
    ) -> Result<Minted, ProviderError> {
        self.provider.mint(cx, warrant, request).await
    }

    async fn renew_lease(
        &self,
        cx: &Context,
        lease: &LeaseHandle,
        wanted: Duration,
    ) -> Result<Duration, ProviderError> {
        self.provider.renew_lease(cx, lease, wanted).await
    }

    async fn revoke(&self, cx: &Context, lease: &LeaseHandle) -> Result<(), ProviderError> {
        self.provider.revoke(cx, lease).await
    }

    /// Not joined: a check asks for now.
    async fn check(&self, cx: &Context) -> Result<(), ProviderError> {
        self.provider.check(cx).await
    }

    fn notice(&self) -> Option<Notice> {
        self.provider.notice()
    }
}

/// The requests in flight, by what they ask for.
struct Table<K, A>(Arc<Mutex<Flights<K, A>>>);

impl<K, A> Default for Table<K, A> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Flights {
            next: 0,
            flights: HashMap::new(),
        })))
    }
}

impl<K, A> fmt::Debug for Table<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in flight", self.lock().flights.len())
    }
}

impl<K, A> Table<K, A> {
    fn lock(&self) -> MutexGuard<'_, Flights<K, A>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Flights<K, A> {
    next: u64,
    flights: HashMap<K, Entry<A>>,
}

/// A weak handle, so that the table keeps neither a request nor an answer alive.
struct Entry<A> {
    id: u64,
    began: Instant,
    flight: WeakShared<BoxFuture<'static, Arc<A>>>,
    place: usize,
}

impl<K: Eq + Hash + Clone + Send + 'static, A: Send + Sync + 'static> Flights<K, A> {
    /// The request in flight that asks for `key` and began no earlier than that, and the place of its answer.
    fn join(&self, key: &K, not_before: Option<std::time::Instant>) -> Option<(Flight<A>, usize)> {
        let entry = self.flights.get(key)?;
        if not_before.is_some_and(|not_before| entry.began < Instant::from_std(not_before)) {
            return None;
        }
        Some((entry.flight.upgrade()?, entry.place))
    }

    /// Begins a request that asks for `keys`.
    fn begin(&mut self, table: &Table<K, A>, keys: Vec<K>, request: BoxFuture<'static, A>) -> Flight<A> {
        let id = self.next;
        self.next += 1;
        let leave = Leave {
            table: Arc::downgrade(&table.0),
            keys: keys.clone(),
            id,
        };
        let flight = async move {
            let answer = Arc::new(request.await);
            // Before anybody sees the answer: whoever comes now asks anew.
            drop(leave);
            answer
        }
        .boxed()
        .shared();
        if let Some(weak) = flight.downgrade() {
            let began = Instant::now();
            for (place, key) in keys.into_iter().enumerate() {
                self.flights.insert(
                    key,
                    Entry {
                        id,
                        began,
                        flight: weak.clone(),
                        place,
                    },
                );
            }
        }
        flight
    }
}

/// Takes a request out of the table when it is answered or given up.
struct Leave<K: Eq + Hash, A> {
    table: std::sync::Weak<Mutex<Flights<K, A>>>,
    keys: Vec<K>,
    id: u64,
}

impl<K: Eq + Hash, A> Drop for Leave<K, A> {
    fn drop(&mut self) {
        let Some(table) = self.table.upgrade() else { return };
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &self.keys {
            if table.flights.get(key).is_some_and(|entry| entry.id == self.id) {
                table.flights.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
