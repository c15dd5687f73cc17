//! Sends calls with a valid login. Every request for values goes through [`Caller::call`].

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use google_cloud_gax::error::Error;
use lockstep_provider::{Login, ProviderError};
use tokio::time::Instant;
use url::Url;

use crate::{client::Http, error::Failed, login::GcpAuthenticator, transport::Transport};

/// How long a store counts as working after a successful request.
const FRESH: Duration = Duration::from_secs(300);

/// Calls services with one identity.
pub(crate) struct Caller {
    http: Http,
    login: Login<GcpAuthenticator>,
    /// Time of the last successful request. `None` if a request failed since because of the service
    /// or the login.
    worked: Mutex<Option<Instant>>,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.login.fmt(f)
    }
}

impl Caller {
    pub(crate) fn new(http: Http, login: Login<GcpAuthenticator>) -> Arc<Self> {
        Arc::new(Self {
            http,
            login,
            worked: Mutex::default(),
        })
    }

    /// Returns the identity as messages name it.
    pub(crate) fn identity(&self) -> String {
        self.login.authenticator().to_string()
    }

    /// Sends a call to the service at this address. If the service rejects the login, it logs in
    /// again and repeats the call once.
    ///
    /// # Errors
    /// When the login, the transport or the service fails.
    pub(crate) async fn call<T, F>(&self, base: &Url, request: impl Fn(Transport) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let request = &request;
        let send = |token| async move {
            let transport = Transport {
                http: self.http.clone(),
                base: base.clone(),
                token,
            };
            request(transport).await.map_err(|error| Failed::of(&error))
        };
        let outcome = self
            .login
            .call(send, Failed::is_of_credentials, Failed::Login)
            .await;
        let works = match &outcome {
            Ok(_) => Some(Instant::now()),
            Err(failed) if failed.is_an_answer() => return outcome,
            Err(_) => None,
        };
        *self.worked.lock().unwrap_or_else(PoisonError::into_inner) = works;
        outcome
    }

    /// Whether a request succeeded recently and none has failed since.
    pub(crate) fn works(&self) -> bool {
        let worked = *self.worked.lock().unwrap_or_else(PoisonError::into_inner);
        worked.is_some_and(|at| at.elapsed() < FRESH)
    }

    /// Checks that a login is possible. A current login is not repeated.
    ///
    /// # Errors
    /// When the login fails.
    pub(crate) async fn check(&self) -> Result<(), ProviderError> {
        self.login.session().await.map(drop)
    }
}
