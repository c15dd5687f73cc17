//! The metadata server of Google's machines.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::json;

use super::{
    Asked, NODE, PROJECT, PROJECT_NUMBER, World, answers,
    tokens::{CLOUD_PLATFORM, grant},
};

const FLAVOR: &str = "Metadata-Flavor";

/// Returns a response if the request is for the metadata server.
pub(super) fn call(world: &mut World, asked: &Asked, headers: &HeaderMap) -> Option<Response> {
    let parts: Vec<&str> = asked
        .segments
        .iter()
        .map(String::as_str)
        .filter(|part| !part.is_empty())
        .collect();
    let rest = match parts.as_slice() {
        // Clients send this to detect the server.
        [] => &[],
        ["computeMetadata", "v1", rest @ ..] => rest,
        _ => return None,
    };
    if headers.get(FLAVOR).is_none_or(|flavor| flavor != "Google") {
        return Some(answers::html(StatusCode::FORBIDDEN));
    }
    let mut response = match rest {
        ["instance", "service-accounts", "default" | NODE, "token"] => token(world, asked),
        ["instance", "service-accounts", "default" | NODE, "email"] => text(NODE),
        ["instance", "service-accounts", "default" | NODE] => {
            let answer = json!({ "aliases": ["default"], "email": NODE, "scopes": [CLOUD_PLATFORM] });
            answers::written(StatusCode::OK, &answer, false)
        }
        ["project", "project-id"] => text(PROJECT),
        ["project", "numeric-project-id"] => text(PROJECT_NUMBER),
        ["universe", "universe-domain" | "universe_domain"] => text("googleapis.com"),
        [] => text("computeMetadata/"),
        _ => answers::html(StatusCode::NOT_FOUND),
    };
    response
        .headers_mut()
        .insert(FLAVOR, HeaderValue::from_static("Google"));
    Some(response)
}

fn text(text: &'static str) -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/text")], text).into_response()
}

fn token(world: &mut World, asked: &Asked) -> Response {
    world.note_call("MetadataToken", Some(NODE.to_owned()), asked, "");
    let calls = world.calls.len();
    if let Some(answer) = answers::in_trouble(world.token_trouble.as_mut(), calls) {
        return answer;
    }
    let (token, lifetime) = grant(world, NODE, &[CLOUD_PLATFORM.to_owned()]);
    let answer = json!({ "access_token": token, "expires_in": lifetime.as_secs(), "token_type": "Bearer" });
    let is_cut = world.token_trouble == Some(super::Trouble::Cut);
    answers::written(StatusCode::OK, &answer, is_cut)
}
