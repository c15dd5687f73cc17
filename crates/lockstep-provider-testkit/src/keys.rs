//! One suite for every key that decrypts. The operator decrypts what `lockstep seal` encrypts, in
//! its own location and nowhere else. [`key_behaviour!`](crate::key_behaviour) creates a test for
//! each case, like [`behaviour!`](crate::behaviour) does for values.

use std::sync::Arc;

use async_trait::async_trait;
use lockstep_api::CiphertextScope;
use lockstep_core::ciphertext::{DATA_KEY_BYTES, Envelope, NONCE_BYTES, Sealed};
use lockstep_provider::{
    Binding, Ciphertext, Context, Encryptor, ErrorKind, Operation, Provider, ProviderError, SecretValue,
};

use crate::{CANARY, Quiet, assert::assert_clean};

/// A KMS with two keys, of which the store names only one. Each case gets a new one.
#[async_trait]
pub trait KeySubject: Send + Sync {
    /// Returns a client of the store with the operator's identity, which may decrypt but not
    /// encrypt.
    async fn provider(&self) -> Arc<dyn Provider>;

    /// Returns an encryptor for the store's key with a developer's identity.
    async fn encryptor(&self) -> Arc<dyn Encryptor>;

    /// Returns an encryptor for the other key.
    async fn other_encryptor(&self) -> Arc<dyn Encryptor>;

    /// Returns an encryptor with the operator's identity, which may not encrypt.
    async fn operators_encryptor(&self) -> Arc<dyn Encryptor>;

    /// Enables or disables the key. A backend that cannot disable keys removes and restores it.
    async fn enable(&self, enabled: bool);

    /// Denies the operator's identity the permission to decrypt.
    async fn deny(&self);

    /// Makes the KMS unavailable, or available again.
    async fn unavailable(&self, away: bool);

    /// The log levels to capture, in the syntax of `RUST_LOG`. See
    /// [`Subject::log_directives`](crate::Subject::log_directives).
    fn log_directives(&self) -> &'static str {
        "trace"
    }
}

/// Creates one test for each case. The argument is the same as for
/// [`behaviour!`](crate::behaviour).
#[macro_export]
macro_rules! key_behaviour {
    ($subject:expr) => {
        $crate::key_behaviour! { $subject;
            what_was_encrypted_is_decrypted,
            the_longest_value_is_encrypted_and_no_longer_one,
            another_place_is_refused,
            envelope_is_bound_to_its_data_key,
            what_is_damaged_is_refused,
            what_another_key_encrypted_is_refused,
            a_disabled_key_is_told_and_heals,
            a_denied_key_is_permission_denied,
            the_operators_own_identity_encrypts_nothing,
            a_kms_that_cannot_serve_is_told_and_heals,
        }
    };
    ($subject:expr; $($case:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::keys::run(async { $subject.await }, async |subject| $crate::keys::$case(subject).await).await;
            }
        )*
    };
}

/// Runs one case against a new subject.
///
/// # Panics
/// Panics when the case fails, and when a value was logged.
pub async fn run<S: KeySubject>(subject: impl Future<Output = S>, case: impl AsyncFnOnce(&S)) {
    let subject = subject.await;
    let _quiet = Quiet::listen_to(subject.log_directives());
    case(&subject).await;
}

fn place(key: &str) -> Binding {
    Binding::new(CiphertextScope::Strict, "shop", "database", key)
}

/// Encrypts a value for key "password" of SyncedSecret shop/database.
pub async fn encrypt(encryptor: &Arc<dyn Encryptor>, value: &[u8]) -> Ciphertext {
    let binding = place("password");
    let bytes = encryptor
        .encrypt(&SecretValue::new(value), &binding)
        .await
        .unwrap_or_else(|error| panic!("a value must be encrypted: {error}"));
    Ciphertext { bytes, binding }
}

async fn decrypt(
    provider: &Arc<dyn Provider>,
    ciphertext: &Ciphertext,
) -> Result<SecretValue, ProviderError> {
    let result = provider.decrypt(&Context::default(), ciphertext).await;
    assert!(!format!("{result:?}").contains(CANARY), "a result shows a value");
    if let Err(error) = &result {
        assert_clean(error);
        assert!(
            matches!(error.operation, Operation::Decrypt | Operation::Login),
            "{error:?}"
        );
    }
    result
}

