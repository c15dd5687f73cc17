//! Stand-ins of stores that are fast enough not to affect the measurement.

use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use lockstep_testkit::{
    aws::{self, Aws, Trouble},
    gcp::{self, Gcp},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{
    arguments::{FirstSync, Store},
    cluster,
};

/// Counts of reads.
#[derive(Debug, Default)]
struct Reads {
    all: u64,
    keys: HashSet<String>,
}

/// A running stand-in.
pub(crate) enum StandIn {
    /// The part of Vault's KV version 2 that lockstep uses.
    Vault(Vault),
    /// An AWS service.
    Aws {
        /// The stand-in.
        aws: Aws,
        /// Name of the service, as in YAML.
        service: &'static str,
    },
    /// Google Secret Manager, and a service account key.
    Google(Gcp, String),
}

impl StandIn {
    /// Starts a stand-in with all values on a free loopback port.
    pub(crate) async fn start(arguments: &FirstSync) -> Result<Self> {
        let latency = Duration::from_millis(arguments.latency);
        let service = match arguments.store {
            Store::Vault => return Ok(Self::Vault(Vault::start(latency).await?)),
            Store::Google => return Self::google(arguments, latency).await,
            Store::SecretsManager => "SecretsManager",
            Store::ParameterStore => "ParameterStore",
        };
        let aws = Aws::start().await?;
        for number in 0..arguments.objects.div_ceil(arguments.objects_per_key) {
            let key = cluster::name(number);
            let value = cluster::values(&key).to_string();
            match arguments.store {
                Store::ParameterStore => drop(aws.put_parameter(&key, &value)),
                _ => drop(aws.put_secret(&key, &value)),
            }
        }
        aws.latency(latency);
        if arguments.throttle {
            aws.trouble(Some(Trouble::EverySecond));
        }
        Ok(Self::Aws { aws, service })
    }

    async fn google(arguments: &FirstSync, latency: Duration) -> Result<Self> {
        let gcp = Gcp::start().await?;
        for number in 0..arguments.objects.div_ceil(arguments.objects_per_key) {
            let key = cluster::name(number);
            gcp.put_secret(&key, &cluster::values(&key).to_string());
        }
        let key = gcp.service_account_key()?;
        gcp.latency(latency);
        if arguments.throttle {
            gcp.trouble(Some(gcp::Trouble::EverySecond));
        }
        Ok(Self::Google(gcp, key))
    }

    /// Returns `spec.provider` of a store that reads from it.
    pub(crate) fn provider(&self) -> Value {
        let key = |key: &str| json!({ "name": cluster::CREDENTIALS, "key": key });
        match self {
            Self::Vault(vault) => json!({ "vault": {
                "server": vault.url(), "path": "secret", "auth": { "tokenSecretRef": key("token") },
            } }),
            Self::Aws { aws, service } => json!({ "aws": {
                "service": service, "region": aws::REGION, "endpoint": aws.address(), "stsEndpoint": aws.address(),
                "auth": { "secretRef": { "accessKeyIDSecretRef": key("id"), "secretAccessKeySecretRef": key("secret") } },
            } }),
            Self::Google(gcp, _) => json!({ "gcp": {
                "projectID": gcp::PROJECT, "endpoint": gcp.address(),
                "auth": { "secretRef": { "secretAccessKeySecretRef": key("key") } },
            } }),
        }
    }

    /// Returns the credentials that it accepts, by key of a Secret.
    pub(crate) fn credentials(&self) -> Value {
        match self {
            Self::Vault(_) => json!({ "token": "bench" }),
            Self::Google(_, key) => json!({ "key": key }),
            Self::Aws { .. } => json!({ "id": aws::ACCESS_KEY_ID, "secret": aws::SECRET_ACCESS_KEY }),
        }
    }

    /// Returns the number of reads so far, and of distinct keys.
    pub(crate) fn reads(&self) -> (u64, usize) {
        match self {
            Self::Vault(vault) => vault.reads(),
            Self::Aws { aws, .. } => aws.reads(),
            Self::Google(gcp, _) => gcp.reads(),
        }
    }
}

/// The stand-in of Vault.
#[derive(Debug, Clone)]
pub(crate) struct Vault {
    address: SocketAddr,
    latency: Duration,
    reads: Arc<Mutex<Reads>>,
}

impl Vault {
    /// Starts it on a free loopback port. It ends with the process.
    async fn start(latency: Duration) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
        let vault = Self {
            address: listener.local_addr().context("listen")?,
            latency,
            reads: Arc::default(),
        };
        let router = Router::new()
            .route("/v1/auth/token/lookup-self", get(token))
            .route("/v1/sys/internal/ui/mounts/secret", get(engine))
            .route("/v1/secret/data/{*key}", get(read))
            .with_state(vault.clone());
        #[expect(clippy::disallowed_methods, reason = "a server that ends with this process")]
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(vault)
    }

    /// Returns its address.
    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the number of reads so far, and of distinct keys.
    fn reads(&self) -> (u64, usize) {
        let reads = self.reads.lock();
        (reads.all, reads.keys.len())
    }
}

async fn token() -> Json<Value> {
    Json(json!({ "data": { "ttl": 0, "renewable": false, "display_name": "token", "policies": ["bench"] } }))
}

async fn engine() -> Json<Value> {
    Json(json!({ "data": { "path": "secret/", "type": "kv", "options": { "version": "2" } } }))
}

async fn read(State(vault): State<Vault>, Path(key): Path<String>) -> (StatusCode, Json<Value>) {
    if !vault.latency.is_zero() {
        tokio::time::sleep(vault.latency).await;
    }
    let answer = json!({ "data": {
        "data": super::cluster::values(&key),
        "metadata": {
            "created_time": "2026-01-01T00:00:00.000000000Z", "deletion_time": "", "destroyed": false,
            "version": 1, "custom_metadata": null,
        },
    } });
    let mut reads = vault.reads.lock();
    reads.all += 1;
    reads.keys.insert(key);
    (StatusCode::OK, Json(answer))
}
