//! Computes when an object is reconciled again. Jitter depends on the uid of the object, so it is
//! spread in a cluster and repeatable in tests.

use std::{
    hash::{Hash, Hasher},
    time::Duration,
};

use jiff::Timestamp;

use crate::{remote::Requeue, time::later};

/// Maximum delay of the recheck of an object that waits for a change. A shorter refresh interval
/// takes precedence.
pub const SLOW_RECHECK: Duration = Duration::from_secs(600);
/// Delay of the first recheck of an object that waits for a change. Each further delay doubles.
pub const FIRST_RECHECK: Duration = Duration::from_secs(15);
/// After a restart, objects in sync are refreshed within this time, or within their interval if it
/// is shorter.
pub const RESTART_SPREAD: Duration = Duration::from_secs(600);

/// FNV-1a with 64 bits. Unlike the hasher of the standard library, it is the same in every version
/// and on every machine.
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

/// Returns a hash for jitter. It must not be persisted.
fn hash(seeds: impl Hash) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    seeds.hash(&mut hasher);
    hasher.finish()
}

/// Returns a number in `0.0..1.0` that depends only on the seeds.
pub fn fraction(seeds: impl Hash) -> f64 {
    // the low bits of FNV are weak, so mix them before taking the upper 53
    let hash = hash(seeds);
    let mixed = hash ^ (hash >> 32);
    let mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double")]
    let fraction = (mixed >> 11) as f64 / (1_u64 << 53) as f64;
    fraction
}

/// Returns the time between two refreshes: the interval plus up to 10 %.
pub fn refresh(interval: Duration, uid: &str, round: u64) -> Duration {
    interval.mul_f64(1.0 + 0.1 * fraction((uid, round)))
}

/// Number of batches in one slot of a store. The last batch of a slot is rarely full, so fewer
/// batches would waste more calls. With more, a slot would take longer.
const BATCHES_PER_SLOT: usize = 5;

/// Groups objects of a store whose reads one request can serve. Objects with the same first key
/// share a batch key: they are refreshed in the same slot and are queued next to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchKey(u64);

impl BatchKey {
    /// Returns the batch key of all objects whose first key this is.
    pub fn of_key(key: &str) -> Self {
        Self::new(("key", key))
    }

    /// Returns the batch key of an object without a key that is known before its sync.
    pub fn of_object(uid: &str) -> Self {
        Self::new(("object", uid))
    }

    fn new(seed: impl Hash) -> Self {
        Self(hash(seed))
    }
}

/// Decides whether the refreshes of an object are aligned with those of other objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RefreshSchedule {
    /// The object is refreshed independently of others.
    #[default]
    Free,
    /// The object is refreshed in a slot with others of the same store, so that batches are full.
    Slots {
        /// The offset of the store's slots, so that slots of different stores are not aligned.
        seed: u64,
        /// The number of slots in one interval.
        slots: u32,
        /// The slot of this object, from 0.
        slot: u32,
    },
}

impl RefreshSchedule {
    /// Returns the refresh schedule of an object in a store with this number of members. `batch` is
    /// the maximum number of values that one call to the store reads.
    pub fn new(store: &str, members: usize, batch: usize, batch_key: BatchKey) -> Self {
        if batch <= 1 {
            return Self::Free;
        }
        let mut seed = Fnv(0xcbf2_9ce4_8422_2325);
        store.hash(&mut seed);
        let slots = members / (batch.saturating_mul(BATCHES_PER_SLOT));
        let slots = u32::try_from(slots).unwrap_or(u32::MAX).max(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the floor of a number from 0 to below the number of slots"
        )]
        let slot = (fraction(batch_key) * f64::from(slots)) as u32;
        Self::Slots {
            seed: seed.finish(),
            slots,
            slot,
        }
    }

    /// Returns the slot of the object, from 0; `None` if it is refreshed independently.
    pub const fn slot(self) -> Option<u32> {
        match self {
            Self::Free => None,
            Self::Slots { slot, .. } => Some(slot),
        }
    }
}

/// Returns the time of the next refresh. With slots, it is the time of the object's own slot, which
/// occurs once per interval. The first refresh is at least a tenth of the interval away. The later
/// ones are exactly an interval apart.
pub fn next_refresh(
    interval: Duration,
    uid: &str,
    round: u64,
    refresh_schedule: RefreshSchedule,
    now: Timestamp,
) -> Timestamp {
    let RefreshSchedule::Slots { seed, slots, slot } = refresh_schedule else {
        return later(now, refresh(interval, uid, round));
    };
    let phase = (f64::from(slot) / f64::from(slots) + fraction(seed)).fract();
    let length = i64::try_from(interval.as_millis())
        .unwrap_or(i64::MAX / 4)
        .clamp(1, i64::MAX / 4);
    let phase = i64::try_from(interval.mul_f64(phase).as_millis()).unwrap_or_default();
    let latest = later(now, interval.mul_f64(1.1)).as_millisecond();
    let due = latest - (latest - phase).rem_euclid(length);
    Timestamp::from_millisecond(due).unwrap_or(now)
}

