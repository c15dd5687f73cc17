//! Slots with an order: objects that were never synced go before refreshes, and objects that read the same key go beside
//! each other, so that it is read once for them all.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lockstep_core::schedule::BatchKey;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

/// Who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Never synced, or asked for by somebody who waits.
    High,
    /// A refresh.
    Low,
}

/// How many with high priority go before one with low priority that waits: a namespace whose
/// objects always have high priority must not stop all refreshes.
const HIGH_IN_A_ROW: u32 = 8;

/// How long a lane with room waits for the next one to come, each time one has come: those who come in a burst are then let
/// in by their objects, and not by the order in which they happened to come.
const GATHER: Duration = Duration::from_millis(2);
/// How long anybody waits for that at most.
const GATHER_MAX: Duration = Duration::from_millis(25);

/// Where somebody waits: those at one batch key beside each other, and in the order in which they came.
type Place = (Option<BatchKey>, u64);

/// Those who wait with one priority. They are let in as a lift goes: on from the batch key that was reached last, up to the last one,
/// and then from the first one on. Who comes to a batch key that has been reached waits for the next round, so that nobody waits
/// for longer than one.
#[derive(Debug, Default)]
struct Line {
    waiting: BTreeMap<Place, oneshot::Sender<Permit>>,
    /// Who was let in last.
    reached: Place,
    /// The newest who had come when that batch key was reached.
    newest: u64,
    came: u64,
}

impl Line {
    fn stand(&mut self, batch_key: Option<BatchKey>) -> oneshot::Receiver<Permit> {
        let (sender, receiver) = oneshot::channel();
        self.came += 1;
        self.waiting.insert((batch_key, self.came), sender);
        receiver
    }

    fn pop(&mut self) -> Option<oneshot::Sender<Permit>> {
        let (batch_key, last) = self.reached;
        let here = self
            .waiting
            .range((batch_key, last)..=(batch_key, self.newest.max(last)))
            .next();
        let next = here.or_else(|| self.waiting.range((batch_key, u64::MAX)..).next());
        let place = *next.or_else(|| self.waiting.first_key_value())?.0;
        if next.is_none() || place.0 != batch_key {
            self.newest = self.came;
        }
        self.reached = place;
        self.waiting.remove(&place)
    }
}

#[derive(Debug, Default)]
struct Queue {
    free: usize,
    taken: usize,
    high: Line,
    low: Line,
    /// How many with high priority were let in since the last with low priority.
    in_a_row: u32,
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
        let low_is_due = self.in_a_row >= HIGH_IN_A_ROW && !self.low.waiting.is_empty();
        if !low_is_due && let Some(next) = self.high.pop() {
            self.in_a_row = self.in_a_row.saturating_add(1);
            return Some(next);
        }
        self.in_a_row = 0;
        self.low.pop()
    }

    fn waiting(&self) -> usize {
        self.high.waiting.len() + self.low.waiting.len()
    }
}

/// A number of slots. Those with high priority are served first, up to [`HIGH_IN_A_ROW`].
#[derive(Debug, Clone)]
pub struct Slots(Arc<Mutex<Queue>>);

/// A taken slot; it is free again when this is dropped.
#[derive(Debug)]
pub struct Permit(Option<Slots>);

