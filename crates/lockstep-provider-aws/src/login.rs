//! Gets credentials: an access key as it is, a role that is assumed with one, the token of a
//! ServiceAccount that is exchanged for a role, or the operator's own.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use aws_config::{
    BehaviorVersion, Region, default_provider::credentials::DefaultCredentialsChain,
    provider_config::ProviderConfig,
};
use aws_credential_types::{
    Credentials as Credential,
    provider::{ProvideCredentials as _, error::CredentialsError},
};
use aws_sdk_sts::{
    Client as Sts,
    config::retry::RetryConfig,
    types::{Credentials as StsCredentials, Tag},
};
use lockstep_core::time::SharedClock;
use lockstep_provider::{Authenticator, Credentials, ErrorKind, Operation, ProviderError};
use tokio::sync::OnceCell;

use crate::{
    client::Http,
    config::{self, Login, Source},
    credential::{clean_word, unavailable, word},
    error::Failed,
    sdk::common,
};

/// The annotation of a ServiceAccount that names its role.
const ROLE_ANNOTATION: &str = "eks.amazonaws.com/role-arn";
/// Maximum length of a token, id or key in a response, in bytes.
const LONGEST: usize = 32 * 1024;

type Grant = lockstep_provider::Grant<Credential>;

/// Logs in. The SDK would cache credentials, but not share one login, replace it when a service
/// rejects it or count it.
pub(crate) struct AwsAuthenticator {
    login: Login,
    region: String,
    http: Http,
    /// The SDK's default chain, which finds the operator's own credentials.
    chain: OnceCell<DefaultCredentialsChain>,
    clock: SharedClock,
    credentials: Arc<dyn Credentials>,
}

impl fmt::Display for AwsAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.login.fmt(f)
    }
}

#[async_trait]
impl Authenticator for AwsAuthenticator {
    type Credential = Credential;

    async fn log_in(&self) -> Result<Grant, ProviderError> {
        let credentials = self.credentials.as_ref();
        let (grant, role) = match &self.login.source {
            Source::Key { id, secret, token } => {
                let id = word(credentials, id).await?;
                let secret = word(credentials, secret).await?;
                let token = match token {
                    Some(token) => Some(word(credentials, token).await?.to_string()),
                    None => None,
                };
                let credential = Credential::new(id.as_str(), secret.as_str(), token, None, "lockstep");
                ((credential, None), self.login.role.as_deref())
            }
            Source::WebIdentity { account, audience } => {
                self.exchange(credentials, account, audience).await?
            }
            Source::Ambient => (self.ambient().await?, self.login.role.as_deref()),
        };
        match role {
            Some(role) => self.assume(grant.0, role).await,
            None => Ok(grant),
        }
    }
}

impl AwsAuthenticator {
    pub(crate) fn new(
        login: Login,
        region: String,
        http: Http,
        clock: SharedClock,
        credentials: Arc<dyn Credentials>,
    ) -> Self {
        Self {
            login,
            region,
            http,
            chain: OnceCell::new(),
            clock,
            credentials,
        }
    }

    /// Asks the token service for the identity of these credentials. It needs no permission.
    ///
    /// # Errors
    /// When the service or the transport fails.
    pub(crate) async fn who_am_i(&self, credential: Credential) -> Result<(), Failed> {
        let answer = self.sts(Some(credential)).get_caller_identity().send().await;
        answer.map(drop).map_err(|error| Failed::of(&error))
    }

    /// Returns the operator's own credentials.
    async fn ambient(&self) -> Result<Grant, ProviderError> {
        let chain = self
            .chain
            .get_or_init(|| async {
                let config = ProviderConfig::empty()
                    .with_region(Some(Region::new(self.region.clone())))
                    .with_behavior_version(Some(BehaviorVersion::v2026_01_12()))
                    .with_http_client(self.http.client.clone())
                    .with_retry_config(RetryConfig::disabled())
                    .with_timeout_config(self.http.timeouts());
                DefaultCredentialsChain::builder().configure(config).build().await
            })
            .await;
        let error = |kind, message: &str| ProviderError::new(kind, Operation::Login, message);
        let credential = chain.provide_credentials().await.map_err(|failure| match failure {
            CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => {
                unavailable("the operator has no AWS identity of its own").with_hint(
                    "Bind the operator's ServiceAccount to an IAM role (IRSA or EKS Pod Identity), or set spec.provider.aws.auth",
                )
            }
            CredentialsError::ProviderTimedOut(_) => error(
                ErrorKind::Timeout,
                "the source of the operator's own AWS identity did not respond in time",
            ),
            _ => error(
                ErrorKind::Unauthenticated,
                "the operator's own AWS identity could not be obtained",
            )
            .with_hint("Check the trust policy of the operator's role, and that the source of the identity can be reached"),
        })?;
        let lifetime = credential.expiry().map(|expiry| self.until(expiry));
        Ok((credential, lifetime))
    }