/// Returns the time from the start of the operator to the first refresh of an object in sync.
pub fn first_after_restart(interval: Duration, uid: &str, process_seed: u64) -> Duration {
    interval
        .min(RESTART_SPREAD)
        .mul_f64(fraction((uid, process_seed)))
}

/// Returns the delay before a failed object is retried. `attempt` starts at 0.
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
        // A value that is fixed at its source is noticed as early as a new value would be. Some
        // changes cause no watch event, such as the deletion of someone else's Secret. They are
        // noticed by rechecks, whose delay doubles.
        Requeue::OnChange => exponential(FIRST_RECHECK, SLOW_RECHECK.min(interval)),
        Requeue::Quick if attempt == 0 => Duration::from_millis(500).mul_f64(1.0 + jitter),
        Requeue::Quick | Requeue::Backoff => exponential(Duration::from_secs(2), Duration::from_secs(300)),
        Requeue::RetryAfter => match retry_after {
            // spread the objects that wait for the same store over a quarter of the delay
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

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_790_000_000_000 + millis).unwrap()
    }

    #[test]
    fn slots_group_objects_of_a_store_and_spread_over_the_cycle() {
        let interval = Duration::from_secs(15);
        let batch_key = |number: i64| BatchKey::of_key(&format!("shop/{number}"));
        let refresh_schedule =
            |number| RefreshSchedule::new("SecretStore/shop/aws", 1000, 20, batch_key(number));
        assert_eq!(
            RefreshSchedule::new("SecretStore/shop/vault", 1000, 1, batch_key(0)),
            RefreshSchedule::Free
        );
        // the objects were synced at different times within a minute
        let mut slots = std::collections::BTreeMap::<i64, usize>::new();
        for number in 0..1000 {
            let uid = format!("uid-{number}");
            let refresh_schedule = refresh_schedule(number);
            let mut due = next_refresh(interval, &uid, 1, refresh_schedule, at(number * 60));
            // a refresh that is late by some milliseconds does not shift its slot
            for round in 2..6 {
                let fired = later(due, Duration::from_millis(37));
                let next = next_refresh(interval, &uid, round, refresh_schedule, fired);
                assert_eq!(next.as_millisecond() - due.as_millisecond(), 15_000);
                due = next;
            }
            *slots.entry(due.as_millisecond() % 15_000).or_default() += 1;
        }
        assert_eq!(slots.len(), 10);
        let calls: usize = slots.values().map(|objects| objects.div_ceil(20)).sum();
        assert!(calls <= 60, "{calls} calls for 1000 keys: {slots:?}");
    }

    #[test]
    fn objects_with_the_same_first_key_share_a_slot() {
        let refresh_schedule = |key: &str| RefreshSchedule::new("store", 5000, 20, BatchKey::of_key(key));
        assert_eq!(refresh_schedule("shop/a"), refresh_schedule("shop/a"));
        assert_ne!(BatchKey::of_key("shop/a"), BatchKey::of_key("shop/b"));
        assert_ne!(BatchKey::of_key("a"), BatchKey::of_object("a"));
    }

    #[test]
    fn slots_of_different_stores_differ() {
        let due = |store: &str| {
            let refresh_schedule = RefreshSchedule::new(store, 1, 20, BatchKey::of_object("uid"));
            next_refresh(Duration::from_secs(3600), "uid", 1, refresh_schedule, at(0)).as_millisecond()
        };
        let all: std::collections::BTreeSet<_> = (0..100).map(|n| due(&format!("store-{n}"))).collect();
        assert!(all.len() > 95);
    }

    proptest! {
        #[test]
        fn slot_is_between_a_tenth_and_eleven_tenths_of_the_interval(
            millis in 10_u64..10_000_000_000, uid in "[a-z]{1,8}", members in 0_usize..100_000, now in 0_i64..10_000_000_000
        ) {
            let interval = Duration::from_millis(millis);
            let refresh_schedule = RefreshSchedule::new("store", members, 20, BatchKey::of_key(&uid));
            let wait = next_refresh(interval, &uid, 1, refresh_schedule, at(now)).as_millisecond() - at(now).as_millisecond();
            let tenth = i64::try_from(millis / 10).unwrap();
            prop_assert!(wait >= tenth - 1, "{wait}");
            prop_assert!(wait <= tenth * 11 + 11, "{wait}");
        }
    }

    #[test]
    fn retry_after_of_the_backend_is_never_shortened() {
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
    fn wait_for_a_change_backs_off_up_to_the_interval() {
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
        fn fraction_is_between_zero_and_one(uid in ".*", seed in any::<u64>()) {
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
