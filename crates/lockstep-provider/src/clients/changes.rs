use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures::{
    Stream, StreamExt as _,
    stream::{BoxStream, SelectAll},
};
use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Provider, StoreKey};

/// New watches that the consumer has not picked up yet, at most one per store.
#[derive(Clone, Default)]
pub(super) struct Watched(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    new: HashMap<StoreKey, BoxStream<'static, StoreKey>>,
    waker: Option<Waker>,
}

impl Watched {
    /// Watches a provider that reports changes, until the guard is dropped. Returns `None` if the
    /// provider reports none.
    pub(super) fn add(&self, key: &StoreKey, provider: &dyn Provider) -> Option<DropGuard> {
        let store = key.clone();
        let token = CancellationToken::new();
        let watch = provider
            .changes()?
            .map(move |()| store.clone())
            .take_until(token.clone().cancelled_owned())
            .boxed();
        let mut state = self.0.lock();
        state.new.insert(key.clone(), watch);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        Some(token.drop_guard())
    }

    /// Removes a watch that has not been picked up yet.
    pub(super) fn remove(&self, key: &StoreKey) {
        self.0.lock().new.remove(key);
    }
}

/// A stream of the stores whose values may have changed. It never ends. A store's watch begins when
/// its client is built, and ends when the last user of that client drops it.
pub struct Changes {
    watched: Watched,
    running: SelectAll<BoxStream<'static, StoreKey>>,
}

impl Changes {
    pub(super) fn new(watched: Watched) -> Self {
        Self {
            watched,
            running: SelectAll::new(),
        }
    }
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes")
            .field("stores", &self.running.len())
            .finish_non_exhaustive()
    }
}

impl Stream for Changes {
    type Item = StoreKey;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<StoreKey>> {
        let changes = self.get_mut();
        let new: Vec<_> = {
            let mut state = changes.watched.0.lock();
            state.waker = Some(cx.waker().clone());
            state.new.drain().map(|(_, watch)| watch).collect()
        };
        changes.running.extend(new);
        match changes.running.poll_next_unpin(cx) {
            Poll::Ready(Some(key)) => Poll::Ready(Some(key)),
            // nothing is watched at the moment; a new client wakes this task
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}
