//! Reads of several ids in one call, and the ids that cannot share one, because calls for several
//! of them were rejected.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use lockstep_provider::{CONCURRENT_CALLS, CallError as _, RemoteSecret};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{error::Failed, locate::is_arn};

/// How long an id stays unbatchable. One rejected id fails the whole call, and the cause may be
/// fixed.
const UNBATCHABLE_FOR: Duration = Duration::from_secs(600);
/// Maximum number of unbatchable ids.
const MOST: usize = 10_000;

/// The results of reads by id.
pub(crate) type Outcomes = HashMap<String, Result<RemoteSecret, Failed>>;

/// A service that reads several ids in one call.
pub(crate) trait Batched: Sync {
    /// Maximum number of ids in one call.
    const BATCH: usize;

    /// Ids that are read alone.
    fn unbatchable(&self) -> &Unbatchable;

    /// Whether calls for several ids are denied, so that all are read alone.
    fn denied(&self) -> bool;

    /// Reads ids in one call. The result lacks ids that have to be read alone.
    fn read_batch(&self, ids: &[String]) -> impl Future<Output = Outcomes> + Send;

    /// Reads the current value of one id.
    fn read_alone(&self, id: &str) -> impl Future<Output = Result<RemoteSecret, Failed>> + Send;
}

/// Reads ids, each once.
pub(crate) async fn read<S: Batched>(service: &S, ids: BTreeSet<String>) -> Outcomes {
    let (unbatchable, together): (Vec<String>, Vec<String>) =
        ids.into_iter().partition(|id| service.unbatchable().contains(id));
    let mut outcomes = Outcomes::new();
    let in_batches = together.len() > 1 && !service.denied();
    if in_batches {
        // What another account shares is read by its ARN and can have the name of an own one, so no
        // call contains names and ARNs.
        let (arns, names): (Vec<String>, Vec<String>) = together.iter().cloned().partition(|id| is_arn(id));
        let pages = names.chunks(S::BATCH).chain(arns.chunks(S::BATCH));
        let pages: Vec<_> = pages.map(|page| service.read_batch(page)).collect();
        let pages: Vec<_> = stream::iter(pages).buffered(CONCURRENT_CALLS).collect().await;
        outcomes.extend(pages.into_iter().flatten());
    }
    let untold: Vec<String> = together
        .into_iter()
        .filter(|id| !outcomes.contains_key(id))
        .collect();
    let alone: Vec<_> = untold
        .iter()
        .chain(&unbatchable)
        .map(|id| async move { (id.clone(), service.read_alone(id).await) })
        .collect();
    let alone: Vec<_> = stream::iter(alone).buffered(CONCURRENT_CALLS).collect().await;
    outcomes.extend(alone);
    let failed = |id: &String| outcomes.get(id).and_then(|outcome| outcome.as_ref().err());
    if in_batches && !service.denied() {
        let untold = untold.iter().map(|id| (id.as_str(), failed(id)));
        service.unbatchable().learn(untold);
    }
    let unbatchable = unbatchable.iter().map(|id| (id.as_str(), failed(id)));
    service.unbatchable().renew(unbatchable);
    outcomes
}

/// Names or ids that are unbatchable, and until when.
#[derive(Debug, Default)]
pub(crate) struct Unbatchable(Mutex<HashMap<String, Instant>>);

impl Unbatchable {
    /// Whether this id is unbatchable.
    pub(crate) fn contains(&self, id: &str) -> bool {
        let until = self.0.lock().get(id).copied();
        until.is_some_and(|until| until > Instant::now())
    }

    /// Updates the set from the single calls for ids that a call for several did not answer. Ids
    /// that are rejected again are the cause. If all are answered, their combination is the cause,
    /// and all become unbatchable. If one failed in another way, the next call decides. A missing
    /// value rejects no call.
    pub(crate) fn learn<'a>(&self, outcomes: impl Iterator<Item = Outcome<'a>> + Clone) {
        if outcomes.clone().any(is_refused) {
            self.remember(outcomes.filter(|outcome| is_refused(*outcome)));
        } else if outcomes.clone().all(is_answered) {
            self.remember(outcomes);
        }
    }

    /// Keeps unbatchable ids that are still rejected.
    pub(crate) fn renew<'a>(&self, outcomes: impl Iterator<Item = Outcome<'a>>) {
        self.remember(outcomes.filter(|outcome| is_refused(*outcome)));
    }

    fn remember<'a>(&self, outcomes: impl Iterator<Item = Outcome<'a>>) {
        let now = Instant::now();
        let mut unbatchable = self.0.lock();
        unbatchable.retain(|_, until| *until > now);
        for (id, _) in outcomes {
            if unbatchable.len() < MOST || unbatchable.contains_key(id) {
                unbatchable.insert(id.to_owned(), now + UNBATCHABLE_FOR);
            }
        }
    }
}

/// An id, and the error of a call for it alone.
type Outcome<'a> = (&'a str, Option<&'a Failed>);

fn is_answered((_, failed): Outcome<'_>) -> bool {
    failed.is_none_or(Failed::is_missing)
}

fn is_refused((_, failed): Outcome<'_>) -> bool {
    failed.is_some_and(|failed| failed.is_an_answer() && !failed.is_missing())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied() -> Failed {
        Failed::of_part(Some("AccessDeniedException"), None)
    }

    fn held(unbatchable: &Unbatchable) -> Vec<&'static str> {
        ["a", "b", "c"]
            .into_iter()
            .filter(|id| unbatchable.contains(id))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn id_refused_in_its_own_call_is_the_cause_for_ten_minutes() {
        let unbatchable = Unbatchable::default();
        let (denied, missing) = (denied(), Failed::missing());
        unbatchable.learn([("a", None), ("b", Some(&denied)), ("c", Some(&missing))].into_iter());
        assert_eq!(held(&unbatchable), ["b"]);
        tokio::time::advance(UNBATCHABLE_FOR / 2).await;
        unbatchable.renew([("b", Some(&denied))].into_iter());
        tokio::time::advance(UNBATCHABLE_FOR / 2).await;
        assert_eq!(held(&unbatchable), ["b"], "it was refused again meanwhile");
        unbatchable.renew([("b", None)].into_iter());
        tokio::time::advance(UNBATCHABLE_FOR / 2).await;
        assert!(held(&unbatchable).is_empty());
    }

    #[tokio::test]
    async fn ids_that_are_answered_one_by_one_are_all_unbatchable() {
        let unbatchable = Unbatchable::default();
        unbatchable.learn([("a", None), ("b", Some(&Failed::missing()))].into_iter());
        assert_eq!(held(&unbatchable), ["a", "b"]);
    }

    #[tokio::test]
    async fn throttled_or_broken_call_shows_no_cause() {
        for failed in [
            Failed::BrokenOff,
            Failed::of_part(Some("ThrottlingException"), None),
        ] {
            let unbatchable = Unbatchable::default();
            unbatchable.learn([("a", None), ("b", Some(&failed))].into_iter());
            assert!(held(&unbatchable).is_empty(), "{failed:?}");
            unbatchable.learn([("a", Some(&denied())), ("b", Some(&failed))].into_iter());
            assert_eq!(held(&unbatchable), ["a"], "{failed:?}");
        }
    }
}
