//! Sources of the values: OpenBao, an AWS emulator, a stand-in for Google Cloud, or files.

use std::path::Path;

use anyhow::Result;

use super::{
    aws::Aws,
    cluster::Cluster,
    files::Files,
    gcp::Gcp,
    install::BASE,
    show::Show,
    story::{Story, read},
    vault::Vault,
};

/// A running source.
#[derive(Debug)]
pub(crate) enum Source {
    /// OpenBao, used with the quickstart.
    Vault(Box<Vault>),
    /// moto, used with the example of an AWS login.
    Aws(Aws),
    /// The stand-in for Google Cloud, used with the example of Google Secret Manager.
    Gcp(Gcp),
    /// A folder of files, used with the example of the file store.
    Files(Files),
}

impl Source {
    /// Returns the folder that lockstep is installed from.
    pub(crate) fn installation(&self) -> &'static str {
        match self {
            Self::Aws(_) => "deploy/kustomize/overlays/aws",
            Self::Vault(_) | Self::Gcp(_) | Self::Files(_) => BASE,
        }
    }

    /// Returns the token audiences that the installation allows, if they differ from the default.
    pub(crate) fn audiences(&self) -> &'static [&'static str] {
        match self {
            Self::Aws(_) => &["vault", "openbao", "sts.amazonaws.com"],
            Self::Vault(_) | Self::Gcp(_) | Self::Files(_) => &[],
        }
    }

    pub(crate) fn story(&self) -> &'static Story {
        match self {
            Self::Vault(_) => &super::vault::STORY,
            Self::Aws(_) => &super::aws::STORY,
            Self::Gcp(_) => &super::gcp::STORY,
            Self::Files(_) => &super::files::STORY,
        }
    }

    /// Returns the namespaces that the demo creates in addition to the operator's.
    pub(crate) fn namespaces(&self) -> &'static [&'static str] {
        match self {
            Self::Vault(_) => &["shop", "vault"],
            Self::Aws(_) => &["example-aws-web-identity"],
            Self::Gcp(_) => &["example-gcp-secret-manager"],
            Self::Files(_) => &["example-file-store"],
        }
    }

    /// Returns the operator's `--file-root`.
    pub(crate) fn file_root(&self) -> Option<&Path> {
        match self {
            Self::Vault(_) | Self::Aws(_) | Self::Gcp(_) => None,
            Self::Files(files) => Some(files.root()),
        }
    }

    /// Whether a refresh must be requested, because the source does not report changes.
    pub(crate) fn must_be_asked(&self) -> bool {
        matches!(self, Self::Vault(_) | Self::Aws(_) | Self::Gcp(_))
    }

    /// Writes the first values and sets up access for the store. Manifests that it applies are
    /// added to `applied`.
    ///
    /// # Errors
    /// Fails if the source or the API server rejects a request.
    pub(crate) async fn prepare(
        &self,
        cluster: &Cluster,
        show: &Show,
        applied: &mut Vec<String>,
    ) -> Result<()> {
        match self {
            Self::Vault(vault) => vault.prepare(cluster, show, applied).await,
            Self::Aws(aws) => aws.prepare(show).await,
            Self::Gcp(gcp) => {
                gcp.prepare(show);
                Ok(())
            }
            Self::Files(files) => files.prepare(show),
        }
    }

    /// Returns the manifests of the example as applied here, and the command that applies them.
    ///
    /// # Errors
    /// Fails if they cannot be read.
    pub(crate) fn manifests(&self) -> Result<(String, String)> {
        let example = self.story().example;
        let text = read(&format!("{example}/manifests.yaml"))?;
        Ok(match self {
            Self::Vault(vault) => vault.at_its_address(text),
            Self::Aws(aws) => aws.at_its_address(&text),
            Self::Gcp(gcp) => gcp.at_its_address(&text)?,
            Self::Files(_) => (text, format!("kubectl apply -f {example}/manifests.yaml")),
        })
    }

    /// Writes the second value.
    ///
    /// # Errors
    /// Fails if the source rejects it.
    pub(crate) async fn change(&self, show: &Show) -> Result<()> {
        match self {
            Self::Vault(vault) => vault.change(show).await,
            Self::Aws(aws) => aws.change(show).await,
            Self::Gcp(gcp) => {
                gcp.change(show);
                Ok(())
            }
            Self::Files(files) => files.change(show),
        }
    }

    /// Returns the commands that change a value again.
    ///
    /// # Errors
    /// Fails if a required program is missing.
    pub(crate) fn commands(&self) -> Result<Vec<String>> {
        match self {
            Self::Vault(vault) => vault.commands(),
            Self::Aws(aws) => Ok(aws.commands()),
            Self::Gcp(gcp) => Ok(gcp.commands()),
            Self::Files(files) => Ok(files.commands()),
        }
    }
}
