//! `/livez`, `/readyz` and `/metrics`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{Router, extract::State, http::StatusCode, http::header, response::IntoResponse, routing::get};

/// What has to be so before the operator is ready, and what is missing of it.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, Option<String>>>>);

impl Readiness {
    /// Names something that is missing, and why.
    pub fn missing(&self, what: &'static str, why: impl Into<String>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(what, Some(why.into()));
    }

    /// Names something that is there.
    pub fn there(&self, what: &'static str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(what, None);
    }

    /// Whether everything is there, and a line for each thing.
    pub fn report(&self) -> (bool, String) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<_> = all
            .iter()
            .map(|(what, missing)| match missing {
                None => format!("[+] {what}: ok"),
                Some(why) => format!("[-] {what}: {why}"),
            })
            .collect();
        (all.values().all(Option::is_none), lines.join("\n") + "\n")
    }
}

/// What the server shows.
#[derive(Clone)]
pub struct Admin {
    /// Whether the operator is ready.
    pub readiness: Readiness,
    /// Makes the text of `/metrics`.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Admin")
    }
}

/// The routes.
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
