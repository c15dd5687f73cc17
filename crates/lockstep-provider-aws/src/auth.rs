//! One call with credentials that work. Everything that reaches the network, logins apart, goes through [`Caller::call`].

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_credential_types::Credentials as Credential;
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use lockstep_provider::{Login, Operation, ProviderError};
use tokio::time::Instant;

use crate::{
    error::{Failed, Purpose},
    login::AwsAuthenticator,
};

/// For how long a store counts as working after a request succeeded.
const FRESH: Duration = Duration::from_secs(300);

/// Calls a service as one identity.
pub(crate) struct Caller {
    login: Login<AwsAuthenticator>,
    /// When a request last succeeded; none since one failed for the service's or the credentials' sake.
    worked: Mutex<Option<Instant>>,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.login.fmt(f)
    }
}

impl Caller {
    pub(crate) fn new(login: Login<AwsAuthenticator>) -> Arc<Self> {
        Arc::new(Self {
            login,
            worked: Mutex::default(),
        })
    }

    /// Who asks, as messages name it.
    pub(crate) fn identity(&self) -> String {
        self.login.authenticator().to_string()
    }

    /// Makes a call, with one new login and one repetition if the service no longer takes the credentials.
    ///
    /// # Errors
    /// What the login, the transport or the service fails with.
    pub(crate) async fn call<T, E, F>(&self, request: impl Fn(Credential) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let request = &request;
        let send = |credential| async move { request(credential).await.map_err(|error| Failed::of(&error)) };
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

    /// Whether a request succeeded lately, and none has failed since.
    pub(crate) fn works(&self) -> bool {
        let worked = *self.worked.lock().unwrap_or_else(PoisonError::into_inner);
        worked.is_some_and(|at| at.elapsed() < FRESH)
    }

    /// Whether the credentials are good: a call that needs no right and costs nothing.
    ///
    /// # Errors
    /// What the first read would fail with.
    pub(crate) async fn check(&self) -> Result<(), ProviderError> {
        let who_am_i = |credential| self.login.authenticator().who_am_i(credential);
        let outcome = self
            .login
            .call(who_am_i, Failed::is_of_credentials, Failed::Login)
            .await;
        let purpose = Purpose {
            operation: Operation::Check,
            doing: "asking the token service for the caller's identity".to_owned(),
            identity: self.identity(),
            missing: "the token service knows no identity".to_owned(),
            action: "sts:GetCallerIdentity",
        };
        outcome.map_err(|failed| failed.error(&purpose))
    }
}
