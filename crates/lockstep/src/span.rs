//! Human-readable durations and ages.

use jiff::Timestamp;

/// Returns the age of a time.
pub(crate) fn age(since: Option<Timestamp>, now: Timestamp) -> Option<String> {
    since.map(|since| between(since, now))
}

/// Returns the duration between two times.
pub(crate) fn between(since: Timestamp, until: Timestamp) -> String {
    human(until.duration_since(since).as_secs())
}

/// Formats a duration in the largest unit that fits at least twice.
pub(crate) fn human(seconds: i64) -> String {
    let seconds = seconds.max(0);
    for (unit, size) in [("d", 86_400), ("h", 3_600), ("m", 60)] {
        if seconds >= 2 * size {
            return format!("{}{unit}", seconds / size);
        }
    }
    format!("{seconds}s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn span_uses_the_largest_unit_that_fits_twice() {
        for (seconds, says) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7_199, "119m"),
            (7_200, "2h"),
            (200_000, "2d"),
            (-5, "0s"),
        ] {
            assert_eq!(human(seconds), says);
        }
    }
}
