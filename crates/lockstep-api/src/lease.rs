//! Credentials that a store makes for one SyncedSecret, and the leases that they live by.

use std::collections::BTreeMap;

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

/// A credential that the store makes for this SyncedSecret alone, and takes back when it is no longer used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Generate {
    /// A credential of one of Vault's engines: database, aws, pki and every other that leases.
    pub vault: VaultGenerate,
    /// How long a credential that was replaced is kept before it is revoked, where `rotation.rollout` has no targets: nobody tells
    /// then who still uses it. With targets it is revoked when each of them runs on the new one. Default: `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke_after: Option<Duration>,
}

/// How long a replaced credential is kept where nothing else is said.
pub const DEFAULT_REVOKE_AFTER: Duration = Duration::from_secs(300);

impl Generate {
    /// How long a replaced credential is kept, where there are no targets.
    pub fn revoke_after(&self) -> std::time::Duration {
        self.revoke_after.unwrap_or(DEFAULT_REVOKE_AFTER).to_std()
    }
}

/// A request to one of Vault's engines that answers with a credential.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "!self.path.matches('^(sys|auth|identity|cubbyhole)(/|$)')",
        "path is below an engine that issues credentials: sys, auth, identity and cubbyhole are not"
    ),
    validation = (
        "!(has(self.parameters) && self.parameters.size() > 0 && has(self.method) && self.method == 'GET')",
        "parameters are sent with method POST or PUT"
    )
)]
pub struct VaultGenerate {
    /// path is where the engine issues credentials, with its mount path and without `/v1`: `database/creds/shop`. The store's own
    /// `path` does not apply here; the store's `access[].generate` does. The engine must be of a type that issues credentials, which
    /// the server is asked for: `docs/guides/leases.md` lists the types and paths. Whitespace is an error.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^\S+$"))]
    pub path: String,
    /// The method. Default: `GET`, and `POST` where there are parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<GenerateMethod>,
    /// What is sent, such as `common_name` for a certificate of the pki engine.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
}

impl VaultGenerate {
    /// The method that is used.
    pub fn method(&self) -> GenerateMethod {
        self.method.unwrap_or(if self.parameters.is_empty() {
            GenerateMethod::Get
        } else {
            GenerateMethod::Post
        })
    }
}

/// How an engine is asked for a credential.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum GenerateMethod {
    /// `GET`.
    #[default]
    Get,
    /// `POST`.
    Post,
    /// `PUT`.
    Put,
}

/// The leases of a SyncedSecret. Ids and accessors are names, not secrets: knowing one grants nothing that the reader's own policy in
/// Vault does not allow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseStatus {
    /// The lease of the credential that the Secret holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Lease>,
    /// A credential is about to be made: noted before it is, so that it is found and revoked if lockstep ends in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<LeaseIntent>,
    /// The lease of a credential that was made, and may have been written or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minted: Option<Lease>,
    /// Leases of credentials that the Secret no longer holds. They are kept alive, and revoked when nobody uses them any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub old: Vec<Lease>,
}

/// A credential that is about to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseIntent {
    /// The store: `SecretStore/name` or `ClusterSecretStore/name`.
    pub store: String,
    /// The path in the store.
    pub path: String,
    /// Accessor of the token that the credential is made with. Revoking that token revokes the credential.
    pub accessor: String,
    /// When this was noted (RFC 3339).
    pub since: String,
    /// When the token ends by itself (RFC 3339), and with it whatever was made with it.
    pub expires: String,
    /// mac proves that lockstep noted this: a keyed hash of the SyncedSecret, the store, the path and the accessor. Without the right
    /// one the token is neither used nor revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub mac: Option<String>,
}

/// A lease.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// Its id in the store; the accessor, where the engine gives none.
    pub id: String,
    /// Accessor of the token that the credential was made with. Revoking that token revokes the credential.
    pub accessor: String,
    /// The store: `SecretStore/name` or `ClusterSecretStore/name`.
    pub store: String,
    /// The path in the store.
    pub path: String,
    /// mac proves that lockstep noted this lease: a keyed hash of the SyncedSecret, the store, the path, the accessor and the id.
    /// Without the right one the lease is neither renewed nor revoked, and is left to expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub mac: Option<String>,
    /// Short name of what was asked for: it changes when path, method, parameters or store do.
    pub request: String,
    /// When the credential was made (RFC 3339).
    pub issued: String,
    /// When the lease ends unless it is renewed (RFC 3339).
    pub expires: String,
    /// For how many seconds it was given, and is renewed.
    pub seconds: i64,
    /// Whether it can be renewed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub renewable: bool,
    /// When it was last renewed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed: Option<String>,
    /// Why it is not renewed any more, so that it ends for good at `expires`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<LeaseEnd>,
    /// Why the store refused to renew it, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// Since when the Secret holds another credential (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<String>,
    /// Whether its credential was never written: nobody uses it, and it is revoked at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unwritten: bool,
    /// Why the store did not revoke it, so that it is left to expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
}

/// Why a lease is not renewed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LeaseEnd {
    /// The engine gives leases that cannot be renewed.
    NotRenewable,
    /// The store refused to renew it.
    RenewalRefused,
    /// The store renewed it for less than it was given for: its maximum (`max_ttl`) is near.
    MaximumReached,
}
