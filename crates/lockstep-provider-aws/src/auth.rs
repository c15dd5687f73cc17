//! The credentials: one login per store identity, renewed before it ends, replaced when the service no longer takes it.
//!
//! There is no task that renews. Each request looks at the clock first:
//!
//! ```text
//!   no credentials, or they have ended ──► log in; whoever comes meanwhile waits for this one login
//!   they end soon ───────────────────────► one request logs in anew, the others go on with what they have
//!   otherwise ───────────────────────────► use them
//! ```

use std::{
    fmt,
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_credential_types::Credentials as Key;
use lockstep_provider::{Credentials, ProviderError};
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, timeout},
};

use crate::{error::Failed, login::Door, session::Session};

/// How long a renewal may hold up the one request that makes it.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How soon after a failed renewal the next is tried.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);

/// What whoever holds the right to log in knows.
#[derive(Default)]
struct Refresh {
    /// Why the last login failed, for those who waited for it.
    failure: Option<ProviderError>,
    /// No renewal before.
    not_before: Option<Instant>,
}

/// Credentials that work.
pub(crate) struct Identity {
    door: Door,
    credentials: Arc<dyn Credentials>,
    current: StdMutex<Option<Arc<Session>>>,
    refresh: Mutex<Refresh>,
    /// Logins that have ended, well or badly.
    logins: AtomicU64,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.door)
    }
}

impl Identity {
    pub(crate) fn new(door: Door, credentials: Arc<dyn Credentials>) -> Self {
        Self {
            door,
            credentials,
            current: StdMutex::default(),
            refresh: Mutex::default(),
            logins: AtomicU64::new(0),
        }
    }

    /// Who asks, as messages name it.
    pub(crate) fn describe(&self) -> String {
        self.door.to_string()
    }

    /// Credentials that have not ended.
    ///
    /// # Errors
    /// What the login fails with.
    pub(crate) async fn session(&self) -> Result<Arc<Session>, ProviderError> {
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
            ended => self.replace(ended.map_or(0, |session| session.generation)).await,
        }
    }

    /// Asks the token service who these credentials are of.
    ///
    /// # Errors
    /// What the service or the transport fails with.
    pub(crate) async fn who_am_i(&self, key: Key) -> Result<(), Failed> {
        self.door.who_am_i(key).await
    }

    /// Credentials of a later login than that.
    ///
    /// # Errors
    /// What the login fails with.
    pub(crate) async fn replace(&self, generation: u64) -> Result<Arc<Session>, ProviderError> {
        let seen = self.logins.load(Ordering::Acquire);
        let mut refresh = self.refresh.lock().await;
        if let Some(session) = self.current()
            && session.generation > generation
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

    fn current(&self) -> Option<Arc<Session>> {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn log_in(&self, refresh: &mut Refresh) -> Result<Arc<Session>, ProviderError> {
        let outcome = self.door.log_in(self.credentials.as_ref()).await;
        let generation = self.logins.fetch_add(1, Ordering::AcqRel) + 1;
        match outcome {
            Ok((credentials, lifetime)) => {
                let session = Arc::new(Session::new(credentials, generation, lifetime, Instant::now()));
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

    /// Logs in while the old credentials still work: whatever happens, there are some that do.
    async fn renew(&self, mut refresh: MutexGuard<'_, Refresh>, session: Arc<Session>) -> Arc<Session> {
        if let Some(current) = self.current()
            && current.generation != session.generation
        {
            return current;
        }
        // Noted first: a renewal that is given up must not be tried again by everybody at once.
        refresh.not_before = Some(Instant::now() + RENEWAL_PAUSE);
        match timeout(RENEWAL_TIMEOUT, self.log_in(&mut refresh)).await {
            Ok(Ok(session)) => session,
            Ok(Err(error)) => {
                tracing::warn!(%error, "credentials could not be renewed; those at hand are used until they end");
                session
            }
            Err(_) => session,
        }
    }
}