    /// Exchanges a ServiceAccount's token for credentials of its role. Returns them, and the role
    /// to assume with them.
    async fn exchange(
        &self,
        credentials: &dyn Credentials,
        account: &str,
        audience: &str,
    ) -> Result<(Grant, Option<&str>), ProviderError> {
        let configured = self.login.role.as_deref();
        // If the store names the role, the ServiceAccount need not be readable.
        let annotated = if configured.is_some() && self.is_plain() {
            None
        } else {
            credentials
                .service_account_annotation(account, ROLE_ANNOTATION)
                .await?
        };
        let (first, second) = match (annotated, configured) {
            (None, None) => {
                return Err(unavailable(format!(
                    "ServiceAccount \"{account}\" has no annotation {ROLE_ANNOTATION}, and spec.provider.aws.role is not set"
                ))
                .with_hint("Set one of them to the ARN of the role that trusts the ServiceAccount"));
            }
            (None, Some(role)) if self.is_plain() => (role.to_owned(), None),
            (None, Some(_)) => {
                return Err(config::invalid(
                    "externalID",
                    "and session tags cannot be used if the ServiceAccount's token is exchanged directly for role",
                )
                .with_hint(format!(
                    "Set the annotation {ROLE_ANNOTATION} of ServiceAccount \"{account}\" to the role that trusts it. lockstep then uses that role to assume role"
                )));
            }
            (Some(annotated), role) => {
                let field =
                    format!("auth.jwt: the annotation {ROLE_ANNOTATION} of ServiceAccount \"{account}\"");
                config::check_role(&field, &annotated)?;
                (annotated, role)
            }
        };
        let token = credentials.service_account_token(account, audience).await?;
        let token = clean_word(&token, &format!("the token of ServiceAccount \"{account}\""))?;
        let answer = self
            .sts(None)
            .assume_role_with_web_identity()
            .role_arn(&first)
            .role_session_name(&self.login.session)
            .web_identity_token(token.as_str())
            .send()
            .await;
        let answer = answer.map_err(|error| {
            Failed::of(&error).login(
                &format!("exchanging the token of ServiceAccount \"{account}\" for role {first}"),
                &format!(
                    "The role's trust policy must name the cluster's OIDC provider, the audience \"{audience}\" and the ServiceAccount as the subject"
                ),
            )
        })?;
        Ok((self.granted(answer.credentials)?, second))
    }

    /// Whether no setting needs a role to be assumed.
    fn is_plain(&self) -> bool {
        self.login.external_id.is_none() && self.login.tags.is_empty()
    }

    /// Assumes a role with credentials.
    async fn assume(&self, credential: Credential, role: &str) -> Result<Grant, ProviderError> {
        let tag = |(key, value): &(String, String)| Tag::builder().key(key).value(value).build();
        let tags: Result<Vec<Tag>, _> = self.login.tags.iter().map(tag).collect();
        let tags = tags.map_err(|_| config::invalid("sessionTags", "cannot be sent"))?;
        let answer = self
            .sts(Some(credential))
            .assume_role()
            .role_arn(role)
            .role_session_name(&self.login.session)
            .set_external_id(self.login.external_id.clone())
            .set_tags((!tags.is_empty()).then_some(tags))
            .send()
            .await;
        let answer = answer.map_err(|error| {
            let mut advice =
                "The role's trust policy must name the identity that assumes the role".to_owned();
            if self.login.external_id.is_some() {
                advice.push_str(", with this external ID");
            }
            if !self.login.tags.is_empty() {
                advice.push_str(", and grant sts:TagSession");
            }
            Failed::of(&error).login(&format!("assuming role {role}"), &advice)
        })?;
        self.granted(answer.credentials)
    }

    fn sts(&self, credential: Option<Credential>) -> Sts {
        let mut config = common!(
            aws_sdk_sts,
            &self.region,
            self.login.endpoint.as_deref(),
            &self.http
        );
        if let Some(credential) = credential {
            config = config.credentials_provider(credential);
        }
        Sts::from_conf(config.build())
    }

    fn granted(&self, credentials: Option<StsCredentials>) -> Result<Grant, ProviderError> {
        let malformed = || {
            let message = "the response to the login contains no credentials";
            ProviderError::new(ErrorKind::Malformed, Operation::Login, message)
        };
        let credentials = credentials.ok_or_else(malformed)?;
        let parts = [
            &credentials.access_key_id,
            &credentials.secret_access_key,
            &credentials.session_token,
        ];
        if credentials.access_key_id.is_empty()
            || credentials.secret_access_key.is_empty()
            || parts.iter().any(|part| part.len() > LONGEST)
        {
            return Err(malformed());
        }
        let expiry = SystemTime::try_from(credentials.expiration).map_err(|_| malformed())?;
        let credential = Credential::new(
            credentials.access_key_id,
            credentials.secret_access_key,
            Some(credentials.session_token),
            Some(expiry),
            "lockstep",
        );
        Ok((credential, Some(self.until(expiry))))
    }

    /// Returns the duration until this time.
    fn until(&self, then: SystemTime) -> Duration {
        then.duration_since(SystemTime::from(self.clock.now()))
            .unwrap_or_default()
    }
}
