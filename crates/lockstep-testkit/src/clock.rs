//! A clock that stands still until a test moves it.

use std::time::Duration;

use jiff::Timestamp;
use lockstep_core::time::Clock;
use parking_lot::Mutex;

/// A clock that a test sets and moves.
#[derive(Debug)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    /// Creates a clock that stands at `now`.
    pub const fn at(now: Timestamp) -> Self {
        Self(Mutex::new(now))
    }

    /// Moves it forward, at most to the end of representable time.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock();
        *now = now.checked_add(by).unwrap_or(*now);
    }

    /// Sets it, also backwards, like a corrected system clock.
    pub fn set(&self, now: Timestamp) {
        *self.0.lock() = now;
    }
}

impl Default for ManualClock {
    /// Creates a clock that stands at the first second of 2026, UTC.
    fn default() -> Self {
        Self::at(Timestamp::constant(1_767_225_600, 0))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_only_when_the_test_moves_it() {
        let clock = ManualClock::default();
        let before = clock.now();
        assert_eq!(before.to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(clock.now(), before);
        clock.advance(Duration::from_secs(90));
        assert_eq!(clock.now().to_string(), "2026-01-01T00:01:30Z");
    }
}
