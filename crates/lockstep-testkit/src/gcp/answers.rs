//! Responses and errors in the format of Google's services.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};

use super::{Asked, Trouble};

/// An error response.
#[derive(Debug)]
pub(super) struct Refusal {
    status: &'static str,
    text: String,
    details: Vec<Value>,
}

impl Refusal {
    pub(super) fn new(status: &'static str, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
            details: Vec::new(),
        }
    }

    pub(super) fn invalid(text: impl Into<String>) -> Self {
        Self::new("INVALID_ARGUMENT", text)
    }

    pub(super) fn precondition(text: impl Into<String>) -> Self {
        Self::new("FAILED_PRECONDITION", text)
    }

    pub(super) fn missing(what: &str) -> Self {
        Self::new("NOT_FOUND", format!("{what} CANARY not found"))
    }

    /// Returns the error for invalid credentials.
    pub(super) fn unauthenticated(reason: &'static str) -> Self {
        Self::new("UNAUTHENTICATED", "the credentials CANARY are no good").with_reason(
            reason,
            "googleapis.com",
            &json!({}),
        )
    }

    pub(super) fn denied(permission: &str, resource: &str) -> Self {
        let text = format!("permission {permission} denied on {resource} CANARY");
        let metadata = json!({ "permission": permission, "resource": resource });
        Self::new("PERMISSION_DENIED", text).with_reason(
            "IAM_PERMISSION_DENIED",
            "iam.googleapis.com",
            &metadata,
        )
    }

    fn throttled() -> Self {
        Self::new("RESOURCE_EXHAUSTED", "the quota CANARY is used up").with_reason(
            "RATE_LIMIT_EXCEEDED",
            "googleapis.com",
            &json!({ "quota_limit": "CANARY" }),
        )
    }

    pub(super) fn with_reason(mut self, reason: &str, domain: &str, metadata: &Value) -> Self {
        self.details.push(json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason,
            "domain": domain,
            "metadata": metadata,
        }));
        self
    }

    fn code(&self) -> StatusCode {
        match self.status {
            "INVALID_ARGUMENT" | "FAILED_PRECONDITION" => StatusCode::BAD_REQUEST,
            "UNAUTHENTICATED" => StatusCode::UNAUTHORIZED,
            "PERMISSION_DENIED" => StatusCode::FORBIDDEN,
            "NOT_FOUND" => StatusCode::NOT_FOUND,
            "ALREADY_EXISTS" => StatusCode::CONFLICT,
            "RESOURCE_EXHAUSTED" => StatusCode::TOO_MANY_REQUESTS,
            "UNAVAILABLE" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn body(&self) -> Value {
        let mut error = json!({
            "code": self.code().as_u16(),
            "message": self.text,
            "status": self.status,
        });
        if !self.details.is_empty() {
            error["details"] = json!(self.details);
        }
        json!({ "error": error })
    }
}

/// The numbers of enumerations, for clients that ask for numbers (`$alt=json;enum-encoding=int`).
const NUMBERS: [(&str, &str, i32); 8] = [
    ("state", "ENABLED", 1),
    ("state", "DISABLED", 2),
    ("state", "DESTROYED", 3),
    ("state", "DESTROY_SCHEDULED", 4),
    ("protectionLevel", "SOFTWARE", 1),
    ("purpose", "ENCRYPT_DECRYPT", 1),
    ("algorithm", "GOOGLE_SYMMETRIC_ENCRYPTION", 1),
    ("secretType", "SECRET_TYPE_UNSPECIFIED", 0),
];

fn numbered(answer: &mut Value) {
    match answer {
        Value::Array(items) => items.iter_mut().for_each(numbered),
        Value::Object(fields) => {
            for (name, value) in fields {
                let number = NUMBERS
                    .iter()
                    .find(|(field, text, _)| field == name && value.as_str() == Some(text));
                match number {
                    Some((_, _, number)) => *value = json!(number),
                    // These contain keys that users choose.
                    None if matches!(name.as_str(), "labels" | "annotations" | "versionAliases") => {}
                    None => numbered(value),
                }
            }
        }
        _ => {}
    }
}

/// Converts a result to a response.
pub(super) fn answered(
    trouble: Option<&Trouble>,
    asked: &Asked,
    outcome: Result<Value, Refusal>,
) -> Response {
    let is_cut = trouble == Some(&Trouble::Cut);
    match outcome {
        Ok(mut answer) => {
            let alternative = asked.query.get("$alt").or_else(|| asked.query.get("alt"));
            if alternative.is_some_and(|alternative| alternative.ends_with("enum-encoding=int")) {
                numbered(&mut answer);
            }
            written(StatusCode::OK, &answer, is_cut)
        }
        Err(refusal) => {
            let mut response = written(refusal.code(), &refusal.body(), is_cut);
            if refusal.status == "UNAUTHENTICATED" {
                let challenge =
                    header::HeaderValue::from_static("Bearer realm=\"https://accounts.google.com/\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            response
        }
    }
}

pub(super) fn written(status: StatusCode, answer: &Value, is_cut: bool) -> Response {
    let mut text = answer.to_string();
    if is_cut {
        text.truncate(text.len() / 2);
    }
    let headers = [(header::CONTENT_TYPE, "application/json; charset=UTF-8")];
    (status, headers, text).into_response()
}

/// Returns the response of a service with a fault. `calls` includes the current one.
pub(super) fn in_trouble(trouble: Option<&mut Trouble>, calls: usize) -> Option<Response> {
    let refused = |refusal: &Refusal, retry_after: Option<u64>| {
        let mut response = written(refusal.code(), &refusal.body(), false);
        if let Some(value) = retry_after.and_then(|after| after.to_string().parse().ok()) {
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        Some(response)
    };
    match trouble? {
        Trouble::Throttled { left: 0, .. } | Trouble::Cut | Trouble::WrongChecksum | Trouble::NoPayload => {
            None
        }
        Trouble::Throttled { left, retry_after } => {
            *left -= 1;
            refused(&Refusal::throttled(), *retry_after)
        }
        Trouble::EverySecond => calls
            .is_multiple_of(2)
            .then(|| refused(&Refusal::throttled(), None))
            .flatten(),
        Trouble::Html { status } => Some(html(
            StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY),
        )),
        Trouble::Broken => refused(&Refusal::new("UNAVAILABLE", "the service CANARY is down"), None),
    }
}

pub(super) fn html(status: StatusCode) -> Response {
    let text = format!("<!DOCTYPE html><html><title>Error {status}</title><p>CANARY</p></html>");
    (status, [(header::CONTENT_TYPE, "text/html; charset=UTF-8")], text).into_response()
}

/// Returns the response to an unknown method, which is an HTML page.
pub(super) fn no_such_page() -> Response {
    html(StatusCode::NOT_FOUND)
}
