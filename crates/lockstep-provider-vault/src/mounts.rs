//! The engine of a store on the server.
//!
//! A store that names no mount path looks up where the mount path of a key ends. Only the server knows: the same path is one value in
//! an engine of version 1 and another in one of version 2, and elsewhere it may issue a credential. The server has no engine below
//! the mount path of another. So an engine that it has named once holds every key below its mount path, and is not looked up again.
//!
//! A store that names its mount path looks up the engine only before it reports that a key does not exist.

use lockstep_provider::{ErrorKind, Location, Operation, ProviderError};

use crate::{answer::Answer, engine, error::Purpose, lookup::mount_at, path::KvLocator, provider::Vault};

impl Vault {
    /// The mount path of the key/value engine that holds a location. A store that names no mount path asks the server once for each.
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
        let mount = match self.mounts.holding(location) {
            Some(mount) => mount,
            None => self.find_mount(operation, location).await?,
        };
        KvLocator::check_container(location, &mount).map_err(|error| {
            let message = format!("\"{location}\" {error}");
            ProviderError::new(ErrorKind::ConfigInvalid, operation, message)
        })?;
        Ok(mount)
    }

    async fn find_mount(&self, operation: Operation, location: &Location) -> Result<String, ProviderError> {
        let _turn = self.mounts.asking.lock().await;
        if let Some(mount) = self.mounts.holding(location) {
            return Ok(mount);
        }
        let hint = "Check that the key begins with the mount path of a key/value engine, and that the policy grants the key";
        let engine = mount_at(&self.server, operation, location, hint).await?;
        let mount = engine::check_kv(&engine, self.locator.version, location)
            .map(str::to_owned)
            .map_err(|(what, hint)| {
                let message = format!("\"{location}\" {what}");
                ProviderError::new(ErrorKind::ConfigInvalid, operation, message).with_hint(hint)
            })?;
        self.mounts.keep(mount.clone());
        Ok(mount)
    }

    /// The error of a failed request to the key/value engine. `NotFound` is reported only if the engine has the version of the
    /// store: in an engine of another version every key is missing, and `deletionPolicy: Delete` would delete the Secret.
    pub(crate) async fn read_error(&self, purpose: &Purpose, answer: &Answer) -> ProviderError {
        let error = purpose.failed(answer);
        if error.kind != ErrorKind::NotFound {
            return error;
        }
        match self.confirm_engine(purpose.operation).await {
            Ok(()) => error,
            Err(unconfirmed) => unconfirmed,
        }
    }

    /// Checks once per client that the engine at the mount path of the store has the version of the store. A store that names no
    /// mount path has checked that before the request.
    ///
    /// # Errors
    /// `ConfigInvalid` when there is another engine, and an error of the request when the server does not return it.
    pub(crate) async fn confirm_engine(&self, operation: Operation) -> Result<(), ProviderError> {
        let Some(mount) = &self.locator.mount else {
            return Ok(());
        };
        let check = async {
            let hint = "Without the engine, lockstep cannot tell a missing key from a wrong mount path or version. \
                        Check spec.provider.vault.path and namespace, and that the policy grants a path below the mount";
            let engine = mount_at(&self.server, operation, mount, hint).await?;
            engine::check_named(&engine, self.locator.version, mount).map_err(|(message, hint)| {
                ProviderError::new(ErrorKind::ConfigInvalid, operation, message).with_hint(hint)
            })
        };
        let confirmed = self.engine.confirm(check).await;
        // concurrent requests share the error
        confirmed.map_err(|error| ProviderError { operation, ..error })
    }
}
