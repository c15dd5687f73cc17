//! The transit engine: decrypts with one key for the operator, encrypts with it for `lockstep seal`.
//!
//! A key/value engine of version 1 would store what it is sent, plaintext included. Each client therefore asks the server once which
//! engine is at the path, and sends nothing there unless it is a transit engine.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use lockstep_core::text::hcl_quote;
use lockstep_provider::{Binding, Ciphertext, Encryptor, ErrorKind, Operation, ProviderError, SecretValue};
use serde::Deserialize;
use tokio::sync::Mutex;
use vaultrs::api::transit::requests::{DecryptDataRequest, EncryptDataRequest};
use zeroize::Zeroizing;

use crate::{
    answer::Answer,
    auth::Authenticated,
    config::TransitKey,
    endpoint::MountOf,
    engine::{self, Mount},
    error::Purpose,
};

/// The longest value that goes out as it is: no Secret holds more.
const LONGEST: usize = 1 << 20;

/// One key of a transit engine.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    /// Mount path of the engine, without slashes at its ends.
    pub(crate) mount: String,
    /// Name of the key.
    pub(crate) name: String,
    /// Whether the binding is the context that the key is derived with, in place of associated data.
    pub(crate) derived: bool,
    /// What the server said of the engine. Clones share it, because they belong to one client.
    engine: Arc<EngineCheck>,
}

/// Whether the server has confirmed the engine, so that it is asked once per client.
#[derive(Debug, Default)]
struct EngineCheck {
    is_confirmed: AtomicBool,
    /// Checks that have ended, well or badly.
    attempts: AtomicU64,
    /// Why the last check failed, for the requests that waited for it.
    failure: Mutex<Option<ProviderError>>,
}

impl Key {
    pub(crate) fn new(key: TransitKey) -> Self {
        let TransitKey { mount, name, derived } = key;
        Self {
            mount,
            name,
            derived,
            engine: Arc::default(),
        }
    }

    /// Where the binding goes: associated data and context.
    fn place(&self, binding: &Binding) -> (Option<String>, Option<String>) {
        let encoded = Some(BASE64_STANDARD.encode(binding.to_bytes()));
        if self.derived {
            (None, encoded)
        } else {
            (encoded, None)
        }
    }

    /// The path of an operation with this key, as a policy names it.
    fn path(&self, operation: Operation) -> String {
        format!("{}/{}/{}", self.mount, operation.label(), self.name)
    }

    fn purpose(&self, operation: Operation, identity: String) -> Purpose {
        let verb = operation.label();
        Purpose {
            operation,
            doing: format!("{verb}ing with transit key \"{}\"", self.name),
            identity,
            missing: format!("transit key \"{}\" does not exist", self.name),
            mount: self.mount.clone(),
            policy: Some((self.path(operation), "update")),
        }
    }

    /// Checks that the server has a transit engine at the mount path. Requests that arrive during a check wait for it and share its
    /// result. A success is remembered, a failure is not.
    ///
    /// # Errors
    /// `ConfigInvalid` when there is another engine, and an error of the request when the server does not say.
    async fn check_engine(&self, server: &Authenticated, operation: Operation) -> Result<(), ProviderError> {
        let check = &self.engine;
        if check.is_confirmed.load(Ordering::Acquire) {
            return Ok(());
        }
        let seen = check.attempts.load(Ordering::Acquire);
        let mut failure = check.failure.lock().await;
        if check.is_confirmed.load(Ordering::Acquire) {
            return Ok(());
        }
        if check.attempts.load(Ordering::Acquire) != seen
            && let Some(error) = &*failure
        {
            return Err(error.clone());
        }
        let result = self.ask_for_engine(server, operation).await;
        match &result {
            Ok(()) => check.is_confirmed.store(true, Ordering::Release),
            Err(error) => *failure = Some(error.clone()),
        }
        check.attempts.fetch_add(1, Ordering::AcqRel);
        result
    }

    /// Asks the server which engine is at the mount path.
    async fn ask_for_engine(
        &self,
        server: &Authenticated,
        operation: Operation,
    ) -> Result<(), ProviderError> {
        let purpose = Purpose {
            doing: format!("asking which engine is at \"{}\"", self.mount),
            missing: format!("the server has no engine at \"{}\"", self.mount),
            ..self.purpose(operation, server.identity())
        };
        let endpoint = MountOf {
            path: self.mount.clone(),
        };
        let answer = server.send(operation, &endpoint).await?;
        if !answer.is_success() {
            let error = purpose.failed(&answer);
            return Err(match error.kind {
                // the server says the same of a mount that it does not have
                ErrorKind::PermissionDenied => error.with_hint(format!(
                    "Check spec.provider.vault.transit.path. The policy needs: path {} {{ capabilities = [\"update\"] }}",
                    hcl_quote(&self.path(operation))
                )),
                // it is the engine that is missing: the value must not count as gone
                ErrorKind::NotFound => ProviderError::new(ErrorKind::ConfigInvalid, operation, error.message)
                    .with_hint("Check spec.provider.vault.transit.path"),
                _ => error,
            });
        }
        let mount = answer.envelope().and_then(|envelope| envelope.parse::<Mount>());
        let mount = mount.ok_or_else(|| purpose.malformed(&answer, "does not name an engine"))?;
        engine::check_transit(&mount, &self.mount).map_err(|what| {
            let message = format!("\"{}\" {what}, so nothing was sent to it", self.mount);
            ProviderError::new(ErrorKind::ConfigInvalid, operation, message)
                .with_hint("Set spec.provider.vault.transit.path to the mount path of the transit engine")
        })
    }

