//! For how long which path of a store is left alone because the store asked for it with `Retry-After`. A pure state machine;
//! the current time is an argument.
//!
//! A hold is for one path. Whoever may name paths of a shared store could otherwise stop it for everybody with a path that is
//! always throttled. How fast the whole store is asked is found from how often it complains: see `adaptive`.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use lockstep_core::remote::RETRY_AFTER_MAX;

use crate::{Operation, ProviderError, call::Scope};

/// The most holds of one store. Beyond them the one that ends first is given up.
const MOST: usize = 1024;
/// This many different paths that were throttled within [`TOGETHER`] are a complaint about the whole store.
const SEVERAL: usize = 3;
const TOGETHER: Duration = Duration::from_secs(10);

/// What an error of a request in `scope` is about. Everything that needs a login waits for one.
fn about(scope: Scope, error: &ProviderError) -> Scope {
    if error.operation == Operation::Login {
        return Scope::Operation(Operation::Login);
    }
    scope
}

#[derive(Debug)]
struct Hold {
    begun: Instant,
    until: Instant,
    error: ProviderError,
}

/// The holds of one store.
#[derive(Debug, Default)]
pub(super) struct Holds(HashMap<Scope, Hold>);

impl Holds {
    /// Notes that the store wants this left alone for a while; `true` when it throttled several paths lately.
    pub(super) fn hold(&mut self, now: Instant, scope: Scope, wait: Duration, error: &ProviderError) -> bool {
        self.0
            .retain(|_, hold| hold.until > now || now.saturating_duration_since(hold.begun) < TOGETHER);
        let scope = about(scope, error);
        let until = now + wait.min(RETRY_AFTER_MAX);
        let before = self.0.get(&scope).map(|hold| hold.until);
        if before.is_none_or(|before| before < until) {
            if self.0.len() >= MOST
                && before.is_none()
                && let Some(first) = self.0.iter().min_by_key(|(_, hold)| hold.until)
            {
                let first = first.0.clone();
                self.0.remove(&first);
            }
            let hold = Hold {
                begun: now,
                until,
                error: error.clone(),
            };
            self.0.insert(scope, hold);
        }
        let lately = |hold: &&Hold| now.saturating_duration_since(hold.begun) < TOGETHER;
        self.0.values().filter(lately).count() >= SEVERAL
    }

    /// For how long this is left alone from now on, and what the store said.
    pub(super) fn left(&self, now: Instant, scope: &Scope) -> Option<(Duration, &ProviderError)> {
        let login = Scope::Operation(Operation::Login);
        let holds = [self.0.get(scope), self.0.get(&login)];
        let hold = holds.into_iter().flatten().max_by_key(|hold| hold.until)?;
        (hold.until > now).then(|| (hold.until - now, &hold.error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;
    use crate::{ErrorKind, FindQuery};

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn key(key: &str) -> Scope {
        Scope::Key(at(key))
    }

    fn limited(operation: Operation) -> ProviderError {
        ProviderError::new(ErrorKind::RateLimited, operation, "slow down")
    }

    fn left(holds: &Holds, now: Instant, scope: &Scope) -> Option<Duration> {
        holds.left(now, scope).map(|(left, _)| left)
    }

    #[test]
    fn a_hold_is_for_its_path_and_ends() {
        let (mut holds, now) = (Holds::default(), Instant::now());
        assert!(!holds.hold(now, key("a"), seconds(600), &limited(Operation::Read)));
        assert_eq!(left(&holds, now + seconds(100), &key("a")), Some(seconds(500)));
        for other in [
            key("b"),
            Scope::Search(Box::new(FindQuery {
                path: Some(at("a")),
                ..FindQuery::default()
            })),
            Scope::Operation(Operation::Check),
        ] {
            assert_eq!(left(&holds, now, &other), None, "{other:?}");
        }
        assert_eq!(left(&holds, now + seconds(600), &key("a")), None);
    }

    #[test]
    fn a_hold_becomes_longer_and_never_shorter() {
        let (mut holds, now) = (Holds::default(), Instant::now());
        holds.hold(now, key("a"), seconds(5), &limited(Operation::Read));
        holds.hold(now + seconds(1), key("a"), seconds(9), &limited(Operation::Read));
        holds.hold(now + seconds(2), key("a"), seconds(1), &limited(Operation::Read));
        assert_eq!(left(&holds, now + seconds(2), &key("a")), Some(seconds(8)));
        holds.hold(now, key("b"), seconds(10_000_000), &limited(Operation::Read));
        assert_eq!(left(&holds, now, &key("b")), Some(RETRY_AFTER_MAX));
    }

    #[test]
    fn a_throttled_login_holds_whatever_needs_one() {
        let (mut holds, now) = (Holds::default(), Instant::now());
        holds.hold(now, key("a"), seconds(7), &limited(Operation::Login));
        for scope in [key("a"), key("b"), Scope::Operation(Operation::Check)] {
            assert_eq!(left(&holds, now, &scope), Some(seconds(7)));
        }
    }

    #[test]
    fn several_paths_within_seconds_are_a_complaint_of_the_store() {
        let (mut holds, now) = (Holds::default(), Instant::now());
        let mut throttle = |second, path| {
            let error = limited(Operation::Read);
            holds.hold(now + seconds(second), key(path), seconds(600), &error)
        };
        assert!(!throttle(0, "a") && !throttle(1, "a") && !throttle(2, "b"));
        assert!(throttle(3, "c"));
        assert!(!throttle(60, "d"), "the others were long ago");
    }

    #[test]
    fn holds_without_number_are_not_remembered() {
        let (mut holds, now) = (Holds::default(), Instant::now());
        for n in 0..10_000 {
            holds.hold(now, key(&n.to_string()), seconds(n), &limited(Operation::Read));
        }
        assert_eq!(holds.0.len(), MOST);
        assert!(left(&holds, now, &key("9999")).is_some());
    }
}
