//! Time as an argument.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use lockstep_api::crd::TIMES;

/// Where the current time comes from: the system in the binary, a test's own in tests.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The current time.
    fn now(&self) -> Timestamp;
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one home of the system clock"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that began with another one and goes by itself since: nobody sets it. Deadlines of what pods do go by it, so that a
/// clock that is set does not make them fail.
#[derive(Debug, Clone, Copy)]
pub struct SteadyClock {
    began: Timestamp,
    since: Instant,
}

impl SteadyClock {
    /// One that says now what that clock says.
    pub fn new(clock: &dyn Clock) -> Self {
        Self {
            began: clock.now(),
            since: Instant::now(),
        }
    }

    /// How long it goes.
    fn passed(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        later(self.began, self.passed())
    }
}

/// A clock that can be shared.
pub type SharedClock = Arc<dyn Clock>;

/// Drops the fraction of a second: Kubernetes writes times in whole seconds.
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

/// The time from `now` until `at`, at least a millisecond.
pub(crate) fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now))
        .unwrap_or(Duration::ZERO)
        .max(Duration::from_millis(1))
}
