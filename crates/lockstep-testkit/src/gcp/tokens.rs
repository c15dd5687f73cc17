//! The token services, and the identities of tokens.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use axum::{
    http::{HeaderMap, StatusCode},
    response::Response,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Action, Asked, GKE_CLUSTER, GKE_POOL, Gcp, PROJECT_NUMBER, Refusal, Service, Trouble,
    WORKLOAD_IDENTITY_PROVIDER, World,
    answers::{self, written},
    route,
    service_account::{claims, seconds_now, verified},
};

/// The scope of all APIs.
pub(super) const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";
/// The scope of KMS only.
const CLOUD_KMS: &str = "https://www.googleapis.com/auth/cloudkms";
/// The default lifetime of a token.
const LIFETIME: Duration = Duration::from_secs(3600);
/// The audience of a JWT in Google's documents. The address in the key is also accepted.
const TOKEN_AUDIENCE: &str = "https://oauth2.googleapis.com/token";

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT_TYPES: [&str; 2] = [
    "urn:ietf:params:oauth:token-type:jwt",
    "urn:ietf:params:oauth:token-type:id_token",
];

/// The identity of a token, and when it expires.
#[derive(Debug)]
pub(super) struct Token {
    identity: String,
    scopes: Vec<String>,
    ends: Instant,
}

/// Returns the identity of a ServiceAccount, `system:serviceaccount:NAMESPACE:NAME`, that uses
/// Workload Identity Federation.
pub fn principal(subject: &str) -> String {
    let pool = format!("projects/{PROJECT_NUMBER}/locations/global/workloadIdentityPools/lockstep");
    format!("principal://iam.googleapis.com/{pool}/subject/{subject}")
}

