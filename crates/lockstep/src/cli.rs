//! The command line. Every option of `lockstep run` can also be set with an environment variable,
//! `LOCKSTEP_…`.

mod examples;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use lockstep_api::Duration;
use lockstep_controller::audiences::RESERVED;
use lockstep_core::text;
use lockstep_provider::SecretValue;

use crate::{
    client::Cluster,
    logging::{Directives, LogFormat},
};

/// Write Kubernetes Secrets from secret managers and keep them in sync
///
/// Declare SyncedSecrets in YAML and deploy them with GitOps. lockstep reads the values with
/// read-only credentials, writes the Secrets, and follows every change at the source.
#[derive(Debug, Parser)]
#[command(
    name = "lockstep",
    version,
    after_long_help = examples::LOCKSTEP,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands of the binary. The descriptions are those of the arguments. A comment here would
/// replace them and drop all but the first paragraph.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(RunArguments),
    Render(RenderArguments),
    Seal(SealArguments),
    Plan(PlanArguments),
    Status(StatusArguments),
    History(HistoryArguments),
    /// Print the CustomResourceDefinitions as YAML
    #[command(after_long_help = examples::CRDS)]
    Crds,
    /// Print a shell completion script
    #[command(after_long_help = examples::COMPLETIONS)]
    Completions(CompletionsArguments),
    /// Print the version, commit and providers of this build
    #[command(after_long_help = examples::VERSION)]
    Version(VersionArguments),
    /// Print a generated page of the documentation
    #[command(hide = true)]
    Docs(DocsArguments),
}

/// Run the operator
///
/// Connects to the cluster that the pod runs in, or to the one selected by --kubeconfig or
/// --context. Stops cleanly on SIGTERM or SIGINT. Serves /livez, /readyz (which reports what is
/// missing) and /metrics at --listen.
#[derive(Debug, Args)]
#[command(after_long_help = examples::RUN)]
pub(crate) struct RunArguments {
    /// Address to serve /livez, /readyz and /metrics on.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "LOCKSTEP_LISTEN",
        default_value = "127.0.0.1:8080"
    )]
    pub(crate) listen: SocketAddr,
    /// Namespaces to watch, separated by commas. All namespaces if not set.
    #[arg(long, value_name = "NAMESPACES", env = "LOCKSTEP_NAMESPACES", value_delimiter = ',', value_parser = namespace)]
    pub(crate) namespaces: Vec<String>,
    /// Maximum number of concurrent writes to the API server. Reads from stores have their own
    /// limits.
    #[arg(
        long, value_name = "NUMBER", env = "LOCKSTEP_CONCURRENCY", default_value_t = 32,
        value_parser = clap::value_parser!(u16).range(1..=4096)
    )]
    pub(crate) concurrency: u16,
    /// Folder below which the `file` provider of ClusterSecretStores reads. If not set, the
    /// provider is disabled.
    #[arg(long, value_name = "FOLDER", env = "LOCKSTEP_FILE_ROOT")]
    pub(crate) file_root: Option<PathBuf>,
    /// Namespace of the operator. It contains the credentials of ClusterSecretStores and the
    /// fingerprint key.
    #[arg(
        long, value_name = "NAMESPACE", env = "LOCKSTEP_OPERATOR_NAMESPACE", default_value = "lockstep-system",
        value_parser = namespace
    )]
    pub(crate) operator_namespace: String,
    /// Interval between two drift probes of each Secret. A probe detects edits by others without
    /// reading the Secret. 0s disables it.
    #[arg(
        long,
        value_name = "DURATION",
        env = "LOCKSTEP_DRIFT_PROBE_INTERVAL",
        default_value = "10m"
    )]
    pub(crate) drift_probe_interval: Duration,
    /// How long after a request for a credential that got no answer the server may still issue it.
    /// Its token is revoked after that. Must exceed the maximum duration of a request at the server
    /// (default_max_request_duration in Vault, 90s) by a minute.
    #[arg(
        long,
        value_name = "DURATION",
        env = "LOCKSTEP_ISSUE_TIMEOUT",
        default_value = "3m"
    )]
    pub(crate) issue_timeout: Duration,
    /// How long all remote values must be gone before deletionPolicy Delete deletes their Secret.
    /// A replica that lags behind reports new values as missing.
    #[arg(
        long,
        value_name = "DURATION",
        env = "LOCKSTEP_DELETION_DELAY",
        default_value = "1m"
    )]
    pub(crate) deletion_delay: Duration,
    /// Watch the metadata of the Secrets that lockstep wrote, to revert an edit within a second.
    /// Requires the permissions in deploy/kustomize/components/drift-watch.
    #[arg(long, env = "LOCKSTEP_DRIFT_WATCH")]
    pub(crate) drift_watch: bool,
    /// Interval between two self-tests of the admission policies. A self-test sends dry-run
    /// requests that the policies must reject. Minimum 1s. While the policy for Secrets fails its
    /// self-test, no Secret is written.
    #[arg(
        long,
        value_name = "DURATION",
        env = "LOCKSTEP_ADMISSION_CHECK_INTERVAL",
        default_value = "5m"
    )]
    pub(crate) admission_check_interval: Duration,
    /// Audiences of the ServiceAccount tokens used to log in to stores, separated by commas. Can be
    /// repeated. The list must equal that of ValidatingAdmissionPolicy lockstep-token-requests. An
    /// audience whose tokens the API server accepts is disabled: a store could use them against the
    /// API server.
    #[arg(
        long, value_name = "AUDIENCES", env = "LOCKSTEP_TOKEN_AUDIENCES", value_delimiter = ',',
        default_value = "vault,openbao", value_parser = audience
    )]
    pub(crate) token_audiences: Vec<String>,
    /// Start even if the admission policy for Secrets does not work. The operator's ServiceAccount
    /// could then overwrite any Secret.
    #[arg(long, env = "LOCKSTEP_UNSAFE_WITHOUT_ADMISSION_POLICY")]
    pub(crate) unsafe_without_admission_policy: bool,
    /// Let SecretStores use loopback addresses, also over plain http. For tests only: any tenant
    /// could then reach the sidecars of the operator's pod.
    #[arg(long, env = "LOCKSTEP_UNSAFE_ALLOW_LOCAL_STORE_ENDPOINTS")]
    pub(crate) unsafe_allow_local_store_endpoints: bool,
    /// Log format. The log is written to standard error.
    #[arg(long, value_name = "FORMAT", env = "LOCKSTEP_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// Log level, or levels by module such as `info,lockstep_controller=debug`. Third-party modules
    /// never log below info, because some of them would log the data they send and receive.
    #[arg(
        long,
        value_name = "LEVEL",
        env = "LOCKSTEP_LOG_LEVEL",
        default_value = "info"
    )]
    pub(crate) log_level: Directives,
    /// Kubeconfig file to use instead of the in-cluster configuration.
    #[arg(long, value_name = "FILE", env = "LOCKSTEP_KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Kubeconfig context to use. Without --kubeconfig, a context of the default kubeconfig
    /// (KUBECONFIG, ~/.kube/config).
    #[arg(long, value_name = "CONTEXT", env = "LOCKSTEP_CONTEXT")]
    pub(crate) context: Option<String>,
}

