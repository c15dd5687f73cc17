//! A real Kubernetes control plane: etcd, kube-apiserver and optionally kube-controller-manager.
//!
//! There is no kubelet and no scheduler: pods are accepted and never run. The ServiceAccount
//! admission plugin is off, so that a pod needs no ServiceAccount. TokenRequest, TokenReview, RBAC
//! and ValidatingAdmissionPolicy work.

mod builder;
pub mod crds;
mod kubeconfig;
mod servers;

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, Config, api::PostParams, config::KubeConfigOptions, config::Kubeconfig};
use parking_lot::Mutex;

use self::servers::Servers;
pub use self::{builder::ControlPlaneBuilder, kubeconfig::service_account_token};
use crate::{certificates::Identity, http, process::Process, progress::human, scratch::Scratch};

/// How long the control plane may take to become ready on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);

/// A running control plane. It stops when this value is dropped or its process ends.
#[derive(Debug)]
pub struct ControlPlane {
    // Fields are dropped in this order: clients of a server before the server, the folder last.
    controller_manager: Mutex<Option<Process>>,
    api_server: Mutex<Option<Process>>,
    etcd: Mutex<Option<Process>>,
    servers: Servers,
    url: String,
    ca: String,
    admin: Identity,
    name: String,
    namespaces: AtomicU64,
    folder: Scratch,
}

impl ControlPlane {
    /// Returns the settings of a control plane to start.
    pub fn builder() -> ControlPlaneBuilder {
        ControlPlaneBuilder::default()
    }

    /// Starts etcd and the API server, ready to use.
    ///
    /// # Errors
    /// When a program is missing and cannot be installed, or a server does not start; its last log
    /// lines are in the message.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Returns the address of the API server, such as `https://127.0.0.1:20443`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the certificate of the authority that signs the API server's certificate, in PEM.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// Returns the folder with the certificates, the logs (`kube-apiserver.log`, …) and the data of
    /// the servers.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Creates a client with all permissions. Each test creates its own, because a client does not
    /// outlive its runtime.
    ///
    /// # Errors
    /// When the client cannot be built.
    pub async fn client(&self) -> Result<Client> {
        client_from(self.admin_kubeconfig()?).await
    }

    /// Creates a namespace whose name starts with `prefix`. It is not deleted before the control
    /// plane stops.
    ///
    /// # Errors
    /// When the API server rejects it.
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        self.labelled_namespace(prefix, &[]).await
    }

    /// Creates a namespace with labels.
    ///
    /// # Errors
    /// When the API server rejects it.
    pub async fn labelled_namespace(&self, prefix: &str, labels: &[(&str, &str)]) -> Result<String> {
        let name = format!("{prefix}-{}", self.namespaces.fetch_add(1, Ordering::Relaxed) + 1);
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.clone());
        namespace.metadata.labels = Some(
            labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        );
        let api: Api<Namespace> = Api::all(self.client().await?);
        api.create(&PostParams::default(), &namespace)
            .await
            .with_context(|| format!("create namespace {name}"))?;
        Ok(name)
    }

    /// Kills the API server (signal 9), starts it again on the same address, and waits until it is
    /// ready.
    ///
    /// This affects other tests: do not call it on the shared control plane.
    ///
    /// # Errors
    /// When it does not become ready again.
    pub async fn restart_api_server(&self) -> Result<()> {
        self.stop_api_server();
        self.start_api_server().await
    }

    /// Kills the API server (signal 9). Connections to its address are refused from now on.
    pub fn stop_api_server(&self) {
        drop(self.api_server.lock().take());
    }

    /// Starts the API server, on the same address and with the same data, and waits until it is
    /// ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start_api_server(&self) -> Result<()> {
        *self.api_server.lock() = Some(self.servers.api_server(self.folder.path()).spawn()?);
        self.wait_until_ready().await
    }

    /// Starts the controller manager. It begins its work about two seconds later.
    ///
    /// # Errors
    /// When it cannot be started, or the control plane was built without one.
    pub fn start_controller_manager(&self) -> Result<()> {
        let spec = self.servers.controller_manager(self.folder.path());
        let spec = spec.context("this control plane was built without a controller manager")?;
        *self.controller_manager.lock() = Some(spec.spawn()?);
        Ok(())
    }

    async fn wait_until_ready(&self) -> Result<()> {
        let client = http::client(Some(&self.ca))?;
        let ready = format!("{}/readyz", self.url);
        let began = Instant::now();
        loop {
            for server in [&self.etcd, &self.api_server] {
                if let Some(process) = server.lock().as_mut() {
                    process.ensure_running()?;
                }
            }
            // An anonymous request: if it is allowed, RBAC has its default roles.
            if let Ok(response) = client.get(&ready).timeout(Duration::from_secs(2)).send().await
                && response.status().is_success()
            {
                return Ok(());
            }
            if began.elapsed() > READY_LIMIT {
                let log = self
                    .api_server
                    .lock()
                    .as_ref()
                    .map(Process::log_tail)
                    .unwrap_or_default();
                bail!(
                    "the API server is not ready after {}; the end of its log:\n{log}",
                    human(READY_LIMIT)
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Creates a client from a kubeconfig.
pub(crate) async fn client_from(kubeconfig: Kubeconfig) -> Result<Client> {
    crate::init();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Client::try_from(config).context("build a client of the API server")
}
