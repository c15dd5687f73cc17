//! The transit engine: decrypts with one key for the operator, and encrypts with it for `lockstep
//! seal`.
//!
//! A key/value engine of version 1 would store whatever it gets, including plaintext. Each client
//! therefore looks up the engine at the path before its first request, and sends nothing there
//! unless it is a transit engine.
//!
//! A server that ignores the binding of a ciphertext would decrypt it in every location: it ignores
//! the context of a key that is not derived, and an old version ignores associated data. Before it
//! trusts the key, each client therefore decrypts its first ciphertext with another binding as
//! well, and returns no value unless the server rejects that.
//!
//! Both results are trusted for five minutes, because the engine or the key can be replaced.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use lockstep_provider::{
    Binding, Ciphertext, Encryptor, ErrorKind, Operation, ProviderError, SecretValue, undecryptable,
};
use serde::Deserialize;
use vaultrs::api::transit::requests::{DecryptDataRequest, EncryptDataRequest};
use zeroize::Zeroizing;

use crate::{
    answer::Answer,
    auth::Authenticated,
    config::TransitKey,
    confirm::{Confirmation, TRUSTED_FOR},
    engine,
    error::{Purpose, policy_hint},
    lookup::mount_at,
};

/// Maximum length of a value that is encrypted directly. No Secret holds more.
const LONGEST: usize = 1 << 20;

/// One key of a transit engine.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    /// The mount path of the engine, without leading or trailing slash.
    pub(crate) mount: String,
    /// The name of the key.
    pub(crate) name: String,
    /// Whether the binding is the derivation context of the key, instead of associated data.
    pub(crate) derived: bool,
    /// Confirms that the engine is a transit engine. Clones share it, because they belong to one
    /// client.
    engine: Arc<Confirmation>,
    /// Confirms that the server rejects a ciphertext with another binding. Clones share it.
    binding: Arc<Confirmation>,
}

impl Key {
    pub(crate) fn new(key: TransitKey) -> Self {
        let TransitKey { mount, name, derived } = key;
        Self {
            mount,
            name,
            derived,
            engine: Arc::default(),
            binding: Arc::default(),
        }
    }

    /// Encodes the binding as associated data or as derivation context. One of the two is empty.
    fn encode(&self, binding: &[u8]) -> (Option<String>, Option<String>) {
        let encoded = Some(BASE64_STANDARD.encode(binding));
        if self.derived {
            (None, encoded)
        } else {
            (encoded, None)
        }
    }

    /// Returns the policy path of an operation with this key.
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

    /// Checks that the server has a transit engine at the mount path.
    ///
    /// # Errors
    /// `ConfigInvalid` when there is another engine, and an error of the request when the server
    /// returns no engine.
    async fn check_engine(&self, server: &Authenticated, operation: Operation) -> Result<(), ProviderError> {
        let check = self.look_up_engine(server, operation);
        self.engine.confirm(TRUSTED_FOR, check).await
    }

    async fn look_up_engine(
        &self,
        server: &Authenticated,
        operation: Operation,
    ) -> Result<(), ProviderError> {
        let hint = format!(
            "Check spec.provider.vault.transit.path. {}",
            policy_hint(&self.path(operation), "update")
        );
        let mount = mount_at(server, operation, &self.mount, &hint).await?;
        engine::check_transit(&mount, &self.mount).map_err(|what| {
            let message = format!("\"{}\" {what}, so nothing was sent to it", self.mount);
            ProviderError::new(ErrorKind::ConfigInvalid, operation, message)
                .with_hint("Set spec.provider.vault.transit.path to the mount path of the transit engine")
        })
    }

    /// Decrypts a ciphertext, after confirming the engine and the binding.
    ///
    /// # Errors
    /// `Undecryptable`, `KeyUnavailable`, `ConfigInvalid` when the server ignores the binding, and
    /// the errors of the server and the transport.
    pub(crate) async fn decrypt(
        &self,
        server: &Authenticated,
        ciphertext: &Ciphertext,
    ) -> Result<SecretValue, ProviderError> {
        // The engine's own format. It would reject anything else.
        let text = std::str::from_utf8(&ciphertext.bytes)
            .ok()
            .filter(|text| text.starts_with("vault:v"))
            .ok_or_else(|| self.undecryptable())?;
        self.check_engine(server, Operation::Decrypt).await?;
        let binding = ciphertext.binding.to_bytes();
        let mut value = None;
        let proof = async {
            value = Some(self.prove_binding(server, text, &binding).await?);
            Ok(())
        };
        self.binding.confirm(TRUSTED_FOR, proof).await?;
        match value {
            Some(value) => Ok(value),
            None => self.open(server, text, &binding).await,
        }
    }

