//! The cluster that the demo plays on: one of its own, or one that the person has.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{Cluster as ClusterEntry, KubeConfigOptions, Kubeconfig},
};
use lockstep_testkit::{
    ControlPlane, Scratch,
    tools::{self, Tool},
};
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, process::Command};

/// Long enough to play with; a cluster may grant less.
const TOKEN_SECONDS: i64 = 12 * 3600;

/// A cluster, as its administrator.
pub(crate) struct Cluster {
    /// Client of the administrator.
    pub(crate) client: Client,
    /// How kubectl is told which cluster it is.
    kubectl: [String; 2],
    entry: ClusterEntry,
    folder: Scratch,
    own: Option<ControlPlane>,
}

impl Cluster {
    /// A control plane that ends with this value.
    ///
    /// # Errors
    /// When it does not start.
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

    /// The cluster of a context of the person's kubeconfig.
    ///
    /// # Errors
    /// When there is no such context, or it cannot be used.
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

    /// Whether it ends with the demo.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// The kubeconfig file of a cluster of the demo's own.
    pub(crate) fn kubeconfig(&self) -> Option<PathBuf> {
        self.own.as_ref().map(ControlPlane::kubeconfig)
    }

    /// A folder that ends with the demo.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// URL of the API server.
    pub(crate) fn url(&self) -> &str {
        self.entry.server.as_deref().unwrap_or_default()
    }

    /// Certificate authority of the API server, PEM; empty when it is one that everybody knows.
    ///
    /// # Errors
    /// When it cannot be read.
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

    /// Fails when a server on this machine cannot reach the API server as the kubeconfig does.
    ///
    /// # Errors
    /// With what stands in the way.
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
            "the kubeconfig's cluster has `{obstacle}`, and OpenBao, which asks this API server whether a token is genuine, \
             knows no such setting; try `--provider file`"
        )
    }

    /// What to type so that kubectl finds this cluster, and its options from then on.
    pub(crate) fn for_people(&self) -> (Option<String>, String) {
        let [option, value] = &self.kubectl;
        if self.is_own() {
            (Some(format!("export KUBECONFIG={value}")), String::new())
        } else {
            (None, format!(" {option} {value}"))
        }
    }

    /// Runs kubectl and answers what it printed.
    ///
    /// # Errors
    /// When it fails; the message ends with what it said.
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

    /// A token of a ServiceAccount, for the API server.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub(crate) async fn token(&self, namespace: &str, account: &str) -> Result<String> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: Some(TOKEN_SECONDS),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let answer = api
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .with_context(|| format!("request a token of ServiceAccount {namespace}/{account}"))?;
        let status = answer
            .status
            .context("the answer to a TokenRequest has no token")?;
        Ok(status.token)
    }

    /// Path of a kubeconfig with the rights of a ServiceAccount, and nothing else.
    ///
    /// # Errors
    /// When the API server refuses the token.
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
    fn a_context_that_does_not_exist_is_named_with_those_that_do() {
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
