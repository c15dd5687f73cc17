//! What can be typed. Every option of the operator can also come from an environment variable, `LOCKSTEP_…`.

mod examples;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use lockstep_api::Duration;
use lockstep_controller::audiences::RESERVED;
use lockstep_core::text;
use lockstep_provider::SecretValue;

use crate::logging::{Directives, LogFormat};

/// Keeps Kubernetes Secrets in lockstep with a key management system or secret manager.
///
/// Declare SyncedSecrets in YAML, deploy them by GitOps: lockstep reads the values with read-only credentials, writes
/// the Secrets, and follows every change at the source.
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
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the operator.
    Run(RunArguments),
    /// Show the Secrets that SyncedSecrets make, without a cluster.
    Render(RenderArguments),
    /// Encrypt values in manifests for Git, with the KMS key of their store.
    Seal(SealArguments),
    /// Print the calls a day that SyncedSecrets come to, and what they cost, without a cluster.
    Plan(PlanArguments),
    /// Show where SyncedSecrets of a cluster stand, and what they wait for.
    Status(StatusArguments),
    /// Show which revisions the Secret of a SyncedSecret had, why, and what became of each.
    History(HistoryArguments),
    /// Print the CustomResourceDefinitions as YAML.
    #[command(after_long_help = examples::CRDS)]
    Crds,
    /// Print a completion script for a shell.
    #[command(after_long_help = examples::COMPLETIONS)]
    Completions(CompletionsArguments),
    /// Print the version, the commit, and the providers of this build.
    #[command(after_long_help = examples::VERSION)]
    Version(VersionArguments),
    /// Print generated pages of the documentation.
    #[command(hide = true)]
    Docs(DocsArguments),
}

