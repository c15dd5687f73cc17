//! Implements the login methods: the request of each, and the meaning of a rejection.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use lockstep_provider::{Authenticator, Credentials, ErrorKind, Operation, ProviderError};
use reqwest::header::HeaderValue;
use vaultrs::api::auth::{
    approle::requests::LoginWithApproleRequest, kubernetes::requests::LoginWithKubernetesRequest,
    oidc::requests::JWTLoginRequest, userpass::requests::LoginRequest as LoginWithPasswordRequest,
};

use crate::{
    answer::{Answer, Auth},
    client::Client,
    config::{JwtSource, Method, RoleId},
    credential::{self, clean_word, describe},
    endpoint::{LoginWithCertificate, RenewSelf},
    error::cannot_serve,
};

/// A token and its lifetime.
pub(crate) struct Grant {
    /// The header that carries the token.
    pub(crate) token: HeaderValue,
    /// In seconds; 0 means unlimited.
    pub(crate) lease_seconds: u64,
    /// Whether the token can be renewed.
    pub(crate) renewable: bool,
}

impl Grant {
    /// Returns the token in the response to a login or a renewal.
    ///
    /// # Errors
    /// `Malformed` when there is none, `Unauthenticated` when the server requires more than a
    /// login.
    pub(crate) fn of(answer: &Answer, operation: Operation) -> Result<Self, ProviderError> {
        let Some(auth) = answer.envelope().and_then(|envelope| envelope.auth) else {
            let message = format!(
                "the response to the login contains no token (status {})",
                answer.status
            );
            return Err(ProviderError::new(ErrorKind::Malformed, operation, message)
                .with_hint("Check that server is the address of Vault"));
        };
        let Auth {
            client_token,
            lease_duration,
            renewable,
            ..
        } = auth;
        if client_token.is_empty() {
            let message = "the server requires MFA for this login, which lockstep does not support";
            return Err(ProviderError::new(ErrorKind::Unauthenticated, operation, message));
        }
        let token = credential::token_header(client_token.as_bytes(), "the token that the server issued")
            .map_err(|error| ProviderError {
                kind: ErrorKind::Malformed,
                operation,
                ..error
            })?;
        Ok(Self {
            token,
            lease_seconds: lease_duration,
            renewable,
        })
    }

    fn with_lifetime(self) -> lockstep_provider::Grant<Self> {
        let seconds = self.lease_seconds;
        (self, (seconds > 0).then(|| Duration::from_secs(seconds)))
    }
}

/// Logs in to one server.
pub(crate) struct VaultAuthenticator {
    pub(crate) client: Client,
    pub(crate) method: Method,
    pub(crate) credentials: Arc<dyn Credentials>,
}

impl fmt::Display for VaultAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.client.server(), self.method)
    }
}

#[async_trait]
impl Authenticator for VaultAuthenticator {
    type Credential = Grant;

    async fn log_in(&self) -> Result<lockstep_provider::Grant<Grant>, ProviderError> {
        let grant = self
            .method
            .log_in(&self.client, self.credentials.as_ref())
            .await?;
        let lease_seconds = grant.lease_seconds;
        tracing::debug!(identity = %self.method, lease_seconds, "logged in to Vault");
        Ok(grant.with_lifetime())
    }

    /// Renews the token. Logs in again if the token cannot be renewed, or is near its maximum
    /// lifetime: the server then renews it for less than half of its lease.
    async fn renew(&self, current: &Grant) -> Result<lockstep_provider::Grant<Grant>, ProviderError> {
        let renewed = if current.renewable {
            self.renew_self(current).await?
        } else {
            None
        };
        match renewed {
            Some(renewed) if renewed.lease_seconds >= current.lease_seconds / 2 => {
                Ok(renewed.with_lifetime())
            }
            Some(renewed) => self.log_in().await.or_else(|_| Ok(renewed.with_lifetime())),
            None => self.log_in().await,
        }
    }

    fn renewal_age(&self, lifetime: Duration) -> Duration {
        lifetime / 3 * 2
    }
}

impl VaultAuthenticator {
    /// Renews the token. Returns `None` if the server refuses.
    async fn renew_self(&self, current: &Grant) -> Result<Option<Grant>, ProviderError> {
        let token = Some(&current.token);
        let answer = self.client.send(Operation::Renew, &RenewSelf {}, token).await?;
        match Grant::of(&answer, Operation::Renew) {
            // the token stays the same, whatever the response contains
            Ok(grant) if answer.is_success() => Ok(Some(Grant {
                token: current.token.clone(),
                ..grant
            })),
            _ => cannot_serve(Operation::Renew, &answer).map_or(Ok(None), Err),
        }
    }
}

