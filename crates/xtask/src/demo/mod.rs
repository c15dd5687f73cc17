//! `cargo xtask demo`: the whole way from a value in a store to a Secret in a cluster, on real servers.
//!
//! [`show`] prints, [`cluster`] is where it plays, [`install`] brings lockstep there, [`operator`] is the real binary,
//! [`source`] holds the values, [`follow`] checks that what should come did come, and [`rollout`] is the chapter of rotation.

mod arguments;
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
mod story;
mod vault;

use anyhow::Result;
use lockstep_testkit::{
    binaries,
    tools::{self, Tool},
};

pub(crate) use self::arguments::Arguments;
use self::arguments::Provider;
use crate::command::cargo;

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
