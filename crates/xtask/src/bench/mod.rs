//! `cargo xtask bench`: measures the cost of lockstep on a real API server, as ratios within one
//! run.

mod arguments;
mod cluster;
mod events;
mod first_sync;
mod meter;
mod raw;
mod rounds;
mod stand_in;
mod table;

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};

use self::arguments::{Events, FirstSync};
use crate::{command, workspace};

/// Benchmark lockstep on a real API server
///
/// Speed is always reported as a ratio within one run, so that it can be compared across machines.
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

/// Runs a benchmark.
///
/// # Errors
/// Fails if a part cannot be started, objects do not become Ready, or a goal is missed with
/// `--check`.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let debug = match &arguments.bench {
        Bench::FirstSync(arguments) => {
            ensure!(
                !arguments.throttle || arguments.store.throttles(),
                "--throttle: not supported by the stand-in of this store. Use another --store"
            );
            arguments.common.debug
        }
        Bench::Events(arguments) => arguments.common.debug,
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
            table::print(&figures, arguments.common.output)?;
            if arguments.common.check {
                table::check(&figures)?;
            }
        }
        Bench::Events(arguments) => {
            let figures = runtime.block_on(events::measure(arguments))?;
            events::print(&figures, arguments.common.output)?;
            if arguments.common.check {
                events::check(&figures)?;
            }
        }
    }
    Ok(())
}

/// Builds release binaries of this program and the operator, and runs the same command again. With
/// a slow raw loop and stand-in from a debug build, the operator would look fast.
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
    let program = workspace::build_folder()?.join("../release/xtask");
    let status = Command::new(&program)
        .args(std::env::args_os().skip(1))
        .status()
        .with_context(|| format!("start {}", program.display()))?;
    ensure!(status.success(), "the benchmark failed, see above");
    Ok(())
}
