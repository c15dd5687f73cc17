//! Implements the provider: reads values, and builds clients from a store's configuration.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{
    StreamExt as _,
    stream::{self},
};
use jiff::Timestamp;
use lockstep_api::{StoreProvider, VaultProvider, vault::KvVersion};
use lockstep_core::time::{SharedClock, SystemClock};
use lockstep_http::Connect;
use lockstep_provider::{
    CONCURRENT_CALLS, Capability, Ciphertext, Context, Costs, Credentials, Encryptor, ErrorKind, EventSource,
    FindQuery, IssuanceToken, LeaseHandle, LeaseRequest, Leases, Location, Locator, Minted, Operation, Part,
    Provider, ProviderError, ProviderFactory, RemoteMeta, RemoteRef, RemoteSecret, SecretValue, StoreConfig,
    no_key,
};
use serde_json::value::RawValue;
use vaultrs::api::{kv1::requests::GetSecretRequest, kv2::requests::ReadSecretRequest};

use crate::{
    answer::{Answer, VersionMetadata},
    auth::Authenticated,
    client::Client,
    config::{self, Config},
    confirm::Confirmation,
    engine::Readable,
    error::Purpose,
    events::Subscription,
    json,
    known_mounts::Mounts,
    path::{KvLocator, KvPath},
    static_role::StaticRole,
    tls::Tls,
    transit::{Key, TransitEncryptor},
};

/// The field of the key for ciphertexts.
const KMS_FIELD: &str = "spec.provider.vault.transit";

/// Builds `vault` providers.
#[derive(Debug, Clone, Copy, Default)]
pub struct VaultFactory;

