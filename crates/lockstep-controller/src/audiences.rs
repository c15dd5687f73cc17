//! Proves that the API server does not accept the tokens that lockstep requests for stores.
//!
//! A token with an audience of the API server is valid for the Kubernetes API: a store that
//! receives it can act as its ServiceAccount. The admission policy lists the audiences that
//! lockstep may request, but not the audiences that this API server accepts. So for each audience,
//! lockstep requests a token of its own ServiceAccount and presents it to the API server. It uses
//! only audiences whose token is rejected with 401.

use std::{
    collections::BTreeMap,
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures::future::join_all;
use http::{HeaderValue, Request, StatusCode, header::AUTHORIZATION};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client, api::PostParams, client::Body};
use parking_lot::RwLock;
use zeroize::Zeroizing;

use crate::kube::tokens;

/// A part of every default audience of API servers. It is never requested, even if it is allowed.
pub const RESERVED: &str = "kubernetes.default";

/// A cheap request that every authenticated client may send.
const PROBE: &str = "/apis/authentication.k8s.io/v1";
const TIMEOUT: Duration = Duration::from_secs(15);

/// Why lockstep does not request tokens with an audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// The audience is not in `--token-audiences`.
    NotAllowed,
    /// API servers use the audience by default.
    Reserved,
    /// The audience was not tested yet.
    Untried,
    /// The API server accepts tokens with the audience.
    Accepted,
    /// The API server does not let lockstep request a token with the audience.
    Forbidden,
    /// The test failed, with what the API server did instead.
    Unproven(&'static str),
}

impl Unusable {
    /// Whether the next test may succeed without a change.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Untried | Self::Unproven(_))
    }

    /// Explains what to do.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::NotAllowed => {
                "Ask a cluster administrator to allow it: in the operator's --token-audiences and in ValidatingAdmissionPolicy \"lockstep-token-requests\""
            }
            Self::Reserved => "Use another audience, such as vault",
            Self::Untried => "lockstep tests it at startup",
            Self::Accepted => {
                "Use another audience. This one is one of the API server's --api-audiences, so a store could use its tokens against the API server"
            }
            Self::Forbidden => {
                "Ask a cluster administrator to allow it in ValidatingAdmissionPolicy \"lockstep-token-requests\""
            }
            Self::Unproven(_) => "lockstep retries. Its log and /readyz show the state of each audience",
        }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllowed => f.write_str("it is not in the operator's --token-audiences"),
            Self::Reserved => f.write_str("API servers use it by default"),
            Self::Untried => f.write_str("it was not tested yet"),
            Self::Accepted => f.write_str("the API server accepts tokens with it"),
            Self::Forbidden => f.write_str(
                "the API server does not let the operator request one, even for its own ServiceAccount",
            ),
            Self::Unproven(what) => f.write_str(what),
        }
    }
}

/// The result of the test of an audience.
pub type Verdict = Result<(), Unusable>;

/// The allowed audiences and their test results. None is usable before [`Audiences::prove`].
#[derive(Debug)]
pub struct Audiences {
    verdicts: RwLock<BTreeMap<String, Verdict>>,
    /// Whether a token was refused without an automatic retry since the last call of
    /// `take_refused`.
    refused: AtomicBool,
}

impl Audiences {
    /// Creates the list of allowed audiences, all untested.
    pub fn new(allowed: impl IntoIterator<Item = String>) -> Self {
        let untried = |audience: String| {
            let verdict = if audience.contains(RESERVED) {
                Unusable::Reserved
            } else {
                Unusable::Untried
            };
            (audience, Err(verdict))
        };
        Self {
            verdicts: RwLock::new(allowed.into_iter().map(untried).collect()),
            refused: AtomicBool::new(false),
        }
    }

    /// Checks that a token with the audience may be requested.
    ///
    /// # Errors
    /// When the audience is not usable.
    pub fn check(&self, audience: &str) -> Verdict {
        if audience.contains(RESERVED) {
            return Err(Unusable::Reserved);
        }
        let verdict = {
            let all = self.verdicts.read();
            all.get(audience).copied()
        };
        if verdict.is_some_and(|verdict| verdict.is_err_and(|why| !why.is_transient())) {
            self.refused.store(true, Ordering::Relaxed);
        }
        verdict.unwrap_or(Err(Unusable::NotAllowed))
    }

