//! Logins: one for each store identity, renewed before it ends, replaced when the service no longer takes it.
//!
//! There is no task that renews. Each request looks at the clock first:
//!
//! ```text
//!   no session, or it has ended ───► log in; whoever comes meanwhile waits for this one login
//!   it ends soon ──────────────────► one request logs in anew, the others go on with what they have
//!   otherwise ─────────────────────► use it
//! ```

mod session;

use std::{
    fmt,
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, timeout},
};

pub use session::Session;

use crate::{ErrorKind, Operation, ProviderError};

/// How long a renewal may hold up the one request that makes it.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How soon after a failed renewal the next is tried.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);

/// Minimum lifetime of a login. With a shorter one, every request would log in again.
const MIN_LIFETIME: Duration = Duration::from_secs(2);

/// What a login gives, and how long that lives; `None` for what has no end.
pub type Grant<T> = (T, Option<Duration>);

/// How to log in. `Display` says who does, as messages go on after what was done: `as role …`.
#[async_trait]
pub trait Door: fmt::Display + Send + Sync {
    /// What a login gives: credentials, or a token.
    type Key: Send + Sync;

    /// Logs in, anew each time.
    ///
    /// # Errors
    /// `CredentialsUnavailable` when what `auth` names is not there, `Unauthenticated` or `PermissionDenied` when the
    /// service refuses, and what the transport fails with.
    async fn log_in(&self) -> Result<Grant<Self::Key>, ProviderError>;
}

/// What whoever holds the right to log in knows.
#[derive(Default)]
struct Refresh {
    /// Why the last login failed, for those who waited for it.
    failure: Option<ProviderError>,
    /// No renewal before.
    not_before: Option<Instant>,
}

/// A login that is kept.
pub struct Login<D: Door> {
    door: D,
    current: StdMutex<Option<Arc<Session<D::Key>>>>,
    refresh: Mutex<Refresh>,
    /// Logins that have ended, well or badly.
    logins: AtomicU64,
}

impl<D: Door> fmt::Debug for Login<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({})", self.door)
    }
}

impl<D: Door> Login<D> {
    /// Nobody has logged in yet.
    pub fn new(door: D) -> Self {
        Self {
            door,
            current: StdMutex::default(),
            refresh: Mutex::default(),
            logins: AtomicU64::new(0),
        }
    }

    /// How to log in.
    pub fn door(&self) -> &D {
        &self.door
    }

    /// A session that has not ended.
    ///
    /// # Errors
    /// What the login fails with.
    pub async fn session(&self) -> Result<Arc<Session<D::Key>>, ProviderError> {
        let now = Instant::now();
        match self.current() {
            Some(session) if !session.has_ended(now) => {
                if session.wants_renewal(now)
                    && let Ok(refresh) = self.refresh.try_lock()
                    && refresh.not_before.is_none_or(|not_before| now >= not_before)
                {
                    return Ok(self.renew(refresh, session).await);
                }
                Ok(session)
            }
            ended => {
                self.replace(ended.map_or(0, |session| session.generation()))
                    .await
            }
        }
    }

    /// A session of a later login than that, for when the service does not take it any more.
    ///
    /// # Errors
    /// What the login fails with.
    pub async fn replace(&self, generation: u64) -> Result<Arc<Session<D::Key>>, ProviderError> {
        let seen = self.logins.load(Ordering::Acquire);
        let mut refresh = self.refresh.lock().await;
        if let Some(session) = self.current()
            && session.generation() > generation
            && !session.has_ended(Instant::now())
        {
            return Ok(session);
        }
        // Somebody tried while this one waited.
        if self.logins.load(Ordering::Acquire) != seen
            && let Some(failure) = &refresh.failure
        {
            return Err(failure.clone());
        }
        self.log_in(&mut refresh).await
    }

    fn current(&self) -> Option<Arc<Session<D::Key>>> {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn log_in(&self, refresh: &mut Refresh) -> Result<Arc<Session<D::Key>>, ProviderError> {
        let outcome = self.door.log_in().await.and_then(usable);
        let generation = self.logins.fetch_add(1, Ordering::AcqRel) + 1;
        match outcome {
            Ok((key, lifetime)) => {
                let session = Arc::new(Session::new(key, generation, lifetime, Instant::now()));
                *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&session));
                *refresh = Refresh::default();
                Ok(session)
            }
            Err(error) => {
                refresh.failure = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Logs in while the old session still works: whatever happens, there is one that does.
    async fn renew(
        &self,
        mut refresh: MutexGuard<'_, Refresh>,
        session: Arc<Session<D::Key>>,
    ) -> Arc<Session<D::Key>> {
        if let Some(current) = self.current()
            && current.generation() != session.generation()
        {
            return current;
        }
        // Noted first: a renewal that is given up must not be tried again by everybody at once.
        refresh.not_before = Some(Instant::now() + RENEWAL_PAUSE);
        match timeout(RENEWAL_TIMEOUT, self.log_in(&mut refresh)).await {
            Ok(Ok(session)) => session,
            Ok(Err(error)) => {
                tracing::warn!(%error, "a login could not be renewed; the one at hand is used until it ends");
                session
            }
            Err(_) => session,
        }
    }
}

/// Rejects a login that has expired, or is about to.
fn usable<T>((key, lifetime): Grant<T>) -> Result<Grant<T>, ProviderError> {
    match lifetime.filter(|lifetime| *lifetime < MIN_LIFETIME) {
        None => Ok((key, lifetime)),
        Some(lifetime) => Err(ProviderError::new(
            ErrorKind::Malformed,
            Operation::Login,
            format!(
                "the login expires {} seconds after it was issued. lockstep requires at least {}. Raise its lifetime, or check the clock of the server",
                lifetime.as_secs(),
                MIN_LIFETIME.as_secs()
            ),
        )),
    }
}

#[cfg(test)]
mod tests;
