use std::{collections::BTreeMap, time::Duration};

use lockstep_api::GenerateMethod;

use super::{Location, SecretValue};

/// A request for a credential that a store issues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRequest {
    /// The path at which the store issues the credential.
    pub path: Location,
    /// The HTTP method of the request.
    pub method: GenerateMethod,
    /// The parameters of the request.
    pub parameters: BTreeMap<String, String>,
}

/// The permission to issue one credential.
///
/// It is a token with an accessor that is recorded before the token is used. Revoking the token
/// also revokes the credential that was issued with it, even if the response with the lease id was
/// lost.
#[derive(Debug, Clone)]
pub struct IssuanceToken {
    /// The server that issued the token, with its namespace. Not secret.
    pub server: String,
    /// The accessor of the token, which identifies it. Not secret.
    pub accessor: String,
    /// The token. It is used once and never stored.
    pub token: SecretValue,
    /// The lifetime of the token if the lease is not renewed.
    pub lives: Duration,
}

/// A credential that a store issued.
#[derive(Debug, Clone)]
pub struct Minted {
    /// The lease id; `None` if the engine issues credentials without a lease, such as `pki`.
    pub id: Option<String>,
    /// The fields of the credential, as one JSON object.
    pub value: SecretValue,
    /// The lifetime of the credential if it is not renewed.
    pub lives: Duration,
    /// Whether the lease can be renewed.
    pub renewable: bool,
}

/// Identifies the credential to renew or revoke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseHandle {
    /// The server that issued the credential, with its namespace. A provider rejects the lease of
    /// another server.
    pub server: String,
    /// The accessor of the token that the credential was issued with.
    pub accessor: String,
    /// The lease id, if the credential has one and it is known.
    pub id: Option<String>,
}