    /// Whether a token with an allowed audience was refused without an automatic retry since the
    /// last call.
    pub fn take_refused(&self) -> bool {
        self.refused.swap(false, Ordering::Relaxed)
    }

    /// Returns every allowed audience with its test result.
    pub fn verdicts(&self) -> Vec<(String, Verdict)> {
        let all = self.verdicts.read();
        all.iter()
            .map(|(audience, verdict)| (audience.clone(), *verdict))
            .collect()
    }

    /// Whether the test of every audience has a final result, so that a retry is not useful.
    pub fn are_decided(&self) -> bool {
        let all = self.verdicts.read();
        !all.values()
            .any(|verdict| verdict.is_err_and(|why| why.is_transient() || why == Unusable::Forbidden))
    }

    /// Tests every allowed audience with a token of the ServiceAccount (namespace and name), and
    /// returns the audiences whose result changed. `anonymous` is a client without credentials.
    pub async fn prove(
        &self,
        client: &Client,
        anonymous: &Client,
        account: (&str, &str),
    ) -> Vec<(String, Verdict)> {
        let tries = self.verdicts().into_iter().map(async |(audience, old)| {
            let verdict = match old {
                Err(Unusable::Reserved) => old,
                _ => attempt(client, anonymous, account, &audience).await,
            };
            (audience, old, verdict)
        });
        let tried = join_all(tries).await;
        let mut all = self.verdicts.write();
        let mut changed = Vec::new();
        for (audience, old, verdict) in tried {
            all.insert(audience.clone(), verdict);
            if verdict != old {
                changed.push((audience, verdict));
            }
        }
        changed
    }
}

async fn attempt(client: &Client, anonymous: &Client, account: (&str, &str), audience: &str) -> Verdict {
    let tried = tokio::time::timeout(TIMEOUT, async {
        let token = mint(client, account, audience).await?;
        present(anonymous, &token).await
    });
    tried
        .await
        .unwrap_or(Err(Unusable::Unproven("the API server did not respond in time")))
}

async fn mint(
    client: &Client,
    (namespace, name): (&str, &str),
    audience: &str,
) -> Result<Zeroizing<String>, Unusable> {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = tokens::request(audience);
    let answer = api
        .create_token_request(name, &PostParams::default(), &request)
        .await;
    let answer = answer.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 403 => Unusable::Forbidden,
        kube::Error::Api(status) if status.code == 404 => {
            Unusable::Unproven("the operator's own ServiceAccount does not exist")
        }
        _ => Unusable::Unproven("the API server did not issue a token with it"),
    })?;
    let token = Zeroizing::new(answer.status.map(|status| status.token).unwrap_or_default());
    if token.is_empty() || answer.spec.audiences != [audience] {
        return Err(Unusable::Unproven(
            "the API server did not issue a token with only this audience",
        ));
    }
    Ok(token)
}

