//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use lockstep_api::Duration;

/// Keeps Kubernetes Secrets in lockstep with a key management system.
#[derive(Debug, Parser)]
#[command(
    name = "lockstep",
    version,
    max_term_width = 100,
    after_long_help = "Examples:
  lockstep run --operator-namespace lockstep-system
  lockstep crds | kubectl apply --server-side -f -
  lockstep completions bash > /etc/bash_completion.d/lockstep

Exit codes: 0 all went well, 1 it did not, 2 the command line cannot be understood."
)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the operator.
    #[command(after_long_help = "Examples:
  lockstep run
      In a cluster, with the ServiceAccount of its pod.
  lockstep run --kubeconfig ~/.kube/config --context dev --namespaces shop,billing
      From outside, for two namespaces.

The operator refuses to start when the admission policy lockstep-secrets does not bind its account;
kubectl apply -k deploy/kustomize/base installs it.")]
    Run(RunArguments),
    /// Print the CustomResourceDefinitions as YAML.
    Crds,
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the version.
    Version {
        /// How.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

/// How something is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Settings of the operator.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "LOCKSTEP_LISTEN", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Namespaces to watch, separated by commas. Default: all.
    #[arg(long, env = "LOCKSTEP_NAMESPACES", value_delimiter = ',')]
    pub(crate) namespaces: Vec<String>,
    /// Writes to the API server at the same time.
    #[arg(long, env = "LOCKSTEP_CONCURRENCY", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) concurrency: u16,
    /// Folder below which file stores may read. Without it there are no file stores.
    #[arg(long, env = "LOCKSTEP_FILE_ROOT")]
    pub(crate) file_root: Option<PathBuf>,
    /// The operator's own namespace: ClusterSecretStores take their credentials from it.
    #[arg(long, env = "LOCKSTEP_OPERATOR_NAMESPACE", default_value = "lockstep-system")]
    pub(crate) operator_namespace: String,
    /// Time between two looks at the same written Secret, such as 10m; 0s turns them off.
    #[arg(long, env = "LOCKSTEP_DRIFT_PROBE_INTERVAL", default_value = "10m")]
    pub(crate) drift_probe_interval: Duration,
    /// Watch the metadata of written Secrets, to repair an edit within a second. Needs list and watch on Secrets.
    #[arg(long, env = "LOCKSTEP_DRIFT_WATCH")]
    pub(crate) drift_watch: bool,
    /// Write Secrets although no admission policy holds the operator to its own.
    #[arg(long, env = "LOCKSTEP_UNSAFE_WITHOUT_ADMISSION_POLICY")]
    pub(crate) unsafe_without_admission_policy: bool,
    /// Kubeconfig to connect with. Default: that of the pod, or of the environment.
    #[arg(long)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long)]
    pub(crate) context: Option<String>,
    /// Form of the log.
    #[arg(long, env = "LOCKSTEP_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// How much is logged: error, warn, info, debug, or by module (info,lockstep_controller=debug).
    #[arg(long, env = "LOCKSTEP_LOG_LEVEL", default_value = "info")]
    pub(crate) log_level: String,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line for people.
    Text,
    /// One JSON object a line.
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_and_option_is_explained() {
        let mut command = Arguments::command();
        command.build();
        command.clone().debug_assert();
        for sub in command.get_subcommands() {
            assert!(sub.get_about().is_some(), "{}", sub.get_name());
            for argument in sub.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} {}",
                    sub.get_name(),
                    argument.get_id()
                );
            }
        }
    }

    #[test]
    fn durations_and_lists_are_read() {
        let line = [
            "lockstep",
            "run",
            "--namespaces",
            "a,b",
            "--drift-probe-interval",
            "1h30m",
        ];
        let Command::Run(run) = Arguments::try_parse_from(line).unwrap().command else {
            panic!("not run")
        };
        assert_eq!(run.namespaces, ["a", "b"]);
        assert_eq!(run.drift_probe_interval.to_std().as_secs(), 5400);
    }
}
