//! The token service, which uses forms and XML.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use reqwest::Url;
use serde_json::Value;

use super::{ACCOUNT, AUDIENCE, Key, Refusal, Shared, Signed, Unsigned, World, in_trouble, signer};

/// The default lifetime of a session.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Returns the error codes of this service, which uses XML.
fn refusal(why: Unsigned) -> Refusal {
    let code = match why {
        Unsigned::Incomplete => "IncompleteSignature",
        Unsigned::UnknownKey => "InvalidClientTokenId",
        Unsigned::Expired => "ExpiredToken",
        Unsigned::WrongSignature => "SignatureDoesNotMatch",
    };
    Refusal {
        code,
        ..why.refusal()
    }
}

pub(super) fn call(shared: &Shared, signed: &Signed<'_>, text: &str) -> Response {
    let mut world = shared.lock();
    let form: BTreeMap<String, String> = Url::parse(&format!("http://form/?{text}"))
        .map(|url| url.query_pairs().into_owned().collect())
        .unwrap_or_default();
    let action = form.get("Action").cloned().unwrap_or_default();
    let signed = signer(&world, signed).map_err(refusal);
    world.note_call(&action, signed.as_ref().ok().cloned().flatten(), text);
    if let Some(answer) = in_trouble(&mut world, true) {
        return answer;
    }
    let outcome = signed.and_then(|key| {
        if world.denied_actions.contains(&action) {
            let text = format!("User CANARY is not authorized to perform: sts:{action}");
            return Err(Refusal::new("AccessDenied", text));
        }
        match action.as_str() {
            "AssumeRole" => assume(&mut world, &form, key.is_some()),
            "AssumeRoleWithWebIdentity" => exchange(&mut world, &form),
            "GetCallerIdentity" if key.is_some() => Ok(format!(
                "<Arn>arn:aws:iam::{ACCOUNT}:user/CANARY</Arn><UserId>CANARY</UserId><Account>{ACCOUNT}</Account>"
            )),
            "GetCallerIdentity" => Err(Refusal::new("MissingAuthenticationToken", "CANARY")),
            _ => Err(Refusal::new("InvalidAction", "CANARY")),
        }
    });
    let headers = [(header::CONTENT_TYPE, "text/xml")];
    let ns = "https://sts.amazonaws.com/doc/2011-06-15/";
    match outcome {
        Ok(result) => {
            let body = format!(
                "<{action}Response xmlns=\"{ns}\"><{action}Result>{result}</{action}Result></{action}Response>"
            );
            (StatusCode::OK, headers, body).into_response()
        }
        Err(refusal) => {
            let body = format!(
                "<ErrorResponse xmlns=\"{ns}\"><Error><Type>Sender</Type><Code>{}</Code><Message>{}</Message></Error></ErrorResponse>",
                refusal.code, refusal.text
            );
            (StatusCode::FORBIDDEN, headers, body).into_response()
        }
    }
}

fn assume(world: &mut World, form: &BTreeMap<String, String>, is_signed: bool) -> Result<String, Refusal> {
    let denied = || {
        Refusal::new(
            "AccessDenied",
            "User CANARY is not authorized to perform: sts:AssumeRole",
        )
    };
    let role = form.get("RoleArn").cloned().unwrap_or_default();
    if !is_signed || world.denied_names.contains(&role) {
        return Err(denied());
    }
    if world
        .external_ids
        .get(&role)
        .is_some_and(|id| form.get("ExternalId") != Some(id))
    {
        return Err(denied());
    }
    let mut tags = BTreeMap::new();
    for number in 1..=50 {
        let field = |name: &str| form.get(&format!("Tags.member.{number}.{name}")).cloned();
        let Some(key) = field("Key") else { break };
        tags.insert(key, field("Value").unwrap_or_default());
    }
    Ok(grant(world, &role, tags))
}

fn exchange(world: &mut World, form: &BTreeMap<String, String>) -> Result<String, Refusal> {
    let token = form.get("WebIdentityToken").cloned().unwrap_or_default();
    let role = form.get("RoleArn").cloned().unwrap_or_default();
    let trusted = world
        .web
        .get(&token)
        .or_else(|| subject(&token).and_then(|subject| world.subjects.get(&subject)));
    match trusted {
        None => Err(Refusal::new("InvalidIdentityToken", "CANARY is no token")),
        Some(trusted) if *trusted == role => Ok(grant(world, &role, BTreeMap::new())),
        Some(_) => Err(Refusal::new(
            "AccessDenied",
            "Not authorized to perform sts:AssumeRoleWithWebIdentity CANARY",
        )),
    }
}

/// Returns the subject of a token with this service's audience.
fn subject(token: &str) -> Option<String> {
    let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let audience = claims["aud"].as_array()?;
    let is_ours = audience.len() == 1 && audience[0] == AUDIENCE;
    is_ours.then(|| claims["sub"].as_str().map(str::to_owned))?
}

/// Creates the credentials of a new session.
fn grant(world: &mut World, role: &str, tags: BTreeMap<String, String>) -> String {
    let number = world.next();
    let (id, secret) = (format!("ASIALOCKSTEP{number:08}"), format!("CANARY-{number}"));
    let token = format!("CANARY-token-{number}");
    let lifetime = world.lifetime.unwrap_or(LIFETIME);
    let key = Key {
        secret: Some(secret.clone()),
        token: Some(token.clone()),
        role: Some(role.to_owned()),
        tags,
        ends: Some(Instant::now() + lifetime),
    };
    world.keys.insert(id.clone(), key);
    let expiration = Timestamp::try_from(SystemTime::now() + lifetime).unwrap_or_default();
    format!(
        "<Credentials><AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
         <SessionToken>{token}</SessionToken><Expiration>{expiration:.0}</Expiration></Credentials>\
         <AssumedRoleUser><Arn>{role}/session</Arn><AssumedRoleId>AROA:{number}</AssumedRoleId></AssumedRoleUser>"
    )
}
