//! Distribution of a store's calls over refresh cycles: the number in each, and how evenly they are
//! spread.

use std::time::Duration;

use serde::Serialize;

/// Number of equal parts of a cycle. Evenly spread calls put a tenth in each.
const PARTS: u32 = 10;
/// Maximum share of the calls of a cycle in one part. The slots of a store are at most a tenth of
/// the cycle apart. If a boundary falls into a slot, a part can contain two slots, and fuller slots
/// more than their share.
pub(super) const SHARE_MAX: f64 = 0.3;

/// Number of calls so far at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Time since the first sample.
    pub(super) at: Duration,
    pub(super) calls: u64,
}

/// One complete cycle.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Round {
    pub(crate) calls: u64,
    /// Share of its calls in the fullest tenth, from 0 to 1.
    pub(crate) largest_share: f64,
}

/// Returns the complete cycles that the samples cover, starting at the first sample.
pub(super) fn of(samples: &[Sample], interval: Duration) -> Vec<Round> {
    let Some(covered) = samples.last().map(|sample| sample.at) else {
        return Vec::new();
    };
    let calls_at = |at: Duration| {
        let later = samples.partition_point(|sample| sample.at <= at);
        // calls before the first sample belong to no cycle
        samples
            .get(later.saturating_sub(1))
            .map_or(0, |sample| sample.calls)
    };
    let mut rounds = Vec::new();
    let mut begin = Duration::ZERO;
    while !interval.is_zero() && begin + interval <= covered {
        let parts: Vec<u64> = (0..PARTS)
            .map(|part| {
                let at = |part| calls_at(begin + interval * part / PARTS);
                at(part + 1) - at(part)
            })
            .collect();
        let calls: u64 = parts.iter().sum();
        let most = parts.into_iter().max().unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "counts of calls")]
        let largest_share = most as f64 / calls.max(1) as f64;
        rounds.push(Round { calls, largest_share });
        begin += interval;
    }
    rounds
}

/// Returns the largest share of all cycles; `None` without a complete cycle.
pub(super) fn largest_share(rounds: &[Round]) -> Option<f64> {
    rounds.iter().map(|round| round.largest_share).reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(15);

    /// Samples every 50 ms for so long, of calls at these times.
    fn samples(seconds: u64, calls: &[Duration]) -> Vec<Sample> {
        (0..=seconds * 20)
            .map(|step| {
                let at = Duration::from_millis(50 * step);
                let calls = calls.iter().filter(|call| **call <= at).count() as u64;
                Sample { at, calls }
            })
            .collect()
    }

    #[test]
    fn even_calls_put_a_tenth_in_each_part() {
        let calls: Vec<_> = (0..120)
            .map(|number| Duration::from_millis(500 * number + 20))
            .collect();
        let rounds = of(&samples(60, &calls), INTERVAL);
        assert_eq!(rounds.len(), 4);
        for round in rounds {
            assert_eq!(round.calls, 30);
            assert!((round.largest_share - 0.1).abs() < 1e-9, "{round:?}");
        }
    }

    #[test]
    fn simultaneous_calls_have_a_large_share() {
        let mut calls = vec![Duration::from_millis(7_020); 45];
        calls.extend((0..5).map(|number| Duration::from_secs(2 * number + 1)));
        let rounds = of(&samples(15, &calls), INTERVAL);
        assert_eq!(rounds.len(), 1);
        assert_eq!(rounds[0].calls, 50);
        // one of the five comes at 7 s
        assert!(largest_share(&rounds).unwrap() >= 0.9);
    }

    #[test]
    fn calls_before_the_first_sample_are_ignored() {
        let samples: Vec<_> = (0..=300)
            .map(|step| Sample {
                at: Duration::from_millis(50 * step + 1),
                calls: 60 + step / 10,
            })
            .collect();
        let rounds = of(&samples, INTERVAL);
        assert_eq!(rounds.len(), 1);
        assert!(rounds[0].calls <= 30, "{rounds:?}");
    }

    #[test]
    fn incomplete_cycle_is_ignored() {
        let calls = [Duration::from_secs(1), Duration::from_secs(16)];
        assert_eq!(of(&samples(29, &calls), INTERVAL).len(), 1);
        assert!(of(&samples(14, &calls), INTERVAL).is_empty());
        assert!(of(&[], INTERVAL).is_empty());
        assert_eq!(largest_share(&[]), None);
    }

    #[test]
    fn cycle_without_calls_has_no_share() {
        let rounds = of(&samples(15, &[]), INTERVAL);
        assert_eq!(
            rounds,
            [Round {
                calls: 0,
                largest_share: 0.0
            }]
        );
    }
}
