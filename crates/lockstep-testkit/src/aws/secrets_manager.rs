//! The API of Secrets Manager.

use std::{collections::BTreeMap, time::SystemTime};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{ACCOUNT, Aws, PageCodes, REGION, Refusal, Trouble, World, page, seconds, strings};

/// Maximum number of ids in one batch.
const MOST_IDS: usize = 20;
/// Maximum number of secrets on one page.
const MOST_LISTED: usize = 100;
/// Maximum length of a value, in bytes.
const LONGEST: usize = 65_536;

const CODES: PageCodes = PageCodes {
    size: "InvalidParameterException",
    token: "InvalidNextTokenException",
};

/// A secret with its versions, the current one last.
#[derive(Debug)]
pub(crate) struct Secret {
    arn: String,
    versions: Vec<Version>,
    tags: BTreeMap<String, String>,
    deleted: bool,
}

#[derive(Debug)]
struct Version {
    id: String,
    value: Stored,
    stages: Vec<String>,
    created: SystemTime,
}

#[derive(Debug)]
enum Stored {
    Text(String),
    Bytes(Vec<u8>),
}

fn arn(name: &str, suffix: &str) -> String {
    format!("arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{name}-{suffix}")
}

impl Secret {
    /// Returns the id of the current version.
    pub(super) fn current_id(&self) -> Option<&str> {
        self.versions.last().map(|version| version.id.as_str())
    }
}

impl Aws {
    /// Stores a text as a new version and returns the version id.
    ///
    /// # Panics
    /// When the service would not store it: with more than 64 KiB.
    pub fn put_secret(&self, name: &str, value: &str) -> String {
        assert!(value.len() <= LONGEST, "a value has at most 64 KiB");
        self.store(name, Stored::Text(value.to_owned()))
    }

    /// Stores bytes as a new version and returns the version id.
    ///
    /// # Panics
    /// When the service would not store them.
    pub fn put_secret_bytes(&self, name: &str, value: &[u8]) -> String {
        assert!(
            (1..=LONGEST).contains(&value.len()),
            "a value has 1 byte to 64 KiB"
        );
        self.store(name, Stored::Bytes(value.to_vec()))
    }

    /// Stores a text as a secret whose ARN has this suffix, and returns the ARN. The service
    /// chooses suffixes at random.
    ///
    /// # Panics
    /// When the suffix does not consist of six letters or digits, or a secret of this name exists.
    pub fn put_secret_with_suffix(&self, name: &str, suffix: &str, value: &str) -> String {
        assert!(
            suffix.len() == 6 && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric()),
            "a suffix has six letters or digits"
        );
        assert!(self.secret_arn(name).is_none(), "a secret keeps its suffix");
        self.put_secret(name, value);
        let arn = arn(name, suffix);
        if let Some(secret) = self.world.lock().secrets.get_mut(name) {
            secret.arn.clone_from(&arn);
        }
        arn
    }

    /// Stores a text of any length, bypassing the limit of [`Aws::put_secret`]. The service would
    /// not store it, but something in its place could return it: moto does, and a reader must not
    /// depend on the limit.
    pub fn put_oversized_secret(&self, name: &str, value: &str) -> String {
        self.store(name, Stored::Text(value.to_owned()))
    }

    fn store(&self, name: &str, value: Stored) -> String {
        let mut world = self.world.lock();
        let number = world.next();
        let id = format!("00000000-0000-4000-8000-{number:012}");
        let arn = arn(name, &format!("{:06}", number % 1_000_000));
        let secret = world.secrets.entry(name.to_owned()).or_insert_with(|| Secret {
            arn,
            versions: Vec::new(),
            tags: BTreeMap::new(),
            deleted: false,
        });
        secret.deleted = false;
        for version in &mut secret.versions {
            version.stages.retain(|stage| stage != "AWSPREVIOUS");
            if version.stages.iter().any(|stage| stage == "AWSCURRENT") {
                version.stages = vec!["AWSPREVIOUS".to_owned()];
            }
        }
        secret.versions.push(Version {
            id: id.clone(),
            value,
            stages: vec!["AWSCURRENT".to_owned()],
            created: SystemTime::now(),
        });
        id
    }

    /// Returns the ARN of a secret.
    pub fn secret_arn(&self, name: &str) -> Option<String> {
        self.world
            .lock()
            .secrets
            .get(name)
            .map(|secret| secret.arn.clone())
    }

    /// Sets a tag of a secret or parameter.
    pub fn tag(&self, name: &str, key: &str, value: &str) {
        let mut world = self.world.lock();
        if let Some(secret) = world.secrets.get_mut(name) {
            secret.tags.insert(key.to_owned(), value.to_owned());
        }
        if let Some(parameter) = world.parameters.get_mut(name) {
            parameter.tags.insert(key.to_owned(), value.to_owned());
        }
    }

    /// Deletes a secret or parameter at once.
    pub fn delete(&self, name: &str) {
        let mut world = self.world.lock();
        world.secrets.remove(name);
        world.parameters.remove(name);
    }

    /// Marks a secret for deletion, as users do: it exists, but cannot be read.
    pub fn schedule_deletion(&self, name: &str) {
        if let Some(secret) = self.world.lock().secrets.get_mut(name) {
            secret.deleted = true;
        }
    }
}

