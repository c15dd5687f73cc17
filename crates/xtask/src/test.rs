//! `cargo xtask test`.

use anyhow::Result;

use crate::{command::cargo, report::Report, setup};

/// Run all tests, getting or building first what they need
///
/// Tests run real servers on loopback ports and end them. Environment: KUBEBUILDER_ASSETS names a folder with
/// ready-made control plane binaries, LOCKSTEP_BIN another lockstep binary for the end-to-end tests, and
/// LOCKSTEP_TEST_KEEP keeps the servers' folders with their logs.
///
/// Examples: `cargo xtask test`, `cargo xtask test -- --package lockstep-core`, `cargo xtask test -- -- --nocapture`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Arguments of `cargo test`, in place of `--workspace` where they choose packages themselves
    #[arg(last = true)]
    pub(crate) arguments: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut report = Report::default();
    steps(&mut report, &arguments.arguments)
}

/// The steps of a test run, into a report that others may share.
pub(crate) fn steps(report: &mut Report, arguments: &[String]) -> Result<()> {
    report.step("tools", setup::ensure_all)?;
    report.step("build the binaries that end-to-end tests run", || {
        cargo(["build", "--workspace", "--bins", "--locked"])
    })?;
    report.step("tests", || cargo(command_line(arguments)))
}

fn command_line(arguments: &[String]) -> Vec<String> {
    let chosen = arguments
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| {
            argument.starts_with("-p") || argument.starts_with("--package") || argument == "--manifest-path"
        });
    let fixed = if chosen {
        &["test", "--locked"][..]
    } else {
        &["test", "--workspace", "--locked"][..]
    };
    fixed
        .iter()
        .map(ToString::to_string)
        .chain(arguments.iter().cloned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(arguments: &[&str]) -> String {
        command_line(&arguments.iter().map(ToString::to_string).collect::<Vec<_>>()).join(" ")
    }

    #[test]
    fn the_whole_workspace_is_tested_unless_packages_are_chosen() {
        assert_eq!(line(&[]), "test --workspace --locked");
        assert_eq!(
            line(&["--package", "lockstep-api"]),
            "test --locked --package lockstep-api"
        );
        assert_eq!(line(&["-plockstep-api"]), "test --locked -plockstep-api");
        assert_eq!(
            line(&["--", "--nocapture", "-p"]),
            "test --workspace --locked -- --nocapture -p"
        );
    }
}
