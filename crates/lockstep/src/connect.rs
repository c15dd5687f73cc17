//! The client of the API server.

use std::{path::Path, time::Duration};

use anyhow::Context;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// A watch is ended by the API server after five minutes at most; a silence longer than this is a dead connection.
const READ_TIMEOUT: Duration = Duration::from_secs(330);

/// Connects with a kubeconfig, or as the pod that this is.
///
/// # Errors
/// When there is no usable configuration.
pub(crate) async fn connect(kubeconfig: Option<&Path>, context: Option<&str>) -> anyhow::Result<Client> {
    let options = KubeConfigOptions {
        context: context.map(str::to_owned),
        ..KubeConfigOptions::default()
    };
    let mut config = match (kubeconfig, context) {
        (Some(path), _) => {
            let file =
                Kubeconfig::read_from(path).with_context(|| format!("cannot read {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &options).await?
        }
        (None, Some(_)) => Config::from_kubeconfig(&options).await?,
        (None, None) => Config::infer()
            .await
            .context("no kubeconfig, and not in a pod: use --kubeconfig")?,
    };
    config.connect_timeout = Some(Duration::from_secs(10));
    config.read_timeout = Some(READ_TIMEOUT);
    config.write_timeout = Some(Duration::from_secs(30));
    // lockstep retries by itself, with its own backoff and within its own deadlines
    config.default_retry = false;
    Client::try_from(config).context("cannot make a client of the API server")
}