pub(super) fn call(world: &mut World, action: &str, request: &Value) -> Result<Value, Refusal> {
    match action {
        "GetSecretValue" => read(world, request),
        "BatchGetSecretValue" => batch(world, request),
        "ListSecrets" => list(world, request),
        "DescribeSecret" => describe(world, request),
        _ => Err(Refusal::new("UnknownOperationException", "CANARY")),
    }
}

fn read(world: &World, request: &Value) -> Result<Value, Refusal> {
    let id = request["SecretId"].as_str().unwrap_or_default();
    value(
        world,
        id,
        request["VersionId"].as_str(),
        request["VersionStage"].as_str(),
    )
}

fn check_id(world: &World, id: &str) -> Result<(), Refusal> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-:".contains(&byte);
    if id.is_empty() || id.len() > 2048 || !id.bytes().all(allowed) {
        return Err(Refusal::new("ValidationException", "Invalid name CANARY"));
    }
    if world.refused_ids.contains(id) {
        return Err(Refusal::new("InvalidParameterException", "Invalid id CANARY"));
    }
    Ok(())
}

/// Returns the secret of an id, if the caller may see it.
fn named<'a>(world: &'a World, action: &str, id: &str) -> Result<(&'a String, &'a Secret), Refusal> {
    check_id(world, id)?;
    let by_arn = |rest: usize| {
        let mut secrets = world.secrets.iter();
        secrets.find(|(_, secret)| secret.arn.strip_prefix(id).is_some_and(|end| end.len() == rest))
    };
    let found = if id.starts_with("arn:") {
        // A complete ARN matches before a partial one.
        by_arn(0).or_else(|| by_arn(7))
    } else {
        world.secrets.get_key_value(id)
    };
    if world
        .denied_names
        .contains(found.map_or(id, |(name, _)| name.as_str()))
    {
        let text = format!("User CANARY is not authorized to perform: secretsmanager:{action} on {id}");
        return Err(Refusal::new("AccessDeniedException", text));
    }
    found.ok_or_else(missing)
}

fn missing() -> Refusal {
    let text = "Secrets Manager can't find the specified secret CANARY.";
    Refusal::new("ResourceNotFoundException", text)
}

fn tags(secret: &Secret) -> Vec<Value> {
    let tags = secret.tags.iter();
    tags.map(|(key, value)| json!({ "Key": key, "Value": value }))
        .collect()
}

