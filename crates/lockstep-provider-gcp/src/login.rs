//! Logs in: with a JWT that a service account's key signs, with a ServiceAccount's token that is
//! exchanged, optionally followed by impersonation, or with the operator's own identity.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use google_cloud_auth::credentials::{AccessTokenCredentials, Builder};
use jiff::Timestamp;
use lockstep_api::SecretKeyRef;
use lockstep_provider::{Authenticator, Credentials, ErrorKind, Grant, Operation, ProviderError};
use reqwest::{Method, header::HeaderValue};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::json;
use tokio::{sync::OnceCell, time::timeout};
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use crate::{
    client::{Body, Http, address},
    config::{ANNOTATION, ActsAs, Exchange, Login, Source, check_email},
    credential::{SCOPE, ServiceAccountKey, unavailable, word},
    error::Failed,
};

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// Maximum length of a token in bytes.
const LONGEST_TOKEN: usize = 32 * 1024;
/// Lifetime of a token if the response does not contain it.
const USUAL_LIFETIME: Duration = Duration::from_secs(3600);
/// How often the library is asked for the operator's own token. The library renews it and returns
/// it at once.
const AMBIENT_LIFETIME: Duration = Duration::from_secs(60);
/// Timeout for getting the operator's own token.
const AMBIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// The `Authorization` header of requests, and how long it is valid.
type Token = Grant<HeaderValue>;

pub(crate) struct GcpAuthenticator {
    login: Login,
    http: Http,
    /// The library's credentials of the operator's own identity.
    ambient: OnceCell<AccessTokenCredentials>,
    credentials: Arc<dyn Credentials>,
}

/// A token response of OAuth (RFC 6749, section 5.1).
#[derive(Deserialize)]
struct OAuthToken {
    #[serde(deserialize_with = "wiped")]
    access_token: Zeroizing<String>,
    expires_in: Option<u64>,
}

/// A token response of the Service Account Credentials API.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IamToken {
    #[serde(deserialize_with = "wiped")]
    access_token: Zeroizing<String>,
    expire_time: Timestamp,
}

impl fmt::Display for GcpAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.login.fmt(f)
    }
}

#[async_trait]
impl Authenticator for GcpAuthenticator {
    type Credential = HeaderValue;

    async fn log_in(&self) -> Result<Token, ProviderError> {
        let credentials = self.credentials.as_ref();
        match &self.login.source {
            Source::Key(secret) => self.with_key(credentials, secret).await,
            Source::Exchange(exchange) => self.exchange(credentials, exchange).await,
            Source::Ambient => self.ambient().await,
        }
    }
}

impl GcpAuthenticator {
    pub(crate) fn new(login: Login, http: Http, credentials: Arc<dyn Credentials>) -> Self {
        Self {
            login,
            http,
            ambient: OnceCell::new(),
            credentials,
        }
    }

    /// Logs in with a service account's key.
    async fn with_key(
        &self,
        credentials: &dyn Credentials,
        secret: &SecretKeyRef,
    ) -> Result<Token, ProviderError> {
        let value = credentials.secret(&secret.name, &secret.key).await?;
        let what = format!("Secret \"{}\", key \"{}\"", secret.name, secret.key);
        let key = ServiceAccountKey::read(&value, &what)?;
        let assertion = key.assertion(self.http.now())?;
        let form = form(&[("grant_type", JWT_BEARER), ("assertion", &assertion)]);
        let doing = format!(
            "logging in with the service account key from Secret \"{}\"",
            secret.name
        );
        let advice = "Check that the service account and its key still exist, and that the clock of the operator's node is correct";
        let token: OAuthToken = self.ask(key.token_uri, None, form, &doing, advice).await?;
        bearer(&token.access_token, token.lifetime())
    }

    /// Exchanges a ServiceAccount's token for a Google token.
    async fn exchange(
        &self,
        credentials: &dyn Credentials,
        exchange: &Exchange,
    ) -> Result<Token, ProviderError> {
        let account = &exchange.account;
        let email = match &exchange.acts_as {
            ActsAs::Itself => None,
            ActsAs::Email(email) => Some(email.clone()),
            ActsAs::Annotated => {
                let email = credentials
                    .service_account_annotation(account, ANNOTATION)
                    .await?;
                if let Some(email) = &email {
                    let field = format!(
                        "auth.workloadIdentity: the annotation {ANNOTATION} of ServiceAccount \"{account}\""
                    );
                    check_email(&field, email)?;
                }
                email
            }
        };
        let token = credentials
            .service_account_token(account, &exchange.token_audience)
            .await?;
        let token = word(&token, &format!("the token of ServiceAccount \"{account}\""))?;
        let form = form(&[
            ("grant_type", TOKEN_EXCHANGE),
            ("audience", &exchange.audience),
            ("scope", SCOPE),
            ("requested_token_type", ACCESS_TOKEN),
            ("subject_token_type", JWT),
            ("subject_token", &token),
        ]);
        let doing = format!("exchanging the token of ServiceAccount \"{account}\"");
        let advice = format!(
            "The pool's provider must trust the cluster's issuer and the audience \"{}\"",
            exchange.token_audience
        );
        let sts = address(&self.login.sts, "v1/token", &[]);
        let token: OAuthToken = self.ask(sts, None, form, &doing, &advice).await?;
        let federated = bearer(&token.access_token, token.lifetime())?;
        match email {
            Some(email) => self.impersonate(&federated.0, &email, account).await,
            None => Ok(federated),
        }
    }

