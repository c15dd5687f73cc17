//! Credentials that a store issues for one SyncedSecret, and their leases.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{duration::Duration, store_ref::StoreRef};

/// Generate requests a credential that the store issues for this SyncedSecret
/// alone. lockstep renews it, and revokes it when it is no longer used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Generate {
    /// vault requests the credential from an engine of Vault or OpenBao.
    pub vault: VaultGenerate,
    /// revokeAfter is the time after which a replaced credential is revoked if
    /// `rotation.rollout` has no targets. Defaults to `5m`. With targets, it is
    /// revoked when every target runs the new one; if a target does not exist,
    /// revokeAfter after the end of the rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke_after: Option<Duration>,
}

/// Applies if `revokeAfter` is absent.
pub const DEFAULT_REVOKE_AFTER: Duration = Duration::from_secs(300);

impl Generate {
    /// Returns `revokeAfter` or its default.
    pub fn revoke_after(&self) -> std::time::Duration {
        self.revoke_after.unwrap_or(DEFAULT_REVOKE_AFTER).to_std()
    }
}

/// VaultGenerate is a request for a credential to an engine of Vault or
/// OpenBao.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "!self.path.matches('^(sys|auth|identity|cubbyhole)(/|$)')",
        "path must be in an engine that issues credentials, not in sys, auth, identity or cubbyhole"
    ),
    validation = (
        "!(has(self.parameters) && self.parameters.size() > 0 && has(self.method) && self.method == 'GET')",
        "parameters require method POST or PUT"
    )
)]
pub struct VaultGenerate {
    /// path is the path that issues the credential, with the mount path of the
    /// engine and without `/v1`: `database/creds/shop`. The path of the store is
    /// not prepended. In a ClusterSecretStore, `access[].generate` must grant it.
    /// At most 512 characters. Whitespace is an error.
    ///
    /// Before the request, lockstep asks the server for the type of the engine and
    /// rejects engines that do not issue credentials. `docs/guides/leases.md` lists
    /// the types and paths.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^\S+$"))]
    pub path: String,
    /// method is the HTTP method of the request. Defaults to `GET`, or to `POST` if
    /// parameters is set.
    ///
    /// - `GET`: reads a credential. Not allowed with parameters.
    /// - `POST`: sends parameters.
    /// - `PUT`: sends parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<GenerateMethod>,
    /// parameters is the body of the request, for example `common_name` for a
    /// certificate of the pki engine. If empty, no body is sent. Not allowed with
    /// method `GET`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
}

impl VaultGenerate {
    /// Returns `method` or its default, which depends on the parameters.
    pub fn method(&self) -> GenerateMethod {
        self.method.unwrap_or(if self.parameters.is_empty() {
            GenerateMethod::Get
        } else {
            GenerateMethod::Post
        })
    }
}

/// method is the HTTP method of the request. Defaults to `GET`, or to `POST` if
/// parameters is set.
///
/// - `GET`: reads a credential. Not allowed with parameters.
/// - `POST`: sends parameters.
/// - `PUT`: sends parameters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum GenerateMethod {
    /// Reads a credential; not allowed with parameters.
    #[default]
    Get,
    /// Sends parameters.
    Post,
    /// Sends parameters.
    Put,
}

/// LeaseStatus is the list of leases of a SyncedSecret. IDs and accessors are
/// not secret: they grant nothing that the policy of the reader in Vault does
/// not allow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseStatus {
    /// current is the lease of the credential in the Secret. Absent if the Secret
    /// has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Lease>,
    /// intent is recorded before a credential is requested, so that it is found and
    /// revoked if lockstep stops in between. Absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<LeaseIntent>,
    /// minted is the lease of a new credential that may or may not have been
    /// written to the Secret. Absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minted: Option<Lease>,
    /// old is the list of leases of credentials that the Secret no longer contains.
    /// lockstep renews them until they are no longer used, and then revokes them.
    /// At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub old: Vec<Lease>,
}

/// LeaseIntent records a credential that is about to be requested.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseIntent {
    /// store is the store that issues the credential.
    pub store: StoreRef,
    /// server is the server that issues the credential, with its namespace. No other
    /// server is asked to renew or revoke it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server: String,
    /// path is the path in the store that issues the credential.
    pub path: String,
    /// accessor is the accessor of the token that requests the credential. Revoking
    /// this token revokes the credential.
    pub accessor: String,
    /// recordedTime is the time when the intent was recorded (RFC 3339).
    pub recorded_time: Timestamp,
    /// expirationTime is the time when the token expires (RFC 3339), and with it
    /// the credential.
    pub expiration_time: Timestamp,
    /// mac proves that lockstep recorded the intent. It is a keyed hash of the
    /// SyncedSecret, the store, the server, the path and the accessor. Without a
    /// valid mac, the token is neither used nor revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub mac: Option<String>,
}

/// Lease is the lease of one credential.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// id is the ID of the lease in the store, or the accessor if the engine
    /// returns no ID.
    pub id: String,
    /// accessor is the accessor of the token that requested the credential.
    /// Revoking this token revokes the credential.
    pub accessor: String,
    /// store is the store that issued the credential.
    pub store: StoreRef,
    /// server is the server that issued the credential, with its namespace. No other
    /// server is asked to renew or revoke it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server: String,
    /// path is the path in the store that issued the credential.
    pub path: String,
    /// mac proves that lockstep recorded the lease. It is a keyed hash of the
    /// SyncedSecret, the store, the server, the path, the accessor and the ID.
    /// Without a valid mac, the lease is neither renewed nor revoked, and expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub mac: Option<String>,
    /// request identifies the request. It changes if path, method, parameters or
    /// store change.
    pub request: String,
    /// issuedTime is the time when the credential was issued (RFC 3339).
    pub issued_time: Timestamp,
    /// expirationTime is the time when the lease expires unless it is renewed (RFC
    /// 3339).
    pub expiration_time: Timestamp,
    /// durationSeconds is the duration of the lease, for which it is also renewed.
    pub duration_seconds: i64,
    /// renewable is true if the lease can be renewed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub renewable: bool,
    /// renewedTime is the time of the last renewal (RFC 3339). Absent before the
    /// first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed_time: Option<Timestamp>,
    /// endReason is why the lease is no longer renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<LeaseEnd>,
    /// refusalMessage is why the store refused to renew the lease. Absent unless it
    /// did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal_message: Option<String>,
    /// replacedTime is the time when another credential replaced this one in the
    /// Secret (RFC 3339). Absent until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_time: Option<Timestamp>,
    /// unwritten is true if the credential was never written to the Secret. It is
    /// revoked at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unwritten: bool,
    /// revocationMessage is why the lease could not be revoked and is left to
    /// expire. Absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation_message: Option<String>,
}

/// endReason is why the lease is no longer renewed and expires at
/// expirationTime. Absent while it is renewed.
///
/// - `NotRenewable`: the engine issues leases that cannot be renewed.
/// - `RenewalRefused`: the store refused to renew it.
/// - `MaximumReached`: the store renewed it for less time than requested,
///   because its maximum (`max_ttl`) is near.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LeaseEnd {
    /// The engine issues leases that cannot be renewed.
    NotRenewable,
    /// The store refused to renew it.
    RenewalRefused,
    /// The store renewed it for less time than requested, because its maximum
    /// (`max_ttl`) is near.
    MaximumReached,
}
