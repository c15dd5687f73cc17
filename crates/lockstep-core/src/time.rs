//! Time as an argument.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

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
        crate::decide::later(self.began, self.passed())
    }
}

/// A clock that can be shared.
pub type SharedClock = Arc<dyn Clock>;

/// Kubernetes writes times in whole seconds.
pub(crate) fn to_seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second())
        .unwrap_or(time)
        .to_string()
}
