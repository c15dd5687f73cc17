//! Runs the real binary under its own ServiceAccount.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Config,
    api::{ListParams, Patch, PatchParams, Request, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use lockstep_testkit::{
    Process, ProcessSpec,
    operator::{NAMESPACE, SERVICE_ACCOUNT},
    ports,
};

use super::{cluster::Cluster, source::Source};

/// Port of the operator, if it is free.
const PORT: u16 = 8080;
const READY: Duration = Duration::from_secs(60);
/// Number of log lines in an error.
const LOG_LINES: usize = 12;

/// The running operator. It stops when this value is dropped.
pub(crate) struct Operator {
    process: Process,
    address: String,
    http: reqwest::Client,
    /// Client with the permissions of the operator.
    client: Client,
}

impl Operator {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// Fails if it ends or is not ready within a minute. The message ends with its log.
    pub(crate) async fn start(cluster: &Cluster, binary: &Path, source: &Source) -> Result<Self> {
        let kubeconfig = cluster.kubeconfig_of(NAMESPACE, SERVICE_ACCOUNT).await?;
        let listen = format!("127.0.0.1:{}", ports::preferably(PORT)?);
        let mut spec = ProcessSpec::new("lockstep", binary, cluster.folder())
            .arg("run")
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .args(["--listen", &listen])
            // the demo's OpenBao listens on a loopback address
            .arg("--unsafe-allow-local-store-endpoints");
        for audience in source.audiences() {
            spec = spec.args(["--token-audiences", audience]);
        }
        if let Some(root) = source.file_root() {
            spec = spec.arg("--file-root").arg(root);
        }
        let mut operator = Self {
            process: spec.spawn()?,
            address: format!("http://{listen}"),
            http: reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(5))
                .build()?,
            client: client(kubeconfig).await?,
        };
        let began = Instant::now();
        loop {
            operator.process.ensure_running()?;
            match operator.is_ready().await {
                Ok(()) => break,
                Err(error) if began.elapsed() > READY => return Err(operator.explain(&error)),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        Ok(operator)
    }

    async fn is_ready(&self) -> Result<()> {
        let answer = self.http.get(format!("{}/readyz", self.address)).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "/readyz returned {status}: {}", text.trim());
        Ok(())
    }

    /// Returns its address, such as `http://127.0.0.1:8080`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Returns the path of its log.
    pub(crate) fn log(&self) -> &Path {
        self.process.log()
    }

    /// Fails if it has ended by itself.
    ///
    /// # Errors
    /// The message ends with its log.
    pub(crate) fn ensure_running(&mut self) -> Result<()> {
        self.process.ensure_running()
    }

    /// Returns the error with the last lines of the log.
    pub(crate) fn explain(&self, error: &anyhow::Error) -> anyhow::Error {
        let text = self.process.log_text();
        let lines: Vec<_> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
        anyhow::anyhow!(
            "{error:#}\nlockstep's last log lines:\n    {}",
            last.join("\n    ")
        )
    }

    /// Tries to list Secrets with the operator's permissions, and expects a rejection.
    ///
    /// # Errors
    /// Fails if it is allowed or the API server returns another error.
    pub(crate) async fn ensure_cannot_list_secrets(&self) -> Result<()> {
        let api: Api<Secret> = Api::all(self.client.clone());
        ensure_forbidden(
            api.list(&ListParams::default()).await.map(drop),
            "list the cluster's Secrets",
        )
    }

    /// Tries to patch a Secret with the operator's permissions, and expects a rejection: the
    /// response to `patch` contains the Secret.
    ///
    /// # Errors
    /// Fails if it is allowed or the API server returns another error.
    pub(crate) async fn ensure_cannot_patch_secrets(&self) -> Result<()> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), "default");
        let nothing = Patch::Merge(serde_json::json!({}));
        let patched = api.patch("any", &PatchParams::default(), &nothing).await;
        ensure_forbidden(patched.map(drop), "patch a Secret")
    }

    /// Tries to watch Secrets with the operator's permissions, and expects a rejection.
    ///
    /// # Errors
    /// Fails if it is allowed or the API server returns another error.
    pub(crate) async fn ensure_cannot_watch_secrets(&self) -> Result<()> {
        // if the request is allowed, it ends after a second
        let params = WatchParams::default().timeout(1);
        let request = Request::new("/api/v1/secrets").watch(&params, "0")?;
        let watched = self.client.request_text(request).await;
        ensure_forbidden(watched.map(drop), "watch the cluster's Secrets")
    }

    /// Tries to read a Secret with the operator's permissions, and expects a rejection.
    ///
    /// # Errors
    /// Fails if it is allowed or the API server returns another error.
    pub(crate) async fn ensure_cannot_read(&self, namespace: &str, name: &str) -> Result<()> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        ensure_forbidden(
            api.get(name).await.map(drop),
            &format!("read Secret {namespace}/{name}"),
        )
    }

    /// Returns the lines of its metrics that start with a text.
    ///
    /// # Errors
    /// Fails if they cannot be read.
    pub(crate) async fn metrics(&self, begin: &str) -> Result<Vec<String>> {
        let answer = self.http.get(format!("{}/metrics", self.address)).send().await;
        let text = answer
            .context("read /metrics")?
            .error_for_status()?
            .text()
            .await?;
        Ok(text
            .lines()
            .filter(|line| line.starts_with(begin))
            .map(str::to_owned)
            .collect())
    }
}

fn ensure_forbidden(answer: Result<(), kube::Error>, what: &str) -> Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(()),
        Err(error) => Err(error).with_context(|| format!("try to {what} with the operator's permissions")),
        Ok(()) => bail!("the operator's account must not be able to {what}"),
    }
}

async fn client(kubeconfig: PathBuf) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).context("read the operator's kubeconfig")?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Client::try_from(config).context("build a client with the operator's permissions")
}
