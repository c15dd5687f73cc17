//! The circuit breaker of a store that does not respond. A pure state machine; the current time is
//! an argument.
//!
//! ```text
//!   3 × consecutive Timeout, Unavailable or rejected login
//!   open ─────────────────────────────────────▶ broken
//!    ▲                                            │ 1 s … 30 s, jittered
//!    │ trial got a response                       ▼
//!    └──────────────────────────────────────── one trial
//!                 trial got no response ─▶ broken, twice as long
//! ```
//!
//! Throttling counts as a response: see `holds` and `adaptive`.
//!
//! Rejected credentials are retried less and less often, up to five minutes apart. Otherwise a
//! thousand SyncedSecrets of one store could look like someone guessing passwords and lock the
//! account. New credentials are another store identity, with its own gate.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

use crate::ErrorKind;

/// Number of consecutive requests without a response that break the circuit.
const FAILURES: u32 = 3;
/// The first wait of the broken circuit. Jitter up to doubles it, so the longest is 30 s.
const BREAK: Duration = Duration::from_secs(1);
const BREAK_MAX: Duration = Duration::from_secs(15);
/// Like [`BREAK_MAX`], for rejected credentials: the longest wait is 5 min.
const REFUSED_MAX: Duration = Duration::from_secs(150);

/// What a request shows about the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The store responded.
    Answer,
    /// Nothing about the login: the request may have failed before it reached the store.
    Unsent,
    /// The store did not respond.
    NoAnswer(ErrorKind),
    /// The store rejected the login.
    Refused(ErrorKind),
}

/// The gate's decision about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The request may be sent.
    Pass,
    /// The request may be sent, as the one that finds out whether the store responds again.
    Trial,
    /// The store does not respond. Contains the kind of its last failure, and how long requests are
    /// paused.
    Broken(ErrorKind, Duration),
}

#[derive(Debug)]
pub(super) struct Gate {
    failures: u32,
    /// Whether the last failure was a rejected login.
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
    /// Returns the decision for a request, without admitting it.
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

    /// Decides whether a request may be sent. A [`Verdict::Trial`] must be followed by
    /// [`Gate::record`] or [`Gate::give_up_trial`].
    pub(super) fn admit(&mut self, now: Instant) -> Verdict {
        let verdict = self.verdict(now);
        if let (Verdict::Trial, Some(broken)) = (verdict, &mut self.broken) {
            broken.trial = true;
        }
        verdict
    }

    /// Ends a trial without an outcome. The next request becomes the trial.
    pub(super) fn give_up_trial(&mut self) {
        if let Some(broken) = &mut self.broken {
            broken.trial = false;
        }
    }

    /// Records the outcome of a request. Returns by how much the pause of the store was extended.
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
            // It was in flight when the circuit broke, so it adds no information.
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
    fn rejected_credentials_are_retried_less_and_less_often() {
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
    fn three_failures_break_the_circuit_and_one_trial_passes() {
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
    fn failed_trials_back_off_up_to_half_a_minute() {
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
    fn failures_in_flight_do_not_extend_the_pause() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let waits: Vec<_> = (0..16).map(|_| gate.record(now, UNAVAILABLE)).collect();
        assert_eq!(waits.iter().filter(|wait| !wait.is_zero()).count(), 1);
    }

    #[test]
    fn response_resets_the_failure_count() {
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
    fn unsent_request_does_not_reset_rejected_logins() {
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
    fn abandoned_trial_passes_to_the_next_request() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let wait = (0..3).map(|_| gate.record(now, UNAVAILABLE)).max().unwrap();
        let now = now + wait;
        assert_eq!(gate.admit(now), Verdict::Trial);
        gate.give_up_trial();
        assert_eq!(gate.admit(now), Verdict::Trial);
    }
}
