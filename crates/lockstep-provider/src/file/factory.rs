use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use lockstep_api::{StoreKind, StoreProvider};

use super::{
    path::{FileLocator, store_path},
    provider::FileProvider,
    source_location::SourceLocation,
    watch::{self, Fingerprint},
};
use crate::{
    Costs, Credentials, ErrorKind, Locator, Operation, Provider, ProviderError, ProviderFactory, StoreConfig,
};

/// Makes the clients of ClusterSecretStores with `provider.file`.
#[derive(Debug, Clone)]
pub struct FileFactory {
    root: Option<PathBuf>,
}

impl FileFactory {
    /// Stores below this folder. It need not be there yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: Some(root.into()),
        }
    }

    /// For an operator that was started without `--file-root`: each store is refused, with that reason.
    pub fn without_root() -> Self {
        Self { root: None }
    }
}

#[async_trait]
impl ProviderFactory for FileFactory {
    fn name(&self) -> &'static str {
        "file"
    }

    fn locator(&self, _: &StoreProvider) -> Result<Arc<dyn Locator>, ProviderError> {
        Ok(Arc::new(FileLocator))
    }

    async fn build(
        &self,
        config: &StoreConfig,
        _: Arc<dyn Credentials>,
    ) -> Result<Arc<dyn Provider>, ProviderError> {
        let refused = |message| ProviderError::new(ErrorKind::ConfigInvalid, Operation::Configure, message);
        if config.key.kind != StoreKind::ClusterSecretStore || config.key.namespace.is_some() {
            return Err(refused("provider.file exists only in a ClusterSecretStore"));
        }
        let Some(file) = &config.provider.file else {
            return Err(refused("spec.provider.file is missing"));
        };
        let path = store_path(&file.path)?;
        let Some(root) = self.root.clone() else {
            return Err(refused("the operator was started without --file-root")
                .with_hint("Start it with the folder below which it may read files."));
        };
        let location = Arc::new(SourceLocation { root, path });
        // taken before the first read, so that no change between the two goes unnoticed
        let seen: Option<Fingerprint> = watch::first(Arc::clone(&location)).await;
        Ok(Arc::new(FileProvider::new(location, seen)))
    }

    fn costs(&self, _: &StoreProvider) -> Costs {
        Costs {
            notes: vec!["files are read by the operator itself: its calls go to no service"],
            ..Costs::uncharged("files")
        }
    }
}