/// Run the operator.
///
/// It talks to the cluster that it runs in, or to the one that --kubeconfig or --context name, and stops cleanly on
/// SIGTERM or SIGINT. /livez, /readyz (which says what is missing) and /metrics are served at --listen.
#[derive(Debug, Args)]
#[command(after_long_help = examples::RUN)]
pub(crate) struct RunArguments {
    /// Address of /livez, /readyz and /metrics.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "LOCKSTEP_LISTEN",
        default_value = "127.0.0.1:8080"
    )]
    pub(crate) listen: SocketAddr,
    /// Namespaces to serve, separated by commas; all of them when it is not given.
    #[arg(long, value_name = "NAMESPACES", env = "LOCKSTEP_NAMESPACES", value_delimiter = ',', value_parser = namespace)]
    pub(crate) namespaces: Vec<String>,
    /// How many writes may be under way to the API server at the same time. Reads of stores have limits of their own.
    #[arg(
        long, value_name = "NUMBER", env = "LOCKSTEP_CONCURRENCY", default_value_t = 32,
        value_parser = clap::value_parser!(u16).range(1..=4096)
    )]
    pub(crate) concurrency: u16,
    /// Folder that the `file` provider of ClusterSecretStores reads below; without it there is no such provider.
    #[arg(long, value_name = "FOLDER", env = "LOCKSTEP_FILE_ROOT")]
    pub(crate) file_root: Option<PathBuf>,
    /// The operator's own namespace: credentials of ClusterSecretStores and the key of fingerprints are there.
    #[arg(
        long, value_name = "NAMESPACE", env = "LOCKSTEP_OPERATOR_NAMESPACE", default_value = "lockstep-system",
        value_parser = namespace
    )]
    pub(crate) operator_namespace: String,
    /// How often every Secret is probed for edits by others, without reading it; 0s turns the probe off.
    #[arg(
        long,
        value_name = "DURATION",
        env = "LOCKSTEP_DRIFT_PROBE_INTERVAL",
        default_value = "10m"
    )]
    pub(crate) drift_probe_interval: Duration,
    /// Watch the metadata of Secrets that lockstep wrote, to repair an edit within a second. It needs the rights of
    /// deploy/kustomize/components/drift-watch.
    #[arg(long, env = "LOCKSTEP_DRIFT_WATCH")]
    pub(crate) drift_watch: bool,
    /// How often the admission policies are proven again, by dry runs that they must refuse; a second at least. While the
    /// one for Secrets does not hold, no Secret is written.
    #[arg(
        long,
        value_name = "DURATION",
        env = "LOCKSTEP_ADMISSION_CHECK_INTERVAL",
        default_value = "5m"
    )]
    pub(crate) admission_check_interval: Duration,
    /// Audiences of the ServiceAccount tokens that log in to stores, separated by commas; may be given several times. The list
    /// must equal that of ValidatingAdmissionPolicy lockstep-token-requests. An audience whose tokens the API server accepts
    /// is disabled: a store could use them against the API server.
    #[arg(
        long, value_name = "AUDIENCES", env = "LOCKSTEP_TOKEN_AUDIENCES", value_delimiter = ',',
        default_value = "vault,openbao", value_parser = audience
    )]
    pub(crate) token_audiences: Vec<String>,
    /// Start although the admission policy for Secrets does not work: this account could then overwrite any Secret.
    #[arg(long, env = "LOCKSTEP_UNSAFE_WITHOUT_ADMISSION_POLICY")]
    pub(crate) unsafe_without_admission_policy: bool,
    /// Let SecretStores use loopback addresses, over plain http too. For tests only: any tenant could then reach the sidecars of
    /// the operator's pod.
    #[arg(long, env = "LOCKSTEP_UNSAFE_ALLOW_LOCAL_STORE_ENDPOINTS")]
    pub(crate) unsafe_allow_local_store_endpoints: bool,
    /// Form of the log, which is written to standard error.
    #[arg(long, value_name = "FORMAT", env = "LOCKSTEP_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// What is logged: a level, or levels by module, such as `info,lockstep_controller=debug`. Other people's modules
    /// never log below info, because some of them would log what they send and receive.
    #[arg(
        long,
        value_name = "LEVEL",
        env = "LOCKSTEP_LOG_LEVEL",
        default_value = "info"
    )]
    pub(crate) log_level: Directives,
    /// Kubeconfig file to use in place of the in-cluster configuration.
    #[arg(long, value_name = "FILE", env = "LOCKSTEP_KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig file; of the default one (KUBECONFIG, ~/.kube/config) when --kubeconfig is not given.
    #[arg(long, value_name = "CONTEXT", env = "LOCKSTEP_CONTEXT")]
    pub(crate) context: Option<String>,
}

/// Show the Secrets that SyncedSecrets make, without a cluster.
///
/// The objects are checked as the API server would at admission, then go through the operator's own pipeline; values
/// come from a folder. Kinds: SyncedSecret, SecretStore, ClusterSecretStore, Namespace (its labels), and Secret (its
/// annotations: whether lockstep may write to it). Other kinds are ignored.
///
/// Exit code: 0 when everything would sync, 1 when something would not, 2 when the command is wrong.
#[derive(Debug, Args)]
#[command(after_long_help = examples::RENDER)]
pub(crate) struct RenderArguments {
    /// File, folder, or `-` for standard input; may be given several times. In a folder: what its kustomization.yaml
    /// lists, or else its *.yaml, *.yml and *.json files. Links must not lead out of the folder, see --root.
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Folder that the links and kustomizations of a folder may read below. Without it, files must be in the folder of their
    /// kustomization or below, and listed folders must be in the same Git repository. Outside a repository, listed folders must be in
    /// the working directory if the named folder is, or else in the named folder.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) root: Option<PathBuf>,
    /// Folder with the remote values: the path of a file is the key in the canonical form of its provider (in Vault the path below the
    /// mount), its content the value, a final line break included. A value with properties is a JSON file. Version 3 of KEY is in KEY@3, or else in KEY; its metadata
    /// (metadataPolicy: Fetch) in KEY@metadata. Without a
    /// folder, everything is checked that can be before the first read, and the reads are listed.
    #[arg(long, value_name = "FOLDER", env = "LOCKSTEP_VALUES")]
    pub(crate) values: Option<PathBuf>,
    /// Folder with the values of ciphertexts, for which there is no KMS here: the file NAMESPACE/NAME/KEY holds the value of
    /// the key of that SyncedSecret. Without one, a key is shown as sealed; where templates could use it, or with
    /// --show-values, the Secret is not shown.
    #[arg(long, value_name = "FOLDER", requires = "values")]
    pub(crate) sealed_values: Option<PathBuf>,
    /// Namespace of objects that do not say theirs.
    #[arg(short, long, value_name = "NAMESPACE", env = "LOCKSTEP_NAMESPACE", default_value = "default", value_parser = namespace)]
    pub(crate) namespace: String,
    /// Print the values, in base64 as Kubernetes takes them, in place of their lengths. Without it, labels, annotations and keys that
    /// templates make are masked too.
    #[arg(long, requires = "values")]
    pub(crate) show_values: bool,
    /// Form of the output.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = RenderFormat::Yaml)]
    pub(crate) output: RenderFormat,
}

