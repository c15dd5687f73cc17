use std::{collections::HashMap, fmt, hash::Hash, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{
    FutureExt as _,
    future::{BoxFuture, WeakShared, join_all},
};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Flight, checked, deadline, for_each, gave_up, panicked, requests, wait};
use crate::{
    Context, Provider,
    call::{Answers, Request, Service},
    metrics::StoreMetrics,
};

/// Sends a request once for all callers that want its result at the same time. Errors are shared
/// like values.
///
/// Nothing is cached: a request leaves the table when it completes, and its result lives only as
/// long as the callers that waited for it. A request is cancelled when its last caller goes away;
/// until then, any of its callers drives it. Each caller waits up to its own deadline. A caller
/// that knows of a change ([`Context::not_before`]) does not join a request that may have been
/// answered before the change: it sends a new one, which later callers join.
#[derive(Debug)]
pub struct Coalesce<R: Request, S> {
    inner: Arc<S>,
    metrics: StoreMetrics,
    longest: Duration,
    table: Table<R, Answers<R>>,
}

impl<R: Request + Eq + Hash, S: Service<R> + 'static> Coalesce<R, S> {
    /// Joins requests to `inner`, which belongs to one store identity. A joined request takes at
    /// most `longest`.
    pub fn new(inner: Arc<S>, metrics: StoreMetrics, longest: Duration) -> Self {
        Self {
            inner,
            metrics,
            longest,
            table: Table::default(),
        }
    }

    /// The future that sends `requests`: one batch, or one unbatchable request. It uses the backlog and the match time of the `first`
    /// caller.
    fn send(&self, requests: Vec<R>, first: &Context) -> BoxFuture<'static, Answers<R>> {
        let inner = Arc::clone(&self.inner);
        // A joined request serves callers with different deadlines, so it has a deadline of its
        // own.
        let cx = Context {
            deadline: Some(deadline(&Context::default(), self.longest).into_std()),
            backlog: first.backlog.clone(),
            match_time: first.match_time.clone(),
            ..Context::default()
        };
        async move {
            match AssertUnwindSafe(inner.call(&cx, &requests)).catch_unwind().await {
                Ok(answers) => checked(&requests, answers),
                Err(_) => for_each(requests.len(), &panicked(R::OPERATION)),
            }
        }
        .boxed()
    }

    /// Joins the requests in flight. Starts a request for each batch of the rest and for each
    /// unbatchable request. Returns the flights, and for each request its flight and the position
    /// of its result there.
    fn join(&self, cx: &Context, all: &[R]) -> Joined<R> {
        let (mut flights, mut new) = (Vec::new(), Vec::new());
        let mut known: HashMap<&R, Source> = HashMap::new();

        let mut table = self.table.0.lock();
        for request in all {
            known.entry(request).or_insert_with(|| {
                if let Some((flight, position)) = table.join(request, cx.not_before) {
                    flights.push(flight);
                    Source::Joined(flights.len() - 1, position)
                } else {
                    new.push(request.clone());
                    Source::New(new.len() - 1)
                }
            });
        }
        let mut begun = vec![(usize::MAX, 0); new.len()];
        for positions in requests(self.inner.provider(), &new) {
            let some: Vec<R> = positions.iter().map(|position| new[*position].clone()).collect();
            for (answer, position) in positions.into_iter().enumerate() {
                begun[position] = (flights.len(), answer);
            }
            let flight = self.send(some.clone(), cx);
            flights.push(table.start_flight(&self.table, some, flight));
        }
        drop(table);

        self.metrics.saved(all.len() - new.len());
        let position = |request| match known.get(request) {
            Some(Source::Joined(flight, position)) => (*flight, *position),
            Some(Source::New(index)) => begun[*index],
            None => (usize::MAX, 0),
        };
        let positions = all.iter().map(position).collect();
        (flights, positions)
    }
}