/// Returns the identity of a ServiceAccount that uses GKE's own federation.
pub fn gke_principal(subject: &str) -> String {
    let pool = format!("projects/{PROJECT_NUMBER}/locations/global/workloadIdentityPools/{GKE_POOL}");
    let mut parts = subject.split(':').skip(2);
    let (namespace, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("principal://iam.googleapis.com/{pool}/subject/ns/{namespace}/sa/{name}")
}

impl Gcp {
    /// Lets the tokens of a ServiceAccount, `system:serviceaccount:NAMESPACE:NAME`, be exchanged.
    /// Their signatures are not checked. Its identity is [`principal`] or [`gke_principal`].
    pub fn trust_subject(&self, subject: &str) {
        self.world.lock().subjects.insert(subject.to_owned());
    }

    /// Lets this ServiceAccount (`system:serviceaccount:…`) or identity impersonate that service
    /// account.
    pub fn allow_impersonation(&self, who: &str, email: &str) {
        let mut world = self.world.lock();
        world.accounts.entry(email.to_owned()).or_default();
        let identities = if who.starts_with("system:serviceaccount:") {
            vec![principal(who), gke_principal(who)]
        } else {
            vec![who.to_owned()]
        };
        let pairs = identities
            .into_iter()
            .map(|identity| (identity, email.to_owned()));
        world.impersonators.extend(pairs);
    }

    /// Rejects every token that was issued or sent so far. New ones can be requested.
    pub fn revoke_all(&self) {
        let mut world = self.world.lock();
        world.tokens.clear();
        let self_signed = std::mem::take(&mut world.self_signed);
        world.revoked.extend(self_signed);
    }
}

/// Returns the identity of a request's token, if it is valid for this service.
pub(super) fn bearer(world: &mut World, headers: &HeaderMap, action: &Action) -> Result<String, Refusal> {
    let (identity, scopes) = authenticated(world, headers, Some(action.service))?;
    let is_enough =
        |scope: &String| scope == CLOUD_PLATFORM || (action.service == Service::Kms && scope == CLOUD_KMS);
    if scopes.iter().any(is_enough) {
        return Ok(identity);
    }
    let text = "the token CANARY has not the scope that this takes";
    Err(Refusal::new("PERMISSION_DENIED", text).with_reason(
        "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
        "googleapis.com",
        &json!({ "method": action.name }),
    ))
}

fn authenticated(
    world: &mut World,
    headers: &HeaderMap,
    service: Option<Service>,
) -> Result<(String, Vec<String>), Refusal> {
    let missing = || Refusal::unauthenticated("CREDENTIALS_MISSING");
    let header = headers.get("authorization").ok_or_else(missing)?;
    let text = header.to_str().map_err(|_| missing())?;
    let sent = text.strip_prefix("Bearer ").ok_or_else(missing)?;
    if let Some(token) = world.tokens.get(sent) {
        if Instant::now() >= token.ends {
            return Err(Refusal::unauthenticated("ACCESS_TOKEN_EXPIRED"));
        }
        return Ok((token.identity.clone(), token.scopes.clone()));
    }
    let expired = || Refusal::unauthenticated("ACCESS_TOKEN_EXPIRED");
    if sent.starts_with("ya29.") {
        return Err(expired());
    }
    // A JWT of a service account, sent as it is.
    let is_jwt = sent.matches('.').count() == 2;
    if !is_jwt {
        return Err(Refusal::unauthenticated("ACCESS_TOKEN_TYPE_UNSUPPORTED"));
    }
    let (issuer, claims) = verified(world, sent).ok_or_else(expired)?;
    if world.revoked.contains(sent) || claims["sub"] != issuer.as_str() {
        return Err(expired());
    }
    world.self_signed.insert(sent.to_owned());
    if let Some(scope) = claims["scope"].as_str() {
        return Ok((issuer, scope.split(' ').map(str::to_owned).collect()));
    }
    let host = match service {
        Some(Service::SecretManager) => "secretmanager",
        Some(Service::Kms) => "cloudkms",
        Some(Service::PubSub) => "pubsub",
        None => "iamcredentials",
    };
    if claims["aud"] == format!("https://{host}.googleapis.com/") {
        Ok((issuer, vec![CLOUD_PLATFORM.to_owned()]))
    } else {
        Err(expired())
    }
}

/// Issues a token and returns it with its lifetime.
pub(super) fn grant(world: &mut World, identity: &str, scopes: &[String]) -> (String, Duration) {
    let text = format!("ya29.CANARY-token-{}", world.next());
    let lifetime = world.lifetime.unwrap_or(LIFETIME);
    let token = Token {
        identity: identity.to_owned(),
        scopes: scopes.to_vec(),
        ends: Instant::now() + lifetime,
    };
    world.tokens.insert(text.clone(), token);
    (text, lifetime)
}

/// Returns a response if the request is for a token.
pub(super) fn call(world: &mut World, asked: &Asked, headers: &HeaderMap) -> Option<Response> {
    let parts: Vec<&str> = asked.segments.iter().map(String::as_str).collect();
    if asked.method != "POST" {
        return None;
    }
    match (parts.as_slice(), asked.verb.as_deref()) {
        (["token"], None) => Some(oauth(world, asked, "ExchangeJwt", exchange_jwt)),
        (["v1", "token"], None) => Some(oauth(world, asked, "ExchangeToken", exchange_token)),
        (["v1", "projects", "-", "serviceAccounts", email], Some("generateAccessToken")) => {
            let email = (*email).to_owned();
            Some(impersonate(world, asked, headers, &email))
        }
        _ => None,
    }
}

/// An OAuth error code, and what is wrong with the request.
struct Wrong(&'static str, &'static str);

type Fields = BTreeMap<String, String>;

/// The identity of the new token, its scopes, and further fields of the response.
type Exchanged = Result<(String, Vec<String>, Value), Wrong>;

/// Converts a result to a response in the format of RFC 6749.
fn oauth(
    world: &mut World,
    asked: &Asked,
    action: &str,
    exchange: fn(&World, &Fields) -> Exchanged,
) -> Response {
    let outcome = exchange(world, &fields(&asked.body));
    let identity = outcome.as_ref().ok().map(|(identity, ..)| identity.clone());
    world.note_call(action, identity, asked, "");
    let calls = world.calls.len();
    if let Some(answer) = answers::in_trouble(world.token_trouble.as_mut(), calls) {
        return answer;
    }
    let is_cut = world.token_trouble == Some(Trouble::Cut);
    match outcome {
        Ok((identity, scopes, mut answer)) => {
            let (token, lifetime) = grant(world, &identity, &scopes);
            answer["access_token"] = json!(token);
            answer["expires_in"] = json!(lifetime.as_secs());
            answer["token_type"] = json!("Bearer");
            written(StatusCode::OK, &answer, is_cut)
        }
        Err(Wrong(error, what)) => {
            let answer = json!({ "error": error, "error_description": format!("{what} CANARY") });
            written(StatusCode::BAD_REQUEST, &answer, is_cut)
        }
    }
}

/// Parses the fields of a form or of JSON. The token service accepts their names in both styles.
fn fields(body: &str) -> Fields {
    let Ok(Value::Object(object)) = serde_json::from_str(body) else {
        return route::form(body);
    };
    let snake = |name: String| {
        name.chars().fold(String::new(), |text, character| {
            if character.is_ascii_uppercase() {
                text + "_" + &character.to_ascii_lowercase().to_string()
            } else {
                text + &character.to_string()
            }
        })
    };
    object
        .into_iter()
        .filter_map(|(name, value)| Some((snake(name), value.as_str()?.to_owned())))
        .collect()
}

fn field<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).map(String::as_str).unwrap_or_default()
}

