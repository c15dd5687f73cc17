//! Sends calls with a valid login. Every request for values goes through [`Caller::call`].

use std::{fmt, sync::Arc};

use google_cloud_gax::error::Error;
use lockstep_provider::{Login, ProviderError};
use url::Url;

use crate::{client::Http, error::Failed, login::GcpAuthenticator, transport::Transport};

/// Calls services with one identity.
pub(crate) struct Caller {
    http: Http,
    login: Login<GcpAuthenticator>,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.login.fmt(f)
    }
}

impl Caller {
    pub(crate) fn new(http: Http, login: Login<GcpAuthenticator>) -> Arc<Self> {
        Arc::new(Self { http, login })
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
        self.login.call(send).await
    }

    /// Whether a request succeeded recently and none has failed since.
    pub(crate) fn works(&self) -> bool {
        self.login.works()
    }

    /// Checks that a login is possible. A current login is not repeated.
    ///
    /// # Errors
    /// When the login fails.
    pub(crate) async fn check(&self) -> Result<(), ProviderError> {
        self.login.session().await.map(drop)
    }
}
