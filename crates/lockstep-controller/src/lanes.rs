//! Slots with an order: objects that were never synced go before refreshes.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// Who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Never synced, or asked for by somebody who waits.
    High,
    /// A refresh.
    Low,
}

#[derive(Debug, Default)]
struct Queue {
    free: usize,
    taken: usize,
    high: VecDeque<oneshot::Sender<Permit>>,
    low: VecDeque<oneshot::Sender<Permit>>,
}

/// A number of slots. Those who wait are served in order, those with high priority first.
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

    /// Waits for a slot. Whoever stops waiting loses the place, and nobody loses the slot.
    pub async fn acquire(&self, priority: Priority) -> Permit {
        let waiting = {
            let mut queue = self.lock();
            if queue.free > 0 {
                queue.free -= 1;
                queue.taken += 1;
                return Permit(Some(self.clone()));
            }
            let (sender, receiver) = oneshot::channel();
            match priority {
                Priority::High => queue.high.push_back(sender),
                Priority::Low => queue.low.push_back(sender),
            }
            receiver
        };
        // the sender is dropped only together with the queue, which this handle keeps alive
        waiting.await.unwrap_or(Permit(None))
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        let queue = self.lock();
        queue.high.len() + queue.low.len()
    }

    fn is_idle(&self) -> bool {
        let queue = self.lock();
        queue.taken == 0 && queue.high.is_empty() && queue.low.is_empty()
    }

    fn release(&self) {
        loop {
            let next = {
                let mut queue = self.lock();
                let next = queue.high.pop_front().or_else(|| queue.low.pop_front());
                if next.is_none() {
                    queue.free += 1;
                    queue.taken -= 1;
                }
                next
            };
            let Some(next) = next else { return };
            match next.send(Permit(Some(self.clone()))) {
                Ok(()) => return,
                // who stopped waiting hands the slot back without releasing it a second time
                Err(mut permit) => permit.0 = None,
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
    use std::time::Duration;

    use futures::FutureExt;

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

    #[tokio::test]
    async fn one_lane_does_not_hold_up_another() {
        let lanes = Lanes::new(1);
        let _hung = lanes.lane("a").acquire(Priority::High).await;
        assert!(lanes.lane("a").acquire(Priority::High).now_or_never().is_none());
        assert!(lanes.lane("b").acquire(Priority::Low).now_or_never().is_some());
    }
}
