//! The engine of a store on the server.
//!
//! A store that names no mount path looks up where the mount path of a key ends. Only the server knows: the same path is one value in
//! an engine of version 1 and another in one of version 2, and elsewhere it may issue a credential. The server has no engine below
//! the mount path of another. So an engine that it has named holds every key below its mount path.
//!
//! An administrator can replace an engine. A lookup is therefore used for reads for five minutes, and for ten seconds to report that
//! a key does not exist.
//!
//! A store that names its mount path looks up the engine, too, before it reads or lists. The path of a value can also be one at which
//! another engine issues a credential: with `path: gcp/roleset` and version 2, key `token` is the path `gcp/roleset/data/token`.

use std::time::Duration;

use lockstep_provider::{ErrorKind, Location, Operation, ProviderError};
use rustify::Endpoint;
use tokio::time::Instant;

use crate::{
    answer::Answer,
    confirm::{RECENT, TRUSTED_FOR},
    engine::{self, Readable},
    error::{Purpose, policy_hint},
    lookup::mount_at,
    path::KvLocator,
    provider::Vault,
};

impl Vault {
    /// The mount path of the key/value engine that holds a location. A store that names no mount path asks the server.
    ///
    /// # Errors
    /// `ConfigInvalid` when the location is in no key/value engine of the store's version, and an error of the request when the
    /// server does not say.
    pub(crate) async fn mount_of(
        &self,
        operation: Operation,
        location: &Location,
    ) -> Result<String, ProviderError> {
        if let Some(mount) = &self.locator.mount {
            return Ok(mount.clone());
        }
        let mount = self.find_mount(operation, location, TRUSTED_FOR).await?;
        KvLocator::check_container(location, &mount).map_err(|error| {
            let message = format!("\"{location}\" {error}");
            ProviderError::new(ErrorKind::ConfigInvalid, operation, message)
        })?;
        Ok(mount)
    }

    /// The mount path of the key/value engine that holds a path, as the server returned it at most `max_age` ago.
    async fn find_mount(
        &self,
        operation: Operation,
        path: &str,
        max_age: Duration,
    ) -> Result<String, ProviderError> {
        if let Some(mount) = self.mounts.holding(path, max_age) {
            return Ok(mount);
        }
        let _turn = self.mounts.asking.lock().await;
        if let Some(mount) = self.mounts.holding(path, max_age) {
            return Ok(mount);
        }
        let asked = Instant::now();
        match self.look_up_mount(operation, path).await {
            Ok(mount) => {
                self.mounts.keep(mount.clone(), asked);
                Ok(mount)
            }
            Err(error) => {
                self.mounts.forget(path);
                Err(error)
            }
        }
    }

    async fn look_up_mount(&self, operation: Operation, path: &str) -> Result<String, ProviderError> {
        let hint = "Check that the key begins with the mount path of a key/value engine, and that the policy grants the key";
        let engine = mount_at(&self.server, operation, path, hint).await?;
        engine::check_kv(&engine, self.locator.version, path)
            .map(str::to_owned)
            .map_err(|(what, hint)| {
                let message = format!("\"{path}\" {what}");
                ProviderError::new(ErrorKind::ConfigInvalid, operation, message).with_hint(hint)
            })
    }

    /// Sends a request for a path to the engine that holds it. A store that names its mount path confirms the engine first, because the
    /// same request can issue a credential in another engine. `access.keys` would then grant what only `access.generate` can. A store
    /// without a mount path has looked up the engine to learn the mount path. Returns the answer, and what the engine holds.
    ///
    /// # Errors
    /// As [`Vault::confirm_engine`], and the errors of the request.
    pub(crate) async fn send_to_engine<E: Endpoint>(
        &self,
        purpose: &Purpose,
        path: &str,
        endpoint: &E,
    ) -> Result<(Answer, Readable), ProviderError> {
        let readable = match self.locator.mount {
            Some(_) => self.confirm_named(purpose, path, TRUSTED_FOR).await?,
            None => Readable::Keys,
        };
        let answer = self.server.send(purpose.operation, endpoint).await?;
        Ok((answer, readable))
    }

    /// The error of a failed request to the key/value engine. `NotFound` is reported only if the engine has the version of the
    /// store: in an engine of another version every key is missing, and `deletionPolicy: Delete` would delete the Secret.
    pub(crate) async fn read_error(&self, purpose: &Purpose, path: &str, answer: &Answer) -> ProviderError {
        let error = purpose.failed(answer);
        if error.kind != ErrorKind::NotFound {
            return error;
        }
        match self.confirm_engine(purpose, path).await {
            Ok(()) => error,
            Err(unconfirmed) => unconfirmed,
        }
    }

    /// Checks that the engine that holds a path had the version of the store at most ten seconds ago.
    ///
    /// # Errors
    /// `ConfigInvalid` when there is another engine, and an error of the request when the server does not return it.
    pub(crate) async fn confirm_engine(&self, purpose: &Purpose, path: &str) -> Result<(), ProviderError> {
        if self.locator.mount.is_some() {
            return self.confirm_named(purpose, path, RECENT).await.map(drop);
        }
        let mount = &purpose.mount;
        let found = self.find_mount(purpose.operation, mount, RECENT).await?;
        if found == *mount {
            return Ok(());
        }
        let message = format!("the key/value engine at \"{mount}\" has moved to \"{found}\"");
        Err(
            ProviderError::new(ErrorKind::ConfigInvalid, purpose.operation, message)
                .with_hint("Write the key with the mount path of its engine"),
        )
    }

    /// Checks that the engine at the mount path of the store had the version of the store at most `max_age` ago, and that the request
    /// issues no credential.
    async fn confirm_named(
        &self,
        purpose: &Purpose,
        path: &str,
        max_age: Duration,
    ) -> Result<Readable, ProviderError> {
        let Purpose { operation, mount, .. } = purpose;
        let invalid = |(message, hint): (String, String)| {
            ProviderError::new(ErrorKind::ConfigInvalid, *operation, message).with_hint(hint)
        };
        let check = async {
            let engine = mount_at(&self.server, *operation, mount, CHECK_PATH).await?;
            engine::check_named(&engine, self.locator.version, mount).map_err(invalid)
        };
        let confirmed = self.engine.confirm(max_age, check).await;
        let readable = confirmed.map_err(|error| own_error(error, purpose))?;
        let checked = match operation {
            Operation::Find => readable.check_search(mount),
            _ => readable.check(mount, path),
        };
        checked.map(|()| readable).map_err(invalid)
    }
}

/// What to check when the server denies the lookup of an engine. It does so for a mount path that does not exist, too.
const CHECK_PATH: &str = "Check spec.provider.vault.path and namespace";

/// The error of a lookup that another request may have made. The policy line is that of this request: its path is enough for the
/// lookup, and the path of the other request may belong to another tenant.
fn own_error(error: ProviderError, purpose: &Purpose) -> ProviderError {
    // an error of the login stays one
    if !matches!(error.operation, Operation::Read | Operation::Find) {
        return error;
    }
    let error = ProviderError {
        operation: purpose.operation,
        ..error
    };
    match &purpose.policy {
        Some((path, capability)) if error.kind == ErrorKind::PermissionDenied => {
            error.with_hint(format!("{CHECK_PATH}. {}", policy_hint(path, capability)))
        }
        _ => error,
    }
}
