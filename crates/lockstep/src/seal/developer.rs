//! Credentials for encryption: the developer's own, never those in the `auth` of a store.

use std::{
    fs,
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use lockstep_api::{SecretKeyRef, StoreKind, StoreProvider, vault::VaultAuth};
use lockstep_controller::index::StoreEntry;
use lockstep_provider::file::{ReadBelowError, read_below};
use lockstep_provider::{
    Credentials, EndpointPolicy, ErrorKind, Operation, ProviderError, SecretValue, StoreConfig, StoreKey,
};

use super::trust::Trusted;

/// Placeholder for the developer's token where the Vault configuration names a Secret. No Secret
/// can have this name.
const TOKEN: &str = "(the developer's token)";
/// Maximum size in bytes of a file with a token or certificates.
const MAX_BYTES: u64 = 1 << 20;

/// Credentials and settings of the developer. The AWS and Google clients find theirs themselves:
/// environment, profile, Application Default Credentials.
#[derive(Debug, Clone, Default)]
pub(super) struct Developer {
    /// Vault token.
    pub(super) vault_token: Option<SecretValue>,
    /// Address of Vault, if it differs from the one in the store.
    pub(super) vault_address: Option<String>,
    /// CA certificates for the Vault server, as PEM.
    pub(super) ca: Option<Vec<u8>>,
    /// Hosts that the developer trusts in addition to the cloud providers' own.
    pub(super) trusted: Trusted,
}

impl Developer {
    /// Reads the token, its file, or the file that `vault login` writes, and the CA file.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    pub(super) fn of(
        token: Option<&SecretValue>,
        token_file: Option<&Path>,
        home: Option<&Path>,
        address: Option<&String>,
        ca_file: Option<&Path>,
        trusted: Trusted,
    ) -> Result<Self, String> {
        let written = home.map(|home| home.join(".vault-token"));
        let vault_token = match (token_file, token, written.filter(|path| path.is_file())) {
            (Some(path), _, _) => Some(token_in(path)?),
            (None, Some(token), _) => Some(token.clone()),
            // nobody named this file, so it may be missing or unreadable
            (None, None, Some(path)) => token_in(&path).ok(),
            (None, None, None) => None,
        };
        Ok(Self {
            vault_token: vault_token.filter(|token| !token.is_empty()),
            vault_address: address.filter(|address| !address.is_empty()).cloned(),
            ca: ca_file.map(read).transpose()?,
            trusted,
        })
    }

    /// Returns the configuration of a store with the developer's credentials instead of the
    /// operator's.
    ///
    /// # Errors
    /// Describes what to set in the store or on the command line.
    pub(super) fn config(&self, key: &StoreKey, store: &StoreEntry) -> Result<StoreConfig, String> {
        let mut provider = store.provider.clone();
        if let Some(field) = missing_key(&provider) {
            return Err(format!("{key}: no encryption key. Set {field}"));
        }
        if let Some(aws) = &mut provider.aws {
            // without auth, the client uses its default credentials; the other services are not
            // called
            aws.auth = None;
            aws.endpoint = None;
            aws.sts_endpoint = None;
            aws.role = None;
            aws.external_id = None;
            aws.session_tags = Vec::new();
            aws.store_session_tags = false;
        }
        if let Some(gcp) = &mut provider.gcp {
            gcp.auth = None;
            gcp.endpoint = None;
            gcp.sts_endpoint = None;
            gcp.iam_endpoint = None;
        }
        if let Some(vault) = &mut provider.vault {
            vault.auth = VaultAuth {
                token_secret_ref: Some(SecretKeyRef {
                    name: TOKEN.to_owned(),
                    key: "token".to_owned(),
                }),
                ..VaultAuth::default()
            };
            if let Some(address) = &self.vault_address {
                vault.server.clone_from(address);
                // a manifest must not decide which certificates are trusted for the developer's own
                // server
                vault.ca_bundle = None;
                vault.ca_provider = None;
            }
            if let Some(ca) = &self.ca {
                vault.ca_provider = None;
                vault.ca_bundle = Some(BASE64_STANDARD.encode(ca));
            } else if vault.ca_provider.is_some() {
                return Err(format!(
                    "{key}: spec.provider.vault.caProvider is in the cluster, which is not read. Provide the certificates with --ca-file"
                ));
            }
        }
        let checked = self.trusted.check(&provider, self.vault_address.is_some());
        checked.map_err(|message| format!("{key}: {message}"))?;
        Ok(StoreConfig {
            // only cluster stores may use the ambient identity, which here is the developer's
            key: StoreKey {
                kind: StoreKind::ClusterSecretStore,
                namespace: None,
                name: key.name.clone(),
            },
            provider,
            limits: store.limits,
            events: None,
            endpoints: EndpointPolicy::Unrestricted,
        })
    }
}

/// Returns the field that names the key, if it is not set.
fn missing_key(provider: &StoreProvider) -> Option<&'static str> {
    if let Some(aws) = &provider.aws {
        return aws.kms.is_none().then_some("spec.provider.aws.kms.keyId");
    }
    if let Some(gcp) = &provider.gcp {
        return gcp.kms.is_none().then_some("spec.provider.gcp.kms.key");
    }
    if let Some(vault) = &provider.vault {
        return vault
            .transit
            .is_none()
            .then_some("spec.provider.vault.transit.key");
    }
    Some(
        "spec.provider.aws.kms, spec.provider.gcp.kms or spec.provider.vault.transit in a store of that provider",
    )
}