/// Presents a token to the API server, which must reject it.
async fn present(anonymous: &Client, token: &str) -> Verdict {
    let unsent = Unusable::Unproven("its token could not be presented to the API server");
    let bearer = Zeroizing::new(format!("Bearer {token}"));
    let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| unsent)?;
    bearer.set_sensitive(true);
    let request = Request::get(PROBE)
        .header(AUTHORIZATION, bearer)
        .body(Body::empty());
    let answer = anonymous
        .send(request.map_err(|_| unsent)?)
        .await
        .map_err(|_| unsent)?;
    match answer.status() {
        StatusCode::UNAUTHORIZED => Ok(()),
        status if status.is_success() => Err(Unusable::Accepted),
        _ => Err(Unusable::Unproven(
            "the API server did not reject its token with 401",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc};

    use http::Response;
    use k8s_openapi::api::authentication::v1::TokenRequest;
    use serde_json::json;
    use tower::service_fn;

    use super::*;

    const TOKEN: &str = "CANARY";

    /// Creates an API server that mints tokens with status `minting` and answers a presented token
    /// with `presenting`. Without `presenting`, it never answers.
    fn server(minting: u16, presenting: Option<u16>) -> Client {
        let answer = move |request: Request<Body>| async move {
            let path = request.uri().path().to_owned();
            if path == PROBE {
                assert_eq!(request.headers()[AUTHORIZATION], format!("Bearer {TOKEN}"));
                let Some(status) = presenting else {
                    return std::future::pending().await;
                };
                return Ok::<_, Infallible>(Response::builder().status(status).body(Body::empty()).unwrap());
            }
            assert_eq!(
                path,
                "/api/v1/namespaces/lockstep-system/serviceaccounts/lockstep/token"
            );
            let body = request.into_body().collect_bytes().await.unwrap();
            let asked: TokenRequest = serde_json::from_slice(&body).unwrap();
            assert_eq!(asked.spec.expiration_seconds, Some(600));
            let body = if minting == 201 {
                json!({
                    "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {},
                    "spec": { "audiences": asked.spec.audiences },
                    "status": { "token": TOKEN, "expirationTimestamp": "2026-01-01T00:00:00Z" },
                })
            } else {
                json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "code": minting })
            };
            let body = Body::from(serde_json::to_vec(&body).unwrap());
            Ok(Response::builder().status(minting).body(body).unwrap())
        };
        Client::new(service_fn(answer), "default")
    }

    async fn proven(minting: u16, presenting: Option<u16>) -> Verdict {
        let audiences = Audiences::new(["vault".to_owned()]);
        assert_eq!(audiences.check("vault"), Err(Unusable::Untried));
        let client = server(minting, presenting);
        audiences
            .prove(&client, &client, ("lockstep-system", "lockstep"))
            .await;
        audiences.check("vault")
    }

    #[tokio::test(start_paused = true)]
    async fn only_status_401_proves_an_audience() {
        assert_eq!(proven(201, Some(401)).await, Ok(()));
        assert_eq!(proven(201, Some(200)).await, Err(Unusable::Accepted));
        for presenting in [Some(403), Some(404), Some(429), Some(500), Some(302), None] {
            let verdict = proven(201, presenting).await;
            assert!(
                matches!(verdict, Err(Unusable::Unproven(_))),
                "{presenting:?} {verdict:?}"
            );
        }
        assert_eq!(proven(403, Some(401)).await, Err(Unusable::Forbidden));
        for minting in [404, 500] {
            let verdict = proven(minting, Some(401)).await;
            assert!(
                matches!(verdict, Err(Unusable::Unproven(_))),
                "{minting} {verdict:?}"
            );
        }
    }

    #[tokio::test]
    async fn audience_that_the_api_server_starts_to_accept_is_disabled() {
        let audiences = Audiences::new(["vault".to_owned()]);
        let account = ("lockstep-system", "lockstep");
        let (good, bad) = (server(201, Some(401)), server(201, Some(200)));
        let usable = vec![("vault".to_owned(), Ok(()))];
        assert_eq!(audiences.prove(&good, &good, account).await, usable);
        assert_eq!(audiences.prove(&good, &good, account).await, []);
        let disabled = vec![("vault".to_owned(), Err(Unusable::Accepted))];
        assert_eq!(audiences.prove(&bad, &bad, account).await, disabled);
        assert!(!audiences.take_refused());
        assert_eq!(audiences.check("vault"), Err(Unusable::Accepted));
        assert!(audiences.take_refused() && !audiences.take_refused());
        assert_eq!(audiences.prove(&good, &good, account).await, usable);
    }

    #[tokio::test]
    async fn no_token_is_minted_for_reserved_or_unlisted_audiences() {
        let reserved = "https://kubernetes.default.svc";
        let audiences = Arc::new(Audiences::new(["vault".to_owned(), reserved.to_owned()]));
        let client = server(201, Some(401));
        audiences
            .prove(&client, &client, ("lockstep-system", "lockstep"))
            .await;
        assert_eq!(audiences.check("vault"), Ok(()));
        assert_eq!(audiences.check(reserved), Err(Unusable::Reserved));
        assert_eq!(audiences.check("sts.amazonaws.com"), Err(Unusable::NotAllowed));
        for unusable in [
            Unusable::Accepted,
            Unusable::Unproven("it failed"),
            Unusable::NotAllowed,
        ] {
            assert!(!format!("{unusable} {unusable:?}").contains(TOKEN));
        }
    }
}
