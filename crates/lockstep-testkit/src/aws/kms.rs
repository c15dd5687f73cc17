//! KMS: symmetric keys that encrypt and decrypt, with an encryption context.

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{ACCOUNT, Aws, REGION, Refusal, World};

/// Maximum length of a plaintext of a symmetric key, in bytes.
const LONGEST_PLAINTEXT: usize = 4096;
/// Maximum length of a ciphertext, in bytes.
const LONGEST_CIPHERTEXT: usize = 6144;

#[derive(Debug)]
pub(crate) struct KmsKey {
    state: KeyState,
    material: [u8; 32],
}

/// The state of a KMS key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It can be used.
    Enabled,
    /// It cannot be used.
    Disabled,
    /// It is about to be deleted.
    PendingDeletion,
}

impl Aws {
    /// Creates a key and returns its ARN.
    pub fn add_kms_key(&self, id: &str) -> String {
        let mut world = self.world.lock();
        let number = world.next().to_be_bytes();
        let mut material = [0; 32];
        for (to, from) in material
            .iter_mut()
            .zip(number.iter().cycle().chain(id.as_bytes()))
        {
            *to = *from;
        }
        let key = KmsKey {
            state: KeyState::Enabled,
            material,
        };
        world.kms_keys.insert(id.to_owned(), key);
        arn(id)
    }

    /// Sets the state of a key.
    pub fn set_kms_key(&self, id: &str, state: KeyState) {
        if let Some(key) = self.world.lock().kms_keys.get_mut(id) {
            key.state = state;
        }
    }
}

fn arn(id: &str) -> String {
    format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/{id}")
}

pub(super) fn call(world: &mut World, action: &str, request: &Value) -> Result<Value, Refusal> {
    match action {
        "Encrypt" => encrypt(world, request),
        "Decrypt" => decrypt(world, request),
        _ => Err(Refusal::new("UnknownOperationException", "CANARY")),
    }
}

/// Returns the id that a key is stored under.
fn id_of(named: &str) -> &str {
    named.rsplit('/').next().unwrap_or(named)
}

fn usable<'a>(world: &'a World, id: &str) -> Result<&'a KmsKey, Refusal> {
    let missing = || {
        Refusal::new(
            "NotFoundException",
            format!("Key '{}' does not exist CANARY", arn(id)),
        )
    };
    let key = world.kms_keys.get(id).ok_or_else(missing)?;
    match key.state {
        KeyState::Enabled => Ok(key),
        KeyState::Disabled => Err(Refusal::new(
            "DisabledException",
            format!("{} is disabled CANARY", arn(id)),
        )),
        KeyState::PendingDeletion => Err(Refusal::new(
            "KMSInvalidStateException",
            format!("{} is pending deletion CANARY", arn(id)),
        )),
    }
}

fn cipher(key: &KmsKey) -> Result<LessSafeKey, Refusal> {
    let broken = |_| Refusal::new("KMSInternalException", "CANARY");
    Ok(LessSafeKey::new(
        UnboundKey::new(&AES_256_GCM, &key.material).map_err(broken)?,
    ))
}

/// Returns the encryption context in a fixed order.
fn context(request: &Value) -> Vec<u8> {
    let pairs: BTreeMap<String, Value> = request["EncryptionContext"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    json!(pairs).to_string().into_bytes()
}

fn blob(request: &Value, field: &str, longest: usize) -> Result<Vec<u8>, Refusal> {
    let invalid = || {
        Refusal::new(
            "ValidationException",
            format!("{field} failed to satisfy constraint CANARY"),
        )
    };
    let text = request[field].as_str().ok_or_else(invalid)?;
    let bytes = BASE64_STANDARD.decode(text).map_err(|_| invalid())?;
    if (1..=longest).contains(&bytes.len()) {
        Ok(bytes)
    } else {
        Err(invalid())
    }
}

fn encrypt(world: &mut World, request: &Value) -> Result<Value, Refusal> {
    let mut text = blob(request, "Plaintext", LONGEST_PLAINTEXT)?;
    let id = id_of(request["KeyId"].as_str().unwrap_or_default()).to_owned();
    let mut nonce = [0; NONCE_LEN];
    for (to, from) in nonce.iter_mut().zip(world.next().to_be_bytes()) {
        *to = from;
    }
    let cipher = cipher(usable(world, &id)?)?;
    let aad = Aad::from(context(request));
    cipher
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut text)
        .map_err(|_| Refusal::new("KMSInternalException", "CANARY"))?;
    // Like the service's own, a ciphertext contains its key.
    let mut bytes = vec![u8::try_from(id.len()).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(id.as_bytes());
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(&text);
    Ok(
        json!({ "CiphertextBlob": BASE64_STANDARD.encode(bytes), "KeyId": arn(&id), "EncryptionAlgorithm": "SYMMETRIC_DEFAULT" }),
    )
}

fn decrypt(world: &mut World, request: &Value) -> Result<Value, Refusal> {
    let bytes = blob(request, "CiphertextBlob", LONGEST_CIPHERTEXT)?;
    let wrong = || Refusal::new("InvalidCiphertextException", "CANARY");
    let (length, rest) = bytes.split_first().ok_or_else(wrong)?;
    let (id, rest) = rest.split_at_checked(usize::from(*length)).ok_or_else(wrong)?;
    let id = std::str::from_utf8(id).map_err(|_| wrong())?;
    if !world.kms_keys.contains_key(id) {
        return Err(wrong());
    }
    if let Some(named) = request["KeyId"].as_str() {
        usable(world, id_of(named))?;
        if id_of(named) != id {
            return Err(Refusal::new("IncorrectKeyException", "CANARY"));
        }
    }
    let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(wrong)?;
    let mut text = text.to_vec();
    let cipher = cipher(usable(world, id)?)?;
    let aad = Aad::from(context(request));
    let plaintext = cipher
        .open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut text)
        .map_err(|_| wrong())?;
    Ok(
        json!({ "Plaintext": BASE64_STANDARD.encode(&*plaintext), "KeyId": arn(id), "EncryptionAlgorithm": "SYMMETRIC_DEFAULT" }),
    )
}
