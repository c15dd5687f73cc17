//! `cargo xtask test`: runs the tests.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use lockstep_testkit::progress;

use crate::{command::cargo, report::Report, setup, workspace};

/// Run all tests, after building what they need
///
/// Tests run real servers on loopback ports and stop them. The summary lists the duration of each
/// step and the slowest test programs.
///
/// Environment: KUBEBUILDER_ASSETS is a folder with prebuilt control plane binaries. LOCKSTEP_BIN
/// is another lockstep binary for the end-to-end tests. LOCKSTEP_TEST_KEEP keeps the folders of the
/// servers, with their logs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask test                                run all tests
  cargo xtask test drift                          run tests with \"drift\" in their names
  cargo xtask test -- --package lockstep-core     run the tests of one package
  cargo xtask test drift -- -- --nocapture        show the output of the tests")]
pub(crate) struct Arguments {
    /// Run only tests whose names contain this text
    filter: Option<String>,
    /// Arguments for `cargo test`. They replace `--workspace` if they select packages
    #[arg(last = true)]
    pub(crate) arguments: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut report = Report::default();
    let all: Vec<_> = arguments
        .filter
        .iter()
        .chain(&arguments.arguments)
        .cloned()
        .collect();
    steps(&mut report, &all)
}

/// Runs the steps of a test run and adds them to a report.
pub(crate) fn steps(report: &mut Report, arguments: &[String]) -> Result<()> {
    report.step("tools (about 8 minutes without a cache)", setup::ensure_all)?;
    report.step("build of the binaries for the tests", || {
        cargo(["build", "--workspace", "--bins", "--locked"])
    })?;
    report.step("build of the tests (some minutes without a cache)", || {
        let mut build = command_line(arguments);
        build.truncate(own_arguments(&build));
        build.insert(1, "--no-run".to_owned());
        cargo(build)
    })?;
    let mut programs = Programs::of_packages(packages(arguments)?);
    let outcome = report.step("tests", || timed(&command_line(arguments), &mut programs));
    report.note_programs(programs.finish());
    outcome
}

/// Runs cargo, passes its output through, and records when each test program started.
fn timed(arguments: &[String], programs: &mut Programs) -> Result<()> {
    let shown = arguments.join(" ");
    progress::line(format_args!("$ cargo {shown}"));
    let mut command = Command::new("cargo");
    let mut child = command
        .args(arguments)
        .current_dir(workspace::root())
        .stderr(Stdio::piped())
        .spawn()
        .context("start cargo")?;
    if let Some(stderr) = child.stderr.take() {
        // the output of tests can be any bytes
        for line in BufReader::new(stderr).split(b'\n') {
            let line = line.context("read what cargo says")?;
            programs.saw(&String::from_utf8_lossy(&line), Instant::now());
            let mut out = io::stderr().lock();
            let _ = out.write_all(&line).and_then(|()| out.write_all(b"\n"));
        }
    }
    if !child.wait().context("wait for cargo")?.success() {
        bail!("`cargo {shown}` failed");
    }
    Ok(())
}

/// Returns the package of each test program. cargo prints only the file name of a program when it
/// runs it.
fn packages(arguments: &[String]) -> Result<BTreeMap<String, String>> {
    let mut build = command_line(arguments);
    build.truncate(own_arguments(&build));
    build.splice(
        1..1,
        ["--no-run", "--quiet", "--message-format=json"].map(str::to_owned),
    );
    let output = Command::new("cargo")
        .args(build)
        .current_dir(workspace::root())
        .stderr(Stdio::null())
        .output()
        .context("start cargo")?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(artifact)
        .collect())
}

/// Returns the file name of a test program and its package from a message of cargo.
fn artifact(message: &str) -> Option<(String, String)> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let program = message.get("executable")?.as_str()?;
    // …/target/debug/deps/it-0a1b, and …/crates/lockstep-core/Cargo.toml
    let name = program.rsplit('/').next()?;
    let package = message.get("manifest_path")?.as_str()?.rsplit('/').nth(1)?;
    Some((name.to_owned(), package.to_owned()))
}