/// Render the Secrets of SyncedSecrets without a cluster
///
/// Validates the objects as the API server does at admission and runs them through the operator's
/// own pipeline. Values come from a folder. Reads SyncedSecrets, SecretStores, ClusterSecretStores,
/// Namespaces (their labels) and Secrets (their annotations, which decide whether lockstep may
/// write to them). Other kinds are ignored.
///
/// Masking protects against accidents. It does not protect against hostile manifests: whether a
/// template fails can depend on a value. Render manifests that you do not trust only with made-up
/// values.
///
/// Exit code: 0 if everything would sync, 1 if something would not, 2 for a usage error or
/// unreadable input.
#[derive(Debug, Args)]
#[command(after_long_help = examples::RENDER)]
pub(crate) struct RenderArguments {
    #[command(flatten)]
    pub(crate) manifests: ManifestArguments,
    /// Folder with the remote values. The path of a file is the key in the canonical form of its
    /// provider (for Vault, the path below the mount). The content of the file is the value,
    /// including a trailing line break. A value with properties is a JSON file. Version 3 of KEY is
    /// read from KEY@3, or from KEY if that file does not exist. Metadata (metadataPolicy: Fetch)
    /// is read from KEY@metadata. If --values is not set, runs every check that needs no value and
    /// lists the reads.
    #[arg(long, value_name = "FOLDER", env = "LOCKSTEP_VALUES")]
    pub(crate) values: Option<PathBuf>,
    /// Folder with the plaintext of sealed values, because render does not call a KMS. File
    /// NAMESPACE/NAME/KEY contains the value of that key of the SyncedSecret. If a value is
    /// missing, its key is shown as sealed. If templates could use it, or with --show-values, the
    /// Secret is not shown.
    #[arg(long, value_name = "FOLDER", requires = "values")]
    pub(crate) sealed_values: Option<PathBuf>,
    /// Namespace of objects without metadata.namespace.
    #[arg(short, long, value_name = "NAMESPACE", env = "LOCKSTEP_NAMESPACE", default_value = "default", value_parser = namespace)]
    pub(crate) namespace: String,
    /// Print the values in base64, as in a Kubernetes Secret, instead of their lengths. If not set,
    /// labels, annotations and keys made by templates are masked too.
    #[arg(long, requires = "values")]
    pub(crate) show_values: bool,
    /// Output format.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = RenderFormat::Yaml)]
    pub(crate) output: RenderFormat,
}