fn describe(world: &World, request: &Value) -> Result<Value, Refusal> {
    let id = request["SecretId"].as_str().unwrap_or_default();
    let (name, secret) = named(world, "DescribeSecret", id)?;
    let mut answer =
        json!({ "ARN": secret.arn, "Name": name, "Tags": tags(secret), "Description": "CANARY" });
    if secret.deleted {
        answer["DeletedDate"] = json!(seconds(SystemTime::now()));
    }
    Ok(answer)
}

fn value(world: &World, id: &str, version: Option<&str>, stage: Option<&str>) -> Result<Value, Refusal> {
    let (name, secret) = named(world, "GetSecretValue", id)?;
    if secret.deleted {
        // The service's own text, which a reader compares as a whole.
        let text = "You can't perform this operation on the secret because it was marked for deletion.";
        return Err(Refusal::new("InvalidRequestException", text));
    }
    let version = secret
        .versions
        .iter()
        .find(|known| match version {
            Some(version) => known.id == version,
            None => known
                .stages
                .iter()
                .any(|known| known == stage.unwrap_or("AWSCURRENT")),
        })
        .ok_or_else(missing)?;
    let mut answer = json!({
        "ARN": secret.arn,
        "Name": name,
        "VersionId": version.id,
        "VersionStages": version.stages,
        "CreatedDate": seconds(version.created),
    });
    match &version.value {
        Stored::Text(text) => answer["SecretString"] = json!(text),
        Stored::Bytes(bytes) => answer["SecretBinary"] = json!(BASE64_STANDARD.encode(bytes)),
    }
    Ok(answer)
}

fn batch(world: &World, request: &Value) -> Result<Value, Refusal> {
    let ids = strings(&request["SecretIdList"]);
    if ids.is_empty() || ids.len() > MOST_IDS {
        let text = format!("Member must have length less than or equal to {MOST_IDS} CANARY");
        return Err(Refusal::new("ValidationException", text));
    }
    if world.trouble == Some(Trouble::NoBatches) {
        return Err(Refusal::new("UnknownOperationException", "CANARY"));
    }
    for id in &ids {
        check_id(world, id)?;
    }
    let (ids, next) = page(ids, request, world.page.unwrap_or(MOST_IDS), &CODES)?;
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for (index, id) in ids.iter().enumerate() {
        if world.trouble == Some(Trouble::Partial) && index % 2 == 1 {
            continue;
        }
        match value(world, id, None, None) {
            Ok(value) => values.push(value),
            Err(refusal) => errors.push(json!({
                "SecretId": id, "ErrorCode": refusal.code, "Message": refusal.text,
            })),
        }
    }
    let mut answer = json!({ "SecretValues": values, "Errors": errors });
    if let Some(next) = next {
        answer["NextToken"] = json!(next);
    }
    Ok(answer)
}

fn list(world: &World, request: &Value) -> Result<Value, Refusal> {
    let filters = request["Filters"].as_array().cloned().unwrap_or_default();
    if filters.len() > 10 {
        return Err(Refusal::new("ValidationException", "CANARY too many filters"));
    }
    let holds = |name: &str, secret: &Secret| {
        filters.iter().all(|filter| {
            let values = strings(&filter["Values"]);
            match filter["Key"].as_str().unwrap_or_default() {
                "name" => values.iter().any(|value| name.starts_with(value.as_str())),
                "tag-key" => values
                    .iter()
                    .any(|value| secret.tags.keys().any(|key| key.starts_with(value.as_str()))),
                "tag-value" => values
                    .iter()
                    .any(|value| secret.tags.values().any(|tag| tag.starts_with(value.as_str()))),
                _ => false,
            }
        })
    };
    let entries: Vec<Value> = world
        .secrets
        .iter()
        .filter(|(name, secret)| !secret.deleted && holds(name, secret))
        .map(|(name, secret)| json!({ "ARN": secret.arn, "Name": name, "Tags": tags(secret) }))
        .collect();
    let (entries, next) = page(entries, request, MOST_LISTED, &CODES)?;
    let mut answer = json!({ "SecretList": entries });
    if let Some(next) = next {
        answer["NextToken"] = json!(next);
    }
    Ok(answer)
}
