//! `lockstep run`: sets up the process and starts the controller.

use std::{num::NonZero, process::ExitCode, thread, time::Duration};

use lockstep_controller::Options;
use tokio::runtime;
use tokio_util::sync::CancellationToken;

use crate::{
    cli::RunArguments,
    client::{self, Cluster},
    exit, logging, providers,
    shutdown::StopSignals,
};

/// Timeout of a clean shutdown. Kubernetes grants a pod 30 s.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum number of worker threads. The work is mostly waiting, and each thread uses memory.
const MAX_THREADS: usize = 4;
/// Maximum number of threads that render templates and read files.
const MAX_BLOCKING_THREADS: usize = 16;

/// Runs the operator until a signal or a fatal error.
pub(crate) fn run(arguments: RunArguments) -> ExitCode {
    logging::install(&arguments.log_level, arguments.log_format);
    let threads = thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(MAX_THREADS);
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return exit::failed(&format!("cannot start the async runtime: {error}")),
    };
    let result = runtime.block_on(run_operator(arguments));
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            tracing::error!("{message}");
            ExitCode::from(exit::FAILED)
        }
    }
}

async fn run_operator(arguments: RunArguments) -> Result<(), String> {
    let mut signals = StopSignals::catch().map_err(|error| format!("cannot catch signals: {error}"))?;
    if let Some(root) = &arguments.file_root
        && !root.is_dir()
    {
        return Err(format!("--file-root {} is not a folder", root.display()));
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting");
    if arguments.unsafe_allow_local_store_endpoints {
        tracing::warn!("--unsafe-allow-local-store-endpoints: SecretStores can use loopback addresses");
    }
    let registry = providers::registry(arguments.file_root.as_deref());
    let cluster = Cluster {
        kubeconfig: arguments.kubeconfig,
        context: arguments.context,
    };
    let connection = tokio::select! {
        connection = client::connect(&cluster) => connection?,
        _ = signals.next() => return Ok(()),
    };
    let options = Options {
        listen: arguments.listen,
        namespaces: arguments.namespaces,
        concurrency: arguments.concurrency,
        operator_namespace: arguments.operator_namespace,
        drift_probe_interval: arguments.drift_probe_interval.to_std(),
        issue_timeout: arguments.issue_timeout.to_std(),
        deletion_delay: arguments.deletion_delay.to_std(),
        admission_check_interval: arguments.admission_check_interval.to_std(),
        drift_watch: arguments.drift_watch,
        token_audiences: arguments.token_audiences,
        unsafe_without_admission_policy: arguments.unsafe_without_admission_policy,
        unsafe_allow_local_store_endpoints: arguments.unsafe_allow_local_store_endpoints,
    };
    let shutdown = CancellationToken::new();
    let mut work = std::pin::pin!(lockstep_controller::run(
        connection.client,
        connection.anonymous,
        registry,
        options,
        shutdown.clone()
    ));
    tokio::select! {
        result = &mut work => return result.map_err(|error| error.to_string()),
        signal = signals.next() => tracing::info!(signal, "stopping"),
    }
    shutdown.cancel();
    tokio::select! {
        result = tokio::time::timeout(SHUTDOWN_TIMEOUT, work) => match result {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err(format!("shutdown did not finish within {} s of the signal", SHUTDOWN_TIMEOUT.as_secs())),
        },
        signal = signals.next() => Err(format!("received a second signal, {signal}, before shutdown finished")),
    }
}