/// Form of what `render` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RenderFormat {
    /// Secrets as a YAML stream.
    Yaml,
    /// One JSON document with a result for each object.
    Json,
}

/// Encrypt values in manifests for Git, with the KMS key of their store.
///
/// Every `plaintext` in spec.data of a SyncedSecret becomes a `ciphertext`, in its place: comments, order and everything
/// else stay as they are. `plaintextFile` names a file in the manifest's folder whose content is sealed, such as a certificate. The KMS is asked
/// with your own right to encrypt, which the operator does not have: AWS by the environment or your profile, Vault by
/// VAULT_TOKEN or ~/.vault-token. They go to the cloud's own hosts, to the address of Vault (VAULT_ADDR) and to endpoints that
/// --trust-endpoint names; other endpoints of a manifest are refused.
///
/// The store in the manifest chooses the key. Whoever can decrypt with that key can read the value, so compare the key that is
/// printed with the key that you expect. --dry-run prints it before anything is sent.
///
/// A file is written when everything in it is sealed, and is left alone otherwise. --check finds what is not sealed, with
/// no KMS.
///
/// Exit code: 0 when everything is sealed, 1 when something is not, 2 when the command is wrong.
#[derive(Debug, Args)]
#[command(after_long_help = examples::SEAL)]
pub(crate) struct SealArguments {
    /// File, folder, or `-` for standard input, which goes to standard output; may be given several times. In a folder:
    /// every *.yaml, *.yml and *.json file below it that is not hidden.
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// File or folder with the SecretStores and ClusterSecretStores whose keys encrypt, where they are not among the files;
    /// may be given several times. Values go to the KMS that they name.
    #[arg(long = "store", value_name = "FILE", conflicts_with = "check")]
    pub(crate) stores: Vec<PathBuf>,
    /// Folder that the links of a folder may lead to. Without it, they must stay inside the folder that --file or --store names.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) root: Option<PathBuf>,
    /// Namespace of objects that do not say theirs. A value is bound to its namespace.
    #[arg(short, long, value_name = "NAMESPACE", env = "LOCKSTEP_NAMESPACE", value_parser = namespace)]
    pub(crate) namespace: Option<String>,
    /// Change nothing, and fail when there is plaintext: values that are not sealed, ciphertexts that are none or that were
    /// sealed for another place, Secrets, and literals of kustomize's secretGenerator.
    #[arg(long)]
    pub(crate) check: bool,
    /// Change nothing, ask no KMS, and say what would be sealed.
    #[arg(long, conflicts_with = "check")]
    pub(crate) dry_run: bool,
    /// Token of Vault. Give it by the environment: other users of the machine can see what is typed.
    #[arg(long, value_name = "TOKEN", env = "VAULT_TOKEN", hide_env_values = true, value_parser = token)]
    pub(crate) vault_token: Option<SecretValue>,
    /// File with the token of Vault. Default: VAULT_TOKEN, or else ~/.vault-token.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Address of Vault, in place of the server that stores name. Your token goes to its scheme, host and port, and nowhere else.
    #[arg(long, value_name = "URL", env = "VAULT_ADDR")]
    pub(crate) vault_address: Option<String>,
    /// Endpoint that stores name and that may get your credentials and the plaintext: HOST for the default port (443 for https),
    /// HOST:PORT for that port only; may be given several times. Without it they go to the cloud's own hosts and to the address of
    /// Vault only.
    #[arg(long = "trust-endpoint", value_name = "HOST[:PORT]")]
    pub(crate) trusted_endpoints: Vec<String>,
    /// File with the certificate authorities of Vault's server, as PEM, in place of those of the store.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Folder that .vault-token is in.
    #[arg(long, value_name = "FOLDER", env = "HOME", hide = true)]
    pub(crate) home: Option<PathBuf>,
    /// Form of what is said.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = SealFormat::Text)]
    pub(crate) output: SealFormat,
}

