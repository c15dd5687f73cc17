//! Decrypts with one KMS key for the operator, and encrypts with it for `lockstep seal`.

use std::{collections::HashMap, fmt, sync::Arc};

use async_trait::async_trait;
use aws_sdk_kms::{Client, types::EncryptionAlgorithmSpec};
use aws_smithy_types::Blob;
use lockstep_provider::{
    Binding, Ciphertext, Encryptor, ErrorKind, Operation, ProviderError, SecretValue, undecryptable,
};

use crate::{
    auth::Caller,
    client::Http,
    config::{Config, KmsKey},
    error::{Failed, Purpose, Why},
    locate::is_arn,
    sdk::{common, send},
};

/// Maximum length of a value that a symmetric key encrypts, in bytes.
const LONGEST: usize = 4096;
/// Maximum length of a ciphertext that it decrypts, in bytes.
const LONGEST_CIPHERTEXT: usize = 6144;

/// Calls KMS with one identity.
#[derive(Debug)]
pub(crate) struct Kms {
    client: Client,
    caller: Arc<Caller>,
    key: KmsKey,
}

impl Kms {
    pub(crate) fn new(config: &Config, key: KmsKey, caller: Arc<Caller>, http: &Http) -> Self {
        let settings = common!(aws_sdk_kms, &config.region, key.endpoint.as_deref(), http);
        Self {
            client: Client::from_conf(settings.build()),
            caller,
            key,
        }
    }

    /// Decrypts a ciphertext.
    ///
    /// # Errors
    /// `Undecryptable`, `KeyUnavailable`, and errors of the service or the transport.
    pub(crate) async fn decrypt(&self, ciphertext: &Ciphertext) -> Result<SecretValue, ProviderError> {
        // The service would only report an invalid request.
        if !(1..=LONGEST_CIPHERTEXT).contains(&ciphertext.bytes.len()) {
            return Err(self.undecryptable());
        }
        let context = context(&ciphertext.binding);
        let answer = self
            .caller
            .call(|key| {
                let request = self
                    .client
                    .decrypt()
                    .key_id(&self.key.id)
                    .encryption_algorithm(EncryptionAlgorithmSpec::SymmetricDefault)
                    .set_encryption_context(Some(context.clone()))
                    .ciphertext_blob(Blob::new(ciphertext.bytes.as_slice()));
                send!(aws_sdk_kms, request, key)
            })
            .await;
        let purpose = self.purpose(Operation::Decrypt, "kms:Decrypt on this key");
        let answer = answer.map_err(|failed| self.kms_error(failed, &purpose))?;
        self.check_key(answer.key_id.as_deref(), &purpose)?;
        let plaintext = answer.plaintext.map(Blob::into_inner);
        plaintext
            .map(SecretValue::new)
            .ok_or_else(|| purpose.malformed("holds no plaintext"))
    }

    /// Checks that the service used the configured key.
    fn check_key(&self, used: Option<&str>, purpose: &Purpose) -> Result<(), ProviderError> {
        if is_key(&self.key.id, used.unwrap_or_default()) {
            return Ok(());
        }
        Err(purpose.malformed("is about another key"))
    }

    fn purpose(&self, operation: Operation, action: &'static str) -> Purpose {
        let activity = match operation {
            Operation::Encrypt => "encrypting",
            _ => "decrypting",
        };
        Purpose {
            operation,
            doing: format!("{activity} with KMS key \"{}\"", self.key.id),
            identity: self.caller.identity(),
            missing: format!("KMS key \"{}\" does not exist", self.key.id),
            action,
        }
    }

    fn kms_error(&self, failed: Failed, purpose: &Purpose) -> ProviderError {
        let unusable = |what: &str, hint: &str| {
            let message = format!("KMS key \"{}\" {what}", self.key.id);
            ProviderError::new(ErrorKind::KeyUnavailable, purpose.operation, message).with_hint(hint)
        };
        match failed.why() {
            Some(Why::WrongCiphertext) => self.undecryptable(),
            Some(Why::KeyUnusable) => unusable(
                "is disabled or pending deletion",
                "Enable the key or cancel its deletion, or seal the values with another key",
            ),
            // The key is gone, not the value: nothing may be deleted because of it.
            Some(Why::NoKey) => unusable(
                "does not exist in this account and region",
                "Check spec.provider.aws.kms.keyId and region",
            ),
            _ => failed.error(purpose),
        }
    }

    fn undecryptable(&self) -> ProviderError {
        undecryptable(&format!("KMS key \"{}\"", self.key.id))
    }
}

/// Whether the key that the service returns, by its ARN, is the configured one. An alias cannot be
/// compared: the service returns the key that the alias points to, and looking that up needs
/// another permission.
fn is_key(configured: &str, used: &str) -> bool {
    let is_alias = configured.starts_with("alias/") || (is_arn(configured) && configured.contains(":alias/"));
    let id = used.rsplit_once(":key/").map(|(_, id)| id);
    is_alias || used == configured || id == Some(configured)
}

/// Returns the encryption context. CloudTrail records it, and policies can test it as
/// `kms:EncryptionContext:…`.
fn context(binding: &Binding) -> HashMap<String, String> {
    let pairs = binding.pairs();
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Encrypts with the identity of the user.
pub(crate) struct KmsEncryptor(pub(crate) Kms);

impl fmt::Debug for KmsEncryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KmsEncryptor({})", self.0.key.id)
    }
}

#[async_trait]
impl Encryptor for KmsEncryptor {
    fn name(&self) -> &'static str {
        "aws"
    }

    fn max_plaintext_len(&self) -> usize {
        LONGEST
    }

    async fn encrypt(&self, value: &SecretValue, binding: &Binding) -> Result<Vec<u8>, ProviderError> {
        let kms = &self.0;
        let context = context(binding);
        let answer = kms
            .caller
            .call(|key| {
                let request = kms
                    .client
                    .encrypt()
                    .key_id(&kms.key.id)
                    .encryption_algorithm(EncryptionAlgorithmSpec::SymmetricDefault)
                    .set_encryption_context(Some(context.clone()))
                    .plaintext(Blob::new(value.expose()));
                send!(aws_sdk_kms, request, key)
            })
            .await;
        let purpose = kms.purpose(Operation::Encrypt, "kms:Encrypt on this key");
        let answer = answer.map_err(|failed| kms.kms_error(failed, &purpose))?;
        kms.check_key(answer.key_id.as_deref(), &purpose)?;
        let bytes = answer.ciphertext_blob.map(Blob::into_inner);
        bytes
            .filter(|bytes| !bytes.is_empty())
            .ok_or_else(|| purpose.malformed("holds no ciphertext"))
    }
}