/// Checks that decrypting fails with this kind, and that the error shows no value.
pub async fn refuse(provider: &Arc<dyn Provider>, ciphertext: &Ciphertext, kind: ErrorKind) -> ProviderError {
    let Err(error) = decrypt(provider, ciphertext).await else {
        panic!("decrypting must fail with {}", kind.label())
    };
    assert_eq!(error.kind.label(), kind.label(), "{error}");
    error
}

/// Covers text, bytes and an empty value.
pub async fn what_was_encrypted_is_decrypted(subject: &impl KeySubject) {
    let (provider, encryptor) = (subject.provider().await, subject.encryptor().await);
    assert_eq!(
        provider.capability().name,
        encryptor.name(),
        "a ciphertext names its provider"
    );
    for value in [
        "CANARY".as_bytes(),
        "CANARY ✓ ünï\n".as_bytes(),
        b"\x00\xffCANARY\x80",
        b"C",
    ] {
        let ciphertext = encrypt(&encryptor, value).await;
        let shown = String::from_utf8_lossy(&ciphertext.bytes).into_owned();
        assert!(!shown.contains(CANARY), "a ciphertext shows its value");
        let decrypted = decrypt(&provider, &ciphertext).await;
        let decrypted = decrypted.unwrap_or_else(|error| panic!("a ciphertext must be decrypted: {error}"));
        assert!(
            decrypted.expose() == value,
            "the value must be the one that was encrypted"
        );
    }
}

/// The key of an envelope is always within the limit.
pub async fn the_longest_value_is_encrypted_and_no_longer_one(subject: &impl KeySubject) {
    let (provider, encryptor) = (subject.provider().await, subject.encryptor().await);
    let limit = encryptor.max_plaintext_len();
    assert!(limit >= 64, "{limit}");
    let longest = vec![b'C'; limit];
    let ciphertext = encrypt(&encryptor, &longest).await;
    let decrypted = decrypt(&provider, &ciphertext).await;
    assert!(decrypted.is_ok_and(|value| value.expose() == longest));
}

/// A change of any part of the location is rejected.
pub async fn another_place_is_refused(subject: &impl KeySubject) {
    let (provider, encryptor) = (subject.provider().await, subject.encryptor().await);
    let mut ciphertext = encrypt(&encryptor, b"CANARY").await;
    for elsewhere in [
        place("user"),
        Binding::new(CiphertextScope::Strict, "blog", "database", "password"),
        Binding::new(CiphertextScope::Namespace, "shop", "database", "password"),
    ] {
        ciphertext.binding = elsewhere;
        refuse(&provider, &ciphertext, ErrorKind::Undecryptable).await;
    }
}

/// Runs [`assert_envelope_is_bound`].
pub async fn envelope_is_bound_to_its_data_key(subject: &impl KeySubject) {
    assert_envelope_is_bound(&subject.provider().await, &subject.encryptor().await).await;
}

/// Checks that an envelope is opened, and that the KMS refuses its data key as a value or for
/// another envelope, and a value as a data key. Otherwise someone who can read a Secret could forge
/// values without the right to encrypt.
///
/// # Panics
/// When the KMS decrypts one of them, or does not decrypt the envelope.
pub async fn assert_envelope_is_bound(provider: &Arc<dyn Provider>, encryptor: &Arc<dyn Encryptor>) {
    let (location, kms) = (place("password"), encryptor.name());
    let key = [b'K'; DATA_KEY_BYTES];
    let seal = |value: &str, nonce: u8| {
        Envelope::seal(&value.into(), &key, [nonce; NONCE_BYTES], &location)
            .unwrap_or_else(|| panic!("a value must be encrypted"))
    };
    let to_decrypt = |sealed: &Sealed| {
        sealed
            .ciphertext(location.clone())
            .unwrap_or_else(|error| panic!("the location is the same: the ciphertext {error}"))
    };
    let (envelope, forged) = (seal("CANARY", 1), seal("forged", 2));
    let wrapped = encryptor
        .encrypt(&SecretValue::new(key), &envelope.binding(location.clone()))
        .await
        .unwrap_or_else(|error| panic!("a data key must be encrypted: {error}"));
    let sealed = Sealed::envelope(kms, &location, wrapped.clone(), envelope);
    let opened = decrypt(provider, &to_decrypt(&sealed)).await;
    let opened = opened.map(|key| sealed.open(&key, &location));
    assert!(
        matches!(&opened, Ok(Ok(value)) if value.expose() == b"CANARY"),
        "an envelope must be opened"
    );
    let value = encrypt(encryptor, &key).await.bytes;
    for attack in [
        Sealed::direct(kms, &location, wrapped.clone()),
        Sealed::envelope(kms, &location, wrapped, forged.clone()),
        Sealed::envelope(kms, &location, value, forged),
    ] {
        refuse(provider, &to_decrypt(&attack), ErrorKind::Undecryptable).await;
    }
}

