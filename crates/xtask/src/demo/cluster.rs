//! The cluster of the demo: its own, or an existing one of the user.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use kube::{
    Client, Config,
    config::{Cluster as ClusterEntry, KubeConfigOptions, Kubeconfig},
};
use lockstep_testkit::{
    ControlPlane, Scratch,
    tools::{self, Tool},
};
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, process::Command};

/// A cluster, accessed as its administrator.
pub(crate) struct Cluster {
    /// Client of the administrator.
    pub(crate) client: Client,
    /// kubectl options that select the cluster.
    kubectl: [String; 2],
    entry: ClusterEntry,
    folder: Scratch,
    own: Option<ControlPlane>,
}

impl Cluster {
    /// Starts a control plane that stops when this value is dropped.
    ///
    /// # Errors
    /// Fails if it does not start.
    pub(crate) async fn own() -> Result<Self> {
        let plane = ControlPlane::builder()
            .name("lockstep-demo")
            .with_controller_manager()
            .start()
            .await?;
        let path = plane.kubeconfig();
        let kubeconfig = Kubeconfig::read_from(&path).context("read the control plane's kubeconfig")?;
        let kubectl = ["--kubeconfig".to_owned(), path.display().to_string()];
        Self::new(kubeconfig, None, kubectl, Some(plane)).await
    }

    /// Connects to the cluster of a context in the user's kubeconfig.
    ///
    /// # Errors
    /// Fails if the context does not exist or cannot be used.
    pub(crate) async fn of_context(context: &str) -> Result<Self> {
        lockstep_testkit::init();
        let kubeconfig = Kubeconfig::read().context("read the kubeconfig (KUBECONFIG, or ~/.kube/config)")?;
        let kubectl = ["--context".to_owned(), context.to_owned()];
        Self::new(kubeconfig, Some(context), kubectl, None).await
    }

    async fn new(
        kubeconfig: Kubeconfig,
        context: Option<&str>,
        kubectl: [String; 2],
        own: Option<ControlPlane>,
    ) -> Result<Self> {
        let entry = cluster_entry(&kubeconfig, context)?;
        let options = KubeConfigOptions {
            context: context.map(str::to_owned),
            ..KubeConfigOptions::default()
        };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .context("use the kubeconfig")?;
        Ok(Self {
            client: Client::try_from(config).context("build a client of the API server")?,
            kubectl,
            entry,
            folder: Scratch::new("demo")?,
            own,
        })
    }

    /// Whether the cluster belongs to the demo and stops with it.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Returns the kubeconfig file of the demo's own cluster.
    pub(crate) fn kubeconfig(&self) -> Option<PathBuf> {
        self.own.as_ref().map(ControlPlane::kubeconfig)
    }

    /// Returns a folder that is deleted with the demo.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the URL of the API server.
    pub(crate) fn url(&self) -> &str {
        self.entry.server.as_deref().unwrap_or_default()
    }

    /// Returns the CA certificate of the API server as PEM. Empty if a public CA issued its
    /// certificate.
    ///
    /// # Errors
    /// Fails if it cannot be read.
    pub(crate) fn ca(&self) -> Result<String> {
        if let Some(data) = &self.entry.certificate_authority_data {
            let bytes = STANDARD
                .decode(data)
                .context("certificate-authority-data of the kubeconfig")?;
            return String::from_utf8(bytes).context("certificate-authority-data of the kubeconfig");
        }
        match &self.entry.certificate_authority {
            Some(path) => fs::read_to_string(path).with_context(|| format!("read {path}")),
            None => Ok(String::new()),
        }
    }

    /// Checks that a server on this machine can reach the API server as the kubeconfig does.
    ///
    /// # Errors
    /// Names the setting that prevents it.
    pub(crate) fn ensure_reachable_by_a_server(&self) -> Result<()> {
        let obstacle = if self.entry.proxy_url.is_some() {
            "proxy-url"
        } else if self.entry.tls_server_name.is_some() {
            "tls-server-name"
        } else if self.entry.insecure_skip_tls_verify == Some(true) {
            "insecure-skip-tls-verify"
        } else {
            return Ok(());
        };
        anyhow::bail!(
            "the cluster in the kubeconfig has `{obstacle}`, which OpenBao does not support when it validates tokens \
             with the API server. Use `--provider file`"
        )
    }

    /// Returns a command that makes kubectl find this cluster, and the kubectl options.
    pub(crate) fn for_people(&self) -> (Option<String>, String) {
        let [option, value] = &self.kubectl;
        if self.is_own() {
            (Some(format!("export KUBECONFIG={value}")), String::new())
        } else {
            (None, format!(" {option} {value}"))
        }
    }

    /// Runs kubectl and returns its output.
    ///
    /// # Errors
    /// Fails if kubectl fails. The message ends with its error output.
    pub(crate) async fn kubectl(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        let program = tools::ensure_async(Tool::Kubectl).await?;
        let mut child = Command::new(program)
            .args(&self.kubectl)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            let written = stdin.write_all(input.unwrap_or_default().as_bytes()).await;
            written.context("write to kubectl")?;
        }
        let output = child.wait_with_output().await.context("wait for kubectl")?;
        ensure!(
            output.status.success(),
            "kubectl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Requests a token of a ServiceAccount for the API server.
    ///
    /// # Errors
    /// Fails if the API server rejects the request.
    pub(crate) async fn token(&self, namespace: &str, account: &str) -> Result<String> {
        lockstep_testkit::service_account_token(&self.client, namespace, account).await
    }

    /// Writes a kubeconfig with the permissions of a ServiceAccount and returns its path.
    ///
    /// # Errors
    /// Fails if the API server rejects the token request.
    pub(crate) async fn kubeconfig_of(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let token = self.token(namespace, account).await?;
        let content = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "demo", "cluster": self.entry }],
            "users": [{ "name": account, "user": { "token": token } }],
            "contexts": [{ "name": "demo", "context": { "cluster": "demo", "user": account } }],
            "current-context": "demo",
        });
        self.folder.write(
            &format!("{account}.kubeconfig"),
            serde_yaml_ng::to_string(&content)?,
        )
    }
}

fn cluster_entry(kubeconfig: &Kubeconfig, context: Option<&str>) -> Result<ClusterEntry> {
    let name = context
        .or(kubeconfig.current_context.as_deref())
        .context("no context")?;
    let context = kubeconfig
        .contexts
        .iter()
        .find(|entry| entry.name == name)
        .and_then(|entry| entry.context.as_ref())
        .with_context(|| {
            let names: Vec<_> = kubeconfig
                .contexts
                .iter()
                .map(|entry| entry.name.as_str())
                .collect();
            format!(
                "the kubeconfig has no context \"{name}\"; it has {}",
                names.join(", ")
            )
        })?;
    kubeconfig
        .clusters
        .iter()
        .find(|entry| entry.name == context.cluster)
        .and_then(|entry| entry.cluster.clone())
        .with_context(|| format!("the kubeconfig has no cluster \"{}\"", context.cluster))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_context_error_lists_known_contexts() {
        let kubeconfig: Kubeconfig = serde_json::from_value(json!({
            "contexts": [{ "name": "staging", "context": { "cluster": "one", "user": "me" } }],
            "clusters": [{ "name": "one", "cluster": { "server": "https://127.0.0.1:6443" } }],
        }))
        .unwrap();
        let error = cluster_entry(&kubeconfig, Some("prod")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the kubeconfig has no context \"prod\"; it has staging"
        );
        let found = cluster_entry(&kubeconfig, Some("staging")).unwrap();
        assert_eq!(found.server.as_deref(), Some("https://127.0.0.1:6443"));
    }
}
