//! Arguments of `cargo xtask bench`.

use clap::{Args, ValueEnum};

/// Measure the delay from an event to the updated Secret
///
/// Creates SyncedSecrets of a store with events, changes their values one after the other, and
/// measures how long each change takes to reach its Secret.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  cargo xtask bench events
  cargo xtask bench events --objects 1000 --changes 1000 --rate 20 --check")]
pub(super) struct Events {
    /// Number of SyncedSecrets.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) objects: u32,
    /// Number of changes. Each changes the next SyncedSecret in turn.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) changes: u32,
    /// Number of changes per second.
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) rate: u32,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Measure the time until all new SyncedSecrets are Ready
///
/// Each SyncedSecret reads four properties of a remote value. The time until all are Ready is
/// compared with a raw loop that sends the same writes (one apply of the Secret, one patch of the
/// status) under the same account in the same run. Then measures a minute of refreshes without
/// changes.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  cargo xtask bench first-sync --objects 1000
  cargo xtask bench first-sync --objects 10000 --output json > figures.json
  cargo xtask bench first-sync --objects 1000 --check     # fails if a goal is missed
  cargo xtask bench first-sync --store secrets-manager --latency 20
  cargo xtask bench first-sync --store parameter-store --latency 20 --objects-per-key 4
  cargo xtask bench first-sync --store google --latency 20
  cargo xtask bench first-sync --store secrets-manager --throttle --quiet-seconds 0")]
pub(super) struct FirstSync {
    /// Number of SyncedSecrets.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) objects: u32,
    /// Store to read the values from. A stand-in on loopback replaces it.
    #[arg(long, value_name = "STORE", value_enum, default_value_t = Store::Vault)]
    pub(super) store: Store,
    /// Number of SyncedSecrets that use the same remote value.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) objects_per_key: u32,
    /// Response time of the store, in milliseconds.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub(super) latency: u64,
    /// Let the store throttle every second call. Not supported for Vault.
    #[arg(long)]
    pub(super) throttle: bool,
    /// Number of concurrent requests in the raw loop.
    #[arg(long, value_name = "NUMBER", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) workers: u16,
    /// Duration of the measurement of refreshes without changes, in seconds. 0 skips it.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(super) quiet_seconds: u64,
    #[command(flatten)]
    pub(super) common: Common,
}

// The options of every benchmark. A doc comment would replace the description of the command.
#[derive(Debug, Clone, Args)]
pub(super) struct Common {
    /// Measure the debug build, which builds quickly but runs slowly. For work on the benchmark
    /// itself.
    #[arg(long)]
    pub(super) debug: bool,
    /// Fail if a goal is missed.
    #[arg(long)]
    pub(super) check: bool,
    /// What to write to standard output. Progress is written to standard error.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Output::All)]
    pub(super) output: Output,
}

/// Store that contains the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(clippy::enum_variant_names, reason = "the names of the services")]
pub(super) enum Store {
    /// Vault key/value engine, version 2
    Vault,
    /// AWS Secrets Manager
    SecretsManager,
    /// AWS Systems Manager Parameter Store
    ParameterStore,
    /// Google Secret Manager
    Google,
}

impl Store {
    /// Maximum number of values per call.
    pub(super) const fn batch(self) -> u32 {
        match self {
            Self::Vault | Self::Google => 1,
            Self::SecretsManager => 20,
            Self::ParameterStore => 10,
        }
    }

    /// Whether its stand-in can throttle every second call.
    pub(super) const fn throttles(self) -> bool {
        !matches!(self, Self::Vault)
    }

    /// Upper limit for the peak memory of the operator, in MiB.
    pub(super) const fn most_memory(self, objects: u32) -> Option<f64> {
        match (self, objects) {
            (Self::Vault, 0..=1000) => Some(60.0),
            (_, 0..=1000) => Some(70.0),
            (_, 1001..=10_000) => Some(150.0),
            _ => None,
        }
    }

    /// Refresh interval of the SyncedSecrets, in seconds. Long enough that the first syncs finish
    /// before the first refresh, and short enough that each SyncedSecret refreshes within a minute.
    pub(super) const fn refresh_seconds(self, objects: u32) -> u64 {
        match (self, objects) {
            (_, 2001..) => 54,
            (Self::Vault | Self::Google, _) => 20,
            _ => 15,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// The table, then the JSON
    All,
    /// The table
    Table,
    /// The JSON
    Json,
}
