//! Clocks that are passed as arguments, and arithmetic with times.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use lockstep_api::crd::TIMES;

/// The source of the current time. Tests use their own.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Returns the current time.
    fn now(&self) -> Timestamp;
}

/// The clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the only use of the system clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A monotonic clock that starts at the time of another clock. Deadlines of pods use it, so that
/// they do not expire when the system clock is changed.
#[derive(Debug, Clone, Copy)]
pub struct SteadyClock {
    began: Timestamp,
    since: Instant,
}

impl SteadyClock {
    /// Creates a clock that starts at the current time of `clock`.
    pub fn new(clock: &dyn Clock) -> Self {
        Self {
            began: clock.now(),
            since: Instant::now(),
        }
    }

    /// Returns the time since the clock was created.
    fn passed(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        later(self.began, self.passed())
    }
}

/// A clock that several owners share.
pub type SharedClock = Arc<dyn Clock>;

/// Truncates a time to whole seconds, the precision of times in Kubernetes.
pub(crate) fn to_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Formats the time of a status field. Returns an empty text if the field is absent.
pub(crate) fn format(time: Option<Timestamp>) -> String {
    time.map(|time| time.to_string()).unwrap_or_default()
}

/// Adds a duration to a time. Returns the last time that a status can contain when the sum is
/// beyond it.
pub fn later(now: Timestamp, by: Duration) -> Timestamp {
    let end = *TIMES.end();
    SignedDuration::try_from(by)
        .ok()
        .and_then(|by| now.checked_add(by).ok())
        .map_or(end, |sum| sum.min(end))
}

/// Returns the time from `now` until `at`, at least one millisecond.
pub(crate) fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now))
        .unwrap_or(Duration::ZERO)
        .max(Duration::from_millis(1))
}
