//! A real OpenBao server, which implements Vault's API.
//!
//! It keeps its data in a raft store of one node in a temporary folder, so that a restart loses
//! nothing and the server is sealed afterwards, as in production. It starts initialised and
//! unsealed, with a key/value engine version 2 at `secret/` and the root token `root`.

mod api;
mod builder;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};

pub use self::builder::OpenBaoBuilder;
use crate::{
    certificates::CertificateAuthority,
    process::{Process, ProcessSpec},
    progress::human,
    scratch::Scratch,
};

/// How long the server may take to respond on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// The root token of every server of this kind. It is used only in tests.
pub const ROOT_TOKEN: &str = "root";

/// A running OpenBao server. It stops when this value is dropped or its process ends.
#[derive(Debug)]
pub struct OpenBao {
    process: Mutex<Option<Process>>,
    spec: ProcessSpec,
    address: String,
    authority: Option<CertificateAuthority>,
    ca: Option<String>,
    unseal_key: String,
    _folder: Scratch,
}

impl OpenBao {
    /// Returns the settings of a server to start.
    pub fn builder() -> OpenBaoBuilder {
        OpenBaoBuilder::default()
    }

    /// Starts a server on plain HTTP, ready to use.
    ///
    /// # Errors
    /// When the program cannot be installed, or does not start; its last log lines are in the
    /// message.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Returns its address, such as `http://127.0.0.1:28200`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns a token with all permissions.
    pub fn root_token(&self) -> &str {
        ROOT_TOKEN
    }

    /// Returns the key that unseals it.
    pub fn unseal_key(&self) -> &str {
        &self.unseal_key
    }

    /// Returns the certificate of the authority that signs the server's certificate, in PEM; `None`
    /// on plain HTTP.
    pub fn ca(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    /// Returns the authority that signs the server's certificate, for issuing client certificates;
    /// `None` on plain HTTP.
    pub fn authority(&self) -> Option<&CertificateAuthority> {
        self.authority.as_ref()
    }

    /// Seals the server: it returns 503 until [`OpenBao::unseal`].
    ///
    /// # Errors
    /// When the server does not respond.
    pub async fn seal(&self) -> Result<()> {
        self.request(Method::PUT, "sys/seal", None).await.map(drop)
    }

    /// Unseals the server, and waits until it serves.
    ///
    /// # Errors
    /// When it does not serve in time.
    pub async fn unseal(&self) -> Result<()> {
        self.request(Method::PUT, "sys/unseal", Some(json!({ "key": self.unseal_key })))
            .await?;
        self.wait_for_health(200).await
    }

    /// Kills the server (signal 9). Connections to its address are refused from now on.
    pub fn stop(&self) {
        drop(self.process.lock().take());
    }

    /// Starts a stopped server again, on the same address and with the same data, and leaves it
    /// sealed.
    ///
    /// # Errors
    /// When it does not respond.
    pub async fn start_sealed(&self) -> Result<()> {
        self.spawn()?;
        self.wait_for_health(503).await
    }

    /// Kills the server, starts it again and unseals it. Tokens and leases are kept.
    ///
    /// # Errors
    /// When it does not become ready again.
    pub async fn restart(&self) -> Result<()> {
        self.stop();
        self.start_sealed().await?;
        self.unseal().await
    }

    fn spawn(&self) -> Result<()> {
        *self.process.lock() = Some(self.spec.spawn()?);
        Ok(())
    }

    /// Initialises a server with an empty folder: one unseal key, the root token, a key/value
    /// engine.
    async fn initialise(&mut self) -> Result<()> {
        self.spawn()?;
        self.wait_for_health(501).await?;
        let shares = json!({ "secret_shares": 1, "secret_threshold": 1 });
        let answer = self.send(Method::PUT, "sys/init", Some(shares), None).await?;
        let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        self.unseal_key = text("/keys_base64/0").context("the answer to sys/init holds no unseal key")?;
        let first_token = text("/root_token").context("the answer to sys/init holds no root token")?;
        let unseal = json!({ "key": self.unseal_key });
        self.send(Method::PUT, "sys/unseal", Some(unseal), None).await?;
        self.wait_for_health(200).await?;
        let root = json!({ "id": ROOT_TOKEN, "policies": ["root"], "no_parent": true });
        self.send(Method::POST, "auth/token/create", Some(root), Some(&first_token))
            .await?;
        self.enable_kv("secret", 2).await
    }

    /// Waits until `sys/health` returns this status: 200 serving, 501 not initialised, 503 sealed.
    async fn wait_for_health(&self, wanted: u16) -> Result<()> {
        let client = crate::http::client(self.ca())?;
        let began = Instant::now();
        loop {
            if let Some(process) = self.process.lock().as_mut() {
                process.ensure_running()?;
            }
            let health = client
                .get(format!("{}/v1/sys/health", self.address))
                .timeout(Duration::from_secs(2));
            if let Ok(response) = health.send().await
                && response.status().as_u16() == wanted
            {
                return Ok(());
            }
            if began.elapsed() > READY_LIMIT {
                let log = self
                    .process
                    .lock()
                    .as_ref()
                    .map(Process::log_tail)
                    .unwrap_or_default();
                bail!(
                    "OpenBao's health is not {wanted} after {}; the end of its log:\n{log}",
                    human(READY_LIMIT)
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
