//! The binary: the operator (`lockstep run`) and its command-line tools.
//!
//! [`cli`] defines the command line, every command has its own module, and [`exit`] defines the
//! exit codes.

mod cli;
mod client;
mod completions;
mod crds;
mod docs;
mod exit;
mod history;
mod logging;
mod manifests;
mod output;
mod panics;
mod plan;
mod providers;
mod render;
mod run;
mod seal;
mod shutdown;
mod span;
mod status;
mod table;
mod version;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    // install the TLS provider before any TLS connection: kube's client panics if the process has two
    let installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    panics::install_hook();
    if installed.is_err() {
        return exit::failed("another TLS provider is already installed");
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    match cli.command {
        Command::Run(arguments) => run::run(arguments),
        Command::Render(arguments) => render::render(&arguments),
        Command::Seal(arguments) => seal::seal(&arguments),
        Command::Plan(arguments) => plan::plan(&arguments),
        Command::Status(arguments) => status::status(&arguments),
        Command::History(arguments) => history::history(&arguments),
        Command::Crds => exit::printed(crds::print()),
        Command::Completions(arguments) => exit::printed(completions::print(arguments.shell)),
        Command::Version(arguments) => exit::printed(version::print(arguments.output)),
        Command::Docs(arguments) => exit::printed(docs::print(arguments.page)),
    }
}
