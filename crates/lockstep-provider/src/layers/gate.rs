//! Whether a store may be asked at all: the circuit breaker after no answers. A pure state machine; the current time is an
//! argument.
//!
//! ```text
//!   3 × Timeout, Unavailable or a refused login in a row
//!   open ─────────────────────────────────────▶ broken
//!    ▲                                            │ 1 s … 30 s, jittered
//!    │ trial answered                             ▼
//!    └──────────────────────────────────────── one trial
//!                 trial not answered ─▶ broken, for twice as long
//! ```
//!
//! That a store asks to slow down is an answer: see `holds` and `adaptive`.
//!
//! Credentials that are refused are tried ever more seldom, up to five minutes apart: a thousand SyncedSecrets of one
//! store must not look like somebody who guesses passwords, and lock the account. Other credentials are another store
//! identity, with a gate of its own.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

use crate::ErrorKind;

/// Requests in a row without an answer that break the circuit.
const FAILURES: u32 = 3;
/// The first wait of the broken circuit; jitter adds up to as much again, so the longest is 30 s.
const BREAK: Duration = Duration::from_secs(1);
const BREAK_MAX: Duration = Duration::from_secs(15);
/// The same for credentials that are refused: the longest wait is 5 min.
const REFUSED_MAX: Duration = Duration::from_secs(150);

/// What a request shows about the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The store answered.
    Answer,
    /// Nothing about the login: the request may have failed before it reached the store.
    Unsent,
    /// The store did not answer.
    NoAnswer(ErrorKind),
    /// The store refused the login.
    Refused(ErrorKind),
}

/// What the gate says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go.
    Pass,
    /// Go, as the one that finds out whether the store answers again.
    Trial,
    /// The store does not answer; the kind of its last failure, and how long nobody asks it.
    Broken(ErrorKind, Duration),
}

#[derive(Debug)]
pub(super) struct Gate {
    failures: u32,
    /// Whether the last failure was a refused login.
    refused: bool,
    broken: Option<Broken>,
    waits: ExponentialBackoff,
    refused_waits: ExponentialBackoff,
}

#[derive(Debug)]
struct Broken {
    kind: ErrorKind,
    until: Instant,
    trial: bool,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            failures: 0,
            refused: false,
            broken: None,
            waits: waits(BREAK_MAX),
            refused_waits: waits(REFUSED_MAX),
        }
    }
}

fn waits(max: Duration) -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(BREAK)
        .with_max_delay(max)
        .with_jitter()
        .without_max_times()
        .build()
}

impl Gate {
    /// What a request would be told now.
    pub(super) fn verdict(&self, now: Instant) -> Verdict {
        match &self.broken {
            None => Verdict::Pass,
            Some(broken) if broken.until <= now && !broken.trial => Verdict::Trial,
            Some(broken) => Verdict::Broken(
                broken.kind,
                broken.until.saturating_duration_since(now).max(BREAK),
            ),
        }
    }

    /// Tells a request whether it may go out. A [`Verdict::Trial`] must be followed by [`Gate::record`] or
    /// [`Gate::give_up_trial`].
    pub(super) fn admit(&mut self, now: Instant) -> Verdict {
        let verdict = self.verdict(now);
        if let (Verdict::Trial, Some(broken)) = (verdict, &mut self.broken) {
            broken.trial = true;
        }
        verdict
    }

    /// The trial ended without an answer to learn from: the next request tries.
    pub(super) fn give_up_trial(&mut self) {
        if let Some(broken) = &mut self.broken {
            broken.trial = false;
        }
    }

    /// Records the outcome of a request. Returns for how much longer than before the store is now left alone.
    pub(super) fn record(&mut self, now: Instant, outcome: Outcome) -> Duration {
        match outcome {
            Outcome::NoAnswer(kind) => self.fail(now, kind, false),
            Outcome::Refused(kind) => self.fail(now, kind, true),
            // otherwise any tenant could end the pause with a key that is never sent
            Outcome::Unsent if self.refused => Duration::ZERO,
            Outcome::Unsent | Outcome::Answer => {
                *self = Self::default();
                Duration::ZERO
            }
        }
    }

