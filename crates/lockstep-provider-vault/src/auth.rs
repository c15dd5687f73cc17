//! Sends requests with a valid token. [`Login`] keeps the token, and replaces it when the server no
//! longer accepts it.
//!
//! A server returns 403 both when a policy denies the request and when it no longer knows the
//! token. `lookup-self` distinguishes the two: if the token is gone, there is one login and one
//! repetition.

use std::{fmt, sync::Arc, time::Duration};

use lockstep_provider::{Credentials, ErrorKind, Login, Operation, ProviderError};
use reqwest::header::HeaderValue;
use rustify::Endpoint;
use tokio::{sync::Mutex, time::Instant};
use vaultrs::api::token::requests::LookupTokenSelfRequest;

use crate::{
    answer::Answer,
    client::{Client, Connection},
    config::Method,
    credential::describe,
    error::Purpose,
    login::{Grant, VaultAuthenticator},
};

/// A session whose token is in use.
type Session = lockstep_provider::Session<Grant>;

/// How long a token counts as known to the server after a successful lookup.
const VERIFIED_FOR: Duration = Duration::from_secs(2);
/// How long a denial is attributed to a policy after a lookup did not know even a new token:
/// lookups on this server are not reliable, and each would cost a login.
const LOOKUP_PAUSE: Duration = Duration::from_secs(60);

/// What is known about a token whose request was denied.
#[derive(Default)]
struct Suspicion {
    /// The generation that the server confirmed last, and when.
    verified: Option<(u64, Instant)>,
    /// Lookups are skipped until then.
    pause_until: Option<Instant>,
}

/// Sends requests with a valid token.
pub(crate) struct Authenticated {
    login: Login<VaultAuthenticator>,
    suspicion: Mutex<Suspicion>,
}

impl fmt::Debug for Authenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authenticated({})", self.login.authenticator())
    }
}

impl Authenticated {
    pub(crate) fn new(client: Client, method: Method, credentials: Arc<dyn Credentials>) -> Self {
        let authenticator = VaultAuthenticator {
            client,
            method,
            credentials,
        };
        Self {
            login: Login::new(authenticator),
            suspicion: Mutex::default(),
        }
    }

    fn client(&self) -> &Client {
        &self.login.authenticator().client
    }

    fn method(&self) -> &Method {
        &self.login.authenticator().method
    }

    /// Returns the server and the namespace that leases belong to.
    pub(crate) fn origin(&self) -> String {
        self.client().origin()
    }

    /// Returns whether the server has at least the state of this client's last login or new token
    /// when it answers.
    pub(crate) fn is_proven(&self) -> bool {
        self.client().is_proven()
    }

    /// Returns the identity as messages show it.
    pub(crate) fn identity(&self) -> String {
        self.method().to_string()
    }

    /// Sends a request. If the server no longer accepts the token, logs in and repeats the request
    /// once.
    ///
    /// # Errors
    /// The errors of the login and the transport. A denial is a response, not an error.
    pub(crate) async fn send<E: Endpoint>(
        &self,
        operation: Operation,
        endpoint: &E,
    ) -> Result<Answer, ProviderError> {
        let session = self.login.session().await?;
        let answer = self
            .client()
            .send(operation, endpoint, Some(&session.credential.token))
            .await?;
        // A 403 from a gateway says nothing about the token.
        if !is_denial(&answer) || answer.envelope().is_none() || !self.is_gone(&session).await? {
            return Ok(answer);
        }
        let fresh = self.replace(&session).await?;
        let answer = self
            .client()
            .send(operation, endpoint, Some(&fresh.credential.token))
            .await?;
        if is_denial(&answer)
            && let Ok(Known::No) = self.look_up(&fresh, Operation::Check).await
        {
            let until = Instant::now() + LOOKUP_PAUSE;
            self.suspicion.lock().await.pause_until = Some(until);
        }
        Ok(answer)
    }

    /// Sends a request once with the given token.
    ///
    /// # Errors
    /// The errors of the transport.
    pub(crate) async fn send_with<E: Endpoint>(
        &self,
        operation: Operation,
        endpoint: &E,
        token: &HeaderValue,
    ) -> Result<Answer, ProviderError> {
        self.client().send(operation, endpoint, Some(token)).await
    }