impl Method {
    /// Logs in. Credentials are read again each time, so that a login after a rejection uses the
    /// current ones.
    ///
    /// # Errors
    /// `CredentialsUnavailable`, `Unauthenticated`, and the errors of [`Client::send`].
    pub(crate) async fn log_in(
        &self,
        client: &Client,
        credentials: &dyn Credentials,
    ) -> Result<Grant, ProviderError> {
        let answer = match self {
            Self::Token(reference) => {
                let value = credentials.secret(&reference.name, &reference.key).await?;
                let token = credential::token_header(value.expose(), &describe(reference))?;
                return Ok(Grant {
                    token,
                    lease_seconds: 0,
                    renewable: false,
                });
            }
            Self::AppRole { mount, role, secret } => {
                let role_id = match role {
                    RoleId::Literal(id) => id.trim().to_owned(),
                    RoleId::Secret(reference) => credential::word(credentials, reference).await?.to_string(),
                };
                let secret_id = credential::word(credentials, secret).await?.to_string();
                let login = LoginWithApproleRequest {
                    mount: mount.clone(),
                    role_id,
                    secret_id,
                };
                client.send(Operation::Login, &login, None).await?
            }
            Self::Kubernetes { mount, role, account } => {
                let jwt = account_token(credentials, account).await?;
                let login = LoginWithKubernetesRequest {
                    mount: mount.clone(),
                    role: role.clone(),
                    jwt,
                };
                client.send(Operation::Login, &login, None).await?
            }
            Self::Jwt { mount, role, source } => {
                let jwt = match source {
                    JwtSource::Secret(reference) => {
                        credential::word(credentials, reference).await?.to_string()
                    }
                    JwtSource::Account(account) => account_token(credentials, account).await?,
                };
                let login = JWTLoginRequest {
                    mount: mount.clone(),
                    jwt,
                    role: role.clone(),
                };
                client.send(Operation::Login, &login, None).await?
            }
            Self::Cert { mount, role, .. } => {
                let login = LoginWithCertificate {
                    mount: mount.clone(),
                    name: role.clone(),
                };
                client.send(Operation::Login, &login, None).await?
            }
            Self::UserPass {
                mount,
                username,
                secret,
            } => {
                let password = credential::password(credentials, secret).await?.to_string();
                let login = LoginWithPasswordRequest {
                    mount: mount.clone(),
                    username: username.clone(),
                    password,
                };
                client.send(Operation::Login, &login, None).await?
            }
        };
        if answer.is_success() {
            Grant::of(&answer, Operation::Login)
        } else {
            Err(self.refused(&answer))
        }
    }

    /// Returns the error of a failed login.
    fn refused(&self, answer: &Answer) -> ProviderError {
        if let Some(error) = cannot_serve(Operation::Login, answer) {
            return error;
        }
        let error = |kind, message| ProviderError::new(kind, Operation::Login, message);
        let status = answer.status;
        if answer.envelope().is_none() {
            let message = format!("the response to the login is not Vault's JSON (status {status})");
            return error(ErrorKind::Malformed, message)
                .with_hint("Check that server is the address of Vault");
        }
        match status {
            404 if answer.has_error_containing("namespace not found") => error(
                ErrorKind::ConfigInvalid,
                format!("logging in {self}: the namespace does not exist on the server"),
            )
            .with_hint("Check spec.provider.vault.namespace"),
            404 | 405 => error(
                ErrorKind::ConfigInvalid,
                format!("logging in {self}: the server has no auth method at this path"),
            )
            .with_hint("Check the mount path of the auth method"),
            _ => {
                let mut advice = self.advice();
                if status == 403 {
                    advice.push_str(
                        ". The server also returns this status if no auth method has that mount path",
                    );
                }
                let message = format!("the server refused the login {self} (status {status})");
                error(ErrorKind::Unauthenticated, message).with_hint(advice)
            }
        }
    }

    /// Returns what to check when the server rejects the login.
    fn advice(&self) -> String {
        match self {
            Self::Token(reference) => format!("Put a valid token into {}", describe(reference)),
            Self::AppRole { secret, .. } => {
                format!(
                    "Check the role ID, and that the secret ID in {} is still valid",
                    describe(secret)
                )
            }
            Self::Kubernetes { account, role, .. } => bound(account, role),
            Self::Jwt {
                source: JwtSource::Account(account),
                role,
                ..
            } => bound(account, role.as_deref().unwrap_or("default_role")),
            Self::Jwt {
                source: JwtSource::Secret(reference),
                ..
            } => {
                format!(
                    "Check that the JWT in {} is still valid and fits the role's bound claims",
                    describe(reference)
                )
            }
            Self::Cert { certificate, .. } => {
                format!(
                    "Check that the certificate in {} is still valid and fits the role",
                    describe(certificate)
                )
            }
            Self::UserPass { secret, .. } => {
                format!("Check the user name and the password in {}", describe(secret))
            }
        }
    }
}

fn bound(account: &lockstep_api::ServiceAccountRef, role: &str) -> String {
    let (name, audience) = (&account.name, &account.audience);
    format!(
        "The role \"{role}\" must be bound to ServiceAccount \"{name}\" of the store's namespace and to the audience \"{audience}\", and the auth method must be able to check the cluster's tokens"
    )
}

async fn account_token(
    credentials: &dyn Credentials,
    account: &lockstep_api::ServiceAccountRef,
) -> Result<String, ProviderError> {
    let token = credentials
        .service_account_token(&account.name, &account.audience)
        .await?;
    Ok(clean_word(
        &token,
        &format!("the token of ServiceAccount \"{}\"", account.name),
    )?
    .to_string())
}
