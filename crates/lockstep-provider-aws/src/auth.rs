//! Sends calls with valid credentials. Every network request except logins goes through
//! [`Caller::call`].

use std::sync::Arc;

use aws_credential_types::Credentials as Credential;
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use lockstep_provider::{Login, Operation, ProviderError};

use crate::{
    error::{Failed, Purpose},
    login::AwsAuthenticator,
};

/// Calls a service with one identity.
#[derive(Debug)]
pub(crate) struct Caller {
    login: Login<AwsAuthenticator>,
}

impl Caller {
    pub(crate) fn new(login: Login<AwsAuthenticator>) -> Arc<Self> {
        Arc::new(Self { login })
    }

    /// Returns the identity as messages name it.
    pub(crate) fn identity(&self) -> String {
        self.login.authenticator().to_string()
    }

    /// Sends a call. If the service rejects the credentials, it logs in again and repeats the call
    /// once.
    ///
    /// # Errors
    /// When the login, the transport or the service fails.
    pub(crate) async fn call<T, E, F>(&self, request: impl Fn(Credential) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let request = &request;
        let send = |credential| async move { request(credential).await.map_err(|error| Failed::of(&error)) };
        self.login.call(send).await
    }

    /// Whether a request succeeded recently and none has failed since.
    pub(crate) fn works(&self) -> bool {
        self.login.works()
    }

    /// Checks the credentials with a call that needs no permission and is free.
    ///
    /// # Errors
    /// The error that the first read would return.
    pub(crate) async fn check(&self) -> Result<(), ProviderError> {
        let who_am_i = |credential| self.login.authenticator().who_am_i(credential);
        let outcome = self.login.send(who_am_i).await;
        let purpose = Purpose {
            operation: Operation::Check,
            doing: "asking the token service for the caller's identity".to_owned(),
            identity: self.identity(),
            missing: "the token service knows no identity".to_owned(),
            action: "sts:GetCallerIdentity",
        };
        outcome.map_err(|failed: Failed| failed.error(&purpose))
    }
}
