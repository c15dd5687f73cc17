//! `lockstep run`.

use std::process::ExitCode;

use anyhow::Context;
use lockstep_controller::Options;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{arguments::RunArguments, connect, log, providers};

/// Runs the operator until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, or a part of it fails for good.
pub(crate) fn run(arguments: &RunArguments) -> anyhow::Result<ExitCode> {
    log::init(arguments.log_format, &arguments.log_level)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(operate(arguments))?;
    Ok(ExitCode::SUCCESS)
}

async fn operate(arguments: &RunArguments) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let client = connect::connect(arguments.kubeconfig.as_deref(), arguments.context.as_deref()).await?;
    let options = Options {
        listen: arguments.listen,
        namespaces: arguments.namespaces.clone(),
        concurrency: arguments.concurrency,
        operator_namespace: arguments.operator_namespace.clone(),
        drift_probe_interval: arguments.drift_probe_interval.to_std(),
        drift_watch: arguments.drift_watch,
        unsafe_without_admission_policy: arguments.unsafe_without_admission_policy,
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting");
    let registry = providers::registry(arguments.file_root.clone());
    let mut operator = std::pin::pin!(lockstep_controller::run(
        client,
        registry,
        options,
        shutdown.clone()
    ));
    tokio::select! {
        result = &mut operator => result?,
        _ = terminate.recv() => {
            shutdown.cancel();
            operator.await?;
        }
        _ = interrupt.recv() => {
            shutdown.cancel();
            operator.await?;
        }
    }
    tracing::info!("ended");
    Ok(())
}
