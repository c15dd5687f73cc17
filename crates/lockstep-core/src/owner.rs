//! A SyncedSecret as the owner of a Secret.

use lockstep_api::SyncedSecret;

/// A SyncedSecret and the Secret that it writes.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The SyncedSecret.
    pub object: &'a SyncedSecret,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The name of the Secret.
    pub target: &'a str,
}
