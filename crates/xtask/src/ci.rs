//! `cargo xtask ci`: what must hold before a change is merged.

use anyhow::Result;
use lockstep_testkit::progress;

use crate::{
    command::{cargo, has_cargo_subcommand},
    generate,
    report::Report,
    test,
};

/// Check formatting, lints, generated files and dependencies, then run all tests
///
/// `.ci/run` and the workflow in .github run this and nothing else.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments) -> Result<()> {
    let mut report = Report::default();
    report.step("formatting", || cargo(["fmt", "--all", "--check"]))?;
    report.step("lints", || {
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
    report.step("generated files", || generate::run_all(true))?;
    report.step("dependency rules", || {
        if has_cargo_subcommand("deny") {
            return cargo(["deny", "--all-features", "check", "bans", "licenses", "sources"]);
        }
        progress::line(format_args!(
            "  - cargo-deny is not installed: deny.toml is not checked here"
        ));
        Ok(())
    })?;
    test::steps(&mut report, &[])
}
