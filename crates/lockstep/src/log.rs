//! The log: to standard error, without bodies of requests.

use anyhow::Context;
use tracing_subscriber::{EnvFilter, filter::Directive};

use crate::arguments::LogFormat;

/// Modules that print bodies or headers of requests below this level: no setting turns them up.
const CAPPED: [&str; 10] = [
    "vaultrs=warn",
    "rustify=warn",
    "reqwest=warn",
    "hyper=warn",
    "hyper_util=warn",
    "h2=warn",
    "tower=warn",
    "rustls=warn",
    "kube_client=error",
    "kube_runtime=error",
];

/// Starts the log.
///
/// # Errors
/// When the level cannot be understood.
pub(crate) fn init(format: LogFormat, level: &str) -> anyhow::Result<()> {
    let mut filter =
        EnvFilter::try_new(level).with_context(|| format!("--log-level \"{level}\" cannot be understood"))?;
    for cap in CAPPED {
        filter = filter.add_directive(cap.parse::<Directive>().context("a built-in log filter")?);
    }
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
    std::panic::set_hook(Box::new(|info| {
        // the payload of a panic can hold anything: only the place is told
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic");
    }));
    Ok(())
}
