//! Logins: one for each store identity. A login is renewed before it expires and replaced when the
//! service rejects it.
//!
//! No task renews logins. Each request checks the clock first:
//!
//! ```text
//!   no session, or an expired one ─► log in; requests that arrive meanwhile wait for this login
//!   it expires soon ───────────────► one request renews it, the others use the old session
//!   otherwise ─────────────────────► use it
//! ```

mod session;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex as SyncMutex;
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, timeout},
};

pub use session::Session;

use crate::{ErrorKind, Operation, ProviderError};

/// Maximum time that a renewal delays the one request that makes it.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between a failed renewal and the next attempt.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);

/// How long a store counts as working after a successful request.
const WORKS_FOR: Duration = Duration::from_secs(300);

/// Minimum lifetime of a login. With a shorter one, every request would log in again.
const MIN_LIFETIME: Duration = Duration::from_secs(2);

/// A credential and its lifetime; `None` for a credential that does not expire.
pub type Grant<C> = (C, Option<Duration>);

/// Logs in. `Display` completes a message with the identity: `as role …`.
#[async_trait]
pub trait Authenticator: fmt::Display + Send + Sync {
    /// What a login returns: keys, or a token.
    type Credential: Send + Sync;

    /// Logs in. It reads what `auth` names again each time.
    ///
    /// # Errors
    /// `CredentialsUnavailable` when what `auth` names does not exist, `Unauthenticated` or
    /// `PermissionDenied` when the service refuses, and errors of the transport.
    async fn log_in(&self) -> Result<Grant<Self::Credential>, ProviderError>;

    /// Renews a credential before it expires. By default it logs in again.
    ///
    /// # Errors
    /// As [`Authenticator::log_in`]. The old credential stays in use.
    async fn renew(&self, current: &Self::Credential) -> Result<Grant<Self::Credential>, ProviderError> {
        let _ = current;
        self.log_in().await
    }

    /// The age at which a credential is renewed. By default five minutes before it expires, or at
    /// four fifths of its lifetime if that is later.
    fn renewal_age(&self, lifetime: Duration) -> Duration {
        session::renewal_age(lifetime)
    }
}

/// The error of a request that is sent with a login. A failed login becomes one.
pub trait CallError: From<ProviderError> {
    /// Whether a new credential of the same identity may help.
    fn is_of_credentials(&self) -> bool;

    /// Whether the error does not mean that the store is failing: something is missing or not
    /// granted. In a request for several items, it can be about one of them.
    fn is_an_answer(&self) -> bool;
}

/// The state that the lock on logging in protects.
#[derive(Default)]
struct Refresh {
    /// Error of the last login, for the requests that waited for it.
    failure: Option<ProviderError>,
    /// No renewal before this time.
    not_before: Option<Instant>,
}

/// The one login of a store identity.
pub struct Login<A: Authenticator> {
    authenticator: A,
    current: SyncMutex<Option<Arc<Session<A::Credential>>>>,
    refresh: Mutex<Refresh>,
    /// Logins and renewals that have ended, successful or not.
    attempts: AtomicU64,
    /// Time of the last successful [`Login::call`]. `None` if one failed since because of the
    /// service or the credentials.
    worked: SyncMutex<Option<Instant>>,
}

impl<A: Authenticator> fmt::Debug for Login<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({})", self.authenticator)
    }
}

impl<A: Authenticator> Login<A> {
    /// Creates a login without a session.
    pub fn new(authenticator: A) -> Self {
        Self {
            authenticator,
            current: SyncMutex::default(),
            refresh: Mutex::default(),
            attempts: AtomicU64::new(0),
            worked: SyncMutex::default(),
        }
    }

    /// Returns the authenticator.
    pub fn authenticator(&self) -> &A {
        &self.authenticator
    }

    /// Returns the generation of the last session, or 0 before the first.
    pub fn generation(&self) -> u64 {
        self.current().map_or(0, |session| session.generation())
    }

