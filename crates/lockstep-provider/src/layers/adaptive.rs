//! The adaptive rate limit of a store, derived from its throttling responses. A pure state machine;
//! the current time is an argument.
//!
//! ```text
//!               throttled                          throttled again
//!   unlimited ───────────────▶ limited ◀────────────────────────────┐
//!      ▲                         │ │                                │
//!      │                         │ └── seven tenths of the rate, at least FLOOR
//!      └─────────────────────────┘
//!        the rate has grown to twice the rate at the first throttling
//! ```
//!
//! The limit starts at half of the rate observed at the first throttling response. From then on the
//! rate grows by a tenth of itself per second. Throttling responses to requests that were in flight
//! together count once: after a cut, further ones are ignored for as long as two requests take at
//! the new rate, but at least a quarter of a second.

use std::time::Duration;

use tokio::time::Instant;

/// The minimum rate, in requests per second. A store with less capacity keeps throttling, and is
/// asked at this rate anyway.
pub(super) const FLOOR: f64 = 10.0;
/// The factors for the rate after the first throttling response, and after each further one.
const FIRST_CUT: f64 = 0.5;
const CUT: f64 = 0.7;
/// The growth of the rate per second, relative to the rate and as a minimum.
const GAIN: f64 = 0.1;
const LEAST_GAIN: f64 = 1.0;
/// The limit is lifted at this multiple of the rate at the first throttling response.
const CLEAR: f64 = 2.0;
/// How long throttling responses are ignored after a cut.
const SETTLE_LEAST: Duration = Duration::from_millis(250);
const SETTLE_MOST: Duration = Duration::from_secs(2);
/// The window for observing the rate of an unlimited store.
const WINDOW: Duration = Duration::from_secs(1);

/// Whether a request may be sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Decision {
    /// The request may be sent, and is counted as sent.
    Send,
    /// The request must wait for this long.
    Wait(Duration),
}

/// The adaptive rate limit of one store.
#[derive(Debug, Default)]
pub(super) struct Adaptive {
    paced: Option<Paced>,
    /// Requests sent in this window and in the previous one.
    window: Option<Window>,
}

#[derive(Debug)]
struct Paced {
    /// The rate right after the last cut.
    base: f64,
    /// The time of the last cut.
    cut: Instant,
    /// The rate at the first throttling response.
    peak: f64,
    /// When the last request was sent.
    last: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    begun: Instant,
    count: u32,
    before: u32,
}

impl Paced {
    fn rate(&self, now: Instant) -> f64 {
        let gain = (self.base * GAIN).max(LEAST_GAIN);
        self.base + gain * now.saturating_duration_since(self.cut).as_secs_f64()
    }

    fn settles(&self, now: Instant) -> bool {
        let settle = Duration::from_secs_f64(2.0 / self.base).clamp(SETTLE_LEAST, SETTLE_MOST);
        now.saturating_duration_since(self.cut) < settle
    }
}

impl Adaptive {
    /// Returns the current limit in requests per second, or `None` if there is none.
    pub(super) fn rate(&self, now: Instant) -> Option<f64> {
        let paced = self.paced.as_ref()?;
        let rate = paced.rate(now);
        (rate < paced.peak * CLEAR).then_some(rate)
    }

    /// Decides whether a request may be sent now.
    pub(super) fn decide(&mut self, now: Instant) -> Decision {
        let Some(rate) = self.rate(now) else {
            self.paced = None;
            self.observe(now);
            return Decision::Send;
        };
        let last = self.paced.as_ref().and_then(|paced| paced.last);
        let next = last.map(|last| last + Duration::from_secs_f64(1.0 / rate));
        if let Some(next) = next.filter(|next| *next > now) {
            return Decision::Wait(next - now);
        }
        if let Some(paced) = &mut self.paced {
            paced.last = Some(now);
        }
        self.observe(now);
        Decision::Send
    }

    /// Records a throttling response.
    pub(super) fn complained(&mut self, now: Instant) {
        let rate = self.rate(now);
        match (&mut self.paced, rate) {
            (Some(paced), Some(_)) if paced.settles(now) => {}
            (Some(paced), Some(rate)) => {
                paced.base = (rate * CUT).max(FLOOR);
                paced.cut = now;
            }
            _ => {
                let peak = self.observed(now).max(FLOOR);
                self.paced = Some(Paced {
                    base: (peak * FIRST_CUT).max(FLOOR),
                    cut: now,
                    peak,
                    last: Some(now),
                });
            }
        }
    }

    /// Counts a request that is sent.
    fn observe(&mut self, now: Instant) {
        let window = self.window_at(now);
        self.window = Some(Window {
            count: window.count.saturating_add(1),
            ..window
        });
    }

    fn window_at(&self, now: Instant) -> Window {
        let fresh = |before| Window {
            begun: now,
            count: 0,
            before,
        };
        match self.window {
            None => fresh(0),
            Some(window) => match now.saturating_duration_since(window.begun) {
                age if age < WINDOW => window,
                age if age < WINDOW * 2 => fresh(window.count),
                _ => fresh(0),
            },
        }
    }

