//! A stand-in of a store: what lockstep needs of Vault's KV version 2, quick enough that it is not what is measured.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// How often values were read.
#[derive(Debug, Default)]
struct Reads {
    all: u64,
    keys: HashSet<String>,
}

/// The running stand-in.
#[derive(Debug, Clone)]
pub(crate) struct StandIn {
    address: SocketAddr,
    reads: Arc<Mutex<Reads>>,
}

impl StandIn {
    /// Starts it on a free port of loopback; it ends with the process.
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
        let stand_in = Self {
            address: listener.local_addr().context("listen")?,
            reads: Arc::default(),
        };
        let router = Router::new()
            .route("/v1/auth/token/lookup-self", get(token))
            .route("/v1/secret/data/{*key}", get(read))
            .with_state(stand_in.clone());
        #[expect(clippy::disallowed_methods, reason = "a server that ends with this process")]
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(stand_in)
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All reads so far, and of how many different keys.
    pub(crate) fn reads(&self) -> (u64, usize) {
        let reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        (reads.all, reads.keys.len())
    }
}

async fn token() -> Json<Value> {
    Json(json!({ "data": { "ttl": 0, "renewable": false, "display_name": "token", "policies": ["bench"] } }))
}

async fn read(State(stand_in): State<StandIn>, Path(key): Path<String>) -> (StatusCode, Json<Value>) {
    let answer = json!({ "data": {
        "data": super::cluster::values(&key),
        "metadata": {
            "created_time": "2026-01-01T00:00:00.000000000Z", "deletion_time": "", "destroyed": false,
            "version": 1, "custom_metadata": null,
        },
    } });
    let mut reads = stand_in.reads.lock().unwrap_or_else(PoisonError::into_inner);
    reads.all += 1;
    reads.keys.insert(key);
    (StatusCode::OK, Json(answer))
}