// Without a doc comment, which would replace the description of the command.
#[derive(Debug, Args)]
pub(crate) struct ManifestArguments {
    /// File or folder to read, or `-` for standard input. Can be repeated. In a folder, reads the
    /// resources of its kustomization.yaml, or all *.yaml, *.yml and *.json files if it has none.
    /// Links must stay inside the folder, see --root.
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Folder that links and kustomizations must stay inside. If not set, files must be in or below
    /// the folder of their kustomization, and listed folders must be in the same Git repository.
    /// Outside a repository, listed folders must be in the working directory if the named folder
    /// is, otherwise in the named folder.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) root: Option<PathBuf>,
}

/// Output formats of `lockstep render`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RenderFormat {
    /// Secrets as a YAML stream
    Yaml,
    /// One JSON document with a result for each object
    Json,
}

/// Encrypt values in manifests with the KMS key of their store
///
/// Replaces each `plaintext` in spec.data of a SyncedSecret with a `ciphertext` that can be
/// committed. Comments, order and everything else stay unchanged. `plaintextFile` names a file in
/// the manifest's folder, such as a certificate, whose content is sealed.
///
/// Encrypts with your own credentials, because the operator is not allowed to encrypt. For AWS,
/// they come from the environment or your profile; for Google Cloud, from the application default
/// credentials; for Vault, from VAULT_TOKEN or ~/.vault-token. lockstep sends the credentials only
/// to the cloud provider's own hosts, the Vault address (VAULT_ADDR), and endpoints named with
/// --trust-endpoint. Other endpoints in a manifest are rejected.
///
/// The store in the manifest chooses the key. Anyone who can decrypt with that key can read the
/// value, so check that the printed key is the one you expect. --dry-run prints it before anything
/// is sent.
///
/// A file is written only if all its values could be sealed. --check finds unsealed values without
/// a KMS.
///
/// Exit code: 0 if everything is sealed, 1 if something is not, 2 for a usage error or unreadable
/// input.
#[derive(Debug, Args)]
#[command(after_long_help = examples::SEAL)]
pub(crate) struct SealArguments {
    /// File or folder to read, or `-` to read standard input and write to standard output. Can be
    /// repeated. In a folder, reads every *.yaml, *.yml and *.json file below it that is not
    /// hidden.
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// File or folder with the SecretStores and ClusterSecretStores that name the keys, if they are
    /// not in --file. Can be repeated. Plaintext is sent to the KMS that they name.
    #[arg(long = "store", value_name = "FILE", conflicts_with = "check")]
    pub(crate) stores: Vec<PathBuf>,
    /// Folder that links must stay inside. If not set, links must stay inside the folder named with
    /// --file or --store.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) root: Option<PathBuf>,
    /// Namespace of objects without metadata.namespace. A sealed value is bound to its namespace.
    #[arg(short, long, value_name = "NAMESPACE", env = "LOCKSTEP_NAMESPACE", value_parser = namespace)]
    pub(crate) namespace: Option<String>,
    /// Change nothing and fail if there is plaintext: unsealed values, ciphertexts that are invalid
    /// or sealed for another object or key, Secrets, and literals of kustomize's secretGenerator.
    #[arg(long)]
    pub(crate) check: bool,
    /// Print what would be sealed, without changing files or calling a KMS.
    #[arg(long, conflicts_with = "check")]
    pub(crate) dry_run: bool,
    /// Vault token. Prefer the environment variable: other users of the machine can see
    /// command-line arguments.
    #[arg(long, value_name = "TOKEN", env = "VAULT_TOKEN", hide_env_values = true, value_parser = token)]
    pub(crate) vault_token: Option<SecretValue>,
    /// File with the Vault token. Defaults to VAULT_TOKEN, or ~/.vault-token if it is not set.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Vault address to use instead of the server named in stores. Your token is sent only to this
    /// scheme, host and port.
    #[arg(long, value_name = "URL", env = "VAULT_ADDR")]
    pub(crate) vault_address: Option<String>,
    /// Endpoint in stores that may receive your credentials and the plaintext. HOST trusts the
    /// default port (443 for https), HOST:PORT only that port. Can be repeated. If not set, only
    /// the cloud provider's own hosts and the Vault address are trusted.
    #[arg(long = "trust-endpoint", value_name = "HOST[:PORT]")]
    pub(crate) trusted_endpoints: Vec<String>,
    /// PEM file with the CA certificates for the Vault server, instead of those in the store.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Folder that contains .vault-token.
    #[arg(long, value_name = "FOLDER", env = "HOME", hide = true)]
    pub(crate) home: Option<PathBuf>,
    /// Output format.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = SealFormat::Text)]
    pub(crate) output: SealFormat,
}

