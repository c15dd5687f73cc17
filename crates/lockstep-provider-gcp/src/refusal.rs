//! Interprets error responses: Google's error model (`cloud.google.com/apis/design/errors`) and
//! OAuth's (RFC 6749, section 5.2).

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

/// Maximum length of a body that is parsed, in bytes: Google's own errors are a few KiB.
const LONGEST: usize = 64 * 1024;

/// The meaning of an error of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The object does not exist.
    Missing,
    /// The policy does not grant the action.
    Denied,
    /// The API is not enabled in the project.
    ServiceDisabled,
    /// The version of a secret or key is disabled.
    Disabled,
    /// The version of a secret or key is destroyed, or will be.
    Destroyed,
    /// The object is in another state that does not allow the action.
    Precondition,
    /// The login is invalid or has expired.
    Credentials,
    /// There were too many requests.
    Throttled,
    /// The service is unavailable.
    Broken,
    /// The request is invalid.
    Invalid,
    /// The response does not come from Google.
    Garbage,
}

/// The error in a response. Nothing of it is shown.
#[derive(Deserialize)]
struct Envelope {
    error: Value,
}

/// Returns the meaning of a response with this status, and the delay before the next request if the
/// service returned one.
pub(crate) fn read(status: u16, body: &[u8]) -> (Why, Option<Duration>) {
    if body.len() > LONGEST {
        return (of_status(status, false), None);
    }
    let error = serde_json::from_slice::<Envelope>(body).map(|envelope| envelope.error);
    let error = match error {
        Ok(Value::Object(error)) => error,
        // An error of OAuth is a single word.
        Ok(Value::String(_)) if (400..=401).contains(&status) => return (Why::Credentials, None),
        Ok(Value::String(_)) => return (of_status(status, true), None),
        _ => return (of_status(status, false), None),
    };
    let text = |field: &str| error.get(field).and_then(Value::as_str).unwrap_or_default();
    let details = error
        .get("details")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let in_details = |field: &str| details.iter().find_map(|detail| detail.get(field)?.as_str());
    if text("status") == "NOT_FOUND" {
        return (of_missing(status, &error), None);
    }
    let why = of_name(text("status"), in_details("reason").unwrap_or_default(), || {
        text("message").to_owned()
    });
    let delay = in_details("retryDelay").and_then(seconds);
    (why.unwrap_or_else(|| of_status(status, true)), delay)
}

/// Returns the meaning of an error with the name `NOT_FOUND`. Only Google's complete form proves
/// that a value is gone, because `deletionPolicy: Delete` then deletes the Secret. A proxy or a
/// wrong endpoint can return 404.
fn of_missing(status: u16, error: &Map<String, Value>) -> Why {
    let has_code = error.get("code").and_then(Value::as_u64) == Some(404);
    if status == 404 && has_code && error.get("message").is_some_and(Value::is_string) {
        Why::Missing
    } else {
        of_status(status, false)
    }
}

/// Returns the meaning of a status name with its reason. For one of them, a word in the text
/// decides.
fn of_name(name: &str, reason: &str, message: impl Fn() -> String) -> Option<Why> {
    Some(match (name, reason) {
        (_, "SERVICE_DISABLED") => Why::ServiceDisabled,
        (_, "RATE_LIMIT_EXCEEDED") | ("RESOURCE_EXHAUSTED", _) => Why::Throttled,
        ("PERMISSION_DENIED", _) => Why::Denied,
        ("UNAUTHENTICATED", _) => Why::Credentials,
        ("FAILED_PRECONDITION", _) => {
            let message = message();
            // "… is in DISABLED state." of Secret Manager, "… is not enabled, current state is:
            // DISABLED." of KMS.
            let is_in = |state: &str| {
                let phrases = [
                    format!("{state} state"),
                    format!("state {state}"),
                    format!("state is: {state}"),
                ];
                phrases.iter().any(|phrase| message.contains(phrase))
            };
            if is_in("DESTROYED") || is_in("DESTROY_SCHEDULED") {
                Why::Destroyed
            } else if is_in("DISABLED") {
                Why::Disabled
            } else {
                Why::Precondition
            }
        }
        ("INVALID_ARGUMENT" | "OUT_OF_RANGE" | "UNIMPLEMENTED", _) => Why::Invalid,
        (
            "UNAVAILABLE" | "INTERNAL" | "UNKNOWN" | "ABORTED" | "CANCELLED" | "DATA_LOSS"
            | "DEADLINE_EXCEEDED",
            _,
        ) => Why::Broken,
        _ => return None,
    })
}

/// Returns the meaning of a status without a known name.
fn of_status(status: u16, is_of_google: bool) -> Why {
    match status {
        429 => Why::Throttled,
        // A gateway redirects elsewhere, where no token is sent.
        300..=399 | 500..=599 => Why::Broken,
        401 if is_of_google => Why::Credentials,
        403 if is_of_google => Why::Denied,
        // No status alone proves that a value is gone.
        404 => Why::Garbage,
        400..=499 if is_of_google => Why::Invalid,
        _ => Why::Garbage,
    }
}

