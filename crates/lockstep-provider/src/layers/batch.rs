use std::{
    fmt,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, WeakShared, join_all},
    join,
};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{Flight, checked, deadline, for_each, gave_up, panicked, wait};
use crate::{
    Backlog, Context, Operation, Provider, RemoteRef,
    call::{Answers, Service},
    metrics::StoreMetrics,
};

/// How long a batch waits for the next reference after each one. This is a tenth of the latency of
/// a nearby backend, so a single request is not noticeably slower.
pub const BATCH_WAIT: Duration = Duration::from_millis(2);
/// Like [`BATCH_WAIT`], if a request to this store ended less than [`LATELY`] ago: more references
/// are then likely to follow.
pub const BATCH_WAIT_BUSY: Duration = Duration::from_millis(25);
/// See [`BATCH_WAIT_BUSY`].
const LATELY: Duration = Duration::from_millis(200);
/// Maximum time from the first reference of a batch until it is sent. While references keep
/// arriving, or the store is busy with other requests, a fuller batch saves more time than it
/// costs.
pub const BATCH_WAIT_MAX: Duration = Duration::from_millis(100);

/// Like [`BATCH_WAIT_MAX`], while other requests to this store wait in a queue. They are admitted
/// as earlier ones end, so they wait anyway.
pub const BATCH_WAIT_BACKLOG: Duration = Duration::from_millis(400);

/// Combines references that arrive together into one request, for providers with batches. A batch
/// is sent
///
/// - when it is full;
/// - when no request to this store is in flight and no reference arrived for [`BATCH_WAIT`] (or
///   [`BATCH_WAIT_BUSY`]);
/// - [`BATCH_WAIT_MAX`] after its first reference. While there is a backlog ([`Context::backlog`]),
///   after [`BATCH_WAIT_BACKLOG`] instead of this and the previous one.
///
/// Each reference has its own result, so a failure affects only its own reference. An unbatchable
/// reference ([`Provider::batches`]) is passed on immediately. For a provider without batches this
/// layer does nothing.
///
/// A batch belongs to all requests that wait for it. If one of them is cancelled, the batch goes on
/// for the others. If all are cancelled, the batch ends.
#[derive(Debug)]
pub struct Batch<S> {
    inner: Arc<S>,
    metrics: StoreMetrics,
    longest: Duration,
    open: Mutex<Option<Open>>,
    under_way: Arc<UnderWay>,
}

/// Batches that were sent and have no response yet.
#[derive(Debug, Default)]
struct UnderWay {
    count: AtomicUsize,
    /// Notifies when a batch ends.
    ended: Notify,
    /// When the last batch ended.
    last_end: Mutex<Option<Instant>>,
}

impl UnderWay {
    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Returns for how long no reference must arrive before a batch is sent.
    fn quiet(&self) -> Duration {
        let lately = self.last_end.lock().is_some_and(|end| end.elapsed() < LATELY);
        if lately { BATCH_WAIT_BUSY } else { BATCH_WAIT }
    }
}

/// A batch that was sent. Dropping it marks the batch as ended.
struct Left(Arc<UnderWay>);

impl Left {
    fn new(under_way: &Arc<UnderWay>) -> Self {
        under_way.count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(under_way))
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        *self.0.last_end.lock() = Some(Instant::now());
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.ended.notify_one();
    }
}

type Answer = Answers<RemoteRef>;

/// The batch that still accepts references.
struct Open {
    /// Weak, so that a batch without callers is not sent.
    flight: WeakShared<BoxFuture<'static, Arc<Answer>>>,
    gathering: Arc<Gathering>,
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.gathering)
    }
}

/// The references of a batch; `None` once it was sent.
struct Gathering {
    refs: Mutex<Option<Vec<RemoteRef>>>,
    /// Notifies when another reference arrives.
    more: Notify,
    full: Notify,
    /// The backlog of the last reference.
    backlog: Mutex<Backlog>,
}

impl Gathering {
    /// Waits until the batch must be sent.
    async fn wait(&self, begun: Instant, under_way: &UnderWay) {
        let mut last = begun;
        loop {
            let (now, latest) = (Instant::now(), begun + BATCH_WAIT_MAX);
            let held = now < begun + BATCH_WAIT_BACKLOG && self.backlog.lock().waits();
            let until = if held {
                // nothing reports when the queue becomes empty: its last requests may have joined a
                // key in flight
                (begun + BATCH_WAIT_BACKLOG).min(now + BATCH_WAIT_BUSY)
            } else if under_way.is_empty() {
                latest.min(last + under_way.quiet())
            } else {
                latest
            };
            tokio::select! {
                biased;
                () = self.full.notified() => return,
                () = self.more.notified() => last = Instant::now(),
                () = under_way.ended.notified() => {}
                () = sleep_until(until) => if !held { return },
            }
        }
    }
}

impl fmt::Debug for Gathering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} gathered", self.refs.lock().as_ref().map_or(0, Vec::len))
    }
}

