//! Serves `/livez`, `/readyz` and `/metrics`.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, http::header, response::IntoResponse, routing::get};
use parking_lot::Mutex;

/// Tracks what the operator needs before it is ready, and notes that do not affect readiness.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    parts: BTreeMap<&'static str, Option<String>>,
    notes: BTreeMap<String, Result<(), String>>,
}

impl Readiness {
    /// Marks a requirement as missing, with the reason.
    pub fn missing(&self, what: &'static str, why: impl Into<String>) {
        self.0.lock().parts.insert(what, Some(why.into()));
    }

    /// Marks a requirement as met.
    pub fn there(&self, what: &'static str) {
        self.0.lock().parts.insert(what, None);
    }

    /// Adds a line about something that the operator can work without.
    pub fn note(&self, what: impl Into<String>, state: Result<(), String>) {
        self.0.lock().notes.insert(what.into(), state);
    }

    /// Returns whether every requirement is met, and a line for each of them.
    pub fn report(&self) -> (bool, String) {
        let state = self.0.lock();
        let parts = state.parts.iter().map(|(what, missing)| match missing {
            None => format!("[+] {what}: ok\n"),
            Some(why) => format!("[-] {what}: {why}\n"),
        });
        let notes = state.notes.iter().map(|(what, state)| match state {
            Ok(()) => format!("[+] {what}: ok\n"),
            Err(why) => format!("[!] {what}: {why}\n"),
        });
        let lines = parts.chain(notes).collect();
        (state.parts.values().all(Option::is_none), lines)
    }
}

/// State of the admin server.
#[derive(Clone)]
pub struct Admin {
    /// The source of `/readyz`.
    pub readiness: Readiness,
    /// Renders the text of `/metrics`.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Admin")
    }
}

/// Returns the routes of the admin server.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    let (ready, text) = admin.readiness.report();
    (
        if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        },
        text,
    )
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        (admin.metrics)(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn note_is_shown_and_does_not_affect_readiness() {
        let readiness = Readiness::default();
        readiness.there("stores");
        readiness.note("token audience vault", Ok(()));
        readiness.note("token audience sts.amazonaws.com", Err("disabled".to_owned()));
        let want =
            "[+] stores: ok\n[!] token audience sts.amazonaws.com: disabled\n[+] token audience vault: ok\n";
        assert_eq!(readiness.report(), (true, want.to_owned()));
        readiness.missing("stores", "starting");
        assert!(!readiness.report().0);
    }
}