/// Output formats of `lockstep seal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SealFormat {
    /// One line for each value
    Text,
    /// One JSON document
    Json,
}

/// Estimate API calls per day and their cost
///
/// Needs neither a cluster nor a store. Validates and plans the objects as the operator does,
/// counts the calls of its refresh schedule for each store, and applies the published prices and
/// quotas. Reads SyncedSecrets, SecretStores, ClusterSecretStores and Namespaces (their labels).
/// Other kinds are ignored.
///
/// Exit code: 0 if everything is counted, 1 if something would not sync and is left out, 2 for a
/// usage error or unreadable input.
#[derive(Debug, Args)]
#[command(after_long_help = examples::PLAN)]
pub(crate) struct PlanArguments {
    #[command(flatten)]
    pub(crate) manifests: ManifestArguments,
    /// Namespace of objects without metadata.namespace.
    #[arg(short, long, value_name = "NAMESPACE", env = "LOCKSTEP_NAMESPACE", default_value = "default", value_parser = namespace)]
    pub(crate) namespace: String,
    /// Number of keys that each `find` is assumed to return.
    #[arg(
        long, value_name = "NUMBER", default_value_t = 10,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=10_000)
    )]
    pub(crate) found: usize,
    /// Output format.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = PlanFormat::Text)]
    pub(crate) output: PlanFormat,
}

/// Output formats of `lockstep plan`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanFormat {
    /// A table
    Text,
    /// One JSON document
    Json,
}

/// Show the status of SyncedSecrets and their rollouts
///
/// Reads only SyncedSecrets, with your own permissions, and never sees a value.
///
/// Exit code: 0 if all SyncedSecrets shown are Ready, 1 if one is not or on an error, 2 for a usage
/// error. --watch does not check readiness.
#[derive(Debug, Args)]
#[command(after_long_help = examples::STATUS)]
pub(crate) struct StatusArguments {
    /// Name of the SyncedSecret to describe. If not set, lists all of the namespace.
    #[arg(value_name = "NAME", conflicts_with = "all_namespaces", value_parser = object_name)]
    pub(crate) name: Option<String>,
    /// Namespace of the SyncedSecret. Defaults to the namespace of the kubeconfig context.
    #[arg(short, long, value_name = "NAMESPACE", env = "LOCKSTEP_NAMESPACE", value_parser = namespace)]
    pub(crate) namespace: Option<String>,
    /// List the SyncedSecrets of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
    /// Keep running and show every change until interrupted.
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Output format.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = StatusFormat::Text)]
    pub(crate) output: StatusFormat,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
}

/// Output formats of `lockstep status` and `lockstep history`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatusFormat {
    /// Human-readable text
    Text,
    /// A JSON array; with --watch, one for each change
    Json,
}

/// Show the revision history of a Secret
///
/// Lists the last 10 revisions from the status, newest first, with the reason for each and the
/// outcome of its rollout. Reads only the SyncedSecret, with your own permissions, and never sees a
/// value.
#[derive(Debug, Args)]
#[command(after_long_help = examples::HISTORY)]
pub(crate) struct HistoryArguments {
    /// Name of the SyncedSecret whose history to show.
    #[arg(value_name = "NAME", value_parser = object_name)]
    pub(crate) name: String,
    /// Namespace of the SyncedSecret. Defaults to the namespace of the kubeconfig context.
    #[arg(short, long, value_name = "NAMESPACE", env = "LOCKSTEP_NAMESPACE", value_parser = namespace)]
    pub(crate) namespace: Option<String>,
    /// Output format.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = StatusFormat::Text)]
    pub(crate) output: StatusFormat,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
}

