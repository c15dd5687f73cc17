//! Clients of the Kubernetes API.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use kube::{
    Client, Config,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig, KubeconfigError},
};

/// Timeout for establishing a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout between two reads of a response. The API server ends a watch after at most 295 s, so a
/// longer pause means that the connection is dead. Other requests have shorter deadlines of their
/// own.
const READ_TIMEOUT: Duration = Duration::from_secs(300);
/// Timeout for sending a request.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

// Selects a cluster. Without a doc comment, which would replace the description of a command.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Cluster {
    /// Kubeconfig file to use. Defaults to KUBECONFIG, or ~/.kube/config if it is not set.
    #[arg(long, value_name = "FILE", env = "LOCKSTEP_KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Kubeconfig context to use.
    #[arg(long, value_name = "CONTEXT", env = "LOCKSTEP_CONTEXT")]
    pub(crate) context: Option<String>,
}

/// Clients of one API server.
pub(crate) struct Connection {
    /// Client with the credentials of the kubeconfig or of the pod's ServiceAccount.
    pub(crate) client: Client,
    /// Client without credentials.
    pub(crate) anonymous: Client,
}

/// Builds the clients, from the kubeconfig if one is named, otherwise from the pod's
/// ServiceAccount. A default kubeconfig is not used, so that lockstep never writes Secrets to a
/// cluster that nobody named.
///
/// # Errors
/// Describes what is missing.
pub(crate) async fn connect(cluster: &Cluster) -> Result<Connection, String> {
    let mut config = if cluster.kubeconfig.is_some() || cluster.context.is_some() {
        from_kubeconfig(cluster).await?
    } else {
        Config::incluster().map_err(|_| {
            "not running in a pod with a ServiceAccount. Select a cluster with --kubeconfig FILE or --context NAME".to_owned()
        })?
    };
    config.write_timeout = Some(WRITE_TIMEOUT);
    // lockstep retries itself, with its own backoff and deadlines
    config.default_retry = false;
    let mut anonymous = config.clone();
    anonymous.auth_info = AuthInfo::default();
    Ok(Connection {
        client: made(config)?,
        anonymous: made(anonymous)?,
    })
}

fn made(mut config: Config) -> Result<Client, String> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    // like the clients of stores, it ignores proxies that the environment names
    config.proxy_url = None;
    Client::try_from(config).map_err(|error| format!("cannot create the Kubernetes client: {error}"))
}

/// Builds a client for a read-only command. Without a named cluster, uses the default kubeconfig.
///
/// # Errors
/// Describes what is missing.
pub(crate) async fn connect_to_read(cluster: &Cluster) -> Result<Client, String> {
    let named = cluster.kubeconfig.is_some() || cluster.context.is_some();
    let config = from_kubeconfig(cluster).await.map_err(|message| {
        if named {
            message
        } else {
            format!("{message}. Select a cluster with --kubeconfig FILE or --context NAME")
        }
    })?;
    made(config)
}

async fn from_kubeconfig(cluster: &Cluster) -> Result<Config, String> {
    let options = KubeConfigOptions {
        context: cluster.context.clone(),
        ..KubeConfigOptions::default()
    };
    let (named, config) = match &cluster.kubeconfig {
        Some(path) => {
            let named = format!("kubeconfig {}", path.display());
            let kubeconfig = Kubeconfig::read_from(path).map_err(|error| match error {
                KubeconfigError::ReadConfig(why, _) => format!("{named} cannot be read: {why}"),
                error => format!("{named}: {error}"),
            })?;
            (named, Config::from_custom_kubeconfig(kubeconfig, &options).await)
        }
        None => (
            "the default kubeconfig".to_owned(),
            Config::from_kubeconfig(&options).await,
        ),
    };
    config.map_err(|error| match &cluster.context {
        Some(context) => format!("{named}, context \"{context}\": {error}"),
        None => format!("{named}: {error}"),
    })
}