    fn fail(&mut self, now: Instant, kind: ErrorKind, refused: bool) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.refused = refused;
        if let Some(broken) = &self.broken
            && !broken.trial
        {
            // It was in flight when the circuit broke: nothing new.
            return Duration::ZERO;
        }
        if self.failures < FAILURES {
            return Duration::ZERO;
        }
        let wait = if refused {
            self.refused_waits.next().unwrap_or(REFUSED_MAX)
        } else {
            self.waits.next().unwrap_or(BREAK_MAX)
        };
        self.broken = Some(Broken {
            kind,
            until: now + wait,
            trial: false,
        });
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNAVAILABLE: Outcome = Outcome::NoAnswer(ErrorKind::Unavailable);
    const REFUSED: Outcome = Outcome::Refused(ErrorKind::Unauthenticated);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn credentials_that_are_refused_are_tried_ever_more_seldom() {
        let (mut gate, mut now) = (Gate::default(), Instant::now());
        for _ in 0..FAILURES {
            assert_eq!(gate.verdict(now), Verdict::Pass);
            gate.record(now, REFUSED);
        }
        let mut waits = Vec::new();
        for _ in 0..12 {
            let Verdict::Broken(ErrorKind::Unauthenticated, left) = gate.verdict(now) else {
                panic!("the store is left alone");
            };
            waits.push(left);
            now += left;
            assert_eq!(gate.admit(now), Verdict::Trial);
            gate.record(now, REFUSED);
        }
        assert!(waits[0] <= seconds(2), "{waits:?}");
        assert!(waits[11] >= REFUSED_MAX && waits[11] <= seconds(300), "{waits:?}");
        assert_eq!(gate.admit(now + seconds(300)), Verdict::Trial);
        gate.record(now + seconds(300), Outcome::Answer);
        assert_eq!(gate.verdict(now + seconds(300)), Verdict::Pass);
    }

    #[test]
    fn three_requests_without_an_answer_break_the_circuit_and_one_trial_goes_through() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        gate.record(now, UNAVAILABLE);
        gate.record(now, UNAVAILABLE);
        assert_eq!(gate.admit(now), Verdict::Pass);
        let wait = gate.record(now, UNAVAILABLE);
        assert!(wait >= seconds(1) && wait <= seconds(2), "{}", wait.as_secs_f64());
        assert_eq!(gate.admit(now), Verdict::Broken(ErrorKind::Unavailable, wait));
        let now = now + wait;
        assert_eq!(gate.admit(now), Verdict::Trial);
        assert!(
            matches!(gate.admit(now), Verdict::Broken(..)),
            "one trial at a time"
        );
        gate.record(now, Outcome::Answer);
        assert_eq!(gate.admit(now), Verdict::Pass);
    }

    #[test]
    fn failed_trials_wait_longer_and_longer_up_to_half_a_minute() {
        let (mut gate, mut now) = (Gate::default(), Instant::now());
        let mut waits = Vec::new();
        gate.record(now, UNAVAILABLE);
        gate.record(now, UNAVAILABLE);
        for _ in 0..8 {
            let wait = gate.record(now, Outcome::NoAnswer(ErrorKind::Timeout));
            waits.push(wait);
            now += wait;
            assert_eq!(gate.admit(now), Verdict::Trial);
        }
        assert!(
            waits.windows(2).take(3).all(|pair| pair[0] <= pair[1]),
            "they grow"
        );
        assert!(waits.iter().all(|wait| *wait >= BREAK && *wait <= 2 * BREAK_MAX));
        assert!(waits[7] >= BREAK_MAX);
    }

    #[test]
    fn failures_that_were_in_flight_when_the_circuit_broke_do_not_lengthen_it() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let waits: Vec<_> = (0..16).map(|_| gate.record(now, UNAVAILABLE)).collect();
        assert_eq!(waits.iter().filter(|wait| !wait.is_zero()).count(), 1);
    }

    #[test]
    fn an_answer_ends_a_row_of_failures() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        for failure in [UNAVAILABLE, REFUSED] {
            for _ in 0..3 {
                gate.record(now, failure);
                gate.record(now, failure);
                assert_eq!(gate.record(now, Outcome::Answer), Duration::ZERO);
            }
        }
        assert_eq!(gate.verdict(now), Verdict::Pass);
    }

    #[test]
    fn request_that_was_not_sent_ends_no_row_of_refused_logins() {
        let (mut gate, mut now) = (Gate::default(), Instant::now());
        gate.record(now, REFUSED);
        gate.record(now, Outcome::Unsent);
        gate.record(now, REFUSED);
        gate.record(now, Outcome::Unsent);
        let wait = gate.record(now, REFUSED);
        assert!(!wait.is_zero());
        now += wait;
        assert_eq!(gate.admit(now), Verdict::Trial);
        gate.record(now, Outcome::Unsent);
        gate.give_up_trial();
        assert_eq!(gate.admit(now), Verdict::Trial, "the next request tries");
        assert!(gate.record(now, REFUSED) >= 2 * BREAK, "the pause grows");
    }

    #[test]
    fn a_trial_that_is_given_up_leaves_the_turn_to_the_next() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let wait = (0..3).map(|_| gate.record(now, UNAVAILABLE)).max().unwrap();
        let now = now + wait;
        assert_eq!(gate.admit(now), Verdict::Trial);
        gate.give_up_trial();
        assert_eq!(gate.admit(now), Verdict::Trial);
    }
}
