//! Runs a build command with its output in a file, shows progress, and reports the last lines if it
//! fails.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::progress::Step;

const LAST_LINES: usize = 20;

/// Runs the command until it ends. `hint` explains what to do if the program is not installed.
pub(super) fn run(command: &mut Command, work: &Path, step: &mut Step, hint: &str) -> Result<()> {
    let log_path = work.join("output.log");
    let log = File::create(&log_path).with_context(|| format!("create {}", log_path.display()))?;
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("share the log")?)
        .stderr(log);
    let mut child = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow!("`{name}` is not installed. {hint}"),
        _ => anyhow!("start {name}: {error}"),
    })?;
    let status = loop {
        if let Some(status) = child.try_wait().with_context(|| format!("wait for {name}"))? {
            break status;
        }
        step.tick();
        std::thread::sleep(Duration::from_millis(100));
    };
    if !status.success() {
        let output = fs::read(&log_path).unwrap_or_default();
        let output = String::from_utf8_lossy(&output);
        let lines: Vec<_> = output.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        bail!("{name} failed ({status}). {hint} Its last lines:\n{last}");
    }
    Ok(())
}
