//! `cargo xtask bench`: what lockstep costs, as ratios within one run, on the real API server.

mod cluster;
mod events;
mod first_sync;
mod meter;
mod raw;
mod rounds;
mod stand_in;
mod table;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand, ValueEnum};

use crate::command;

/// Measure what lockstep costs, on a real API server.
///
/// Every figure that claims speed is a ratio within one run, so that it holds on another machine too.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    FirstSync(FirstSync),
    Events(Events),
}

/// N SyncedSecrets of a store with events: how long a change takes from its event to its Secret.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  cargo xtask bench events
  cargo xtask bench events --objects 1000 --changes 1000 --rate 20 --check")]
pub(crate) struct Events {
    /// How many SyncedSecrets.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    objects: u32,
    /// How many changes, of one SyncedSecret after the other.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    changes: u32,
    /// Changes a second.
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Measure the debug build: quick to build, and slow; for work on the benchmark itself.
    #[arg(long)]
    debug: bool,
    /// Fail when a goal is missed.
    #[arg(long)]
    check: bool,
    /// What goes to standard output. Progress goes to standard error.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Output::All)]
    output: Output,
}

/// N SyncedSecrets, each of four properties of a remote value of its own, from nothing to all Ready.
///
/// The time to all Ready is compared with the time that the same writes (one apply of the Secret, one patch of the
/// status) take as a raw loop under the same account in the same run. Then a minute of refreshes without a change.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  cargo xtask bench first-sync --objects 1000
  cargo xtask bench first-sync --objects 10000 --output json > figures.json
  cargo xtask bench first-sync --objects 1000 --check     # fails when a goal is missed
  cargo xtask bench first-sync --store secrets-manager --latency 20
  cargo xtask bench first-sync --store parameter-store --latency 20 --objects-per-key 4
  cargo xtask bench first-sync --store google --latency 20
  cargo xtask bench first-sync --store secrets-manager --throttle --quiet-seconds 0")]
pub(crate) struct FirstSync {
    /// How many SyncedSecrets.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    objects: u32,
    /// The store that the values are in: a stand-in of it on loopback.
    #[arg(long, value_name = "STORE", value_enum, default_value_t = Store::Vault)]
    store: Store,
    /// How many SyncedSecrets want the same remote value.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    objects_per_key: u32,
    /// How long the store takes to answer, in milliseconds.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    latency: u64,
    /// The store throttles every second call; that of Vault does not.
    #[arg(long)]
    throttle: bool,
    /// How many requests the raw loop has under way at the same time.
    #[arg(long, value_name = "NUMBER", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// How long refreshes without a change are watched, in seconds; 0 leaves them out.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    quiet_seconds: u64,
    /// Measure the debug build: quick to build, and slow; for work on the benchmark itself.
    #[arg(long)]
    debug: bool,
    /// Fail when a goal is missed.
    #[arg(long)]
    check: bool,
    /// What goes to standard output. Progress goes to standard error.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Output::All)]
    output: Output,
}

/// Where the values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(clippy::enum_variant_names, reason = "the names of the services")]
enum Store {
    /// Vault's key/value engine, version 2.
    Vault,
    /// AWS Secrets Manager.
    SecretsManager,
    /// AWS Systems Manager Parameter Store.
    ParameterStore,
    /// Google Secret Manager.
    Google,
}

impl Store {
    /// How many values one call gives.
    const fn batch(self) -> u32 {
        match self {
            Self::Vault | Self::Google => 1,
            Self::SecretsManager => 20,
            Self::ParameterStore => 10,
        }
    }

    /// Whether its stand-in can refuse every second call.
    const fn throttles(self) -> bool {
        !matches!(self, Self::Vault)
    }

    /// How much memory the operator may take at its peak, in MiB.
    const fn most_memory(self, objects: u32) -> Option<f64> {
        match (self, objects) {
            (Self::Vault, 0..=1000) => Some(60.0),
            (_, 0..=1000) => Some(70.0),
            (_, 1001..=10_000) => Some(150.0),
            _ => None,
        }
    }

    /// How often the SyncedSecrets refresh, in seconds: seldom enough that the first syncs are done before the first
    /// refresh, and often enough that every one refreshes in a minute.
    const fn refresh_seconds(self, objects: u32) -> u64 {
        match (self, objects) {
            (_, 2001..) => 54,
            (Self::Vault | Self::Google, _) => 20,
            _ => 15,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// The table, and then the JSON.
    All,
    /// The table.
    Table,
    /// The JSON.
    Json,
}

/// Runs a benchmark.
///
/// # Errors
/// When a part of it cannot be started, objects do not become Ready, or a goal is missed with `--check`.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let debug = match &arguments.bench {
        Bench::FirstSync(arguments) => {
            ensure!(
                !arguments.throttle || arguments.store.throttles(),
                "--throttle: the stand-in of this store does not throttle; every other one does"
            );
            arguments.debug
        }
        Bench::Events(arguments) => arguments.debug,
    };
    if cfg!(debug_assertions) && !debug {
        return run_release();
    }
    lockstep_testkit::init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    match &arguments.bench {
        Bench::FirstSync(arguments) => {
            let figures = runtime.block_on(first_sync::measure(arguments))?;
            table::print(&figures, arguments.output)?;
            if arguments.check {
                table::check(&figures)?;
            }
        }
        Bench::Events(arguments) => {
            let figures = runtime.block_on(events::measure(arguments))?;
            events::print(&figures, arguments.output)?;
            if arguments.check {
                events::check(&figures)?;
            }
        }
    }
    Ok(())
}

/// Builds this program and the operator for release, and runs the same command again: a raw loop and a stand-in from a
/// debug build would be slow, and the operator look quick beside them.
fn run_release() -> Result<()> {
    command::cargo([
        "build",
        "--locked",
        "--release",
        "--package",
        "xtask",
        "--package",
        "lockstep",
    ])?;
    let program = folder()?.join("../release/xtask");
    let status = Command::new(&program)
        .args(std::env::args_os().skip(1))
        .status()
        .with_context(|| format!("start {}", program.display()))?;
    ensure!(status.success(), "the benchmark failed; it says why above");
    Ok(())
}

/// The folder that this program was built in: `target/debug` or `target/release`.
fn folder() -> Result<PathBuf> {
    let program = std::env::current_exe().context("find this program")?;
    program
        .parent()
        .map(Path::to_owned)
        .context("find the folder of this program")
}
