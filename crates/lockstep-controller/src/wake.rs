//! A queue of objects to reconcile. Each is in it at most once, and none is ever dropped.

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures::Stream;
use parking_lot::Mutex;

/// A set of keys that is also a stream of them. The number of existing keys is its bound.
#[derive(Debug)]
pub struct WakeQueue<K>(Arc<Mutex<State<K>>>);

#[derive(Debug)]
struct State<K> {
    pending: BTreeSet<K>,
    waker: Option<Waker>,
}

impl<K> Clone for WakeQueue<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Ord> Default for WakeQueue<K> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            pending: BTreeSet::new(),
            waker: None,
        })))
    }
}

impl<K: Ord> WakeQueue<K> {
    /// Adds keys to the queue.
    pub fn wake(&self, keys: impl IntoIterator<Item = K>) {
        let mut state = self.0.lock();
        let before = state.pending.len();
        state.pending.extend(keys);
        if state.pending.len() > before
            && let Some(waker) = state.waker.take()
        {
            waker.wake();
        }
    }
}

impl<K: Ord> Stream for WakeQueue<K> {
    type Item = K;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<K>> {
        let mut state = self.0.lock();
        if let Some(key) = state.pending.pop_first() {
            return Poll::Ready(Some(key));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    #[test]
    fn keys_are_unique_and_new_ones_wake_the_stream() {
        let queue = WakeQueue::default();
        let mut stream = queue.clone();
        queue.wake([2, 1, 2]);
        assert_eq!(stream.next().now_or_never(), Some(Some(1)));
        assert_eq!(stream.next().now_or_never(), Some(Some(2)));
        assert_eq!(stream.next().now_or_never(), None);
        queue.wake([3]);
        assert_eq!(stream.next().now_or_never(), Some(Some(3)));
    }
}