    /// Decrypts after proving that the server rejects another binding. The rejection is a proof
    /// only together with the success: the server rejects every binding of a damaged ciphertext.
    ///
    /// # Errors
    /// `ConfigInvalid` when the server ignores the binding, and the errors of [`Key::decrypt`].
    async fn prove_binding(
        &self,
        server: &Authenticated,
        text: &str,
        binding: &[u8],
    ) -> Result<SecretValue, ProviderError> {
        let purpose = self.purpose(Operation::Decrypt, server.identity());
        let answer = self
            .request_plaintext(server, text, &elsewhere(text, binding))
            .await?;
        if answer.is_success() {
            return Err(match plaintext(&answer) {
                Some(_) => self.unbound(),
                None => purpose.malformed(&answer, "holds no plaintext"),
            });
        }
        let error = self.refused(&purpose, &answer);
        if error.kind == ErrorKind::Undecryptable && answer.status != 400 {
            // a failure of the server's own storage has the same text
            return Err(purpose.failed(&answer));
        }
        if !is_other_binding(&answer) {
            return Err(error);
        }
        self.open(server, text, binding).await
    }

    /// Decrypts with the given binding.
    async fn open(
        &self,
        server: &Authenticated,
        text: &str,
        binding: &[u8],
    ) -> Result<SecretValue, ProviderError> {
        let purpose = self.purpose(Operation::Decrypt, server.identity());
        let answer = self.request_plaintext(server, text, binding).await?;
        if !answer.is_success() {
            return Err(self.refused(&purpose, &answer));
        }
        plaintext(&answer).ok_or_else(|| purpose.malformed(&answer, "holds no plaintext"))
    }

    async fn request_plaintext(
        &self,
        server: &Authenticated,
        text: &str,
        binding: &[u8],
    ) -> Result<Answer, ProviderError> {
        let (associated_data, context) = self.encode(binding);
        let endpoint = DecryptDataRequest {
            mount: self.mount.clone(),
            name: self.name.clone(),
            ciphertext: text.to_owned(),
            associated_data,
            context,
            nonce: None,
        };
        server.send(Operation::Decrypt, &endpoint).await
    }

    /// Returns the error of a server that ignores the binding.
    fn unbound(&self) -> ProviderError {
        let (message, hint) = if self.derived {
            (
                format!(
                    "spec.provider.vault.transit.derived is set, but transit key \"{}\" is not derived: it decrypts a value in every place",
                    self.name
                ),
                "Use a key that was created with derived=true, or remove derived. Then seal the values again",
            )
        } else {
            (
                format!(
                    "transit key \"{}\" decrypts a value in every place: the server ignores associated data",
                    self.name
                ),
                "Upgrade the server, or use a key that was created with derived=true and set spec.provider.vault.transit.derived. Then seal the values again",
            )
        };
        ProviderError::new(ErrorKind::ConfigInvalid, Operation::Decrypt, message).with_hint(hint)
    }

    /// Returns the error of an engine that does not decrypt or encrypt.
    fn refused(&self, purpose: &Purpose, answer: &Answer) -> ProviderError {
        let says = |texts: &[&str]| texts.iter().any(|text| answer.has_error_containing(text));
        if matches!(answer.status, 400 | 500) {
            // Vault and OpenBao use the same texts
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
        undecryptable(&format!("transit key \"{}\"", self.name))
    }
}

/// Returns a binding that the ciphertext was not sealed with. It depends on the ciphertext and on a
/// random number, so that no one can seal a value with it.
fn elsewhere(text: &str, binding: &[u8]) -> Vec<u8> {
    let chance = RandomState::new().hash_one(text);
    [binding, format!(" elsewhere {chance:016x}").as_bytes()].concat()
}

/// Returns whether the engine rejects a ciphertext because of its binding.
fn is_other_binding(answer: &Answer) -> bool {
    let texts = ["message authentication failed", "unable to decrypt"];
    answer.status == 400 && texts.iter().any(|text| answer.has_error_containing(text))
}

/// Returns the value in the response to a decryption.
fn plaintext(answer: &Answer) -> Option<SecretValue> {
    let data = answer.envelope()?.parse::<Plaintext>()?;
    let bytes = BASE64_STANDARD.decode(Zeroizing::new(data.plaintext).as_bytes());
    bytes.ok().map(SecretValue::new)
}

#[derive(Deserialize)]
struct Plaintext {
    plaintext: String,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
}

/// Encrypts with the identity of the login.
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

    fn max_plaintext_len(&self) -> usize {
        LONGEST
    }

    async fn encrypt(&self, value: &SecretValue, binding: &Binding) -> Result<Vec<u8>, ProviderError> {
        self.key.check_engine(&self.server, Operation::Encrypt).await?;
        let purpose = self.key.purpose(Operation::Encrypt, self.server.identity());
        let (associated_data, context) = self.key.encode(&binding.to_bytes());
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
