//! What the demo can be asked.

use std::path::PathBuf;

use clap::ValueEnum;

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
    pub(super) once: bool,
    /// Where the values come from
    #[arg(long, value_enum, default_value_t = Provider::Vault)]
    pub(super) provider: Provider,
    /// Context of your kubeconfig: play on that cluster, which must be 1.33 or later and without lockstep
    #[arg(long, value_name = "NAME")]
    pub(super) context: Option<String>,
    /// Do not ask before something is installed on the cluster of --context
    #[arg(long, requires = "context")]
    pub(super) yes: bool,
    /// The lockstep binary to run, in place of building it
    #[arg(long, value_name = "FILE")]
    pub(super) binary: Option<PathBuf>,
}

/// Where the values come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Provider {
    /// A real OpenBao, which speaks Vault's API, and examples/quickstart.
    Vault,
    /// moto, which speaks AWS' API, and examples/aws-web-identity.
    Aws,
    /// A stand-in that speaks Google's API, and examples/gcp-secret-manager.
    Gcp,
    /// A folder of files, and examples/file-store.
    File,
}
