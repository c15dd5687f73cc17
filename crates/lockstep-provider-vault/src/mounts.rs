//! Where the mount path of a key ends, in a store that names none. Only the server knows: the same path is one value in an engine of
//! version 1 and another in one of version 2, and elsewhere it may issue a credential.
//!
//! The server has no engine below the mount path of another. So an engine that it has named once holds every key below its mount
//! path, and the server is not asked again.

use lockstep_provider::{ErrorKind, Location, Operation, ProviderError};

use crate::{
    endpoint::MountOf,
    engine::{self, Mount},
    error::Purpose,
    path::KvLocator,
    provider::Vault,
};

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
        let mount = self.ask_for_mount(operation, location).await?;
        self.mounts.keep(mount.clone());
        Ok(mount)
    }

    async fn ask_for_mount(
        &self,
        operation: Operation,
        location: &Location,
    ) -> Result<String, ProviderError> {
        let (container, _) = location.in_container().unwrap_or((location, ""));
        let purpose = Purpose {
            operation,
            doing: format!("asking which engine holds \"{location}\""),
            identity: self.server.identity(),
            missing: format!("the server has no engine that holds \"{location}\""),
            mount: container.to_owned(),
            policy: None,
        };
        let endpoint = MountOf {
            path: location.to_string(),
        };
        let answer = self.server.send(operation, &endpoint).await?;
        if !answer.is_success() {
            let error = purpose.failed(&answer);
            return Err(match error.kind {
                // the server says the same of a mount that it does not have
                ErrorKind::PermissionDenied => error.with_hint(
                    "Check that the key begins with the mount path of a key/value engine, and that the policy grants the key",
                ),
                // it is the engine that is missing: the value must not count as gone
                ErrorKind::NotFound => ProviderError::new(ErrorKind::ConfigInvalid, operation, error.message)
                    .with_hint("Check that the key begins with the mount path of a key/value engine"),
                _ => error,
            });
        }
        let mount = answer.envelope().and_then(|envelope| envelope.parse::<Mount>());
        let mount = mount.ok_or_else(|| purpose.malformed(&answer, "does not name an engine"))?;
        engine::check_kv(&mount, self.locator.version, location)
            .map(str::to_owned)
            .map_err(|(what, hint)| {
                let message = format!("\"{location}\" {what}");
                ProviderError::new(ErrorKind::ConfigInvalid, operation, message).with_hint(hint)
            })
    }
}
