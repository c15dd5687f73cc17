//! The methods of Secret Manager.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    Action, Asked, Refusal, Trouble, World,
    checksum::{check, crc32c},
    filter::{Filter, Kind},
    route::Resource,
    secrets::{LONGEST, Secret, VersionState, quoted},
};

/// Maximum number of entries on one page.
const MOST_LISTED: usize = 25_000;
/// Maximum number of labels of a secret.
const MOST_LABELS: usize = 64;

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
        let text = format!("Secret Version [CANARY] is in {} state.", version.state.name());
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

/// Returns the page of a list that starts at the token, and the token of the next one.
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
    // It is 0 with a filter, and 0 is omitted.
    if filter.is_empty() && total > 0 {
        answer["totalSize"] = json!(total);
    }
    Ok(answer)
}
