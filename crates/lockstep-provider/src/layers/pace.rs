//! Implements `requestsPerSecond` and `burst`: a fair queue in front of a token bucket.

use std::{
    num::NonZeroU32,
    ops::Add,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, Reference},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout_at},
};

/// Applies the configured rate limit of a store.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: u32,
    bucket: RateLimiter<NotKeyed, InMemoryState, RuntimeClock, NoOpMiddleware<Since>>,
    /// Held by the next request to be sent. Tokio's mutex is fair, so requests are sent in the
    /// order in which they came.
    turn: Mutex<()>,
    waiting: AtomicU32,
}

impl Pace {
    /// Returns `None` if the store sets no rate limit.
    pub(super) fn new(per_second: Option<u32>, burst: Option<u32>) -> Option<Self> {
        let rate = NonZeroU32::new(per_second?)?;
        let burst = burst.and_then(NonZeroU32::new).unwrap_or(rate);
        let quota = Quota::per_second(rate).allow_burst(burst);
        Some(Self {
            per_second: rate.get(),
            bucket: RateLimiter::direct_with_clock(
                quota,
                RuntimeClock {
                    start: Instant::now(),
                },
            ),
            turn: Mutex::new(()),
            waiting: AtomicU32::new(0),
        })
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// Returns the length of the queue as a time if no turn comes before the deadline. If that is
    /// foreseeable, it fails immediately, so that no caller waits in vain.
    pub(super) async fn turn(&self, deadline: Instant) -> Result<(), Duration> {
        let ahead = Waiting::join(&self.waiting);
        let queue = Duration::from_secs_f64(f64::from(ahead.position) / f64::from(self.per_second));
        if Instant::now() + queue > deadline {
            return Err(queue.max(Duration::from_secs(1)));
        }
        timeout_at(deadline, async {
            let _turn = self.turn.lock().await;
            while let Err(not_yet) = self.bucket.check() {
                sleep(not_yet.wait_time_from(self.bucket.clock().now())).await;
            }
        })
        .await
        .map_err(|_| queue.max(Duration::from_secs(1)))
    }
}

/// A position in the queue, released on drop.
struct Waiting<'a> {
    waiting: &'a AtomicU32,
    position: u32,
}

impl<'a> Waiting<'a> {
    fn join(waiting: &'a AtomicU32) -> Self {
        Self {
            waiting,
            position: waiting.fetch_add(1, Ordering::Relaxed),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The runtime's clock, for the token bucket. It agrees with the runtime's sleeps, also when a test
/// pauses time.
#[derive(Debug, Clone)]
struct RuntimeClock {
    start: Instant,
}

/// Time since the clock was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Since(Duration);

impl Clock for RuntimeClock {
    type Instant = Since;

    fn now(&self) -> Since {
        Since(self.start.elapsed())
    }
}

impl Add<Nanos> for Since {
    type Output = Self;

    fn add(self, other: Nanos) -> Self {
        Self(self.0 + Duration::from(other))
    }
}

impl Reference for Since {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_sub(earlier.0).into()
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        Self(self.0.checked_sub(duration.into()).unwrap_or(self.0))
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_are_sent_at_the_configured_rate_in_order() {
        let pace = Pace::new(Some(10), Some(2)).unwrap();
        let start = Instant::now();
        let deadline = start + Duration::from_secs(60);
        let times = join_all((0..22).map(|_| async {
            pace.turn(deadline).await.unwrap();
            start.elapsed()
        }))
        .await;
        assert!(times[1].is_zero(), "the burst goes at once");
        assert!(times.is_sorted());
        let last = times[21].as_secs_f64();
        assert!(
            (1.9..2.2).contains(&last),
            "20 more at 10 a second take 2 s, not {last}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_would_be_late_fail_immediately() {
        let pace = Pace::new(Some(1), None).unwrap();
        let start = Instant::now();
        let deadline = start + Duration::from_secs(5);
        let results = join_all((0..20).map(|_| async { (pace.turn(deadline).await, start.elapsed()) })).await;
        let (served, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(|(result, _)| result.is_ok());
        assert!((5..=7).contains(&served.len()), "{}", served.len());
        let at_once = refused.iter().filter(|(_, elapsed)| elapsed.is_zero()).count();
        assert!(at_once >= 12, "{at_once}");
        assert!(
            refused
                .iter()
                .all(|(result, _)| *result >= Err(Duration::from_secs(1)))
        );
    }

    #[test]
    fn store_without_a_rate_has_no_limit() {
        assert!(Pace::new(None, Some(5)).is_none());
    }
}
