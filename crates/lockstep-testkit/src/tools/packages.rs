//! moto, which is a Python package: it and what it needs, in a folder of their own.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::run::run;
use crate::progress::Step;

pub(super) const MOTO_VERSION: &str = "5.2.5";
/// The folder of the packages, beside the program.
pub(super) const FOLDER: &str = "packages";
const REQUIREMENTS: &str = include_str!("../../tools/moto/requirements.txt");
const HINT: &str = "Python 3 with pip is needed to fetch moto.";
/// Runs moto's server with its packages and no others.
const PROGRAM: &str =
    "#!/bin/sh\nPYTHONPATH=\"$(dirname \"$0\")/packages\" exec python3 -m moto.server \"$@\"\n";

pub(super) fn definition() -> String {
    format!("{REQUIREMENTS}{PROGRAM}")
}

pub(super) fn fetch(work: &Path, step: &mut Step) -> Result<PathBuf> {
    let requirements = work.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS).context("write the list of packages")?;
    let mut install = Command::new("python3");
    install
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ])
        .args(["--only-binary=:all:", "--target"])
        .arg(work.join(FOLDER))
        .arg("--requirement")
        .arg(requirements);
    run(&mut install, work, step, HINT)?;
    let program = work.join("moto");
    fs::write(&program, PROGRAM).context("write moto's program")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).context("make moto executable")?;
    Ok(program)
}
