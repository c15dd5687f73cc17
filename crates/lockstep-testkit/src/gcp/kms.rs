//! Cloud KMS: symmetric keys that encrypt and decrypt, with additional authenticated data.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    Action, Asked, Gcp, KEY_RING, LOCATION, PROJECT, Refusal, Trouble, World, below_project,
    checksum::{check, crc32c},
    now,
    route::Resource,
};

/// Maximum length of a plaintext, and of additional authenticated data, in bytes.
const LONGEST: usize = 65_536;

/// A key with its versions, the oldest first. The newest is the primary one.
#[derive(Debug)]
pub(super) struct KmsKey {
    created: String,
    versions: Vec<KeyVersion>,
}

#[derive(Debug)]
struct KeyVersion {
    state: KeyState,
    material: [u8; 32],
    created: String,
}

/// The state of a key version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It can be used.
    Enabled,
    /// It cannot be used.
    Disabled,
    /// It is about to be destroyed.
    DestroyScheduled,
    /// It is destroyed.
    Destroyed,
}

impl KeyState {
    const fn name(self) -> &'static str {
        match self {
            Self::Enabled => "ENABLED",
            Self::Disabled => "DISABLED",
            Self::DestroyScheduled => "DESTROY_SCHEDULED",
            Self::Destroyed => "DESTROYED",
        }
    }
}

impl Gcp {
    /// Creates a key in [`KEY_RING`], or a new primary version of an existing one, and returns its
    /// full name.
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
        let key = world.kms_keys.entry(path(id)).or_insert_with(|| KmsKey {
            created: now(),
            versions: Vec::new(),
        });
        key.versions.push(KeyVersion {
            state: KeyState::Enabled,
            material,
            created: now(),
        });
        full_name(&path(id))
    }

    /// Sets the state of a key version, counted from 1.
    pub fn set_kms_key_state(&self, id: &str, version: usize, state: KeyState) {
        let mut world = self.world.lock();
        let versions = world.kms_keys.get_mut(&path(id)).map(|key| &mut key.versions);
        if let Some(version) = versions.and_then(|versions| versions.get_mut(version.wrapping_sub(1))) {
            version.state = state;
        }
    }
}

/// Returns the path of a key below the project, from its id or its full name.
fn path(id: &str) -> String {
    if id.contains('/') {
        below_project(id)
    } else {
        format!("locations/{LOCATION}/keyRings/{KEY_RING}/cryptoKeys/{id}")
    }
}

/// Returns the full name. Names in responses of KMS contain the project id.
fn full_name(path: &str) -> String {
    format!("projects/{PROJECT}/{path}")
}

impl KmsKey {
    fn version(&self, number: usize) -> Option<&KeyVersion> {
        self.versions.get(number.checked_sub(1)?)
    }

    fn version_answer(&self, key: &str, number: usize) -> Option<Value> {
        let version = self.version(number)?;
        Some(json!({
            "name": format!("{}/cryptoKeyVersions/{number}", full_name(key)),
            "state": version.state.name(),
            "createTime": version.created,
            "generateTime": version.created,
            "protectionLevel": "SOFTWARE",
            "algorithm": "GOOGLE_SYMMETRIC_ENCRYPTION",
        }))
    }

    /// Returns this version if it may be used.
    fn usable(&self, number: usize) -> Result<&KeyVersion, Refusal> {
        let version = self.version(number).ok_or_else(|| Refusal::missing("version"))?;
        if version.state == KeyState::Enabled {
            return Ok(version);
        }
        let text = format!(
            "CANARY/cryptoKeyVersions/{number} is not enabled, current state is: {}.",
            version.state.name()
        );
        Err(Refusal::precondition(text))
    }
}

impl KeyVersion {
    fn cipher(&self) -> Result<LessSafeKey, Refusal> {
        let broken = |_| Refusal::new("INTERNAL", "CANARY");
        Ok(LessSafeKey::new(
            UnboundKey::new(&AES_256_GCM, &self.material).map_err(broken)?,
        ))
    }
}

pub(super) fn call(
    world: &mut World,
    action: &Action,
    resource: &Resource,
    asked: &Asked,
) -> Result<Value, Refusal> {
    let name = resource.holder();
    let number = world.next();
    let trouble = world.trouble.clone();
    let key = world
        .kms_keys
        .get_mut(&name)
        .ok_or_else(|| Refusal::missing("key"))?;
    let named = resource
        .version()
        .map(|version| version.parse().map_err(|_| Refusal::missing("version")))
        .transpose()?;
    let version = named.unwrap_or(key.versions.len());
    let missing = || Refusal::missing("version");
    match *action {
        Action::ENCRYPT => {
            let request = asked.json();
            let mut answer = encrypt(key, &name, version, number, &request)?;
            spoil(&mut answer, "ciphertext", "ciphertextCrc32c", trouble.as_ref());
            Ok(answer)
        }
        Action::DECRYPT => {
            let mut answer = decrypt(key, &name, &asked.json())?;
            spoil(&mut answer, "plaintext", "plaintextCrc32c", trouble.as_ref());
            Ok(answer)
        }
        Action::GET_KEY_VERSION => key.version_answer(&name, version).ok_or_else(missing),
        Action::UPDATE_KEY_VERSION | Action::DESTROY_KEY_VERSION => {
            let state = if *action == Action::DESTROY_KEY_VERSION {
                KeyState::DestroyScheduled
            } else {
                wanted_state(&asked.json())?
            };
            let known = version.checked_sub(1).and_then(|at| key.versions.get_mut(at));
            let known = known.ok_or_else(missing)?;
            if !matches!(known.state, KeyState::Enabled | KeyState::Disabled) {
                return Err(Refusal::precondition("the version CANARY is destroyed"));
            }
            known.state = state;
            key.version_answer(&name, version).ok_or_else(missing)
        }
        Action::GET_KEY => Ok(json!({
            "name": full_name(&name),
            "purpose": "ENCRYPT_DECRYPT",
            "createTime": key.created,
            "primary": key.version_answer(&name, version).ok_or_else(missing)?,
            "versionTemplate": { "protectionLevel": "SOFTWARE", "algorithm": "GOOGLE_SYMMETRIC_ENCRYPTION" },
        })),
        _ => Err(Refusal::new("UNIMPLEMENTED", "CANARY")),
    }
}