    /// Decrypts.
    ///
    /// # Errors
    /// `Undecryptable`, `KeyUnavailable`, and what the server or the transport fails with.
    pub(crate) async fn decrypt(
        &self,
        server: &Authenticated,
        ciphertext: &Ciphertext,
    ) -> Result<SecretValue, ProviderError> {
        let purpose = self.purpose(Operation::Decrypt, server.identity());
        // The engine's own form: anything else would only be refused.
        let text = std::str::from_utf8(&ciphertext.bytes)
            .ok()
            .filter(|text| text.starts_with("vault:v"))
            .ok_or_else(|| self.undecryptable())?;
        self.check_engine(server, Operation::Decrypt).await?;
        let (associated_data, context) = self.place(&ciphertext.binding);
        let endpoint = DecryptDataRequest {
            mount: self.mount.clone(),
            name: self.name.clone(),
            ciphertext: text.to_owned(),
            associated_data,
            context,
            nonce: None,
        };
        let answer = server.send(Operation::Decrypt, &endpoint).await?;
        if !answer.is_success() {
            return Err(self.refused(&purpose, &answer));
        }
        let plaintext = answer
            .envelope()
            .and_then(|envelope| envelope.parse::<Plaintext>())
            .and_then(|data| {
                BASE64_STANDARD
                    .decode(Zeroizing::new(data.plaintext).as_bytes())
                    .ok()
            });
        plaintext
            .map(SecretValue::new)
            .ok_or_else(|| purpose.malformed(&answer, "holds no plaintext"))
    }

    /// What the engine says when it does not decrypt, or not encrypt.
    fn refused(&self, purpose: &Purpose, answer: &Answer) -> ProviderError {
        let says = |texts: &[&str]| texts.iter().any(|text| answer.complains_of(text));
        if matches!(answer.status, 400 | 500) {
            // of Vault and of OpenBao, whose engines have the same texts
            if says(&["encryption key not found", "soft deleted", "soft-deleted"]) {
                return ProviderError::new(
                    ErrorKind::KeyUnavailable,
                    purpose.operation,
                    format!(
                        "transit key \"{}\" does not exist at \"{}\", or was deleted",
                        self.name, self.mount
                    ),
                )
                .with_hint("Check spec.provider.vault.transit, or restore the key");
            }
            if says(&["too old", "disallowed by policy"]) {
                return ProviderError::new(
                    ErrorKind::KeyUnavailable,
                    purpose.operation,
                    format!(
                        "the version of transit key \"{}\" that encrypted this may no longer decrypt",
                        self.name
                    ),
                )
                .with_hint("Lower the key's min_decryption_version, or seal the value again");
            }
            if says(&["for key derivation"]) {
                return ProviderError::new(
                    ErrorKind::ConfigInvalid,
                    purpose.operation,
                    format!(
                        "transit key \"{}\" and spec.provider.vault.transit.derived do not agree",
                        self.name
                    ),
                )
                .with_hint("Set derived to what the key was made with");
            }
            if purpose.operation == Operation::Decrypt
                && says(&[
                    "message authentication failed",
                    "invalid ciphertext",
                    "unable to decrypt",
                    "illegal base64",
                    "could not decode",
                ])
            {
                return self.undecryptable();
            }
        }
        purpose.failed(answer)
    }

    fn undecryptable(&self) -> ProviderError {
        ProviderError::new(
            ErrorKind::Undecryptable,
            Operation::Decrypt,
            format!(
                "transit key \"{}\" does not decrypt the ciphertext: it was sealed with another key or for another place, or is damaged",
                self.name
            ),
        )
        .with_hint("Seal the value again, with the key of this store")
    }
}

#[derive(Deserialize)]
struct Plaintext {
    plaintext: String,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
}

/// Encrypts as whoever logged in.
pub(crate) struct TransitEncryptor {
    pub(crate) server: Authenticated,
    pub(crate) key: Key,
}

impl fmt::Debug for TransitEncryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransitEncryptor")
            .field("server", &self.server)
            .field("key", &self.key)
            .finish()
    }
}

#[async_trait]
impl Encryptor for TransitEncryptor {
    fn name(&self) -> &'static str {
        "vault"
    }

    fn limit(&self) -> usize {
        LONGEST
    }

    async fn encrypt(&self, value: &SecretValue, binding: &Binding) -> Result<Vec<u8>, ProviderError> {
        self.key.check_engine(&self.server, Operation::Encrypt).await?;
        let purpose = self.key.purpose(Operation::Encrypt, self.server.identity());
        let (associated_data, context) = self.key.place(binding);
        let endpoint = EncryptDataRequest {
            mount: self.key.mount.clone(),
            name: self.key.name.clone(),
            plaintext: BASE64_STANDARD.encode(value.expose()),
            associated_data,
            context,
            key_version: None,
            nonce: None,
            key_type: None,
            convergent_encryption: None,
        };
        let answer = self.server.send(Operation::Encrypt, &endpoint).await?;
        if !answer.is_success() {
            return Err(self.key.refused(&purpose, &answer));
        }
        let encrypted = answer
            .envelope()
            .and_then(|envelope| envelope.parse::<Encrypted>());
        let bytes = encrypted
            .map(|data| data.ciphertext.into_bytes())
            .filter(|bytes| bytes.starts_with(b"vault:v"));
        bytes.ok_or_else(|| purpose.malformed(&answer, "holds no ciphertext"))
    }
}