    /// Gets a token of the service account to impersonate.
    async fn impersonate(
        &self,
        token: &HeaderValue,
        email: &str,
        account: &str,
    ) -> Result<Token, ProviderError> {
        let path = format!("v1/projects/-/serviceAccounts/{email}:generateAccessToken");
        let body = json!({ "scope": [SCOPE], "lifetime": "3600s" }).to_string();
        let doing = format!("impersonating {email} with the token of ServiceAccount \"{account}\"");
        let advice = format!(
            "Grant the ServiceAccount roles/iam.workloadIdentityUser on {email}, and enable iamcredentials.googleapis.com"
        );
        let url = address(&self.login.iam, &path, &[]);
        let body = Body::Json(Zeroizing::new(body.into_bytes()));
        let answer: IamToken = self.ask(url, Some(token), body, &doing, &advice).await?;
        let lifetime = answer.expire_time.duration_since(self.http.now());
        bearer(&answer.access_token, lifetime.try_into().unwrap_or_default())
    }

    /// Returns the operator's own token. The library finds and renews it.
    async fn ambient(&self) -> Result<Token, ProviderError> {
        let none = || {
            unavailable("the operator has no Google identity of its own").with_hint(
                "Bind the operator's ServiceAccount to a Google identity (Workload Identity Federation for GKE), or set spec.provider.gcp.auth",
            )
        };
        let library = self
            .ambient
            .get_or_try_init(|| async {
                Builder::default()
                    .with_scopes([SCOPE])
                    .build_access_token_credentials()
            })
            .await
            .map_err(|_| none())?;
        let error = |kind, message: &str| ProviderError::new(kind, Operation::Login, message);
        let answer = timeout(AMBIENT_TIMEOUT, library.access_token())
            .await
            .map_err(|_| {
                let message = "the source of the operator's own Google identity did not respond in time";
                error(ErrorKind::Timeout, message)
            })?;
        let token = answer.map_err(|failure| {
            if failure.is_transient() {
                let message = "the source of the operator's own Google identity cannot be reached";
                error(ErrorKind::Unavailable, message)
                    .with_hint("Outside of Google Cloud, set spec.provider.gcp.auth")
            } else {
                none()
            }
        })?;
        bearer(&Zeroizing::new(token.token), AMBIENT_LIFETIME)
    }

    /// Requests a token.
    async fn ask<T: DeserializeOwned>(
        &self,
        url: Url,
        token: Option<&HeaderValue>,
        body: Body,
        doing: &str,
        advice: &str,
    ) -> Result<T, ProviderError> {
        let answer = self.http.send(Method::POST, url, token, body).await;
        let outcome = answer.and_then(|answer| {
            if answer.status != 200 {
                return Err(Failed::refused(&answer));
            }
            // The parser's own message can contain its input.
            serde_json::from_slice(&answer.body).map_err(|_| Failed::garbage(answer.status))
        });
        outcome.map_err(|failed| failed.login(doing, advice))
    }
}

impl OAuthToken {
    fn lifetime(&self) -> Duration {
        self.expires_in.map_or(USUAL_LIFETIME, Duration::from_secs)
    }
}

/// Deserializes a text that is wiped when it is dropped.
fn wiped<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

fn form(fields: &[(&str, &str)]) -> Body {
    let mut form = form_urlencoded::Serializer::new(String::new());
    Body::Form(Zeroizing::new(form.extend_pairs(fields).finish()))
}

fn bearer(token: &Zeroizing<String>, lifetime: Duration) -> Result<Token, ProviderError> {
    let is_word =
        (1..=LONGEST_TOKEN).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
    let text = is_word.then(|| Zeroizing::new(format!("Bearer {}", token.as_str())));
    let header = text.and_then(|text| HeaderValue::from_str(&text).ok());
    let mut header = header.ok_or_else(|| {
        let message = "the response to the login contains no token";
        ProviderError::new(ErrorKind::Malformed, Operation::Login, message)
    })?;
    header.set_sensitive(true);
    Ok((header, Some(lifetime)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_one_word_of_bounded_length() {
        let of = |text: String| bearer(&Zeroizing::new(text), USUAL_LIFETIME);
        let (header, lifetime) = of("t".repeat(LONGEST_TOKEN)).unwrap();
        assert!(header.is_sensitive());
        assert_eq!(header.len(), "Bearer ".len() + LONGEST_TOKEN);
        assert_eq!(lifetime, Some(USUAL_LIFETIME));
        for bad in [String::new(), "a b".to_owned(), "t".repeat(LONGEST_TOKEN + 1)] {
            assert_eq!(of(bad).unwrap_err().kind, ErrorKind::Malformed);
        }
    }
}