/// Cut, changed, or nothing of the kind.
pub async fn what_is_damaged_is_refused(subject: &impl KeySubject) {
    let (provider, encryptor) = (subject.provider().await, subject.encryptor().await);
    let good = encrypt(&encryptor, b"CANARY").await;
    let mut changed = good.bytes.clone();
    if let Some(byte) = changed.iter_mut().rev().nth(4) {
        *byte = if *byte == b'A' { b'B' } else { b'A' };
    }
    let cut = good.bytes[..good.bytes.len() - 5].to_vec();
    for bytes in [cut, changed, b"CANARY".to_vec(), vec![0xff; 40]] {
        let bad = Ciphertext {
            bytes,
            binding: good.binding.clone(),
        };
        refuse(&provider, &bad, ErrorKind::Undecryptable).await;
    }
}

/// The store names one key. Another key of the same KMS is rejected, even if the identity may use
/// it.
pub async fn what_another_key_encrypted_is_refused(subject: &impl KeySubject) {
    let provider = subject.provider().await;
    let ciphertext = encrypt(&subject.other_encryptor().await, b"CANARY").await;
    refuse(&provider, &ciphertext, ErrorKind::Undecryptable).await;
}

/// Only the state of the key distinguishes this from an invalid ciphertext, and it is fixed in a
/// different place.
pub async fn a_disabled_key_is_told_and_heals(subject: &impl KeySubject) {
    let (provider, encryptor) = (subject.provider().await, subject.encryptor().await);
    let ciphertext = encrypt(&encryptor, b"CANARY").await;
    subject.enable(false).await;
    refuse(&provider, &ciphertext, ErrorKind::KeyUnavailable).await;
    subject.enable(true).await;
    assert!(decrypt(&provider, &ciphertext).await.is_ok());
}

/// The message names the missing permission.
pub async fn a_denied_key_is_permission_denied(subject: &impl KeySubject) {
    let (provider, encryptor) = (subject.provider().await, subject.encryptor().await);
    let ciphertext = encrypt(&encryptor, b"CANARY").await;
    assert!(decrypt(&provider, &ciphertext).await.is_ok());
    subject.deny().await;
    let error = refuse(&provider, &ciphertext, ErrorKind::PermissionDenied).await;
    assert!(error.hint.is_some(), "{error}");
}

/// The operator needs only the permission to decrypt.
pub async fn the_operators_own_identity_encrypts_nothing(subject: &impl KeySubject) {
    let encryptor = subject.operators_encryptor().await;
    let value = SecretValue::from("CANARY");
    let Err(error) = encryptor.encrypt(&value, &place("password")).await else {
        panic!("the operator's identity must not be able to encrypt")
    };
    assert_clean(&error);
    assert_eq!(error.kind.label(), ErrorKind::PermissionDenied.label(), "{error}");
    assert_eq!(error.operation, Operation::Encrypt);
}

/// An unavailable KMS must not make a ciphertext look invalid.
pub async fn a_kms_that_cannot_serve_is_told_and_heals(subject: &impl KeySubject) {
    let (provider, encryptor) = (subject.provider().await, subject.encryptor().await);
    let ciphertext = encrypt(&encryptor, b"CANARY").await;
    assert!(decrypt(&provider, &ciphertext).await.is_ok());
    subject.unavailable(true).await;
    refuse(&provider, &ciphertext, ErrorKind::Unavailable).await;
    subject.unavailable(false).await;
    assert!(decrypt(&provider, &ciphertext).await.is_ok());
}
