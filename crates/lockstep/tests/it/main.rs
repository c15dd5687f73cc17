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

/// Returns the folders below `examples/` that contain manifests.
fn examples() -> Vec<PathBuf> {
    fn add(folder: &Path, found: &mut Vec<PathBuf>) {
        if folder.join("manifests.yaml").is_file() {
            found.push(folder.to_owned());
        }
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                add(&path, found);
            }
        }
    }
    let mut found = Vec::new();
    add(&example(""), &mut found);
    assert!(found.len() > 20, "only {} examples were found", found.len());
    found
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples")
        .join(name)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}