    /// Returns a session that has not expired.
    ///
    /// # Errors
    /// The error of the login.
    pub async fn session(&self) -> Result<Arc<Session<A::Credential>>, ProviderError> {
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

    /// Returns a session of a later generation, after the service rejected the credential of this
    /// one. Requests that call this at the same time share one login, and its error.
    ///
    /// # Errors
    /// The error of the login.
    pub async fn replace(&self, generation: u64) -> Result<Arc<Session<A::Credential>>, ProviderError> {
        let seen = self.attempts.load(Ordering::Acquire);
        let mut refresh = self.refresh.lock().await;
        if let Some(session) = self.current()
            && session.generation() > generation
            && !session.has_ended(Instant::now())
        {
            return Ok(session);
        }
        // Another request tried while this one waited.
        if self.attempts.load(Ordering::Acquire) != seen
            && let Some(failure) = &refresh.failure
        {
            return Err(failure.clone());
        }
        let asked = Instant::now();
        match self.authenticator.log_in().await.and_then(usable) {
            Ok(grant) => Ok(self.keep(&mut refresh, grant, asked)),
            Err(error) => {
                self.attempts.fetch_add(1, Ordering::AcqRel);
                refresh.failure = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Sends a request of the store as [`Login::send`] does, and records whether the store works.
    ///
    /// # Errors
    /// As [`Login::send`].
    pub async fn call<T, E, F>(&self, request: impl Fn(A::Credential) -> F) -> Result<T, E>
    where
        A::Credential: Clone,
        E: CallError,
        F: Future<Output = Result<T, E>>,
    {
        let outcome = self.send(request).await;
        let works = match &outcome {
            Ok(_) => Some(Instant::now()),
            Err(error) if error.is_an_answer() => return outcome,
            Err(_) => None,
        };
        *self.worked.lock() = works;
        outcome
    }

    /// Returns whether a [`Login::call`] succeeded recently and none has failed since.
    pub fn works(&self) -> bool {
        let worked = *self.worked.lock();
        worked.is_some_and(|at| at.elapsed() < WORKS_FOR)
    }

    /// Sends a request with a credential, and once more with a new one if the service rejects it.
    ///
    /// # Errors
    /// The error of the request or of a login.
    pub async fn send<T, E, F>(&self, request: impl Fn(A::Credential) -> F) -> Result<T, E>
    where
        A::Credential: Clone,
        E: CallError,
        F: Future<Output = Result<T, E>>,
    {
        let session = self.session().await?;
        let outcome = request(session.credential.clone()).await;
        if !outcome.as_ref().is_err_and(E::is_of_credentials) {
            return outcome;
        }
        let fresh = self.replace(session.generation()).await?;
        request(fresh.credential.clone()).await
    }

    fn current(&self) -> Option<Arc<Session<A::Credential>>> {
        self.current.lock().clone()
    }

    /// Makes a grant the current session. `asked` is when it was requested.
    fn keep(
        &self,
        refresh: &mut Refresh,
        (credential, lifetime): Grant<A::Credential>,
        asked: Instant,
    ) -> Arc<Session<A::Credential>> {
        let generation = self.attempts.fetch_add(1, Ordering::AcqRel) + 1;
        let renewal_age = |lifetime| self.authenticator.renewal_age(lifetime);
        let session = Arc::new(Session::new(credential, generation, lifetime, asked, renewal_age));
        *self.current.lock() = Some(Arc::clone(&session));
        *refresh = Refresh::default();
        session
    }

    /// Renews while the old session still works. If the renewal fails, the old session stays in
    /// use.
    async fn renew(
        &self,
        mut refresh: MutexGuard<'_, Refresh>,
        session: Arc<Session<A::Credential>>,
    ) -> Arc<Session<A::Credential>> {
        if let Some(current) = self.current()
            && current.generation() != session.generation()
        {
            return current;
        }
        // Set first: a cancelled renewal must not be repeated by every request.
        refresh.not_before = Some(Instant::now() + RENEWAL_PAUSE);
        let asked = Instant::now();
        match timeout(RENEWAL_TIMEOUT, self.authenticator.renew(&session.credential)).await {
            Ok(Ok(grant)) => self.keep(&mut refresh, grant, asked),
            Ok(Err(error)) => {
                tracing::warn!(%error, "could not renew a login; the current one is used until it expires");
                session
            }
            Err(_) => session,
        }
    }
}

/// Rejects a login that has expired, or is about to.
fn usable<C>((credential, lifetime): Grant<C>) -> Result<Grant<C>, ProviderError> {
    match lifetime.filter(|lifetime| *lifetime < MIN_LIFETIME) {
        None => Ok((credential, lifetime)),
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
