//! `cargo xtask demo`: demonstrates the way of a value from a store to a Secret, on real servers.
//!
//! [`show`] prints, [`cluster`] provides the cluster, [`install`] installs lockstep, [`operator`]
//! runs the real binary, [`source`] provides the values, [`follow`] checks the results, and
//! [`rollout`] demonstrates rotation.

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
    fn existing_cluster_with_files_needs_only_kubectl() {
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
