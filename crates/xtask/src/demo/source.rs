//! Where the demo's values come from: a real Vault-compatible server, an emulator of AWS, a stand-in for Google, or files.

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
    /// OpenBao, with which the quickstart is played.
    Vault(Box<Vault>),
    /// moto, with which the example of a login at AWS is played.
    Aws(Aws),
    /// The stand-in for Google Cloud, with which the example of Google Secret Manager is played.
    Gcp(Gcp),
    /// A folder of files, with which the example of the file store is played.
    Files(Files),
}

impl Source {
    /// The folder that lockstep is installed from.
    pub(crate) fn installation(&self) -> &'static str {
        match self {
            Self::Aws(_) => "deploy/kustomize/overlays/aws",
            Self::Vault(_) | Self::Gcp(_) | Self::Files(_) => BASE,
        }
    }

    /// The audiences of tokens that the installation allows, if they are not the default.
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

    /// Namespaces that the demo makes, beside the operator's.
    pub(crate) fn namespaces(&self) -> &'static [&'static str] {
        match self {
            Self::Vault(_) => &["shop", "vault"],
            Self::Aws(_) => &["example-aws-web-identity"],
            Self::Gcp(_) => &["example-gcp-secret-manager"],
            Self::Files(_) => &["example-file-store"],
        }
    }

    /// The operator's `--file-root`.
    pub(crate) fn file_root(&self) -> Option<&Path> {
        match self {
            Self::Vault(_) | Self::Aws(_) | Self::Gcp(_) => None,
            Self::Files(files) => Some(files.root()),
        }
    }

    /// Whether a change must be asked for, because the source does not tell of changes by itself.
    pub(crate) fn must_be_asked(&self) -> bool {
        matches!(self, Self::Vault(_) | Self::Aws(_) | Self::Gcp(_))
    }

    /// Puts the first values in place, and whatever lets the store be read. What it applies to the cluster is added to
    /// `applied`.
    ///
    /// # Errors
    /// When the source or the API server refuses.
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

    /// The example's manifests, as they are applied here, and what one would type to apply them.
    ///
    /// # Errors
    /// When they cannot be read.
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
    /// When the source refuses.
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

    /// What one types to change a value once more.
    ///
    /// # Errors
    /// When the program to type it with is missing.
    pub(crate) fn commands(&self) -> Result<Vec<String>> {
        match self {
            Self::Vault(vault) => vault.commands(),
            Self::Aws(aws) => Ok(aws.commands()),
            Self::Gcp(gcp) => Ok(gcp.commands()),
            Self::Files(files) => Ok(files.commands()),
        }
    }
}
