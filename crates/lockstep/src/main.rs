//! lockstep: keeps Kubernetes Secrets in lockstep with a key management system.

mod arguments;
mod connect;
mod log;
mod providers;
mod run;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::arguments::{Arguments, Command};

fn main() -> ExitCode {
    // two TLS providers in one process make clients panic at their first connection: choose ours before any is made
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments = Arguments::parse();
    match dispatch(arguments) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Run(options) => run::run(&options),
        Command::Crds => {
            for crd in lockstep_api::crd::all() {
                print(&format!("---\n{}", serde_yaml_ng::to_string(&crd)?));
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "lockstep", &mut script);
            print(&String::from_utf8_lossy(&script));
            Ok(ExitCode::SUCCESS)
        }
        Command::Version { output } => {
            let version = env!("CARGO_PKG_VERSION");
            match output {
                arguments::Output::Text => print(&format!("lockstep {version}\n")),
                arguments::Output::Json => {
                    let providers: Vec<_> = providers::registry(None).names().collect();
                    let text = serde_json::json!({ "version": version, "providers": providers });
                    print(&format!("{text}\n"));
                }
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Writes to standard output; a reader that went away (`| head`) is no fault.
fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Writes a line to standard error.
fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}
