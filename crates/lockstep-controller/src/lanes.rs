//! Ordered slots. Objects that were never synced go before refreshes. Objects that read the same
//! key are adjacent, so that one read serves them all.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use lockstep_core::schedule::BatchKey;
use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

/// The order in which waiters are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Never synced, or requested by a user who waits.
    High,
    /// A refresh.
    Low,
}

/// Number of waiters with high priority that are served in a row while one with low priority waits.
/// A namespace whose objects always have high priority must not stop all refreshes.
const HIGH_IN_A_ROW: u32 = 8;

/// Time without an arrival after which a burst is over. A lane with free slots waits for it, so that
/// waiters of a burst are served by batch key and not in order of arrival.
const GATHER: Duration = Duration::from_millis(2);
/// Maximum time that an arrival waits for the end of a burst.
const GATHER_MAX: Duration = Duration::from_millis(25);

/// The position of a waiter: by batch key, then by arrival.
type Position = (Option<BatchKey>, u64);

/// The waiters of one priority. They are served like by an elevator: in order from the batch key
/// that was reached last, then again from the first one. A waiter whose batch key was already
/// reached waits for the next cycle, so that no one waits longer than one cycle.
#[derive(Debug, Default)]
struct Line {
    waiting: BTreeMap<Position, oneshot::Sender<Permit>>,
    /// The position that was served last.
    reached: Position,
    /// The newest arrival at the time when that batch key was reached.
    newest: u64,
    /// Number of arrivals so far.
    arrivals: u64,
}

impl Line {
    fn enqueue(&mut self, batch_key: Option<BatchKey>) -> oneshot::Receiver<Permit> {
        let (sender, receiver) = oneshot::channel();
        self.arrivals += 1;
        self.waiting.insert((batch_key, self.arrivals), sender);
        receiver
    }

    fn pop(&mut self) -> Option<oneshot::Sender<Permit>> {
        let (batch_key, last) = self.reached;
        let here = self
            .waiting
            .range((batch_key, last)..=(batch_key, self.newest.max(last)))
            .next();
        let next = here.or_else(|| self.waiting.range((batch_key, u64::MAX)..).next());
        let position = *next.or_else(|| self.waiting.first_key_value())?.0;
        if next.is_none() || position.0 != batch_key {
            self.newest = self.arrivals;
        }
        self.reached = position;
        self.waiting.remove(&position)
    }
}

#[derive(Debug, Default)]
struct Queue {
    free: usize,
    taken: usize,
    high: Line,
    low: Line,
    /// Number of waiters with high priority that were served since the last one with low priority.
    high_in_a_row: u32,
    last: Option<Instant>,
}

impl Queue {
    fn line(&mut self, priority: Priority) -> &mut Line {
        match priority {
            Priority::High => &mut self.high,
            Priority::Low => &mut self.low,
        }
    }

    fn pop(&mut self) -> Option<oneshot::Sender<Permit>> {
        let low_is_due = self.high_in_a_row >= HIGH_IN_A_ROW && !self.low.waiting.is_empty();
        if !low_is_due && let Some(next) = self.high.pop() {
            self.high_in_a_row = self.high_in_a_row.saturating_add(1);
            return Some(next);
        }
        self.high_in_a_row = 0;
        self.low.pop()
    }

    fn waiting(&self) -> usize {
        self.high.waiting.len() + self.low.waiting.len()
    }
}

/// A fixed number of slots. Waiters with high priority are served first.
#[derive(Debug, Clone)]
pub struct Slots(Arc<Mutex<Queue>>);

/// A slot that is taken. Dropping it frees the slot.
#[derive(Debug)]
pub struct Permit(Option<Slots>);

impl Slots {
    /// Creates `count` slots.
    pub fn new(count: usize) -> Self {
        Self(Arc::new(Mutex::new(Queue {
            free: count.max(1),
            ..Queue::default()
        })))
    }

