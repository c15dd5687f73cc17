//! Schedules work by key. A key never runs twice at the same time. It runs again at once if it was
//! woken meanwhile, or when its delay ends.
//!
//! The scheduler is the one of the `kube` library. Its controller is not used because it polls
//! every running reconcile whenever one of them makes progress: with ten thousand waiting
//! reconciles, that took half of all CPU time.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    panic::AssertUnwindSafe,
    pin::pin,
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt, channel::mpsc, stream};
use kube::runtime::scheduler::{ScheduleRequest, scheduler};
use tokio::{task::JoinSet, time::Instant};

/// Delay before a key runs again after a panic that nothing else caught.
const AFTER_PANIC: Duration = Duration::from_secs(300);

/// Runs work for the keys in `due`. The work returns the delay after which its key is due again, if
/// any. It ends when `due` ends. Running work is cancelled with it, and when this future is
/// dropped.
pub(super) async fn dispatch<K, W>(due: impl Stream<Item = K>, work: impl Fn(K) -> W)
where
    K: Clone + Eq + Hash + Send + 'static,
    W: Future<Output = Option<Duration>> + Send + 'static,
{
    let (later, returning) = mpsc::unbounded();
    let due = due.map(|key| ScheduleRequest {
        message: key,
        run_at: Instant::now(),
    });
    // The first stream ends the combined one; the second never ends by itself.
    let mut schedule = pin!(scheduler(until_first_ends(due, returning)));
    let mut running = JoinSet::new();
    // Running keys, and whether each was woken again since it started.
    let mut active: HashMap<K, bool> = HashMap::new();
    loop {
        let key = tokio::select! {
            Some(ended) = running.join_next() => {
                // The work never panics here, and is aborted only together with this future.
                let Ok((key, wait)): Result<(K, Option<Duration>), _> = ended else { continue };
                if active.remove(&key) == Some(true) {
                    key
                } else {
                    if let Some(wait) = wait {
                        let run_at = Instant::now() + wait;
                        let _ = later.unbounded_send(ScheduleRequest { message: key, run_at });
                    }
                    continue;
                }
            }
            key = schedule.next() => match key {
                Some(key) => key,
                None => return,
            },
        };
        match active.entry(key.clone()) {
            Entry::Occupied(mut named_again) => *named_again.get_mut() = true,
            Entry::Vacant(entry) => {
                entry.insert(false);
                let work = AssertUnwindSafe(work(key.clone())).catch_unwind();
                running.spawn(async move { (key, work.await.unwrap_or(Some(AFTER_PANIC))) });
            }
        }
    }
}

/// Merges two streams until the first one ends.
fn until_first_ends<T>(first: impl Stream<Item = T>, second: impl Stream<Item = T>) -> impl Stream<Item = T> {
    let first = first.map(Some).chain(stream::once(std::future::ready(None)));
    stream::select(first, second.map(Some))
        .take_while(|item| std::future::ready(item.is_some()))
        .filter_map(std::future::ready)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::time::sleep;

    use super::*;

    type Log = Arc<Mutex<Vec<(u64, &'static str)>>>;

    /// Dispatches the keys that are sent, and logs when each run started, in seconds. Each run
    /// takes one second.
    fn begin(next: Option<Duration>) -> (mpsc::UnboundedSender<&'static str>, Log, impl Future<Output = ()>) {
        let (sender, due) = mpsc::unbounded();
        let (log, start) = (Log::default(), Instant::now());
        let written = log.clone();
        let work = move |key: &'static str| {
            written.lock().unwrap().push((start.elapsed().as_secs(), key));
            async move {
                sleep(Duration::from_secs(1)).await;
                assert_ne!(key, "panics");
                next
            }
        };
        (sender, log, dispatch(due, work))
    }

    #[tokio::test(start_paused = true)]
    async fn key_woken_while_running_runs_once_more_afterwards() {
        let (sender, log, dispatch) = begin(None);
        let story = async {
            sender.unbounded_send("a").unwrap();
            sleep(Duration::from_millis(500)).await;
            for key in ["a", "b", "a"] {
                sender.unbounded_send(key).unwrap();
            }
            sleep(Duration::from_secs(10)).await;
        };
        tokio::select! { () = story => {}, () = dispatch => {} }
        assert_eq!(*log.lock().unwrap(), [(0, "a"), (0, "b"), (1, "a")]);
    }

    #[tokio::test(start_paused = true)]
    async fn key_runs_again_after_its_delay_or_when_woken() {
        let (sender, log, dispatch) = begin(Some(Duration::from_secs(10)));
        let story = async {
            sender.unbounded_send("a").unwrap();
            sleep(Duration::from_secs(15)).await;
            sender.unbounded_send("a").unwrap();
            sleep(Duration::from_millis(11_500)).await;
        };
        tokio::select! { () = story => {}, () = dispatch => {} }
        // Started at 0, ended at 1, due at 11; woken at 15, ended at 16, due at 26.
        assert_eq!(*log.lock().unwrap(), [(0, "a"), (11, "a"), (15, "a"), (26, "a")]);
    }

    #[tokio::test(start_paused = true)]
    async fn panic_affects_only_its_key_which_is_retried() {
        let (sender, log, dispatch) = begin(None);
        let story = async {
            sender.unbounded_send("panics").unwrap();
            sender.unbounded_send("b").unwrap();
            sleep(AFTER_PANIC + Duration::from_secs(2)).await;
        };
        tokio::select! { () = story => {}, () = dispatch => {} }
        let mut log = log.lock().unwrap().clone();
        log.sort_unstable();
        assert_eq!(log, [(0, "b"), (0, "panics"), (301, "panics")]);
    }

    #[tokio::test]
    async fn dispatch_ends_with_its_input() {
        let (sender, _, dispatch) = begin(None);
        drop(sender);
        dispatch.await;
    }
}