impl<S: Service<RemoteRef> + 'static> Batch<S> {
    /// Batches references for `inner`, which belongs to one store identity. A request takes at most
    /// `longest`.
    pub fn new(inner: Arc<S>, metrics: StoreMetrics, longest: Duration) -> Self {
        Self {
            inner,
            metrics,
            longest,
            open: Mutex::default(),
            under_way: Arc::default(),
        }
    }

    /// Reads batchable references, together with those of other callers.
    async fn gather(&self, cx: &Context, refs: &[RemoteRef], size: usize) -> Answer {
        let (flights, positions) = self.assign(cx, refs, size);
        let end = cx.deadline.map(Instant::from_std);
        let answers = join_all(flights.into_iter().map(|flight| wait(flight, end))).await;
        let answer = |(flight, position): (usize, usize)| match answers.get(flight) {
            Some(Some(answer)) => answer
                .get(position)
                .cloned()
                .unwrap_or_else(|| Err(panicked(Operation::Read))),
            _ => Err(gave_up(Operation::Read)),
        };
        positions.into_iter().map(answer).collect()
    }

    /// Assigns each reference to a batch. Returns the flights, and for each reference its flight
    /// and the position of its result there.
    fn assign(
        &self,
        cx: &Context,
        refs: &[RemoteRef],
        size: usize,
    ) -> (Vec<Flight<Answer>>, Vec<(usize, usize)>) {
        let mut flights = Vec::new();
        let mut positions = Vec::with_capacity(refs.len());
        let mut open = self.open.lock();
        // the batch of the previous references, which is filled further
        let mut last: Option<Arc<Gathering>> = None;
        for reference in refs {
            let (flight, gathering, position) = Self::put(&mut open, reference, size, &cx.backlog)
                .unwrap_or_else(|| {
                    let (flight, gathering) = self.begin(reference.clone(), cx.backlog.clone());
                    *open = flight.downgrade().map(|flight| Open {
                        flight,
                        gathering: Arc::clone(&gathering),
                    });
                    (flight, gathering, 0)
                });
            if !last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &gathering)) {
                flights.push(flight);
            }
            positions.push((flights.len() - 1, position));
            last = Some(gathering);
        }
        (flights, positions)
    }

    /// Adds a reference to the open batch, or starts a new one.
    fn put(
        open: &mut Option<Open>,
        reference: &RemoteRef,
        size: usize,
        backlog: &Backlog,
    ) -> Option<(Flight<Answer>, Arc<Gathering>, usize)> {
        let Open { flight, gathering } = open.as_ref()?;
        let (flight, gathering) = (flight.upgrade()?, Arc::clone(gathering));
        let position = {
            let mut refs = gathering.refs.lock();
            let refs = refs.as_mut()?;
            refs.push(reference.clone());
            refs.len() - 1
        };
        if position + 1 >= size {
            gathering.full.notify_one();
            *open = None;
        } else {
            *gathering.backlog.lock() = backlog.clone();
            gathering.more.notify_one();
        }
        Some((flight, gathering, position))
    }

    /// Starts a batch with one reference.
    fn begin(&self, first: RemoteRef, backlog: Backlog) -> (Flight<Answer>, Arc<Gathering>) {
        let gathering = Arc::new(Gathering {
            refs: Mutex::new(Some(vec![first])),
            more: Notify::new(),
            full: Notify::new(),
            backlog: Mutex::new(backlog),
        });
        let (inner, metrics, longest) = (Arc::clone(&self.inner), self.metrics.clone(), self.longest);
        let under_way = Arc::clone(&self.under_way);
        let (own, begun) = (Arc::clone(&gathering), Instant::now());
        let flight = async move {
            own.wait(begun, &under_way).await;
            let _left = Left::new(&under_way);
            let refs = own.refs.lock().take().unwrap_or_default();
            metrics.batch(refs.len());
            let cx = Context {
                deadline: Some(deadline(&Context::default(), longest).into_std()),
                queued_since: Some(begun.into_std()),
                ..Context::default()
            };
            let results = AssertUnwindSafe(inner.call(&cx, &refs)).catch_unwind().await;
            Arc::new(match results {
                Ok(results) => checked(&refs, results),
                Err(_) => for_each(refs.len(), &panicked(Operation::Read)),
            })
        };
        (flight.boxed().shared(), gathering)
    }
}

impl<S: Service<RemoteRef> + 'static> Service<RemoteRef> for Batch<S> {
    fn provider(&self) -> &dyn Provider {
        self.inner.provider()
    }

    async fn call(&self, cx: &Context, refs: &[RemoteRef]) -> Answer {
        let provider = self.inner.provider();
        let size = provider.capability().batch;
        let shared: Vec<bool> = refs
            .iter()
            .map(|reference| size > 1 && provider.batches(reference))
            .collect();
        if !shared.contains(&true) {
            return self.inner.call(cx, refs).await;
        }
        let those = |which: bool| {
            let refs = refs.iter().zip(&shared);
            let those = refs.filter(|(_, shared)| **shared == which);
            those.map(|(reference, _)| reference.clone()).collect::<Vec<_>>()
        };
        let (together, unbatchable) = (those(true), those(false));
        if unbatchable.is_empty() {
            return self.gather(cx, refs, size).await;
        }
        // the limit layer sends each of them in its own request
        let (together, answers) = join!(
            self.gather(cx, &together, size),
            self.inner.call(cx, &unbatchable)
        );
        let answers = checked(&unbatchable, answers);
        let (mut together, mut unbatchable) = (together.into_iter(), answers.into_iter());
        let next = |shared| {
            if shared {
                together.next()
            } else {
                unbatchable.next()
            }
        };
        shared.into_iter().map_while(next).collect()
    }
}

#[cfg(test)]
mod tests;
