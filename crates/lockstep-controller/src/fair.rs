//! Slots that namespaces take in turn, so that no namespace waits for all the work of another.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// A fixed number of slots, shared fairly between namespaces.
#[derive(Debug, Clone)]
pub struct FairSlots(Arc<Mutex<Queue>>);

#[derive(Debug)]
struct Queue {
    free: usize,
    /// Maximum number of slots of one namespace.
    most: usize,
    taken: BTreeMap<String, usize>,
    waiting: BTreeMap<String, VecDeque<oneshot::Sender<FairSlot>>>,
    /// The namespace that was served last.
    last: String,
}

/// A slot that is taken. Dropping it frees the slot.
#[derive(Debug)]
pub struct FairSlot(Option<(FairSlots, String)>);

impl Queue {
    fn has_share(&self, namespace: &str) -> bool {
        self.free > 0 && self.taken.get(namespace).is_none_or(|taken| *taken < self.most)
    }

    fn take(&mut self, namespace: &str) {
        self.free -= 1;
        namespace.clone_into(&mut self.last);
        *self.taken.entry(namespace.to_owned()).or_default() += 1;
    }

    fn release(&mut self, namespace: &str) {
        self.free += 1;
        if let Some(taken) = self.taken.get_mut(namespace) {
            *taken -= 1;
            if *taken == 0 {
                self.taken.remove(namespace);
            }
        }
    }

    /// Removes the first waiter of the next namespace that may take a slot.
    fn next(&mut self) -> Option<(String, oneshot::Sender<FairSlot>)> {
        let after = (Bound::Excluded(self.last.clone()), Bound::Unbounded);
        let mut all = self.waiting.range(after).chain(&self.waiting);
        let namespace = all.find(|(namespace, _)| self.has_share(namespace))?.0.clone();
        let line = self.waiting.get_mut(&namespace)?;
        let first = line.pop_front();
        if line.is_empty() {
            self.waiting.remove(&namespace);
        }
        Some((namespace, first?))
    }
}

impl FairSlots {
    /// Creates `count` slots. One namespace takes at most `most` of them at the same time.
    pub fn new(count: usize, most: usize) -> Self {
        Self(Arc::new(Mutex::new(Queue {
            free: count.max(1),
            most: most.max(1),
            taken: BTreeMap::new(),
            waiting: BTreeMap::new(),
            last: String::new(),
        })))
    }

    /// Waits for a slot. Namespaces take turns; within a namespace, waiters are served in order of
    /// arrival.
    pub async fn acquire(&self, namespace: &str) -> FairSlot {
        let waiting = {
            let mut queue = self.0.lock();
            if queue.has_share(namespace) {
                queue.take(namespace);
                return FairSlot(Some((self.clone(), namespace.to_owned())));
            }
            let (sender, receiver) = oneshot::channel();
            queue
                .waiting
                .entry(namespace.to_owned())
                .or_default()
                .push_back(sender);
            receiver
        };
        // The sender is dropped only together with the queue, which this handle keeps alive.
        waiting.await.unwrap_or(FairSlot(None))
    }

    /// Runs work on its own thread when it is the namespace's turn. The slot is freed when the work
    /// ends, even if the caller stopped waiting.
    pub async fn run<T: Send + 'static>(
        &self,
        namespace: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let slot = self.acquire(namespace).await;
        let work = move || {
            let _slot = slot;
            work()
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down, and the caller with it.
                Err(_) => futures::future::pending().await,
            },
        }
    }

    /// Returns a slot and hands out all free slots.
    fn release(&self, namespace: &str) {
        self.0.lock().release(namespace);
        loop {
            let (next, to) = {
                let mut queue = self.0.lock();
                let Some((next, to)) = queue.next() else { return };
                queue.take(&next);
                (next, to)
            };
            if let Err(mut slot) = to.send(FairSlot(Some((self.clone(), next.clone())))) {
                // The waiter is gone.
                slot.0 = None;
                self.0.lock().release(&next);
            }
        }
    }
}

impl Drop for FairSlot {
    fn drop(&mut self) {
        if let Some((slots, namespace)) = self.0.take() {
            slots.release(&namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::{FutureExt as _, poll};
    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn namespaces_take_turns() {
        let slots = FairSlots::new(1, 1);
        let first = slots.acquire("hostile").await;
        let mut hostile: Vec<_> = (0..3).map(|_| Box::pin(slots.acquire("hostile"))).collect();
        for waiting in &mut hostile {
            assert!(poll!(waiting).is_pending());
        }
        let mut quiet = Box::pin(slots.acquire("quiet"));
        assert!(poll!(&mut quiet).is_pending());
        drop(first);
        let slot = quiet
            .now_or_never()
            .expect("one turn later, whatever waits there");
        assert!(poll!(&mut hostile[0]).is_pending());
        drop(slot);
        assert!(poll!(&mut hostile[0]).is_ready());
    }

    #[tokio::test]
    async fn namespace_takes_no_more_than_its_share() {
        let slots = FairSlots::new(4, 2);
        let hostile = (slots.acquire("hostile").await, slots.acquire("hostile").await);
        let mut third = Box::pin(slots.acquire("hostile"));
        assert!(poll!(&mut third).is_pending(), "although two are free");
        let _quiet = slots.acquire("quiet").now_or_never().expect("there is room");
        drop(hostile);
        assert!(poll!(&mut third).is_ready());
    }

    #[tokio::test]
    async fn cancelled_waiter_leaves_its_slot_to_the_next() {
        let slots = FairSlots::new(1, 1);
        let first = slots.acquire("a").await;
        let gone = {
            let mut gone = Box::pin(slots.acquire("b"));
            assert!(poll!(&mut gone).is_pending());
            gone
        };
        let mut next = Box::pin(slots.acquire("c"));
        assert!(poll!(&mut next).is_pending());
        drop(gone);
        drop(first);
        assert!(poll!(&mut next).is_ready());
        assert_eq!(slots.0.lock().free, 1, "it was dropped at once");
    }

    #[tokio::test]
    async fn work_keeps_its_slot_until_it_ends() {
        let slots = FairSlots::new(1, 1);
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let work = Box::pin(slots.run("a", move || wait.recv()));
        assert!(
            tokio::time::timeout(Duration::from_millis(50), work)
                .await
                .is_err()
        );
        assert!(
            slots.acquire("b").now_or_never().is_none(),
            "it goes on although nobody waits"
        );
        drop(done);
        sleep(Duration::from_millis(10)).await;
        let _slot = slots.acquire("c").await;
    }
}