/// Flights, and for each request its flight and the position of its result there.
type Joined<R> = (Vec<Flight<Answers<R>>>, Vec<(usize, usize)>);

/// The source of the result of a request.
enum Source {
    /// An existing flight, and the position in its results.
    Joined(usize, usize),
    /// A new flight, and the request's position among the new ones.
    New(usize),
}

impl<R: Request + Eq + Hash, S: Service<R> + 'static> Service<R> for Coalesce<R, S> {
    fn provider(&self) -> &dyn Provider {
        self.inner.provider()
    }

    async fn call(&self, cx: &Context, requests: &[R]) -> Answers<R> {
        let (flights, positions) = self.join(cx, requests);
        let end = cx.deadline.map(Instant::from_std);
        let answers = join_all(flights.into_iter().map(|flight| wait(flight, end))).await;
        let answer = |(flight, position): (usize, usize)| match answers.get(flight) {
            Some(Some(answers)) => answers
                .get(position)
                .cloned()
                .unwrap_or_else(|| Err(panicked(R::OPERATION))),
            _ => Err(gave_up(R::OPERATION)),
        };
        positions.into_iter().map(answer).collect()
    }
}

/// The requests in flight, by their key.
struct Table<K, A>(Arc<Mutex<Flights<K, A>>>);

impl<K, A> Default for Table<K, A> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Flights {
            next_id: 0,
            flights: HashMap::new(),
        })))
    }
}

impl<K, A> fmt::Debug for Table<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in flight", self.0.lock().flights.len())
    }
}

impl<K, A> Table<K, A> {}

struct Flights<K, A> {
    next_id: u64,
    flights: HashMap<K, Entry<A>>,
}

/// A weak handle, so that the table keeps neither a request nor a result alive.
struct Entry<A> {
    id: u64,
    began: Instant,
    flight: WeakShared<BoxFuture<'static, Arc<A>>>,
    position: usize,
}

impl<K: Eq + Hash + Clone + Send + 'static, A: Send + Sync + 'static> Flights<K, A> {
    /// Returns the flight for `key` that began at `not_before` or later, and the position of the
    /// result.
    fn join(&self, key: &K, not_before: Option<std::time::Instant>) -> Option<(Flight<A>, usize)> {
        let entry = self.flights.get(key)?;
        if not_before.is_some_and(|not_before| entry.began < Instant::from_std(not_before)) {
            return None;
        }
        Some((entry.flight.upgrade()?, entry.position))
    }

    /// Starts a request for `keys`.
    fn start_flight(
        &mut self,
        table: &Table<K, A>,
        keys: Vec<K>,
        request: BoxFuture<'static, A>,
    ) -> Flight<A> {
        let id = self.next_id;
        self.next_id += 1;
        let guard = RemoveOnDrop {
            table: Arc::downgrade(&table.0),
            keys: keys.clone(),
            id,
        };
        let flight = async move {
            let answer = Arc::new(request.await);
            // Remove the entries before the result is visible, so that later callers send a new request.
            drop(guard);
            answer
        }
        .boxed()
        .shared();
        if let Some(weak) = flight.downgrade() {
            let began = Instant::now();
            for (position, key) in keys.into_iter().enumerate() {
                self.flights.insert(
                    key,
                    Entry {
                        id,
                        began,
                        flight: weak.clone(),
                        position,
                    },
                );
            }
        }
        flight
    }
}

/// Removes a request from the table when it completes or is cancelled.
struct RemoveOnDrop<K: Eq + Hash, A> {
    table: std::sync::Weak<Mutex<Flights<K, A>>>,
    keys: Vec<K>,
    id: u64,
}

impl<K: Eq + Hash, A> Drop for RemoveOnDrop<K, A> {
    fn drop(&mut self) {
        let Some(table) = self.table.upgrade() else { return };
        let mut table = table.lock();
        for key in &self.keys {
            if table.flights.get(key).is_some_and(|entry| entry.id == self.id) {
                table.flights.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
