//! Runs other programs and passes their output through.

use std::{ffi::OsString, process::Command};

use anyhow::{Context as _, Result, bail};
use lockstep_testkit::progress;

use crate::workspace;

/// Runs cargo in the workspace and passes its output through.
///
/// # Errors
/// Fails if cargo cannot be started or fails.
pub(crate) fn cargo<A: Into<OsString>>(arguments: impl IntoIterator<Item = A>) -> Result<()> {
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let shown = arguments
        .iter()
        .map(|argument| argument.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ");
    progress::line(format_args!("$ cargo {shown}"));
    let mut command = Command::new("cargo");
    let status = command
        .args(&arguments)
        .current_dir(workspace::root())
        .status()
        .context("start cargo")?;
    if !status.success() {
        bail!("`cargo {shown}` failed");
    }
    Ok(())
}

/// Whether a cargo subcommand is installed.
pub(crate) fn has_cargo_subcommand(name: &str) -> bool {
    Command::new("cargo")
        .args([name, "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}
