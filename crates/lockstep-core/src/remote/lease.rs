use std::{collections::BTreeMap, time::Duration};

use lockstep_api::GenerateMethod;

use super::{Location, SecretValue};

/// A credential that a store is asked to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRequest {
    /// Where it is made.
    pub path: Location,
    /// The method.
    pub method: GenerateMethod,
    /// What is sent.
    pub parameters: BTreeMap<String, String>,
}

/// The right to make one credential: a token of its own, whose accessor is noted before it is used. Revoking the token revokes
/// whatever was made with it, also where the answer that named it was lost.
#[derive(Debug, Clone)]
pub struct IssuanceToken {
    /// The server that the token is of, with its namespace. It is no secret.
    pub server: String,
    /// The name of the token. It is no secret.
    pub accessor: String,
    /// The token. It is used once, and kept by nobody.
    pub token: SecretValue,
    /// How long the token lives, unless the lease is renewed.
    pub lives: Duration,
}

/// A credential that was made.
#[derive(Debug, Clone)]
pub struct Minted {
    /// The id of its lease; `None` where the engine makes credentials that end by themselves (pki).
    pub id: Option<String>,
    /// Its fields, as one JSON object.
    pub value: SecretValue,
    /// How long it lives, unless it is renewed.
    pub lives: Duration,
    /// Whether it can be renewed.
    pub renewable: bool,
}

/// What a credential is renewed and revoked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseHandle {
    /// The server that made the credential, with its namespace. A provider refuses the lease of another server.
    pub server: String,
    /// Accessor of the token that it was made with.
    pub accessor: String,
    /// The id of its lease, where it is known, and there is one.
    pub id: Option<String>,
}