    /// Waits for a slot in order of arrival. A waiter that is dropped loses its position, and its
    /// slot goes to the next one.
    pub async fn acquire(&self, priority: Priority) -> Permit {
        let waiting = {
            let mut queue = self.0.lock();
            if queue.free > 0 {
                queue.free -= 1;
                queue.taken += 1;
                return Permit(Some(self.clone()));
            }
            queue.line(priority).enqueue(None)
        };
        // The sender is dropped only together with the queue, which this handle keeps alive.
        waiting.await.unwrap_or(Permit(None))
    }

    /// Waits for a slot next to the waiters of the same batch key. Even with free slots it takes
    /// [`GATHER`], so that a burst is sorted first.
    pub async fn acquire_batched(&self, priority: Priority, batch_key: BatchKey) -> Permit {
        let began = Instant::now();
        let (mut waiting, has_free_slot) = {
            let mut queue = self.0.lock();
            queue.last = Some(began);
            let waiting = queue.line(priority).enqueue(Some(batch_key));
            (waiting, queue.free > 0)
        };
        if has_free_slot {
            tokio::select! {
                biased;
                permit = &mut waiting => return permit.unwrap_or(Permit(None)),
                () = self.wait_for_quiet(began) => self.serve_waiters(),
            }
        }
        waiting.await.unwrap_or(Permit(None))
    }

    /// Waits until there was no arrival for [`GATHER`], but at most [`GATHER_MAX`].
    async fn wait_for_quiet(&self, began: Instant) {
        let mut until = began + GATHER;
        while until > Instant::now() {
            sleep_until(until).await;
            let last = self.0.lock().last.unwrap_or(began);
            until = (last + GATHER).min(began + GATHER_MAX);
        }
    }

    /// Hands out the free slots.
    fn serve_waiters(&self) {
        loop {
            let next = {
                let mut queue = self.0.lock();
                if queue.free == 0 {
                    return;
                }
                let Some(next) = queue.pop() else { return };
                queue.free -= 1;
                queue.taken += 1;
                next
            };
            if !self.give(next) {
                self.release();
            }
        }
    }

    /// Returns the number of waiters.
    pub fn waiting(&self) -> usize {
        self.0.lock().waiting()
    }

    /// Whether there are waiters because every slot is taken.
    pub fn is_full(&self) -> bool {
        let queue = self.0.lock();
        queue.free == 0 && queue.waiting() > 0
    }

    fn is_idle(&self) -> bool {
        let queue = self.0.lock();
        queue.taken == 0 && queue.waiting() == 0
    }

    /// Hands a slot to a waiter. Returns `false` if the waiter is gone and the slot is still free.
    fn give(&self, to: oneshot::Sender<Permit>) -> bool {
        match to.send(Permit(Some(self.clone()))) {
            Ok(()) => true,
            Err(mut permit) => {
                // The waiter is gone: take the slot back without releasing it twice.
                permit.0 = None;
                false
            }
        }
    }

