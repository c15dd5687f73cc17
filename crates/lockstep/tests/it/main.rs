//! The command line as people type it, without a cluster.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends with a panic that names the case"
)]

mod commands;
mod confinement;
mod plan;
mod render_examples;
mod render_faults;
mod render_sealed;
mod seal;

use std::path::{Path, PathBuf};

/// The command, without what the environment of whoever runs the tests would add.
fn lockstep(arguments: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_lockstep"));
    command
        .env_clear()
        .args(arguments)
        .timeout(std::time::Duration::from_secs(120))
        .assert()
}

/// The command with that on its standard input.
fn lockstep_with(arguments: &[&str], input: &str) -> assert_cmd::assert::Assert {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_lockstep"));
    command
        .env_clear()
        .args(arguments)
        .write_stdin(input)
        .timeout(std::time::Duration::from_secs(120))
        .assert()
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}
