//! The token: one login per store identity, renewed before it ends, replaced when the server no longer takes it.
//!
//! There is no task that renews. Each request looks at the clock first:
//!
//! ```text
//!   no token, or it has ended ──► log in; concurrent requests wait for this one login
//!   past two thirds of its life ─► one request renews it or logs in again; the others use the old one
//!   otherwise ──────────────────► use it
//! ```
//!
//! A server says 403 both when a policy denies and when it no longer knows the token. `lookup-self` tells which: if
//! the token is gone, one login, one repetition.

use std::{
    fmt,
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lockstep_provider::{Credentials, ErrorKind, Operation, ProviderError};
use reqwest::header::HeaderValue;
use rustify::Endpoint;
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, timeout},
};
use vaultrs::api::token::requests::LookupTokenSelfRequest;

use crate::{
    answer::Answer,
    client::{Client, Connection},
    config::Method,
    credential::describe,
    endpoint::RenewSelf,
    error::{Purpose, cannot_serve},
    login::Grant,
    session::Session,
};

/// How long a renewal may hold up the one request that makes it.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How soon after a failed renewal the next is tried.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);
/// How long a token counts as known to the server after a lookup said so.
const VERIFIED_FOR: Duration = Duration::from_secs(2);
/// How long a denial is taken for a policy's after a lookup did not even know a token fresh from the login: this server's
/// lookups tell nothing, and each would cost a login.
const LOOKUP_PAUSE: Duration = Duration::from_secs(60);

/// State of the one request that logs in or renews.
#[derive(Default)]
struct Refresh {
    /// Why the last login failed, for those who waited for it.
    failure: Option<ProviderError>,
    /// No renewal before.
    not_before: Option<Instant>,
}

/// What is known of a token that was denied something.
#[derive(Default)]
struct Suspicion {
    /// This generation was known to the server at this time.
    verified: Option<(u64, Instant)>,
    /// Lookups tell nothing until then.
    pause_until: Option<Instant>,
}

/// Sends requests with a token that works.
pub(crate) struct Authenticated {
    client: Client,
    method: Method,
    credentials: Arc<dyn Credentials>,
    current: StdMutex<Option<Arc<Session>>>,
    refresh: Mutex<Refresh>,
    suspicion: Mutex<Suspicion>,
    /// Logins that have ended, well or badly.
    logins: AtomicU64,
}

impl fmt::Debug for Authenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authenticated({}, {})", self.client.server(), self.method)
    }
}

impl Authenticated {
    pub(crate) fn new(client: Client, method: Method, credentials: Arc<dyn Credentials>) -> Self {
        Self {
            client,
            method,
            credentials,
            current: StdMutex::default(),
            refresh: Mutex::default(),
            suspicion: Mutex::default(),
            logins: AtomicU64::new(0),
        }
    }

    /// The server and the namespace that leases are of.
    pub(crate) fn origin(&self) -> String {
        self.client.origin()
    }

    /// Who asks, as messages name it.
    pub(crate) fn identity(&self) -> String {
        self.method.to_string()
    }

    /// Sends a request, with one new login and one repetition if the server no longer takes the token.
    ///
    /// # Errors
    /// What the login or the transport fails with. A denial is an answer.
    pub(crate) async fn send<E: Endpoint>(
        &self,
        operation: Operation,
        endpoint: &E,
    ) -> Result<Answer, ProviderError> {
        let session = self.session().await?;
        let answer = self
            .client
            .send(operation, endpoint, Some(&session.token))
            .await?;
        // A gateway's own 403 says nothing of the token.
        if !is_denial(&answer) || answer.envelope().is_none() || !self.is_gone(&session).await? {
            return Ok(answer);
        }
        let fresh = self.replace(&session).await?;
        let answer = self.client.send(operation, endpoint, Some(&fresh.token)).await?;
        if is_denial(&answer)
            && let Ok(Known::No) = self.look_up(&fresh, Operation::Check).await
        {
            let until = Instant::now() + LOOKUP_PAUSE;
            self.suspicion.lock().await.pause_until = Some(until);
        }
        Ok(answer)
    }

    /// Sends a request with a token of its own, once.
    ///
    /// # Errors
    /// What the transport fails with.
    pub(crate) async fn send_with<E: Endpoint>(
        &self,
        operation: Operation,
        endpoint: &E,
        token: &HeaderValue,
    ) -> Result<Answer, ProviderError> {
        self.client.send(operation, endpoint, Some(token)).await
    }

