use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use lockstep_api::{Limits, StoreKind, StoreProvider, file::FileProvider};
use lockstep_provider::{
    Context, EndpointPolicy, ErrorKind, FileFactory, FindQuery, Location, Operation, Provider, ProviderError,
    ProviderFactory, RemoteRef, RemoteSecret, StoreConfig, StoreKey,
};
use tempfile::TempDir;

use crate::credentials::NoCredentials;

/// Returns the configuration of a ClusterSecretStore "files" at that path.
pub(crate) fn config(path: &str) -> StoreConfig {
    StoreConfig {
        key: StoreKey {
            kind: StoreKind::ClusterSecretStore,
            namespace: None,
            name: "files".into(),
        },
        provider: StoreProvider {
            file: Some(FileProvider { path: path.into() }),
            ..StoreProvider::default()
        },
        limits: Limits::default(),
        events: None,
        endpoints: EndpointPolicy::Unrestricted,
    }
}

/// A folder that contains an operator's `--file-root`, so that tests can place files outside the
/// root.
pub(crate) struct Files {
    folder: TempDir,
}

impl Files {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        Self { folder }
    }

    pub(crate) fn outside(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Returns a path below the root.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    #[cfg(unix)]
    pub(crate) fn link(&self, path: &str, target: impl AsRef<Path>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
    }

    /// Builds a client of the store at that path.
    pub(crate) async fn store(&self, path: &str) -> Store {
        Store(
            build(&FileFactory::new(self.root()), &config(path))
                .await
                .unwrap(),
        )
    }
}

pub(crate) async fn build(
    factory: &FileFactory,
    config: &StoreConfig,
) -> Result<Arc<dyn Provider>, ProviderError> {
    factory.build(config, Arc::new(NoCredentials)).await
}

pub(crate) struct Store(pub(crate) Arc<dyn Provider>);

impl Store {
    pub(crate) async fn get(&self, key: &str) -> Result<RemoteSecret, ProviderError> {
        // an invalid location is rejected by the plan, before a provider sees it
        let location = Location::new(key).map_err(|error| {
            let message = format!("key \"{}\" {error}", key.escape_debug());
            ProviderError::new(ErrorKind::ConfigInvalid, Operation::Read, message)
        })?;
        let refs = [RemoteRef::current(location)];
        self.0.fetch(&Context::default(), &refs).await.remove(0)
    }

    pub(crate) async fn text(&self, key: &str) -> String {
        let secret = self.get(key).await.unwrap();
        secret.value.expose_str().unwrap().to_owned()
    }

    /// Returns the error of a key, which must name the key and contain no value.
    pub(crate) async fn refuse(&self, key: &str, kind: ErrorKind) -> ProviderError {
        let error = self.get(key).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(!format!("{error} {error:?}").contains("CANARY"), "{error}");
        assert!(
            error.message.contains(&*key.escape_debug().to_string()),
            "{error}"
        );
        error
    }

    pub(crate) async fn keys(&self, query: &FindQuery) -> Vec<String> {
        let found = self.0.find(&Context::default(), query).await.unwrap();
        found.into_iter().map(|meta| meta.key.to_string()).collect()
    }

    pub(crate) async fn all_keys(&self) -> Vec<String> {
        self.keys(&FindQuery::default()).await
    }

    pub(crate) async fn check(&self) -> Result<(), ProviderError> {
        self.0.check(&Context::default()).await
    }
}
