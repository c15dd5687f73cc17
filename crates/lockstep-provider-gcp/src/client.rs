//! One call with a login that works. Everything that asks for values goes through [`Caller::call`].

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use google_cloud_gax::error::Error;
use lockstep_provider::ProviderError;
use tokio::time::Instant;
use url::Url;

use crate::{error::Failed, http::Http, login::Identity, transport::Transport};

/// For how long a store counts as working after a request succeeded.
const FRESH: Duration = Duration::from_secs(300);

/// Calls services as one identity.
pub(crate) struct Caller {
    http: Http,
    identity: Identity,
    /// When a request last succeeded; none since one failed for the service's or the login's sake.
    worked: Mutex<Option<Instant>>,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.identity.fmt(f)
    }
}

impl Caller {
    pub(crate) fn new(http: Http, identity: Identity) -> Arc<Self> {
        Arc::new(Self {
            http,
            identity,
            worked: Mutex::default(),
        })
    }

    /// Who asks, as messages name it.
    pub(crate) fn identity(&self) -> String {
        self.identity.describe()
    }

    /// Makes a call of the service at that address, with one new login and one repetition if it no longer takes the login.
    ///
    /// # Errors
    /// What the login, the transport or the service fails with.
    pub(crate) async fn call<T, F>(&self, base: &Url, request: impl Fn(Transport) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let outcome = self.with_login(base, request).await;
        let works = match &outcome {
            Ok(_) => Some(Instant::now()),
            Err(failed) if failed.is_an_answer() => return outcome,
            Err(_) => None,
        };
        *self.worked.lock().unwrap_or_else(PoisonError::into_inner) = works;
        outcome
    }

    /// Whether a request succeeded lately, and none has failed since.
    pub(crate) fn works(&self) -> bool {
        let worked = *self.worked.lock().unwrap_or_else(PoisonError::into_inner);
        worked.is_some_and(|at| at.elapsed() < FRESH)
    }

    /// Whether there is a login; where one is at hand, it is not repeated.
    ///
    /// # Errors
    /// What the login fails with.
    pub(crate) async fn check(&self) -> Result<(), ProviderError> {
        self.identity.session().await.map(drop)
    }

    async fn with_login<T, F>(&self, base: &Url, request: impl Fn(Transport) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let session = self.identity.session().await.map_err(Failed::Login)?;
        let transport = Transport {
            http: self.http.clone(),
            base: base.clone(),
            token: session.grant.clone(),
        };
        let outcome = request(transport.clone())
            .await
            .map_err(|error| Failed::of(&error));
        if !outcome.as_ref().is_err_and(Failed::is_of_credentials) {
            return outcome;
        }
        let fresh = self.identity.replace(session.generation).await;
        let token = fresh.map_err(Failed::Login)?.grant.clone();
        let again = request(Transport { token, ..transport }).await;
        again.map_err(|error| Failed::of(&error))
    }
}
