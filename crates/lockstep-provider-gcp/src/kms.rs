//! Decrypts with one Cloud KMS key for the operator, and encrypts with it for `lockstep seal`.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use google_cloud_kms_v1::client::KeyManagementService;
use lockstep_provider::{
    Binding, Ciphertext, Encryptor, ErrorKind, Operation, ProviderError, SecretValue, undecryptable,
};

use crate::{
    auth::Caller,
    config::KmsKey,
    crc,
    error::{Failed, Purpose, Why},
};

/// Maximum length of a value to encrypt, in bytes. A software key accepts 64 KiB. An HSM key
/// accepts 8 KiB for the value and its binding together (`EncryptRequest.plaintext` in the REST
/// reference); the longest binding is below 1 KiB.
const LONGEST: usize = 7 * 1024;

const DECRYPT: &str =
    "cloudkms.cryptoKeyVersions.useToDecrypt: grant it roles/cloudkms.cryptoKeyDecrypter on the key";
const ENCRYPT: &str =
    "cloudkms.cryptoKeyVersions.useToEncrypt: grant it roles/cloudkms.cryptoKeyEncrypter on the key";

/// Calls Cloud KMS with one identity.
#[derive(Debug)]
pub(crate) struct Kms {
    caller: Arc<Caller>,
    key: KmsKey,
}

impl Kms {
    pub(crate) fn new(key: KmsKey, caller: Arc<Caller>) -> Self {
        Self { caller, key }
    }

    /// Decrypts a ciphertext.
    ///
    /// # Errors
    /// `Undecryptable`, `KeyUnavailable`, and errors of the service or the transport.
    pub(crate) async fn decrypt(&self, ciphertext: &Ciphertext) -> Result<SecretValue, ProviderError> {
        // The service would only report an invalid request.
        if ciphertext.bytes.is_empty() {
            return Err(self.undecryptable());
        }
        let bytes = Bytes::copy_from_slice(&ciphertext.bytes);
        let place = Bytes::from(ciphertext.binding.to_bytes());
        let answer = self
            .caller
            .call(&self.key.endpoint, |transport| {
                KeyManagementService::from_stub::<crate::transport::Transport>(transport)
                    .decrypt()
                    .set_name(&self.key.name)
                    .set_ciphertext(bytes.clone())
                    .set_ciphertext_crc32c(i64::from(crc::crc32c(&bytes)))
                    .set_additional_authenticated_data(place.clone())
                    .set_additional_authenticated_data_crc32c(i64::from(crc::crc32c(&place)))
                    .send()
            })
            .await;
        let purpose = self.purpose(Operation::Decrypt, DECRYPT);
        let answer = answer.map_err(|failed| self.kms_error(failed, &purpose))?;
        // The response omits an empty plaintext, but not its checksum.
        if !crc::matches(&answer.plaintext, answer.plaintext_crc32c) {
            return Err(purpose.malformed("does not have the checksum of its plaintext"));
        }
        Ok(SecretValue::new(answer.plaintext))
    }

    async fn encrypt(&self, value: &SecretValue, binding: &Binding) -> Result<Vec<u8>, ProviderError> {
        let bytes = Bytes::copy_from_slice(value.expose());
        let place = Bytes::from(binding.to_bytes());
        let answer = self
            .caller
            .call(&self.key.endpoint, |transport| {
                KeyManagementService::from_stub::<crate::transport::Transport>(transport)
                    .encrypt()
                    .set_name(&self.key.name)
                    .set_plaintext(bytes.clone())
                    .set_plaintext_crc32c(i64::from(crc::crc32c(&bytes)))
                    .set_additional_authenticated_data(place.clone())
                    .set_additional_authenticated_data_crc32c(i64::from(crc::crc32c(&place)))
                    .send()
            })
            .await;
        let purpose = self.purpose(Operation::Encrypt, ENCRYPT);
        let answer = answer.map_err(|failed| self.kms_error(failed, &purpose))?;
        if !answer.verified_plaintext_crc32c || !answer.verified_additional_authenticated_data_crc32c {
            return Err(purpose.malformed("does not confirm that the request arrived unchanged"));
        }
        if answer.ciphertext.is_empty() || !crc::matches(&answer.ciphertext, answer.ciphertext_crc32c) {
            return Err(purpose.malformed("does not have the checksum of its ciphertext"));
        }
        Ok(answer.ciphertext.to_vec())
    }

    fn purpose(&self, operation: Operation, role: &'static str) -> Purpose {
        let activity = match operation {
            Operation::Encrypt => "encrypting",
            _ => "decrypting",
        };
        Purpose {
            operation,
            doing: format!("{activity} with key \"{}\"", self.key.name),
            identity: self.caller.identity(),
            missing: format!("key \"{}\" does not exist", self.key.name),
            role,
        }
    }

    fn kms_error(&self, failed: Failed, purpose: &Purpose) -> ProviderError {
        let unusable = |what: &str, hint: &str| {
            let message = format!("key \"{}\" {what}", self.key.name);
            purpose.failed(ErrorKind::KeyUnavailable, message).with_hint(hint)
        };
        match failed.why() {
            Some(Why::Invalid) if purpose.operation == Operation::Decrypt => self.undecryptable(),
            Some(Why::Disabled) => unusable(
                "or the key version that encrypted the value is disabled",
                "Enable the key version, or seal the values again",
            ),
            Some(Why::Destroyed) => unusable(
                "or the key version that encrypted the value is destroyed",
                "If destruction is only scheduled, restore the key version. Otherwise, seal the values again",
            ),
            Some(Why::Precondition) => unusable(
                "cannot be used in its current state",
                "Check that the key is symmetric (ENCRYPT_DECRYPT), and that its version is enabled",
            ),
            // The key is gone, not the value: nothing may be deleted because of it.
            Some(Why::Missing) => unusable("does not exist", "Check spec.provider.gcp.kms.key"),
            _ => failed.error(purpose),
        }
    }

    fn undecryptable(&self) -> ProviderError {
        undecryptable(&format!("key \"{}\"", self.key.name))
    }
}

/// Encrypts with the identity of the user.
pub(crate) struct KmsEncryptor(pub(crate) Kms);

impl fmt::Debug for KmsEncryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KmsEncryptor({})", self.0.key.name)
    }
}

#[async_trait]
impl Encryptor for KmsEncryptor {
    fn name(&self) -> &'static str {
        "gcp"
    }

    fn max_plaintext_len(&self) -> usize {
        LONGEST
    }

    async fn encrypt(&self, value: &SecretValue, binding: &Binding) -> Result<Vec<u8>, ProviderError> {
        self.0.encrypt(value, binding).await
    }
}

#[cfg(test)]
mod tests {
    use lockstep_api::CiphertextScope;

    use super::*;

    #[test]
    fn longest_value_and_binding_fit_an_hsm_key() {
        // The longest names that Kubernetes allows: a namespace, an object, a key of a Secret.
        let [namespace, name, key] = [63, 253, 253].map(|length| "x".repeat(length));
        let binding = Binding::new(CiphertextScope::Strict, &namespace, &name, &key);
        assert!(LONGEST + binding.to_bytes().len() <= 8 * 1024);
    }
}
