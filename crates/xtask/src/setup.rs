//! `cargo xtask setup`.

use anyhow::Result;
use lockstep_testkit::{environment, progress, tools};

/// Build or fetch every server that tests and the demo run
///
/// What is in the cache (lockstep/tools in XDG_CACHE_HOME, or in ~/.cache) or in the folder that KUBEBUILDER_ASSETS
/// names is taken from there; the first run takes about ten minutes on two cores, the next ones none.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask setup           before going offline, or to see what takes long
  cargo xtask setup --show    where kubectl, bao and the others are")]
pub(crate) struct Arguments {
    /// Show where each program is
    #[arg(long)]
    show: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    for tool in tools::Tool::ALL {
        let path = tools::ensure(tool)?;
        if arguments.show {
            progress::line(format_args!(
                "  {} {}: {}",
                tool.name(),
                tool.version(),
                path.display()
            ));
        }
    }
    if !arguments.show {
        progress::line(format_args!(
            "  ✓ tools are in {}",
            environment::tool_cache()?.display()
        ));
    }
    Ok(())
}

/// All tools, quietly when they are there.
pub(crate) fn ensure_all() -> Result<()> {
    tools::Tool::ALL
        .into_iter()
        .try_for_each(|tool| tools::ensure(tool).map(drop))
}
