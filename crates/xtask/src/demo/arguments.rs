//! Arguments of `cargo xtask demo`.

use std::path::PathBuf;

use clap::ValueEnum;

/// Demonstrate sync, rotation and rollout on real servers
///
/// Starts etcd, an API server, a controller manager and OpenBao, installs lockstep, and runs the
/// real binary under its own restricted ServiceAccount. Shows a SyncedSecret become a Secret, the
/// Secret follow its source, and a new value roll out in waves. Then keeps running, with commands
/// to try, until Ctrl-C stops everything. All servers listen on loopback only. The first run builds
/// or downloads the servers; later runs take seconds.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask demo                        run the demo and keep the servers running
  cargo xtask demo --once                 run the demo and exit; exit code 0 if every step succeeded
  cargo xtask demo --provider aws         read values from moto, an AWS emulator, as a ServiceAccount
  cargo xtask demo --provider gcp         read values from a stand-in for Google Secret Manager; no Python needed
  cargo xtask demo --provider file        read values from files; no Python needed
  cargo xtask demo --context kind-kind    use an existing cluster; everything is removed at the end")]
pub(crate) struct Arguments {
    /// Exit after the last step, with exit code 0 if every step succeeded
    #[arg(long)]
    pub(super) once: bool,
    /// Source of the values
    #[arg(long, value_enum, default_value_t = Provider::Vault)]
    pub(super) provider: Provider,
    /// Kubeconfig context of an existing cluster to use, which must run Kubernetes 1.33 or later
    /// and must not have lockstep installed
    #[arg(long, value_name = "NAME")]
    pub(super) context: Option<String>,
    /// Install on the cluster of --context without asking for confirmation
    #[arg(long, requires = "context")]
    pub(super) yes: bool,
    /// lockstep binary to run instead of building one
    #[arg(long, value_name = "FILE")]
    pub(super) binary: Option<PathBuf>,
}

/// Source of the values
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Provider {
    /// OpenBao, which implements the Vault API, with examples/getting-started/quickstart
    Vault,
    /// moto, which implements the AWS API, with examples/providers/aws/web-identity
    Aws,
    /// A stand-in for the Google API, with examples/providers/gcp/secret-manager
    Gcp,
    /// A folder of files, with examples/sources/file-store
    File,
}