/// Parses a duration in the format of `google.protobuf.Duration`: `1.5s`.
fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(status: u16, error: &Value) -> Why {
        read(status, json!({ "error": error }).to_string().as_bytes()).0
    }

    #[test]
    fn every_status_name_has_one_meaning() {
        for (status, name, want) in [
            (404, "NOT_FOUND", Why::Missing),
            (400, "NOT_FOUND", Why::Garbage),
            (404, "SOMETHING_NEW", Why::Garbage),
            (404, "", Why::Garbage),
            (403, "PERMISSION_DENIED", Why::Denied),
            (401, "UNAUTHENTICATED", Why::Credentials),
            (429, "RESOURCE_EXHAUSTED", Why::Throttled),
            (400, "FAILED_PRECONDITION", Why::Precondition),
            (400, "INVALID_ARGUMENT", Why::Invalid),
            (501, "UNIMPLEMENTED", Why::Invalid),
            (503, "UNAVAILABLE", Why::Broken),
            (500, "INTERNAL", Why::Broken),
            (504, "DEADLINE_EXCEEDED", Why::Broken),
            (400, "SOMETHING_NEW", Why::Invalid),
            (403, "", Why::Denied),
        ] {
            let error = json!({ "code": status, "status": name, "message": "CANARY" });
            assert_eq!(of(status, &error), want, "{name}");
        }
    }

    #[test]
    fn reason_is_more_specific_than_its_status() {
        let of_reason = |reason: &str| {
            let details = json!([{ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason }]);
            of(
                403,
                &json!({ "code": 403, "status": "PERMISSION_DENIED", "details": details }),
            )
        };
        assert_eq!(of_reason("SERVICE_DISABLED"), Why::ServiceDisabled);
        assert_eq!(of_reason("RATE_LIMIT_EXCEEDED"), Why::Throttled);
        assert_eq!(of_reason("IAM_PERMISSION_DENIED"), Why::Denied);
    }

    #[test]
    fn state_is_parsed_from_the_text_but_not_from_names_in_it() {
        let of_text = |text: &str| of(400, &json!({ "status": "FAILED_PRECONDITION", "message": text }));
        assert_eq!(
            of_text("Secret Version [projects/1/secrets/a/versions/3] is in DISABLED state."),
            Why::Disabled
        );
        assert_eq!(
            of_text("Secret Version [projects/1/secrets/a/versions/3] is in DESTROYED state."),
            Why::Destroyed
        );
        assert_eq!(of_text("it is in state DESTROY_SCHEDULED"), Why::Destroyed);
        let key = "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1";
        for (state, why) in [
            ("DISABLED", Why::Disabled),
            ("DESTROYED", Why::Destroyed),
            ("DESTROY_SCHEDULED", Why::Destroyed),
            ("PENDING_IMPORT", Why::Precondition),
        ] {
            let text = format!("{key} is not enabled, current state is: {state}.");
            assert_eq!(of_text(&text), why, "{state}");
        }
        assert_eq!(
            of_text("[projects/1/secrets/DISABLED/versions/3]"),
            Why::Precondition
        );
    }

    #[test]
    fn response_of_others_is_garbage_unless_its_status_is_clear() {
        for (status, want) in [
            (200, Why::Garbage),
            (302, Why::Broken),
            (400, Why::Garbage),
            (401, Why::Garbage),
            (403, Why::Garbage),
            (404, Why::Garbage),
            (429, Why::Throttled),
            (500, Why::Broken),
            (502, Why::Broken),
        ] {
            for body in [&b"<html>CANARY</html>"[..], b"", b"{\"error\":", b"{}", b"[]"] {
                assert_eq!(read(status, body), (want, None), "{status}");
            }
        }
    }

    #[test]
    fn long_error_is_classified_only_by_its_status() {
        for (status, want) in [(404, Why::Garbage), (429, Why::Throttled), (503, Why::Broken)] {
            let mut body = br#"{"error":{"status":"PERMISSION_DENIED"}}"#.to_vec();
            assert_eq!(read(status, &body).0, Why::Denied, "{status}");
            body.resize(LONGEST, b' ');
            assert_eq!(read(status, &body).0, Why::Denied, "{status}");
            body.push(b' ');
            assert_eq!(read(status, &body), (want, None), "{status}");
        }
    }

    #[test]
    fn oauth_error_is_a_credentials_error() {
        let body = br#"{"error":"invalid_grant","error_description":"CANARY"}"#;
        assert_eq!(read(400, body).0, Why::Credentials);
        assert_eq!(read(401, body).0, Why::Credentials);
        assert_eq!(read(403, body).0, Why::Denied);
        assert_eq!(read(500, body).0, Why::Broken);
    }

    #[test]
    fn retry_delay_is_read_from_the_details() {
        let details = json!([{ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.5s" }]);
        let error = json!({ "error": { "status": "RESOURCE_EXHAUSTED", "details": details } });
        let read = read(429, error.to_string().as_bytes());
        assert_eq!(read, (Why::Throttled, Some(Duration::from_millis(1500))));
        for bad in ["", "s", "-1s", "1e400s", "NaNs", "soon"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
