//! A token in use, and what the clock says of it.

use std::time::Duration;

use reqwest::header::HeaderValue;
use tokio::time::Instant;

use crate::login::Grant;

/// A token in use.
pub(crate) struct Session {
    /// Which login it came from: they are counted.
    pub(crate) generation: u64,
    /// The token's header.
    pub(crate) token: HeaderValue,
    /// Whether it can be renewed.
    pub(crate) renewable: bool,
    /// How long it lives from login or renewal on; zero is for ever.
    pub(crate) lease: Duration,
    /// `None`: never.
    renew_at: Option<Instant>,
    /// `None`: never.
    ends_at: Option<Instant>,
}

impl Session {
    /// Of a grant that was asked for at this time: the server began to count no earlier.
    pub(crate) fn new(grant: Grant, generation: u64, asked: Instant) -> Self {
        let lease = Duration::from_secs(grant.lease_seconds);
        // A lease beyond what the clock can add is for ever.
        let after = |wait: Duration| (!lease.is_zero()).then(|| asked.checked_add(wait)).flatten();
        Self {
            generation,
            token: grant.token,
            renewable: grant.renewable,
            lease,
            renew_at: after(lease / 3 * 2),
            ends_at: after(lease),
        }
    }

    /// Whether its life is over.
    pub(crate) fn has_ended(&self, now: Instant) -> bool {
        self.ends_at.is_some_and(|end| now >= end)
    }

    /// Whether two thirds of its life are over.
    pub(crate) fn wants_renewal(&self, now: Instant) -> bool {
        self.renew_at.is_some_and(|at| now >= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(lease_seconds: u64, asked: Instant) -> Session {
        let grant = Grant {
            token: HeaderValue::from_static("s.token"),
            lease_seconds,
            renewable: true,
        };
        Session::new(grant, 1, asked)
    }

    #[test]
    fn a_token_wants_renewal_after_two_thirds_of_its_life_and_ends_with_it() {
        let asked = Instant::now();
        let session = session(30, asked);
        for (seconds, wants_renewal, has_ended) in [
            (0, false, false),
            (19, false, false),
            (20, true, false),
            (29, true, false),
            (30, true, true),
        ] {
            let now = asked + Duration::from_secs(seconds);
            assert_eq!(session.wants_renewal(now), wants_renewal, "{seconds}");
            assert_eq!(session.has_ended(now), has_ended, "{seconds}");
        }
    }

    #[test]
    fn a_lease_of_zero_or_of_more_than_the_clock_can_add_is_for_ever() {
        let asked = Instant::now();
        for lease in [0, u64::MAX] {
            let session = session(lease, asked);
            let later = asked + Duration::from_secs(1 << 40);
            assert!(
                !session.wants_renewal(later) && !session.has_ended(later),
                "{lease}"
            );
        }
    }
}