#[async_trait]
impl ProviderFactory for VaultFactory {
    fn name(&self) -> &'static str {
        "vault"
    }

    fn locator(&self, provider: &StoreProvider) -> Result<Arc<dyn Locator>, ProviderError> {
        Ok(Arc::new(config::locator(spec(provider)?)?))
    }

    async fn build(
        &self,
        config: &StoreConfig,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Arc<dyn Provider>, ProviderError> {
        let hears = config
            .events
            .as_ref()
            .is_some_and(|events| events.vault.is_some());
        let connect = Connect::from(config);
        let namespace = config.key.namespace.clone();
        let config = configured(config)?;
        let clock: SharedClock = Arc::new(SystemClock);
        let server = Arc::new(server(&config, connect, Arc::clone(&clock), credentials, hears).await?);
        let events = hears
            .then(|| Subscription::new(Arc::clone(&server), config.locator.clone(), namespace))
            .map(Arc::new);
        Ok(Arc::new(Vault {
            events,
            server,
            locator: config.locator,
            mounts: Mounts::default(),
            engine: Confirmation::default(),
            transit: config.transit.map(Key::new),
            clock,
        }))
    }

    async fn encryptor(
        &self,
        config: &StoreConfig,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Arc<dyn Encryptor>, ProviderError> {
        let connect = Connect::from(config);
        let config = configured(config)?;
        let Some(key) = config.transit.clone().map(Key::new) else {
            return Err(no_key(Operation::Configure, KMS_FIELD));
        };
        let server = server(&config, connect, Arc::new(SystemClock), credentials, false).await?;
        Ok(Arc::new(TransitEncryptor { server, key }))
    }

    fn costs(&self, _: &StoreProvider) -> Costs {
        Costs {
            notes: vec![
                "Vault has no price for a call, it has a machine of yours; a search lists folder by folder, and one folder is counted",
            ],
            ..Costs::uncharged("Vault")
        }
    }
}

/// Validates the configuration of a store.
fn configured(config: &StoreConfig) -> Result<Config, ProviderError> {
    Config::new(spec(&config.provider)?)
}

fn spec(provider: &StoreProvider) -> Result<&VaultProvider, ProviderError> {
    provider.vault.as_ref().ok_or_else(|| {
        let message = "spec.provider.vault is not set";
        ProviderError::new(ErrorKind::ConfigInvalid, Operation::Configure, message)
    })
}

/// Builds the client of the configured server, with a token or a way to get one.
async fn server(
    config: &Config,
    connect: Connect,
    clock: SharedClock,
    credentials: Arc<dyn Credentials>,
    hears: bool,
) -> Result<Authenticated, ProviderError> {
    let tls = Tls::load(config, credentials.as_ref()).await?;
    let client = Client::new(config, connect, &tls, clock, hears)?;
    Ok(Authenticated::new(client, config.method.clone(), credentials))
}

/// One key/value engine, or all of them if the store has no mount path, read with one identity.
pub(crate) struct Vault {
    pub(crate) server: Arc<Authenticated>,
    pub(crate) events: Option<Arc<Subscription>>,
    pub(crate) locator: KvLocator,
    /// The known engines of a store without a mount path.
    pub(crate) mounts: Mounts,
    /// What the store may read from the engine at its mount path.
    pub(crate) engine: Confirmation<Readable>,
    pub(crate) transit: Option<Key>,
    pub(crate) clock: SharedClock,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("server", &self.server)
            .field("mount", &self.locator.mount)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Provider for Vault {
    fn capability(&self) -> Capability {
        let versioned = self.locator.version == KvVersion::V2;
        Capability {
            name: "vault",
            versions: versioned,
            find: true,
            find_by_tags: versioned,
            metadata: versioned,
            binary: false,
            batch: 1,
            notifies: false,
            leases: true,
        }
    }

    async fn fetch(&self, _cx: &Context, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        let reads: Vec<_> = refs.iter().map(|reference| self.read_part(reference)).collect();
        stream::iter(reads).buffered(CONCURRENT_CALLS).collect().await
    }

    fn batches(&self, _: &RemoteRef) -> bool {
        false
    }

    async fn find(&self, cx: &Context, query: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError> {
        self.search(cx, query).await
    }

    async fn decrypt(&self, _cx: &Context, ciphertext: &Ciphertext) -> Result<SecretValue, ProviderError> {
        match &self.transit {
            Some(key) => key.decrypt(&self.server, ciphertext).await,
            None => Err(no_key(Operation::Decrypt, KMS_FIELD)),
        }
    }

    async fn check(&self, _cx: &Context) -> Result<(), ProviderError> {
        self.server.check().await
    }

    lockstep_provider::returns_none!(notice, changes);

    fn events(&self) -> Option<Arc<dyn EventSource>> {
        let events = self.events.clone()?;
        Some(events)
    }
}

#[async_trait]
impl Leases for Vault {
    async fn issue_token(
        &self,
        _cx: &Context,
        request: &LeaseRequest,
    ) -> Result<IssuanceToken, ProviderError> {
        self.issue_token(request).await
    }

    async fn mint(
        &self,
        _cx: &Context,
        issuance_token: &IssuanceToken,
        request: &LeaseRequest,
    ) -> Result<Minted, ProviderError> {
        self.issue_credential(issuance_token, request).await
    }

    async fn renew_lease(
        &self,
        _cx: &Context,
        lease: &LeaseHandle,
        wanted: Duration,
    ) -> Result<Duration, ProviderError> {
        self.renew_issued(lease, wanted).await
    }

    async fn revoke(&self, _cx: &Context, lease: &LeaseHandle) -> Result<(), ProviderError> {
        self.revoke_issued(lease).await
    }
}

impl Vault {
    async fn read_part(&self, reference: &RemoteRef) -> Result<RemoteSecret, ProviderError> {
        match reference.part {
            Part::Value => self.read(reference).await,
            Part::Metadata => self.read_metadata(reference).await,
        }
    }

    /// Reads the custom metadata of a key, as a JSON object.
    async fn read_metadata(&self, reference: &RemoteRef) -> Result<RemoteSecret, ProviderError> {
        let key = &reference.key;
        if self.locator.version == KvVersion::V1 {
            let message =
                format!("metadataPolicy of key \"{key}\": a key/value engine of version 1 keeps no metadata");
            return Err(ProviderError::new(
                ErrorKind::Unsupported,
                Operation::Read,
                message,
            ));
        }
        let location = self.path_of(key).await?;
        let missing = format!("key \"{key}\" does not exist");
        let answer = self.metadata(Operation::Read, key, &location, missing).await?;
        let tags = answer.custom_metadata.unwrap_or_default();
        let text = serde_json::to_string(&tags).unwrap_or_default();
        Ok(RemoteSecret {
            value: SecretValue::from(text),
            version: None,
            created: None,
            fresh_for: None,
        })
    }

    /// Returns the path of a key on the server.
    async fn path_of(&self, key: &Location) -> Result<KvPath, ProviderError> {
        let mount = self.mount_of(Operation::Read, key).await?;
        self.locator.path_of(key, &mount).map_err(|error| {
            let message = format!("key \"{}\" {error}", key.escape_debug());
            ProviderError::new(ErrorKind::ConfigInvalid, Operation::Read, message)
        })
    }

    async fn read(&self, reference: &RemoteRef) -> Result<RemoteSecret, ProviderError> {
        let key = &reference.key;
        let location = self.path_of(key).await?;
        let mut purpose = Purpose {
            operation: Operation::Read,
            doing: format!("reading \"{key}\""),
            identity: self.server.identity(),
            missing: format!("key \"{key}\" does not exist"),
            mount: location.mount.clone(),
            policy: Some((location.value_policy(self.locator.version), "read")),
        };
        let version = reference
            .version
            .as_deref()
            .map(|text| self.wanted_version(key, text))
            .transpose()?;
        if let Some(version) = version {
            purpose.missing = format!("key \"{key}\" has no version {version}");
        }
        match self.locator.version {
            KvVersion::V1 => self.read_unversioned(location, &purpose).await,
            KvVersion::V2 => self.read_versioned(key, location, version, &purpose).await,
        }
    }

    /// Parses the version that the user wrote as a version number of the engine.
    fn wanted_version(&self, key: &str, text: &str) -> Result<u64, ProviderError> {
        let unsupported = |message| ProviderError::new(ErrorKind::Unsupported, Operation::Read, message);
        if self.locator.version == KvVersion::V1 {
            let message =
                format!("version of key \"{key}\": a key/value engine of version 1 keeps no versions");
            return Err(unsupported(message).with_hint(
                "Leave version out, or set spec.provider.vault.version to v2 if the engine is one",
            ));
        }
        // Only digits: the parser would accept "+7", and the server reads 0 as the current version.
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse()
            .ok()
            .filter(|version| digits && *version > 0)
            .ok_or_else(|| {
                let shown = text.escape_debug();
                unsupported(format!(
                    "version \"{shown}\" of key \"{key}\" is not a version of Vault: 1, 2, 3 and so on"
                ))
            })
    }

    async fn read_unversioned(
        &self,
        location: KvPath,
        purpose: &Purpose,
    ) -> Result<RemoteSecret, ProviderError> {
        let endpoint = GetSecretRequest {
            mount: location.mount,
            path: location.path.clone(),
        };
        let (answer, readable) = self.send_to_engine(purpose, &location.path, &endpoint).await?;
        if !answer.is_success() {
            return Err(self.read_error(purpose, &location.path, &answer).await);
        }
        let data = answer.envelope().and_then(|envelope| envelope.data());
        // a value in a key/value engine can look like the response of a static role
        let role = match readable {
            Readable::StaticRoles { .. } => data.and_then(|data| StaticRole::of(data.get())),
            Readable::Keys => None,
        };
        if let Some(secret) = role.and_then(|role| role.secret(self.clock.now())) {
            return Ok(secret);
        }
        Ok(RemoteSecret {
            value: value(&answer, purpose, data)?,
            version: None,
            created: None,
            fresh_for: None,
        })
    }

    async fn read_versioned(
        &self,
        key: &str,
        location: KvPath,
        wanted: Option<u64>,
        purpose: &Purpose,
    ) -> Result<RemoteSecret, ProviderError> {
        let endpoint = ReadSecretRequest {
            mount: location.mount,
            path: location.path.clone(),
            version: wanted,
        };
        let (answer, _) = self.send_to_engine(purpose, &location.path, &endpoint).await?;
        let versioned = answer.envelope().and_then(|envelope| envelope.versioned());
        if !answer.is_success() {
            let has_data = answer.envelope().and_then(|envelope| envelope.data()).is_some();
            return Err(match versioned {
                _ if answer.status != 404 || !has_data => {
                    self.read_error(purpose, &location.path, &answer).await
                }
                // only an engine of version 2 returns metadata
                Some(gone) if gone.is_gone() && !answer.complains() => no_longer(key, &gone.metadata),
                _ => purpose.malformed(&answer, "is a 404 that reports no deleted version"),
            });
        }
        let Some(versioned) = versioned else {
            return Err(purpose.malformed(&answer, "is not in the form of a key/value engine of version 2"));
        };
        let metadata = &versioned.metadata;
        // a deleted version is a 404
        if versioned.data.is_none_or(|data| data.get() == "null") {
            return Err(purpose.malformed(&answer, "holds no data"));
        }
        if wanted.is_some_and(|wanted| wanted != metadata.version) {
            return Err(purpose.malformed(&answer, "is another version than the one that was asked for"));
        }
        let value = value(&answer, purpose, versioned.data)?;
        Ok(RemoteSecret {
            value,
            version: Some(metadata.version.to_string()),
            created: metadata.created_time.parse::<Timestamp>().ok(),
            fresh_for: None,
        })
    }
}

/// Returns the error of a version that no longer exists.
fn no_longer(key: &str, metadata: &VersionMetadata) -> ProviderError {
    let version = metadata.version;
    let what = if metadata.destroyed {
        "destroyed"
    } else {
        "deleted"
    };
    let message = format!("version {version} of key \"{key}\" was {what}");
    ProviderError::new(ErrorKind::NotFound, Operation::Read, message)
}

/// Returns the value: the object of its fields.
fn value(answer: &Answer, purpose: &Purpose, data: Option<&RawValue>) -> Result<SecretValue, ProviderError> {
    let text = data.map(RawValue::get).filter(|text| text.starts_with('{'));
    let mut bytes = text
        .and_then(json::compact)
        .ok_or_else(|| purpose.malformed(answer, "does not hold a JSON object of Unicode text"))?;
    // Moved, not copied, so that there is nothing left to wipe.
    Ok(SecretValue::new(std::mem::take(&mut *bytes)))
}