impl Slots {
    /// That many slots.
    pub fn new(count: usize) -> Self {
        Self(Arc::new(Mutex::new(Queue {
            free: count.max(1),
            ..Queue::default()
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a slot, in the order of who came. Whoever stops waiting loses the place, and nobody loses the slot.
    pub async fn acquire(&self, priority: Priority) -> Permit {
        let waiting = {
            let mut queue = self.lock();
            if queue.free > 0 {
                queue.free -= 1;
                queue.taken += 1;
                return Permit(Some(self.clone()));
            }
            queue.line(priority).stand(None)
        };
        // the sender is dropped only together with the queue, which this handle keeps alive
        waiting.await.unwrap_or(Permit(None))
    }

    /// Waits for a slot beside those of the same batch key. Also where there is room it takes [`GATHER`], so that a burst is
    /// sorted before it is let in.
    pub async fn acquire_beside(&self, priority: Priority, batch_key: BatchKey) -> Permit {
        let began = Instant::now();
        let (mut waiting, room) = {
            let mut queue = self.lock();
            queue.last = Some(began);
            let waiting = queue.line(priority).stand(Some(batch_key));
            (waiting, queue.free > 0)
        };
        if room {
            tokio::select! {
                biased;
                permit = &mut waiting => return permit.unwrap_or(Permit(None)),
                () = self.quiet(began) => self.let_in(),
            }
        }
        waiting.await.unwrap_or(Permit(None))
    }

    /// Waits until nobody came for [`GATHER`], but no longer than [`GATHER_MAX`].
    async fn quiet(&self, began: Instant) {
        let mut until = began + GATHER;
        while until > Instant::now() {
            sleep_until(until).await;
            let last = self.lock().last.unwrap_or(began);
            until = (last + GATHER).min(began + GATHER_MAX);
        }
    }

    /// Fills the free slots.
    fn let_in(&self) {
        loop {
            let next = {
                let mut queue = self.lock();
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

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.lock().waiting()
    }

    /// Whether somebody waits because every slot is taken.
    pub fn is_full(&self) -> bool {
        let queue = self.lock();
        queue.free == 0 && queue.waiting() > 0
    }

    fn is_idle(&self) -> bool {
        let queue = self.lock();
        queue.taken == 0 && queue.waiting() == 0
    }

    /// Gives a slot to who waits there; `false` where nobody does any more, and the slot is still to be given.
    fn give(&self, to: oneshot::Sender<Permit>) -> bool {
        match to.send(Permit(Some(self.clone()))) {
            Ok(()) => true,
            Err(mut permit) => {
                // who stopped waiting hands the slot back without releasing it a second time
                permit.0 = None;
                false
            }
        }
    }

    fn release(&self) {
        loop {
            let next = {
                let mut queue = self.lock();
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

/// Slots by name: one lane for each set of stores, so that a store that hangs holds up only those who need it.
#[derive(Debug)]
pub struct Lanes<K> {
    slots: usize,
    lanes: Mutex<HashMap<K, Slots>>,
}

impl<K: Hash + Eq> Lanes<K> {
    /// Lanes of that many slots each.
    pub fn new(slots: usize) -> Self {
        Self {
            slots,
            lanes: Mutex::new(HashMap::new()),
        }
    }

    /// The lane of that name. Lanes that nobody uses are forgotten on the way.
    pub fn lane(&self, key: K) -> Slots {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.len() >= 64 && !lanes.contains_key(&key) {
            lanes.retain(|_, slots| !slots.is_idle());
        }
        lanes.entry(key).or_insert_with(|| Slots::new(self.slots)).clone()
    }

    /// How many wait, in all lanes.
    pub fn waiting(&self) -> usize {
        self.lanes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .map(Slots::waiting)
            .sum()
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
                order.lock().unwrap().push(name);
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
        assert_eq!(*order.lock().unwrap(), ["high-1", "low-1", "low-2"]);
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
    async fn who_comes_in_a_burst_is_let_in_by_seats_and_who_comes_alone_soon() {
        let slots = Slots::new(2);
        let order = Arc::new(Mutex::new(Vec::new()));
        let enter = |key: &'static str| {
            let (slots, order) = (slots.clone(), order.clone());
            async move {
                let _permit = slots.acquire_beside(Priority::High, BatchKey::of_key(key)).await;
                order.lock().unwrap().push(key);
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
        order.lock().unwrap().clear();
        let burst = ["a", "b", "c", "d"].repeat(5);
        futures::future::join_all(burst.into_iter().map(enter)).await;
        let mut order = order.lock().unwrap().clone();
        assert_eq!(order.len(), 20);
        order.dedup();
        assert!(order.len() <= 5, "{order:?}");
        assert!(slots.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn a_seat_that_is_always_taken_again_does_not_keep_others_out() {
        let slots = Slots::new(1);
        let held = slots.acquire(Priority::Low).await;
        let wait = |key: &str| {
            let (slots, batch_key) = (slots.clone(), BatchKey::of_key(key));
            async move { (batch_key, slots.acquire_beside(Priority::Low, batch_key).await) }
        };
        let mut all: FuturesUnordered<_> = ["a", "b", "c"].into_iter().map(wait).collect();
        assert!(all.next().now_or_never().is_none(), "there is no slot");
        drop(held);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let (batch_key, permit) = all.next().await.unwrap();
            seen.insert(batch_key);
            // whoever had a slot, "a" wants another one before it is free again
            all.push(wait("a"));
            assert!(all.next().now_or_never().is_none());
            drop(permit);
        }
        assert_eq!(seen.len(), 3);
    }

    #[tokio::test]
    async fn one_lane_does_not_hold_up_another() {
        let lanes = Lanes::new(1);
        let _hung = lanes.lane("a").acquire(Priority::High).await;
        assert!(lanes.lane("a").acquire(Priority::High).now_or_never().is_none());
        assert!(lanes.lane("b").acquire(Priority::Low).now_or_never().is_some());
    }
}
