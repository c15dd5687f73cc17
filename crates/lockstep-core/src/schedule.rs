//! When an object is looked at next. Jitter comes from the object's uid, so it is the same in a test and spread in a
//! cluster.

use std::{
    hash::{Hash, Hasher},
    time::Duration,
};

use crate::remote::Requeue;

/// The slow recheck of what waits for a change; where the refresh interval is shorter, the interval is.
pub const SLOW_RECHECK: Duration = Duration::from_secs(600);
/// The first of these rechecks; the time between them doubles.
pub const FIRST_RECHECK: Duration = Duration::from_secs(15);
/// After a restart, objects that are in sync are refreshed within this time, or within their interval if it is shorter.
pub const RESTART_SPREAD: Duration = Duration::from_secs(600);

/// FNV-1a, 64 bits: stable across versions and machines, which the standard library's hasher is not.
#[derive(Debug, Clone)]
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// A number in `0.0..1.0` that depends on the seeds only.
pub fn fraction(seeds: impl Hash) -> f64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    seeds.hash(&mut hasher);
    // the low bits of FNV are its weak ones: mix before taking the upper 53
    let mixed = hasher.finish() ^ (hasher.finish() >> 32);
    let mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double")]
    let fraction = (mixed >> 11) as f64 / (1_u64 << 53) as f64;
    fraction
}

/// The time from one refresh to the next: the interval and up to 10 % of it.
pub fn refresh(interval: Duration, uid: &str, round: u64) -> Duration {
    interval.mul_f64(1.0 + 0.1 * fraction((uid, round)))
}

/// The time from the start of the operator to the first refresh of an object that is in sync.
pub fn first_after_restart(interval: Duration, uid: &str, process_seed: u64) -> Duration {
    interval
        .min(RESTART_SPREAD)
        .mul_f64(fraction((uid, process_seed)))
}

/// The time until a failed object is tried again. `attempt` counts from 0.
pub fn retry(
    requeue: Requeue,
    interval: Duration,
    retry_after: Option<Duration>,
    uid: &str,
    attempt: u32,
) -> Duration {
    let jitter = fraction((uid, attempt));
    let exponential = |base: Duration, cap: Duration| {
        base.saturating_mul(1 << attempt.min(16))
            .min(cap)
            .mul_f64(0.5 + 0.5 * jitter)
    };
    match requeue {
        Requeue::RefreshInterval => refresh(interval, uid, u64::from(attempt)),
        // What became good again at its source is noticed as soon as a new value would be. What no watch tells of,
        // such as a foreign Secret that goes away, is soon looked at once more, and then ever more seldom.
        Requeue::OnChange => exponential(FIRST_RECHECK, SLOW_RECHECK.min(interval)),
        Requeue::Quick if attempt == 0 => Duration::from_millis(500).mul_f64(1.0 + jitter),
        Requeue::Quick | Requeue::Backoff => exponential(Duration::from_secs(2), Duration::from_secs(300)),
        Requeue::RetryAfter => match retry_after {
            // everyone who waits for the same store comes back spread over a quarter of the pause
            Some(after) => after + after.max(Duration::from_secs(1)).mul_f64(0.25 * jitter),
            None => exponential(Duration::from_secs(5), Duration::from_secs(300)),
        },
        Requeue::LongBackoff => exponential(Duration::from_secs(60), Duration::from_secs(1800)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn jitter_adds_up_to_a_tenth_and_spreads() {
        let interval = Duration::from_secs(100);
        let all: Vec<_> = (0..1000)
            .map(|n| refresh(interval, &format!("uid-{n}"), 0))
            .collect();
        assert!(
            all.iter()
                .all(|next| (100.0..110.0).contains(&next.as_secs_f64()))
        );
        let late = all.iter().filter(|next| next.as_secs_f64() > 105.0).count();
        assert!((400..600).contains(&late), "{late} of 1000 in the later half");
    }

    #[test]
    fn a_pause_that_the_backend_asked_for_is_never_cut_short() {
        let after = Duration::from_secs(30);
        for n in 0..100 {
            let next = retry(
                Requeue::RetryAfter,
                Duration::from_secs(1),
                Some(after),
                &format!("uid-{n}"),
                0,
            );
            assert!(next >= after && next <= after * 2);
        }
    }

    #[test]
    fn what_waits_for_a_change_is_soon_looked_at_again_and_never_later_than_what_is_in_sync() {
        let at = |interval, attempt| {
            retry(
                Requeue::OnChange,
                Duration::from_secs(interval),
                None,
                "uid",
                attempt,
            )
            .as_secs_f64()
        };
        assert!((7.5..=15.0).contains(&at(3600, 0)), "{}", at(3600, 0));
        assert!((300.0..=600.0).contains(&at(3600, 30)), "{}", at(3600, 30));
        assert!((30.0..=60.0).contains(&at(60, 30)), "{}", at(60, 30));
        assert!((0.5..=1.0).contains(&at(1, 0)), "{}", at(1, 0));
    }

    #[test]
    fn backoff_grows_and_is_bounded() {
        let at = |attempt| retry(Requeue::Backoff, Duration::from_secs(60), None, "uid", attempt);
        assert!(at(0) <= Duration::from_secs(2));
        assert!(at(5) > at(0));
        assert!(at(60) <= Duration::from_secs(300));
    }

    proptest! {
        #[test]
        fn a_fraction_is_a_fraction(uid in ".*", seed in any::<u64>()) {
            let value = fraction((uid, seed));
            prop_assert!((0.0..1.0).contains(&value));
        }

        #[test]
        fn no_retry_is_immediate(attempt in any::<u32>(), uid in "[a-z]{0,8}") {
            for requeue in [Requeue::OnChange, Requeue::Quick, Requeue::Backoff, Requeue::RetryAfter, Requeue::LongBackoff] {
                prop_assert!(retry(requeue, Duration::from_secs(1), None, &uid, attempt) >= Duration::from_millis(400));
            }
        }
    }
}
