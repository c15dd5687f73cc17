//! The engine of a store on the server.
//!
//! A store that names no mount path looks up where the mount path of a key ends. Only the server knows: the same path is one value in
//! an engine of version 1 and another in one of version 2, and elsewhere it may issue a credential. The server has no engine below
//! the mount path of another. So an engine that it has named holds every key below its mount path.
//!
//! An administrator can replace an engine. A lookup is therefore used for reads for five minutes, and for ten seconds to report that
//! a key does not exist.
//!
//! A store that names its mount path and version 1 looks up the engine before it reads, because the path of a value can also be one at
//! which another engine issues a credential. With version 2 it does so only before it reports that a key does not exist.

use std::time::Duration;

use lockstep_provider::{ErrorKind, Location, Operation, ProviderError};
use tokio::time::Instant;

use crate::{
    answer::Answer,
    confirm::{RECENT, TRUSTED_FOR},
    engine,
    error::Purpose,
    lookup::mount_at,
    path::{KvLocator, KvPath},
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

    /// The error of a failed request to the key/value engine. `NotFound` is reported only if the engine has the version of the
    /// store: in an engine of another version every key is missing, and `deletionPolicy: Delete` would delete the Secret.
    pub(crate) async fn read_error(&self, purpose: &Purpose, path: &str, answer: &Answer) -> ProviderError {
        let error = purpose.failed(answer);
        if error.kind != ErrorKind::NotFound {
            return error;
        }
        match self.confirm_engine(purpose.operation, &purpose.mount, path).await {
            Ok(()) => error,
            Err(unconfirmed) => unconfirmed,
        }
    }

    /// Checks that the engine that holds a path had the version of the store at most ten seconds ago.
    ///
    /// # Errors
    /// `ConfigInvalid` when there is another engine, and an error of the request when the server does not return it.
    pub(crate) async fn confirm_engine(
        &self,
        operation: Operation,
        mount: &str,
        path: &str,
    ) -> Result<(), ProviderError> {
        if self.locator.mount.is_some() {
            return self.confirm_named(operation, mount, path, RECENT).await;
        }
        let found = self.find_mount(operation, mount, RECENT).await?;
        if found == mount {
            return Ok(());
        }
        let message = format!("the key/value engine at \"{mount}\" has moved to \"{found}\"");
        Err(ProviderError::new(ErrorKind::ConfigInvalid, operation, message)
            .with_hint("Write the key with the mount path of its engine"))
    }

    /// Checks that a read of version 1 issues no credential: `access.keys` would grant what only `access.generate` can. The engine is
    /// a key/value engine, or the path that of a static role. A store that names no mount path has checked the engine before.
    ///
    /// # Errors
    /// As [`Vault::confirm_engine`].
    pub(crate) async fn confirm_unversioned(&self, location: &KvPath) -> Result<(), ProviderError> {
        if self.locator.mount.is_none() {
            return Ok(());
        }
        self.confirm_named(Operation::Read, &location.mount, &location.path, TRUSTED_FOR)
            .await
    }

    /// Checks that the engine at the mount path of the store had the version of the store at most `max_age` ago, and that a read of
    /// the path issues no credential.
    async fn confirm_named(
        &self,
        operation: Operation,
        mount: &str,
        path: &str,
        max_age: Duration,
    ) -> Result<(), ProviderError> {
        let invalid = |(message, hint): (String, String)| {
            ProviderError::new(ErrorKind::ConfigInvalid, operation, message).with_hint(hint)
        };
        let check = async {
            let hint = "Without the engine, lockstep cannot tell a missing key from a wrong mount path or version, \
                        or a value from a credential. Check spec.provider.vault.path and namespace, \
                        and that the policy grants a path below the mount";
            let engine = mount_at(&self.server, operation, mount, hint).await?;
            engine::check_named(&engine, self.locator.version, mount).map_err(invalid)
        };
        let confirmed = self.engine.confirm(max_age, check).await;
        // concurrent requests share the error
        let readable = confirmed.map_err(|error| ProviderError { operation, ..error })?;
        readable.check(mount, path).map_err(invalid)
    }
}