/// Returns the key of a store, with what decides whose key it is: the region of an AWS key, and the
/// server and namespace of a Vault key.
pub(super) fn key_name(provider: &StoreProvider) -> String {
    let aws = provider.aws.as_ref().and_then(|aws| aws.kms.as_ref());
    let gcp = provider.gcp.as_ref().and_then(|gcp| gcp.kms.as_ref());
    let vault = provider.vault.as_ref().and_then(|vault| vault.transit.as_ref());
    match (aws, gcp, vault) {
        (Some(kms), ..) if kms.key_id.starts_with("arn:") => kms.key_id.clone(),
        (Some(kms), ..) => {
            let region = provider.aws.as_ref().map(|aws| &*aws.region).unwrap_or_default();
            format!("{region} {}", kms.key_id)
        }
        (None, Some(kms), _) => kms.key.clone(),
        (None, None, Some(transit)) => {
            let vault = provider.vault.as_ref();
            let server = vault.map(|vault| &*vault.server).unwrap_or_default();
            let namespace = vault.and_then(|vault| vault.namespace.as_deref());
            let namespace = namespace.map(|namespace| format!("namespace {namespace} "));
            format!(
                "{server} {}{}/{}",
                namespace.unwrap_or_default(),
                transit.path.trim_matches('/'),
                transit.key
            )
        }
        (None, None, None) => String::new(),
    }
}

/// Reads a small file.
///
/// # Errors
/// Names the file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error| format!("{} cannot be read: {error}", path.display());
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("{} is larger than the maximum of 1 MiB", path.display()));
    }
    Ok(bytes)
}

fn token_in(path: &Path) -> Result<SecretValue, String> {
    let bytes = SecretValue::new(read(path)?);
    Ok(SecretValue::new(bytes.expose().trim_ascii()))
}

/// Returns the path of a `plaintextFile`, which is relative to the manifest.
pub(super) fn beside(yaml: Option<&Path>, path: &str) -> PathBuf {
    folder_of(yaml).join(path)
}

/// Reads a `plaintextFile`. It must be in the manifest's folder: the manifest comes from a
/// repository and could otherwise have any file of the developer's machine encrypted with someone
/// else's key. It must not be hidden, because `.env` and `.git/config` hold credentials and are in
/// that folder, too.
///
/// # Errors
/// Names the file.
pub(super) fn read_plaintext_file(yaml: Option<&Path>, path: &str) -> Result<Vec<u8>, String> {
    let shown = beside(yaml, path);
    let shown = shown.display();
    let bytes = read_below(folder_of(yaml), path, MAX_BYTES).map_err(|error| match error {
        ReadBelowError::TooLong(_) => format!("{shown} is larger than the maximum of 1 MiB"),
        ReadBelowError::Outside => {
            format!("{shown} {error}. plaintextFile must be in the manifest's folder")
        }
        error => format!("{shown} {error}"),
    })?;
    if is_hidden(folder_of(yaml), path).map_err(|error| format!("{shown} cannot be read: {error}"))? {
        return Err(format!(
            "{shown} is hidden, or a link on its path leads to a hidden file. Names on the path of \
             plaintextFile must not start with a dot"
        ));
    }
    Ok(bytes)
}

/// Whether a name on a path below the folder starts with a dot, before or after links are resolved.
fn is_hidden(folder: &Path, path: &str) -> io::Result<bool> {
    let starts_with_dot = |path: &Path| {
        path.components().any(|component| match component {
            Component::Normal(name) => name.as_encoded_bytes().starts_with(b"."),
            _ => false,
        })
    };
    let root = folder.canonicalize()?;
    let real = folder.join(path).canonicalize()?;
    // a path that has just moved out of the folder is judged in full
    let below = real.strip_prefix(&root).unwrap_or(&real);
    Ok(starts_with_dot(Path::new(path)) || starts_with_dot(below))
}

fn folder_of(yaml: Option<&Path>) -> &Path {
    let folder = yaml
        .and_then(Path::parent)
        .filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

#[async_trait]
impl Credentials for Developer {
    async fn secret(&self, name: &str, _: &str) -> Result<SecretValue, ProviderError> {
        match &self.vault_token {
            Some(token) if name == TOKEN => Ok(token.clone()),
            _ => {
                Err(nothing("no Vault token")
                    .with_hint("Run vault login, or set VAULT_TOKEN or --token-file"))
            }
        }
    }

    async fn config_map(&self, _: &str, _: &str) -> Result<String, ProviderError> {
        Err(nothing("seal does not read from a cluster"))
    }

    async fn service_account_token(&self, _: &str, _: &str) -> Result<SecretValue, ProviderError> {
        Err(nothing("seal does not read from a cluster"))
    }

    async fn service_account_annotation(&self, _: &str, _: &str) -> Result<Option<String>, ProviderError> {
        Err(nothing("seal does not read from a cluster"))
    }
}

fn nothing(message: &str) -> ProviderError {
    ProviderError::new(ErrorKind::CredentialsUnavailable, Operation::Configure, message)
}