/// Print a shell completion script
#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// Shell to print the script for.
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// Print the version, commit and providers of this build
#[derive(Debug, Args)]
pub(crate) struct VersionArguments {
    /// Output format.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = VersionFormat::Text)]
    pub(crate) output: VersionFormat,
}

/// Output formats of `lockstep version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VersionFormat {
    /// Human-readable text
    Text,
    /// One JSON object
    Json,
}

/// Print a generated page of the documentation
#[derive(Debug, Args)]
pub(crate) struct DocsArguments {
    /// Page to print.
    #[arg(value_enum)]
    pub(crate) page: DocsPage,
}

/// A generated page of the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DocsPage {
    /// docs/reference/cli.md: the command line
    Cli,
}

/// Parses a token, which is never printed.
#[expect(clippy::unnecessary_wraps, reason = "a parser of clap may fail")]
fn token(text: &str) -> Result<SecretValue, String> {
    Ok(SecretValue::from(text))
}

/// Validates the audience of a token.
fn audience(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 256 || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("must have 1 to 256 characters and no white space or control characters".into());
    }
    if text.contains(RESERVED) {
        return Err(format!(
            "must not contain \"{RESERVED}\": the API server would accept tokens with this audience"
        ));
    }
    Ok(text.to_owned())
}

/// Validates a namespace name, a DNS-1123 label.
fn namespace(name: &str) -> Result<String, String> {
    if text::is_label(name) {
        Ok(name.to_owned())
    } else {
        Err(
            "must have 1 to 63 lowercase letters, digits or \"-\", and start and end with a letter or digit"
                .into(),
        )
    }
}

/// Validates an object name, a DNS-1123 subdomain.
fn object_name(name: &str) -> Result<String, String> {
    if text::is_subdomain(name) {
        Ok(name.to_owned())
    } else {
        Err("must have 1 to 253 lowercase letters, digits, \"-\" or \".\", and start and end with a letter or digit".into())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_has_the_documented_defaults() {
        let Command::Run(run) = Cli::try_parse_from(["lockstep", "run"]).unwrap().command else {
            panic!("run is a command");
        };
        assert_eq!(run.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(run.concurrency, 32);
        assert_eq!(run.operator_namespace, "lockstep-system");
        assert_eq!(run.drift_probe_interval.to_string(), "10m");
        assert_eq!(run.issue_timeout.to_string(), "3m");
        assert_eq!(run.deletion_delay.to_string(), "1m");
        assert_eq!(run.admission_check_interval.to_string(), "5m");
        assert_eq!(run.token_audiences, ["vault", "openbao"]);
        assert!(!run.unsafe_allow_local_store_endpoints);
        assert!(run.namespaces.is_empty() && !run.drift_watch && !run.unsafe_without_admission_policy);
    }

    #[test]
    fn namespaces_are_separated_by_commas() {
        let cli = Cli::try_parse_from(["lockstep", "run", "--namespaces", "shop,billing"]).unwrap();
        let Command::Run(run) = cli.command else {
            panic!("run is a command")
        };
        assert_eq!(run.namespaces, ["shop", "billing"]);
    }

    #[test]
    fn repeated_audiences_replace_the_default() {
        let options = [
            "--token-audiences=vault,openbao",
            "--token-audiences=sts.amazonaws.com",
        ];
        let cli = Cli::try_parse_from(["lockstep", "run"].into_iter().chain(options)).unwrap();
        let Command::Run(run) = cli.command else {
            panic!("run is a command")
        };
        assert_eq!(run.token_audiences, ["vault", "openbao", "sts.amazonaws.com"]);
    }

    #[test]
    fn invalid_options_are_rejected() {
        for arguments in [
            ["--listen", "8080"],
            ["--concurrency", "0"],
            ["--namespaces", "Shop"],
            ["--operator-namespace", ""],
            ["--drift-probe-interval", "10"],
            ["--log-level", "lockstep=loud"],
            ["--log-format", "xml"],
            ["--token-audiences", "vault,"],
            ["--token-audiences", "https://kubernetes.default.svc"],
        ] {
            let error = Cli::try_parse_from(["lockstep", "run"].into_iter().chain(arguments)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{arguments:?}");
            assert!(error.to_string().contains(arguments[0]), "{error}");
        }
    }
}
