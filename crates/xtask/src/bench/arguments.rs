//! What the benchmarks can be asked.

use clap::{Args, ValueEnum};

/// N SyncedSecrets of a store with events: how long a change takes from its event to its Secret.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  cargo xtask bench events
  cargo xtask bench events --objects 1000 --changes 1000 --rate 20 --check")]
pub(super) struct Events {
    /// How many SyncedSecrets.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) objects: u32,
    /// How many changes, of one SyncedSecret after the other.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) changes: u32,
    /// Changes a second.
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) rate: u32,
    /// Measure the debug build: quick to build, and slow; for work on the benchmark itself.
    #[arg(long)]
    pub(super) debug: bool,
    /// Fail when a goal is missed.
    #[arg(long)]
    pub(super) check: bool,
    /// What goes to standard output. Progress goes to standard error.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Output::All)]
    pub(super) output: Output,
}

/// N SyncedSecrets, each of four properties of a remote value of its own, from nothing to all Ready.
///
/// The time to all Ready is compared with the time that the same writes (one apply of the Secret, one patch of the
/// status) take as a raw loop under the same account in the same run. Then a minute of refreshes without a change.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  cargo xtask bench first-sync --objects 1000
  cargo xtask bench first-sync --objects 10000 --output json > figures.json
  cargo xtask bench first-sync --objects 1000 --check     # fails when a goal is missed
  cargo xtask bench first-sync --store secrets-manager --latency 20
  cargo xtask bench first-sync --store parameter-store --latency 20 --objects-per-key 4
  cargo xtask bench first-sync --store google --latency 20
  cargo xtask bench first-sync --store secrets-manager --throttle --quiet-seconds 0")]
pub(super) struct FirstSync {
    /// How many SyncedSecrets.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) objects: u32,
    /// The store that the values are in: a stand-in of it on loopback.
    #[arg(long, value_name = "STORE", value_enum, default_value_t = Store::Vault)]
    pub(super) store: Store,
    /// How many SyncedSecrets want the same remote value.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) objects_per_key: u32,
    /// How long the store takes to answer, in milliseconds.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub(super) latency: u64,
    /// The store throttles every second call; that of Vault does not.
    #[arg(long)]
    pub(super) throttle: bool,
    /// How many requests the raw loop has under way at the same time.
    #[arg(long, value_name = "NUMBER", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) workers: u16,
    /// How long refreshes without a change are watched, in seconds; 0 leaves them out.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(super) quiet_seconds: u64,
    /// Measure the debug build: quick to build, and slow; for work on the benchmark itself.
    #[arg(long)]
    pub(super) debug: bool,
    /// Fail when a goal is missed.
    #[arg(long)]
    pub(super) check: bool,
    /// What goes to standard output. Progress goes to standard error.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Output::All)]
    pub(super) output: Output,
}

/// Where the values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(clippy::enum_variant_names, reason = "the names of the services")]
pub(super) enum Store {
    /// Vault's key/value engine, version 2.
    Vault,
    /// AWS Secrets Manager.
    SecretsManager,
    /// AWS Systems Manager Parameter Store.
    ParameterStore,
    /// Google Secret Manager.
    Google,
}

impl Store {
    /// How many values one call gives.
    pub(super) const fn batch(self) -> u32 {
        match self {
            Self::Vault | Self::Google => 1,
            Self::SecretsManager => 20,
            Self::ParameterStore => 10,
        }
    }

    /// Whether its stand-in can refuse every second call.
    pub(super) const fn throttles(self) -> bool {
        !matches!(self, Self::Vault)
    }

    /// How much memory the operator may take at its peak, in MiB.
    pub(super) const fn most_memory(self, objects: u32) -> Option<f64> {
        match (self, objects) {
            (Self::Vault, 0..=1000) => Some(60.0),
            (_, 0..=1000) => Some(70.0),
            (_, 1001..=10_000) => Some(150.0),
            _ => None,
        }
    }

    /// How often the SyncedSecrets refresh, in seconds: seldom enough that the first syncs are done before the first
    /// refresh, and often enough that every one refreshes in a minute.
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
    /// The table, and then the JSON.
    All,
    /// The table.
    Table,
    /// The JSON.
    Json,
}
