//! Builds programs from the Go modules in `tools/` of this crate.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::run::run;
use crate::progress::Step;

/// A program of a pinned Go module.
pub(super) struct Program {
    module: &'static Module,
    package: &'static str,
}

/// A Go module in `tools/`.
struct Module {
    folder: &'static str,
    manifest: &'static str,
    checksums: &'static str,
    linker_flags: &'static str,
}

static ETCD_MODULE: Module = Module {
    folder: concat!(env!("CARGO_MANIFEST_DIR"), "/tools/etcd"),
    manifest: include_str!("../../tools/etcd/go.mod"),
    checksums: include_str!("../../tools/etcd/go.sum"),
    linker_flags: "-s -w",
};

static KUBERNETES_MODULE: Module = Module {
    folder: concat!(env!("CARGO_MANIFEST_DIR"), "/tools/kubernetes"),
    manifest: include_str!("../../tools/kubernetes/go.mod"),
    checksums: include_str!("../../tools/kubernetes/go.sum"),
    linker_flags: "-X k8s.io/component-base/version.gitVersion=v1.36.2 \
                   -X k8s.io/component-base/version.gitMajor=1 \
                   -X k8s.io/component-base/version.gitMinor=36 -s -w",
};

pub(super) const ETCD: Program = Program {
    module: &ETCD_MODULE,
    package: "go.etcd.io/etcd/server/v3",
};
pub(super) const API_SERVER: Program = Program {
    module: &KUBERNETES_MODULE,
    package: "k8s.io/kubernetes/cmd/kube-apiserver",
};
pub(super) const CONTROLLER_MANAGER: Program = Program {
    module: &KUBERNETES_MODULE,
    package: "k8s.io/kubernetes/cmd/kube-controller-manager",
};
pub(super) const KUBECTL: Program = Program {
    module: &KUBERNETES_MODULE,
    package: "k8s.io/kubernetes/cmd/kubectl",
};

/// Uses no C compiler, and only the installed Go.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("CGO_ENABLED", "0"),
    ("GOTOOLCHAIN", "local"),
    ("GOFLAGS", "-mod=readonly"),
    ("GOWORK", "off"),
];

impl Program {
    pub(super) fn definition(&self) -> String {
        let Module {
            manifest,
            checksums,
            linker_flags,
            ..
        } = self.module;
        let environment = ENVIRONMENT
            .map(|(name, value)| {
                format!(
                    "{name}={value}
"
                )
            })
            .concat();
        format!("{manifest}\n{checksums}\n{linker_flags}\n{environment}-trimpath\n")
    }

    pub(super) fn build(&self, work: &Path, step: &mut Step) -> Result<PathBuf> {
        let made = work.join("made");
        let mut command = Command::new("go");
        command
            .current_dir(self.module.folder)
            .envs(ENVIRONMENT)
            .args(["build", "-trimpath", "-ldflags", self.module.linker_flags, "-o"])
            .arg(&made)
            .arg(self.package);
        run(
            &mut command,
            work,
            step,
            "Go 1.26 or newer is needed, or the programs in the folder KUBEBUILDER_ASSETS.",
        )?;
        Ok(made)
    }
}