    /// Returns the recent rate in requests per second: the higher one of this window and the
    /// previous one.
    fn observed(&self, now: Instant) -> f64 {
        let window = self.window_at(now);
        f64::from(window.count.max(window.before)) / WINDOW.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// A server that accepts a fixed rate and throttles all other requests.
    struct Server {
        capacity: f64,
        tokens: f64,
        last: Instant,
    }

    impl Server {
        fn takes(&mut self, now: Instant) -> bool {
            let earned = now.saturating_duration_since(self.last).as_secs_f64() * self.capacity;
            self.tokens = (self.tokens + earned).min(self.capacity.max(1.0));
            self.last = now;
            let takes = self.tokens >= 1.0;
            if takes {
                self.tokens -= 1.0;
            }
            takes
        }
    }

    /// Sends requests as fast as the limit allows, and returns how many were accepted and how many
    /// throttled.
    fn ask(adaptive: &mut Adaptive, server: &mut Server, from: Instant, seconds: u64) -> (u32, u32) {
        let (mut now, until) = (from, from + Duration::from_secs(seconds));
        let (mut taken, mut refused) = (0, 0);
        while now < until {
            match adaptive.decide(now) {
                Decision::Wait(wait) => now += wait.max(MILLISECOND),
                Decision::Send => {
                    if server.takes(now) {
                        taken += 1;
                    } else {
                        refused += 1;
                        adaptive.complained(now);
                    }
                    now += MILLISECOND;
                }
            }
        }
        (taken, refused)
    }

    fn server(capacity: f64, now: Instant) -> Server {
        Server {
            capacity,
            tokens: capacity,
            last: now,
        }
    }

    #[test]
    fn store_that_never_throttles_is_never_limited() {
        let (mut adaptive, now) = (Adaptive::default(), Instant::now());
        for step in 0..10_000 {
            assert_eq!(adaptive.decide(now + MILLISECOND * (step / 10)), Decision::Send);
        }
        assert_eq!(adaptive.rate(now), None);
    }

    #[test]
    fn throttling_of_concurrent_requests_counts_once() {
        let (mut adaptive, now) = (Adaptive::default(), Instant::now());
        for _ in 0..100 {
            adaptive.decide(now);
        }
        for step in 0..16 {
            adaptive.complained(now + MILLISECOND * step);
        }
        assert_eq!(adaptive.rate(now), Some(50.0), "half of what was observed");
        let later = now + Duration::from_secs(1);
        let before = adaptive.rate(later).unwrap();
        adaptive.complained(later);
        assert!((adaptive.rate(later).unwrap() - before * 0.7).abs() < 0.01);
    }

    #[test]
    fn limit_recovers_even_without_requests() {
        let (mut adaptive, now) = (Adaptive::default(), Instant::now());
        for _ in 0..1000 {
            adaptive.decide(now);
        }
        for second in 0..100 {
            adaptive.complained(now + Duration::from_secs(second));
        }
        let cut = now + Duration::from_secs(99);
        assert!(adaptive.rate(cut).unwrap() < 20.0);
        assert!(adaptive.rate(cut + Duration::from_secs(3600)).is_none());
        assert_eq!(adaptive.decide(cut + Duration::from_secs(3600)), Decision::Send);
    }

    #[test]
    fn limit_uses_most_of_the_capacity_with_few_rejections() {
        for capacity in [10.0, 40.0, 200.0] {
            let (mut adaptive, now) = (Adaptive::default(), Instant::now());
            let mut server = server(capacity, now);
            ask(&mut adaptive, &mut server, now, 60);
            let (taken, refused) = ask(&mut adaptive, &mut server, now + Duration::from_secs(60), 120);
            let used = f64::from(taken) / (capacity * 120.0);
            assert!(used > 0.7, "{used} of {capacity} a second");
            let share = f64::from(refused) / f64::from(taken + refused);
            assert!(share < 0.1, "{share} refused at {capacity} a second");
        }
    }

    proptest! {
        #[test]
        fn limit_stays_in_bounds_and_every_request_gets_a_turn(
            steps in prop::collection::vec((prop_oneof![0u64..10, 0u64..3000], prop::bool::weighted(0.1)), 1..300)
        ) {
            let (mut adaptive, mut now) = (Adaptive::default(), Instant::now());
            let (mut left, mut fastest) = (Vec::new(), FLOOR);
            for (wait, complains) in steps {
                now += MILLISECOND * u32::try_from(wait).unwrap();
                if let Decision::Wait(wait) = adaptive.decide(now) {
                    prop_assert!(wait <= Duration::from_secs_f64(1.0 / FLOOR));
                    now += wait + MILLISECOND;
                    prop_assert_eq!(adaptive.decide(now), Decision::Send);
                }
                left.push(now);
                let lately = left.iter().filter(|left| now - **left <= WINDOW).count();
                fastest = f64::max(fastest, f64::from(u32::try_from(lately).unwrap()));
                if complains {
                    adaptive.complained(now);
                }
                if let Some(rate) = adaptive.rate(now) {
                    prop_assert!(rate >= FLOOR, "{}", rate);
                    prop_assert!(rate < CLEAR * fastest, "{} where {} was the fastest", rate, fastest);
                }
            }
        }
    }
}
