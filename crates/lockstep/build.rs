//! Tells `lockstep version` what it was built from: the compiler, and the commit where the build knows it.

#![expect(
    clippy::disallowed_methods,
    reason = "cargo tells a build script everything by environment variables"
)]

use std::{env, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LOCKSTEP_COMMIT");
    if let Ok(commit) = env::var("LOCKSTEP_COMMIT") {
        println!("cargo::rustc-env=LOCKSTEP_COMMIT={}", commit.trim());
    }
    let compiler = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = Command::new(compiler).arg("--version").output().ok();
    let version = version
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .unwrap_or_default();
    let number = version.split_whitespace().nth(1).unwrap_or("unknown");
    println!("cargo::rustc-env=LOCKSTEP_RUST_VERSION={number}");
}
