//! Which values are asked for alone, because calls for several of them were refused.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::error::Failed;

/// For how long: a refusal of one is a refusal of all that go with it, and it may be mended.
const ALONE_FOR: Duration = Duration::from_secs(600);
/// The most that are remembered.
const MOST: usize = 10_000;

/// Names or ids that are asked for alone, and until when.
#[derive(Debug, Default)]
pub(crate) struct Alone(Mutex<HashMap<String, Instant>>);

impl Alone {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this one is asked for alone.
    pub(crate) fn holds(&self, id: &str) -> bool {
        let until = self.lock().get(id).copied();
        until.is_some_and(|until| until > Instant::now())
    }

    /// Learns from what those of whom a call for several told nothing came to when each was asked for alone. Those that are refused again are
    /// the cause. Where each of them is answered, it is their being together, and all of them are asked for alone; where one
    /// failed in another way, the next call tells more. That something is missing refuses no call.
    pub(crate) fn learn<'a>(&self, outcomes: impl Iterator<Item = Outcome<'a>> + Clone) {
        if outcomes.clone().any(is_refused) {
            self.remember(outcomes.filter(|outcome| is_refused(*outcome)));
        } else if outcomes.clone().all(is_answered) {
            self.remember(outcomes);
        }
    }

    /// Those that were asked for alone already, and are refused still, stay.
    pub(crate) fn renew<'a>(&self, outcomes: impl Iterator<Item = Outcome<'a>>) {
        self.remember(outcomes.filter(|outcome| is_refused(*outcome)));
    }

    fn remember<'a>(&self, outcomes: impl Iterator<Item = Outcome<'a>>) {
        let now = Instant::now();
        let mut alone = self.lock();
        alone.retain(|_, until| *until > now);
        for (id, _) in outcomes {
            if alone.len() < MOST || alone.contains_key(id) {
                alone.insert(id.to_owned(), now + ALONE_FOR);
            }
        }
    }
}

/// An id, and how asking for it alone failed.
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

    fn held(alone: &Alone) -> Vec<&'static str> {
        ["a", "b", "c"].into_iter().filter(|id| alone.holds(id)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_refused_alone_is_the_cause_for_ten_minutes() {
        let alone = Alone::default();
        let (denied, missing) = (denied(), Failed::missing());
        alone.learn([("a", None), ("b", Some(&denied)), ("c", Some(&missing))].into_iter());
        assert_eq!(held(&alone), ["b"]);
        tokio::time::advance(ALONE_FOR / 2).await;
        alone.renew([("b", Some(&denied))].into_iter());
        tokio::time::advance(ALONE_FOR / 2).await;
        assert_eq!(held(&alone), ["b"], "it was refused again meanwhile");
        alone.renew([("b", None)].into_iter());
        tokio::time::advance(ALONE_FOR / 2).await;
        assert!(held(&alone).is_empty());
    }

    #[tokio::test]
    async fn where_each_is_answered_all_of_them_are_asked_for_alone() {
        let alone = Alone::default();
        alone.learn([("a", None), ("b", Some(&Failed::missing()))].into_iter());
        assert_eq!(held(&alone), ["a", "b"]);
    }

    #[tokio::test]
    async fn a_store_that_throttles_or_breaks_says_nothing_of_the_cause() {
        for failed in [
            Failed::Timeout,
            Failed::of_part(Some("ThrottlingException"), None),
        ] {
            let alone = Alone::default();
            alone.learn([("a", None), ("b", Some(&failed))].into_iter());
            assert!(held(&alone).is_empty(), "{failed:?}");
            alone.learn([("a", Some(&denied())), ("b", Some(&failed))].into_iter());
            assert_eq!(held(&alone), ["a"], "{failed:?}");
        }
    }
}