    /// Makes a connection that stays, with one new login and one repetition if the server no longer takes the token.
    ///
    /// # Errors
    /// As [`Authenticated::send`].
    pub(crate) async fn connect<E: Endpoint>(&self, endpoint: &E) -> Result<Connection, ProviderError> {
        let session = self.session().await?;
        let connection = self.client.connect(endpoint, Some(&session.token)).await?;
        let Connection::Refused(answer) = &connection else {
            return Ok(connection);
        };
        if !is_denial(answer) || answer.envelope().is_none() || !self.is_gone(&session).await? {
            return Ok(connection);
        }
        let fresh = self.replace(&session).await?;
        self.client.connect(endpoint, Some(&fresh.token)).await
    }

    /// Renews the token if it is time to: a connection that stays makes no request that would.
    pub(crate) async fn keep_alive(&self) {
        // whatever is wrong with it, who needs it next is told
        let _ = self.session().await;
    }

    /// Whether the server takes the token: the cheapest request that there is.
    ///
    /// # Errors
    /// What the first read would fail with.
    pub(crate) async fn check(&self) -> Result<(), ProviderError> {
        let logins = self.logins.load(Ordering::Acquire);
        let session = self.session().await?;
        let static_token = matches!(self.method, Method::Token(_));
        if !static_token && self.logins.load(Ordering::Acquire) != logins {
            return Ok(());
        }
        match self.look_up(&session, Operation::Check).await? {
            Known::Yes => Ok(()),
            Known::No => self.replace(&session).await.map(drop),
        }
    }