fn scopes(text: &str) -> Result<Vec<String>, Wrong> {
    let scopes: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    if scopes.is_empty() {
        return Err(Wrong("invalid_scope", "scope"));
    }
    Ok(scopes)
}

fn exchange_jwt(world: &World, fields: &Fields) -> Exchanged {
    if field(fields, "grant_type") != JWT_BEARER {
        return Err(Wrong("unsupported_grant_type", "grant_type"));
    }
    let (issuer, claims) =
        verified(world, field(fields, "assertion")).ok_or(Wrong("invalid_grant", "assertion"))?;
    if claims["aud"] != TOKEN_AUDIENCE && claims["aud"] != format!("{}/token", world.address) {
        return Err(Wrong("invalid_grant", "aud"));
    }
    let scopes = scopes(claims["scope"].as_str().unwrap_or_default())?;
    Ok((issuer, scopes, json!({})))
}

fn exchange_token(world: &World, fields: &Fields) -> Exchanged {
    if field(fields, "grant_type") != TOKEN_EXCHANGE {
        return Err(Wrong("unsupported_grant_type", "grant_type"));
    }
    if field(fields, "requested_token_type") != ACCESS_TOKEN {
        return Err(Wrong("invalid_request", "requested_token_type"));
    }
    if !JWT_TYPES.contains(&field(fields, "subject_token_type")) {
        return Err(Wrong("invalid_request", "subject_token_type"));
    }
    let is_gke = match field(fields, "audience") {
        WORKLOAD_IDENTITY_PROVIDER => false,
        audience if audience == format!("identitynamespace:{GKE_POOL}:{GKE_CLUSTER}") => true,
        _ => return Err(Wrong("invalid_target", "audience")),
    };
    let wrong = || Wrong("invalid_grant", "subject_token");
    let claims = claims(field(fields, "subject_token")).ok_or_else(wrong)?;
    // The token's own audience: the pool in GKE, otherwise the provider's name with or without
    // `https:`.
    let is_meant = |audience: &Value| {
        let text = audience.as_str().unwrap_or_default();
        if is_gke {
            text == GKE_POOL
        } else {
            text.strip_prefix("https:").unwrap_or(text) == WORKLOAD_IDENTITY_PROVIDER
        }
    };
    let is_for_us = match &claims["aud"] {
        Value::Array(audiences) => audiences.iter().any(is_meant),
        audience => is_meant(audience),
    };
    let is_over = claims["exp"].as_u64().is_some_and(|ends| ends <= seconds_now());
    let subject = claims["sub"].as_str().unwrap_or_default();
    if !is_for_us || is_over || !world.subjects.contains(subject) {
        return Err(wrong());
    }
    let identity = if is_gke {
        gke_principal(subject)
    } else {
        principal(subject)
    };
    let scopes = scopes(field(fields, "scope"))?;
    Ok((identity, scopes, json!({ "issued_token_type": ACCESS_TOKEN })))
}

fn impersonate(world: &mut World, asked: &Asked, headers: &HeaderMap, email: &str) -> Response {
    let identity = authenticated(world, headers, None).map(|(identity, _)| identity);
    let resource = format!("serviceAccounts/{email}");
    world.note_call(
        "GenerateAccessToken",
        identity.as_ref().ok().cloned(),
        asked,
        &resource,
    );
    let calls = world.calls.len();
    if let Some(answer) = answers::in_trouble(world.token_trouble.as_mut(), calls) {
        return answer;
    }
    let outcome = identity.and_then(|identity| {
        if !world.impersonators.contains(&(identity, email.to_owned())) {
            return Err(Refusal::denied("iam.serviceAccounts.getAccessToken", &resource));
        }
        let request = asked.json();
        let scopes: Vec<String> = request["scope"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|scope| scope.as_str().map(str::to_owned))
            .collect();
        if scopes.is_empty() {
            return Err(Refusal::invalid("scope CANARY is missing"));
        }
        let seconds = request["lifetime"].as_str().unwrap_or("3600s");
        let seconds = seconds
            .strip_suffix('s')
            .and_then(|seconds| seconds.parse::<u64>().ok());
        if !seconds.is_some_and(|seconds| (1..=LIFETIME.as_secs()).contains(&seconds)) {
            return Err(Refusal::invalid("lifetime CANARY is not between 1s and 3600s"));
        }
        let (token, lifetime) = grant(world, email, &scopes);
        let ends = Timestamp::try_from(SystemTime::now() + lifetime).unwrap_or_default();
        Ok(json!({ "accessToken": token, "expireTime": format!("{ends:.0}") }))
    });
    let trouble = world.token_trouble.clone();
    answers::answered(trouble.as_ref(), asked, outcome)
}