/// Form of what `seal` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SealFormat {
    /// One line for each value.
    Text,
    /// One JSON document.
    Json,
}

/// Print the calls a day that SyncedSecrets come to, and what they cost, without a cluster.
///
/// Nothing is asked: the objects are checked and planned as by the operator, and the calls of its schedule are counted for
/// each store, with the prices and quotas that the services publish. Kinds: SyncedSecret, SecretStore,
/// ClusterSecretStore and Namespace (its labels). Other kinds are ignored.
///
/// Exit code: 0 when everything is counted, 1 when something would not sync and is left out, 2 when the command is wrong.
#[derive(Debug, Args)]
#[command(after_long_help = examples::PLAN)]
pub(crate) struct PlanArguments {
    /// File, folder, or `-` for standard input; may be given several times. In a folder: what its kustomization.yaml
    /// lists, or else its *.yaml, *.yml and *.json files. Links must not lead out of the folder, see --root.
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Folder that the links and kustomizations of a folder may read below. Without it, files must be in the folder of their
    /// kustomization or below, and listed folders must be in the same Git repository. Outside a repository, listed folders must be in
    /// the working directory if the named folder is, or else in the named folder.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) root: Option<PathBuf>,
    /// Namespace of objects that do not say theirs.
    #[arg(short, long, value_name = "NAMESPACE", env = "LOCKSTEP_NAMESPACE", default_value = "default", value_parser = namespace)]
    pub(crate) namespace: String,
    /// How many keys each `find` is taken to find.
    #[arg(
        long, value_name = "NUMBER", default_value_t = 10,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=10_000)
    )]
    pub(crate) found: usize,
    /// Form of the output.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = PlanFormat::Text)]
    pub(crate) output: PlanFormat,
}

/// Form of what `plan` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanFormat {
    /// A table, for people.
    Text,
    /// One JSON document.
    Json,
}

/// Show where SyncedSecrets of a cluster stand, and what they wait for.
///
/// It reads SyncedSecrets and nothing else, with your own rights, and never sees a value. The exit code is 0 when all that is
/// shown are Ready, 1 when one is not.
#[derive(Debug, Args)]
#[command(after_long_help = examples::STATUS)]
pub(crate) struct StatusArguments {
    /// Name of one SyncedSecret, of which everything is said; without it, a table of all.
    #[arg(value_name = "NAME", conflicts_with = "all_namespaces", value_parser = object_name)]
    pub(crate) name: Option<String>,
    /// Namespace; without it, the one of the kubeconfig's context.
    #[arg(short, long, value_name = "NAMESPACE", env = "LOCKSTEP_NAMESPACE", value_parser = namespace)]
    pub(crate) namespace: Option<String>,
    /// Those of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
    /// Go on, and show every change until you end it.
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Form of the output.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = StatusFormat::Text)]
    pub(crate) output: StatusFormat,
    /// Kubeconfig file; without it, the default one (KUBECONFIG, ~/.kube/config).
    #[arg(long, value_name = "FILE", env = "LOCKSTEP_KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig file.
    #[arg(long, value_name = "CONTEXT", env = "LOCKSTEP_CONTEXT")]
    pub(crate) context: Option<String>,
}

