//! Secrets and their versions, and helpers for tests to add them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Gcp, PROJECT_NUMBER, Refusal, World, below_project, now};

/// Maximum length of a payload, in bytes.
pub(super) const LONGEST: usize = 65_536;

/// A secret with its versions, the newest last.
#[derive(Debug)]
pub(super) struct Secret {
    /// Increases with each new secret.
    pub(super) number: u64,
    /// Changes with every update.
    pub(super) etag: u64,
    pub(super) created: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) aliases: BTreeMap<String, u64>,
    pub(super) versions: Vec<Version>,
}

#[derive(Debug)]
pub(super) struct Version {
    pub(super) number: u64,
    pub(super) etag: u64,
    pub(super) data: Vec<u8>,
    pub(super) state: VersionState,
    pub(super) created: String,
    pub(super) destroyed: Option<String>,
    pub(super) has_checksum: bool,
}

/// The state of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionState {
    /// It can be read.
    Enabled,
    /// It cannot be read.
    Disabled,
    /// Its data is gone.
    Destroyed,
}

impl VersionState {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Enabled => "ENABLED",
            Self::Disabled => "DISABLED",
            Self::Destroyed => "DESTROYED",
        }
    }
}

/// Helpers for tests. A name is a secret's id, or `locations/LOCATION/secrets/ID` for a regional
/// one.
impl Gcp {
    /// Stores a text as a new version and returns its number.
    ///
    /// # Panics
    /// When the service would not store it.
    pub fn put_secret(&self, name: &str, value: &str) -> u64 {
        self.put_secret_bytes(name, value.as_bytes())
    }

    /// Stores bytes as a new version and returns its number.
    ///
    /// # Panics
    /// When the service would not store them.
    pub fn put_secret_bytes(&self, name: &str, value: &[u8]) -> u64 {
        assert!(value.len() <= LONGEST, "a value has at most 64 KiB");
        self.put_oversized_secret(name, value)
    }

    /// Stores bytes of any length, which only something in place of the service could return.
    pub fn put_oversized_secret(&self, name: &str, value: &[u8]) -> u64 {
        let mut world = self.world.lock();
        let key = below_project(name);
        if !world.secrets.contains_key(&key) {
            let secret = Secret::new(&mut world);
            world.secrets.insert(key.clone(), secret);
        }
        let etag = world.next();
        world
            .secrets
            .get_mut(&key)
            .map_or(0, |secret| secret.add(value.to_vec(), etag, true))
    }

    /// Sets a label of a secret.
    pub fn label(&self, name: &str, key: &str, value: &str) {
        self.change(name, |secret| {
            secret.labels.insert(key.to_owned(), value.to_owned());
        });
    }

    /// Sets an annotation of a secret.
    pub fn annotate(&self, name: &str, key: &str, value: &str) {
        self.change(name, |secret| {
            secret.annotations.insert(key.to_owned(), value.to_owned());
        });
    }

    /// Sets an alias of a version.
    pub fn alias(&self, name: &str, alias: &str, version: u64) {
        self.change(name, |secret| {
            secret.aliases.insert(alias.to_owned(), version);
        });
    }

    /// Sets the state of a version.
    pub fn set_state(&self, name: &str, version: u64, state: VersionState) {
        let mut world = self.world.lock();
        let etag = world.next();
        if let Some(version) = world
            .secrets
            .get_mut(&below_project(name))
            .and_then(|secret| secret.versions.iter_mut().find(|known| known.number == version))
        {
            version.enter(state, etag);
        }
    }

    /// Deletes a secret with all versions.
    pub fn delete(&self, name: &str) {
        self.world.lock().secrets.remove(&below_project(name));
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Secret)) {
        let mut world = self.world.lock();
        let etag = world.next();
        if let Some(secret) = world.secrets.get_mut(&below_project(name)) {
            secret.etag = etag;
            change(secret);
        }
    }
}

impl Version {
    pub(super) fn enter(&mut self, state: VersionState, etag: u64) {
        self.state = state;
        self.etag = etag;
        if state == VersionState::Destroyed {
            self.data.clear();
            self.destroyed.get_or_insert_with(now);
        }
    }

    pub(super) fn full_name(&self, secret: &str) -> String {
        format!("projects/{PROJECT_NUMBER}/{secret}/versions/{}", self.number)
    }

    pub(super) fn answer(&self, secret: &str) -> Value {
        let mut answer = json!({
            "name": self.full_name(secret),
            "createTime": self.created,
            "state": self.state.name(),
            "etag": quoted(self.etag),
            "clientSpecifiedPayloadChecksum": self.has_checksum,
        });
        if !secret.starts_with("locations/") {
            answer["replicationStatus"] = json!({ "automatic": {} });
        }
        if let Some(destroyed) = &self.destroyed {
            answer["destroyTime"] = json!(destroyed);
        }
        answer
    }
}

impl Secret {
    pub(super) fn new(world: &mut World) -> Self {
        let number = world.next();
        Self {
            number,
            etag: number,
            created: now(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            aliases: BTreeMap::new(),
            versions: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, data: Vec<u8>, etag: u64, has_checksum: bool) -> u64 {
        let number = self.versions.last().map_or(0, |version| version.number) + 1;
        self.versions.push(Version {
            number,
            etag,
            data,
            state: VersionState::Enabled,
            created: now(),
            destroyed: None,
            has_checksum,
        });
        number
    }

    pub(super) fn answer(&self, key: &str) -> Value {
        let mut answer = json!({
            "name": format!("projects/{PROJECT_NUMBER}/{key}"),
            "createTime": self.created,
            "etag": quoted(self.etag),
        });
        if !key.starts_with("locations/") {
            answer["replication"] = json!({ "automatic": {} });
        }
        // Like all of Google's services, it omits empty fields.
        if !self.labels.is_empty() {
            answer["labels"] = json!(self.labels);
        }
        if !self.annotations.is_empty() {
            answer["annotations"] = json!(self.annotations);
        }
        if !self.aliases.is_empty() {
            // A 64-bit number is a string in Google's JSON.
            let aliases: BTreeMap<_, _> = self
                .aliases
                .iter()
                .map(|(name, number)| (name, number.to_string()))
                .collect();
            answer["versionAliases"] = json!(aliases);
        }
        answer
    }

    /// Returns the position of a version by number, alias or `latest`, which is the newest in any
    /// state.
    pub(super) fn find(&self, named: &str) -> Result<usize, Refusal> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        if named.is_empty() || !named.bytes().all(is_word) {
            return Err(Refusal::invalid("the version's name CANARY is no name"));
        }
        let number = match named {
            "latest" => self.versions.last().map(|version| version.number),
            alias => alias.parse().ok().or_else(|| self.aliases.get(alias).copied()),
        };
        self.versions
            .iter()
            .position(|version| Some(version.number) == number)
            .ok_or_else(|| Refusal::missing("version"))
    }
}

pub(super) fn quoted(etag: u64) -> String {
    format!("\"{etag:012x}\"")
}
