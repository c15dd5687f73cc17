//! `cargo xtask setup`: provides the servers for tests and the demo.

use anyhow::Result;
use lockstep_testkit::{environment, progress, tools};

/// Build or download the servers for tests and the demo
///
/// Uses binaries from the cache (lockstep/tools in XDG_CACHE_HOME or ~/.cache) or from the folder
/// in KUBEBUILDER_ASSETS. The first run takes about ten minutes on two cores; later runs take no
/// time.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask setup           build or download everything, for example before going offline
  cargo xtask setup --show    show the paths of kubectl, bao and the other programs")]
pub(crate) struct Arguments {
    /// Show the path of each program
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

/// Provides all tools. Prints nothing if they are already there.
pub(crate) fn ensure_all() -> Result<()> {
    tools::Tool::ALL
        .into_iter()
        .try_for_each(|tool| tools::ensure(tool).map(drop))
}
