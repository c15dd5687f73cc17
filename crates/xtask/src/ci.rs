//! `cargo xtask ci`: every check that a change must pass before it is merged.

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use lockstep_testkit::progress;

use crate::{
    command::{cargo, has_cargo_subcommand},
    generate,
    report::Report,
    test, workspace,
};

/// Cargo features of the binary, one for each provider with its own client. The last entry enables
/// none of them.
const PROVIDERS: [&str; 4] = ["vault", "aws", "gcp", ""];

/// Check formatting, lints, generated files and dependencies, then run all tests
///
/// `.ci/run` runs only this. Without caches, three steps take long on two cores: building the
/// control plane (about 8 minutes, once), checking all crates with their dependencies (about 4
/// minutes) and building them (about 6 minutes). The summary lists the duration of each step.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments) -> Result<()> {
    let mut report = Report::default();
    let before = differing()?;
    report.step("formatting", || cargo(["fmt", "--all", "--check"]))?;
    report.step("lints (some minutes without a cache)", || {
        cargo([
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ])
    })?;
    report.step("each provider alone, and none", || {
        PROVIDERS.iter().try_for_each(|provider| {
            cargo([
                "clippy",
                "--package",
                "lockstep",
                "--no-default-features",
                "--features",
                provider,
                "--locked",
                "--",
                "-D",
                "warnings",
            ])
        })
    })?;
    report.step("generated files", || generate::run_all(true))?;
    report.step("dependency rules", || {
        if has_cargo_subcommand("deny") {
            return cargo(["deny", "--all-features", "check", "bans", "licenses", "sources"]);
        }
        progress::line(format_args!(
            "  - cargo-deny is not installed: deny.toml was not checked"
        ));
        Ok(())
    })?;
    test::steps(&mut report, &[])?;
    report.step("no file was changed", || {
        let changed: Vec<_> = differing()?.difference(&before).cloned().collect();
        ensure!(
            changed.is_empty(),
            "files changed during the run: {}. Tests must write only to temporary folders. If you changed the files yourself, run this again",
            changed.join(", ")
        );
        Ok(())
    })
}

/// Returns the files that differ from the last commit according to git.
fn differing() -> Result<BTreeSet<String>> {
    let output = Command::new("git")
        .args(["status", "--porcelain"])
        .current_dir(workspace::root())
        .output()
        .context("run git status")?;
    if !output.status.success() {
        bail!("git status: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect())
}
