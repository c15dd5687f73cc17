//! The client of the Kubernetes API.

use std::{path::PathBuf, time::Duration};

use kube::{
    Client, Config,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig, KubeconfigError},
};

/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may be silent. The API server ends a watch after 295 s at the latest, so a longer silence means
/// that the connection is dead; what is no watch has a shorter deadline of its own.
const READ_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a request may take to go out.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Which cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cluster {
    /// The kubeconfig file.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context in it.
    pub(crate) context: Option<String>,
}

/// The clients of one API server.
pub(crate) struct Connection {
    /// With the credentials of the kubeconfig or of the pod's own account.
    pub(crate) client: Client,
    /// Without credentials.
    pub(crate) anonymous: Client,
}

/// Makes the clients, from the kubeconfig where one is named, from the pod's own account otherwise. A kubeconfig that
/// merely happens to be there is not used: nobody should write Secrets to a cluster that they did not name.
///
/// # Errors
/// A sentence that says what is missing.
pub(crate) async fn connect(cluster: &Cluster) -> Result<Connection, String> {
    let mut config = if cluster.kubeconfig.is_some() || cluster.context.is_some() {
        from_kubeconfig(cluster).await?
    } else {
        Config::incluster().map_err(|_| {
            "this is not a pod with a service account: name a cluster with --kubeconfig FILE or --context NAME".to_owned()
        })?
    };
    config.write_timeout = Some(WRITE_TIMEOUT);
    // lockstep tries again by itself, with backoff and deadlines of its own
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
    Client::try_from(config)
        .map_err(|error| format!("the client of the Kubernetes API cannot be made: {error}"))
}

/// Makes a client that only reads, as somebody's own tool: where no cluster is named, the one of the default kubeconfig.
///
/// # Errors
/// A sentence that says what is missing.
pub(crate) async fn connect_to_read(cluster: &Cluster) -> Result<Client, String> {
    let named = cluster.kubeconfig.is_some() || cluster.context.is_some();
    let config = from_kubeconfig(cluster).await.map_err(|message| {
        if named {
            message
        } else {
            format!("{message}. Name a cluster with --kubeconfig FILE or --context NAME")
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
