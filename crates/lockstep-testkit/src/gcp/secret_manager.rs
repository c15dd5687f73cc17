//! Secret Manager.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    Action, Asked, Gcp, PROJECT_NUMBER, Refusal, Trouble, World, below_project,
    checksum::{check, crc32c},
    filter::{Filter, Kind},
    lock, now,
    route::Resource,
};

/// The longest payload, in bytes.
const LONGEST: usize = 65_536;
/// The most entries on one page.
const MOST_LISTED: usize = 25_000;
/// The most labels of a secret.
const MOST_LABELS: usize = 64;

/// A secret with its versions, the newest last.
#[derive(Debug)]
pub(super) struct Secret {
    /// The later it was made, the greater.
    number: u64,
    /// Changes whenever it does.
    etag: u64,
    created: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    aliases: BTreeMap<String, u64>,
    versions: Vec<Version>,
}

#[derive(Debug)]
struct Version {
    number: u64,
    etag: u64,
    data: Vec<u8>,
    state: VersionState,
    created: String,
    destroyed: Option<String>,
    has_checksum: bool,
}

/// What state a version is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionState {
    /// It can be read.
    Enabled,
    /// It cannot.
    Disabled,
    /// Its data is gone.
    Destroyed,
}

impl VersionState {
    const fn name(self) -> &'static str {
        match self {
            Self::Enabled => "ENABLED",
            Self::Disabled => "DISABLED",
            Self::Destroyed => "DESTROYED",
        }
    }
}

/// Helpers of tests. A name is a secret's id, or `locations/LOCATION/secrets/ID` of a regional one.
impl Gcp {
    /// Stores a text as a new version; its number.
    ///
    /// # Panics
    /// When the service would not take it.
    pub fn put_secret(&self, name: &str, value: &str) -> u64 {
        self.put_secret_bytes(name, value.as_bytes())
    }

    /// Stores bytes as a new version; its number.
    ///
    /// # Panics
    /// When the service would not take them.
    pub fn put_secret_bytes(&self, name: &str, value: &[u8]) -> u64 {
        assert!(value.len() <= LONGEST, "a value has at most 64 KiB");
        self.put_oversized_secret(name, value)
    }

    /// Stores bytes of any length: what the service would not take, but a liar could answer.
    pub fn put_oversized_secret(&self, name: &str, value: &[u8]) -> u64 {
        let mut world = lock(&self.world);
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

    /// Sets a name that stands for a version.
    pub fn alias(&self, name: &str, alias: &str, version: u64) {
        self.change(name, |secret| {
            secret.aliases.insert(alias.to_owned(), version);
        });
    }

    /// From now on a version is in that state.
    pub fn set_state(&self, name: &str, version: u64, state: VersionState) {
        let mut world = lock(&self.world);
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
        lock(&self.world).secrets.remove(&below_project(name));
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Secret)) {
        let mut world = lock(&self.world);
        let etag = world.next();
        if let Some(secret) = world.secrets.get_mut(&below_project(name)) {
            secret.etag = etag;
            change(secret);
        }
    }
}

impl Version {
    fn enter(&mut self, state: VersionState, etag: u64) {
        self.state = state;
        self.etag = etag;
        if state == VersionState::Destroyed {
            self.data.clear();
            self.destroyed.get_or_insert_with(now);
        }
    }

    fn full_name(&self, secret: &str) -> String {
        format!("projects/{PROJECT_NUMBER}/{secret}/versions/{}", self.number)
    }