/// Form of what `status` and `history` print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatusFormat {
    /// For people.
    Text,
    /// A JSON list; with --watch, one for each change.
    Json,
}

/// Show which revisions the Secret of a SyncedSecret had, why, and what became of each.
///
/// The newest comes first; the last 10 are remembered, in the status. It reads the SyncedSecret and nothing else, with your own
/// rights, and never sees a value.
#[derive(Debug, Args)]
#[command(after_long_help = examples::HISTORY)]
pub(crate) struct HistoryArguments {
    /// Name of the SyncedSecret.
    #[arg(value_name = "NAME", value_parser = object_name)]
    pub(crate) name: String,
    /// Namespace; without it, the one of the kubeconfig's context.
    #[arg(short, long, value_name = "NAMESPACE", env = "LOCKSTEP_NAMESPACE", value_parser = namespace)]
    pub(crate) namespace: Option<String>,
    /// Form of the output.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = StatusFormat::Text)]
    pub(crate) output: StatusFormat,
    /// Kubeconfig file; without it, the default one (KUBECONFIG, ~/.kube/config).
    #[arg(long, value_name = "FILE", env = "LOCKSTEP_KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig file.
    #[arg(long, value_name = "CONTEXT", env = "LOCKSTEP_CONTEXT")]
    pub(crate) context: Option<String>,
}

/// Print a completion script for a shell.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// Print the version, the commit, and the providers of this build.
#[derive(Debug, Args)]
pub(crate) struct VersionArguments {
    /// Form of the output.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = VersionFormat::Text)]
    pub(crate) output: VersionFormat,
}

/// Form of what `version` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VersionFormat {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// Print generated pages of the documentation.
#[derive(Debug, Args)]
pub(crate) struct DocsArguments {
    /// The page.
    #[arg(value_enum)]
    pub(crate) page: DocsPage,
}

/// A generated page of the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DocsPage {
    /// docs/reference/cli.md: the command line.
    Cli,
}

/// A token, which no message shows.
#[expect(clippy::unnecessary_wraps, reason = "a parser of clap may fail")]
fn token(text: &str) -> Result<SecretValue, String> {
    Ok(SecretValue::from(text))
}

/// An audience of tokens.
fn audience(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 256 || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(
            "an audience has 1 to 256 characters, and neither white space nor control characters".into(),
        );
    }
    if text.contains(RESERVED) {
        return Err(format!(
            "an audience cannot contain \"{RESERVED}\": its tokens would be tokens of the API server"
        ));
    }
    Ok(text.to_owned())
}

/// The name of a namespace: a DNS-1123 label.
fn namespace(name: &str) -> Result<String, String> {
    if text::is_label(name) {
        Ok(name.to_owned())
    } else {
        Err("a namespace has 1 to 63 lower-case letters, digits and \"-\", and neither begins nor ends with \"-\"".into())
    }
}

/// The name of an object: a DNS-1123 subdomain.
fn object_name(name: &str) -> Result<String, String> {
    if text::is_subdomain(name) {
        Ok(name.to_owned())
    } else {
        Err("a name has 1 to 253 lower-case letters, digits, \"-\" and \".\", and begins and ends with a letter or digit".into())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_defaults_of_run_are_those_of_the_documentation() {
        let Command::Run(run) = Cli::try_parse_from(["lockstep", "run"]).unwrap().command else {
            panic!("run is a command");
        };
        assert_eq!(run.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(run.concurrency, 32);
        assert_eq!(run.operator_namespace, "lockstep-system");
        assert_eq!(run.drift_probe_interval.to_string(), "10m");
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
    fn audiences_add_up_in_place_of_the_default() {
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
    fn what_cannot_work_is_refused_before_anything_starts() {
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
