//! When work runs: each key by itself, at most once at a time, again at once when it was named meanwhile, and again
//! when its time comes.
//!
//! The scheduler is that of the library. Its controller is not used, because it asks every reconcile in flight each
//! time that one of them moves: with ten thousand that wait for their turn, half of all processor time went there.

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

/// When a key is worked on again whose work panicked where nothing else catches it.
const AFTER_PANIC: Duration = Duration::from_secs(300);

/// Works on the keys that `due` names. The work says after how long its key is due again by itself, if ever. It ends
/// with `due`; work under way ends with it, and when this future is dropped.
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
    // the names come first and end the whole; the other stream never ends by itself
    let mut schedule = pin!(scheduler(until_first_ends(due, returning)));
    let mut running = JoinSet::new();
    // what is under way, and whether it was named again since it began
    let mut active: HashMap<K, bool> = HashMap::new();
    loop {
        let key = tokio::select! {
            Some(ended) = running.join_next() => {
                // the work never panics here, and is aborted only together with this future
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

/// Both streams together, until the first one ends.
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

    /// Dispatches what is sent, and writes down when what began, in seconds. Each piece of work takes a second.
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
    async fn what_is_named_while_it_runs_runs_once_more_and_never_beside_itself() {
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
    async fn what_asks_for_it_runs_again_at_its_time_or_earlier_when_it_is_named() {
        let (sender, log, dispatch) = begin(Some(Duration::from_secs(10)));
        let story = async {
            sender.unbounded_send("a").unwrap();
            sleep(Duration::from_secs(15)).await;
            sender.unbounded_send("a").unwrap();
            sleep(Duration::from_millis(11_500)).await;
        };
        tokio::select! { () = story => {}, () = dispatch => {} }
        // begun at 0, ended at 1, due at 11; named at 15, ended at 16, due at 26
        assert_eq!(*log.lock().unwrap(), [(0, "a"), (11, "a"), (15, "a"), (26, "a")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_harms_nobody_else_and_is_tried_again() {
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
    async fn it_ends_with_the_names() {
        let (sender, _, dispatch) = begin(None);
        drop(sender);
        dispatch.await;
    }
}