    fn answer(&self, secret: &str) -> Value {
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
    fn new(world: &mut World) -> Self {
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

    fn add(&mut self, data: Vec<u8>, etag: u64, has_checksum: bool) -> u64 {
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

    fn answer(&self, key: &str) -> Value {
        let mut answer = json!({
            "name": format!("projects/{PROJECT_NUMBER}/{key}"),
            "createTime": self.created,
            "etag": quoted(self.etag),
        });
        if !key.starts_with("locations/") {
            answer["replication"] = json!({ "automatic": {} });
        }
        // as all of Google's services, it leaves out what is empty
        if !self.labels.is_empty() {
            answer["labels"] = json!(self.labels);
        }
        if !self.annotations.is_empty() {
            answer["annotations"] = json!(self.annotations);
        }
        if !self.aliases.is_empty() {
            // a 64-bit number is a string in Google's JSON
            let aliases: BTreeMap<_, _> = self
                .aliases
                .iter()
                .map(|(name, number)| (name, number.to_string()))
                .collect();
            answer["versionAliases"] = json!(aliases);
        }
        answer
    }

    /// Where a version is that is named by number, alias or `latest`, which is the newest whatever its state.
    fn find(&self, named: &str) -> Result<usize, Refusal> {
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

fn quoted(etag: u64) -> String {
    format!("\"{etag:012x}\"")
}

pub(super) fn call(
    world: &mut World,
    action: &Action,
    resource: &Resource,
    asked: &Asked,
) -> Result<Value, Refusal> {
    let key = resource.holder();
    match *action {
        Action::LIST => return list(world, resource, asked),
        Action::CREATE => return create(world, &key, asked),
        Action::DELETE => {
            let removed = world.secrets.remove(&key);
            return removed
                .map(|_| json!({}))
                .ok_or_else(|| Refusal::missing("secret"));
        }
        _ => {}
    }
    let page = world.page;
    let etag = world.next();
    let trouble = world.trouble.clone();
    let secret = world
        .secrets
        .get_mut(&key)
        .ok_or_else(|| Refusal::missing("secret"))?;
    let named = resource.version().unwrap_or_default();
    match *action {
        Action::GET => Ok(secret.answer(&key)),
        Action::ADD_VERSION => add_version(secret, &key, etag, &asked.json()),
        Action::LIST_VERSIONS => list_versions(secret, &key, page, asked),
        Action::GET_VERSION => Ok(secret.versions[secret.find(named)?].answer(&key)),
        Action::ACCESS => access(secret, &key, named, trouble.as_ref()),
        Action::ENABLE | Action::DISABLE | Action::DESTROY => {
            let version = secret.find(named)?;
            let version = &mut secret.versions[version];
            let known = asked.json()["etag"].as_str().map(str::to_owned);
            if known.is_some_and(|known| !known.is_empty() && known != quoted(version.etag)) {
                return Err(Refusal::precondition("the version CANARY has another etag"));
            }
            if version.state == VersionState::Destroyed {
                return Err(Refusal::precondition("the version CANARY is destroyed"));
            }
            let state = match *action {
                Action::ENABLE => VersionState::Enabled,
                Action::DISABLE => VersionState::Disabled,
                _ => VersionState::Destroyed,
            };
            version.enter(state, etag);
            Ok(version.answer(&key))
        }
        _ => Err(Refusal::new("UNIMPLEMENTED", "CANARY")),
    }
}

fn access(secret: &Secret, key: &str, named: &str, trouble: Option<&Trouble>) -> Result<Value, Refusal> {
    let version = &secret.versions[secret.find(named)?];
    if version.state != VersionState::Enabled {
        let text = format!("the version CANARY is in state {}", version.state.name());
        return Err(Refusal::precondition(text));
    }
    let mut answer = json!({ "name": version.full_name(key) });
    if trouble != Some(&Trouble::NoPayload) {
        let lie = u32::from(trouble == Some(&Trouble::WrongChecksum));
        answer["payload"] = json!({
            "data": BASE64_STANDARD.encode(&version.data),
            "dataCrc32c": (crc32c(&version.data) ^ lie).to_string(),
        });
    }
    Ok(answer)
}

fn create(world: &mut World, list: &str, asked: &Asked) -> Result<Value, Refusal> {
    let id = asked
        .query
        .get("secretId")
        .map(String::as_str)
        .unwrap_or_default();
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if id.is_empty() || id.len() > 255 || !id.bytes().all(is_word) {
        return Err(Refusal::invalid("secretId CANARY is no id"));
    }
    let request = asked.json();
    let is_regional = list.starts_with("locations/");
    if request["replication"].is_object() == is_regional {
        return Err(Refusal::invalid(
            "replication CANARY is for global secrets, and required there",
        ));
    }
    let key = format!("{list}/{id}");
    if world.secrets.contains_key(&key) {
        return Err(Refusal::new("ALREADY_EXISTS", "the secret CANARY exists"));
    }
    let texts = |field: &str| -> BTreeMap<String, String> {
        request[field]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect()
    };
    let secret = Secret {
        labels: texts("labels"),
        annotations: texts("annotations"),
        ..Secret::new(world)
    };
    if secret.labels.len() > MOST_LABELS {
        return Err(Refusal::invalid("labels CANARY are too many"));
    }
    let answer = secret.answer(&key);
    world.secrets.insert(key, secret);
    Ok(answer)
}

fn add_version(secret: &mut Secret, key: &str, etag: u64, request: &Value) -> Result<Value, Refusal> {
    let payload = &request["payload"];
    let data = payload["data"].as_str().unwrap_or_default();
    let data = BASE64_STANDARD
        .decode(data)
        .map_err(|_| Refusal::invalid("payload.data CANARY is no base64"))?;
    if data.len() > LONGEST {
        return Err(Refusal::invalid("payload.data CANARY has more than 65536 bytes"));
    }
    let has_checksum = check(&data, payload, "dataCrc32c")?;
    secret.add(data, etag, has_checksum);
    Ok(secret
        .versions
        .last()
        .map(|version| version.answer(key))
        .unwrap_or_default())
}

fn list(world: &World, resource: &Resource, asked: &Asked) -> Result<Value, Refusal> {
    let filter = Filter::parse(Kind::Secret, asked)?;
    let folder = format!("{}/", resource.holder());
    let mut secrets: Vec<_> = world
        .secrets
        .iter()
        .filter(|(key, _)| key.starts_with(&folder))
        .collect();
    secrets.sort_by_key(|(_, secret)| std::cmp::Reverse(secret.number));
    let entries = secrets
        .into_iter()
        .map(|(key, secret)| secret.answer(key))
        .collect();
    listed("secrets", entries, &filter, asked, world.page)
}

fn list_versions(secret: &Secret, key: &str, page: Option<usize>, asked: &Asked) -> Result<Value, Refusal> {
    let filter = Filter::parse(Kind::Version, asked)?;
    let entries = secret
        .versions
        .iter()
        .rev()
        .map(|version| version.answer(key))
        .collect();
    listed("versions", entries, &filter, asked, page)
}

/// One page of a list: what begins at the token, and the token of the next.
fn listed(
    field: &str,
    mut entries: Vec<Value>,
    filter: &Filter,
    asked: &Asked,
    page: Option<usize>,
) -> Result<Value, Refusal> {
    let parameter = |name: &str| {
        asked
            .query
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    };
    let size = match parameter("pageSize").unwrap_or("0").parse() {
        Ok(0) => MOST_LISTED,
        Ok(size) => MOST_LISTED.min(size),
        Err(_) => return Err(Refusal::invalid("pageSize CANARY is no number")),
    };
    let size = page.unwrap_or(MOST_LISTED).min(size);
    let begin = match parameter("pageToken") {
        None => 0,
        Some(token) => token
            .strip_prefix("token-")
            .and_then(|number| number.parse::<usize>().ok())
            .ok_or_else(|| Refusal::invalid("pageToken CANARY is none"))?,
    };
    entries.retain(|entry| filter.holds(entry));
    let total = entries.len();
    let end = begin.saturating_add(size);
    let entries: Vec<Value> = entries.into_iter().skip(begin).take(size).collect();
    let mut answer = json!({});
    if !entries.is_empty() {
        answer[field] = json!(entries);
    }
    if end < total {
        answer["nextPageToken"] = json!(format!("token-{end}"));
    }
    // 0 where there is a filter, and 0 is left out
    if filter.is_empty() && total > 0 {
        answer["totalSize"] = json!(total);
    }
    Ok(answer)
}