    /// Opens a long-lived connection. If the server no longer accepts the token, logs in and tries
    /// once more.
    ///
    /// # Errors
    /// The errors of [`Authenticated::send`].
    pub(crate) async fn connect<E: Endpoint>(&self, endpoint: &E) -> Result<Connection, ProviderError> {
        let session = self.login.session().await?;
        let connection = self
            .client()
            .connect(endpoint, Some(&session.credential.token))
            .await?;
        let Connection::Refused(answer) = &connection else {
            return Ok(connection);
        };
        if !is_denial(answer) || answer.envelope().is_none() || !self.is_gone(&session).await? {
            return Ok(connection);
        }
        let fresh = self.replace(&session).await?;
        self.client()
            .connect(endpoint, Some(&fresh.credential.token))
            .await
    }

    /// Renews the token if it is due: a long-lived connection sends no requests that would do so.
    pub(crate) async fn keep_alive(&self) {
        // the next request that needs the token reports the error
        let _ = self.login.session().await;
    }

    /// Checks with the cheapest request that the server accepts the token.
    ///
    /// # Errors
    /// The error that the first read would return.
    pub(crate) async fn check(&self) -> Result<(), ProviderError> {
        let generation = self.login.generation();
        let session = self.login.session().await?;
        let static_token = matches!(self.method(), Method::Token(_));
        if !static_token && session.generation() != generation {
            return Ok(());
        }
        match self.look_up(&session, Operation::Check).await? {
            Known::Yes => Ok(()),
            Known::No => self.replace(&session).await.map(drop),
        }
    }

    /// Returns whether the server no longer knows a token whose request was denied. Requests that
    /// were denied at the same time share one lookup.
    async fn is_gone(&self, session: &Session) -> Result<bool, ProviderError> {
        let mut suspicion = self.suspicion.lock().await;
        let now = Instant::now();
        if self.login.generation() != session.generation() {
            return Ok(true);
        }
        let verified = suspicion.verified.is_some_and(|(generation, at)| {
            generation == session.generation() && now.duration_since(at) < VERIFIED_FOR
        });
        if verified || suspicion.pause_until.is_some_and(|until| now < until) {
            return Ok(false);
        }
        let known = self.look_up(session, Operation::Check).await?;
        if let Known::Yes = known {
            suspicion.verified = Some((session.generation(), Instant::now()));
        }
        Ok(matches!(known, Known::No))
    }

    async fn look_up(&self, session: &Session, operation: Operation) -> Result<Known, ProviderError> {
        let answer = self
            .client()
            .send(
                operation,
                &LookupTokenSelfRequest {},
                Some(&session.credential.token),
            )
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
                    .with_hint("Check that server is the address of Vault")),
            };
        }
        let failed = purpose.failed(&answer);
        match failed.kind {
            // A policy without `default` denies even this lookup, with a different message than for
            // an unknown token.
            ErrorKind::PermissionDenied if denied_by_policy(&answer) => Ok(Known::Yes),
            ErrorKind::PermissionDenied | ErrorKind::Unauthenticated => Ok(Known::No),
            // the lookup is about the token, not about a value
            ErrorKind::NotFound => Err(purpose.malformed(&answer, "is not about the token")),
            _ => Err(failed),
        }
    }

    /// Logs in to replace a token that the server no longer accepts.
    async fn replace(&self, useless: &Session) -> Result<Arc<Session>, ProviderError> {
        let fresh = self.login.replace(useless.generation()).await?;
        if let Method::Token(reference) = self.method()
            && fresh.credential.token == useless.credential.token
        {
            let message = format!("the server rejected the token from {}", describe(reference));
            return Err(
                ProviderError::new(ErrorKind::Unauthenticated, Operation::Login, message).with_hint(
                    "The token expired, was revoked, or belongs to another server or namespace. Put a valid token into the Secret",
                ),
            );
        }
        Ok(fresh)
    }
}

/// Whether the server knows a token.
enum Known {
    Yes,
    No,
}

fn is_denial(answer: &Answer) -> bool {
    matches!(answer.status, 401 | 403)
}

/// Returns whether the server evaluated policies to deny the request. It then counts its errors;
/// for an unknown token it does not, or names the token. If a server uses another wording, the
/// result is an unnecessary login, not a wrong response.
fn denied_by_policy(answer: &Answer) -> bool {
    answer.has_error_containing("error occurred")
        && !answer.has_error_containing("invalid token")
        && !answer.has_error_containing("bad token")
}
