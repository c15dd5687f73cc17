//! How fast references have been coming for a while: whether a batch can be expected to fill.

use std::time::Duration;

use tokio::time::Instant;

/// How long one window is. What comes in a single burst is in one window, and says nothing of what is to come.
const WINDOW: Duration = Duration::from_millis(250);

/// Counts references that arrive. A rate is that of a whole window that has passed, and only while its successor is not over:
/// so it takes a quarter of a second of references that keep coming before anything is expected.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    begun: Option<Instant>,
    count: u32,
    before: u32,
}

impl Arrivals {
    /// A reference comes.
    pub(super) fn saw(&mut self, now: Instant) {
        self.turn(now);
        self.count = self.count.saturating_add(1);
    }

    /// How long it takes until so many more have come; `None` where that cannot be told.
    pub(super) fn time_for(&mut self, more: usize, now: Instant) -> Option<Duration> {
        self.turn(now);
        let gap = WINDOW.checked_div(self.before)?;
        gap.checked_mul(u32::try_from(more).ok()?)
    }

    fn turn(&mut self, now: Instant) {
        let age = self.begun.map(|begun| now.saturating_duration_since(begun));
        match age {
            Some(age) if age < WINDOW => {}
            Some(age) if age < WINDOW * 2 => {
                self.before = std::mem::take(&mut self.count);
                self.begun = self.begun.map(|begun| begun + WINDOW);
            }
            _ => {
                *self = Self {
                    begun: Some(now),
                    ..Self::default()
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn a_burst_after_silence_says_nothing() {
        let (mut arrivals, now) = (Arrivals::default(), Instant::now());
        for _ in 0..100 {
            arrivals.saw(now);
        }
        assert_eq!(arrivals.time_for(5, now + MILLISECOND * 100), None);
    }

    #[test]
    fn what_keeps_coming_is_expected_to_go_on() {
        let (mut arrivals, now) = (Arrivals::default(), Instant::now());
        for step in 0..40 {
            arrivals.saw(now + MILLISECOND * 10 * step);
        }
        let later = now + MILLISECOND * 400;
        assert_eq!(arrivals.time_for(5, later), Some(MILLISECOND * 50));
        assert_eq!(arrivals.time_for(5, later + WINDOW * 2), None, "it has ended");
    }
}
