use std::time::Duration;

use tokio::time::Instant;

/// Sessions are renewed this long before they expire, or at four fifths of their lifetime if that is later.
const AHEAD: Duration = Duration::from_secs(300);
/// A request never starts with a session that expires sooner.
const LEAST: Duration = Duration::from_secs(10);

/// The age at which a session is renewed.
pub(super) fn renewal_age(lifetime: Duration) -> Duration {
    lifetime.saturating_sub(AHEAD.min(lifetime / 5))
}

/// The credential of one login or renewal.
pub struct Session<C> {
    /// The credential.
    pub credential: C,
    generation: u64,
    renew_at: Option<Instant>,
    ends: Option<Instant>,
}

impl<C> Session<C> {
    /// A session whose credential was asked for at this time: the service started its lifetime no earlier. `None` for a
    /// credential that does not expire.
    pub(super) fn new(
        credential: C,
        generation: u64,
        lifetime: Option<Duration>,
        asked: Instant,
        renewal_age: impl FnOnce(Duration) -> Duration,
    ) -> Self {
        // Some thirty years stand for "never": the clock of the runtime cannot add without bound.
        let lifetime = lifetime.map(|lifetime| lifetime.min(Duration::from_secs(1 << 30)));
        Self {
            credential,
            generation,
            renew_at: lifetime.map(|lifetime| asked + renewal_age(lifetime)),
            ends: lifetime.map(|lifetime| asked + lifetime - LEAST.min(lifetime / 10)),
        }
    }

    /// The number of this session. Later sessions have larger numbers.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether it can no longer be used.
    pub(super) fn has_ended(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| now >= ends)
    }

    /// Whether it expires soon.
    pub(super) fn wants_renewal(&self, now: Instant) -> bool {
        self.renew_at.is_some_and(|renew_at| now >= renew_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(lifetime: Option<u64>, now: Instant) -> Session<()> {
        Session::new((), 1, lifetime.map(Duration::from_secs), now, renewal_age)
    }

    #[test]
    fn an_hour_is_renewed_five_minutes_before_its_end() {
        let now = Instant::now();
        let session = session(Some(3600), now);
        assert!(!session.wants_renewal(now + Duration::from_secs(3299)));
        assert!(session.wants_renewal(now + Duration::from_secs(3300)));
        assert!(!session.has_ended(now + Duration::from_secs(3589)));
        assert!(session.has_ended(now + Duration::from_secs(3590)));
    }

    #[test]
    fn a_short_life_is_renewed_at_four_fifths() {
        let now = Instant::now();
        let session = session(Some(100), now);
        assert!(!session.wants_renewal(now + Duration::from_secs(79)));
        assert!(session.wants_renewal(now + Duration::from_secs(80)));
        assert!(session.has_ended(now + Duration::from_secs(90)));
    }

    #[test]
    fn a_key_without_an_end_lives_for_ever_and_what_ended_before_it_came_has_ended() {
        let now = Instant::now();
        let far = now + Duration::from_secs(1 << 29);
        assert!(!session(None, now).has_ended(far) && !session(None, now).wants_renewal(far));
        assert!(!session(Some(u64::MAX), now).has_ended(far));
        assert!(session(Some(0), now).has_ended(now));
    }
}