/// Returns the number of arguments before those for the test programs.
fn own_arguments(arguments: &[String]) -> usize {
    arguments
        .iter()
        .position(|argument| argument == "--")
        .unwrap_or(arguments.len())
}

/// Start times of the test programs, from the output of cargo.
#[derive(Debug, Default)]
struct Programs {
    packages: BTreeMap<String, String>,
    finished: Vec<(String, Duration)>,
    running: Option<(String, Instant)>,
}

impl Programs {
    fn of_packages(packages: BTreeMap<String, String>) -> Self {
        Self {
            packages,
            ..Self::default()
        }
    }

    fn saw(&mut self, line: &str, now: Instant) {
        let line = line.trim_start();
        let name = if let Some(program) = line.strip_prefix("Running ") {
            program.rsplit_once('(').map(|(source, path)| {
                let file = path.trim_end_matches(')').rsplit('/').next().unwrap_or_default();
                let package = self.packages.get(file).map_or(file, String::as_str);
                format!("{package} {}", source.trim())
            })
        } else {
            line.strip_prefix("Doc-tests ")
                .map(|package| format!("{package} examples in the documentation"))
        };
        if let Some(name) = name {
            self.ended(now);
            self.running = Some((name, now));
        }
    }

    fn ended(&mut self, now: Instant) {
        if let Some((name, began)) = self.running.take() {
            self.finished.push((name, now.duration_since(began)));
        }
    }

    fn finish(mut self) -> Vec<(String, Duration)> {
        self.ended(Instant::now());
        self.finished
    }
}

fn command_line(arguments: &[String]) -> Vec<String> {
    let chosen = arguments
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| {
            argument.starts_with("-p") || argument.starts_with("--package") || argument == "--manifest-path"
        });
    let fixed = if chosen {
        &["test", "--locked", "--no-fail-fast"][..]
    } else {
        &["test", "--workspace", "--locked", "--no-fail-fast"][..]
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
    fn whole_workspace_is_tested_by_default() {
        assert_eq!(line(&[]), "test --workspace --locked --no-fail-fast");
        assert_eq!(line(&["drift"]), "test --workspace --locked --no-fail-fast drift");
        assert_eq!(
            line(&["--package", "lockstep-api"]),
            "test --locked --no-fail-fast --package lockstep-api"
        );
        assert_eq!(
            line(&["-plockstep-api"]),
            "test --locked --no-fail-fast -plockstep-api"
        );
        assert_eq!(
            line(&["--", "--nocapture", "-p"]),
            "test --workspace --locked --no-fail-fast -- --nocapture -p"
        );
    }

    #[test]
    fn test_program_ends_when_the_next_one_starts() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let artifact = artifact(
            r#"{"reason":"compiler-artifact","manifest_path":"/src/crates/lockstep-core/Cargo.toml","executable":"/src/target/debug/deps/it-0a1b"}"#,
        );
        let mut programs = Programs::of_packages(artifact.into_iter().collect());
        programs.saw("   Compiling lockstep-core v0.1.0", at(0));
        programs.saw("     Running tests/it/main.rs (target/debug/deps/it-0a1b)", at(1));
        programs.saw("Running is what a test said", at(2));
        programs.saw(
            "     Running end_to_end/main.rs (/src/target/debug/deps/end_to_end-2c)",
            at(4),
        );
        programs.saw("   Doc-tests lockstep_testkit", at(64));
        let seconds = Duration::from_secs;
        assert_eq!(
            programs.finished,
            [
                ("lockstep-core tests/it/main.rs".to_owned(), seconds(3)),
                ("end_to_end-2c end_to_end/main.rs".to_owned(), seconds(60)),
            ]
        );
        assert_eq!(programs.finish().len(), 3);
    }

    #[test]
    fn messages_without_a_program_are_ignored() {
        assert_eq!(artifact(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(artifact("not JSON"), None);
    }
}