    fn release(&self) {
        loop {
            let next = {
                let mut queue = self.0.lock();
                let next = queue.pop();
                if next.is_none() {
                    queue.free += 1;
                    queue.taken -= 1;
                }
                next
            };
            let Some(next) = next else { return };
            if self.give(next) {
                return;
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(slots) = self.0.take() {
            slots.release();
        }
    }
}

/// Named slots: one lane for each set of stores, so that a store that hangs blocks only the objects
/// that need it.
#[derive(Debug)]
pub struct Lanes<K> {
    slots: usize,
    lanes: Mutex<HashMap<K, Slots>>,
}

impl<K: Hash + Eq> Lanes<K> {
    /// Creates lanes of `slots` slots each.
    pub fn new(slots: usize) -> Self {
        Self {
            slots,
            lanes: Mutex::new(HashMap::new()),
        }
    }

    /// Returns the lane with this name, and removes unused lanes.
    pub fn lane(&self, key: K) -> Slots {
        let mut lanes = self.lanes.lock();
        if lanes.len() >= 64 && !lanes.contains_key(&key) {
            lanes.retain(|_, slots| !slots.is_idle());
        }
        lanes.entry(key).or_insert_with(|| Slots::new(self.slots)).clone()
    }

    /// Returns the number of waiters in all lanes.
    pub fn waiting(&self) -> usize {
        self.lanes.lock().values().map(Slots::waiting).sum()
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt, stream::FuturesUnordered};

    use super::*;

    #[tokio::test]
    async fn high_priority_goes_first_and_the_rest_in_order() {
        let slots = Slots::new(1);
        let first = slots.acquire(Priority::Low).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let enter = |name: &'static str, priority| {
            let (slots, order) = (slots.clone(), order.clone());
            async move {
                let _permit = slots.acquire(priority).await;
                order.lock().push(name);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let all = futures::future::join4(
            enter("low-1", Priority::Low),
            enter("low-2", Priority::Low),
            enter("high-1", Priority::High),
            async {
                tokio::task::yield_now().await;
                drop(first);
            },
        );
        all.await;
        assert_eq!(*order.lock(), ["high-1", "low-1", "low-2"]);
    }

    #[tokio::test]
    async fn low_priority_goes_after_a_few_with_high_priority() {
        let slots = Slots::new(1);
        let mut held = slots.acquire(Priority::High).await;
        let mut low = Box::pin(slots.acquire(Priority::Low));
        assert!(low.as_mut().now_or_never().is_none());
        let mut before = 0;
        loop {
            let mut next = Box::pin(slots.acquire(Priority::High));
            assert!(next.as_mut().now_or_never().is_none());
            drop(held);
            if low.as_mut().now_or_never().is_some() {
                break;
            }
            held = next.await;
            before += 1;
            assert!(before <= HIGH_IN_A_ROW, "it waits for ever");
        }
        assert_eq!(before, HIGH_IN_A_ROW);
    }

    #[tokio::test]
    async fn who_stops_waiting_does_not_take_the_slot_along() {
        let slots = Slots::new(1);
        let held = slots.acquire(Priority::High).await;
        {
            let waiting = slots.acquire(Priority::High);
            tokio::pin!(waiting);
            assert!(waiting.as_mut().now_or_never().is_none());
            assert_eq!(slots.waiting(), 1);
        }
        drop(held);
        assert!(slots.acquire(Priority::Low).now_or_never().is_some());
        assert!(slots.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn burst_is_served_by_batch_key_and_single_arrival_soon() {
        let slots = Slots::new(2);
        let order = Arc::new(Mutex::new(Vec::new()));
        let enter = |key: &'static str| {
            let (slots, order) = (slots.clone(), order.clone());
            async move {
                let _permit = slots.acquire_batched(Priority::High, BatchKey::of_key(key)).await;
                order.lock().push(key);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let began = Instant::now();
        enter("a").await;
        assert!(
            began.elapsed() < Duration::from_millis(20),
            "{:?}",
            began.elapsed()
        );
        order.lock().clear();
        let burst = ["a", "b", "c", "d"].repeat(5);
        futures::future::join_all(burst.into_iter().map(enter)).await;
        let mut order = order.lock().clone();
        assert_eq!(order.len(), 20);
        order.dedup();
        assert!(order.len() <= 5, "{order:?}");
        assert!(slots.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn busy_batch_key_does_not_starve_others() {
        let slots = Slots::new(1);
        let held = slots.acquire(Priority::Low).await;
        let wait = |key: &str| {
            let (slots, batch_key) = (slots.clone(), BatchKey::of_key(key));
            async move { (batch_key, slots.acquire_batched(Priority::Low, batch_key).await) }
        };
        let mut all: FuturesUnordered<_> = ["a", "b", "c"].into_iter().map(wait).collect();
        assert!(all.next().now_or_never().is_none(), "there is no slot");
        drop(held);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let (batch_key, permit) = all.next().await.unwrap();
            seen.insert(batch_key);
            // Before any slot is free again, "a" queues again.
            all.push(wait("a"));
            assert!(all.next().now_or_never().is_none());
            drop(permit);
        }
        assert_eq!(seen.len(), 3);
    }

    #[tokio::test]
    async fn one_lane_does_not_block_another() {
        let lanes = Lanes::new(1);
        let _hung = lanes.lane("a").acquire(Priority::High).await;
        assert!(lanes.lane("a").acquire(Priority::High).now_or_never().is_none());
        assert!(lanes.lane("b").acquire(Priority::Low).now_or_never().is_some());
    }
}
