//! `cargo xtask demo`: the whole way from a value in a store to a Secret in a cluster, on real servers.
//!
//! [`show`] prints, [`cluster`] is where it plays, [`install`] brings lockstep there, [`operator`] is the real binary,
//! [`source`] holds the values, [`follow`] checks that what should come did come, and [`rollout`] is the chapter of rotation.

mod aws;
mod cluster;
mod ending;
mod files;
mod follow;
mod gcp;
mod install;
mod operator;
mod play;
mod rollout;
mod show;
mod source;
mod vault;

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use lockstep_testkit::{
    binaries,
    tools::{self, Tool},
};

use crate::command::cargo;

/// Watch a SyncedSecret become a Secret, change at its source and change here, wave by wave, on real servers
///
/// Starts etcd, an API server, a controller manager and OpenBao, installs lockstep, and runs the real binary under its own
/// restricted ServiceAccount. Then it stays, with commands to try, until Ctrl-C ends everything that was started. All of
/// it listens on loopback only. The first run builds or fetches the servers; the next ones take seconds.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask demo                        play it, and stay
  cargo xtask demo --once                 play it and end; the exit code says whether all of it held
  cargo xtask demo --provider aws         values from moto, an emulator of AWS, read as a ServiceAccount
  cargo xtask demo --provider gcp         values from a stand-in for Google Secret Manager; needs no Python
  cargo xtask demo --provider file        values from files in place of OpenBao; needs no Python
  cargo xtask demo --context kind-kind    on a cluster that you have; what it makes there it removes in the end")]
pub(crate) struct Arguments {
    /// End after the last step; the exit code says whether every step held
    #[arg(long)]
    once: bool,
    /// Where the values come from
    #[arg(long, value_enum, default_value_t = Provider::Vault)]
    provider: Provider,
    /// Context of your kubeconfig: play on that cluster, which must be 1.33 or later and without lockstep
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Do not ask before something is installed on the cluster of --context
    #[arg(long, requires = "context")]
    yes: bool,
    /// The lockstep binary to run, in place of building it
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// Where the values come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Provider {
    /// A real OpenBao, which speaks Vault's API, and examples/quickstart.
    Vault,
    /// moto, which speaks AWS' API, and examples/aws-web-identity.
    Aws,
    /// A stand-in that speaks Google's API, and examples/gcp-secret-manager.
    Gcp,
    /// A folder of files, and examples/file-store.
    File,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    for tool in tools_for(arguments) {
        tools::ensure(tool)?;
    }
    let binary = if let Some(binary) = &arguments.binary {
        binary.clone()
    } else {
        cargo(["build", "--package", "lockstep", "--locked"])?;
        binaries::lockstep()?
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(play::demo(arguments, &binary))
}

fn tools_for(arguments: &Arguments) -> Vec<Tool> {
    let mut tools = vec![Tool::Kubectl];
    match arguments.provider {
        Provider::Vault => tools.push(Tool::OpenBao),
        Provider::Aws => tools.push(Tool::Moto),
        Provider::Gcp | Provider::File => {}
    }
    if arguments.context.is_none() {
        tools.extend([Tool::Etcd, Tool::ApiServer, Tool::ControllerManager]);
    }
    tools
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_need_no_openbao_and_a_cluster_that_is_there_needs_no_control_plane() {
        let arguments = Arguments {
            once: true,
            provider: Provider::File,
            context: Some("kind-kind".to_owned()),
            yes: true,
            binary: None,
        };
        assert_eq!(tools_for(&arguments), [Tool::Kubectl]);
    }
}