    fn current(&self) -> Option<Arc<Session>> {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn keep(&self, session: Session) -> Arc<Session> {
        let session = Arc::new(session);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&session));
        session
    }

    /// A token that has not ended.
    async fn session(&self) -> Result<Arc<Session>, ProviderError> {
        let now = Instant::now();
        match self.current() {
            Some(session) if !session.has_ended(now) => {
                if session.wants_renewal(now)
                    && let Ok(refresh) = self.refresh.try_lock()
                {
                    return Ok(self.renew(refresh, now).await.unwrap_or(session));
                }
                Ok(session)
            }
            ended => self.log_in_once(ended.map(|session| session.generation)).await,
        }
    }

    /// Logs in, once for all who want it at the same time; they share the failure, too.
    async fn log_in_once(&self, useless: Option<u64>) -> Result<Arc<Session>, ProviderError> {
        let seen = self.logins.load(Ordering::Acquire);
        let mut refresh = self.refresh.lock().await;
        if let Some(session) = self.current()
            && Some(session.generation) != useless
            && !session.has_ended(Instant::now())
        {
            return Ok(session);
        }
        if self.logins.load(Ordering::Acquire) != seen
            && let Some(failure) = &refresh.failure
        {
            return Err(failure.clone());
        }
        self.log_in(&mut refresh).await
    }

    async fn log_in(&self, refresh: &mut MutexGuard<'_, Refresh>) -> Result<Arc<Session>, ProviderError> {
        let asked = Instant::now();
        let result = self.method.log_in(&self.client, self.credentials.as_ref()).await;
        let count = self.logins.fetch_add(1, Ordering::AcqRel) + 1;
        match result {
            Ok(grant) => {
                **refresh = Refresh::default();
                tracing::debug!(identity = %self.method, lease_seconds = grant.lease_seconds, "logged in to Vault");
                Ok(self.keep(Session::new(grant, count, asked)))
            }
            Err(error) => {
                refresh.failure = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Renews the token, or logs in again if it cannot be renewed or is renewed for much less than before. Returns `None` if the
    /// caller should continue with the current token.
    async fn renew(&self, mut refresh: MutexGuard<'_, Refresh>, now: Instant) -> Option<Arc<Session>> {
        let session = self.current()?;
        // Somebody else may have done it between the look at the clock and the lock.
        if !session.wants_renewal(now) || refresh.not_before.is_some_and(|at| now < at) {
            return None;
        }
        // Before the attempt, so that one that is given up in the middle counts.
        refresh.not_before = Some(now + RENEWAL_PAUSE);
        let attempt = async {
            let renewed = if session.renewable {
                self.renew_self(&session).await
            } else {
                Renewal::Refused
            };
            match renewed {
                Renewal::For(next) if next.lease >= session.lease / 2 => Some(self.keep(next)),
                Renewal::For(next) => {
                    // Its maximum is near. What was gained holds until the login has worked.
                    let kept = self.keep(next);
                    Some(self.log_in(&mut refresh).await.unwrap_or(kept))
                }
                Renewal::Refused => self.log_in(&mut refresh).await.ok(),
                Renewal::Unavailable => None,
            }
        };
        let renewed = timeout(RENEWAL_TIMEOUT, attempt).await.ok().flatten()?;
        refresh.not_before = None;
        Some(renewed)
    }

    async fn renew_self(&self, session: &Session) -> Renewal {
        let asked = Instant::now();
        let Ok(answer) = self
            .client
            .send(Operation::Renew, &RenewSelf {}, Some(&session.token))
            .await
        else {
            return Renewal::Unavailable;
        };
        match Grant::of(&answer, Operation::Renew) {
            Ok(grant) if answer.is_success() => {
                // The token stays, whatever the answer repeats.
                let grant = Grant {
                    token: session.token.clone(),
                    ..grant
                };
                Renewal::For(Session::new(grant, session.generation, asked))
            }
            _ if cannot_serve(Operation::Renew, &answer).is_some() => Renewal::Unavailable,
            _ => Renewal::Refused,
        }
    }

    /// Whether the server no longer knows a token that was denied something. Asked once for all who were denied at the
    /// same time.
    async fn is_gone(&self, session: &Session) -> Result<bool, ProviderError> {
        let mut suspicion = self.suspicion.lock().await;
        let now = Instant::now();
        if self
            .current()
            .is_some_and(|current| current.generation != session.generation)
        {
            return Ok(true);
        }
        let verified = suspicion.verified.is_some_and(|(generation, at)| {
            generation == session.generation && now.duration_since(at) < VERIFIED_FOR
        });
        if verified || suspicion.pause_until.is_some_and(|until| now < until) {
            return Ok(false);
        }
        let known = self.look_up(session, Operation::Check).await?;
        if let Known::Yes = known {
            suspicion.verified = Some((session.generation, Instant::now()));
        }
        Ok(matches!(known, Known::No))
    }

    async fn look_up(&self, session: &Session, operation: Operation) -> Result<Known, ProviderError> {
        let answer = self
            .client
            .send(operation, &LookupTokenSelfRequest {}, Some(&session.token))
            .await?;
        let purpose = Purpose {
            operation,
            doing: "looking up the token".to_owned(),
            identity: self.identity(),
            missing: "the server does not know tokens".to_owned(),
            mount: "auth/token".to_owned(),
            policy: None,
        };
        if answer.is_success() {
            return match answer.envelope() {
                Some(_) => Ok(Known::Yes),
                None => Err(purpose
                    .malformed(&answer, "is not Vault's JSON")
                    .with_hint("See that server is the address of Vault")),
            };
        }
        let failed = purpose.failed(&answer);
        match failed.kind {
            // A policy without `default` denies even this, and says so in another way than for a token that is gone.
            ErrorKind::PermissionDenied if denied_by_policy(&answer) => Ok(Known::Yes),
            ErrorKind::PermissionDenied | ErrorKind::Unauthenticated => Ok(Known::No),
            // it is the token that is looked for, and not the value
            ErrorKind::NotFound => Err(purpose.malformed(&answer, "is not about the token")),
            _ => Err(failed),
        }
    }

    /// A new token in place of one that the server no longer takes.
    async fn replace(&self, useless: &Session) -> Result<Arc<Session>, ProviderError> {
        let fresh = self.log_in_once(Some(useless.generation)).await?;
        if let Method::Token(reference) = &self.method
            && fresh.token == useless.token
        {
            let message = format!("the server does not take the token from {}", describe(reference));
            return Err(
                ProviderError::new(ErrorKind::Unauthenticated, Operation::Login, message).with_hint(
                    "It has ended, was revoked, or is of another server or namespace: put a valid one there",
                ),
            );
        }
        Ok(fresh)
    }
}

/// What came of a renewal.
enum Renewal {
    For(Session),
    Refused,
    Unavailable,
}

/// Whether the server knows a token.
enum Known {
    Yes,
    No,
}

fn is_denial(answer: &Answer) -> bool {
    matches!(answer.status, 401 | 403)
}

/// Whether the server evaluated policies to deny: it then counts its errors, which it does not for an unknown token,
/// unless it names that. On a server that words this otherwise it is one login too many, not a wrong answer.
fn denied_by_policy(answer: &Answer) -> bool {
    answer.complains_of("error occurred")
        && !answer.complains_of("invalid token")
        && !answer.complains_of("bad token")
}
