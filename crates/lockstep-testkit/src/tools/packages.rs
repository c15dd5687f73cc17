//! Installs Python packages: moto, Google's clients, and PostgreSQL's programs, each with its
//! dependencies in its own folder.

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
/// The version of PostgreSQL in the package, which has another version itself.
pub(super) const POSTGRESQL_VERSION: &str = "16.2";
pub(super) const SECRET_MANAGER_CLIENT_VERSION: &str = "2.32.0";
/// The folder of the packages, next to the program.
pub(super) const FOLDER: &str = "packages";

/// A program and the packages that it needs.
pub(super) struct Packages {
    requirements: &'static str,
    /// The program that starts it. It sees only its own packages.
    program: &'static str,
    hint: &'static str,
}

pub(super) const MOTO: Packages = Packages {
    requirements: include_str!("../../tools/moto/requirements.txt"),
    program: "#!/bin/sh\nPYTHONPATH=\"$(dirname \"$0\")/packages\" exec python3 -m moto.server \"$@\"\n",
    hint: "Python 3 with pip is needed to fetch moto.",
};

pub(super) const GOOGLE_CLIENTS: Packages = Packages {
    requirements: include_str!("../../tools/google/requirements.txt"),
    program: "#!/bin/sh\nPYTHONPATH=\"$(dirname \"$0\")/packages\" exec python3 \"$@\"\n",
    hint: "Python 3 with pip is needed to fetch Google's clients.",
};

pub(super) const POSTGRESQL: Packages = Packages {
    requirements: include_str!("../../tools/postgresql/requirements.txt"),
    program: include_str!("../../tools/postgresql/postgresql.sh"),
    hint: "Python 3 with pip is needed to fetch PostgreSQL.",
};

impl Packages {
    pub(super) fn definition(&self) -> String {
        format!("{}{}", self.requirements, self.program)
    }

    pub(super) fn fetch(&self, work: &Path, step: &mut Step) -> Result<PathBuf> {
        let requirements = work.join("requirements.txt");
        fs::write(&requirements, self.requirements).context("write the list of packages")?;
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
        run(&mut install, work, step, self.hint)?;
        let program = work.join("program");
        fs::write(&program, self.program).context("write the program")?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
            .context("make the program executable")?;
        Ok(program)
    }
}