/// Returns the state that an update requests, by its name or its number.
fn wanted_state(request: &Value) -> Result<KeyState, Refusal> {
    let state = &request["state"];
    if state == "ENABLED" || *state == json!(1) {
        Ok(KeyState::Enabled)
    } else if state == "DISABLED" || *state == json!(2) {
        Ok(KeyState::Disabled)
    } else {
        Err(Refusal::invalid("state CANARY can be ENABLED or DISABLED"))
    }
}

/// Falsifies a response if that is the current fault.
fn spoil(answer: &mut Value, data: &str, checksum: &str, trouble: Option<&Trouble>) {
    match trouble {
        Some(Trouble::WrongChecksum) => {
            let right = answer[checksum]
                .as_str()
                .and_then(|text| text.parse::<u32>().ok());
            answer[checksum] = json!((right.unwrap_or_default() ^ 1).to_string());
        }
        Some(Trouble::NoPayload) => {
            if let Some(fields) = answer.as_object_mut() {
                fields.remove(data);
                fields.remove(checksum);
            }
        }
        _ => {}
    }
}

/// Decodes a field of limited length and verifies its checksum. Returns whether there is a
/// checksum.
fn bytes(
    request: &Value,
    field: &'static str,
    checksum: &'static str,
    longest: usize,
) -> Result<(Vec<u8>, bool), Refusal> {
    let text = request[field].as_str().unwrap_or_default();
    let bytes = BASE64_STANDARD
        .decode(text)
        .map_err(|_| Refusal::invalid(format!("{field} CANARY is no base64")))?;
    if bytes.len() > longest {
        return Err(Refusal::invalid(format!("{field} CANARY is too long")));
    }
    let is_checked = check(&bytes, request, checksum)?;
    Ok((bytes, is_checked))
}

const AAD: &str = "additionalAuthenticatedData";
const AAD_CHECKSUM: &str = "additionalAuthenticatedDataCrc32c";

fn encrypt(key: &KmsKey, name: &str, version: usize, unique: u64, request: &Value) -> Result<Value, Refusal> {
    let (mut text, has_checksum) = bytes(request, "plaintext", "plaintextCrc32c", LONGEST)?;
    let (aad, has_aad_checksum) = bytes(request, AAD, AAD_CHECKSUM, LONGEST)?;
    let cipher = key.usable(version)?.cipher()?;
    let mut nonce = [0; NONCE_LEN];
    for (to, from) in nonce.iter_mut().zip(unique.to_be_bytes()) {
        *to = from;
    }
    cipher
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut text)
        .map_err(|_| Refusal::new("INTERNAL", "CANARY"))?;
    // Like the service's own, a ciphertext contains its key and version.
    let head = format!("{name}/cryptoKeyVersions/{version}");
    let mut sealed = vec![u8::try_from(head.len()).unwrap_or(u8::MAX)];
    sealed.extend_from_slice(head.as_bytes());
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(&text);
    let mut answer = json!({
        "name": full_name(&head),
        "ciphertext": BASE64_STANDARD.encode(&sealed),
        "ciphertextCrc32c": crc32c(&sealed).to_string(),
        "protectionLevel": "SOFTWARE",
    });
    if has_checksum {
        answer["verifiedPlaintextCrc32c"] = json!(true);
    }
    if has_aad_checksum {
        answer["verifiedAdditionalAuthenticatedDataCrc32c"] = json!(true);
    }
    Ok(answer)
}

fn decrypt(key: &KmsKey, name: &str, request: &Value) -> Result<Value, Refusal> {
    let (sealed, _) = bytes(request, "ciphertext", "ciphertextCrc32c", usize::MAX)?;
    let (aad, _) = bytes(request, AAD, AAD_CHECKSUM, LONGEST)?;
    let wrong = || Refusal::invalid("ciphertext CANARY is not of this key, or of other data");
    let (length, rest) = sealed.split_first().ok_or_else(wrong)?;
    let (head, rest) = rest.split_at_checked(usize::from(*length)).ok_or_else(wrong)?;
    let version: usize = std::str::from_utf8(head)
        .ok()
        .and_then(|head| {
            head.strip_prefix(name)?
                .strip_prefix("/cryptoKeyVersions/")?
                .parse()
                .ok()
        })
        .ok_or_else(wrong)?;
    let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(wrong)?;
    let cipher = key.usable(version)?.cipher()?;
    let mut text = text.to_vec();
    let plaintext = cipher
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut text)
        .map_err(|_| wrong())?;
    let mut answer = json!({
        "plaintextCrc32c": crc32c(plaintext).to_string(),
        "protectionLevel": "SOFTWARE",
    });
    // Like all of Google's services, it omits empty fields.
    if !plaintext.is_empty() {
        answer["plaintext"] = json!(BASE64_STANDARD.encode(&*plaintext));
    }
    if version == key.versions.len() {
        answer["usedPrimary"] = json!(true);
    }
    Ok(answer)
}
